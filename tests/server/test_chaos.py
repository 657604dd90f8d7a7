"""Whatever is killed, and whenever: no job is lost, doubled or half written, and nothing is left running.

`DREAMCRAFT3D_CHAOS=30` sets the number of kills (jobs: ten); by default a short version runs.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from patience import PATIENCE, RUN_PATIENCE
from tiny import SETTINGS

KILLS = int(os.environ.get("DREAMCRAFT3D_CHAOS", "4"))
JOBS = 10 if KILLS >= 30 else 3
PICTURE = Path(__file__).parents[2] / "examples" / "rocket.png"
QUICK = {
    **SETTINGS,
    "coarse_nerf.steps": 16,
    "neus.steps": 4,
    "neus.fit_steps": 20,
    "geometry.steps": 6,
    "texture.steps": 6,
    "texture.fit_steps": 10,
}


class Backend:
    """A real service in a folder of its own, restarted whenever it is dead."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {**os.environ, "DREAMCRAFT3D_HOME": str(home), "OMP_NUM_THREADS": "1"}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dreamcraft3d", "serve"], env=self.environment, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.ask("GET", "/v1/server", seconds=PATIENCE)
                return
            except (OSError, ValueError, KeyError, StopIteration):
                assert time.monotonic() < deadline, "the service does not start"
                time.sleep(0.1)

    def ask(self, method: str, path: str, body: bytes | None = None, *, seconds: float = PATIENCE) -> Any:
        state = json.loads(next(self.home.rglob("service.json")).read_text())
        request = urllib.request.Request(f"http://127.0.0.1:{state['port']}{path}", data=body, method=method)
        request.add_header("Authorization", f"Bearer {state['token']}")
        request.add_header("Content-Type", "application/json" if path != "/v1/uploads" else "application/octet-stream")
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            return json.loads(answer.read())

    def patiently(self, method: str, path: str, body: bytes | None = None) -> Any:
        """Asks again until the service is there."""
        for _ in range(100):
            try:
                return self.ask(method, path, body)
            except urllib.error.HTTPError:
                raise
            except (OSError, StopIteration, ValueError):
                if self.process is None or self.process.poll() is not None:
                    self.start()
                time.sleep(0.2)
        raise AssertionError("the service does not answer")

    def submit(self, number: int) -> str:
        upload = self.patiently("POST", "/v1/uploads", PICTURE.read_bytes())["id"]
        request = {"kind": "generate", "picture": upload, "preset": "preview", "client_key": f"key-{number}",
                   "settings": {**QUICK, "seed": number}}  # fmt: skip
        return str(self.patiently("POST", "/v1/jobs", json.dumps(request).encode())["id"])

    def job(self, job: str) -> Any:
        return self.patiently("GET", f"/v1/jobs/{job}")

    def family(self) -> list[psutil.Process]:
        """The service and everything that it has started, orphans included."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("DREAMCRAFT3D_HOME") == str(self.home):
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return [p for p in found if p.pid != os.getpid()]

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(PATIENCE)


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    backend = Backend(tmp_path)
    yield backend
    backend.stop()
    deadline = time.monotonic() + PATIENCE
    while backend.family() and time.monotonic() < deadline:
        time.sleep(0.2)
    left = backend.family()
    for process in left:
        process.kill()
    assert not left, "no process is left"


def finish(backend: Backend, jobs: list[str], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while any(backend.job(job)["state"] in ("queued", "running") for job in jobs):
        assert time.monotonic() < deadline, [backend.job(job)["state"] for job in jobs]
        time.sleep(0.5)


def check(backend: Backend, jobs: list[str]) -> None:
    """Everything is finished, complete and told without a gap."""
    for job in jobs:
        view = backend.job(job)
        assert view["state"] == "finished", view
        events = backend.patiently("GET", f"/v1/jobs/{job}/events?since=0")["events"]
        assert [event["number"] for event in events] == list(range(1, len(events) + 1))
        assert [event["type"] for event in events].count("finished") == 1
        folder = next(path for path in backend.home.rglob(job) if path.is_dir())
        assert not list(folder.rglob(".partial-*"))
        glb = (folder / "result.glb").read_bytes()
        assert glb[:4] == b"glTF"
        assert int.from_bytes(glb[8:12], "little") == len(glb)
        assert json.loads((folder / "report.json").read_text())["faces"] > 0
        Image.open(folder / "turntable.png").load()
    listed = backend.patiently("GET", "/v1/jobs?limit=100")["jobs"]
    assert sorted(job["id"] for job in listed) == sorted(jobs), "nothing lost, nothing twice"


@pytest.mark.slow
def test_random_kills_of_service_and_worker(backend: Backend) -> None:
    rng = random.Random(1)
    backend.start()
    jobs = [backend.submit(number) for number in range(JOBS)]
    for _ in range(KILLS):
        time.sleep(rng.uniform(2.0, 12.0))
        victims = [p for p in backend.family() if backend.process is not None and p.pid != backend.process.pid]
        if rng.random() < 0.5 and victims:
            for victim in victims:
                victim.send_signal(signal.SIGKILL)
        elif backend.process is not None:
            backend.process.kill()
            backend.process.wait()
            backend.start()
    again = [backend.submit(number) for number in range(JOBS)]
    assert again == jobs, "the same request is the same job"
    finish(backend, jobs, RUN_PATIENCE + 2 * PATIENCE * JOBS)
    check(backend, jobs)


@pytest.mark.slow
@pytest.mark.skipif(KILLS < 30, reason="part of the long chaos run (DREAMCRAFT3D_CHAOS=30)")
def test_a_worker_that_stands_still_for_twenty_seconds(backend: Backend) -> None:
    """Below the limit of silence it just goes on; above, it is replaced. Either way the job is finished."""
    backend.start()
    job = backend.submit(0)
    while backend.job(job)["state"] != "running":
        time.sleep(0.2)
    time.sleep(8.0)
    for process in backend.family():
        if backend.process is not None and process.pid != backend.process.pid:
            process.suspend()
    time.sleep(20.0)
    for process in backend.family():
        process.resume()
    finish(backend, [job], RUN_PATIENCE)
    check(backend, [job])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounting a small disk needs root on Linux")
def test_a_full_disk_pauses_the_job_and_loses_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=800m", "tmpfs", str(disk)], check=False).returncode != 0:
        pytest.skip("mounting is not allowed here")
    backend = Backend(disk)
    try:
        backend.start()
        job = backend.submit(0)
        while backend.job(job)["state"] != "running":
            time.sleep(0.2)
        ballast = disk / "ballast"
        with ballast.open("wb") as file:
            file.write(bytes(shutil.disk_usage(disk).free - (20 << 20)))
        deadline = time.monotonic() + PATIENCE
        while backend.job(job)["state"] not in ("paused", "finished"):
            assert time.monotonic() < deadline
            time.sleep(0.3)
        if backend.job(job)["state"] == "paused":
            events = backend.patiently("GET", f"/v1/jobs/{job}/events?since=0")["events"]
            assert events[-1]["data"]["reason"] == "disk"
        ballast.unlink()
        time.sleep(3.0)
        finish(backend, [job], RUN_PATIENCE)
        check(backend, [job])
    finally:
        backend.stop()
        subprocess.run(["umount", "-l", str(disk)], check=False)
