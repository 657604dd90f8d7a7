"""The request as a folder (or anything that maps names to bytes): what the extension sends and tests can look into.

    request.json                          `Header`
    position.npy tri_vertex.npy ...       the arrays of `TriangleSoup`, little-endian, by name
    occluder_position.npy occluder_vertex.npy      optional
    files/<sha256>                        image files as they are

Writing needs `json.dumps`, `numpy.save(allow_pickle=False)` and copying; nothing of this package.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamcraft3d.refining.refusals import RequestBroken
from dreamcraft3d.refining.request import (
    SHAPES,
    Occluders,
    RefineRequest,
    TriangleSoup,
    as_json,
    digest,
    read_header,
)
from dreamcraft3d.workspace import atomic_path

__all__ = ["members", "read_request", "request_of", "write_request"]

ARRAYS = ("position", *SHAPES)
LARGEST = 1 << 32
"""Bytes of one array above which a request is refused unread."""


def members(request: RefineRequest) -> dict[str, bytes]:
    """The files of a request folder by their names in it, `request.json` last."""
    result = {f"{name}.npy": _npy(getattr(request.soup, name)) for name in ARRAYS}
    if request.occluders is not None:
        result["occluder_position.npy"] = _npy(request.occluders.position)
        result["occluder_vertex.npy"] = _npy(request.occluders.tri_vertex)
    result |= {f"files/{name}": data for name, data in request.files.items()}
    return {**result, "request.json": as_json(request.header).encode()}


def request_of(contents: Mapping[str, bytes]) -> RefineRequest:
    """The inverse of `members`.

    Raises:
        RefineRefused: something is missing, damaged, or does not fit.
    """
    if "request.json" not in contents:
        raise RequestBroken("The request has no request.json.")
    header = read_header(contents["request.json"])
    soup = TriangleSoup(**{name: _array(contents, f"{name}.npy") for name in ARRAYS})
    occluders = None
    if "occluder_position.npy" in contents:
        arrays = [_array(contents, f"occluder_{name}.npy") for name in ("position", "vertex")]
        occluders = Occluders(*arrays)
    files = {digest(data): data for name, data in contents.items() if name.startswith("files/")}
    return RefineRequest(header, soup, occluders, files)


def write_request(request: RefineRequest, folder: Path) -> None:
    """Writes the folder; `request.json` comes last, so that a folder with it is complete."""
    for name, data in members(request).items():
        with atomic_path(folder / name) as temporary:
            temporary.write_bytes(data)


def read_request(folder: Path) -> RefineRequest:
    """Reads a folder.

    Raises:
        RefineRefused: as `request_of`.
    """
    names = ["request.json", *(f"{name}.npy" for name in (*ARRAYS, "occluder_position", "occluder_vertex"))]
    paths = {name: folder / name for name in names}
    paths |= {f"files/{path.name}": path for path in sorted((folder / "files").glob("*"))}
    return request_of({name: path.read_bytes() for name, path in paths.items() if path.is_file()})


def _npy(array: NDArray[np.generic]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")), allow_pickle=False)
    return buffer.getvalue()


def _array(contents: Mapping[str, bytes], name: str) -> NDArray[Any]:
    if name not in contents:
        raise RequestBroken(f"The request has no {name}.")
    if len(contents[name]) > LARGEST:
        raise RequestBroken(f"{name} is too large.")
    try:
        array = np.load(io.BytesIO(contents[name]), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise RequestBroken(f"{name} cannot be read: {error}.") from error
    return np.asarray(array, dtype=array.dtype.newbyteorder("="))
