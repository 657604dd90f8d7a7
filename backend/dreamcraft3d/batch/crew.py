"""Who does the work of a batch: processes that take one item at a time, and stay warm between items.

A ``Crew`` only places orders and reports what becomes of them; what to do with a lost or failed item is the runner's
business. ``LocalCrew`` drives the service's worker (``server.worker``, whose protocol is described there) in as many
processes as there are jobs. Another machine's crew has the same five methods.
"""

import contextlib
import itertools
import os
import queue
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from dreamcraft3d.batch.errors import WorkersUnavailableError
from dreamcraft3d.executors.child import WORKER, Child, Message, spawn, why_lost
from dreamcraft3d.server.logs import log_tail

__all__ = ["Crew", "Ended", "LocalCrew", "Order", "Told"]

SILENCE_SECONDS = 60.0
"""A worker that says nothing for so long (it beats every two seconds) is killed."""
GRACE_SECONDS = 30.0
"""Time to stop at a step and write a checkpoint."""
RENEW_AFTER = 50
"""A process is replaced after so many items, before small leaks add up overnight."""

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
class _Place:
    """A worker, its log, whether it has said hello, and how many items it has made."""

    child: Child
    log: Path
    greeted: bool = False
    made: int = 0


class LocalCrew:
    """Worker processes on this machine."""

    def __init__(self, jobs: int, *, command: Sequence[str] = WORKER, silence: float = SILENCE_SECONDS) -> None:
        self._jobs, self._command, self._silence = jobs, tuple(command), silence
        self._places: list[_Place] = []
        self._leaving: list[Child] = []
        self._inbox: queue.SimpleQueue[tuple[Child, Message | None]] = queue.SimpleQueue()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._hired = itertools.count()

    def free(self) -> int:
        return self._jobs - sum(place.child.job is not None for place in self._places)

    def submit(self, order: Order) -> None:
        place = next((place for place in self._places if place.child.job is None), None) or self._hire()
        files = {name: str(path.absolute()) for name, path in order.files.items()}
        folder = str(order.folder.absolute())
        job = {"job": order.item, "folder": folder, "request": dict(order.request), "files": files}
        place.child.run(order.item, {**job, "previews": False})

    def cancel(self, item: str) -> None:
        for place in self._places:
            if place.child.job == item:
                place.child.stop("cancel")

    def events(self, seconds: float) -> list[Told | Ended]:
        found: list[Told | Ended] = []
        with contextlib.suppress(queue.Empty):
            found += self._understood(*self._inbox.get(timeout=max(seconds, 0.001)))
            while True:
                found += self._understood(*self._inbox.get_nowait())
        for place in self._places:
            place.child.look()
            if (why := place.child.overdue(silence=self._silence, grace=GRACE_SECONDS)) is not None:
                place.child.kill(why)
        return found

    def close(self, *, force: bool = False) -> None:
        deadline = time.monotonic() + (0.0 if force else GRACE_SECONDS)
        children = [*(place.child for place in self._places), *self._leaving]
        for child in children:
            child.dismiss()
        for child in children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(max(0.0, deadline - time.monotonic()))
            child.kill("the batch is over")
            child.reap()
        self._places.clear()
        self._leaving.clear()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    # --- inside -----------------------------------------------------------------------------------

    def _hire(self) -> _Place:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="dreamcraft3d-batch-")
        log = Path(self._folder.name) / f"worker-{next(self._hired)}.log"
        threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, _cores() // self._jobs)))}
        try:
            child = spawn(self._command, log=log, on_message=lambda *said: self._inbox.put(said), environment=threads)
        except OSError as error:
            raise WorkersUnavailableError(
                f"No worker can be started: {error}.", "Run `dreamcraft3d doctor`."
            ) from error
        place = _Place(child, log)
        self._places.append(place)
        return place

    def _understood(self, child: Child, message: Message | None) -> list[Told | Ended]:
        place = next((place for place in self._places if place.child is child), None)
        if place is None:
            if message is None and child in self._leaving:
                self._leaving.remove(child)
                child.reap()
            return []
        if message is None:
            return self._gone(place)
        place.greeted = place.greeted or "hello" in message
        item = child.job
        if item is None:
            return []
        if "event" in message:
            return [Told(item, message["event"], message["data"])]
        if "done" not in message or message.get("job") != item:
            return []
        done = message["done"]
        child.rest()
        place.made += 1
        if place.made >= RENEW_AFTER:
            self._places.remove(place)
            self._leaving.append(child)
            child.dismiss()
        detail = done.get("report") or done.get("error") or {"reason": done.get("reason", "")}
        return [Ended(item, done["outcome"], detail)]

    def _gone(self, place: _Place) -> list[Told | Ended]:
        """What becomes of the item of a worker that is gone."""
        self._places.remove(place)
        child = place.child
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.process.wait(1.0)  # its own end, if it is ending
        code = child.reap()
        if not place.greeted and child.killed is None:
            said = log_tail(place.log)
            last = said[-1] if said else f"it ended with code {code}"
            raise WorkersUnavailableError(f"A worker does not start: {last}.", "Run `dreamcraft3d doctor`.")
        if child.job is None:
            return []
        if child.asked is not None:
            return [Ended(child.job, "stopped", {})]
        why, text = why_lost(child)
        hint = {"out_of_memory": "Use fewer jobs, or a smaller preset."}.get(
            why, "Retry; if it happens again, please report it with the item's log.txt."
        )
        return [Ended(child.job, "lost", {"code": why, "message": text, "hint": hint})]


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
