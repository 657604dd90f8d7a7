"""The executor against a real process that misbehaves: whatever happens, the job ends where it should and the service
goes on."""

import itertools
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from dreamcraft3d.executors import child as child_module
from dreamcraft3d.executors import local
from dreamcraft3d.executors.base import Executor, MaskRequest
from dreamcraft3d.executors.local import LocalExecutor
from dreamcraft3d.server import jobs
from dreamcraft3d.server.jobs import Input, State
from dreamcraft3d.server.paths import ServicePaths
from dreamcraft3d.server.store import Job, Store
from patience import PATIENCE, eventually

STAND_IN = (sys.executable, str(Path(__file__).parent / "stand_in.py"))


@pytest.fixture
def paths(tmp_path: Path) -> ServicePaths:
    paths = ServicePaths(tmp_path / "data", tmp_path / "run")
    paths.prepare()
    return paths


@pytest.fixture
def store(paths: ServicePaths) -> Iterator[Store]:
    store = Store(paths.database)
    yield store
    store.close()


@pytest.fixture
def executor(store: Store, paths: ServicePaths, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalExecutor]:
    monkeypatch.setattr(local, "TICK_SECONDS", 0.05)
    before = children()
    executor: LocalExecutor = LocalExecutor(store, paths, room_mib=1, command=STAND_IN)
    checked: Executor = executor
    checked.start()
    yield executor
    executor.stop()
    assert children() <= before, "no process is left"


def children() -> set[int]:
    """Processes below this one, but for the one that Python keeps for shared resources once anything was spawned."""
    found = psutil.Process().children(recursive=True)
    return {child.pid for child in found if not any("resource_tracker" in word for word in child.cmdline())}


def submit(store: Store, executor: LocalExecutor, name: str) -> str:
    job, _ = store.submit({"name": name, "files": {}})
    executor.poke()
    return job.id


def ended(store: Store, job: str) -> Job:
    eventually(lambda: store.get(job).life.state.over)
    return store.get(job)


def types(store: Store, job: str) -> list[str]:
    events = store.events(job)
    assert [event.number for event in events] == list(range(1, len(events) + 1))
    return [event.type for event in events]


def test_jobs_run_one_after_the_other_in_one_worker(store: Store, executor: LocalExecutor) -> None:
    jobs = [submit(store, executor, "plain") for _ in range(3)]
    for job in jobs:
        assert ended(store, job).life.state is State.FINISHED
        assert types(store, job) == ["queued", "started", "stage", *["progress"] * 5, "finished"]
    times = [store.get(job) for job in jobs]
    assert all(a.finished <= b.started for a, b in itertools.pairwise(times))  # type: ignore[operator]
    assert len(children()) == 1


def test_a_failure_carries_its_remedy_and_the_next_job_runs(store: Store, executor: LocalExecutor) -> None:
    bad, good = submit(store, executor, "fail"), submit(store, executor, "plain")
    failed = ended(store, bad)
    assert failed.error is not None
    assert failed.error["hint"] == "yes"
    assert ended(store, good).life.state is State.FINISHED


def test_a_crashing_job_fails_after_three_losses(store: Store, executor: LocalExecutor) -> None:
    bad, good = submit(store, executor, "crash"), submit(store, executor, "plain")
    failed = ended(store, bad)
    assert (failed.life.state, failed.error["code"]) == (State.FAILED, "worker_lost")  # type: ignore[index]
    assert "smaller preset" in failed.error["hint"]  # type: ignore[index]
    assert types(store, bad).count("started") == 3
    assert ended(store, good).life.state is State.FINISHED


def test_a_worker_that_the_system_ended_for_want_of_memory_fails_at_once(
    store: Store, executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_module, "memory_is_short", lambda: True)
    failed = ended(store, submit(store, executor, "kill"))
    assert failed.error["code"] == "out_of_memory"  # type: ignore[index]
    assert "smaller preset" in failed.error["hint"]  # type: ignore[index]
    assert types(store, failed.id).count("started") == 1


def test_a_worker_that_somebody_kills_is_not_the_jobs_fault(
    store: Store, executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "MAX_LOSSES", 6)
    job = ended(store, submit(store, executor, "kill"))
    assert types(store, job.id).count("started") == 6
    assert job.error["code"] == "worker_lost"  # type: ignore[index]


def test_a_worker_that_beats_but_does_nothing_is_found(
    store: Store, executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "SILENCE_SECONDS", 3.0)  # on a busy machine its beats may be late
    monkeypatch.setattr(jobs, "MAX_LOSSES", 1)
    failed = ended(store, submit(store, executor, "hang"))
    assert "did not work" in failed.error["message"]  # type: ignore[index]


def test_a_frozen_worker_is_found_and_replaced(
    store: Store, executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "SILENCE_SECONDS", 1.0)
    failed = ended(store, submit(store, executor, "freeze"))
    assert failed.life.state is State.FAILED
    assert "no sign of life" in failed.error["message"]  # type: ignore[index]


def test_a_worker_that_does_not_listen_is_killed(
    store: Store, executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "GRACE_SECONDS", 0.5)
    job = submit(store, executor, "deaf")
    eventually(lambda: "progress" in types(store, job))
    store.apply(job, Input.CANCEL)
    executor.poke()
    assert ended(store, job).life.state is State.CANCELLED


def test_pause_resume_and_cancel(store: Store, executor: LocalExecutor) -> None:
    job = submit(store, executor, "long")
    eventually(lambda: "progress" in types(store, job))
    store.apply(job, Input.PAUSE)
    executor.poke()
    eventually(lambda: store.get(job).life.state is State.PAUSED)
    assert store.events(job)[-1].data == {"reason": "user"}
    other = ended(store, submit(store, executor, "plain"))
    assert other.life.state is State.FINISHED, "a paused job is no obstacle"
    store.apply(job, Input.RESUME)
    executor.poke()
    eventually(lambda: store.get(job).life.state is State.RUNNING)
    store.apply(job, Input.CANCEL)
    executor.poke()
    assert ended(store, job).life.state is State.CANCELLED


def test_garbage_is_survived(store: Store, executor: LocalExecutor) -> None:
    assert ended(store, submit(store, executor, "garbage")).life.state is State.FINISHED


def test_a_full_disk_pauses_and_room_resumes(
    store: Store, executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(store, executor, "long")
    eventually(lambda: "progress" in types(store, job))
    room = shutil.disk_usage
    monkeypatch.setattr(local.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    eventually(lambda: store.get(job).life.state is State.PAUSED)
    assert store.events(job)[-1].data == {"reason": "disk"}
    waiting = submit(store, executor, "plain")
    time.sleep(0.3)
    assert store.get(waiting).life.state is State.QUEUED, "nothing starts on a full disk"
    monkeypatch.setattr(local.shutil, "disk_usage", room)
    eventually(lambda: store.get(job).life.state is State.RUNNING or store.get(waiting).life.state is State.RUNNING)
    store.apply(job, Input.CANCEL)
    executor.poke()
    assert ended(store, waiting).life.state is State.FINISHED


def test_stopping_the_service_keeps_the_job(store: Store, paths: ServicePaths, executor: LocalExecutor) -> None:
    job = submit(store, executor, "long")
    eventually(lambda: "progress" in types(store, job))
    executor.stop()
    assert store.get(job).life.state is State.QUEUED
    assert types(store, job)[-1] == "queued"


def test_the_mask_is_shown_without_a_job(store: Store, executor: LocalExecutor, tmp_path: Path) -> None:
    request = MaskRequest({"picture": tmp_path / "a.png"}, {}, tmp_path / "mask.png")
    assert executor.mask(request, seconds=PATIENCE) == {"ok": True, "matting": "given mask"}
    submit(store, executor, "long")
    eventually(lambda: executor.busy)
    assert executor.mask(request, seconds=PATIENCE)["ok"], "beside a running job too"
