"""The grid tiles the cube; marching tets give closed, outward, exact and differentiable surfaces."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from draws import normal
from dreamcraft3d.functional import tets as module
from dreamcraft3d.functional.mesh import euler_characteristic, face_normals, is_closed, signed_volume, unique_edges
from dreamcraft3d.functional.tets import TetExtractor, bcc_grid, marching_tets, tet_volumes


def smooth_field(seed: int, points: Tensor) -> Tensor:
    """A few random waves, raised towards the boundary of the cube so that the level set stays inside."""
    draws = np.random.default_rng(seed)
    waves, phases = 9 * normal(draws, 3, 5), 6.3 * torch.from_numpy(draws.random(5, dtype=np.float32))
    edge = (2 * points - 1).abs().amax(-1)
    return torch.sin(points @ waves + phases).sum(-1) + 12 * (edge - 0.6).clamp_min(0) + 0.5


@pytest.mark.parametrize("n", [1, 2, 5])
def test_grid_tiles_the_cube_with_equal_positive_tets(n: int) -> None:
    vertices, tets = bcc_grid(n)
    volumes = tet_volumes(vertices.double(), tets)
    assert len(vertices) == (n + 1) ** 3 + n**3
    assert len(tets) == 12 * n**3
    assert volumes.sum().item() == pytest.approx(1.0, abs=1e-6)
    torch.testing.assert_close(volumes, torch.full_like(volumes, 1 / len(tets)), rtol=1e-4, atol=0)


@given(st.integers(0, 10_000), st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_grid_has_no_overlaps(seed: int, n: int) -> None:
    """Random points lie in exactly one tet each."""
    vertices, tets = bcc_grid(n)
    points = torch.rand(20, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    corners = vertices.double()[tets]
    edges = (corners[:, 1:] - corners[:, :1]).transpose(1, 2)
    weights = torch.linalg.solve(edges[None], (points[:, None] - corners[None, :, 0])[..., None])[..., 0]
    inside = (weights > 1e-7).all(-1) & (weights.sum(-1) < 1 - 1e-7)
    on_a_face = ((weights > -1e-7).all(-1) & (weights.sum(-1) < 1 + 1e-7) & ~inside).any(1)
    assert (inside.sum(1) == 1)[~on_a_face].all()


def test_edges_are_shared_across_the_inside_of_the_grid() -> None:
    """Every face of a tet is shared by two tets, unless it lies in the cube's surface."""
    vertices, tets = bcc_grid(3)
    faces = torch.cat([tets[:, list(c)] for c in ((0, 1, 2), (0, 1, 3), (0, 2, 3), (1, 2, 3))]).sort(1).values
    unique, counts = torch.unique(faces, dim=0, return_counts=True)
    corners = vertices[unique]
    flat = ((corners == 0).all(1) | (corners == 1).all(1)).any(1)
    assert torch.equal(counts, torch.where(flat, 1, 2))


def test_sphere() -> None:
    vertices, tets = bcc_grid(24)
    mesh = marching_tets(vertices, (vertices - 0.5).norm(dim=-1) - 0.37, tets)
    centred = mesh.vertices - 0.5
    assert is_closed(mesh.faces)
    assert euler_characteristic(mesh.faces) == 2
    assert signed_volume(mesh.vertices, mesh.faces).item() == pytest.approx(4 / 3 * math.pi * 0.37**3, rel=5e-3)
    assert (centred.norm(dim=-1) - 0.37).abs().max() < 1e-3
    middle = centred[mesh.faces].mean(1)
    assert ((face_normals(mesh.vertices, mesh.faces) * middle).sum(-1) > 0).all()


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_level_sets_inside_the_grid_are_closed_manifolds(seed: int) -> None:
    vertices, tets = bcc_grid(9)
    sdf = smooth_field(seed, vertices)
    assume(bool((sdf <= 0).any()))
    mesh = marching_tets(vertices, sdf, tets)
    assert is_closed(mesh.faces)
    assert euler_characteristic(mesh.faces) % 2 == 0
    assert signed_volume(mesh.vertices, mesh.faces) > 0
    assert mesh.faces.min() == 0
    assert len(torch.unique(mesh.faces)) == len(mesh.vertices)


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_every_pattern_of_signs_faces_outward(seed: int) -> None:
    """Random signs: on each tet, the normal points towards the outside corners."""
    draws = np.random.default_rng(seed)
    positions = normal(draws, 4, 3)
    tets = torch.tensor([[0, 1, 2, 3]])
    positions = positions if tet_volumes(positions, tets) > 0 else positions[[1, 0, 2, 3]]
    sdf = normal(draws, 4)
    mesh = marching_tets(positions, sdf, tets)
    outside = sdf > 0
    assume(bool(outside.any()) and not bool(outside.all()))
    gradient = torch.linalg.solve(positions[1:] - positions[0], sdf[1:] - sdf[0])  # the field is linear in one tet
    assert ((face_normals(mesh.vertices, mesh.faces) @ gradient) > 0).all()


def test_gradients_agree_with_finite_differences() -> None:
    vertices, tets = bcc_grid(2)
    positions = (vertices + 0.05 * normal(np.random.default_rng(0), *vertices.shape)).double().requires_grad_()
    sdf = ((vertices - 0.47).norm(dim=-1) - 0.4).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda p, s: marching_tets(p, s, tets).vertices, (positions, sdf), eps=1e-7)


def test_one_sign_gives_an_empty_mesh() -> None:
    vertices, tets = bcc_grid(3)
    for sign in (-1.0, 1.0):
        sdf = torch.full((len(vertices),), sign, requires_grad=True)
        for mesh in (marching_tets(vertices, sdf, tets), TetExtractor(tets, len(vertices))(vertices, sdf)):
            assert mesh.vertices.shape == (0, 3)
            assert mesh.faces.shape == (0, 3)
            mesh.vertices.sum().backward()


def test_values_that_are_zero_or_not_finite_do_not_break_the_topology() -> None:
    vertices, tets = bcc_grid(8)
    sdf = (2 * vertices - 1).abs().amax(-1) - 0.5  # grid vertices lie exactly on this cube
    assert (sdf == 0).any()
    mesh = marching_tets(vertices, sdf, tets)
    assert is_closed(mesh.faces)
    assert torch.isfinite(mesh.vertices).all()
    sdf[100] = math.nan
    assert is_closed(marching_tets(vertices, sdf, tets).faces)


@given(st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_extractor_gives_the_same_mesh_however_the_field_moved(seed: int) -> None:
    """Small moves stay in the band, jumps leave it; the result and its gradients equal the plain function's."""
    vertices, tets = bcc_grid(8)
    extractor = TetExtractor(tets, len(vertices))
    for field, shift in ((seed, 0.0), (seed, 0.02), (seed, -0.3), (seed + 1, 0.0), (seed + 1, 0.01)):
        results = []
        for extract in (lambda p, s: marching_tets(p, s, tets), extractor):
            positions = vertices.clone().requires_grad_()
            sdf = (smooth_field(field, vertices) + shift).requires_grad_()
            mesh = extract(positions, sdf)
            mesh.vertices.square().sum().backward()
            results.append((mesh.vertices.detach(), mesh.faces, positions.grad, sdf.grad))
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_extractor_looks_at_the_whole_grid_only_when_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    vertices, tets = bcc_grid(12)
    extractor, calls = TetExtractor(tets, len(vertices)), []
    search = TetExtractor._search
    monkeypatch.setattr(TetExtractor, "_search", lambda self, outside: calls.append(1) or search(self, outside))
    distance = (vertices - 0.5).norm(dim=-1)
    for radius in (0.3, 0.305, 0.31, 0.315):
        extractor(vertices, distance - radius)
    assert len(calls) == 1
    extractor(vertices, torch.minimum(distance - 0.31, (vertices - 0.05).norm(dim=-1) - 0.1))  # a floater in a corner
    assert len(calls) == 2


def test_table_has_no_edge_within_one_side() -> None:
    for code, edges in enumerate(module.TRIANGLES):
        used = {e for e in edges if e >= 0}
        crossing = {k for k, (a, b) in enumerate(module.EDGES) if (code >> a & 1) != (code >> b & 1)}
        assert used == crossing


def test_surface_vertices_number_the_crossing_edges() -> None:
    vertices, tets = bcc_grid(6)
    sdf = smooth_field(3, vertices)
    mesh = marching_tets(vertices, sdf, tets)
    pairs = torch.cat([tets[:, list(e)] for e in module.EDGES]).sort(1).values.unique(dim=0)
    crossing = (sdf[pairs[:, 0]] > 0) != (sdf[pairs[:, 1]] > 0)
    assert len(mesh.vertices) == int(crossing.sum())
    assert len(unique_edges(mesh.faces)) * 2 == 3 * len(mesh.faces)
