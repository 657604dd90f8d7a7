"""Where each item of a batch stands, from what lies on the disk: commit markers first, then the journal."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from dreamcraft3d.batch.journal import History, replay
from dreamcraft3d.batch.keys import item_key
from dreamcraft3d.batch.outcome import REFINED, Outcome, read_outcome
from dreamcraft3d.batch.tasks import Batch, Task

__all__ = ["Standing", "State", "counts", "survey"]

State = Literal["done", "stale", "damaged", "failed", "started", "pending"]
"""done: the result is there and answers the item as it is now. stale: it answers the item as it was. damaged: its files
were changed. failed: the last attempt failed. started: an attempt was interrupted, and can go on. pending: none yet."""


@dataclass(frozen=True)
class Standing:
    """An item's state. `key`: what a result would have to answer; `error`: {code, message, remedy} if it failed."""

    task: Task
    key: str
    state: State
    history: History
    outcome: Outcome | None = None
    error: dict[str, Any] | None = None

    @property
    def id(self) -> str:
        return self.task.id

    @property
    def log(self) -> str:
        """The path of the item's log, relative to the output folder."""
        inside = f"{REFINED}/" if self.task.item.kind == "refine" else ""
        return f"items/{self.id}/{inside}log.txt"


def survey(batch: Batch, *, verify: bool = True) -> Iterator[Standing]:
    """Every task in its order. `verify` reads the results, too, to see whether they are whole.

    Raises ``OutputError`` if the journal cannot be read.
    """
    histories = replay(batch.out / "journal.jsonl")
    for task in batch.tasks:
        yield _standing(batch, task, histories.get(task.id, History()), verify=verify)


def counts(standings: list[Standing]) -> dict[str, int]:
    """How many items are in each state that occurs."""
    states = [standing.state for standing in standings]
    return {state: states.count(state) for state in dict.fromkeys(states)}


def _standing(batch: Batch, task: Task, history: History, *, verify: bool) -> Standing:
    try:
        key = item_key(task)
    except OSError as error:
        words = {"code": "InputError", "message": f"Cannot read {error.filename}.", "remedy": "Check the file."}
        return Standing(task, "", "failed", history, error=words)
    folder = batch.folder(task.id)
    outcome = read_outcome(folder)
    if outcome is not None:
        state: State = "stale" if outcome.key != key else "done"
        if verify and not outcome.intact(folder):
            state = "damaged"
        return Standing(task, key, state, history, outcome)
    if history.key == key and history.last == "failed":
        return Standing(task, key, "failed", history, error=history.error)
    begun = history.key == key and history.last in ("started", "stopped")
    return Standing(task, key, "started" if begun else "pending", history)
