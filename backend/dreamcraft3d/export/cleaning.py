"""From whatever a stage extracted to the real object: closed, facing outward, without floaters, within a face budget.

Steps: weld, drop floaters, agree on winding, close holes, face outward, drop components hidden inside others, decimate.

Letters: V vertices (N x 3), F faces (M x 3); numpy, as in `topology`.
"""

import logging

import fast_simplification
import numpy as np
from numpy.typing import NDArray

from dreamcraft3d.errors import ObjectLost
from dreamcraft3d.export import topology
from dreamcraft3d.export.mesh import CleanReport
from dreamcraft3d.export.topology import Faces, Vertices

log = logging.getLogger(__name__)


def clean(
    vertices: Vertices, faces: Faces, *, target_faces: int, minimum_part: float = 0.01
) -> tuple[Vertices, Faces, CleanReport]:
    """A closed, outward mesh of at most about `target_faces` triangles, with everything that belongs to the object.

    Args:
        minimum_part: components with less than this share of the largest one's area are floaters.

    Raises:
        ObjectLost: nothing is left.
    """
    before = len(faces)
    finite = np.isfinite(vertices).all(axis=1)
    faces = faces[finite[faces].all(axis=1)]
    vertices = np.where(finite[:, None], vertices, 0.0)
    if len(faces):
        vertices, faces = topology.weld(vertices, faces, 1e-6 * _diagonal(vertices[faces].reshape(-1, 3)))
    faces, floaters = drop_small(vertices, faces, minimum_part)
    faces = topology.orient(faces)
    vertices, faces, holes = topology.close(vertices, faces)
    faces = face_outward(vertices, faces)
    faces, hidden = drop_hidden(vertices, faces)
    vertices, faces = topology.compact(vertices, faces)
    if len(faces) == 0:
        raise ObjectLost("There is no surface to export.", "Try another seed, or a picture with a clearer object.")
    vertices, faces = decimate(vertices, faces, target_faces)
    parts = int(topology.components(faces).max()) + 1
    report = CleanReport(floaters, hidden, parts, holes, before, len(faces), topology.is_manifold(faces))
    log.info("clean-up: %s", report)
    return vertices, faces, report


def drop_small(vertices: Vertices, faces: Faces, minimum_part: float) -> tuple[Faces, int]:
    """Drops components smaller, in area, than `minimum_part` of the largest; returns what stays and how many went."""
    if len(faces) == 0:
        return faces, 0
    labels = topology.components(faces)
    area = np.bincount(labels, weights=topology.face_areas(vertices, faces))
    keep = area >= minimum_part * area.max()
    return faces[keep[labels]], int((~keep).sum())


def face_outward(vertices: Vertices, faces: Faces) -> Faces:
    """Flips each closed component whose signed volume is negative."""
    inverted = (topology.volumes(vertices, faces) < 0)[topology.components(faces)]
    return np.where(inverted[:, None], faces[:, ::-1], faces)


def drop_hidden(vertices: Vertices, faces: Faces, *, probes: int = 16) -> tuple[Faces, int]:
    """Drops components that lie inside another closed component: voids of a solid, and whatever floats in them.

    Nothing of them can be seen from outside. A component counts as inside when the winding number of another one is
    nonzero at all of `probes` of its vertices, so that parts that merely pierce each other stay.
    """
    labels = topology.components(faces)
    count = int(labels.max(initial=-1)) + 1
    hidden = np.zeros(count, dtype=bool)
    for inner in range(count):
        corners = np.unique(faces[labels == inner])
        points = vertices[corners[np.linspace(0, len(corners) - 1, min(probes, len(corners))).astype(int)]]
        for outer in range(count):
            if outer != inner and (np.abs(winding_number(points, vertices, faces[labels == outer])) > 0.5).all():
                hidden[inner] = True
                break
    return faces[~hidden[labels]], int(hidden.sum())


def winding_number(points: Vertices, vertices: Vertices, faces: Faces) -> NDArray[np.float64]:
    """Sum of signed solid angles over 4 pi at each point (van Oosterom and Strackee 1983): 1 inside.

    That is, inside a closed outward surface, and 0 outside it.
    """
    result = np.zeros(len(points))
    for i, point in enumerate(points):
        a, b, c = (vertices[faces[:, k]] - point for k in range(3))
        la, lb, lc = (np.linalg.norm(v, axis=1) for v in (a, b, c))
        numerator = np.einsum("ij,ij->i", a, np.cross(b, c))
        dots = [np.einsum("ij,ij->i", p, q) for p, q in ((a, b), (b, c), (c, a))]
        result[i] = np.arctan2(numerator, la * lb * lc + dots[0] * lc + dots[1] * la + dots[2] * lb).sum() / (2 * np.pi)
    return result


def decimate(vertices: Vertices, faces: Faces, target_faces: int, *, tolerance: float = 0.1) -> tuple[Vertices, Faces]:
    """Quadric-error decimation to `target_faces`, repaired and checked; looser budgets until the result is sound.

    Collapsing an edge may pinch a thin place off or turn a sliver over, so the result is closed again, and crumbs and
    pockets that came off are dropped. Sound means: closed, manifold, and the volume within a share of `tolerance` of
    what it was.
    """
    if len(faces) <= target_faces:
        return vertices, faces
    volume, budget = topology.volumes(vertices, faces).sum(), target_faces
    while budget < len(faces):
        v, f = fast_simplification.simplify(vertices.astype(np.float32), faces.astype(np.int32), target_count=budget)
        v, f, _ = topology.close(v.astype(np.float64), f.astype(np.int64))
        f, _ = drop_small(v, f, 0.005)
        f = f[(topology.volumes(v, f) > 0)[topology.components(f)]]
        v, f = topology.compact(v, f)
        if topology.is_manifold(f) and abs(topology.volumes(v, f).sum() - volume) <= tolerance * abs(volume):
            return v, f
        log.warning("decimation to %d faces broke the surface; trying %d", budget, int(1.5 * budget) + 4)
        budget = int(1.5 * budget) + 4
    return vertices, faces


def decimate_roughly(vertices: Vertices, faces: Faces, target_faces: int) -> tuple[Vertices, Faces]:
    """Quadric-error decimation alone: not closed again, not checked."""
    v, f = fast_simplification.simplify(vertices.astype(np.float32), faces.astype(np.int32), target_count=target_faces)
    return v.astype(np.float64), f.astype(np.int64)


def _diagonal(points: Vertices) -> float:
    return float(np.linalg.norm(points.max(axis=0) - points.min(axis=0)))
