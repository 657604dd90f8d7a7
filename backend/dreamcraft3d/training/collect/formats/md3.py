"""MD3, the models of Quake III, Nexuiz and OpenArena: binary, a part per surface. First frame."""

import numpy as np

from dreamcraft3d.training.collect.formats.binary import Cursor
from dreamcraft3d.training.collect.parts import Part

NAME = 64
UNIT = 1.0 / 64.0  # of the stored positions


def read_md3(data: bytes) -> list[Part]:
    """Read an MD3 file; `images` names the first shader of each surface.

    Raises:
        FormatError: the file is no MD3, or damaged.
    """
    cursor = Cursor(data)
    cursor.expect(b"IDP3")
    header = cursor.unpack("i64s9i")
    surfaces, position = header[5], header[9]
    parts = []
    for _ in range(surfaces):
        part, length = _read_surface(data, position)
        parts.append(part)
        position += length
    return [part for part in parts if not part.name.lower().startswith("tag")]  # marks where other models are held


def _read_surface(data: bytes, start: int) -> tuple[Part, int]:
    """One surface and its length in bytes."""
    cursor = Cursor(data, start)
    cursor.expect(b"IDP3")
    name = cursor.text(NAME)
    _flags, _frames, shaders, vertices, triangles, *offsets = cursor.unpack("10i")
    at_triangles, at_shaders, at_uv, at_positions, length = offsets
    images = (Cursor(data, start + at_shaders).text(NAME),) if shaders > 0 else ()
    faces = Cursor(data, start + at_triangles).array("<i4", triangles, 3).astype(np.int64)
    uv = Cursor(data, start + at_uv).array("<f4", vertices, 2).astype(np.float64)
    uv[:, 1] = 1.0 - uv[:, 1]
    positions = Cursor(data, start + at_positions).array("<i2", vertices, 4)[:, :3] * UNIT
    return Part(positions, faces[:, ::-1], uv, images=tuple(filter(None, images)), name=name), length
