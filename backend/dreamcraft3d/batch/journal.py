"""``journal.jsonl``: the history of a batch, appended to and never rewritten.

Each line is one event with its time and run. A line is on the disk before anything else happens. A line that was cut
off by a crash is removed when the next runner opens the journal. What the journal says about *results* is never
trusted alone: the commit marker in the item's folder decides (see ``outcome``).
"""

import json
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from dreamcraft3d.workspace import output_error

__all__ = ["History", "Journal", "replay"]

Ending = Literal["", "started", "stopped", "committed", "failed"]


@dataclass(frozen=True)
class History:
    """What the journal knows of an item.

    Attributes:
        last: how its last attempt ended; "started": it did not.
        key: what that attempt was for. attempts: how many were started. seconds: of the attempt that was committed.
        error: {code, message, remedy} of the last failure.
    """

    last: Ending = ""
    key: str = ""
    attempts: int = 0
    seconds: float | None = None
    error: dict[str, Any] | None = None


class Journal:
    """The end of the file, for the one who holds the lock. Raises ``OutputError`` where the disk refuses."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._run = uuid.uuid4().hex[:8]
        try:
            _cut_torn_line(path)
            self._file = path.open("ab")
        except OSError as error:
            raise output_error(error, path) from error

    def append(self, event: str, item: str | None = None, **data: Any) -> None:
        """Writes an event, durably."""
        about = {} if item is None else {"id": item}
        entry = {"t": round(time.time(), 3), "run": self._run, "event": event, **about, **data}
        line = json.dumps(entry, ensure_ascii=False).encode("utf-8") + b"\n"
        try:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise output_error(error, self._path) from error

    def close(self) -> None:
        """What could not be written before cannot be written now either."""
        try:
            self._file.close()
        except OSError as error:
            raise output_error(error, self._path) from error


def replay(path: Path) -> dict[str, History]:
    """The history of every item that was ever started. No journal, no history."""
    items: dict[str, History] = {}
    for entry in _entries(path):
        name = entry.get("id")
        if isinstance(name, str):
            items[name] = _after(items.get(name, History()), entry)
    return items


def _after(before: History, entry: dict[str, Any]) -> History:
    key = str(entry.get("key", ""))
    match entry.get("event"):
        case "item_started":
            return replace(before, last="started", key=key, attempts=before.attempts + 1)
        case "item_committed":
            return replace(before, last="committed", key=key, seconds=entry.get("seconds"), error=None)
        case "item_failed":
            error = {name: entry.get(name, "") for name in ("code", "message", "remedy")}
            return replace(before, last="failed", key=key, error=error)
        case "item_stopped" | "item_lost":
            return replace(before, last="stopped", key=key)
        case _:
            return before


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n") and isinstance(entry := _parsed(line), dict):
                    yield entry
    except FileNotFoundError:
        return
    except OSError as error:
        raise output_error(error, path) from error


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _cut_torn_line(path: Path) -> None:
    if not path.exists():
        return
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - (1 << 20)))
        tail = file.read()
        if tail and not tail.endswith(b"\n"):
            file.truncate(end - len(tail) + tail.rfind(b"\n") + 1)
