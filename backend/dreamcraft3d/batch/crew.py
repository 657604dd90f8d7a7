"""Who does the work of a batch: processes that take one item at a time, and stay warm between items.

A ``Crew`` only places orders and reports what becomes of them; what to do with a lost or failed item is the runner's
business. ``LocalCrew`` drives the service's worker (``server.worker``, whose protocol is described there) in as many
processes as there are jobs. Another machine's crew has the same five methods.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, Protocol

from dreamcraft3d.batch.errors import WorkersUnavailableError

__all__ = ["Crew", "Ended", "LocalCrew", "Order", "Told"]

SILENCE_SECONDS = 60.0
"""A worker that says nothing for so long (it beats every two seconds) is killed."""
GRACE_SECONDS = 30.0
"""Time to stop at a step and write a checkpoint."""
RENEW_AFTER = 50
"""A process is replaced after so many items, before small leaks add up overnight."""
WORKER = (sys.executable, "-m", "dreamcraft3d.server.worker")

Outcome = Literal["finished", "failed", "stopped", "lost"]


@dataclass(frozen=True)
class Order:
    """One item to be made in `folder`, from `files`, with the preset and settings of `request`."""

    item: str
    folder: Path
    request: Mapping[str, Any]
    files: Mapping[str, Path]


@dataclass(frozen=True)
class Told:
    """Something that a worker reports on the way: `kind` and `data` as in the service's events."""

    item: str
    kind: str
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Ended:
    """The end of an order. `detail`: the report; {code, message, hint} of what failed or was lost; {reason}
    of what stopped, "disk" among them."""

    item: str
    outcome: Outcome
    detail: Mapping[str, Any]


class Crew(Protocol):
    """Where items run."""

    def free(self) -> int:
        """How many orders can be taken now."""
        ...

    def submit(self, order: Order) -> None:
        """Starts an order. Raises ``WorkersUnavailableError``."""
        ...

    def cancel(self, item: str) -> None:
        """Asks for a checkpoint and an end; ends by force after a while."""
        ...

    def events(self, seconds: float) -> list[Told | Ended]:
        """What happened; waits for at most so long. Raises ``WorkersUnavailableError``."""
        ...

    def close(self, *, force: bool = False) -> None:
        """Ends all processes; unfinished orders are dropped, with their checkpoints if not by force."""
        ...


@dataclass(eq=False)
class _Worker:
    """A process and what is known of it."""

    process: subprocess.Popen[str]
    errors: IO[bytes]
    heard: float = field(default_factory=time.monotonic)
    greeted: bool = False
    item: str | None = None
    asked: float | None = None
    killed: str | None = None
    done: int = 0

    def send(self, command: Mapping[str, Any]) -> None:
        """Writes a command; a process that is gone is noticed elsewhere."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()

    def kill(self, why: str) -> None:
        """Ends the process and its children now."""
        self.killed = self.killed or why
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if sys.platform == "win32":
                self.process.kill()
            else:
                os.killpg(self.process.pid, signal.SIGKILL)

    def bury(self) -> None:
        """Waits for the end and closes the pipes."""
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.errors):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


class LocalCrew:
    """Worker processes on this machine."""

    def __init__(self, jobs: int, *, command: Sequence[str] = WORKER, silence: float = SILENCE_SECONDS) -> None:
        self._jobs, self._command, self._silence = jobs, tuple(command), silence
        self._workers: list[_Worker] = []
        self._inbox: queue.SimpleQueue[tuple[_Worker, dict[str, Any] | None]] = queue.SimpleQueue()

    def free(self) -> int:
        return self._jobs - sum(worker.item is not None for worker in self._workers)

    def submit(self, order: Order) -> None:
        worker = next((worker for worker in self._workers if worker.item is None), None) or self._hire()
        worker.item, worker.asked = order.item, None
        files = {name: str(path) for name, path in order.files.items()}
        job = {"job": order.item, "folder": str(order.folder), "request": dict(order.request), "files": files}
        worker.send({"run": {**job, "previews": False}})

    def cancel(self, item: str) -> None:
        for worker in self._workers:
            if worker.item == item and worker.asked is None:
                worker.asked = time.monotonic()
                worker.send({"stop": "cancel", "job": item})

    def events(self, seconds: float) -> list[Told | Ended]:
        found: list[Told | Ended] = []
        with contextlib.suppress(queue.Empty):
            found += self._understood(*self._inbox.get(timeout=max(seconds, 0.001)))
            while True:
                found += self._understood(*self._inbox.get_nowait())
        self._watch()
        return found

    def close(self, *, force: bool = False) -> None:
        deadline = time.monotonic() + (0.0 if force else GRACE_SECONDS)
        for worker in self._workers:
            self._dismiss(worker)
        for worker in self._workers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.process.wait(max(0.0, deadline - time.monotonic()))
            worker.kill("the batch is over")
            worker.bury()
        self._workers.clear()

    # --- inside -----------------------------------------------------------------------------------

    def _hire(self) -> _Worker:
        errors = tempfile.TemporaryFile(prefix="dreamcraft3d-worker-")  # noqa: SIM115 - closed by bury()
        group: dict[str, Any] = {"start_new_session": True}  # Ctrl-C is for the runner alone
        if sys.platform == "win32":
            group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        threads = str(max(1, _cores() // self._jobs))
        environment = {"OMP_NUM_THREADS": threads, **os.environ, "PYTHONUNBUFFERED": "1"}
        pipe = subprocess.PIPE
        try:
            process = subprocess.Popen(
                self._command, stdin=pipe, stdout=pipe, stderr=errors, text=True, encoding="utf-8", bufsize=1,
                env=environment, **group,
            )  # fmt: skip
        except OSError as error:
            errors.close()
            raise WorkersUnavailableError(
                f"No worker can be started: {error}.", "Run `dreamcraft3d doctor`."
            ) from error
        worker = _Worker(process, errors)
        self._workers.append(worker)
        threading.Thread(target=self._listen, args=(worker,), name="worker messages", daemon=True).start()
        return worker

    def _listen(self, worker: _Worker) -> None:
        assert worker.process.stdout is not None
        with contextlib.suppress(ValueError, OSError):  # closed by bury()
            for line in worker.process.stdout:
                worker.heard = time.monotonic()
                message = json.loads(line)
                if "beat" not in message:
                    self._inbox.put((worker, message))
        self._inbox.put((worker, None))

    def _understood(self, worker: _Worker, message: dict[str, Any] | None) -> list[Told | Ended]:
        if worker not in self._workers:
            return []
        if message is None:
            return self._buried(worker)
        worker.greeted = worker.greeted or "hello" in message
        if worker.item is None:
            return []
        if "event" in message:
            return [Told(worker.item, message["event"], message["data"])]
        if "done" not in message or message.get("job") != worker.item:
            return []
        item, done = worker.item, message["done"]
        worker.item, worker.asked, worker.done = None, None, worker.done + 1
        if worker.done >= RENEW_AFTER:
            self._dismiss(worker)
            self._workers.remove(worker)
            threading.Thread(target=worker.bury, name="worker's end", daemon=True).start()
        detail = done.get("report") or done.get("error") or {"reason": done.get("reason", "")}
        return [Ended(item, done["outcome"], detail)]

    def _buried(self, worker: _Worker) -> list[Told | Ended]:
        """What becomes of the item of a worker that is gone."""
        self._workers.remove(worker)
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.process.wait(1.0)  # its own end, if it is ending
        killed = worker.killed
        worker.kill("its output ended")  # and that of children that outlive it
        said = _tail(worker.errors)
        worker.bury()
        code = worker.process.returncode
        if not worker.greeted and killed is None:
            last = said.splitlines()[-1] if said else f"it ended with code {code}"
            raise WorkersUnavailableError(f"A worker does not start: {last}.", "Run `dreamcraft3d doctor`.")
        if worker.item is None:
            return []
        if worker.asked is not None:
            return [Ended(worker.item, "stopped", {})]
        return [Ended(worker.item, "lost", _obituary(killed, code))]

    def _watch(self) -> None:
        now = time.monotonic()
        for worker in self._workers:
            if now - worker.heard > self._silence:
                worker.kill(f"it gave no sign of life for {self._silence:.0f} s")
            elif worker.asked is not None and now - worker.asked > GRACE_SECONDS:
                worker.kill(f"it did not stop within {GRACE_SECONDS:.0f} s")

    @staticmethod
    def _dismiss(worker: _Worker) -> None:
        """The end of its input tells a worker to stop with a checkpoint, and to go."""
        with contextlib.suppress(OSError):
            assert worker.process.stdin is not None
            worker.process.stdin.close()


def _obituary(killed: str | None, code: int) -> dict[str, Any]:
    if killed is None and sys.platform != "win32" and code == -signal.SIGKILL:
        message = "The system ended the worker; usually that means: not enough memory."
        return {"code": "out_of_memory", "message": message, "hint": "Use fewer jobs, or a smaller preset."}
    why = killed or f"it ended with code {code}"
    hint = "Retry; if it happens again, please report it with the item's log.txt."
    return {"code": "worker_lost", "message": f"The worker was lost: {why}.", "hint": hint}


def _tail(errors: IO[bytes]) -> str:
    errors.seek(0)
    return errors.read().decode("utf-8", "replace").strip()[-2000:]


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
