"""Runs a batch: decides what is to do, hands items to the crew, commits results, and writes everything down.

    survey -> choose -> [submit -> finished -> commit | failed | lost -> again] ... -> summary

An item is committed by this process alone, after its worker is done with it and while the lock is held; so it is
committed once, whatever is killed when. What is interrupted stays on the disk as a checkpoint, and the next run goes on
from there.
"""

import contextlib
import fnmatch
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from dreamcraft3d.batch.crew import Crew, Ended, Order, Told
from dreamcraft3d.batch.errors import BatchStopped
from dreamcraft3d.batch.journal import Journal
from dreamcraft3d.batch.lock import BatchLock
from dreamcraft3d.batch.outcome import REFINED, clear, commit, tidy
from dreamcraft3d.batch.summary import write_summary
from dreamcraft3d.batch.survey import Standing, survey
from dreamcraft3d.batch.tasks import Batch, Task
from dreamcraft3d.batch.thumbnails import write_thumbnail
from dreamcraft3d.errors import OutputError
from dreamcraft3d.workspace import TEMPORARY, Workspace

__all__ = ["CANCEL", "BatchEvent", "Choice", "Runner", "Sink"]

logger = logging.getLogger(__name__)

CANCEL = "batch.cancel"
"""A file of this name in the output folder asks the runner to stop; see `dreamcraft3d batch cancel`."""
TICK_SECONDS = 0.5
OUTPUT_FAILURES = ("OutputError", "WorkspaceBusyError")
"""Failures of the disk, which would befall every other item too."""
FILES = {
    "image": "picture",
    "mesh": "mesh",
    "blend": "blend",
    "reference.mask": "mask",
    "reference.depth": "depth",
    "reference.normal": "normal",
    "shape": "shape",
}
"""What an order calls the input files."""

Kind = Literal["plan", "started", "progress", "warning", "committed", "failed", "stopped", "lost", "end"]


@dataclass(frozen=True)
class BatchEvent:
    """What a runner reports. `total`, `done`, `failed`: of the items of this run; `eta`: seconds, once one is done."""

    kind: Kind
    item: str | None
    total: int
    done: int
    failed: int
    eta: float | None = None
    data: dict[str, Any] = field(default_factory=dict)


Sink = Callable[[BatchEvent], None]


@dataclass(frozen=True)
class Choice:
    """Which items are to be run.

    Attributes:
        only: patterns such as chair-*; none = all. limit: at most so many. retry_failed: failed items, too.
        failed_only: nothing else. keep_stale: results of items that have changed since are good enough.
    """

    only: tuple[str, ...] = ()
    limit: int | None = None
    retry_failed: bool = False
    failed_only: bool = False
    keep_stale: bool = False

    def takes(self, standing: Standing) -> bool:
        """Whether an item that stands so is to be run."""
        if not self.names(standing.id):
            return False
        match standing.state:
            case "done":
                return False
            case "failed":
                return bool(standing.key) and (self.retry_failed or self.failed_only)
            case "stale":
                return not self.keep_stale and not self.failed_only
            case _:
                return not self.failed_only

    def names(self, item_id: str) -> bool:
        return not self.only or any(fnmatch.fnmatchcase(item_id.lower(), glob.lower()) for glob in self.only)

    def of(self, standings: Iterable[Standing]) -> list[Standing]:
        return [standing for standing in standings if self.takes(standing)][: self.limit]


class Runner:
    """One run of a batch. `run` may be called once; `stop` from a signal handler or another thread."""

    def __init__(
        self, batch: Batch, crew: Crew, *, choice: Choice = Choice(), sink: Sink = lambda event: None,
        blender: Path | None = None,
    ) -> None:  # fmt: skip
        self._batch, self._crew, self._choice, self._sink, self._blender = batch, crew, choice, sink, blender
        self._stopping = False
        self._standings: dict[str, Standing] = {}
        self._queue: deque[str] = deque()
        self._running: dict[str, float] = {}
        self._crashes: dict[str, int] = {}
        self._late: set[str] = set()
        self._total = self._done = self._failed = 0
        self._seconds: list[float] = []
        self._broken: OutputError | None = None

    def stop(self) -> None:
        """Asks every item for a checkpoint, and the run for its end."""
        self._stopping = True

    def run(self) -> list[Standing]:
        """Runs what is to do; returns how every item of the manifest stands afterwards.

        Raises:
            BatchBusyError: another runner is here. OutputError: the disk is full or read-only. WorkersUnavailableError.
            BatchStopped: `stop` was called. After each of them the same call goes on.
        """
        out = self._batch.out
        Workspace(out).check_writable()
        with BatchLock(out) as lock:
            self._lock = lock
            _sweep(out)
            with contextlib.closing(Journal(out / "journal.jsonl")) as self._journal:
                try:
                    self._plan()
                    self._work()
                except OutputError as error:
                    self._broken = error
                    raise
                finally:
                    self._crew.close(force=self._broken is not None)
                    standings = self._finish()
        if self._stopping:
            raise BatchStopped("Stopped.", "The same command goes on where it stopped.")
        return standings

    # --- before ---------------------------------------------------------------------------------------

    def _plan(self) -> None:
        self._standings = {standing.id: standing for standing in survey(self._batch)}
        for standing in self._standings.values():
            self._catch_up(standing)
        chosen = self._choice.of(self._standings.values())
        self._queue.extend(standing.id for standing in chosen)
        self._total = len(chosen)
        self._journal.append("batch_started", items=len(self._standings), chosen=self._total)
        self._tell("plan", None, chosen=[standing.id for standing in chosen])

    def _catch_up(self, standing: Standing) -> None:
        """A result that was committed just before its runner died is entered into the journal now."""
        if standing.state == "done" and standing.outcome is not None:
            tidy(self._batch.folder(standing.id), keep_stages=self._batch.settings.output.keep_stages)
            if standing.history.last != "committed" or standing.history.key != standing.key:
                self._journal.append("item_committed", standing.id, key=standing.key, recovered=True)

    # --- the loop -------------------------------------------------------------------------------------

    def _work(self) -> None:
        while self._running or (self._queue and not self._ending):
            self._check_wishes()
            while self._queue and self._crew.free() > 0 and not self._ending:
                self._start(self._queue.popleft())
            for event in self._crew.events(TICK_SECONDS):
                self._hear(event)
        if self._broken is not None:
            raise self._broken

    @property
    def _ending(self) -> bool:
        return self._stopping or self._broken is not None

    def _check_wishes(self) -> None:
        if (self._batch.out / CANCEL).exists():
            self._stopping = True
        now = time.monotonic()
        for item, started in self._running.items():
            timeout = self._standings[item].task.timeout
            if timeout is not None and now - started > timeout:
                self._late.add(item)
            if self._ending or item in self._late:
                self._crew.cancel(item)

    def _start(self, item: str) -> None:
        standing = self._standings[item]
        folder = self._batch.folder(item)
        self._lock.check()
        if standing.outcome is not None:
            clear(folder)
            standing = self._note(item, replace(standing, outcome=None))
        self._journal.append("item_started", item, key=standing.key, attempt=standing.history.attempts + 1)
        history = replace(standing.history, attempts=standing.history.attempts + 1)
        self._note(item, replace(standing, state="started", history=history))
        self._running[item] = time.monotonic()
        self._crew.submit(_order(standing.task, folder, self._blender))
        self._tell("started", item)

    def _hear(self, event: Told | Ended) -> None:
        if isinstance(event, Told):
            if event.kind in ("progress", "warning"):
                self._tell("progress" if event.kind == "progress" else "warning", event.item, **event.data)
            return
        seconds = time.monotonic() - self._running.pop(event.item)
        late = event.item in self._late
        self._late.discard(event.item)
        detail = dict(event.detail)
        match event.outcome:
            case "finished":
                self._commit(event.item, detail, seconds)
            case "stopped" if late:
                limit = self._standings[event.item].task.timeout
                message = f"It took longer than {limit:g} s."
                self._fail(event.item, {"code": "timeout", "message": message, "hint": "Raise timeout_s."})
            case "stopped" if detail.get("reason") == "disk":
                self._journal.append("item_stopped", event.item, key=self._standings[event.item].key)
                self._broken = OutputError("The disk is full.", "Free some space; the same command goes on.")
            case "stopped":
                self._journal.append("item_stopped", event.item, key=self._standings[event.item].key)
                self._tell("stopped", event.item)
            case "failed" if detail.get("code") in OUTPUT_FAILURES:
                self._journal.append("item_stopped", event.item, key=self._standings[event.item].key)
                self._broken = OutputError(detail.get("message", ""), detail.get("hint", ""))
            case "failed":
                self._fail(event.item, detail)
            case "lost":
                self._lose(event.item, detail)

    def _commit(self, item: str, report: dict[str, Any], seconds: float) -> None:
        standing, folder = self._standings[item], self._batch.folder(item)
        write_thumbnail(folder)
        self._lock.check()
        outcome = commit(folder, item, standing.key, report)
        self._journal.append("item_committed", item, key=standing.key, seconds=round(seconds, 2))
        tidy(folder, keep_stages=self._batch.settings.output.keep_stages)
        history = replace(standing.history, last="committed", key=standing.key, seconds=round(seconds, 2))
        self._note(item, replace(standing, state="done", outcome=outcome, history=history, error=None))
        self._done += 1
        self._seconds.append(seconds)
        self._tell("committed", item, seconds=round(seconds, 2))

    def _fail(self, item: str, detail: dict[str, Any]) -> None:
        words = {"code": "code", "message": "message", "hint": "remedy"}
        error = {ours: str(detail.get(theirs, "")) for theirs, ours in words.items()}
        self._journal.append("item_failed", item, key=self._standings[item].key, **error)
        self._note(item, replace(self._standings[item], state="failed", error=error))
        self._failed += 1
        self._tell("failed", item, **error)

    def _lose(self, item: str, detail: dict[str, Any]) -> None:
        """A worker that died is the item's fault only if it happens again."""
        self._crashes[item] = self._crashes.get(item, 0) + 1
        if self._crashes[item] >= self._batch.settings.limits.crashes:
            self._fail(item, detail)
            return
        self._journal.append("item_lost", item, key=self._standings[item].key, message=detail.get("message", ""))
        self._queue.appendleft(item)
        self._tell("lost", item, message=detail.get("message", ""))

    # --- after ----------------------------------------------------------------------------------------

    def _finish(self) -> list[Standing]:
        standings = list(self._standings.values())
        if self._standings and self._broken is None:
            write_summary(self._batch, standings)
            self._journal.append("batch_finished", done=self._done, failed=self._failed, stopped=self._stopping)
        with contextlib.suppress(OSError):
            (self._batch.out / CANCEL).unlink(missing_ok=True)
        self._tell("end", None)
        return standings

    def _note(self, item: str, standing: Standing) -> Standing:
        self._standings[item] = standing
        return standing

    def _tell(self, kind: Kind, item: str | None, **data: Any) -> None:
        left = self._total - self._done - self._failed
        eta = None
        if self._seconds:
            places = max(1, len(self._running) + self._crew.free())
            eta = sum(self._seconds) / len(self._seconds) * left / min(places, max(1, left))
        self._sink(BatchEvent(kind, item, self._total, self._done, self._failed, eta, data))


def _order(task: Task, folder: Path, blender: Path | None) -> Order:
    files = {FILES[key]: path for key, path in task.inputs.items() if key in FILES}
    request: dict[str, Any] = {"kind": task.item.kind, "preset": task.item.preset, "settings": task.settings}
    if task.item.kind == "refine":
        request |= {"slots": list(task.item.slots)}
        request |= {"object": task.item.object, "blender": str(blender)} if task.item.object is not None else {}
        return Order(task.id, folder / REFINED, request, files)
    return Order(task.id, folder, request, files)


def _sweep(out: Path) -> None:
    """Removes what a killed runner was just writing, and a wish to stop that came too late for it."""
    leftovers = [*out.glob(f"{TEMPORARY}*"), *out.glob(f"items/*/{TEMPORARY}*"), out / CANCEL]
    for leftover in leftovers:
        with contextlib.suppress(OSError):
            leftover.unlink()
