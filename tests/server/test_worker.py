"""The real worker with real (tiny) jobs: it stops within a step, goes on where it stopped, and never outlives its
service."""

import io
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dreamcraft3d.progress import Artifact, StepDone
from dreamcraft3d.server import worker as module
from dreamcraft3d.server.worker import LivePreview, Reporter, write_webp
from patience import PATIENCE, RUN_PATIENCE
from tiny import SETTINGS

PICTURE = Path(__file__).parents[2] / "examples" / "rocket.png"
QUICK = {**SETTINGS, "coarse_nerf.steps": 30, "neus.steps": 6, "geometry.steps": 10, "texture.steps": 10}


class Process:
    """A worker process and its messages."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dreamcraft3d.server.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, bufsize=1,
        )  # fmt: skip
        self._messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._messages.put(json.loads(line))
        self._messages.put(None)

    def say(self, command: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")

    def run(self, folder: Path, settings: dict[str, Any], picture: Path = PICTURE) -> None:
        request = {"preset": "preview", "settings": settings}
        files = {"picture": str(picture)}
        self.say({"run": {"job": "j", "folder": str(folder), "request": request, "files": files}})

    def until(self, key: str, value: str | None = None, seconds: float = RUN_PATIENCE) -> list[dict[str, Any]]:
        """All messages up to the first that has `key` (with `value`)."""
        seen: list[dict[str, Any]] = []
        while True:
            message = self._messages.get(timeout=seconds)
            assert message is not None, "the worker ended"
            seen.append(message)
            if key in message and value in (None, message[key]):
                return seen


@pytest.fixture
def worker() -> Iterator[Process]:
    worker = Process()
    yield worker
    worker.process.kill()
    worker.process.wait()


@pytest.mark.slow
def test_a_job_can_be_stopped_and_goes_on_in_another_worker(worker: Process, tmp_path: Path) -> None:
    worker.until("hello")
    worker.run(tmp_path, QUICK)
    worker.until("event", "progress")
    worker.say({"stop": "pause"})
    stopped = worker.until("done")[-1]
    assert stopped["done"] == {"outcome": "stopped", "reason": "pause"}
    assert not (tmp_path / "result.glb").exists()
    worker.run(tmp_path, QUICK)
    events = worker.until("done")
    assert events[-1]["done"]["outcome"] == "finished"
    notes = [m["data"]["text"] for m in events if m.get("event") == "note"]
    assert any("going on from step" in note for note in notes)
    names = {m["data"]["artifact"] for m in events if m.get("event") in ("artifact", "preview")}
    assert {"result.glb", "turntable.png", "report.json", "stage-geometry.glb", "stage-texture.webp"} <= names
    assert all((tmp_path / name).stat().st_size > 100 for name in names)
    assert "job j" in (tmp_path / "log.txt").read_text()


@pytest.mark.slow
def test_without_a_service_it_stops_with_a_checkpoint_and_ends(worker: Process, tmp_path: Path) -> None:
    worker.run(tmp_path, {**QUICK, "coarse_nerf.steps": 5000})
    worker.until("event", "progress")
    assert worker.process.stdin is not None
    worker.process.stdin.close()
    assert worker.process.wait(PATIENCE) == 0
    assert (tmp_path / "stages" / "coarse_nerf" / "checkpoint.safetensors").exists() or list(
        (tmp_path / "stages" / "coarse_nerf").glob("checkpoint*")
    )


def test_a_bad_picture_is_an_error_with_a_remedy(worker: Process, tmp_path: Path) -> None:
    picture = tmp_path / "upload"
    picture.write_bytes(b"not a picture")
    worker.run(tmp_path / "job", QUICK, picture)
    done = worker.until("done")[-1]["done"]
    assert done["outcome"] == "failed"
    assert done["error"]["code"] == "InputError"
    assert done["error"]["hint"]
    worker.say({"quit": True})
    assert worker.process.wait(PATIENCE) == 0


def test_steps_are_not_reported_faster_than_anybody_can_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, Any]] = []
    reporter = Reporter(sent.append, tmp_path)
    monkeypatch.setattr(module.time, "monotonic", lambda: 1000.0)  # all within one moment, however busy the machine
    for step in range(1, 101):
        reporter(StepDone("neus", step, 100, 0.1, 1.0))
    assert [m["data"]["step"] for m in sent] == [1, 100]


def test_only_known_files_are_reported(tmp_path: Path) -> None:
    sent: list[dict[str, Any]] = []
    reporter = Reporter(sent.append, tmp_path)
    for name in ("result.glb", "secret.txt", "sub/result.glb"):
        reporter(Artifact("x", tmp_path / name))
    assert sent == [{"event": "artifact", "data": {"artifact": "result.glb"}}]


def test_previews_are_small_pictures_that_cost_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PREVIEW_SECONDS", 0.0)
    sent: list[dict[str, Any]] = []
    preview = LivePreview(tmp_path, Reporter(sent.append, tmp_path))
    buffer, drawn = io.BytesIO(), []
    Image.new("RGB", (64, 32), "red").save(buffer, "PNG")

    def draw() -> bytes:
        drawn.append(time.monotonic())
        time.sleep(0.05)
        return buffer.getvalue()

    end = time.monotonic() + 1.2
    while time.monotonic() < end:
        preview("neus", draw)
    assert 1 <= len(drawn) <= 4, "drawing takes no more than about a tenth of the time"
    assert Image.open(tmp_path / "preview.webp").size == (64, 32)
    assert sent[0] == {"event": "preview", "data": {"artifact": "preview.webp"}}


def test_a_webp_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        write_webp(b"no png", tmp_path / "a.webp")
    assert list(tmp_path.iterdir()) == []
