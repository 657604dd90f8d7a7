"""A batch as a whole, with real processes: everything once, what changed again, what failed apart."""

import errno
import json
import os
import re
import threading
import time
from pathlib import Path

import psutil
import pytest

from batches import PAINTER, commits, items, journal, make, runs_of, summary, tell_tale, write
from dreamcraft3d.batch.crew import Ended, LocalCrew, Told
from dreamcraft3d.batch.errors import BatchBusyError, BatchStopped, WorkersUnavailableError
from dreamcraft3d.batch.journal import Journal
from dreamcraft3d.batch.lock import BatchLock
from dreamcraft3d.batch.outcome import read_outcome
from dreamcraft3d.batch.runner import BatchEvent, Runner
from dreamcraft3d.batch.tasks import load_batch
from dreamcraft3d.errors import OutputError
from dreamcraft3d.workspace import output_error


def out_of(manifest: Path) -> Path:
    return manifest.with_name("things-out")


def test_every_item_is_made_and_committed_once(tmp_path):
    manifest = write(tmp_path, items("a", "b", "c"))
    events: list[BatchEvent] = []
    assert {s.state for s in make(manifest, jobs=2, events=events).values()} == {"done"}
    out = out_of(manifest)
    assert sorted(commits(out)) == ["a", "b", "c"]
    outcome = read_outcome(out / "items" / "a")
    assert outcome is not None
    assert set(outcome.outputs) == {"result.glb", "turntable.png", "thumbnail.webp", "report.json"}
    assert outcome.intact(out / "items" / "a")
    assert not (out / "items" / "a" / "stages").exists()
    assert not (out / "batch.lock").exists()
    assert [event.kind for event in events][:2] == ["plan", "started"]
    assert (events[-1].kind, events[-1].done, events[-1].total) == ("end", 3, 3)
    # again: nothing is done twice
    make(manifest)
    assert sorted(commits(out)) == ["a", "b", "c"]
    assert [runs_of(out, name) for name in "abc"] == [1, 1, 1]


def test_workers_stay_warm_between_items(tmp_path):
    manifest = write(tmp_path, items("a", "b", "c", "d"))
    make(manifest)
    workers = {(out_of(manifest) / "items" / name / "made.txt").read_text() for name in "abcd"}
    assert len(workers) == 1
    assert not psutil.pid_exists(int(workers.pop()))


def test_one_changed_byte_and_one_changed_setting_cost_one_item_each(tmp_path):
    manifest = write(tmp_path, items("a", "b", "c"))
    make(manifest)
    out = out_of(manifest)
    glb = out / "items" / "b" / "result.glb"
    glb.write_bytes(glb.read_bytes()[:-1] + b"x")
    make(manifest)
    assert [runs_of(out, name) for name in "abc"] == [1, 2, 1]
    rows = items("a", "b", "c")
    rows[0]["prompt"] = "a chair"
    rows[1]["tags"] = ["wood"]  # says nothing about the result
    rows[2]["seed"] = 7
    write(tmp_path, rows)
    make(manifest, keep_stale=True)
    assert [runs_of(out, name) for name in "abc"] == [1, 2, 1]
    make(manifest)
    assert [runs_of(out, name) for name in "abc"] == [2, 2, 2]


def test_a_changed_picture_is_noticed_and_a_moved_one_is_not(tmp_path):
    manifest = write(tmp_path, items("a", "b"))
    make(manifest)
    write(tmp_path, [{"id": "a", "image": "moved.png"}, {"id": "b", "image": "b.png"}])
    (tmp_path / "moved.png").write_bytes((tmp_path / "a.png").read_bytes())
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    make(manifest)
    assert [runs_of(out_of(manifest), name) for name in "ab"] == [1, 2]


@pytest.mark.slow
def test_a_poisoned_item_does_not_stop_the_others(tmp_path):
    manifest = write(tmp_path, items("a", "poison", "z"))
    standings = make(manifest)
    assert {name: s.state for name, s in standings.items()} == {"a": "done", "poison": "failed", "z": "done"}
    out = out_of(manifest)
    (error,) = [json.loads(line) for line in (out / "errors.jsonl").read_text().splitlines()]
    assert (error["id"], error["code"], error["attempts"]) == ("poison", "InputError", 1)
    assert error["message"] and error["remedy"] == "Choose another one."
    assert (out / error["log"]).is_file()
    # it is not tried again unasked, and alone when asked
    assert make(manifest)["poison"].history.attempts == 1
    (tmp_path / "a2.png").write_bytes((tmp_path / "a.png").read_bytes())
    write(tmp_path, [*items("a", "poison", "z"), {"id": "new", "image": "a2.png"}])
    standings = make(manifest, failed_only=True)
    assert (standings["poison"].history.attempts, standings["new"].state) == (2, "pending")
    assert make(manifest, retry_failed=True)["poison"].history.attempts == 3


def test_a_crash_is_tried_again_once_and_takes_nobody_along(tmp_path):
    manifest = write(tmp_path, items("a", "crash", "z"))
    standings = make(manifest)
    assert {name: s.state for name, s in standings.items()} == {"a": "done", "crash": "failed", "z": "done"}
    assert standings["crash"].error is not None
    assert (standings["crash"].error["code"], standings["crash"].history.attempts) == ("worker_lost", 2)


@pytest.mark.slow
def test_a_frozen_worker_is_found_and_killed(tmp_path):
    manifest = write(tmp_path, items("silent", "z"), {"schema": "batch/1", "limits": {"crashes": 1}})
    standings = make(manifest, silence=15.0)
    assert (standings["silent"].state, standings["z"].state) == ("failed", "done")
    assert "sign of life" in (standings["silent"].error or {})["message"]


def test_an_item_that_takes_too_long_fails_alone(tmp_path):
    manifest = write(tmp_path, [*items("slow", timeout_s=0.5), *items("z")])
    standings = make(manifest)
    assert (standings["slow"].state, standings["z"].state) == ("failed", "done")
    assert (standings["slow"].error or {})["code"] == "timeout"


@pytest.mark.slow
def test_stop_keeps_checkpoints_and_the_next_run_goes_on(tmp_path):
    manifest = write(tmp_path, items("a", "b", params={"coarse_nerf.steps": 100}))
    batch = load_batch(manifest)
    runner = Runner(batch, LocalCrew(1, command=PAINTER))
    checkpoint = batch.folder("a") / "stages" / "coarse_nerf" / "checkpoint.pt"

    def stop_in_the_middle() -> None:
        while not checkpoint.exists():
            time.sleep(0.01)
        runner.stop()

    threading.Thread(target=stop_in_the_middle).start()
    with pytest.raises(BatchStopped):
        runner.run()
    assert commits(batch.out) == []
    assert 0 < int(checkpoint.read_text()) < 100
    assert [entry["event"] for entry in journal(batch.out)].count("item_stopped") == 1
    assert "started" in {row["state"] for row in summary(batch.out)}
    make(manifest)
    assert sorted(commits(batch.out)) == ["a", "b"]


def test_priority_then_the_order_of_the_manifest(tmp_path):
    rows = items("a", "b", "c", "d")
    rows[2]["priority"] = 5
    make(write(tmp_path, rows))
    assert commits(tmp_path / "things-out") == ["c", "a", "b", "d"]


def test_seeds_and_results_do_not_depend_on_jobs_or_order(tmp_path):
    names = ("a", "b", "c", "d", "e")
    tables = []
    for number, (order, jobs) in enumerate([(names, 1), (names[::-1], 3)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in names:
            (folder / f"{name}.png").write_bytes(_picture(tmp_path, name))
        manifest = write(folder, items(*order))
        make(manifest, jobs=jobs)
        tables.append(tell_tale(out_of(manifest)))
    assert tables[0] == tables[1]
    assert len({row["seed"] for row in tables[0]}) == len(names)


def _picture(folder: Path, name: str) -> bytes:
    if not (folder / f"{name}.png").exists():
        write(folder, items(name))
    return (folder / f"{name}.png").read_bytes()


def test_only_and_limit(tmp_path):
    manifest = write(tmp_path, items("chair-1", "chair-2", "table", "Chair-3"))
    make(manifest, only=("chair-*",), limit=2)
    assert commits(out_of(manifest)) == ["chair-1", "chair-2"]
    make(manifest, only=("chair-*",))
    assert commits(out_of(manifest)) == ["chair-1", "chair-2", "Chair-3"]


def test_a_second_runner_is_told_who_is_there(tmp_path):
    manifest = write(tmp_path, items("a"))
    out = out_of(manifest)
    with BatchLock(out), pytest.raises(BatchBusyError) as caught:
        make(manifest)
    assert f"Process {os.getpid()}" in str(caught.value)
    assert caught.value.code == 4
    assert not (out / "journal.jsonl").exists()
    make(manifest)


def test_a_runner_that_lost_its_lock_commits_nothing(tmp_path):
    manifest = write(tmp_path, items("a", "b"))
    out = out_of(manifest)

    def usurp(event: BatchEvent) -> None:
        if event.kind == "started" and event.item == "a":
            lock = json.loads((out / "batch.lock").read_text())
            (out / "batch.lock").write_text(json.dumps({**lock, "token": "another"}))

    with pytest.raises(BatchBusyError):
        Runner(load_batch(manifest), LocalCrew(1, command=PAINTER), sink=usurp).run()
    assert commits(out) == []
    assert not (out / "items" / "a" / "result.json").exists()
    assert not (out / "summary.csv").exists()


def test_a_full_disk_ends_the_run_and_nothing_is_failed(tmp_path):
    manifest = write(tmp_path, items("a", "disk", "z"))
    with pytest.raises(OutputError, match="disk is full"):
        make(manifest)
    states = {entry["id"]: entry["event"] for entry in journal(out_of(manifest)) if "id" in entry}
    assert states == {"a": "item_committed", "disk": "item_stopped"}


class FullDisk(LocalCrew):
    """A crew whose workers stop at once, because the disk is full."""

    def events(self, seconds: float) -> list[Told | Ended]:
        ends = [event for event in super().events(seconds) if isinstance(event, Ended)]
        return [Ended(event.item, "stopped", {"reason": "disk"}) for event in ends]


def test_a_worker_that_stopped_for_the_disk_ends_the_run(tmp_path):
    batch = load_batch(write(tmp_path, items("a", "z")))
    with pytest.raises(OutputError, match="disk is full"):
        Runner(batch, FullDisk(1, command=PAINTER)).run()
    assert [entry["event"] for entry in journal(batch.out) if "id" in entry] == ["item_started", "item_stopped"]
    assert {standing.state for standing in make(batch.source).values()} == {"done"}


def test_a_disk_that_fills_up_under_the_journal(tmp_path, monkeypatch):
    manifest = write(tmp_path, items("a", "b", "c"))
    out = out_of(manifest)
    append = Journal.append

    def full(self: Journal, event: str, item: str | None = None, **data: object) -> None:
        if event == "item_committed" and item == "b":
            raise output_error(OSError(errno.ENOSPC, ""), out)
        append(self, event, item, **data)

    with monkeypatch.context() as patch, pytest.raises(OutputError, match="disk is full"):
        patch.setattr(Journal, "append", full)
        make(manifest)
    assert commits(out) == ["a"]
    make(manifest)  # b was committed before its line was lost
    assert sorted(commits(out)) == ["a", "b", "c"]
    assert runs_of(out, "b") == 1


def test_a_folder_that_cannot_be_written(tmp_path):
    manifest = write(tmp_path, items("a"))
    out_of(manifest).write_text("in the way")
    with pytest.raises(OutputError):
        make(manifest)


def test_no_worker_no_batch(tmp_path):
    manifest = write(tmp_path, items("a"))
    crew = LocalCrew(1, command=("python3", "-c", "raise SystemExit('no torch here')"))
    with pytest.raises(WorkersUnavailableError, match="no torch here") as caught:
        Runner(load_batch(manifest), crew).run()
    assert caught.value.code == 4
    with pytest.raises(WorkersUnavailableError):
        Runner(load_batch(manifest), LocalCrew(1, command=("/nowhere/python",))).run()


def test_the_contact_sheet_shows_everything_and_needs_nothing(tmp_path):
    manifest = write(tmp_path, items("a", "poison", name='<b>"chair"</b>'))
    make(manifest)
    page = (out_of(manifest) / "index.html").read_text(encoding="utf-8")
    assert "<b>" not in page and "&lt;b&gt;" in page
    sources = re.findall(r'src="([^"]*)"', page)
    assert len(sources) == 3 and all(source.startswith("data:image/webp;base64,") for source in sources)
    links = re.findall(r'href="([^"]*)"', page)
    assert len(links) == 5 and all((out_of(manifest) / link).is_file() for link in links)
    assert page.index('id="poison"') < page.index('id="a"')
    assert "The picture shows nothing." in page


def test_a_spreadsheet_takes_no_word_for_a_formula(tmp_path):
    rows = items("a", prompt="=1+1", name="@home")
    make(write(tmp_path, rows))
    (row,) = summary(tmp_path / "things-out")
    assert (row["prompt"], row["name"]) == ("'=1+1", "'@home")
