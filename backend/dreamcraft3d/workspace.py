"""The folder of one run: finished stages, checkpoints and results, written so that nothing is ever half there.

Layout::

    OUT/result.glb, turntable.png, report.json ...     results
    OUT/stages/NAME/started.json                       fingerprint of the work under way in this folder
    OUT/stages/NAME/finished.json                      fingerprint and record of finished work
    OUT/stages/NAME/checkpoint.pt, ...                 whatever the stage saves
    OUT/.lock                                          held while a process works here

A *fingerprint* (see ``config.fingerprint``) says which configuration, and which results of earlier stages, made a
stage's files. Every file is written under a temporary name in the same folder, flushed to the disk and renamed:
after SIGKILL or on a full disk the old file, or none, is there, never a part of the new one. The lock is the
operating system's, so it dies with its process.
"""

import contextlib
import errno
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from dreamcraft3d.errors import DiskFullError, OutputError, WorkspaceBusyError

__all__ = ["Workspace", "atomic_path", "output_error"]

TEMPORARY = ".partial-"
"""Prefix of files that are being written; leftovers of a killed process are removed when the folder is opened."""

LOCK = ".lock"

MIB = 1024 * 1024


def output_error(error: OSError, path: Path) -> OutputError:
    """Turn an error of the operating system about ``path`` into one that says what to do."""
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
        message = f"The disk is full: cannot write {path}."
        return DiskFullError(message, "Free some space or choose another --out folder.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(f"Not allowed to write {path}.", "Change its permissions or choose another --out folder.")
    if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        return OutputError(f"Something is in the way of {path}.", "Choose another --out folder.")
    return OutputError(f"Cannot write {path}: {error.strerror or error}.", "Choose another --out folder.")


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; when the block succeeds it is flushed to the disk and becomes ``path``.

    The temporary name keeps the suffix of ``path``, for writers that look at it. If the block fails, or the disk is
    full, the temporary file is removed and ``path`` is as it was. Raises ``OutputError`` for errors of the
    operating system.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=TEMPORARY, suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        _flush(temporary)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        raise output_error(error, path) from error
    except Exception as error:
        if _is_full(path.parent):  # safetensors and torch have errors of their own for a full disk
            raise output_error(OSError(errno.ENOSPC, ""), path) from error
        raise
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


class Workspace:
    """The output folder of a run. Making the object touches nothing; ``with`` makes the folder and locks it."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path).expanduser().absolute()
        self._lock: IO[bytes] | None = None
        self._made: list[Path] = []

    def __repr__(self) -> str:
        return f"Workspace({str(self.path)!r})"

    def __enter__(self) -> Self:
        self._made = self.check_writable()
        self._acquire()
        for leftover in self.path.rglob(f"{TEMPORARY}*"):
            with contextlib.suppress(OSError):
                leftover.unlink()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()
        if error is not None and self._made and [entry.name for entry in self.path.iterdir()] == [LOCK]:
            with contextlib.suppress(OSError):  # nothing was written: leave nothing behind
                self.file(LOCK).unlink()
                _remove_empty(self._made)

    # --- before the work --------------------------------------------------------------------------

    def check_writable(self, *, free_mib: int = 64) -> list[Path]:
        """Make the folder and write to it once; returns the folders that were new, the innermost first.

        Raises ``OutputError``, and then leaves no new folder behind.
        """
        made = [folder for folder in (self.path, *self.path.parents) if not _exists(folder)]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(prefix=TEMPORARY, dir=self.path) as probe:
                probe.write(bytes(MIB))
                probe.flush()
                os.fsync(probe.fileno())
            if (free := shutil.disk_usage(self.path).free) < free_mib * MIB:
                message = f"Only {free // MIB} MiB are free on the disk of {self.path}; a run needs {free_mib} MiB."
                raise DiskFullError(message, "Free some space or choose another --out folder.")
        except (OSError, OutputError) as error:
            _remove_empty(made)
            raise error if isinstance(error, OutputError) else output_error(error, self.path) from error
        return made

    # --- writing ----------------------------------------------------------------------------------

    def file(self, *parts: str) -> Path:
        """The path of a file in the folder."""
        return self.path.joinpath(*parts)

    def write_bytes(self, name: str, data: bytes) -> Path:
        path = self.file(name)
        with atomic_path(path) as temporary:
            temporary.write_bytes(data)
        return path

    def write_text(self, name: str, text: str) -> Path:
        return self.write_bytes(name, text.encode("utf-8"))

    def write_json(self, name: str, value: Any) -> Path:
        return self.write_text(name, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    # --- stages -----------------------------------------------------------------------------------

    def stage(self, name: str) -> Path:
        """The folder of a stage (made if missing)."""
        folder = self.file("stages", name)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise output_error(error, folder) from error
        return folder

    def checkpoint(self, stage: str) -> Path:
        """Where a stage keeps its state of the way; write it through ``atomic_path``."""
        return self.stage(stage) / "checkpoint.pt"

    def begin(self, stage: str, fingerprint: str) -> Path:
        """Make the stage's folder ready for the work named by ``fingerprint``, and return it.

        What an interrupted run of the same work left (a checkpoint) stays; what any other work left is removed, the
        mark of being finished first and the new ``started.json`` last, so that being killed in between is harmless.
        """
        folder = self.stage(stage)
        if _fingerprint(folder / "started.json") != fingerprint:
            try:
                (folder / "finished.json").unlink(missing_ok=True)
                for entry in folder.iterdir():
                    shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
            except OSError as error:
                raise output_error(error, folder) from error
            self.write_json(f"stages/{stage}/started.json", {"fingerprint": fingerprint})
        return folder

    def finished(self, stage: str, fingerprint: str) -> bool:
        """Whether the stage's saved result was made by exactly this work."""
        return _fingerprint(self.file("stages", stage, "finished.json")) == fingerprint

    def mark_finished(self, stage: str, fingerprint: str, record: dict[str, Any]) -> None:
        """Declare the stage's files complete, with a record of how it went; the checkpoint is no longer needed."""
        self.write_json(f"stages/{stage}/started.json", {"fingerprint": fingerprint})
        self.write_json(f"stages/{stage}/finished.json", {"fingerprint": fingerprint, "record": record})
        with contextlib.suppress(OSError):
            self.checkpoint(stage).unlink(missing_ok=True)

    def record(self, stage: str) -> dict[str, Any] | None:
        """The record of a finished stage, whatever its fingerprint; None if it never finished."""
        record = _read_json(self.file("stages", stage, "finished.json")).get("record")
        return record if isinstance(record, dict) else None

    # --- one process at a time --------------------------------------------------------------------

    def _acquire(self) -> None:
        path = self.file(LOCK)
        try:
            lock = path.open("a+b")
        except OSError as error:
            raise output_error(error, path) from error
        if not _try_lock(lock):
            lock.seek(0)
            owner = lock.read(32).decode("ascii", "replace").strip()
            lock.close()
            who = f" (process {owner})" if owner else ""
            raise WorkspaceBusyError(
                f"Another run{who} is working in {self.path}.", "Wait for it, stop it, or choose another --out folder."
            )
        lock.truncate(0)
        lock.write(str(os.getpid()).encode("ascii"))
        lock.flush()
        self._lock = lock

    def _release(self) -> None:
        if self._lock is not None:
            # The operating system drops the lock. The file stays: removing it would race with a newcomer.
            self._lock.close()
            self._lock = None


def _remove_empty(folders: Iterable[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _try_lock(lock: IO[bytes]) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            lock.seek(1 << 30)  # a byte far behind the text, which stays readable for others
            msvcrt.locking(lock.fileno(), msvcrt.LK_NBLCK, 1)
            lock.seek(0)
        else:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < MIB
    except OSError:
        return False


def _flush(path: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Make the rename itself durable. Windows has no such call and does not need it."""
    if sys.platform != "win32":
        handle = os.open(folder, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # some network file systems refuse
                os.fsync(handle)
        finally:
            os.close(handle)


def _umask() -> int:
    """The permissions that new files must not have (reading it means setting it)."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return True


def _read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if there is none, or something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _fingerprint(path: Path) -> str | None:
    value = _read_json(path).get("fingerprint")
    return value if isinstance(value, str) else None
