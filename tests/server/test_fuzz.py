"""Requests that nobody would send, by the document and below it.

`DREAMCRAFT3D_FUZZ=12000` sets how many requests there are; by default a short version runs. The service runs in this
process, on a real socket, so that an audit hook sees every file that its threads open.
"""

import os
import random
import re
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from dreamcraft3d.priors import models
from dreamcraft3d.server.artifacts import ARTIFACTS
from dreamcraft3d.server.jobs import Input
from patience import PATIENCE
from serving import TOKEN, Hosted, png

REQUESTS = int(os.environ.get("DREAMCRAFT3D_FUZZ", "500"))
PACKAGE = Path(models.__file__).parents[1]
UPLOAD = re.compile("[0-9a-f]{64}")


# --- which files are opened -----------------------------------------------------------------------


class Watch:
    """Files that the service's threads open while it is on. (A hook cannot be taken away again, only be told off.)"""

    def __init__(self) -> None:
        self.on = False
        self.opened: set[tuple[str, bool]] = set()
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on or event not in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink"):
            return
        name = threading.current_thread().name
        path = arguments[0]
        if (name == "service" or "AnyIO" in name) and isinstance(path, str | bytes | os.PathLike):
            if os.sep not in os.fsdecode(path):
                return  # relative to an open folder, as rmtree does it
            writes = event != "open" or bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
            self.opened.add((os.path.abspath(os.fsdecode(path)), writes))  # noqa: PTH100 - a string is what is compared


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch()


@pytest.fixture
def watched(hosted: Hosted, watch: Watch) -> Iterator[Hosted]:
    """A service with some jobs; afterwards it must be well, and have opened nothing outside of its folder."""
    furnish(hosted)
    watch.opened.clear()
    watch.on = True
    yield hosted
    watch.on = False
    assert hosted.http.get("/v1/health").status_code == 200
    data = hosted.service.paths.data
    ours = (str(data), str(models.home()), str(PACKAGE), sys.prefix, sys.base_prefix, "/proc/", "/sys/", os.devnull)
    assert any(path.startswith(str(data)) for path, _ in watch.opened), "the watch sees nothing"
    assert not [path for path, writes in watch.opened if writes and not path.startswith((str(data), os.devnull))]
    assert not [path for path, _ in watch.opened if not path.startswith(ours)]
    for path in hosted.service.uploads.folder.iterdir():
        assert UPLOAD.fullmatch(path.name), "half an upload"


def furnish(hosted: Hosted) -> None:
    """One job in each state, the finished one with files."""
    for target in (None, Input.SUCCEED, Input.FAIL, None, None):
        job = hosted.submit()["id"]
        if target is not None:
            hosted.store.reorder(job, before=None)
            claimed = hosted.store.claim_next()
            assert claimed is not None
            folder = hosted.service.paths.job(claimed.id)
            folder.mkdir(parents=True)
            for name in list(ARTIFACTS)[:4]:
                (folder / name).write_bytes(b"content of an artifact")
            error = {"code": "bug", "message": "m", "hint": "h", "log_tail": ["t"]} if target is Input.FAIL else None
            hosted.store.apply(claimed.id, target, {"report": {}}, error=error)


# --- by the document ------------------------------------------------------------------------------

LEFT_OUT = ("/v1/shutdown",)
"""It would end the test."""


@pytest.mark.slow
def test_the_service_keeps_what_its_document_promises(watched: Hosted):
    """Well-formed and ill-formed requests for every operation; no server error, and answers as documented."""
    document = watched.http.get("/v1/openapi.json").json()
    operations = [result.ok() for result in schemathesis.openapi.from_dict(document).get_all_operations()]
    operations = [operation for operation in operations if operation.path not in LEFT_OUT]
    assert len(operations) >= 11
    statuses: Counter[int] = Counter()
    for operation in operations:
        ask(operation, watched, statuses, examples=max(5, REQUESTS // 2 // len(operations)))
    assert {200, 404, 422} <= set(statuses)
    assert not [status for status in statuses if status >= 500]
    print(f"{sum(statuses.values())} requests by the document: {dict(sorted(statuses.items()))}")


def ask(operation: Any, hosted: Hosted, statuses: Counter[int], *, examples: int) -> None:
    """Many requests for one operation; half of the time its job and its uploads exist."""
    furnish(hosted)  # an operation before may have deleted what there was
    jobs = [job.id for job in hosted.store.page()]
    upload = hosted.upload(png(64, 64))
    headers = {"Authorization": f"Bearer {TOKEN}"}
    good = operation.as_strategy(generation_mode=schemathesis.GenerationMode.POSITIVE)
    bad = operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE)
    cases = good | bad if operation.body or operation.query or operation.path_parameters else good

    @settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True
    )
    @given(case=cases, job=st.none() | st.sampled_from(jobs), name=st.none() | st.sampled_from(list(ARTIFACTS)))
    def request(case: Any, job: str | None, name: str | None) -> None:
        if job is not None and "job_id" in (case.path_parameters or {}):
            case.path_parameters["job_id"] = job
        if name is not None and "name" in (case.path_parameters or {}):
            case.path_parameters["name"] = name
        if isinstance((case.query or {}).get("wait"), int | float):
            case.query["wait"] = min(case.query["wait"], 0.02)  # thirty seconds would be an answer in time
        if job is not None and isinstance(case.body, dict) and "picture" in case.body:
            case.body = {**case.body, "picture": upload, "mask": None, "depth": None, "normal": None, "mesh": None}
        answer = case.call(base_url=str(hosted.http.base_url), headers=headers, timeout=PATIENCE)
        statuses[answer.status_code] += 1
        checks = [status_code_conformance, response_schema_conformance, content_type_conformance]
        case.validate_response(answer, checks=[schemathesis.checks.not_a_server_error, *checks])

    request()


# --- below it -------------------------------------------------------------------------------------

ROUTES = (
    b"GET /v1/health", b"GET /v1/server", b"GET /v1/jobs?limit=3", b"POST /v1/jobs", b"POST /v1/uploads",
    b"GET /v1/jobs/%s", b"GET /v1/jobs/%s/events?since=0&wait=0", b"POST /v1/jobs/%s/cancel", b"DELETE /v1/jobs/%s",
    b"GET /v1/jobs/%s/artifacts/result.glb", b"POST /v1/jobs/%s/reorder", b"GET /v1/openapi.json",
    b"POST /v1/reference",
)  # fmt: skip
PIECES = (
    b"\r\n", b"\n", b"\x00", b"\xff\xfe", b"../", b"%2e%2e%2f", b"%00", b"' OR 1=1 --", b"A" * 5000, b": ", b"\r\n\r\n",
    b"Content-Length: 99999999999999999999\r\n", b"Content-Length: -1\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n", b"Host: evil.example\r\n", b"Origin: http://evil.example\r\n",
    b"Expect: 100-continue\r\n", b"Range: bytes=0-999999999999999999999\r\n", b"Range: bytes=-0\r\n",
    b"If-None-Match: *\r\n", b"Upgrade: websocket\r\nConnection: Upgrade\r\n", b"Connection: close\r\n", b"HTTP/9.9",
    b"0\r\n\r\n", b"ffffffffffffffff\r\n", b"\xf0\x9f\x92\xa9", b"{", b"[" * 3000, b"\"\\ud800\"", b"1e999", b"NaN",
)  # fmt: skip


def raw_request(chance: random.Random, authorization: bytes, jobs: list[bytes], upload: bytes) -> bytes:
    """A request that was right before some bytes of it were changed."""
    route = chance.choice(ROUTES)
    route = route % chance.choice(jobs) if b"%s" in route else route
    body = b""
    if route.startswith(b"POST"):
        body = chance.choice((b'{"picture": "%s"}' % upload, b"{}", b'{"before": null}', chance.randbytes(200)))
    head = b"%s HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: %s\r\n" % (route, authorization)
    if body or chance.random() < 0.1:
        head += b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
    data = bytearray(head + b"\r\n" + body)
    for _ in range(chance.choice((0, 1, 1, 2, 3, 8))):
        mutate(data, chance)
    return bytes(data)


def mutate(data: bytearray, chance: random.Random) -> None:
    place = chance.randrange(len(data) + 1)
    match chance.randrange(6):
        case 0:
            data[place:place] = chance.choice(PIECES)
        case 1:
            del data[place : place + chance.randrange(1, 40)]
        case 2 if place < len(data):
            data[place] = chance.randrange(256)
        case 3:
            del data[place:]
        case 4:
            end = data.find(b"\r\n") + 2
            data[end:end] = chance.choice(PIECES)
        case _:
            data[place:place] = data[: chance.randrange(1, 60)]


def exchange(port: int, data: bytes) -> list[int]:
    """The statuses of all answers to what was sent, until the connection was closed."""
    heard = b""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as line:
        try:
            line.sendall(data)
            line.settimeout(0.05)
            while chunk := line.recv(65536):
                heard += chunk
        except TimeoutError:
            line.settimeout(PATIENCE)
            try:
                line.shutdown(socket.SHUT_WR)
                while chunk := line.recv(65536):
                    heard += chunk
            except TimeoutError:
                pytest.fail(f"the service hangs on {data!r}")
            except OSError:
                pass
        except OSError:  # reset: it had read enough
            pass
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", heard)]


def fuzz(hosted: Hosted, authorization: bytes, *, seed: int, count: int) -> Counter[int]:
    chance, statuses = random.Random(seed), Counter[int]()
    jobs = [*(job.id.encode() for job in hosted.store.page()), b"0" * 32, b"..%2f..", b"%00"]
    upload = hosted.upload(png(64, 64)).encode()
    for _ in range(count):
        statuses.update(exchange(hosted.port, raw_request(chance, authorization, jobs, upload)))
    return statuses


@pytest.mark.slow
def test_bytes_of_a_client_with_the_token(watched: Hosted):
    statuses = fuzz(watched, f"Bearer {TOKEN}".encode(), seed=1, count=max(100, REQUESTS // 4))
    assert statuses[200] > 4 and not [status for status in statuses if status >= 500]
    print(f"{max(100, REQUESTS // 4)} raw requests with the token: {dict(sorted(statuses.items()))}")
    check_no_connection_is_left(watched)


@pytest.mark.slow
def test_bytes_of_strangers(watched: Hosted):
    """Whatever they send, nothing but 400, 401 and 403 comes back, and nothing changes."""
    before = {(job.id, job.life.state, job.last_event) for job in watched.store.page(limit=1000)}
    guesses = (b"Bearer guess", b"Basic Og==", b"", b"Bearer " + TOKEN.encode()[:-1], b"bearer  ")
    statuses: Counter[int] = Counter()
    for seed, guess in enumerate(guesses):
        statuses += fuzz(watched, guess, seed=seed, count=max(20, REQUESTS // 4 // len(guesses)))
    assert statuses[401] > 10 and set(statuses) <= {400, 401, 403}, statuses
    assert {(job.id, job.life.state, job.last_event) for job in watched.store.page(limit=1000)} == before
    print(f"{max(100, REQUESTS // 4)} raw requests without the token: {dict(sorted(statuses.items()))}")
    check_no_connection_is_left(watched)


def check_no_connection_is_left(hosted: Hosted) -> None:
    """The service holds no connection of clients that are gone."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = psutil.Process().net_connections("tcp")
        held = [
            c for c in found if c.laddr and c.laddr.port == hosted.port and c.status in ("ESTABLISHED", "CLOSE_WAIT")
        ]
        if len(held) <= 1:  # the fixture's own client
            return
        assert time.monotonic() < deadline, held
        time.sleep(0.1)
