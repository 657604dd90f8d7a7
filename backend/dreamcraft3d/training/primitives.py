"""Closed triangle surfaces from which the procedural objects are put together.

Two generators make everything: `lathe` sweeps a profile (radius, height) around z over any star-shaped cross-section
(spheres, boxes, prisms, bowls, extruded and inflated silhouettes), `tube` a circle along a curve (limbs, rings).
Vertices are duplicated along creases, so that averaged normals are smooth exactly where the surface is.

Letters: K profile points, S points of the cross-section; u around, v along, both in [0,1]. Faces are
counter-clockwise seen from outside.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

CREASE = np.cos(np.radians(38.0))


@dataclass(frozen=True)
class Part:
    """A surface with pattern coordinates.

    Attributes:
        vertices: V x 3. uv: V x 2, around and along. faces: F x 3.
    """

    vertices: Array
    uv: Array
    faces: Indices


def circle(points: int) -> Array:
    """The unit circle as an S x 2 cross-section, counter-clockwise."""
    angle = np.arange(points) * (2.0 * np.pi / points)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def square() -> Array:
    """The square [-1,1]^2 as a cross-section of four corners, counter-clockwise."""
    return np.array([[1.0, -1.0], [1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0]])


def superellipse(points: int, exponent: float) -> Array:
    """|x|^n + |y|^n = 1: a circle at n = 2, a rounded square above."""
    unit = circle(points)
    rounded: Array = unit / (np.abs(unit) ** exponent).sum(1, keepdims=True) ** (1.0 / exponent)
    return rounded


def dome(points: int, *, bottom: float = -1.0, top: float = 1.0, exponent: float = 2.0) -> Array:
    """A profile along the (super)circle from height `bottom` to `top`, closed by a flat cap where it is cut."""
    height = np.sin(np.linspace(np.arcsin(bottom), np.arcsin(top), points))
    radius = np.clip(1.0 - np.abs(height) ** exponent, 0.0, None) ** (1.0 / exponent)
    return close(np.stack([radius, height], axis=1))


def close(profile: Array) -> Array:
    """The profile with both ends brought to the axis."""
    ends = []
    if profile[0, 0] > 1e-6:
        ends.append(np.array([[0.0, profile[0, 1]]]))
    ends.append(profile)
    if profile[-1, 0] > 1e-6:
        ends.append(np.array([[0.0, profile[-1, 1]]]))
    return np.concatenate(ends)


def _subdivide(points: Array, grain: float) -> Array:
    """The polyline with no step longer than `grain`."""
    pieces = [points[:1]]
    for a, b in itertools.pairwise(points):
        count = max(1, int(np.ceil(np.linalg.norm(b - a) / grain)))
        pieces.append(a + (b - a) * (np.arange(1, count + 1) / count)[:, None])
    return np.concatenate(pieces)


def _smooth_runs(points: Array) -> list[Array]:
    """Cuts a polyline at its creases."""
    step = np.diff(points, axis=0)
    step /= np.linalg.norm(step, axis=1, keepdims=True).clip(1e-12)
    cuts = np.flatnonzero((step[:-1] * step[1:]).sum(1) < CREASE) + 1
    edges = [0, *cuts.tolist(), len(points) - 1]
    return [points[a : b + 1] for a, b in itertools.pairwise(edges)]


def _grid_faces(rows: int, columns: int, wrap: bool) -> Indices:
    """Two triangles per cell of a grid whose columns run counter-clockwise and whose rows run upwards."""
    i, j = np.meshgrid(np.arange(rows - 1), np.arange(columns if wrap else columns - 1), indexing="ij")
    i, j = i.ravel(), j.ravel()
    right = (j + 1) % columns
    a, b, c, d = i * columns + j, i * columns + right, (i + 1) * columns + right, (i + 1) * columns + j
    return np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])


def join(parts: list[Part]) -> Part:
    """One part out of several."""
    offset = np.cumsum([0, *(len(part.vertices) for part in parts[:-1])])
    return Part(
        np.concatenate([part.vertices for part in parts]),
        np.concatenate([part.uv for part in parts]),
        np.concatenate([part.faces + o for part, o in zip(parts, offset, strict=True)]),
    )


def _without_slivers(part: Part) -> Part:
    corners = part.vertices[part.faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    return Part(part.vertices, part.uv, part.faces[area > 1e-10])


def lathe(profile: Array, section: Array, *, grain: float = 0.5) -> Part:
    """Sweeps `profile` (K x 2: radius >= 0, height; from bottom to top, both ends on the axis) over `section` (S x 2).

    Sections of fewer than nine corners are faceted. `grain` bounds the step along the profile and along straight
    sides, as a share of a unit radius: patterns need a fine one.
    """
    outline = _subdivide(profile, grain)
    travelled = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(outline, axis=0), axis=1))])
    travelled /= max(travelled[-1], 1e-9)
    runs, start, parts = _smooth_runs(outline), 0, []
    ring = np.concatenate([section, section[:1]])
    sides = [_subdivide(ring[k : k + 2], grain) for k in range(len(section))] if len(section) < 9 else [section]
    around = np.linspace(0.0, 1.0, len(sides) + 1)
    for run in runs:
        along = travelled[start : start + len(run)]
        start += len(run) - 1
        for k, side in enumerate(sides):
            wrap = len(sides) == 1
            u = np.linspace(around[k], around[k + 1], len(side), endpoint=not wrap)
            xy = run[:, None, :1] * side[None]
            z = np.broadcast_to(run[:, None, 1:], (len(run), len(side), 1))
            uv = np.stack(np.broadcast_arrays(u[None], along[:, None]), axis=-1)
            vertices = np.concatenate([xy, z], axis=-1).reshape(-1, 3)
            parts.append(Part(vertices, uv.reshape(-1, 2), _grid_faces(len(run), len(side), wrap)))
    return _without_slivers(join(parts))


def tube(path: Array, radii: Array | float, *, sides: int = 10, closed: bool = False) -> Part:
    """Sweeps a circle of the given radius (one, or one per point) along `path` (P x 3); open ends get flat caps."""
    points = len(path)
    radius = np.broadcast_to(np.asarray(radii, dtype=np.float64), (points,))
    ahead, behind = np.roll(path, -1, axis=0), np.roll(path, 1, axis=0)
    if not closed:
        ahead[-1], behind[0] = path[-1], path[0]
    tangent = ahead - behind
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True).clip(1e-12)
    normal = np.empty_like(path)
    seed = np.eye(3)[np.argmin(np.abs(tangent[0]))]
    for k in range(points):
        seed = seed - tangent[k] * (seed @ tangent[k])
        seed /= max(float(np.linalg.norm(seed)), 1e-12)
        normal[k] = seed
    binormal = np.cross(tangent, normal)
    unit = circle(sides)
    offset = unit[None, :, :1] * normal[:, None] + unit[None, :, 1:] * binormal[:, None]
    rings = path[:, None] + radius[:, None, None] * offset
    v = np.linspace(0.0, 1.0, points)
    if closed:
        rings, v = np.concatenate([rings, rings[:1]]), np.append(v, 1.0)
    u = np.arange(sides) / sides
    uv = np.stack(np.broadcast_arrays(u[None], v[:, None]), axis=-1).reshape(-1, 2)
    side = Part(rings.reshape(-1, 3), uv, _grid_faces(len(rings), sides, True))
    if closed:
        return _without_slivers(side)
    return _without_slivers(join([side, _cap(rings[0], 0.0, flip=True), _cap(rings[-1], 1.0, flip=False)]))


def _cap(ring: Array, v: float, *, flip: bool) -> Part:
    """A fan that closes a ring; counter-clockwise about the direction of travel unless flipped."""
    count = len(ring)
    index = np.arange(count)
    faces = np.stack([index, (index + 1) % count, np.full(count, count)], axis=1)
    vertices = np.concatenate([ring, ring.mean(0, keepdims=True)])
    return Part(vertices, np.full((count + 1, 2), [0.5, v]), faces[:, ::-1] if flip else faces)
