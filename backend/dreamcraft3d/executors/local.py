"""Runs the jobs on this machine: one worker process, which is watched, stopped, killed and replaced.

One thread decides everything (`_loop`); others only leave it messages. A worker that has shown no sign of life for
`SILENCE_SECONDS` is killed, and so is one that has not stopped `GRACE_SECONDS` after it was asked to. Whatever ends a
worker, its job goes where the state machine says (`server.jobs`), and a new worker starts with the next job. What
cannot be written because the disk is full is written when there is room again.
"""

import itertools
import json
import logging
import shutil
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from dreamcraft3d.executors.base import MaskRequest
from dreamcraft3d.executors.child import WORKER, Child, Leftover, Message, find_leftover, spawn, why_lost
from dreamcraft3d.server.jobs import IllegalTransition, Input, State, Wish
from dreamcraft3d.server.logs import log_tail
from dreamcraft3d.server.paths import ServicePaths
from dreamcraft3d.server.store import Store, UnknownJob

__all__ = ["LocalExecutor"]

logger = logging.getLogger(__name__)

SILENCE_SECONDS = 30.0
GRACE_SECONDS = 20.0
TICK_SECONDS = 1.0
CHECKPOINT_SECONDS = 5.0
"""Between two checkpoints of the database, seconds."""
IDLE_SECONDS = 600.0
"""How long a worker without a job keeps its priors warm."""
RETRY_SECONDS = 60.0
"""When a job that found the disk full tries again although the disk never looked full from here (a quota)."""
MIB = 1 << 20
ROOM_MIB = 200
"""Free disk space below which no job starts, and running ones pause."""
PASSING = ("progress", "preview")
"""Events that may be lost when they cannot be written."""


class LocalExecutor:
    """One job at a time on this machine's best device."""

    def __init__(
        self, store: Store, paths: ServicePaths, *, room_mib: int = ROOM_MIB, command: Sequence[str] = WORKER
    ) -> None:
        self._store, self._paths, self._room, self._command = store, paths, room_mib * MIB, command
        self._news = threading.Condition()
        self._poked = self._stopping = False
        self._heard: deque[tuple[Child, Message | None]] = deque()
        self._wanted: deque[Message] = deque()
        self._masks: dict[int, Message | None] = {}
        self._numbers = itertools.count()
        # Of the loop's thread alone:
        self._child: Child | None = None
        self._leftover: Leftover | None = None
        self._was_full = True  # jobs that an earlier service paused for the disk are looked at once
        self._turned = self._checkpointed = time.monotonic()
        self._thread: threading.Thread | None = None

    # --- what the service calls ---------------------------------------------------------------------

    def start(self) -> None:
        self._store.recover()
        self._leftover = find_leftover(self._note, grace=GRACE_SECONDS)
        self._thread = threading.Thread(target=self._loop, name="executor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping = True
        self.poke()
        if self._thread is not None:
            self._thread.join(GRACE_SECONDS + 10.0)

    def poke(self) -> None:
        with self._news:
            self._poked = True
            self._news.notify_all()

    @property
    def busy(self) -> bool:
        child = self._child
        return child is not None and child.job is not None

    def mask(self, request: MaskRequest, *, seconds: float) -> dict[str, Any]:
        number, deadline = next(self._numbers), time.monotonic() + seconds
        files = {name: str(path) for name, path in request.files.items()}
        order = {"id": number, "files": files, "settings": request.settings, "target": str(request.target)}
        with self._news:
            self._masks[number] = None
            self._wanted.append({"mask": order})
            self._poked = True
            self._news.notify_all()
            while self._masks[number] is None and (left := deadline - time.monotonic()) > 0.0:
                self._news.wait(left)
            answer = self._masks.pop(number)
        silence = {"code": "timeout", "message": "The backend did not answer.", "hint": "Try again."}
        return answer if answer is not None else {"ok": False, **silence}

    # --- the loop -----------------------------------------------------------------------------------

    def _loop(self) -> None:
        while True:
            try:
                self._turn()
            except (sqlite3.Error, OSError) as error:  # a full disk, no memory for a process: the next turn tries again
                logger.warning("the executor has to wait: %s", error)
            except Exception:
                logger.exception("the executor stumbled")
            if self._stopping and not self.busy:
                self._dismiss()
                return
            with self._news:
                if not self._poked:
                    self._news.wait(TICK_SECONDS if self.busy or self._was_full or self._leftover else 5 * TICK_SECONDS)
                self._poked = False

    def _turn(self) -> None:
        slept = time.monotonic() - self._turned > max(10.0 * TICK_SECONDS, 0.5 * SILENCE_SECONDS)
        self._turned = time.monotonic()
        if self._child is not None:
            if slept:
                self._child.spare()
            self._watch(self._child, self._turned)
        while self._heard:
            child, message = self._heard[0]
            self._settle(child, message)  # if it fails, the message stays for the next turn
            self._heard.popleft()
        if not self._stopping:
            self._disk()
            self._next()
        if self._turned - self._checkpointed > CHECKPOINT_SECONDS:
            self._checkpointed = self._turned
            self._store.checkpoint()

    def _watch(self, child: Child, now: float) -> None:
        """Passes wishes on, and ends a worker that is silent, hangs or does not listen."""
        child.look()
        if child.job is not None:
            if self._stopping:
                child.stop("shutdown")
            self._wish(child, child.job)
        elif now - child.since > IDLE_SECONDS:
            child.send({"quit": True})
        why = child.overdue(silence=SILENCE_SECONDS, grace=GRACE_SECONDS)
        if why is not None:
            child.kill(why)

    def _wish(self, child: Child, job_id: str) -> None:
        try:
            wish = self._store.get(job_id).life.wish
        except UnknownJob:
            wish = Wish.CANCEL
        if wish is not Wish.NONE:
            child.stop(wish.value)

    def _next(self) -> None:
        """Sends masks, and the next job if the worker has none and there is room on the disk."""
        if self._leftover is not None:
            if not self._leftover.gone():
                return
            self._leftover = None
        while self._wanted:
            child = self._worker()
            child.send(self._wanted.popleft())
        if self.busy or self._full() or not self._store.count(State.QUEUED):
            return
        child = self._worker()  # before the job is claimed: this may fail
        job = self._store.claim_next()
        if job is None:
            return
        files = {name: str(self._paths.uploads / upload) for name, upload in job.request.get("files", {}).items()}
        folder = str(self._paths.job(job.id))
        child.run(job.id, {"job": job.id, "folder": folder, "request": job.request, "files": files})
        logger.info("job started", extra={"job": job.id})

    def _disk(self) -> None:
        """Pauses the running job before the disk is full, and lets paused ones go on when there is room again."""
        if self._full():
            self._was_full = True
            if self._child is not None and self._child.job is not None:
                self._child.stop("disk")
            return
        for job, since in self._store.paused_for("disk"):
            if self._was_full or time.time() - since > RETRY_SECONDS:
                self._store.apply(job, Input.RESUME)
        self._was_full = False

    def _full(self) -> bool:
        """With a margin on the way back, so that a job does not stop and go."""
        room = self._room * (1.25 if self._was_full else 1.0)
        return shutil.disk_usage(self._paths.data).free < room

    # --- the worker ---------------------------------------------------------------------------------

    @property
    def _note(self) -> Any:
        return self._paths.data / "worker.json"

    def _worker(self) -> Child:
        if self._child is None:
            log = self._paths.log.parent / "worker.log"
            self._child = spawn(self._command, log=log, note=self._note, on_message=self._hear)
        return self._child

    def _hear(self, child: Child, message: Message | None) -> None:
        """On the worker's thread."""
        self._heard.append((child, message))
        self.poke()

    def _settle(self, child: Child, message: Message | None) -> None:
        """Writes down what a worker said. What makes no sense (any more) is logged, nothing else."""
        try:
            match message:
                case None:
                    self._reaped(child)
                case {"event": str(kind), "data": dict(data)} if child.job is not None:
                    self._event(child.job, kind, data)
                case {"done": dict(outcome)} if child.job is not None:
                    self._done(child, child.job, outcome)
                    child.rest()
                case {"masked": number}:
                    with self._news:
                        if number in self._masks:
                            self._masks[number] = {k: v for k, v in message.items() if k != "masked"}
                        self._news.notify_all()
        except (UnknownJob, IllegalTransition, KeyError) as error:
            logger.warning("a message of the worker came to nothing: %s (%s)", json.dumps(message)[:200], error)
            if message is not None and "done" in message:
                child.rest()

    def _event(self, job: str, kind: str, data: Message) -> None:
        try:
            self._store.add_event(job, kind, data, progress=data if kind == "progress" else None)
        except sqlite3.Error:
            if kind not in PASSING:
                raise
            logger.warning("an event (%s) could not be written", kind, extra={"job": job})

    def _done(self, child: Child, job: str, outcome: Message) -> None:
        match outcome["outcome"], outcome.get("reason"):
            case "finished", _:
                self._store.apply(job, Input.SUCCEED, {"report": outcome["report"]})
            case "failed", _:
                self._store.apply(job, Input.FAIL, error=outcome["error"])
            case _, "disk":
                self._store.apply(job, Input.YIELD, {"reason": "disk"})
            case _, reason:  # a wish that was withdrawn meanwhile leads back into the queue
                self._store.apply(job, Input.RELEASE, {"reason": "shutdown" if reason == "shutdown" else "user"})

    def _reaped(self, child: Child) -> None:
        """What becomes of the job of a worker that is gone."""
        code = child.reap()
        if child is self._child:
            self._child = None
        job = child.job
        if job is None:
            return
        logger.warning("the worker is gone (%s, code %d)", child.killed or "by itself", code, extra={"job": job})
        if child.reason == "shutdown":
            self._store.apply(job, Input.RELEASE, {"reason": "shutdown"})
        elif child.starved:
            self._store.apply(job, Input.FAIL, error=self._loss(job, child))
        else:
            by_others = child.killed is None and code in (-9, -15, -1, -2)
            data = {"reason": child.killed or f"the worker ended with code {code}"}
            lost = Input.LOSE if by_others else Input.CRASH
            self._store.apply(job, lost, data, error=self._loss(job, child))
        child.job = None

    def _loss(self, job: str, child: Child) -> dict[str, Any]:
        """Why the worker may have died, for the case that this was once too often."""
        code, message = why_lost(child)
        hint = {"out_of_memory": "Close other programs, or choose a smaller preset."}.get(
            code, "Retry; if it happens again, choose a smaller preset, or report it with the log."
        )
        tail = log_tail(self._paths.job(job) / "log.txt")
        return {"code": code, "message": message, "hint": hint, "log_tail": tail}

    def _dismiss(self) -> None:
        """Sends the worker home at the end of the service."""
        child, self._child = self._child, None
        if child is None:
            return
        child.send({"quit": True})
        deadline = time.monotonic() + 5.0
        while child.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        child.reap()
