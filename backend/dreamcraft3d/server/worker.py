"""The child process that computes: one job at a time, priors kept warm between jobs.

`python -m dreamcraft3d.server.worker` reads commands as JSON lines from its standard input and writes messages as JSON
lines to its standard output (a private copy of it: whatever libraries print goes to the job's log). Commands:

    {"run": {"job": id, "folder": path, "request": {...}, "files": {"picture": path, "mesh": path, ...},
             "previews": true}}
    {"stop": "pause" | "cancel" | "disk" | "shutdown", "job": id}       {"mask": {...}}       {"quit": true}

Messages: `hello` once, `beat` every two seconds, `event` (type, data), `done` (outcome: finished, stopped, failed).
Masks are made beside a running job. The end of its input means that the service is gone: the job stops at its next
step, with a checkpoint, and so does the process; after `ORPHAN_SECONDS` it ends in any case.
"""

import contextlib
import errno
import io
import json
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from dreamcraft3d.errors import Cancelled, DiskFullError, DreamCraftError, WorkspaceBusyError
from dreamcraft3d.progress import Artifact, Event, Note, Progress, StageFinished, StageStarted, StepDone, Warned
from dreamcraft3d.server.artifacts import ARTIFACTS
from dreamcraft3d.server.logs import log_tail
from dreamcraft3d.server.worker_refine import (
    blender_object,
    received,
    refine_images,
    refine_mesh,
    refine_request,
    sent,
)

if TYPE_CHECKING:
    from dreamcraft3d.refining.request import RefineRequest

__all__ = ["Worker", "main"]

logger = logging.getLogger("dreamcraft3d.server.worker")  # its own name is __main__

BEAT_SECONDS = 2.0
NICENESS = 5
STEP_SECONDS = 0.5
"""Shortest time between two reports of steps."""
PREVIEW_SECONDS = 4.0
BUSY_SECONDS = 40.0
"""How long to wait for a predecessor that is still stopping in the same folder."""
ORPHAN_SECONDS = 20.0
"""How long the worker of a service that is gone may take to its next step."""

Send = Callable[[dict[str, Any]], None]


@dataclass
class Reporter:
    """Turns what a run reports into messages, not more often than anybody can see."""

    send: Send
    folder: Path
    _last_step: float = 0.0

    def __call__(self, event: Event) -> None:
        match event:
            case StageStarted(stage=stage, total=total):
                self._event("stage", {"stage": stage, "total": total})
            case StepDone(stage=stage, step=step, total=total, eta=eta):
                now = time.monotonic()
                if now - self._last_step >= STEP_SECONDS or step == total:
                    self._last_step = now
                    self._event("progress", {"stage": stage, "step": step, "total": total, "eta": round(eta, 1)})
            case StageFinished():
                pass
            case Warned(text=text):
                self._event("warning", {"text": text})
            case Note(text=text):
                self._event("note", {"text": text})
            case Artifact(path=path):
                self._artifact(path)

    def _artifact(self, path: Path) -> None:
        if path.parent == self.folder and path.name in ARTIFACTS:
            kind = "preview" if path.suffix == ".webp" else "artifact"
            self._event(kind, {"artifact": path.name})
        elif path.name == "preview.png" and path.parent.parent.name == "stages":
            name = f"stage-{path.parent.name}.webp"
            write_webp(path.read_bytes(), self.folder / name)
            self._event("preview", {"artifact": name})

    def _event(self, kind: str, data: dict[str, Any]) -> None:
        self.send({"event": kind, "data": data})


@dataclass
class LivePreview:
    """Draws `preview.webp` from time to time, when a stage offers a picture of what it has."""

    folder: Path
    report: Reporter
    _last: float = field(default_factory=time.monotonic)

    def __call__(self, stage: str, draw: Callable[[], bytes]) -> None:
        if time.monotonic() - self._last < PREVIEW_SECONDS:
            return
        started = time.monotonic()
        path = self.folder / "preview.webp"
        try:
            write_webp(draw(), path)
            self.report(Artifact("preview", path))
        except (Cancelled, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - a picture on the way is worth no job
            logger.warning("no preview of %s: %s", stage, error)
        # A slow picture is drawn less often: never more than a tenth of the time.
        self._last = time.monotonic() + max(0.0, 9.0 * (time.monotonic() - started) - PREVIEW_SECONDS)


class Worker:
    """Obeys commands until there are no more."""

    def __init__(self, commands: IO[str], send: Send) -> None:
        self._commands, self.send = commands, send
        self._todo: queue.Queue[Task | None] = queue.Queue()
        self._task: Task | None = None
        self._expiry = threading.Timer(ORPHAN_SECONDS, os._exit, (1,))
        self._expiry.daemon = True
        self._shelves: dict[str, Any] = {}

    def serve(self) -> None:
        """Runs until the input ends or `quit` comes."""
        threading.Thread(target=self._listen, name="commands", daemon=True).start()
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()
        self.send({"hello": os.getpid()})
        while (task := self._todo.get()) is not None:
            self._run(task)
        self._expiry.cancel()

    def _listen(self) -> None:
        for line in self._commands:
            command = json.loads(line)
            if "run" in command:  # from now on it can be told to stop, even before it has begun
                self._task = Task(command["run"], self.send)
                self._todo.put(self._task)
            elif "stop" in command:
                self._stop(command["stop"], command.get("job"))
            elif "mask" in command:
                threading.Thread(target=self._mask, args=(command["mask"],), name="mask", daemon=True).start()
            elif "quit" in command:
                self._todo.put(None)  # after what was asked before
                return
        self._stop("shutdown", None)
        self._todo.put(None)
        self._expiry.start()

    def _stop(self, reason: str, job: str | None) -> None:
        task = self._task
        if task is not None and job in (None, task.job):
            task.stop(reason)

    def _beat(self) -> None:
        while True:
            self.send({"beat": time.time()})
            time.sleep(BEAT_SECONDS)

    # --- one job ------------------------------------------------------------------------------------

    def _run(self, task: "Task") -> None:
        outcome = self._outcome(task)
        self._task = None
        self.send({"done": outcome, "job": task.job})

    def _outcome(self, task: "Task") -> dict[str, Any]:
        """How a job ended; whatever happens, this says so."""
        log = task.folder / "log.txt"
        try:
            task.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with logging_to(log):
                logger.info("job %s", task.job)
                try:
                    task.progress.check()
                    report = self._compute(task.order, task.folder, task.progress)
                except Exception as error:
                    if not isinstance(error, DreamCraftError):
                        logger.exception("job %s", task.job)
                    raise
        except Cancelled:
            return {"outcome": "stopped", "reason": task.reason or "cancel"}
        except Exception as error:  # noqa: BLE001 - no job takes the worker down
            if is_full(error):
                return {"outcome": "stopped", "reason": "disk"}
            return {"outcome": "failed", "error": {**failure(error), "log_tail": log_tail(log)}}
        return {"outcome": "finished", "report": {k: report.get(k) for k in ("seconds", "faces", "metrics")}}

    def _compute(self, order: Mapping[str, Any], folder: Path, progress: Progress) -> dict[str, Any]:
        from dreamcraft3d import pipeline
        from dreamcraft3d.workspace import Workspace

        source = blender_object(order)
        order = order if source is None else sent(source, order, folder)
        asked = refine_request(order)
        config = configuration(order, asked)
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                shelf = self._shelf(config)
                workspace = Workspace(folder)
                if asked is not None:
                    report = refine_images(asked, config, workspace, progress, shelf)
                    if source is not None:
                        received(source, order, folder)
                    return report
                if order["request"].get("kind") == "refine":
                    return refine_mesh(order, config, workspace, progress, shelf)
                picture = Path(order["files"]["picture"])
                return pipeline.generate(picture, config, workspace, progress, shelf=shelf).report
            except WorkspaceBusyError:
                progress.check()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def _shelf(self, config: Any) -> Any:
        """The priors of a configuration (and of its prompt), kept for the next job that asks for the same."""
        from dreamcraft3d import pipeline

        key = f"{config.priors.model_dump_json()} {config.prompt}"
        if key not in self._shelves:
            self._shelves = {key: pipeline.load_priors(config)}
        return self._shelves[key]

    def _mask(self, order: Mapping[str, Any]) -> None:
        """Stage 0 alone: what would be taken for the object. Answers with a PNG in a file."""
        from dreamcraft3d.presets import configure
        from dreamcraft3d.stages.reference import load_reference

        try:
            maps = {"reference.mask": order["files"]["mask"]} if "mask" in order["files"] else {}
            config = configure("preview", {**order.get("settings", {}), "reference.size": 512, **maps})
            reference = load_reference(Path(order["files"]["picture"]), config.reference)
            write_rgba(reference.rgba, Path(order["target"]))
            answer: dict[str, Any] = {"ok": True, "matting": reference.matting, "frame": reference.frame}
        except DreamCraftError as error:
            answer = {"ok": False, "code": type(error).__name__, "message": error.message, "hint": error.remedy}
        except Exception as error:  # nor does a picture
            logger.exception("mask")
            answer = {"ok": False, "code": "bug", "message": str(error), "hint": "Please report it with the log."}
        self.send({"masked": order["id"], **answer})


def configuration(order: Mapping[str, Any], asked: "RefineRequest | None") -> Any:
    """The preset and settings of a job, on top of what a refine request says itself."""
    from dreamcraft3d.presets import configure
    from dreamcraft3d.refining.request import configured_by

    request, files = order["request"], order["files"]
    if asked is not None:
        return configured_by(asked.header.model_copy(update={"preset": request["preset"]}), request["settings"])
    maps = {f"reference.{name}": files[name] for name in ("mask", "depth", "normal") if name in files}
    if "shape" in files:
        maps["shape.mesh"] = files["shape"]
    return configure(request["preset"], {**request["settings"], **maps})


class Task:
    """A job that the worker has been given; it can be told to stop from the moment it is heard of."""

    def __init__(self, order: Mapping[str, Any], send: Send) -> None:
        self.order, self.job, self.folder = order, str(order["job"]), Path(order["folder"])
        reporter = Reporter(send, self.folder)
        preview = LivePreview(self.folder, reporter) if order.get("previews", True) else None
        self.progress = Progress((reporter,), preview=preview)
        self.reason: str | None = None

    def stop(self, reason: str) -> None:
        """At its next step; the first reason counts."""
        self.reason = self.reason or reason
        self.progress.cancel()


def failure(error: Exception) -> dict[str, Any]:
    """What the user hears of an error."""
    from dreamcraft3d.stages.memory import is_out_of_memory

    if isinstance(error, DreamCraftError):
        code = getattr(error, "reason", type(error).__name__)  # refusals to refine have a name of their own
        return {"code": code, "message": error.message, "hint": error.remedy}
    if is_out_of_memory(error):
        message, hint = "Memory ran out.", "Close other programs, or choose a smaller preset."
        return {"code": "out_of_memory", "message": message, "hint": hint}
    message = (f"{type(error).__name__}: {error}".splitlines() or [""])[0]
    return {"code": "bug", "message": message, "hint": "This is a bug of DreamCraft. Please report it with the log."}


def is_full(error: Exception) -> bool:
    """Whether the disk was full."""
    full = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
    return isinstance(error, DiskFullError) or (isinstance(error, OSError) and error.errno in full)


class logging_to:  # noqa: N801 - a context manager
    """Sends the standard error stream, of Python and of native code, to the end of a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        self._before = os.dup(2)
        handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(handle, 2)
        os.close(handle)

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        os.dup2(self._before, 2)
        os.close(self._before)


def write_webp(png: bytes, path: Path) -> None:
    """A PNG as a small WebP file, atomically."""
    from PIL import Image

    from dreamcraft3d.workspace import atomic_path

    picture = Image.open(io.BytesIO(png))
    picture.load()
    with atomic_path(path) as temporary:
        picture.save(temporary, "WEBP", quality=85)


def write_rgba(rgba: Any, path: Path) -> None:
    """Premultiplied RGBA in [0, 1] as a PNG with straight alpha."""
    import torch
    from PIL import Image

    from dreamcraft3d.workspace import atomic_path

    alpha = rgba[..., 3:]
    straight = (rgba[..., :3] / alpha.clamp_min(1e-6)).clamp(0.0, 1.0) * (alpha > 0.0)
    pixels = (torch.cat([straight, alpha], dim=-1) * 255.0 + 0.5).byte().numpy()
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, "PNG")


def main() -> None:
    """The process: a private copy of the standard output for messages, everything else to the log."""
    private = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    lock = threading.Lock()

    def send(message: dict[str, Any]) -> None:
        try:
            with lock:
                private.write(json.dumps(message) + "\n")
        except (BrokenPipeError, ValueError):
            os._exit(1)  # nobody listens any more

    if hasattr(os, "nice"):
        os.nice(NICENESS)  # the service beside it has to answer at once
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
    logging.getLogger("dreamcraft3d").setLevel(logging.INFO)
    Worker(sys.stdin, send).serve()


if __name__ == "__main__":
    main()
