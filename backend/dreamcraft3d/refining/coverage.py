"""Which triangle owns which texel: exact scan conversion of triangles in texture space.

A triangle covers a texel if it holds the texel's centre; of a shared edge the centre belongs to exactly one side, so an
ordinary unwrapped mesh covers no texel twice, and every texel that is covered twice is a real overlap. Everything is
double precision and independent of threads. Row 0 is the top of the image, v = 1.

Letters: K (texel, triangle) pairs, T triangles.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamcraft3d.refining.refusals import OverlappingTexels, TilingTexture
from dreamcraft3d.refining.request import Target, TriangleSoup

__all__ = ["Coverage", "barycentrics", "check_overlaps", "coverage_of", "covered_texels", "plain_coordinates"]

Ints = NDArray[np.integer[Any]]
Doubles = NDArray[np.float64]

HARMLESS_OVERLAP = 0.005
"""Share of painted texels that may be shared before `auto` asks whether they are mirrored halves."""

MIRRORED = 0.9
"""Share of shared texels whose two faces lie in opposite directions that makes them mirrored halves."""

OVERSHOOT = 2.0
"""Texels that coordinates may reach outside the image before that means repetition."""


@dataclass(frozen=True)
class Coverage:
    """One tile of one target.

    Attributes:
        owner: H x W int32, the painted triangle that a texel belongs to, else -1.
        covered: H x W, texels of any triangle of the slot, painted or not.
        shared: H x W, texels of several triangles of which one at least is painted.
        pairs: (texel, triangle) of the shared texels' painted triangles, for averaging.
        corners: T x 3 x 2, the coordinates in texels of this tile.
    """

    target: Target
    number: int
    owner: NDArray[np.int32]
    covered: NDArray[np.bool_]
    shared: NDArray[np.bool_]
    pairs: tuple[Ints, Ints]
    corners: Doubles
    mirrored: float = 0.0

    @property
    def overlap(self) -> float:
        """Share of the painted texels that several triangles claim."""
        painted = np.count_nonzero(self.owner >= 0)
        return float(np.count_nonzero(self.shared) / painted) if painted else 0.0


def coverage_of(soup: TriangleSoup, target: Target, uv: Doubles, usable: NDArray[np.bool_]) -> Iterator[Coverage]:
    """The coverage of each tile of a target.

    Args:
        uv: T x 3 x 2, plain coordinates (see `plain_coordinates`). usable: triangles that have an area.
    """
    inside = np.flatnonzero((soup.tri_slot == target.slot) & usable)
    for tile in target.tiles:
        offset = np.array([(tile.number - 1001) % 10, (tile.number - 1001) // 10], dtype=np.float64)
        corners = (uv - offset) * [tile.width, -tile.height] + [0.0, tile.height]
        yield _cover(soup, target, tile.number, corners, inside, (tile.height, tile.width))


def _cover(
    soup: TriangleSoup, target: Target, number: int, corners: Doubles, inside: Ints, size: tuple[int, int]
) -> Coverage:
    texel, local = covered_texels(corners[inside], *size)
    triangle = inside[local]
    count = size[0] * size[1]
    layers = np.bincount(texel, minlength=count)
    paints = soup.tri_paint[triangle]
    owner = np.full(count, -1, dtype=np.int32)
    owner[texel[paints][::-1]] = triangle[paints][::-1]  # of several the last written stays: the lowest face
    shared = (layers > 1) & (owner >= 0)
    several = shared[texel]
    turned = _turn(corners)
    opposite = several & (turned[triangle] != turned[owner[texel]])
    others = max(1, int(np.count_nonzero(several)) - int(np.count_nonzero(shared)))
    pairs = texel[several & paints], triangle[several & paints]
    return Coverage(
        target,
        number,
        owner.reshape(size),
        (layers > 0).reshape(size),
        shared.reshape(size),
        pairs,
        corners,
        mirrored=float(np.count_nonzero(opposite) / others),
    )


def check_overlaps(coverages: list[Coverage], policy: str, outside: float) -> None:
    """Refuses a target whose texels are shared more than the policy allows.

    Args:
        coverages: all tiles of one target. outside: share of its faces that were folded back into the image.

    Raises:
        OverlappingTexels, TilingTexture
    """
    painted = sum(int(np.count_nonzero(c.owner >= 0)) for c in coverages)
    shared = sum(int(np.count_nonzero(c.shared)) for c in coverages)
    share = shared / painted if painted else 0.0
    if policy in ("owner", "average") or share <= HARMLESS_OVERLAP:
        return
    mirrored = sum(c.mirrored * np.count_nonzero(c.shared) for c in coverages) / max(shared, 1)
    if policy == "auto" and mirrored >= MIRRORED:
        return
    slot = coverages[0].target.slot
    raise TilingTexture(slot, outside) if outside > 0.0 else OverlappingTexels(slot, share)


def plain_coordinates(soup: TriangleSoup, target: Target) -> tuple[Doubles, float]:
    """T x 3 x 2 coordinates in which a texel is addressed once, and the share of the slot's faces that were outside.

    UDIM coordinates stay. Otherwise a face outside 0..1 is moved back by whole numbers, as REPEAT shows it: mirrored
    halves are often parked there.

    Raises:
        TilingTexture: faces that need more than one repetition.
    """
    uv = soup.tri_uv.astype(np.float64)
    if target.udim:
        return uv, 0.0
    inside = (soup.tri_slot == target.slot) & np.isfinite(uv).all(axis=(1, 2))
    tile = target.tiles[0]
    slack = OVERSHOOT / np.array([tile.width, tile.height])
    moved = np.where(np.isfinite(uv), uv, 0.0)
    shift = np.floor(moved.min(axis=1) + slack)
    moved = moved - shift[:, None]
    outside = inside & ((moved.max(axis=1) > 1.0 + slack).any(axis=1) & soup.tri_paint)
    if outside.any():
        raise TilingTexture(target.slot, float(np.count_nonzero(outside) / np.count_nonzero(inside)))
    folded = inside & (shift != 0.0).any(axis=1)
    return moved, float(np.count_nonzero(folded) / max(1, np.count_nonzero(inside)))


def covered_texels(corners: Doubles, height: int, width: int) -> tuple[Ints, Ints]:
    """(texel, triangle) of every texel centre inside a triangle, ordered by triangle.

    Args:
        corners: T x 3 x 2 in texels, x to the right, y down. Triangles without area cover nothing.

    >>> square = np.array([[[0, 0], [2, 0], [2, 2]], [[0, 0], [2, 2], [0, 2]]], dtype=float)
    >>> [part.tolist() for part in covered_texels(square, 2, 2)]
    [[0, 1, 3, 2], [0, 0, 0, 1]]
    """
    finite = np.isfinite(corners).all(axis=(1, 2))
    safe = np.where(finite[:, None, None], corners, 0.0)
    first = np.clip(np.ceil(safe[..., 1].min(axis=1) - 0.5), 0, height).astype(np.int64)
    end = np.clip(np.ceil(safe[..., 1].max(axis=1) - 0.5), 0, height).astype(np.int64)
    rows = np.where(finite, end - first, 0)
    triangle, nth = _runs(rows)
    row = first[triangle] + nth
    left, right = _span(safe[triangle], row + 0.5)
    begin = np.clip(np.ceil(left - 0.5), 0, width).astype(np.int64)
    stop = np.clip(np.ceil(right - 0.5), 0, width).astype(np.int64)
    line, column = _runs(np.maximum(stop - begin, 0))
    return row[line] * width + begin[line] + column, triangle[line]


def _span(corners: Doubles, y: Doubles) -> tuple[Doubles, Doubles]:
    """Where the horizontal line at y enters and leaves each triangle.

    Each edge is taken from its upper to its lower end, so that both its triangles compute the same number.
    """
    left, right = np.full(len(y), np.inf), np.full(len(y), -np.inf)
    for k in range(3):
        a, b = corners[:, k], corners[:, (k + 1) % 3]
        swap = (a[:, 1] > b[:, 1]) | ((a[:, 1] == b[:, 1]) & (a[:, 0] > b[:, 0]))
        upper, lower = np.where(swap[:, None], b, a), np.where(swap[:, None], a, b)
        crosses = (upper[:, 1] <= y) & (y < lower[:, 1])
        height = np.where(crosses, lower[:, 1] - upper[:, 1], 1.0)
        x = upper[:, 0] + (y - upper[:, 1]) * ((lower[:, 0] - upper[:, 0]) / height)
        left = np.where(crosses, np.minimum(left, x), left)
        right = np.where(crosses, np.maximum(right, x), right)
    return np.where(np.isfinite(left), left, 0.0), np.where(np.isfinite(right), right, 0.0)


def _runs(counts: Ints) -> tuple[Ints, Ints]:
    """counts[i] entries for each i: (i, 0..counts[i] - 1).

    >>> [part.tolist() for part in _runs(np.array([2, 0, 1]))]
    [[0, 0, 2], [0, 1, 0]]
    """
    index = np.repeat(np.arange(len(counts)), counts)
    starts = np.cumsum(counts) - counts
    return index, np.arange(len(index)) - starts[index]


def _turn(corners: Doubles) -> NDArray[np.bool_]:
    """Whether each triangle runs clockwise in the image."""
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return np.asarray(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0] > 0.0)


def barycentrics(corners: Doubles, points: Doubles) -> Doubles:
    """N x 3 weights of points in their N triangles (N x 3 x 2), never outside: negative ones are cut off."""
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    p = points - corners[:, 0]
    area = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    area = np.where(np.abs(area) < 1e-12, np.inf, area)
    v = (p[:, 0] * b[:, 1] - p[:, 1] * b[:, 0]) / area
    w = (a[:, 0] * p[:, 1] - a[:, 1] * p[:, 0]) / area
    weights = np.maximum(np.stack([1.0 - v - w, v, w], axis=1), 0.0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))
