"""SPM, the meshes of SuperTuxKart: binary, little-endian, with half-precision texture coordinates.

Format: https://supertuxkart.net/SPM. Animations are left out: the vertices are those of the rest pose.
"""

import numpy as np
from numpy.typing import NDArray

from dreamcraft3d.training.collect.formats.binary import Cursor
from dreamcraft3d.training.collect.parts import FormatError, Part

ANIMATED, STATIC_SPACE_PARTITIONED = 1, 0
WHITE_VERTEX = 128
"""Mark of a vertex whose colour is white and not stored."""


def read_spm(data: bytes) -> list[Part]:
    """Read an SPM file; a part per mesh buffer.

    Raises:
        FormatError: the file is no SPM, or damaged.
    """
    cursor = Cursor(data)
    cursor.expect(b"SP")
    kind, flags = cursor.integer("B") & 7, cursor.integer("B")
    cursor.skip(24)  # bounding box
    materials = [(_name(cursor), _name(cursor)) for _ in range(cursor.integer("H"))]
    parts = []
    for _ in range(cursor.integer("H")):
        if kind == STATIC_SPACE_PARTITIONED:
            cursor.skip(96)
        buffers = range(cursor.integer("H"))
        parts += [_read_buffer(cursor, materials, flags, animated=kind == ANIMATED) for _ in buffers]
    return parts


def _name(cursor: Cursor) -> str:
    return cursor.take(cursor.integer("B")).decode("utf-8", "replace")


def _read_buffer(cursor: Cursor, materials: list[tuple[str, str]], flags: int, *, animated: bool) -> Part:
    count, corners, material = cursor.unpack("IIH")
    if material >= len(materials):
        raise FormatError(f"there is no material {material}")
    image, second = materials[material]
    normals, colours, tangents = flags & 1, flags & 2, flags & 4
    layout = [("position", "<f4", 3), *([("normal", "u1", 4)] if normals else [])]
    behind: list[tuple[str, str, int]] = []
    if image:
        behind = [("uv", "<f2", 2), *([("uv2", "<f2", 2)] if second else [])]
        behind += [("tangent", "u1", 4)] if tangents else []
    behind += [("bones", "u1", 16)] if animated else []
    colour: tuple[float, float, float] | None = None
    if colours:
        vertices, colour = _coloured_vertices(cursor, count, np.dtype(layout), np.dtype(behind))
    else:
        vertices = cursor.array(np.dtype([*layout, *behind]), count)
    uv = None
    if image:
        uv = vertices["uv"].astype(np.float64)
        uv[:, 1] = 1.0 - uv[:, 1]
    faces = cursor.array("<u2" if count > 255 else "u1", corners // 3, 3).astype(np.int64)
    return Part(vertices["position"].astype(np.float64), faces, uv, None if image else colour, (image,) * bool(image))


def _coloured_vertices(
    cursor: Cursor, count: int, before: np.dtype[np.void], behind: np.dtype[np.void]
) -> tuple[NDArray[np.void], tuple[float, float, float]]:
    """Read vertices with a colour between two records, 1 byte long where it is white, else 4; and the mean colour."""
    rows, total = bytearray(), np.zeros(3)
    for _ in range(count):
        rows += cursor.take(before.itemsize)
        white = cursor.integer("B") == WHITE_VERTEX
        total += 1.0 if white else cursor.array("u1", 3) / 255.0
        rows += cursor.take(behind.itemsize)
    joined = np.dtype([*((name, before[name]) for name in before.names or ()), *_fields(behind)])
    red, green, blue = (total / max(count, 1)).tolist()
    return np.frombuffer(bytes(rows), joined).reshape(count), (red, green, blue)


def _fields(record: np.dtype[np.void]) -> list[tuple[str, np.dtype[np.void]]]:
    return [(name, record[name]) for name in record.names or ()]
