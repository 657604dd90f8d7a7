"""MD2, the models of Quake II, as UFO: Alien Invasion uses them: binary, one part, frames of bytes. First frame."""

import numpy as np

from dreamcraft3d.training.collect.arrays import Array
from dreamcraft3d.training.collect.formats.binary import Cursor
from dreamcraft3d.training.collect.parts import FormatError, Part

NAME = 64


def read_md2(data: bytes) -> list[Part]:
    """Read an MD2 file; `images` are its skins.

    Raises:
        FormatError: the file is no MD2, or damaged.
    """
    cursor = Cursor(data)
    cursor.expect(b"IDP2")
    header = cursor.unpack("16i")
    if min(header) < 0:
        raise FormatError("a size in the header is negative")
    _version, width, height, _frame, skins, vertices, texels, triangles, _commands, _frames = header[:10]
    at_skins, at_texels, at_triangles, at_frames = header[10:14]
    skin_names = Cursor(data, at_skins)
    images = tuple(skin_names.text(NAME) for _ in range(skins))
    texel = Cursor(data, at_texels).array("<i2", texels, 2).astype(np.float64)
    corners = Cursor(data, at_triangles).array("<u2", triangles, 2, 3).astype(np.int64)
    frame = Cursor(data, at_frames)
    scale, origin = frame.array("<f4", 3), frame.array("<f4", 3)
    frame.skip(16)  # its name
    position = frame.array("u1", vertices, 4)[:, :3] * scale + origin
    # positions and texture coordinates are numbered apart: each pair that occurs becomes a vertex
    pairs, faces = np.unique(corners.swapaxes(0, 1).reshape(2, -1), axis=1, return_inverse=True)
    _check(pairs, vertices, texels)
    uv = None
    if texels:
        uv = texel[pairs[1]] / [max(width, 1), max(height, 1)]
        uv[:, 1] = 1.0 - uv[:, 1]
    faces = faces.reshape(-1, 3)[:, ::-1]  # Quake's front sides are clockwise
    return [Part(position[pairs[0]].astype(np.float64), faces, uv, images=images)]


def _check(pairs: Array, vertices: int, texels: int) -> None:
    if pairs.size and (pairs[0].max() >= vertices or (texels and pairs[1].max() >= texels)):
        raise FormatError("a triangle names a vertex that is not there")
