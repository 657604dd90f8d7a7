"""Sheets and thin walls stay when a mesh becomes signed distances, and solids stay as they are."""

import numpy as np
import pytest
import torch
import trimesh

from dreamcraft3d.fields.solid import solid_distance, thin_faces
from dreamcraft3d.fields.tet_mesh import TetMesh
from dreamcraft3d.functional.mesh import Mesh
from dreamcraft3d.kernels.mesh_query import MeshQuery
from shapes import box, mesh_of, sphere

CELLS = 24


def sheet() -> Mesh:
    """A unit square without thickness, of 32 faces."""
    x, y = (c.reshape(-1) for c in np.meshgrid(np.linspace(-0.5, 0.5, 5), np.linspace(-0.5, 0.5, 5), indexing="ij"))
    corner = np.array([5 * i + j for i in range(4) for j in range(4)])
    faces = np.array([[[c, c + 5, c + 6], [c, c + 6, c + 1]] for c in corner]).reshape(-1, 3)
    return Mesh(torch.tensor(np.stack([x, y, 0 * x], 1)).float(), torch.tensor(faces))


def extracted(mesh: Mesh, *, thicken: bool) -> trimesh.Trimesh:
    made = TetMesh.from_mesh(mesh, cells=CELLS, thicken=thicken).extract().detach()
    return trimesh.Trimesh(made.vertices.numpy(), made.faces.numpy(), process=False)


@pytest.mark.parametrize("thin", [sheet(), box((-0.5, -0.4, -0.004), (0.5, 0.4, 0.004))])
def test_what_is_thinner_than_a_cell_becomes_one_closed_wall(thin: Mesh) -> None:
    cell = 1.3 / CELLS
    wall = extracted(thin, thicken=True)
    assert wall.is_watertight
    assert len(wall.split(only_watertight=False)) == 1
    assert 0.8 * cell < wall.extents[2] < 1.6 * cell
    assert 1.0 <= wall.extents[0] < 1.0 + 1.6 * cell


@pytest.mark.parametrize("solid", [sphere(0.5), box((-0.5, -0.4, -0.3), (0.5, 0.4, 0.3))])
def test_a_solid_is_not_changed(solid: Mesh) -> None:
    points = torch.rand(2000, 3, generator=torch.Generator().manual_seed(0)) * 1.4 - 0.7
    assert torch.equal(solid_distance(solid, points, thin_below=1.3 / CELLS), solid_distance(solid, points))


def test_an_open_shell_is_a_solid_where_it_closes_in_a_space() -> None:
    """A bowl is filled by the winding number; none of its faces counts as a sheet."""
    ball = trimesh.creation.icosphere(3, 0.5)
    bowl = mesh_of(trimesh.Trimesh(ball.vertices, ball.faces[ball.triangles_center[:, 2] < 0.2], process=False))
    used, faces = torch.unique(bowl.faces, return_inverse=True)
    bowl = Mesh(bowl.vertices[used], faces)
    assert not bool(thin_faces(bowl, MeshQuery(bowl.vertices, bowl.faces), 0.5 * 1.3 / CELLS).any())
    assert extracted(bowl, thicken=True).volume == pytest.approx(0.38, rel=0.1)


def test_a_mesh_without_faces_is_refused() -> None:
    with pytest.raises(ValueError, match="without faces"):
        solid_distance(Mesh(torch.zeros(3, 3), torch.zeros(0, 3, dtype=torch.int64)), torch.zeros(1, 3))
