"""The mesh in our frame: placed, normalised, its faces outward, and the two sides of thin walls a little apart.

A colour field knows positions only, so the two sides of a leaf or a coat would get one colour. Where a wall is thin,
its sides are moved apart along their normals, in this copy only; the picture of it hardly changes, and the field can
tell them from each other.

Letters: T the request's triangles, F triangles of the copy (those with an area, then the occluders), V its vertices.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from dreamcraft3d.functional.mesh import Mesh
from dreamcraft3d.refining.refusals import EmptyMask
from dreamcraft3d.refining.request import RefineRequest

__all__ = ["Surface", "surface_of", "with_area"]

HALF_EXTENT = 0.6
"""Half of the longest side; no vertex is farther than 16/15 of it from the origin, as in `evaluation.meshes`."""

THIN = 0.02
"""Walls thinner than this are two surfaces, in our units (the object spans about 1.2)."""

APART = 0.01
"""How far each side of a thin wall is moved outward: seven cells of the finest grid of `preview`."""

OPPOSED = -0.2
"""Cosine below which two faces at a vertex belong to different sides."""

Doubles = NDArray[np.float64]
Ints = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Surface:
    """What is rendered and asked for colours.

    Attributes:
        mesh: the copy. source: F, the request's triangle of each of its faces, -1 for occluders.
        corners: T x 3 x 3, the moved corners of every triangle of the request, in our frame.
        normals: T x 3 unit. usable: T, triangles with an area.
        matrix: 4 x 4, object space to our frame. scale: of our frame against the world.
        thin: number of triangles whose wall is thin.
    """

    mesh: Mesh
    source: Ints
    corners: Doubles
    normals: Doubles
    usable: NDArray[np.bool_]
    matrix: Doubles
    scale: float
    thin: int

    def points(self, triangle: Ints, weights: Doubles) -> Float[Tensor, "N 3"]:
        """Surface points by triangle and barycentric weights (N x 3)."""
        return torch.from_numpy((weights[..., None] * self.corners[triangle]).sum(axis=1).astype(np.float32))


def surface_of(request: RefineRequest, *, two_sided: bool, azimuth: float = 0.0) -> Surface:
    """The copy that is painted.

    Args:
        azimuth: radians about z that bring the viewer of the reference picture to +x.

    Raises:
        EmptyMask: no triangle has an area.
    """
    soup, header = request.soup, request.header
    world = np.array(header.matrix_world, dtype=np.float64)
    tri = soup.tri_vertex[:, ::-1] if header.det_sign < 0 else soup.tri_vertex
    usable = with_area(request)
    if not usable.any():
        raise EmptyMask("no face has an area")
    matrix = _turn(azimuth) @ _to_our_axes(world)
    placed = _apply(matrix, soup.position)
    frame = _normalising(placed[np.unique(tri[usable])])
    placed, matrix = _apply(frame, placed), frame @ matrix
    vertices, faces, normals, thin = _sides(placed, tri, usable, two_sided=two_sided)
    corners = np.zeros((len(tri), 3, 3))
    corners[usable] = vertices[faces]
    if header.det_sign < 0:
        corners = corners[:, ::-1]  # back in the request's order, which texture coordinates have
    source = np.flatnonzero(usable)
    if request.occluders is not None:
        hidden = _apply(matrix, request.occluders.position)
        faces = np.concatenate([faces, request.occluders.tri_vertex + len(vertices)])
        vertices = np.concatenate([vertices, hidden])
        source = np.concatenate([source, np.full(len(request.occluders.tri_vertex), -1)])
    all_normals = np.zeros((len(tri), 3))
    all_normals[usable] = normals
    mesh = Mesh(torch.from_numpy(vertices.astype(np.float32)), torch.from_numpy(faces.astype(np.int64)))
    return Surface(mesh, source, corners, all_normals, usable, matrix, float(frame[0, 0]), thin)


def _to_our_axes(world: Doubles) -> Doubles:
    """Object space to our axes: Blender's front (-y) becomes +x, its right (+x) becomes +y."""
    axes = np.array([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    return np.asarray(axes @ world)


def _turn(azimuth: float) -> Doubles:
    """A turn about z by -azimuth: what was seen from there is seen from +x."""
    c, s = np.cos(azimuth), np.sin(azimuth)
    return np.array([[c, s, 0.0, 0.0], [-s, c, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])


def _normalising(points: Doubles) -> Doubles:
    """The scaling and shift that show the whole object to the default camera from every side."""
    low, high = points.min(axis=0), points.max(axis=0)
    centre = 0.5 * (low + high)
    radius = max(float(np.linalg.norm(points - centre, axis=1).max()), 1e-30)
    scale = min(HALF_EXTENT / max(float((0.5 * (high - low)).max()), 1e-30), HALF_EXTENT * 16.0 / 15.0 / radius)
    matrix = np.diag([scale, scale, scale, 1.0])
    matrix[:3, 3] = -scale * centre
    return matrix


def _apply(matrix: Doubles, points: NDArray[np.floating[Any]]) -> Doubles:
    return np.asarray(points.astype(np.float64) @ matrix[:3, :3].T + matrix[:3, 3])


def with_area(request: RefineRequest) -> NDArray[np.bool_]:
    """Which triangles are finite and higher than a millionth of their longest side."""
    world = np.array(request.header.matrix_world, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        corners = _apply(world, request.soup.position)[request.soup.tri_vertex]
    edges = corners[:, [1, 2, 0]] - corners
    longest = np.square(edges).sum(axis=2).max(axis=1)
    doubled = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1)
    return np.asarray(np.isfinite(longest) & (longest > 0.0) & (doubled > 1e-6 * longest))


def _sides(
    placed: Doubles, tri: Ints, usable: NDArray[np.bool_], *, two_sided: bool
) -> tuple[Doubles, Ints, Doubles, int]:
    """Vertices, faces (of the usable triangles), unit normals, and how many triangles belong to thin walls.

    Vertices at the same place are one vertex, unless faces that look opposite ways meet there.
    """
    faces = tri[usable]
    points, inverse = np.unique(placed[np.unique(faces)], axis=0, return_inverse=True)
    numbers = np.zeros(len(placed), dtype=np.int64)
    numbers[np.unique(faces)] = inverse.reshape(-1)
    faces = numbers[faces]
    crosses = np.cross(points[faces[:, 1]] - points[faces[:, 0]], points[faces[:, 2]] - points[faces[:, 0]])
    lengths = np.maximum(np.linalg.norm(crosses, axis=1, keepdims=True), 1e-300)
    normals = crosses / lengths
    thin = _thin_faces(points, faces, normals, lengths[:, 0]) if two_sided else np.zeros(len(faces), dtype=bool)
    if not thin.any():
        return points, faces, normals, 0
    largest = np.zeros(len(points), dtype=np.int64)
    order = np.argsort(lengths[:, 0], kind="stable")
    largest[faces[order].reshape(-1)] = np.repeat(order, 3)  # the last written is the largest
    side = (normals[largest[faces]] * normals[:, None]).sum(axis=2) < OPPOSED
    kept, split = np.unique(2 * faces + side, return_inverse=True)
    split = split.reshape(-1, 3)
    outward = np.zeros((len(kept), 3))
    np.add.at(outward, split.reshape(-1), np.repeat(crosses, 3, axis=0))
    outward /= np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-300)
    moves = np.zeros(len(kept), dtype=bool)
    moves[split[thin].reshape(-1)] = True
    return points[kept // 2] + APART * outward * moves[:, None], split, normals, int(np.count_nonzero(thin))


def _thin_faces(points: Doubles, faces: Ints, normals: Doubles, areas: Doubles) -> NDArray[np.bool_]:
    """Faces with an opposite surface closer than `THIN`.

    The nearest point whose normal is the opposite one is looked for in six dimensions (place and normal together).
    """
    rng = np.random.default_rng(0)
    extra = rng.choice(len(faces), size=min(60_000, 20_000 + len(faces)), p=areas / areas.sum())
    chosen = np.concatenate([np.arange(len(faces)), extra])
    share = rng.dirichlet((1.0, 1.0, 1.0), len(chosen))
    share[: len(faces)] = 1.0 / 3.0
    places = (share[..., None] * points[faces[chosen]]).sum(axis=1) / THIN
    towards = normals[chosen] / 0.6  # normals up to 35 degrees off count as opposite
    distance, _ = cKDTree(np.hstack([places, towards])).query(np.hstack([places, -towards]), distance_upper_bound=1.0)
    thin = np.zeros(len(faces), dtype=bool)
    thin[chosen[np.isfinite(distance)]] = True
    return thin
