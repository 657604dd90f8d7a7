"""Mesh queries against shapes with known distances, and against all triangles one by one."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from draws import normal
from dreamcraft3d.functional.cameras import orbit, project, rays
from dreamcraft3d.functional.tets import bcc_grid, marching_tets
from dreamcraft3d.kernels.mesh_query import MeshQuery, cast_rays, closest_points, signed_distance
from dreamcraft3d.kernels.rasterize import rasterize

BOX = torch.tensor([[x, y, z] for x in (-0.5, 0.5) for y in (-0.3, 0.3) for z in (-0.4, 0.4)])
BOX_FACES = torch.tensor(
    [
        [0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
        [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3],
    ]
)  # fmt: skip


def sphere(n: int = 20, radius: float = 0.37) -> tuple[Tensor, Tensor]:
    grid, tets = bcc_grid(n)
    mesh = marching_tets(2 * grid - 1, (2 * grid - 1).norm(dim=-1) - radius, tets)
    return mesh.vertices, mesh.faces


def cloud(seed: int, count: int = 400) -> Tensor:
    return 2 * torch.rand(count, 3, generator=torch.Generator().manual_seed(seed)) - 1


def test_signed_distance_of_a_box() -> None:
    points = cloud(0)
    beyond = points.abs() - torch.tensor([0.5, 0.3, 0.4])
    expected = beyond.clamp_min(0).norm(dim=-1) + beyond.amax(-1).clamp_max(0)
    torch.testing.assert_close(signed_distance(points, BOX, BOX_FACES), expected, atol=1e-5, rtol=0)


def test_signed_distance_of_a_sphere() -> None:
    points = cloud(1, 5000)  # more than one thread's share
    distance = signed_distance(points, *sphere())
    assert (distance - (points.norm(dim=-1) - 0.37)).abs().max() < 5e-3


def test_open_mesh_still_has_an_inside() -> None:
    """A sphere without its cap: deep inside is inside, outside is outside."""
    vertices, faces = sphere()
    opened = faces[vertices[faces][:, :, 2].amin(1) < 0.33]
    assert len(opened) < len(faces)
    points = cloud(2)
    radius = points.norm(dim=-1)
    distance = signed_distance(points, vertices, opened)
    below = points[:, 2] < 0.1
    assert (distance[(radius < 0.34) & below] < 0).all()
    assert (distance[radius > 0.4] > 0).all()


@given(st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_closest_points_are_the_closest(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    vertices = normal(np.random.default_rng(seed), 15, 3)
    faces = torch.stack([torch.randperm(15, generator=generator)[:3] for _ in range(12)])
    points = cloud(seed, 40)
    nearest, face, weights = closest_points(points, vertices, faces)
    torch.testing.assert_close((weights[..., None] * vertices[faces[face]]).sum(1), nearest, atol=1e-5, rtol=1e-5)
    assert (weights >= -1e-5).all()
    # Brute force: no point of a dense sample of any face is nearer; the sample comes almost as near.
    line = torch.linspace(0, 1, 30)
    u, v = (x.reshape(-1) for x in torch.meshgrid(line, line, indexing="ij"))
    u, v = u[u + v <= 1.0001], v[u + v <= 1.0001]
    sample = (torch.stack([u, v, 1 - u - v], -1) @ vertices[faces]).reshape(-1, 3)
    best = torch.cdist(points, sample).amin(1)
    distance = (nearest - points).norm(dim=-1)
    assert (distance <= best + 1e-4).all()
    assert (best - distance).max() < 0.2


def test_rays_hit_the_sphere_where_they_should() -> None:
    vertices, faces = sphere()
    generator = torch.Generator().manual_seed(0)
    origins = torch.nn.functional.normalize(normal(np.random.default_rng(0), 500, 3), dim=-1) * 2
    directions = (torch.rand(500, 3, generator=generator) - 0.5) * 1.2 - origins  # not of unit length
    t, face = cast_rays(origins, directions, vertices, faces)
    unit = torch.nn.functional.normalize(directions, dim=-1)
    along = (origins * unit).sum(-1)
    gap = along.square() - origins.square().sum(-1) + 0.37**2
    clear = gap.abs() > 0.02
    assert torch.equal(torch.isfinite(t)[clear], (gap > 0)[clear])
    assert torch.equal(torch.isfinite(t), face >= 0)
    hit = clear & (gap > 0)
    torch.testing.assert_close((t * directions.norm(dim=-1))[hit], (-along - gap.sqrt())[hit], atol=1e-2, rtol=0)
    inward, _ = cast_rays(torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 1.0]]), vertices, faces)
    assert inward.item() == pytest.approx(0.37, abs=5e-3)


def test_rays_and_rasteriser_see_the_same_faces() -> None:
    vertices, faces = sphere(10)
    cameras = orbit(0.4, 1.0)
    origins, directions = rays(cameras, 40)
    _, face = cast_rays(origins.reshape(-1, 3), directions.reshape(-1, 3), vertices, faces)
    seen = rasterize(project(vertices, cameras), faces, 40).face_ids.reshape(-1)
    assert (face != seen).float().mean() < 5e-3


def test_one_prepared_mesh_serves_many_queries() -> None:
    vertices, faces = sphere(10)
    prepared, points = MeshQuery(vertices, faces), cloud(3)
    distance = prepared.signed_distance(points)
    nearest, _, _ = prepared.closest_points(points)
    torch.testing.assert_close(distance.abs(), (nearest - points).norm(dim=-1), atol=1e-6, rtol=0)
    assert torch.equal(distance, signed_distance(points, vertices, faces))


def test_broken_input_is_harmless() -> None:
    vertices = torch.cat([BOX, torch.full((1, 3), math.nan)])
    faces = torch.cat([torch.tensor([[0, 1, 8], [5, 5, 5]]), BOX_FACES])
    points = torch.tensor([[0.0, 0.0, 0.0], [math.nan, 0.0, 0.0], [0.0, 0.0, 1.0]])
    distance = signed_distance(points, vertices, faces)
    assert distance[0].item() == pytest.approx(-0.3, abs=1e-5)
    assert distance[1].item() == math.inf
    assert distance[2].item() == pytest.approx(0.6, abs=1e-5)
    nearest, face, _ = closest_points(points, vertices, faces)
    assert face[1] == -1
    assert face[0] >= 2
    torch.testing.assert_close(nearest[2], torch.tensor([0.0, 0.0, 0.4]))
    t, hit = cast_rays(points, torch.tensor([[0.0, 0.0, 1.0]]).expand(3, 3), vertices, faces)
    assert t.tolist() == [pytest.approx(0.4, abs=1e-5), math.inf, math.inf]
    assert hit[0] >= 2
    assert signed_distance(points[:0], vertices, faces).shape == (0,)
    with pytest.raises(ValueError, match="without faces"):
        signed_distance(points, vertices, faces[:0])
