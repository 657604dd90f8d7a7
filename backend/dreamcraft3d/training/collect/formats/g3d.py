"""G3D version 4, the meshes of MegaGlest: binary, one set of positions per frame of an animation.

Format: https://docs.megaglest.org/G3D_file_format. The first frame is taken.
"""

import numpy as np

from dreamcraft3d.training.collect.formats.binary import Cursor
from dreamcraft3d.training.collect.parts import FormatError, Part

NAME = 64  # bytes of a fixed text
PLAYER_COLOUR = 1  # flag of a mesh
DIFFUSE = 1  # flag of a texture; four more kinds may follow
LEAST_OPACITY = 0.3


def read_g3d(data: bytes) -> list[Part]:
    """Read a G3D file; a part per mesh.

    Raises:
        FormatError: the file is no G3D, of another version, or damaged.
    """
    cursor = Cursor(data)
    cursor.expect(b"G3D")
    version, count, _kind = cursor.unpack("BHB")
    if version != 4:
        raise FormatError(f"version {version} of G3D is not read, only 4")
    parts = [_read_mesh(cursor) for _ in range(count)]
    return [part for part in parts if part is not None]


def _read_mesh(cursor: Cursor) -> Part | None:
    """Read one mesh; None if it is nearly transparent."""
    name = cursor.text(NAME)
    frames, vertices, corners = cursor.unpack("III")
    red, green, blue, *_specular, _power, opacity = cursor.unpack("8f")
    properties, textures = cursor.unpack("II")
    names = [cursor.text(NAME) for bit in range(5) if textures >> bit & 1]
    position = cursor.array("<f4", frames, vertices, 3)[:1].reshape(-1, 3).astype(np.float64)
    cursor.skip(frames * vertices * 12)  # normals
    uv = cursor.array("<f4", vertices, 2).astype(np.float64) if textures else None
    faces = cursor.array("<u4", corners // 3, 3).astype(np.int64)
    if opacity < LEAST_OPACITY:
        return None
    images = tuple(names[:1]) if textures & DIFFUSE else ()
    return Part(
        position, faces, uv, None if images else (red, green, blue), images, bool(properties & PLAYER_COLOUR), name=name
    )
