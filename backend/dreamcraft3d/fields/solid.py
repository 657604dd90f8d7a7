"""Signed distance to a mesh as a solid, also where it has no inside: leaves, sheets and walls thinner than a cell.

Between grid points a wall thinner than a cell has no negative value and would vanish. Faces on whose inner side there
is no inside get a thickness: sdf = min(sdf of the mesh, distance to these faces - WALL cells).
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dreamcraft3d.functional.mesh import Mesh, face_normals
from dreamcraft3d.kernels.mesh_query import MeshQuery

__all__ = ["solid_distance", "thin_faces"]

PROBE = 0.5
"""How far below a face its inside is looked for, cells."""

WALL = 0.6
"""Half the thickness that thin walls get, cells: more than the covering radius of the BCC lattice, sqrt(5)/4, so that
every point of a sheet has a grid point within."""


def solid_distance(mesh: Mesh, points: Float[Tensor, "N 3"], *, thin_below: float = 0.0) -> Float[Tensor, " N"]:
    """Signed distance to a mesh, negative inside by the generalised winding number (`kernels.mesh_query`).

    Args:
        thin_below: side of the grid's cells where thin walls are to be thickened; 0 leaves them as they are.

    Raises:
        ValueError: the mesh has no face.
    """
    query = MeshQuery(mesh.vertices, mesh.faces)
    distance = query.signed_distance(points)
    if thin_below <= 0.0:
        return distance
    thin = thin_faces(mesh, query, PROBE * thin_below)
    if not bool(thin.any()):
        return distance
    nearest, _, _ = MeshQuery(mesh.vertices, mesh.faces[thin]).closest_points(points)
    return torch.minimum(distance, (points - nearest).norm(dim=-1) - WALL * thin_below)


def thin_faces(mesh: Mesh, query: MeshQuery, depth: float) -> Bool[Tensor, " F"]:
    """Faces with no inside at `depth` below or above their middle, whichever way they look."""
    middles, normals = mesh.vertices[mesh.faces].mean(dim=1), face_normals(mesh.vertices, mesh.faces)
    below, above = (query.signed_distance(middles + sign * depth * normals) for sign in (-1.0, 1.0))
    return (below > 0.0) & (above > 0.0)
