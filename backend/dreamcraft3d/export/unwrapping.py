"""A place in the texture for every face: xatlas against the clock, and box projection when the clock wins.

Texture coordinates are glTF's (u right, v down), per corner, in [0, 1]. Between two charts lie at least
`PADDING` texels.

Letters: V vertices (N x 3), F faces (M x 3), T texture size in texels.
"""

import io
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dreamcraft3d.export import topology
from dreamcraft3d.export.topology import Faces, Vertices

log = logging.getLogger(__name__)

PADDING = 8
MAXIMUM_OVERLAP = 0.001
Uvs = NDArray[np.float64]
Charts = NDArray[np.int64]


def unwrap(vertices: Vertices, faces: Faces, *, texture_size: int, seconds: float) -> tuple[Uvs, Charts, str]:
    """Uvs (M x 3 x 2), the chart of each face, and which method made them: "xatlas" or "box"."""
    result = unwrap_xatlas(vertices, faces, texture_size=texture_size, seconds=seconds)
    if result is not None and overlap(result[0], texture_size) <= MAXIMUM_OVERLAP:
        return *result, "xatlas"
    return *unwrap_box(vertices, faces, texture_size=texture_size), "box"


def unwrap_xatlas(vertices: Vertices, faces: Faces, *, texture_size: int, seconds: float) -> tuple[Uvs, Charts] | None:
    """xatlas in a child process that is killed after `seconds`; None when it was, or when it failed."""
    payload = io.BytesIO()
    np.savez(payload, vertices=vertices, faces=faces)
    script = Path(__file__).with_name("xatlas_child.py")
    command = [sys.executable, "-P", str(script), str(texture_size), str(PADDING), str(int(seconds) + 5)]
    try:
        done = subprocess.run(command, input=payload.getvalue(), capture_output=True, timeout=seconds, check=True)
    except subprocess.TimeoutExpired:
        log.warning("xatlas took more than %.0f s for %d faces", seconds, len(faces))
        return None
    except subprocess.CalledProcessError as error:
        log.warning("xatlas failed (%d): %s", error.returncode, error.stderr.decode(errors="replace").strip()[-300:])
        return None
    with np.load(io.BytesIO(done.stdout)) as data:
        corners, uvs = data["corners"], data["uvs"]
    if corners.shape != faces.shape or not np.isfinite(uvs).all():
        return None
    placed = uvs[corners]
    placed[..., 1] = 1.0 - placed[..., 1]
    placed = np.clip(placed, 0.0, 1.0)
    return placed, topology.components(corners)


def unwrap_box(vertices: Vertices, faces: Faces, *, texture_size: int) -> tuple[Uvs, Charts]:
    """Projects each face along the axis it faces most, and packs connected faces of one axis as one chart.

    Where a chart covers a texel twice (a spiral, a fold) the deeper faces move to a chart of their own, until none
    does.
    """
    axis = _box_axis(vertices, faces)
    flat, depth = _project(vertices, faces, axis)
    key = axis.copy()
    while True:
        charts = _connected_charts(faces, key)
        uvs = pack(flat, charts, texture_size=texture_size)
        face, texel = texel_hits(uvs, texture_size)
        order = np.lexsort((face, -depth[face], texel))
        repeated = np.r_[False, texel[order][1:] == texel[order][:-1]]
        deeper = np.unique(face[order][repeated])
        if len(deeper) == 0:
            return uvs, charts
        key[deeper] += 6 * (key.max() // 6 + 1)


def _box_axis(vertices: Vertices, faces: Faces, *, rounds: int = 3) -> NDArray[np.int64]:
    """0..5 for +x -x +y -y +z -z, smoothed by the vote of neighbours so that charts do not fray."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-30)
    facing = np.stack([normal[:, 0], -normal[:, 0], normal[:, 1], -normal[:, 1], normal[:, 2], -normal[:, 2]], axis=1)
    axis = facing.argmax(axis=1)
    partner = topology.pair_half_edges(vertices, faces).reshape(-1, 3) // 3
    for _ in range(rounds):
        votes = np.zeros_like(facing)
        for k in range(3):
            there = np.flatnonzero(partner[:, k] >= 0)
            votes[there, axis[partner[there, k]]] += 1.0
        axis = np.where(facing > 0.4, votes + facing + 0.5 * (np.arange(6) == axis[:, None]), -1.0).argmax(axis=1)
    return np.asarray(axis, dtype=np.int64)


def _project(vertices: Vertices, faces: Faces, axis: NDArray[np.int64]) -> tuple[Uvs, NDArray[np.float64]]:
    """Corners on the plane across each face's axis (M x 3 x 2, not mirrored, v down), and heights along that axis."""
    corners = vertices[faces]
    along, sign = axis // 2, np.where(axis % 2 == 0, 1.0, -1.0)
    right, up = (along + 1) % 3, (along + 2) % 3
    u = np.take_along_axis(corners, right[:, None, None], axis=2)[..., 0] * sign[:, None]
    v = np.take_along_axis(corners, up[:, None, None], axis=2)[..., 0]
    height = np.take_along_axis(corners, along[:, None, None], axis=2)[..., 0].mean(axis=1) * sign
    return np.stack([u, -v], axis=-1), height


def _connected_charts(faces: Faces, key: NDArray[np.int64]) -> Charts:
    """Labels of faces that hang together across edges and share a key."""
    partner = topology.pair_half_edges(np.zeros((int(faces.max()) + 1, 3)), faces)
    h = np.flatnonzero(partner >= 0)
    f, g = h // 3, partner[h] // 3
    same = key[f] == key[g]
    return topology.group(len(faces), f[same], g[same])


def pack(flat: Uvs, charts: Charts, *, texture_size: int) -> Uvs:
    """Shelf packing of the charts' bounding boxes at the largest common scale (bisection) that fits.

    Args:
        flat: corners in the plane, any unit, M x 3 x 2. charts: label of each face.
    """
    count = int(charts.max()) + 1
    low, high = np.full((count, 2), np.inf), np.full((count, 2), -np.inf)
    np.minimum.at(low, charts, flat.min(axis=1))
    np.maximum.at(high, charts, flat.max(axis=1))
    extent = high - low
    padding = PADDING
    while _shelves(np.ones_like(extent), texture_size, padding) is None and padding > 1:
        padding //= 2
        log.warning("%d charts leave room for %d texels of padding only", count, padding)
    small, large = 0.0, texture_size / max(float(extent.max()), 1e-30)
    for _ in range(24):
        scale = 0.5 * (small + large)
        fits = _shelves(np.ceil(extent * scale) + 1, texture_size, padding) is not None
        small, large = (scale, large) if fits else (small, scale)
    corner = _shelves(np.ceil(extent * small) + 1, texture_size, padding)
    if corner is None:
        raise ValueError(f"{count} charts do not fit into a texture of {texture_size} x {texture_size}")
    placed = (flat - low[charts][:, None]) * small + corner[charts][:, None] + 0.5
    return np.asarray(placed / texture_size, dtype=np.float64)


def _shelves(sizes: NDArray[np.float64], side: int, padding: int) -> NDArray[np.float64] | None:
    """Upper left texel of each box, tallest boxes first, row by row; None when they do not fit."""
    x = y = padding / 2
    height = 0.0
    corner = np.zeros_like(sizes)
    order = np.lexsort((np.arange(len(sizes)), -sizes[:, 0], -sizes[:, 1]))
    for i, (w, h) in zip(order.tolist(), sizes[order].tolist(), strict=True):
        if x + w + padding / 2 > side:
            x, y, height = padding / 2, y + height + padding, 0.0
        if x + w + padding / 2 > side or y + h + padding / 2 > side:
            return None
        corner[i] = x, y
        x, height = x + w + padding, max(height, h)
    return corner


def overlap(uvs: Uvs, texture_size: int) -> float:
    """Share of covered texels whose centre lies in more than one face."""
    _, texel = texel_hits(uvs, texture_size)
    if len(texel) == 0:
        return 0.0
    count = np.unique(texel, return_counts=True)[1]
    return float((count > 1).mean())


def texel_hits(uvs: Uvs, texture_size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every (face, texel) with the texel's centre in the face; texel = row * T + column.

    Scan conversion with half-open rows and spans: a centre on an edge between two faces belongs to exactly one of them.
    """
    points = uvs * texture_size - 0.5  # centres at whole numbers
    lowest, highest = np.ceil(points[..., 1].min(axis=1)), np.ceil(points[..., 1].max(axis=1))
    face, row = _expand(lowest.astype(np.int64), highest.astype(np.int64))
    left, right = np.full(len(face), np.inf), np.full(len(face), -np.inf)
    for k in range(3):
        a, b = points[:, k], points[:, (k + 1) % 3]
        swap = (a[:, 1] > b[:, 1]) | ((a[:, 1] == b[:, 1]) & (a[:, 0] > b[:, 0]))  # the same arithmetic on both sides
        a, b = np.where(swap[:, None], b, a)[face], np.where(swap[:, None], a, b)[face]
        crossed = (a[:, 1] <= row) & (row < b[:, 1])
        rise = np.where(crossed, b[:, 1] - a[:, 1], 1.0)
        x = a[:, 0] + (row - a[:, 1]) / rise * (b[:, 0] - a[:, 0])
        left, right = np.where(crossed, np.minimum(left, x), left), np.where(crossed, np.maximum(right, x), right)
    valid = np.isfinite(left)
    face, row, left, right = face[valid], row[valid], left[valid], right[valid]
    span, column = _expand(np.ceil(left).astype(np.int64), np.ceil(right).astype(np.int64))
    return face[span], row[span] * texture_size + column


def _expand(start: NDArray[np.int64], stop: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(i, n) for each i and each n in range(start[i], stop[i])."""
    length = np.maximum(stop - start, 0)
    index = np.repeat(np.arange(len(start)), length)
    first = np.cumsum(length) - length
    return index, np.arange(int(length.sum())) - first[index] + start[index]
