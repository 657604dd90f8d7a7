"""Batches seen from Blender: the backend's `dreamcraft3d batch` as a child process, and what its files say.

Plain Python. A child writes its lines to files, never to pipes, so that nobody has to wait for it and it goes on when
Blender ends. What lies in a batch's folder (lock and journal, see the backend's documentation, "Batches") is enough to
find a running batch again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .client import Flow, Pause
from .jobs import STAGES
from .launcher import Installation, alive, clean_environment, detached, tail
from .problems import Problem

__all__ = ["ACTIONS", "BatchRun", "BatchView", "Line", "Outcome", "Tail", "folder_for", "following", "options_of"]

ACTIONS = ("validate", "run", "status", "cancel", "retry")

CHUNK = 1 << 18
"""Bytes that are read from a file at one go."""
STALE_SECONDS = 60.0
"""A runner whose lock is older than this is dead."""
ENDED = ("done", "failed")


# --- the child ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """How a command ended. `code`: 0 all is well, 3 some items failed. `record`: its last line on stdout."""

    code: int
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def out(self) -> Path:
        """The folder of the results."""
        return Path(str(self.record.get("out") or "."))

    @property
    def counts(self) -> Mapping[str, int]:
        """How many items are in each state."""
        return dict(self.record.get("counts") or {})


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


class BatchRun:
    """One command of the backend. `folder`: where its two files go; the last run's are overwritten.

    Raises `Problem` if it cannot be started.
    """

    def __init__(
        self,
        installation: Installation | None,
        action: str,
        source: Path,
        options: Sequence[str] = (),
        *,
        folder: Path,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        if installation is None:
            text = "The backend is not installed."
            raise Problem("not_installed", text, "Install it, or choose an installed one in the preferences.")
        self.action, self.source = action, source
        said, told = folder / f"{action}.out.jsonl", folder / f"{action}.err.jsonl"
        command = [*installation.command, "batch", action, str(source), *options, "--json"]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with said.open("wb") as out, told.open("wb") as err:
                self.child = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                    env=clean_environment(environment), cwd=folder, **detached(),
                )  # fmt: skip
        except OSError as error:
            text = f"The backend cannot be started: {error.strerror or error}."
            raise Problem("broken_installation", text, "Repair the installation.") from error
        self.log = told
        self._answers, self._news = Tail(said), Tail(told)
        self._last: dict[str, Any] = {}
        self._code: int | None = None

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        if self._code is None:
            self._code = self.child.poll()
        return self._code

    def lines(self) -> list[dict[str, Any]]:
        """What it has said since the last call: results, then progress."""
        answers = self._answers.lines()
        if answers:
            self._last = answers[-1]
        return [line for line in answers if "event" in line] + self._news.lines()

    def stop(self) -> None:
        """Asks it for an end; a runner stops at the next step of each item, with a checkpoint."""
        if self.poll() is None and sys.platform != "win32":  # on Windows `batch cancel` does it
            with contextlib.suppress(OSError):
                self.child.send_signal(signal.SIGINT)

    def outcome(self) -> Outcome:
        """How it ended. Raises `Problem` if it could not do what it was asked."""
        code = self.poll()
        if code in (0, 3):
            return Outcome(code or 0, self._last)
        raise problem_of(code, self._last, tail(self.log))


def problem_of(code: int | None, record: Mapping[str, Any], log: str) -> Problem:
    """Why a command did not do what it was asked."""
    mistakes = [mistake for mistake in record.get("problems") or () if isinstance(mistake, dict)]
    if mistakes:
        first = sentence(mistakes[0])
        more = f" And {len(mistakes) - 1} more." if len(mistakes) > 1 else ""
        text = "\n".join(map(sentence, mistakes))
        return Problem("bad_manifest", f"{first}{more}", "Correct the manifest.", log=text)
    if code == 5:
        return Problem("cancelled", "The batch was stopped.", "Run it again: it goes on where it stopped.")
    message, remedy = str(record.get("error") or ""), str(record.get("remedy") or "")
    name = {2: "bad_setting", 4: "busy"}.get(code or 0, "bug")
    return Problem(name, message or f"The backend ended with code {code}.", remedy or "Its log says why.", log=log)


def sentence(mistake: Mapping[str, Any]) -> str:
    """A mistake of a manifest in words."""
    where = f"line {mistake['line']}" if mistake.get("line") else ""
    place = ": ".join(str(part) for part in (where, mistake.get("item")) if part)
    text = f"{mistake.get('message', '')} {mistake.get('remedy', '')}".strip()
    return f"{place}: {text}" if place else text


def following(
    run: BatchRun, seen: Callable[[dict[str, Any]], None] = lambda line: None, every: float = 0.1
) -> Flow[Outcome]:
    """Flow: until the command has ended; `seen` gets each line. Raises `Problem`."""
    while True:
        code = run.poll()
        while lines := run.lines():
            for line in lines:
                seen(line)
        if code is not None:
            return run.outcome()
        yield Pause(every)


def options_of(
    *,
    out: Path | str | None = None,
    only: Sequence[str] = (),
    limit: int | None = None,
    jobs: int | None = None,
    retry_failed: bool = False,
    keep_stale: bool = False,
    dry_run: bool = False,
) -> list[str]:
    """The words of the command line."""
    words = [] if out is None else ["--out", str(Path(out).absolute())]
    for name, value in (("--limit", limit), ("--jobs", jobs)):
        words += [] if value is None else [name, str(value)]
    words += [word for pattern in only for word in ("--only", pattern)]
    flags = {"--retry-failed": retry_failed, "--keep-stale": keep_stale, "--dry-run": dry_run}
    return words + [name for name, given in flags.items() if given]


def folder_for(base: Path, source: Path) -> Path:
    """Where this Blender keeps what its runs of a batch say: the same for the same manifest, also tomorrow."""
    digest = hashlib.sha256(str(source.absolute()).encode("utf-8", "surrogateescape")).hexdigest()
    return base / "batches" / digest[:16]


# --- what the folder says -------------------------------------------------------------------------


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

    def list_items(self, status: Mapping[str, Any]) -> None:
        """Takes the answer of `batch status`."""
        before = self.items
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
