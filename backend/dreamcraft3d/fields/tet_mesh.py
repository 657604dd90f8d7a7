"""DMTet: signed distances and offsets on a tetrahedral grid (stage 2, method section 5.7).

Every step has a triangle mesh.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dreamcraft3d.errors import ObjectLost
from dreamcraft3d.fields.sdf_field import SDFField
from dreamcraft3d.fields.solid import solid_distance
from dreamcraft3d.functional.mesh import Mesh
from dreamcraft3d.functional.tets import TetExtractor, bcc_grid, marching_tets

MARGIN = 0.15
"""Room around the object's bounding box. An isotropic cube: the release's tight box made bounds and smoothness depend
on the object's proportions (issue B18)."""


class TetMesh(nn.Module):
    """s_i on N grid vertices (positive outside) and bounded offsets delta_i; `extract()` gives the present surface.

    Vertices move by at most half of the shortest tetrahedron edge: q_i = grid_i + edge/2 tanh(delta_i).
    """

    grid: Tensor
    tets: Tensor
    at_boundary: Tensor

    def __init__(self, grid: Float[Tensor, "N 3"], tets: Int[Tensor, "T 4"], sdf: Float[Tensor, " N"]) -> None:
        super().__init__()
        self.register_buffer("grid", grid)
        self.register_buffer("tets", tets, persistent=False)
        self.sdf = nn.Parameter(sdf.clone())
        self.deformation = nn.Parameter(torch.zeros_like(grid))
        corners = grid[tets[: min(len(tets), 64)]]
        self.bound = 0.5 * float((corners[:, [0, 0, 0, 1, 1, 2]] - corners[:, [1, 2, 3, 2, 3, 3]]).norm(dim=-1).min())
        low, high = grid.amin(dim=0), grid.amax(dim=0)
        self.register_buffer("at_boundary", ((grid <= low) | (grid >= high)).any(dim=-1), persistent=False)
        self._extractor = TetExtractor(tets, len(grid))

    @classmethod
    def from_sdf(cls, field: SDFField, *, cells: int) -> "TetMesh":
        """Samples the NeuS field on a BCC grid of `cells` per side in a cube around its surface.

        Raises:
            ObjectLost: the field has no surface inside the scene box.
        """
        unit, tets = bcc_grid(cells, device=field.variance.device)
        with torch.no_grad():
            box = 2.0 * unit - 1.0
            surface = marching_tets(box, closed_at_box(field.sdf(box), box), tets).vertices
            if len(surface) == 0:
                raise ObjectLost(
                    "The NeuS stage ended without a surface.",
                    remedy="Try another --seed, or check the mask of the reference picture.",
                )
            grid = _around(surface, unit)
            return cls(grid, tets, field.sdf(grid))

    @classmethod
    def from_mesh(cls, mesh: Mesh, *, cells: int, thicken: bool = False) -> "TetMesh":
        """Sample the signed distance to a mesh on a BCC grid of `cells` per side in a cube around it.

        Inside is decided by the generalised winding number, so that an open or self-intersecting mesh gets a closed
        surface too. Features thinner than a cell are lost, unless `thicken` makes walls of about one of them
        (`fields.solid`).

        Raises:
            ValueError: the mesh has no face.
        """
        unit, tets = bcc_grid(cells, device=mesh.vertices.device)
        with torch.no_grad():
            surface = mesh.vertices[mesh.faces].reshape(-1, 3)
            grid = _around(surface, unit)
            cell = _side(surface) / cells
            return cls(grid, tets, solid_distance(mesh, grid, thin_below=cell if thicken else 0.0))

    @property
    def cell(self) -> float:
        """World length of a grid cell's side: the scale of the smallest feature."""
        return 2.0 * self.bound / math.sqrt(0.75)

    def positions(self) -> Float[Tensor, "N 3"]:
        """Displaced grid vertices."""
        return self.grid + self.bound * torch.tanh(self.deformation)

    def extract(self) -> Mesh:
        """The zero level set as a closed mesh, differentiable in `sdf` and `deformation`."""
        return self._extractor(self.positions(), torch.where(self.at_boundary, self.sdf.abs() + 1e-3, self.sdf))


def _around(surface: Float[Tensor, "K 3"], unit: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
    """Points of the unit cube moved to the cube around a surface, with `MARGIN` of its longest side to each side."""
    centre = 0.5 * (surface.amin(dim=0) + surface.amax(dim=0))
    return centre + _side(surface) * (unit - 0.5)


def _side(surface: Float[Tensor, "K 3"]) -> float:
    """Side of that cube."""
    return float((surface.amax(dim=0) - surface.amin(dim=0)).max()) * (1.0 + 2.0 * MARGIN)


def closed_at_box(sdf: Float[Tensor, " N"], box: Float[Tensor, "N 3"]) -> Float[Tensor, " N"]:
    """Points on the faces of the scene box count as outside, so that no level set is left open."""
    return torch.where((box.abs() >= 1.0).any(dim=-1), sdf.abs() + 1e-3, sdf)
