"""The texels of an unwrapped mesh as samples of its surface, and which of them are neighbours on it.

A texel belongs to the face that holds its centre. Two texels are neighbours if they touch in the texture inside one
chart, or if they face each other across a seam: the two images of an edge at which the unwrap was cut. With both, an
equation on the surface can be solved in the texture without a trace of the cuts.

Notation: T side of the texture, N texels, K pairs of neighbours; numpy.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from dreamcraft3d.export import topology
from dreamcraft3d.export.mesh import UnwrappedMesh
from dreamcraft3d.export.unwrapping import texel_hits

STRETCH = 4.0
"""Texels that touch in the texture but lie this many times the median distance apart are no neighbours on the surface:
two arms of one chart, with less than a texel between them."""

INWARD = 0.5
"""How far inside its chart, in texels, the sample of a seam is looked for."""

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Texels:
    """The covered texels of a T x T texture.

    Attributes:
        size: T. index: N, row * T + column, ascending. face: N, the face that holds the centre.
        weights: N x 3, barycentric. points: N x 3, the centres on the surface.
        nearest: T x T, for each texel of the texture the number (0..N-1) of the covered texel nearest to it.
    """

    size: int
    index: Ints
    face: Ints
    weights: Doubles
    points: Doubles
    nearest: Ints

    def attributes(self, corners: Float[Tensor, "F 3 C"]) -> NDArray[np.float32]:
        """Interpolate values given at the corners of faces, N x C."""
        values = corners.detach().cpu().numpy()[self.face]
        return np.asarray((self.weights[..., None] * values).sum(axis=1), dtype=np.float32)


def texels_of(unwrapped: UnwrappedMesh, size: int) -> Texels:
    """Sample the surface at the centres of a texture's texels.

    Args:
        size: T, which may differ from the size that the layout was made for.

    Raises:
        ValueError: no texel's centre lies on the surface.
    """
    uvs = unwrapped.uvs.detach().cpu().double().numpy()
    hits, texel = texel_hits(uvs, size)
    index, first = np.unique(texel, return_index=True)
    if len(index) == 0:
        raise ValueError(f"no texel of {size} x {size} lies on the surface")
    face = hits[first]
    row, column = np.divmod(index, size)
    weights = barycentrics(uvs[face], np.stack([column + 0.5, row + 0.5], axis=1) / size)
    corners = unwrapped.vertices.detach().cpu().double().numpy()[unwrapped.faces.cpu().numpy()[face]]
    return Texels(size, index, face, weights, (weights[..., None] * corners).sum(axis=1), _nearest(index, size))


def barycentrics(corners: Doubles, points: Doubles) -> Doubles:
    """Weights of N points in their N plane triangles (N x 3 x 2), cut off at the triangle's border, N x 3."""
    a, b, p = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0], points - corners[:, 0]
    area = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    area = np.where(np.abs(area) < 1e-18, np.inf, area)
    v = (p[:, 0] * b[:, 1] - p[:, 1] * b[:, 0]) / area
    w = (a[:, 0] * p[:, 1] - a[:, 1] * p[:, 0]) / area
    weights = np.maximum(np.stack([1.0 - v - w, v, w], axis=1), 0.0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _nearest(index: Ints, size: int) -> Ints:
    """T x T numbers of the nearest covered texel."""
    free = np.ones(size * size, dtype=np.uint8)
    free[index] = 0
    _, labels = cv2.distanceTransformWithLabels(
        free.reshape(size, size), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    number = np.zeros(labels.max() + 1, dtype=np.int64)
    number[labels.reshape(-1)[index]] = np.arange(len(index))
    return np.asarray(number[labels])


def neighbours(unwrapped: UnwrappedMesh, texels: Texels) -> Ints:
    """Pairs of neighbouring texels, K x 2, each once."""
    charts = unwrapped.charts.cpu().numpy()[texels.face]
    inside = _touching(texels, charts)
    length = np.linalg.norm(texels.points[inside[:, 0]] - texels.points[inside[:, 1]], axis=1)
    if len(length):
        inside = inside[length <= STRETCH * np.median(length)]
    return np.concatenate([inside, _across_seams(unwrapped, texels)])


def grown(chosen: NDArray[np.bool_], pairs: Ints, steps: int) -> NDArray[np.bool_]:
    """The chosen texels, and all within a number of steps from neighbour to neighbour."""
    result = chosen.copy()
    for _ in range(steps):
        before = result.copy()
        result[pairs[before[pairs[:, 1]], 0]] = True
        result[pairs[before[pairs[:, 0]], 1]] = True
    return result


def _touching(texels: Texels, charts: Ints) -> Ints:
    """Pairs that share a side in the texture and a chart."""
    number = np.full(texels.size**2, -1, dtype=np.int64)
    number[texels.index] = np.arange(len(texels.index))
    grid = number.reshape(texels.size, texels.size)
    pairs = [
        np.stack([near.reshape(-1), far.reshape(-1)], axis=1)
        for near, far in ((grid[:, :-1], grid[:, 1:]), (grid[:-1], grid[1:]))
    ]
    both = np.concatenate([pair[(pair >= 0).all(axis=1)] for pair in pairs])
    return np.asarray(both[charts[both[:, 0]] == charts[both[:, 1]]])


def _across_seams(unwrapped: UnwrappedMesh, texels: Texels) -> Ints:
    """Pairs of texels at the same place of an edge whose two faces lie apart in the texture."""
    faces = unwrapped.faces.cpu().numpy()
    partner = topology.pair_half_edges(unwrapped.vertices.detach().cpu().double().numpy(), faces)
    here = np.flatnonzero(partner > np.arange(len(partner)))
    there = partner[here]
    uvs = unwrapped.uvs.detach().cpu().double().numpy() * float(texels.size)
    (a, b, inward), (c, d, outward) = _edges(uvs, here), _edges(uvs, there)
    apart = np.maximum(np.abs(a - d).max(axis=1), np.abs(b - c).max(axis=1)) > 1e-3
    length = np.maximum(np.linalg.norm(b - a, axis=1), np.linalg.norm(d - c, axis=1))
    edge, share = _stations(np.where(apart, np.ceil(length), 0).astype(np.int64))
    charts = unwrapped.charts.cpu().numpy()
    sides = []
    for start, end, shift, half_edge in ((a, b, inward, here), (d, c, outward, there)):
        at = start[edge] + share[:, None] * (end - start)[edge] + shift[edge]
        column, row = np.clip(np.floor(at).astype(np.int64), 0, texels.size - 1).T
        number = texels.nearest[row, column]
        own = charts[texels.face[number]] == charts[half_edge[edge] // 3]  # else the chart is too thin for a texel
        sides.append(np.where(own, number, -1))
    pairs = np.sort(np.stack(sides, axis=1), axis=1)
    return np.asarray(np.unique(pairs[(pairs[:, 0] >= 0) & (pairs[:, 0] != pairs[:, 1])], axis=0))


def _edges(uvs: Doubles, half_edge: Ints) -> tuple[Doubles, Doubles, Doubles]:
    """Start, end, and a step of `INWARD` texels into the face, of half-edges in the texture."""
    face, corner = np.divmod(half_edge, 3)
    start, end, apex = (uvs[face, (corner + k) % 3] for k in range(3))
    along = end - start
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    across *= np.sign((across * (apex - start)).sum(axis=1, keepdims=True))
    return start, end, INWARD * across / np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-12)


def _stations(counts: Ints) -> tuple[Ints, Doubles]:
    """The middles of counts[i] equal pieces of each edge i: (i, share of the edge's length)."""
    edge = np.repeat(np.arange(len(counts)), counts)
    first = np.cumsum(counts) - counts
    return edge, (np.arange(len(edge)) - first[edge] + 0.5) / np.maximum(counts[edge], 1)
