"""A refine request, and its result, as one ZIP file: how they travel to the service and back.

The names inside are those of `refining.folder`. A file from outside is looked at through its directory first: which
names there are and how large they will be is known before anything is unpacked, and nothing is unpacked to a disk.
"""

import re
import zipfile
from pathlib import Path

from dreamcraft3d.refining.folder import ARRAYS, request_of
from dreamcraft3d.refining.refusals import RequestBroken
from dreamcraft3d.refining.request import Header, RefineRequest, read_header
from dreamcraft3d.refining.run import RefineResult
from dreamcraft3d.workspace import Workspace, atomic_path

__all__ = ["check_archive", "is_archive", "pack_result", "read_archive"]

KNOWN = frozenset({"request.json", *(f"{name}.npy" for name in (*ARRAYS, "occluder_position", "occluder_vertex"))})
FILE = re.compile("files/[0-9a-f]{64}")
MAX_BYTES = 4 << 30
"""What all parts may have together, unpacked."""

MAX_HEADER = 4 << 20
MAX_PARTS = 10_000
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ENCRYPTED = 0x1


def is_archive(path: Path) -> bool:
    """Whether a file begins like a ZIP file."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def check_archive(path: Path) -> Header:
    """The header of a request; the other parts are only counted.

    Raises:
        RequestBroken: damaged, too large, or with parts that do not belong to a request.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_directory(archive.infolist())
            return read_header(archive.read("request.json"))
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
        raise RequestBroken(f"The request cannot be unpacked: {error}.") from error


def read_archive(path: Path) -> RefineRequest:
    """The request in a file.

    Raises:
        RefineRefused: as `check_archive` and `request_of`.
    """
    check_archive(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return request_of({part.filename: archive.read(part) for part in archive.infolist()})
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as error:
        raise RequestBroken(f"The request cannot be unpacked: {error}.") from error


def pack_result(result: RefineResult, workspace: Workspace) -> Path:
    """`result.zip`: result.json, and each image and mask that it names. PNG files are stored as they are."""
    path = workspace.file("result.zip")
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for image in result.images:
            archive.write(image.path, image.path.name)
            archive.write(image.mask, image.mask.name)
        archive.write(workspace.file("result.json"), "result.json")
    return path


def _check_directory(parts: list[zipfile.ZipInfo]) -> None:
    names = [part.filename for part in parts]
    if len(parts) > MAX_PARTS or len(set(names)) != len(names):
        raise RequestBroken("The request has too many parts, or one twice.")
    for part in parts:
        if part.filename not in KNOWN and not FILE.fullmatch(part.filename):
            raise RequestBroken(f"A request has no part named {part.filename[:80]!r}.")
        if part.compress_type not in METHODS or part.flag_bits & ENCRYPTED:
            raise RequestBroken(f"The part {part.filename} is packed in an unusual way.")
        if part.filename == "request.json" and part.file_size > MAX_HEADER:
            raise RequestBroken("request.json is too large.")
    if "request.json" not in names:
        raise RequestBroken("The request has no request.json.")
    if sum(part.file_size for part in parts) > MAX_BYTES:
        raise RequestBroken(f"The request unpacks to more than {MAX_BYTES >> 30} GiB.", "Refine fewer slots at a time.")
