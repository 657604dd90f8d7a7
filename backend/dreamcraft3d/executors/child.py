"""A worker process as its parent sees it: started, spoken to, listened to, watched, ended.

The service has one, a batch as many as it has jobs. The service's worker leaves a note of itself in the data folder, so
that the next service can find one that a killed service left behind (a frozen process does not notice that its parent
is gone).
"""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil

from dreamcraft3d.errors import DreamCraftError
from dreamcraft3d.workspace import atomic_path

__all__ = [
    "WORKER",
    "Child",
    "Leftover",
    "OnMessage",
    "find_leftover",
    "memory_is_short",
    "oom_kills",
    "spawn",
    "why_lost",
]

logger = logging.getLogger(__name__)

WORKER = (sys.executable, "-m", "dreamcraft3d.server.worker")
Message = dict[str, Any]
LOOK_SECONDS = 0.5
"""Shortest time between two looks at the processes of a worker."""
WORK = 0.05
"""Seconds of processor time that count as a sign of life: far more than heartbeats need."""
SHORT_OF_MEMORY = 0.05
"""Part of the memory that is left when a kill from outside is taken for the system's."""


@dataclass
class Child:
    """A worker and what is known of it.

    Attributes:
        heard: last message of any kind. lively: last sign of work (an event, or processor time). asked: when it was
        asked to stop, and `reason` why. killed: why it was killed by us. ooms: kills for want of memory before it.
    """

    process: subprocess.Popen[str]
    heard: float = field(default_factory=time.monotonic)
    lively: float = field(default_factory=time.monotonic)
    since: float = field(default_factory=time.monotonic)
    job: str | None = None
    asked: float | None = None
    reason: str | None = None
    killed: str | None = None
    short: bool = False
    ooms: int = field(default_factory=lambda: oom_kills())
    _work: float = 0.0
    _looked: float = 0.0

    def run(self, job: str, order: Message) -> None:
        """Gives it a job."""
        self.job, self.asked, self.reason = job, None, None
        self.lively = self.heard = time.monotonic()
        self.send({"run": order})

    def rest(self) -> None:
        """It has no job any more."""
        self.job = self.asked = self.reason = None
        self.since = time.monotonic()

    def send(self, command: Message) -> None:
        """Writes a command; a worker that is gone is noticed elsewhere."""
        with contextlib.suppress(OSError, ValueError):
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()

    def stop(self, reason: str) -> None:
        """Asks it to stop its job, once."""
        if self.asked is None:
            self.asked, self.reason = time.monotonic(), reason
            self.send({"stop": reason, "job": self.job})

    def kill(self, why: str) -> None:
        """Ends it and all its children now."""
        self.killed = self.killed or why
        kill_group(self.process.pid)

    def look(self) -> None:
        """Takes note of processor time, and of memory that runs short; now and then, for it costs milliseconds."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        self.short = memory_is_short()
        work = processor_seconds(self.process.pid)
        if abs(work - self._work) > WORK:
            self._work, self.lively = work, now

    def spare(self) -> None:
        """We slept ourselves: what it said meanwhile has not been read yet."""
        now = time.monotonic()
        self.heard = self.lively = now
        self.asked = None if self.asked is None else now

    def overdue(self, *, silence: float, grace: float) -> str | None:
        """Why it has to be ended now: it is silent or hangs (for `silence` seconds), or did not stop when asked
        (within `grace` seconds). None while all is well."""
        now = time.monotonic()
        if now - self.heard > silence:
            return f"it gave no sign of life for {silence:.0f} s"
        if self.job is not None and now - self.lively > silence:
            return f"it did not work for {silence:.0f} s"
        if self.job is not None and self.asked is not None and now - self.asked > grace:
            return f"it did not stop within {grace:.0f} s"
        return None

    def dismiss(self) -> None:
        """Ends its input: it stops at its next step, with a checkpoint, and leaves."""
        with contextlib.suppress(OSError):
            assert self.process.stdin is not None
            self.process.stdin.close()

    def reap(self) -> int:
        """After its end: what it left running ends too, and the pipes are closed. Returns its exit code."""
        if self.process.returncode is None:
            kill_group(self.process.pid)  # before it is waited for, its number can be nobody else's
        code = self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                assert pipe is not None
                pipe.close()
        return code

    @property
    def starved(self) -> bool:
        """Whether the system (not we) ended it for want of memory, as far as one can know."""
        by_others = self.killed is None and self.process.returncode == -signal.SIGKILL
        return by_others and (self.short or oom_kills() > self.ooms)


OnMessage = Callable[[Child, Message | None], None]


def spawn(
    command: Sequence[str],
    *,
    log: Path,
    on_message: OnMessage,
    note: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Child:
    """Starts a worker in the folder of its log.

    Args:
        log: receives what it prints. on_message: gets its messages, and None when it is gone, on a thread of their own.
        note: where its number is written for `find_leftover`. environment: beside that of this process.

    Raises:
        OSError: no process can be made.
    """
    temporary = (note or log).with_name("tmp")  # of our own: whoever started us may take its own with it
    temporary.mkdir(mode=0o700, exist_ok=True)
    places = {**dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporary)), **(environment or {})}
    group: dict[str, Any] = {"start_new_session": True}  # Ctrl-C is for the parent alone
    if sys.platform == "win32":
        group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    with log.open("ab") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, encoding="utf-8",
            bufsize=1, env={**os.environ, **places, "PYTHONUNBUFFERED": "1"}, cwd=log.parent, **group,
        )  # fmt: skip
    child = Child(process)
    if note is not None:
        with contextlib.suppress(psutil.Error, DreamCraftError), atomic_path(note) as draft:
            created = psutil.Process(process.pid).create_time()
            draft.write_text(json.dumps({"pid": process.pid, "created": created}), encoding="utf-8")
    assert process.stdout is not None
    arguments = (child, process.stdout, on_message)
    threading.Thread(target=listen, args=arguments, name="worker messages", daemon=True).start()
    return child


def listen(child: Child, messages: IO[str], on_message: OnMessage) -> None:
    """Reads what a worker says until there is nothing more."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in messages:
            child.heard = time.monotonic()
            try:
                message = json.loads(line)
            except ValueError:
                message = None
            if isinstance(message, dict) and "beat" not in message:
                child.lively = child.heard
                on_message(child, message)
    on_message(child, None)


def why_lost(child: Child) -> tuple[str, str]:
    """(code, message) for a job whose worker has been reaped before it was done."""
    if child.starved:
        return "out_of_memory", "The worker was ended by the system; usually that means: not enough memory."
    why = child.killed or f"it ended with code {child.process.returncode}"
    return "worker_lost", f"The worker was lost: {why}."


@dataclass(frozen=True)
class Leftover:
    """A worker of a service that is gone. It ends at its next step; after `deadline` it is ended."""

    process: psutil.Process
    deadline: float

    def gone(self) -> bool:
        """Whether it has ended; ends it when the time is up."""
        try:
            if not self.process.is_running() or self.process.status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.Error:
            return True
        if time.monotonic() > self.deadline:
            logger.warning("ending the worker %d of an earlier service", self.process.pid)
            kill_group(self.process.pid)
        return False


def find_leftover(note: Path, *, grace: float) -> Leftover | None:
    """The worker that a killed service left behind, if it is still there (and not another process of its number)."""
    try:
        record = json.loads(note.read_text(encoding="utf-8"))
        process = psutil.Process(record["pid"])
        same = abs(process.create_time() - record["created"]) < 0.1
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return None
    return Leftover(process, time.monotonic() + grace) if same else None


def kill_group(pid: int) -> None:
    """Ends a worker, which leads a group of its own, and its children."""
    with contextlib.suppress(ProcessLookupError, PermissionError, psutil.Error):
        if sys.platform == "win32":
            for process in (*psutil.Process(pid).children(recursive=True), psutil.Process(pid)):
                process.kill()
        else:
            os.killpg(pid, signal.SIGKILL)


def processor_seconds(pid: int) -> float:
    """Processor time of a process and its children so far."""
    total = 0.0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                times = one.cpu_times()
                total += times.user + times.system
    return total


def memory_is_short() -> bool:
    """Whether less than SHORT_OF_MEMORY of the memory is left."""
    memory = psutil.virtual_memory()
    return bool(memory.available < SHORT_OF_MEMORY * memory.total)


def oom_kills() -> int:
    """How many processes the Linux kernel has killed for want of memory; 0 elsewhere."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
