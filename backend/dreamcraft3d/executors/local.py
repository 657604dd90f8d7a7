"""Runs the jobs on this machine: one worker process, which is watched, stopped, killed and replaced.

One thread decides (`_loop`), one reads what the worker says. A worker that has shown no sign of life for
`SILENCE_SECONDS` is killed, and so is one that has not stopped `GRACE_SECONDS` after it was asked to. Whatever ends a
worker, its job goes where the state machine says (`server.jobs`), and a new worker starts with the next job.
"""

import contextlib
import itertools
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from dreamcraft3d.executors.base import MaskRequest
from dreamcraft3d.server.jobs import Input, State, Wish
from dreamcraft3d.server.paths import ServicePaths
from dreamcraft3d.server.store import Store, UnknownJob

__all__ = ["LocalExecutor"]

logger = logging.getLogger(__name__)

SILENCE_SECONDS = 20.0
GRACE_SECONDS = 20.0
TICK_SECONDS = 1.0
MIB = 1 << 20
ROOM_MIB = 200
"""Free disk space below which no job starts, and running ones pause."""
LOG_LINES = 20
WORKER = (sys.executable, "-m", "dreamcraft3d.server.worker")


@dataclass
class _Child:
    """A worker process and what is known of it."""

    process: subprocess.Popen[str]
    heard: float = field(default_factory=time.monotonic)
    job: str | None = None
    asked: float | None = None
    reason: str | None = None
    killed: str | None = None

    def send(self, command: dict[str, Any]) -> None:
        """Writes a command; a worker that is gone is noticed elsewhere."""
        try:
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
        except (OSError, ValueError):
            pass

    def stop(self, reason: str) -> None:
        """Asks it to stop its job, once."""
        if self.asked is None:
            self.asked, self.reason = time.monotonic(), reason
            self.send({"stop": reason})

    def kill(self, why: str) -> None:
        """Ends it and all its children now."""
        self.killed = self.killed or why
        try:
            if sys.platform == "win32":
                self.process.kill()
            else:
                os.killpg(self.process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass


class LocalExecutor:
    """One job at a time on this machine's best device."""

    def __init__(
        self, store: Store, paths: ServicePaths, *, room_mib: int = ROOM_MIB, command: Sequence[str] = WORKER
    ) -> None:
        self._store, self._paths, self._room, self._command = store, paths, room_mib * MIB, command
        self._lock = threading.RLock()
        self._news = threading.Condition(self._lock)
        self._child: _Child | None = None
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._masks: dict[int, dict[str, Any] | None] = {}
        self._numbers = itertools.count()
        self._told_full = False

    # --- what the service calls ---------------------------------------------------------------------

    def start(self) -> None:
        self._store.recover()
        self._thread = threading.Thread(target=self._loop, name="executor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        with self._news:
            self._stopping = True
            if self._child is not None and self._child.job is not None:
                self._child.stop("shutdown")
            self._news.notify_all()
        if self._thread is not None:
            self._thread.join(GRACE_SECONDS + 10.0)

    def poke(self) -> None:
        with self._news:
            self._news.notify_all()

    @property
    def busy(self) -> bool:
        child = self._child
        return child is not None and child.job is not None

    def mask(self, request: MaskRequest, *, seconds: float) -> dict[str, Any]:
        if self.busy:
            return {"ok": False, "code": "busy", "message": "The backend is working on a job.",
                    "hint": "The mask can be shown when the job is done or paused."}  # fmt: skip
        number, deadline = next(self._numbers), time.monotonic() + seconds
        files = {name: str(path) for name, path in request.files.items()}
        order = {"id": number, "files": files, "settings": request.settings, "target": str(request.target)}
        with self._news:
            self._masks[number] = None
            self._worker().send({"mask": order})
            while self._masks[number] is None and (left := deadline - time.monotonic()) > 0.0:
                self._news.wait(left)
            answer = self._masks.pop(number)
        silence = {"code": "timeout", "message": "The backend did not answer.", "hint": "Try again."}
        return answer if answer is not None else {"ok": False, **silence}

    # --- the loop -----------------------------------------------------------------------------------

    def _loop(self) -> None:
        while True:
            with self._news:
                try:
                    self._watch()
                    if not self._stopping:
                        self._disk()
                        self._next()
                except Exception:
                    logger.exception("the executor stumbled")
                if self._stopping and (self._child is None or self._child.job is None):
                    self._dismiss()
                    return
                self._news.wait(TICK_SECONDS)

    def _next(self) -> None:
        """Gives the worker the next job, if it has none and there is room on the disk."""
        if (self._child is not None and self._child.job is not None) or self._full():
            return
        job = self._store.claim_next()
        if job is None:
            return
        child = self._worker()
        child.job, child.asked, child.reason = job.id, None, None
        files = {name: str(self._paths.uploads / upload) for name, upload in job.request.get("files", {}).items()}
        folder = str(self._paths.job(job.id))
        child.send({"run": {"job": job.id, "folder": folder, "request": job.request, "files": files}})
        logger.info("job started", extra={"job": job.id})

    def _watch(self) -> None:
        """Passes wishes on, and ends a worker that is silent or deaf."""
        child = self._child
        if child is None:
            return
        now = time.monotonic()
        if child.process.poll() is not None:
            self._buried(child)
            return
        if child.job is not None:
            self._wish(child, child.job)
        if now - child.heard > SILENCE_SECONDS:
            child.kill(f"it gave no sign of life for {SILENCE_SECONDS:.0f} s")
        elif child.asked is not None and child.job is not None and now - child.asked > GRACE_SECONDS:
            child.kill(f"it did not stop within {GRACE_SECONDS:.0f} s")

    def _wish(self, child: _Child, job_id: str) -> None:
        try:
            wish = self._store.get(job_id).life.wish
        except UnknownJob:
            wish = Wish.CANCEL
        if wish is not Wish.NONE:
            child.stop(wish.value)

    def _disk(self) -> None:
        """Pauses the running job before the disk is full, and lets paused ones go on when there is room again."""
        full = self._full()
        if full and self._child is not None and self._child.job is not None:
            self._child.stop("disk")
        if not full and self._told_full:
            self._told_full = False
            for job in self._store.page(state=State.PAUSED, limit=1000):
                if self._store.events(job.id, since=job.last_event - 1)[-1].data.get("reason") == "disk":
                    self._store.apply(job.id, Input.RESUME)
        self._told_full = self._told_full or full

    def _full(self) -> bool:
        return shutil.disk_usage(self._paths.data).free < self._room

    # --- the worker ---------------------------------------------------------------------------------

    def _worker(self) -> _Child:
        if self._child is None or self._child.process.poll() is not None:
            if self._child is not None:
                self._buried(self._child)
            environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
            with (self._paths.log.parent / "worker.log").open("ab") as log:
                process = subprocess.Popen(
                    self._command, stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE, stderr=log, text=True, encoding="utf-8", bufsize=1,
                    start_new_session=True, env=environment, cwd=self._paths.data,
                )  # fmt: skip
            self._child = _Child(process)
            assert process.stdout is not None
            arguments = (self._child, process.stdout)
            threading.Thread(target=self._listen, args=arguments, name="worker messages", daemon=True).start()
        return self._child

    def _listen(self, child: _Child, messages: IO[str]) -> None:
        for line in messages:
            child.heard = time.monotonic()
            try:
                self._message(child, json.loads(line))
            except (UnknownJob, ValueError) as error:
                logger.warning("a message of the worker came to nothing: %s", error)
            except Exception:
                logger.exception("a message of the worker could not be stored")
        self.poke()

    def _message(self, child: _Child, message: dict[str, Any]) -> None:
        job = child.job
        if "event" in message and job is not None:
            kind, data = message["event"], message["data"]
            self._store.add_event(job, kind, data, progress=data if kind == "progress" else None)
        elif "done" in message and job is not None:
            with self._news:
                self._done(child, job, message["done"])
                child.job = child.asked = child.reason = None
                self._news.notify_all()
        elif "masked" in message:
            with self._news:
                if message["masked"] in self._masks:
                    self._masks[message["masked"]] = {k: v for k, v in message.items() if k != "masked"}
                self._news.notify_all()

    def _done(self, child: _Child, job: str, outcome: dict[str, Any]) -> None:
        match outcome["outcome"]:
            case "finished":
                self._store.apply(job, Input.SUCCEED, {"report": outcome["report"]})
            case "failed":
                self._store.apply(job, Input.FAIL, error=outcome["error"])
            case _ if child.reason == "shutdown":
                self._store.apply(job, Input.RELEASE, {"reason": "shutdown"})
            case _:
                reason = {"disk": "disk"}.get(child.reason or "", "user")
                self._store.apply(job, Input.YIELD, {"reason": reason})

    def _buried(self, child: _Child) -> None:
        """What becomes of the job of a worker that is gone."""
        self._child = None
        job, code = child.job, child.process.returncode
        for pipe in (child.process.stdin, child.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        if job is None:
            return
        child.job = None
        logger.warning("the worker is gone (%s, code %s)", child.killed or "by itself", code, extra={"job": job})
        if child.reason == "shutdown":
            self._store.apply(job, Input.RELEASE, {"reason": "shutdown"})
            return
        self._store.apply(
            job, Input.LOSE, {"reason": child.killed or "the worker ended"}, error=self._obituary(job, child)
        )

    def _obituary(self, job: str, child: _Child) -> dict[str, Any]:
        """Why a worker may have died, for the case that this was once too often."""
        log = self._paths.job(job) / "log.txt"
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:] if log.is_file() else []
        if child.killed is None and child.process.returncode == -signal.SIGKILL:
            message = "The worker was ended by the system; usually that means: not enough memory."
            hint = "Close other programs, or choose a smaller preset."
            return {"code": "out_of_memory", "message": message, "hint": hint, "log_tail": tail}
        why = child.killed or f"it ended with code {child.process.returncode}"
        hint = "Retry; if it happens again, please report it with the log."
        return {"code": "worker_lost", "message": f"The worker was lost: {why}.", "hint": hint, "log_tail": tail}

    def _dismiss(self) -> None:
        """Sends the worker home at the end of the service."""
        child, self._child = self._child, None
        if child is None:
            return
        child.send({"quit": True})
        try:
            child.process.wait(5.0)
        except subprocess.TimeoutExpired:
            child.kill("the service stopped")
            child.process.wait(5.0)
