"""The backend's `dreamcraft3d batch` as a child process. Plain Python.

A child writes its lines to files, never to pipes, so that nobody has to wait for it and it goes on when Blender ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .batch_view import Tail
from .client import Flow, Pause
from .launcher import Installation, clean_environment, detached, tail
from .problems import Problem

__all__ = ["ACTIONS", "BatchRun", "Outcome", "files_of", "folder_for", "following", "options_of", "out_in"]

ACTIONS = ("validate", "run", "status", "cancel", "retry")


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


class BatchRun:
    """One command of the backend. `folder`: where its two files go; the last run's are overwritten.

    `environment`: ours without what is Blender's, unless another one is given.
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
        environment: Mapping[str, str] | None = None,
    ) -> None:
        if installation is None:
            text = "The backend is not installed."
            raise Problem("not_installed", text, "Install it, or choose an installed one in the preferences.")
        self.action, self.source = action, source
        said, told = files_of(folder, action)
        command = [*installation.command, "batch", action, str(source), *options, "--json"]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with said.open("wb") as out, told.open("wb") as err:
                self.child = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                    env=clean_environment() if environment is None else environment, cwd=folder, **detached(),
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


def files_of(folder: Path, action: str) -> tuple[Path, Path]:
    """Where a command's results and its progress go. A retry is a run: who looks later need not know which it was."""
    name = "run" if action == "retry" else action
    return folder / f"{name}.out.jsonl", folder / f"{name}.err.jsonl"


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


def out_in(folder: Path) -> Path | None:
    """The folder of results that the last `batch status` of this batch named; None if there was none."""
    answers = Tail(files_of(folder, "status")[0]).lines()
    return Path(str(answers[-1]["out"])) if answers and "out" in answers[-1] else None
