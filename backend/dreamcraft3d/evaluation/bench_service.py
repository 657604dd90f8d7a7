"""How quick and how small the service is with a long queue, while a job computes beside it.

A real service is started in a folder of its own, its queue is filled, the first job runs (the preview preset, with the
bundled prior), and then eight clients behave as panels do: each submits now and then, and asks for events of the
running job three times a second, over a new connection every time. Times are those that a client sees.
"""

import contextlib
import http.client
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from PIL import Image, ImageDraw

from dreamcraft3d.errors import OutputError
from dreamcraft3d.evaluation.bench import Figure
from dreamcraft3d.server.client import ServiceClient
from dreamcraft3d.server.paths import ServicePaths
from dreamcraft3d.server.state_file import ServiceState
from dreamcraft3d.server.store import Store

__all__ = ["measure_service"]

CLIENTS = 8
SUBMIT_EVERY, POLL_EVERY = 0.5, 0.3
"""Seconds between two requests of one client, as a busy panel makes them."""

STARTS = 5
MIB = 1 << 20


@dataclass
class Times:
    """Seconds that requests took."""

    seconds: list[float] = field(default_factory=list)

    def figure(self, name: str, wanted: float | None) -> Figure:
        """Their 99th percentile in milliseconds."""
        ranked = sorted(self.seconds)
        p99 = ranked[min(len(ranked) - 1, int(0.99 * len(ranked)))] if ranked else float("nan")
        median = statistics.median(ranked) if ranked else float("nan")
        worst = ranked[-1] if ranked else float("nan")
        detail = f"n {len(ranked)}, median {1000 * median:.1f} ms, worst {1000 * worst:.1f} ms"
        return Figure(f"{name} p99", round(1000 * p99, 2), "ms", wanted, detail)


def measure_service(
    *, queued: int = 10_000, seconds: float = 40.0, say: Callable[[str], None] = lambda text: None
) -> list[Figure]:
    """All figures. `queued`: jobs that wait; `seconds`: length of the measurement under load."""
    with tempfile.TemporaryDirectory(prefix="dreamcraft3d-bench-") as folder:
        home = Path(folder)
        starts = [start_time(home / f"start-{number}") for number in range(STARTS)]
        detail = f"median of {STARTS}, worst {max(starts):.2f} s"
        figures = [Figure("ready", round(statistics.median(starts), 3), "s", 1.0, detail)]
        say(f"filling the queue with {queued} jobs")
        paths = ServicePaths(home / "data", home / "run")
        paths.prepare()
        upload = fill(paths, queued)
        with running(home):
            client = ServiceClient.connect(paths)
            say("waiting for the first job to compute")
            job = first_progress(client)
            say(f"{CLIENTS} clients for {seconds:.0f} s")
            figures += under_load(client.state, job, upload, seconds)
            figures += saturated(client.state, upload, seconds / 4.0)
        return figures


# --- the service ----------------------------------------------------------------------------------


@contextlib.contextmanager
def running(home: Path) -> Iterator[float]:
    """A service of its own; the seconds that it took to be ready. It is gone afterwards, with its worker."""
    environment = {**os.environ, "DREAMCRAFT3D_HOME": str(home)}
    start = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-m", "dreamcraft3d", "serve"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    try:
        assert child.stdout is not None
        if not child.stdout.readline():
            raise OutputError("The service does not start.", "Run `dreamcraft3d serve` to see why.")
        ServiceClient.connect(ServicePaths(home / "data", home / "run")).health()
        yield time.perf_counter() - start
    finally:
        child.terminate()
        try:
            child.wait(60.0)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        child.stdout.close() if child.stdout is not None else None


def start_time(home: Path) -> float:
    """Seconds from the command until the service has answered."""
    with running(home) as seconds:
        return seconds


def fill(paths: ServicePaths, queued: int) -> str:
    """A queue of equal jobs, as the service stores them; the id of their picture."""
    import hashlib

    data = picture()
    upload = hashlib.sha256(data).hexdigest()
    (paths.uploads / upload).write_bytes(data)
    store = Store(paths.database)
    request = {"kind": "generate", "name": "bench", "preset": "preview", "settings": {}, "files": {"picture": upload}}
    for _ in range(queued):
        store.submit(request)
    store.close()
    return upload


def picture() -> bytes:
    """A ball on nothing."""
    image = Image.new("RGBA", (256, 256), (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse((40, 40, 216, 216), fill=(200, 90, 40, 255))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def first_progress(client: ServiceClient, *, seconds: float = 180.0) -> str:
    """The id of the running job, once it computes."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for job in client.jobs(state="running"):
            if job["step"] > 0:
                return str(job["id"])
        time.sleep(0.5)
    raise OutputError("No job began to compute.", "`dreamcraft3d doctor` may know why.")


# --- the clients ----------------------------------------------------------------------------------


def under_load(state: ServiceState, job: str, upload: str, seconds: float) -> list[Figure]:
    """Panels: submit now and then, poll the running job."""
    submits, polls, end = Times(), Times(), time.monotonic() + seconds
    body = json.dumps({"picture": upload, "name": "load"}).encode()

    def panel(number: int) -> None:
        since, next_submit = 0, time.monotonic() + SUBMIT_EVERY * number / CLIENTS
        next_poll = time.monotonic() + POLL_EVERY * number / CLIENTS
        while (now := time.monotonic()) < end:
            if now >= next_submit:
                timed(submits, state, "POST", "/v1/jobs", body)
                next_submit += SUBMIT_EVERY
            elif now >= next_poll:
                record = timed(polls, state, "GET", f"/v1/jobs/{job}/events?since={since}&wait=0")
                since = record["last"]
                next_poll += POLL_EVERY
            else:
                time.sleep(max(0.0, min(next_submit, next_poll) - now))

    memory = in_threads(panel, psutil.Process(state.pid))
    return [
        submits.figure("submit", 20.0),
        polls.figure("events poll", 10.0),
        Figure("memory of the service", round(memory / MIB, 1), "MiB", 120.0, "largest resident size under load"),
    ]


def saturated(state: ServiceState, upload: str, seconds: float) -> list[Figure]:
    """Clients that never pause: how much fits through. Nothing is wanted of these times, which are mostly waiting."""
    submits, end = Times(), time.monotonic() + seconds
    body = json.dumps({"picture": upload, "name": "load"}).encode()

    def greedy(_: int) -> None:
        while time.monotonic() < end:
            timed(submits, state, "POST", "/v1/jobs", body)

    in_threads(greedy, psutil.Process(state.pid))
    rate = Figure("submits without pause", round(len(submits.seconds) / seconds, 1), "1/s", None, f"{CLIENTS} clients")
    return [rate, submits.figure("submit without pause", None)]


def in_threads(work: Callable[[int], None], service: psutil.Process) -> int:
    """Runs all clients; the largest resident size of the service meanwhile."""
    threads = [threading.Thread(target=work, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    largest = 0
    while any(thread.is_alive() for thread in threads):
        largest = max(largest, service.memory_info().rss)
        time.sleep(0.2)
    return largest


def timed(times: Times, state: ServiceState, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
    """One request over a connection of its own; its JSON."""
    headers = {"Authorization": f"Bearer {state.token}", "Connection": "close", "Content-Type": "application/json"}
    start = time.perf_counter()
    connection = http.client.HTTPConnection(state.host, state.port, timeout=30.0)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        data = answer.read()
    finally:
        connection.close()
    times.seconds.append(time.perf_counter() - start)
    if answer.status >= 400:
        raise OutputError(f"The service answered {answer.status}: {data[:200]!r}.", "Its log may say why.")
    record: dict[str, Any] = json.loads(data)
    return record
