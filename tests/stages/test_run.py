"""A stage's loop: resumed, cancelled and rolled back, it takes the steps of one that was left alone."""

from pathlib import Path

import pytest
import torch

from dreamcraft3d.errors import Cancelled, ObjectLost
from dreamcraft3d.progress import Event, Progress, StepDone, Warned
from dreamcraft3d.stages import run as run_module
from dreamcraft3d.stages.run import StageRun

STEPS = 12


def train(run: StageRun, *, steps: int = STEPS, poison: int | None = None) -> torch.Tensor:
    """Fits a line to random points; step `poison` destroys the weights."""
    model = torch.nn.Linear(3, 1)
    with torch.no_grad():
        model.weight.fill_(0.1), model.bias.zero_()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.1)
    for step in run.steps(steps, model=model, optimiser=optimiser):
        x = torch.randn(8, 3, generator=run.generator(step))
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step == poison:
            with torch.no_grad():
                model.weight.fill_(torch.nan)
        run.keep_if_healthy(step, bool(torch.isfinite(model.weight).all()), reason="not a number")
    return model.weight.detach().clone()


class CancelAt:
    """A sink that cancels after a step."""

    def __init__(self, step: int) -> None:
        self.step, self.progress = step, Progress((self,))

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone) and event.step == self.step:
            self.progress.cancel()


@pytest.mark.parametrize("stop", [1, 2, 7, STEPS - 1])
def test_cancelled_and_resumed_is_the_same_as_uninterrupted(tmp_path: Path, stop: int) -> None:
    whole = train(StageRun("fit", 3, Progress()))
    checkpoint = tmp_path / "checkpoint"
    with pytest.raises(Cancelled):
        train(StageRun("fit", 3, CancelAt(stop).progress, checkpoint))
    assert checkpoint.exists()
    assert torch.equal(train(StageRun("fit", 3, Progress(), checkpoint)), whole)


def test_a_killed_run_goes_on_from_its_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "CHECKPOINT_SECONDS", 0.0)
    whole = train(StageRun("fit", 3, Progress()))

    def die(step: int) -> None:
        if step == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed = StageRun("fit", 3, Progress((lambda e: die(getattr(e, "step", 0)),)), tmp_path / "checkpoint")
        train(killed)
    assert torch.equal(train(StageRun("fit", 3, Progress(), tmp_path / "checkpoint")), whole)


def test_different_seeds_differ_and_equal_seeds_agree() -> None:
    assert torch.equal(train(StageRun("fit", 1, Progress())), train(StageRun("fit", 1, Progress())))
    assert not torch.equal(train(StageRun("fit", 1, Progress())), train(StageRun("fit", 2, Progress())))


def test_a_broken_step_is_rolled_back_and_reported() -> None:
    events: list[Event] = []
    weights = train(StageRun("fit", 3, Progress((events.append,))), poison=5)
    assert bool(torch.isfinite(weights).all())
    warnings = [event.text for event in events if isinstance(event, Warned)]
    assert len(warnings) == 1 and "step 5" in warnings[0] and "step 4" in warnings[0]


def test_an_object_that_stays_lost_ends_with_a_remedy() -> None:
    run = StageRun("fit", 0, Progress())
    model = torch.nn.Linear(1, 1)
    with pytest.raises(ObjectLost, match="only 3 % left") as caught:
        for step in run.steps(50, model=model):
            run.keep_if_healthy(step, False, reason="only 3 % left")
    assert "seed" in caught.value.remedy


def test_a_broken_checkpoint_is_as_good_as_none(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    checkpoint.write_bytes(b"not a checkpoint")
    events: list[Event] = []
    assert not StageRun("fit", 3, Progress(), checkpoint).resumes()
    checkpoint.write_bytes(b"not a checkpoint")
    weights = train(StageRun("fit", 3, Progress((events.append,)), checkpoint))
    assert torch.equal(weights, train(StageRun("fit", 3, Progress())))
    assert any(isinstance(event, Warned) and "checkpoint" in event.text for event in events)


def test_the_book_survives_a_resume(tmp_path: Path) -> None:
    calls = [0]
    checkpoint = tmp_path / "checkpoint"
    first = StageRun("fit", 0, CancelAt(4).progress, checkpoint, lambda: calls[0])
    with pytest.raises(Cancelled):
        for _ in first.steps(10, model=torch.nn.Linear(1, 1)):
            calls[0] += 3
    second = StageRun("fit", 0, Progress(), checkpoint, lambda: calls[0])
    for _ in second.steps(10, model=torch.nn.Linear(1, 1)):
        calls[0] += 3
    assert second.evaluations == 30 and second.seconds > 0
