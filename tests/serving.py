"""A service on a real socket, with a real database, in this process; nobody computes unless a test says so."""

import io
import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from dreamcraft3d.executors.base import MaskRequest
from dreamcraft3d.server.app import create_app
from dreamcraft3d.server.hosting import Service
from dreamcraft3d.server.paths import ServicePaths
from dreamcraft3d.server.service import ServeOptions, Server, listening_socket
from dreamcraft3d.server.store import Store
from dreamcraft3d.server.uploads import Uploads
from patience import PATIENCE

TOKEN = "test-token-that-nobody-guesses"


@dataclass
class Resting:
    """An executor that takes no jobs: tests move them themselves, as a worker would."""

    busy: bool = False
    pokes: int = 0
    answer: dict[str, Any] = field(default_factory=lambda: {"ok": True, "matting": "alpha channel"})
    asked: list[MaskRequest] = field(default_factory=list)

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def poke(self) -> None:
        self.pokes += 1

    def mask(self, request: MaskRequest, *, seconds: float) -> dict[str, Any]:
        self.asked.append(request)
        if self.answer.get("ok"):
            request.target.write_bytes(png(64, 64))
        return self.answer


@dataclass
class Hosted:
    """The running service and a client of it."""

    service: Service
    http: httpx.Client
    port: int
    executor: Resting

    @property
    def store(self) -> Store:
        return self.service.store

    def upload(self, data: bytes) -> str:
        return str(self.http.post("/v1/uploads", content=data).json()["id"])

    def submit(self, **fields: Any) -> dict[str, Any]:
        body = {"picture": self.upload(png(64, 64)), **fields}
        answer = self.http.post("/v1/jobs", json=body)
        assert answer.status_code in (200, 201), answer.text
        return dict(answer.json())


def png(width: int, height: int, colour: tuple[int, ...] = (200, 40, 40, 255)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA", (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def paths(tmp_path: Path) -> ServicePaths:
    found = ServicePaths(tmp_path / "data", tmp_path / "run")
    found.prepare()
    return found


@pytest.fixture
def hosted(paths: ServicePaths) -> Iterator[Hosted]:
    """A service of its own."""
    with hosting(paths) as found:
        yield found


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosted]:
    """One service for all tests of a module that do not care what others left in it."""
    folder = tmp_path_factory.mktemp("shared")
    found = ServicePaths(folder / "data", folder / "run")
    found.prepare()
    with hosting(found) as service:
        yield service


@contextmanager
def hosting(paths: ServicePaths) -> Iterator[Hosted]:
    executor = Resting()
    stopping = threading.Event()
    store = Store(paths.database)
    service = Service(store, executor, paths, Uploads(paths.uploads), secrets.token_hex(8), stopping)
    listener = listening_socket(ServeOptions())
    port = listener.getsockname()[1]
    server = Server(create_app(service, token=TOKEN), service, lambda: None, idle_minutes=None)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="service")
    thread.start()
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False, timeout=PATIENCE) as http:
        yield Hosted(service, http, port, executor)
    stopping.set()
    thread.join(PATIENCE)
    store.close()
    assert not thread.is_alive(), "the service did not stop"


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """The error record of an answer; fails if the answer is none."""
    assert answer.is_error, answer.text
    record = json.loads(answer.content)["error"]
    assert set(record) == {"code", "message", "hint", "field"}
    assert record["code"] and record["message"]
    return dict(record)
