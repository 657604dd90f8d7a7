"""``batch.lock``: one runner per output folder, also where the folder is shared between machines.

The file names its holder: host, process, and a heartbeat that the holder renews. A lock is stale when its process is
gone from this host, or when its heartbeat stopped; then it may be taken over. A runner that slept through that (a
stopped process, a suspended machine) finds a stranger's token in the file before its next commit, and gives up.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import filelock
import psutil

from dreamcraft3d.batch.errors import BatchBusyError
from dreamcraft3d.errors import OutputError
from dreamcraft3d.workspace import atomic_path, output_error

__all__ = ["BatchLock", "Holder", "holder_of"]

BEAT_SECONDS = 5.0
STALE_SECONDS = 60.0
"""A heartbeat older than this is dead."""
GUARD_SECONDS = 10.0


@dataclass(frozen=True)
class Holder:
    """Who works in a folder. `beat`: seconds since 1970; `born`: when the process started, against reused numbers."""

    host: str
    pid: int
    born: float
    token: str
    beat: float

    @property
    def alive(self) -> bool:
        """Whether it still works there, as far as one can know."""
        if self.host == socket.gethostname() and not _lives(self.pid, self.born):
            return False
        return time.time() - self.beat < STALE_SECONDS


def holder_of(out: Path) -> Holder | None:
    """The runner that works in this folder now; None if there is none, or it died."""
    holder = _read(out / "batch.lock")
    return holder if holder is not None and holder.alive else None


class BatchLock:
    """Held for the time of a ``with`` block.

    Raises ``BatchBusyError`` with the holder's host and process, ``OutputError``.
    """

    def __init__(self, out: Path) -> None:
        self._path = out / "batch.lock"
        # The moment between looking and taking is guarded by the operating system's lock, which dies with its process.
        self._guard = filelock.FileLock(out / ".batch.guard", timeout=GUARD_SECONDS)
        self._token = uuid.uuid4().hex
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="batch heartbeat", daemon=True)

    def __enter__(self) -> Self:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._guard:
                self._take()
        except filelock.Timeout as error:
            raise BatchBusyError("Another runner is just starting in this folder.", "Try again.") from error
        except OSError as error:
            raise output_error(error, self._path) from error
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        with contextlib.suppress(OSError, filelock.Timeout), self._guard:
            if self.held:
                self._path.unlink()

    @property
    def held(self) -> bool:
        """Whether the file still names us."""
        holder = _read(self._path)
        return holder is not None and holder.token == self._token

    def check(self) -> None:
        """Raises ``BatchBusyError`` if somebody took over; what follows must not be written then."""
        if not self.held:
            who = _read(self._path)
            by = f"process {who.pid} on {who.host}" if who else "another runner"
            raise BatchBusyError(f"This runner was silent for too long; {by} took over.", "Nothing was lost.")

    def _take(self) -> None:
        holder = _read(self._path)
        if holder is not None and holder.alive:
            raise BatchBusyError(
                f"Process {holder.pid} on {holder.host} is running a batch in {self._path.parent}.",
                "Wait for it, stop it with `dreamcraft3d batch cancel`, or choose another --out.",
            )
        self._write()

    def _write(self) -> None:
        pid = os.getpid()
        holder = Holder(socket.gethostname(), pid, psutil.Process(pid).create_time(), self._token, time.time())
        with atomic_path(self._path) as temporary:
            temporary.write_text(json.dumps(vars(holder)), encoding="utf-8")

    def _beat(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            with contextlib.suppress(OutputError, filelock.Timeout), self._guard:  # a full disk may have space again
                if self.held:
                    self._write()


def _read(path: Path) -> Holder | None:
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
        return Holder(**values)
    except (OSError, ValueError, TypeError):
        return None


def _lives(pid: int, born: float) -> bool:
    try:
        process = psutil.Process(pid)
        return bool(abs(process.create_time() - born) < 2.0 and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
