"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from .problems import Problem

__all__ = ["write_whole"]


def write_whole(path: Path, data: bytes, *, remedy: str) -> None:
    """Writes beside the path, flushes, renames. Raises `Problem` with the remedy; the old file then is as it was."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".partial-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise Problem("read_only", f"Cannot write {path}: {error.strerror or error}.", remedy) from error
