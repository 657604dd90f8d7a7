"""Progress: events in order, a usable ETA, and a cancel that stops before the next step."""

import json
from pathlib import Path

import pytest

from dreamcraft3d import progress as module
from dreamcraft3d.errors import Cancelled
from dreamcraft3d.progress import Artifact, Event, Note, Progress, StageFinished, StageStarted, StepDone, Warned


@pytest.fixture
def events() -> list[Event]:
    return []


def test_events_in_order(events):
    assert list(Progress((events.append,)).track("neus", range(2), 2)) == [0, 1]
    assert [type(event) for event in events] == [StageStarted, StepDone, StepDone, StageFinished]
    assert [event.step for event in events if isinstance(event, StepDone)] == [1, 2]


def test_eta_counts_the_steps_of_the_whole_stage(events, monkeypatch):
    clock = iter(float(i) for i in range(100))
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    list(Progress((events.append,)).track("neus", range(7, 10), 10))
    assert [event.eta for event in events if isinstance(event, StepDone)] == pytest.approx([2.0, 1.0, 0.0])


def test_cancel_stops_before_the_next_step_and_the_stage_can_save(events):
    progress = Progress((events.append,))
    seen, saved = [], False
    with pytest.raises(Cancelled):
        try:
            for step in progress.track("neus", range(10), 10):
                seen.append(step)
                if step == 3:
                    progress.cancel()
        except Cancelled:
            saved = True
            raise
    assert seen == [0, 1, 2, 3]
    assert saved
    assert progress.cancelled
    assert not any(isinstance(event, StageFinished) for event in events)


def test_cancel_in_the_last_step_does_not_undo_the_stage():
    progress = Progress()
    for _ in progress.track("neus", range(1), 1):
        progress.cancel()
    with pytest.raises(Cancelled):
        progress.check()


def test_silent_progress_still_yields():
    assert list(Progress().track("neus", iter([4, 5]), 6)) == [4, 5]


def test_events_as_json(events):
    progress = Progress((events.append,))
    progress.note("hello")
    progress.warn("careful")
    progress.artifact("turntable.png", Path("out") / "turntable.png")
    assert [type(event) for event in events] == [Note, Warned, Artifact]
    lines = [json.loads(json.dumps(event.as_dict())) for event in events]
    assert lines[1] == {"kind": "warning", "text": "careful"}
    assert lines[2] == {"kind": "artifact", "name": "turntable.png", "path": str(Path("out") / "turntable.png")}
    assert StepDone("neus", 1, 2, 3.0, 4.0).as_dict()["kind"] == "step"
