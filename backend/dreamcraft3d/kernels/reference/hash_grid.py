"""Twin of `kernels/hash_grid.py`: eight gathers per level in plain torch. Letters as there."""

import itertools

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreamcraft3d.kernels.hash_grid import PRIMES, HashGridLayout

WORD = 0xFFFFFFFF


def hash_encode(
    points: Float[Tensor, "N 3"],
    table: Float[Tensor, "E F"],
    layout: HashGridLayout,
    *,
    active_levels: int | None = None,
) -> Float[Tensor, "N C"]:
    """Features of points, level-major, in the floating-point type of the inputs."""
    active = layout.levels if active_levels is None else min(max(active_levels, 0), layout.levels)
    features = [_encode_level(points, table, layout, level) for level in range(active)]
    inactive = points.new_zeros(len(points), (layout.levels - active) * layout.features)
    return torch.cat([*features, inactive], dim=1)


def _encode_level(
    points: Float[Tensor, "N 3"], table: Float[Tensor, "E F"], layout: HashGridLayout, level: int
) -> Float[Tensor, "N F"]:
    p = points.clamp(0.0, 1.0) * layout.scales[level] + 0.5
    cell = p.detach().nan_to_num().floor()
    w = p - cell + (points - points).detach()
    cell, sides = cell.long(), (1.0 - w, w)
    result = points.new_zeros(len(points), layout.features)
    for corner in itertools.product((0, 1), repeat=3):
        wx, wy, wz = (sides[bit][:, axis, None] for axis, bit in enumerate(corner))
        x, y, z = (cell[:, axis] + bit for axis, bit in enumerate(corner))
        result = result + wx * wy * wz * table[_rows(x, y, z, layout, level)]
    return result


def _rows(
    x: Int[Tensor, " N"], y: Int[Tensor, " N"], z: Int[Tensor, " N"], layout: HashGridLayout, level: int
) -> Int[Tensor, " N"]:
    n = layout.resolutions[level]
    if layout.hashed[level]:
        index = (x * PRIMES[0] & WORD) ^ (y * PRIMES[1] & WORD) ^ (z * PRIMES[2] & WORD)
    else:
        index = x + y * n + z * n * n
    first, end = layout.offsets[level : level + 2]
    return first + index % (end - first)
