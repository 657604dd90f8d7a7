"""PMD, the compiled meshes of 0 A.D.: binary, with the points that other meshes are attached to.

Format: https://trac.wildfiregames.com/wiki/PMD_File_Format (versions 3 and 4). The rest pose is taken.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from dreamcraft3d.training.collect.arrays import Array
from dreamcraft3d.training.collect.formats.binary import Cursor
from dreamcraft3d.training.collect.parts import FormatError, Part

ROOT = 0xFF
"""The bone of a point that hangs on the object itself."""


@dataclass(frozen=True)
class Attachable:
    """A mesh, and the matrix of each named point that a prop can be attached to."""

    part: Part
    points: dict[str, Float[Array, "4 4"]]


def read_pmd(data: bytes) -> Attachable:
    """Read a PMD file.

    Raises:
        FormatError: the file is no PMD, or damaged.
    """
    cursor = Cursor(data)
    cursor.expect(b"PSMD")
    version, _size, count = cursor.unpack("III")
    sets = cursor.integer() if version >= 4 else 1
    if not 1 <= sets <= 16:
        raise FormatError(f"{sets} sets of texture coordinates")
    layout = [("position", "<f4", 3), ("normal", "<f4", 3), ("uv", "<f4", (sets, 2)), ("bones", "u1", 4)]
    vertices = cursor.array(np.dtype([*layout, ("weights", "<f4", 4)]), count)
    faces = cursor.array("<u2", cursor.integer(), 3).astype(np.int64)
    bones = [_matrix(cursor) for _ in range(cursor.integer())]
    uv = vertices["uv"][:, 0].astype(np.float64)
    uv[:, 1] = 1.0 - uv[:, 1]
    points = _read_points(cursor, bones) if cursor.left else {}
    return Attachable(Part(vertices["position"].astype(np.float64), faces, uv), points)


def _read_points(cursor: Cursor, bones: list[Float[Array, "4 4"]]) -> dict[str, Float[Array, "4 4"]]:
    points = {}
    for _ in range(cursor.integer()):
        name = cursor.take(cursor.integer()).decode("latin-1")
        matrix, bone = _matrix(cursor), cursor.integer("B")
        points[name] = bones[bone] @ matrix if bone != ROOT and bone < len(bones) else matrix
    return points


def _matrix(cursor: Cursor) -> Float[Array, "4 4"]:
    """A translation and a unit quaternion (x, y, z, w) as one matrix."""
    values = cursor.array("<f4", 7).astype(np.float64)
    matrix = np.eye(4)
    if values[3:].any():
        matrix[:3, :3] = Rotation.from_quat(values[3:]).as_matrix()
    matrix[:3, 3] = values[:3]
    return matrix
