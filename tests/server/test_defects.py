"""What once went wrong between the store, the executor and the worker; each test states what should be so."""

import contextlib
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from dreamcraft3d.executors import local
from dreamcraft3d.executors.local import LocalExecutor
from dreamcraft3d.progress import Progress
from dreamcraft3d.server import worker as worker_module
from dreamcraft3d.server.jobs import Input, Lifecycle, State, step
from dreamcraft3d.server.paths import ServicePaths
from dreamcraft3d.server.store import Store
from dreamcraft3d.server.worker import Worker
from patience import PATIENCE, eventually

STAND_IN = (sys.executable, str(Path(__file__).parents[1] / "executors" / "stand_in.py"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Leaves not a byte."""
    ballast = folder / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return ballast


def test_the_store_works_again_after_a_full_disk(small_disk: Path) -> None:
    store = Store(small_disk / "jobs.sqlite")
    job, _ = store.submit({})
    ballast = fill(small_disk)
    with pytest.raises(sqlite3.OperationalError):
        for _ in range(5000):
            store.add_event(job.id, "note", {"text": "x" * 500})
    ballast.unlink()
    before = store.get(job.id).last_event
    store.add_event(job.id, "note", {"text": "room again"})
    assert [event.number for event in store.events(job.id, limit=100_000)] == list(range(1, before + 2))


@contextlib.contextmanager
def running(store: Store, paths: ServicePaths, command: tuple[str, ...] = STAND_IN) -> Iterator[LocalExecutor]:
    """An executor that looks around twenty times a second."""
    executor = LocalExecutor(store, paths, room_mib=1, command=command)
    executor.start()
    try:
        yield executor
    finally:
        executor.stop()
        store.close()


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServicePaths:
    monkeypatch.setattr(local, "TICK_SECONDS", 0.05)
    paths = ServicePaths(tmp_path / "data", tmp_path / "run")
    paths.prepare()
    return paths


def test_a_job_whose_end_could_not_be_written_is_not_running_for_ever(small_disk: Path, paths: ServicePaths) -> None:
    """The disk fills while it runs: the stop is obeyed, its transition cannot be written, and later it must be."""
    paths = ServicePaths(small_disk / "data", paths.runtime)
    paths.prepare()
    store = Store(paths.database)
    with running(store, paths) as executor:
        job, _ = store.submit({"name": "long", "files": {}})
        executor.poke()
        eventually(lambda: len(store.events(job.id)) > 4)
        ballast = fill(small_disk)
        eventually(lambda: executor._was_full)
        time.sleep(2.0)
        ballast.unlink()
        told = ["paused", "resumed", "started"]  # it goes on by itself

        def seen() -> list[str]:
            return [event.type for event in store.events(job.id, limit=9999) if event.type in told][1:]

        eventually(lambda: seen() == told)
        assert store.get(job.id).life.state is State.RUNNING


def test_paused_for_the_disk_goes_on_after_a_restart(paths: ServicePaths) -> None:
    store = Store(paths.database)
    job, _ = store.submit({"name": "plain", "files": {}})
    store.claim_next()
    store.apply(job.id, Input.YIELD, {"reason": "disk"})
    with running(store, paths):
        eventually(lambda: store.get(job.id).life.state.over)
        assert store.get(job.id).life.state is State.FINISHED


def test_a_worker_that_cannot_be_started_costs_no_job(paths: ServicePaths) -> None:
    store = Store(paths.database)
    job, _ = store.submit({"name": "plain", "files": {}})
    with running(store, paths, (str(paths.data / "python-that-comes-later"),)) as executor:
        time.sleep(0.5)  # as when no process can be made for want of memory
        assert store.get(job.id).life.state is State.QUEUED
        executor._command = STAND_IN
        eventually(lambda: store.get(job.id).life.state.over)
        assert store.get(job.id).life.state is State.FINISHED


def test_a_job_that_always_crashes_at_the_same_step_fails_at_last(tmp_path: Path) -> None:
    store = Store(tmp_path / "jobs.sqlite")
    job, _ = store.submit({})
    for _ in range(20):
        if store.claim_next() is None:
            break
        for at in (1, 2, 3):
            data = {"stage": "neus", "step": at, "total": 9, "eta": 1.0}
            store.add_event(job.id, "progress", data, progress=data)
        store.apply(job.id, Input.CRASH)
    assert store.get(job.id).life.state is State.FAILED


def test_resumed_while_it_was_stopping_for_a_pause_it_goes_on() -> None:
    life = Lifecycle()
    for event in (Input.CLAIM, Input.PAUSE, Input.RESUME):
        life = step(life, event)
    assert step(life, Input.RELEASE).state is State.QUEUED


def test_moving_jobs_back_and_forth_keeps_the_order(tmp_path: Path) -> None:
    store = Store(tmp_path / "jobs.sqlite")
    a, b, c = (store.submit({"n": n})[0].id for n in range(3))
    for _ in range(53):
        store.reorder(a, before=c)
        a, b = b, a
    order = []
    while (job := store.claim_next()) is not None:
        order.append(job.id)
    assert order == [a, b, c]


def run_worker(lines: str, compute: Callable[..., dict], monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    said: list[dict] = []
    monkeypatch.setattr(Worker, "_compute", compute)
    Worker(io.StringIO(lines), said.append).serve()
    return said


def test_a_stop_right_after_the_start_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The listener may read both lines before the main thread has begun the job."""

    def compute(_self: Worker, _order: dict, _folder: Path, progress: Progress) -> dict:
        for _ in progress.track("neus", range(50), 50):
            time.sleep(0.02)
        return {}

    reached = threading.Event()
    original = Worker._run

    def late(self: Worker, order: dict) -> None:
        reached.wait(PATIENCE)
        original(self, order)

    monkeypatch.setattr(Worker, "_run", late)
    monkeypatch.setattr(Worker, "_compute", compute)
    read, write = os.pipe()
    said: list[dict] = []
    with os.fdopen(read) as commands, os.fdopen(write, "w", buffering=1) as pipe:
        worker = Worker(commands, said.append)
        thread = threading.Thread(target=worker.serve)
        thread.start()
        pipe.write(json.dumps({"run": {"job": "j", "folder": str(tmp_path / "j"), "request": {}, "files": {}}}) + "\n")
        pipe.write(json.dumps({"stop": "cancel"}) + "\n")
        time.sleep(0.3)
        reached.set()
        eventually(lambda: any("done" in message for message in said))
        pipe.close()
        thread.join(PATIENCE)
    (done,) = [message for message in said if "done" in message]
    assert done["done"]["outcome"] == "stopped"


def test_a_failing_preview_does_not_fail_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "PREVIEW_SECONDS", 0.0)

    def compute(_self: Worker, _order: dict, _folder: Path, progress: Progress) -> dict:
        def draw() -> bytes:
            raise RuntimeError("there is nothing to see yet")

        assert progress.preview is not None
        progress.preview("neus", draw)
        return {}

    order = {"run": {"job": "j", "folder": str(tmp_path / "j"), "request": {}, "files": {}}}
    monkeypatch.setattr(Worker, "_compute", compute)
    read, write = os.pipe()
    said: list[dict] = []
    with os.fdopen(read) as commands, os.fdopen(write, "w", buffering=1) as pipe:
        thread = threading.Thread(target=Worker(commands, said.append).serve)
        thread.start()
        pipe.write(json.dumps(order) + "\n")
        eventually(lambda: any("done" in message for message in said))
        pipe.close()
        thread.join(PATIENCE)
    (done,) = [message for message in said if "done" in message]
    assert done["done"]["outcome"] == "finished"


@pytest.mark.slow
def test_a_full_disk_stops_a_job_instead_of_failing_it(small_disk: Path, tmp_path: Path) -> None:
    """The real worker, whose folder has no room: neither failed nor dead."""
    fill(small_disk)
    picture = Path(__file__).parents[2] / "examples" / "mug.png"
    order = {"job": "j", "folder": str(small_disk), "request": {"preset": "preview", "settings": {}},
             "files": {"picture": str(picture)}}  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "dreamcraft3d.server.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(json.dumps({"run": order}) + "\n")
        process.stdin.flush()
        done = next((m for m in map(json.loads, process.stdout) if "done" in m), None)
        assert done is not None, f"the worker died with code {process.wait()}"
        assert (done["done"]["outcome"], done["done"].get("reason")) == ("stopped", "disk"), done
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_service_that_slept_does_not_kill_its_healthy_worker(tmp_path: Path) -> None:
    """SIGSTOP of the service for longer than the silence that it allows (a laptop that slept)."""
    script = f"""
import sys, time
from pathlib import Path
from dreamcraft3d.executors import local
from dreamcraft3d.server.paths import ServicePaths
from dreamcraft3d.server.store import Store
local.SILENCE_SECONDS, local.TICK_SECONDS = 3.0, 0.05
paths = ServicePaths(Path({str(tmp_path / "data")!r}), Path({str(tmp_path / "run")!r})); paths.prepare()
store = Store(paths.database)
executor = local.LocalExecutor(store, paths, room_mib=1, command={STAND_IN!r})
executor.start()
store.submit({{"name": "long", "files": {{}}}}); executor.poke()
print("up", flush=True)
sys.stdin.read()
executor.stop()
"""
    service = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert service.stdout is not None and service.stdin is not None
    try:
        assert service.stdout.readline() == "up\n"
        store = Store(tmp_path / "data" / "jobs.sqlite")
        eventually(lambda: store.page()[0].last_event > 4)
        for _ in range(2):
            service.send_signal(signal.SIGSTOP)
            time.sleep(4.0)
            service.send_signal(signal.SIGCONT)
            time.sleep(0.3)
        assert [e.type for e in store.events(store.page()[0].id)].count("started") == 1
    finally:
        service.stdin.close()
        service.wait(PATIENCE)


def test_a_frozen_worker_of_a_killed_service_is_not_left_behind(tmp_path: Path) -> None:
    """The service is SIGKILLed while its worker is stopped; the next service must find and end it."""
    script = f"""
import sys, time
from pathlib import Path
from dreamcraft3d.executors import local
from dreamcraft3d.server.paths import ServicePaths
from dreamcraft3d.server.store import Store
local.TICK_SECONDS = 0.05
for name in ("GRACE_SECONDS", "SILENCE_SECONDS"): setattr(local, name, 1.0)
paths = ServicePaths(Path({str(tmp_path / "data")!r}), Path({str(tmp_path / "run")!r})); paths.prepare()
store = Store(paths.database)
executor = local.LocalExecutor(store, paths, room_mib=1, command={STAND_IN!r})
executor.start()
print("up", flush=True)
sys.stdin.read()
executor.stop()
"""
    start = [sys.executable, "-c", script]
    service = subprocess.Popen(start, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert service.stdout is not None
    service.stdout.readline()
    store = Store(tmp_path / "data" / "jobs.sqlite")
    store.submit({"name": "long", "files": {}})
    eventually(lambda: store.page()[0].last_event > 4)
    (worker,) = psutil.Process(service.pid).children()
    worker.suspend()
    try:
        service.kill()
        service.wait()
        again = subprocess.Popen(start, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert again.stdout is not None and again.stdin is not None
        again.stdout.readline()
        eventually(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE, 8.0)
    finally:
        again.stdin.close()
        again.wait(30.0)
        if worker.is_running():
            worker.kill()
