"""What the files of a batch say: its items, how far each is, who is at work. Plain Python.

The list comes from `batch status`; lock and journal in the folder of the results (see the backend's documentation,
"Batches") keep it up to date, whoever runs the batch.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .jobs import STAGES
from .launcher import alive
from .problems import Problem

__all__ = ["BatchView", "Line", "Tail", "holder_in"]

CHUNK = 1 << 18
"""Bytes that are read from a file at one go."""
STALE_SECONDS = 60.0
"""A runner whose lock is older than this is dead."""
ENDED = ("done", "failed")


class Tail:
    """The lines of JSON that are appended to a file, each once. A file that shrinks is read from its start."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0

    def lines(self) -> list[dict[str, Any]]:
        """What is new, at most `CHUNK` bytes (or one line) of it; a line that is not whole yet has to wait."""
        try:
            with self.path.open("rb") as file:
                if file.seek(0, os.SEEK_END) < self._offset:
                    self._offset = 0
                file.seek(self._offset)
                data = file.read(CHUNK)
                while b"\n" not in data and (more := file.read(CHUNK)):
                    data += more
        except OSError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [entry for line in whole.splitlines() if isinstance(entry := parsed(line), dict)]


@dataclass
class Line:
    """An item. `state`: done, stale, damaged, failed, started, pending, or running. `record`: what the backend says."""

    id: str
    name: str
    state: str = "pending"
    error: Mapping[str, Any] = field(default_factory=dict)
    stage: str = ""
    fraction: float = 0.0
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def overall(self) -> float:
        """Between 0 and 1; each stage counts the same."""
        if self.state in ENDED:
            return 1.0
        if self.state != "running":
            return 0.0
        if self.stage in STAGES:
            return (STAGES.index(self.stage) + self.fraction) / (len(STAGES) + 0.2)
        return len(STAGES) / (len(STAGES) + 0.2) if self.stage in ("mesh", "export") else self.fraction

    @property
    def problem(self) -> Problem:
        """Why it failed."""
        words = {name: str(self.error.get(name) or "") for name in ("code", "message", "remedy")}
        return Problem(words["code"] or "failed", words["message"] or "It failed.", words["remedy"])


class BatchView:
    """A batch as its files show it: the list from `batch status`, changed by the journal and by what a run says."""

    def __init__(self) -> None:
        self.out: Path | None = None
        self.items: dict[str, Line] = {}
        self.eta: float | None = None
        self.journal: Tail | None = None
        self.listed = object()

    def list_items(self, status: Mapping[str, Any]) -> None:
        """Takes the answer of `batch status`."""
        before, self.listed = self.items, object()
        self.out = Path(str(status["out"]))
        self.items = {}
        for record in status.get("items") or ():
            name = str(record["id"])
            line = Line(name, str(record.get("name") or name), str(record["state"]), record.get("error") or {})
            line.record = record
            if (old := before.get(name)) is not None and old.state == "running" and line.state == "started":
                line.state, line.stage, line.fraction = "running", old.stage, old.fraction
            self.items[name] = line
        if self.journal is None or self.journal.path.parent != self.out:
            self.journal = Tail(self.out / "journal.jsonl")
            self.read_journal(history=True)

    def read_journal(self, *, history: bool = False) -> bool:
        """Takes what is new in the journal; says whether anything was.

        Of the history only the items that are at work matter: `batch status` knows the rest better.
        """
        moved = False
        while self.journal is not None and (entries := self.journal.lines()):
            moved = True
            for entry in entries:
                self._take(entry, history=history)
            if not history:
                break
        return moved

    def _take(self, entry: Mapping[str, Any], *, history: bool) -> None:
        event = entry.get("event")
        if event in ("batch_started", "batch_finished"):
            for line in self.items.values():
                if line.state == "running":
                    line.state = "started"
            return
        found = self.items.get(str(entry.get("id")))
        if found is None:
            return
        if history:
            if found.state in ("started", "running"):
                found.state = "running" if event == "item_started" else "started"
            return
        states = {"item_started": "running", "item_committed": "done", "item_failed": "failed",
                  "item_stopped": "started", "item_lost": "pending"}  # fmt: skip
        found.state = states.get(str(event), found.state)
        found.stage, found.fraction = "", 0.0
        found.error = entry if event == "item_failed" else {}
        if event == "item_committed" and self.out is not None:
            found.record = {**found.record, "mesh": mesh_in(self.out, found.id)}

    def hear(self, said: Mapping[str, Any]) -> None:
        """Takes a line of a run: the progress of an item."""
        line = self.items.get(str(said.get("id")))
        if said.get("event") == "progress":
            if line is not None and line.state in ("running", "started"):
                total = float(said.get("total") or 0.0)
                line.stage = str(said.get("stage") or "")
                line.fraction = min(1.0, float(said.get("step") or 0.0) / total) if total else 0.0
        elif "eta" in said:
            self.eta = said["eta"]

    @property
    def holder(self) -> tuple[str, int] | None:
        """Host and process of the runner that is at work there; None if there is none, or it died."""
        return holder_in(self.out) if self.out is not None else None

    def rest(self) -> bool:
        """No runner is there: nothing is running. Says whether that is news."""
        running = [line for line in self.items.values() if line.state == "running"]
        for line in running:
            line.state = "started"
        self.eta = None
        return bool(running)

    @property
    def counts(self) -> dict[str, int]:
        """How many items are in each state that occurs."""
        states = [line.state for line in self.items.values()]
        return {state: states.count(state) for state in dict.fromkeys(states)}

    @property
    def overall(self) -> float:
        """Of the whole, between 0 and 1."""
        return sum(line.overall for line in self.items.values()) / len(self.items) if self.items else 0.0


def mesh_in(out: Path, item: str) -> str | None:
    """The mesh among the committed files of an item, relative to the results."""
    try:
        names = json.loads((out / "items" / item / "result.json").read_text(encoding="utf-8"))["outputs"]
        return next((f"items/{item}/{name}" for name in names if name.endswith((".glb", ".obj"))), None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def holder_in(out: Path) -> tuple[str, int] | None:
    """Who holds the lock in a folder of results, if it lives."""
    try:
        lock = json.loads((out / "batch.lock").read_text(encoding="utf-8"))
        host, pid, beat = str(lock["host"]), int(lock["pid"]), float(lock["beat"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if time.time() - beat > STALE_SECONDS or (host == socket.gethostname() and not alive(pid)):
        return None
    return host, pid


def parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
