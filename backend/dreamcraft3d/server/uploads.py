"""Files that clients sent: kept under the hash of their bytes, looked at before a job may use them.

A file is received under a temporary name in the same folder and renamed when it is whole, so that an id always means
all of its bytes. Its name is computed here; no name or path from a client is ever opened.
"""

import hashlib
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import BinaryIO, Literal

from anyio import to_thread

from dreamcraft3d.errors import InputError
from dreamcraft3d.server.answers import ServiceError
from dreamcraft3d.workspace import TEMPORARY, output_error

__all__ = ["MIN_FREE", "Uploads", "check_upload_mesh", "check_upload_picture", "check_upload_shape"]

logger = logging.getLogger(__name__)

MIN_FREE = 512 << 20
"""Bytes that must stay free on the disk of the data folder."""

BUFFER = 1 << 20
"""Bytes that are collected before they go to the disk."""

ID = re.compile("[0-9a-f]{64}")
GLB_MAGIC, ZIP_MAGIC = b"glTF", b"PK\x03\x04"
OBJ_VERTEX = re.compile(rb"^[ \t]*v[ \t]+[-+.\d]", re.MULTILINE)
OBJ_HEAD = 1 << 20
"""Bytes of an OBJ file in which its first vertex must be."""


class Uploads:
    """The folder of uploads."""

    def __init__(self, folder: Path, *, min_free: int = MIN_FREE) -> None:
        self.folder = folder
        self.min_free = min_free

    def find(self, upload: str) -> Path | None:
        """The file of an id, if it is there."""
        if not ID.fullmatch(upload):
            return None
        path = self.folder / upload
        return path if path.is_file() and not path.is_symlink() else None

    async def receive(self, chunks: AsyncIterator[bytes]) -> tuple[str, int]:
        """Stores what comes; (id, size).

        Raises:
            ServiceError: nothing came, or the disk is (nearly) full. OutputError: it cannot be written.
        """
        await to_thread.run_sync(self._check_space)
        handle, name = tempfile.mkstemp(prefix=TEMPORARY, dir=self.folder)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                digest, size, waiting = hashlib.sha256(), 0, bytearray()
                async for chunk in chunks:
                    waiting += chunk
                    size += len(chunk)
                    if len(waiting) >= BUFFER:
                        await to_thread.run_sync(_take, file, digest, bytes(waiting))
                        waiting.clear()
                await to_thread.run_sync(_take, file, digest, bytes(waiting))
                if size == 0:
                    raise ServiceError(422, "empty", "The upload is empty.", "Send the bytes of a file as the body.")
                await to_thread.run_sync(_flush, file)
            temporary.replace(self.folder / digest.hexdigest())
        except OSError as error:
            raise output_error(error, self.folder) from error
        finally:
            temporary.unlink(missing_ok=True)
        return digest.hexdigest(), size

    def sweep(self, wanted: Collection[str], *, older_than: float = 24 * 3600.0) -> int:
        """Removes files that no job names and that nobody sent lately; how many."""
        gone, limit = 0, time.time() - older_than
        for path in self.folder.iterdir():
            if path.name not in wanted and path.is_file() and path.stat().st_mtime < limit:
                path.unlink(missing_ok=True)
                gone += 1
        return gone

    def _check_space(self) -> None:
        free = shutil.disk_usage(self.folder).free
        if free < self.min_free:
            message = f"Only {free >> 20} MiB are free on the disk of the service."
            raise ServiceError(507, "disk", message, "Free some space, or delete old jobs.")


def check_upload_picture(path: Path, *, field: str, max_megapixels: float) -> None:
    """Looks at the header only, so that a bomb does not go off.

    Raises:
        ServiceError: no picture, too small, or too many pixels; it names the field.
    """
    from dreamcraft3d.stages.pictures import check_picture

    try:
        check_picture(path, max_megapixels=max_megapixels)
    except InputError as error:
        message = error.message.replace(str(path), f"The {field}")
        raise ServiceError(422, "bad_image", message, error.remedy, field=field) from error


def check_upload_mesh(path: Path, *, field: str) -> Literal["glb", "request"]:
    """What kind of mesh it is; of a request, all that can be known without unpacking its arrays is checked.

    Raises:
        ServiceError: no binary glTF, and no complete request.
    """
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == GLB_MAGIC:
        return "glb"
    if magic != ZIP_MAGIC:
        message, hint = f"The {field} is neither a GLB file nor a ZIP file.", "Export it as glTF Binary."
        raise ServiceError(422, "bad_mesh", message, hint, field=field)
    from dreamcraft3d.refining.archive import check_archive

    try:
        check_archive(path)
    except InputError as error:
        raise ServiceError(422, "bad_mesh", error.message, error.remedy, field=field) from error
    return "request"


def check_upload_shape(path: Path, *, field: str) -> None:
    """Look at the beginning of a mesh to start from; the worker reads the rest.

    Raises:
        ServiceError: neither a binary glTF nor the text of an OBJ file.
    """
    with path.open("rb") as file:
        head = file.read(OBJ_HEAD)
    if head.startswith(GLB_MAGIC) or (b"\0" not in head and OBJ_VERTEX.search(head)):
        return
    message, hint = f"The {field} is neither a GLB file nor an OBJ file.", "Export it as glTF Binary."
    raise ServiceError(422, "bad_mesh", message, hint, field=field)


def _take(file: BinaryIO, digest: "hashlib._Hash", data: bytes) -> None:
    file.write(data)
    digest.update(data)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
