import math

import pytest
import torch

from dreamcraft3d.errors import ObjectLost
from dreamcraft3d.fields.density_field import DensityField
from dreamcraft3d.fields.sdf_field import SDFField
from dreamcraft3d.fields.tet_mesh import TetMesh
from dreamcraft3d.fields.texture import ColourField
from dreamcraft3d.functional.mesh import signed_volume
from dreamcraft3d.functional.tets import bcc_grid
from dreamcraft3d.kernels.hash_grid import HashGridLayout

LAYOUT = HashGridLayout(levels=4, base_resolution=8, growth=1.5, log2_table_size=12)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def points(count: int = 64) -> torch.Tensor:
    return 1.6 * torch.rand(count, 3, generator=generator(1)) - 0.8


def test_a_fresh_density_field_is_a_soft_ball_of_radius_one_half() -> None:
    field = DensityField(LAYOUT, hidden=16, generator=generator())
    density = field.density(torch.tensor([[0.0, 0, 0], [0.5, 0, 0], [0.9, 0, 0]]))
    assert density[0] > 9.0 and float(density[1].detach()) == pytest.approx(math.log(2), abs=0.1) and density[2] < 1e-3


def test_a_fresh_sdf_field_is_a_sphere_with_unit_gradient() -> None:
    field = SDFField(LAYOUT, hidden=16, generator=generator())
    x = points()
    assert torch.allclose(field.sdf(x), x.norm(dim=-1) - 0.5, atol=1e-2)
    assert torch.allclose(field.gradient(x, 0.01).norm(dim=-1), torch.ones(len(x)), atol=0.05)


def test_normals_point_out_of_the_ball() -> None:
    field = DensityField(LAYOUT, hidden=16, generator=generator())
    x = torch.nn.functional.normalize(points()) * 0.4
    assert float((field.normals(x, 0.01) * torch.nn.functional.normalize(x)).sum(-1).min().detach()) > 0.9


def test_closed_levels_do_not_speak() -> None:
    field = DensityField(LAYOUT, hidden=16, generator=generator())
    with torch.no_grad():
        field.encoding.table.normal_(generator=generator(2))
    open_, x = field.density(points()), points()
    field.active_levels = 2
    assert not torch.allclose(field.density(x), open_)
    field.active_levels = 4
    assert torch.allclose(field.density(x), open_)


def test_colours_pass_from_stage_to_stage_bit_by_bit() -> None:
    nerf = DensityField(LAYOUT, hidden=16, generator=generator(3))
    with torch.no_grad():
        nerf.encoding.table.normal_(generator=generator(4))
    neus = SDFField.from_density(nerf, generator=generator())
    colour = ColourField.from_sdf(neus, generator=generator())
    x = points()
    assert torch.equal(nerf.density_and_colour(x)[1], neus.colour(x))
    assert torch.equal(neus.colour(x), colour(x))


def test_the_neus_surface_becomes_a_closed_mesh_in_a_cube_with_room_to_grow() -> None:
    field = SDFField(LAYOUT, hidden=16, generator=generator())
    tet_mesh = TetMesh.from_sdf(field, cells=16)
    mesh = tet_mesh.extract()
    volume = float(signed_volume(mesh.vertices, mesh.faces).detach())
    assert volume == pytest.approx(4 / 3 * math.pi * 0.5**3, rel=0.03)  # positive: outward
    reach = float(tet_mesh.grid.abs().max())
    assert 0.6 < reach < 0.7
    assert tet_mesh.bound == pytest.approx(0.5 * 0.75**0.5 * tet_mesh.cell, rel=1e-4)
    assert tet_mesh.cell == pytest.approx(2 * reach / 16, rel=1e-3)


def test_the_mesh_stays_closed_when_everything_is_inside() -> None:
    grid, tets = bcc_grid(4)
    mesh = TetMesh(grid - 0.5, tets, torch.full((len(grid),), -1.0)).extract()
    edges = torch.cat([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]]).sort(dim=1).values
    assert len(mesh.faces) > 0
    assert bool((torch.unique(edges, dim=0, return_counts=True)[1] == 2).all())


def test_offsets_are_bounded_by_half_an_edge() -> None:
    grid, tets = bcc_grid(4)
    tet_mesh = TetMesh(grid, tets, grid.norm(dim=-1) - 0.5)
    with torch.no_grad():
        tet_mesh.deformation.fill_(100.0)
    moved = (tet_mesh.positions() - tet_mesh.grid).abs().max()
    assert float(moved.detach()) == pytest.approx(0.5 * 0.75**0.5 / 4, rel=1e-3)


def test_a_field_without_surface_says_so() -> None:
    field = SDFField(LAYOUT, hidden=16, generator=generator())
    field.sdf = lambda x: x.norm(dim=-1) + 1.0  # type: ignore[method-assign]
    with pytest.raises(ObjectLost, match="without a surface"):
        TetMesh.from_sdf(field, cells=8)
