"""PIE, the meshes of Warzone 2100: text. Of several levels (poses, states of damage) the first is taken.

Format: https://betaguide.wz2100.net/PIE.html. Texture coordinates are in 256ths before version 3.
"""

import numpy as np

from dreamcraft3d.training.collect.arrays import Array
from dreamcraft3d.training.collect.formats.lines import Lines, numbers
from dreamcraft3d.training.collect.parts import FormatError, Part, fan

TEXTURED, ANIMATED = 0x200, 0x4000


def read_pie(data: bytes) -> list[Part]:
    """Read a PIE file.

    Raises:
        FormatError: the file is no PIE, or damaged.
    """
    lines, version, image, points = Lines(data), 0, "", np.zeros((0, 3))
    for line in lines:
        words = line.split() or [""]
        if words[0] == "PIE":
            version = int(numbers(words[1:], 1)[0])
        elif words[0] == "TEXTURE" and len(words) > 2:
            image = words[2]
        elif words[0] == "POINTS":
            points = np.array(lines.vectors(int(numbers(words[1:], 1)[0]), 3)).reshape(-1, 3)
        elif words[0] == "POLYGONS" and version:
            return [_read_polygons(lines, int(numbers(words[1:], 1)[0]), points, version, image)]
    raise FormatError("not a PIE file, or one without polygons")


def _read_polygons(lines: Lines, count: int, points: Array, version: int, image: str) -> Part:
    corners: list[int] = []
    uv: list[tuple[float, float]] = []
    faces: list[tuple[int, int, int]] = []
    for _ in range(count):
        polygon, coordinates = _polygon(lines.next().split(), version)
        faces += fan(len(polygon), len(corners))
        corners += polygon
        uv += coordinates
    if corners and not 0 <= min(corners) <= max(corners) < len(points):
        raise FormatError("a polygon names a point that is not there")
    shape = np.array(faces, np.int64).reshape(-1, 3), np.array(uv).reshape(-1, 2)
    return Part(points[corners], *shape, images=(image,) if image else ())


def _polygon(words: list[str], version: int) -> tuple[list[int], list[tuple[float, float]]]:
    """Corner indices and texture coordinates of `flags n i1..in [4 numbers of an animation] u1 v1..un vn`."""
    try:
        flags, count = int(words[0], 16), int(words[1])
        corners = [int(word) for word in words[2 : 2 + count]]
    except (IndexError, ValueError) as error:
        raise FormatError(f"not a polygon: {' '.join(words)[:60]}") from error
    if len(corners) != count:
        raise FormatError("a polygon has fewer corners than it says")
    if not flags & TEXTURED:
        return corners, [(0.0, 1.0)] * count
    rest = words[2 + count + (4 if flags & ANIMATED else 0) :]
    values = np.array(numbers(rest, 2 * count)).reshape(-1, 2) / (256.0 if version < 3 else 1.0)
    return corners, [(u, 1.0 - v) for u, v in values.tolist()]
