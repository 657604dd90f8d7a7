"""Mesh operators against values known by hand, finite differences, and brute force."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from draws import normal
from dreamcraft3d.functional import mesh as module
from dreamcraft3d.functional.mesh import Mesh
from dreamcraft3d.functional.tets import bcc_grid, marching_tets

TETRAHEDRON = Mesh(
    torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]),
    torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]),
)


def sphere(n: int = 10, radius: float = 0.35) -> Mesh:
    grid, tets = bcc_grid(n)
    mesh = marching_tets(grid, (grid - 0.5).norm(dim=-1) - radius, tets)
    return Mesh(mesh.vertices - 0.5, mesh.faces)


def strip(count: int) -> Tensor:
    """An open strip of 2 (count - 1) triangles on 2 count vertices."""
    a = torch.arange(count - 1)
    return torch.cat([torch.stack([a, a + 1, a + count], -1), torch.stack([a + 1, a + count + 1, a + count], -1)])


def random_faces(seed: int, count: int = 12, vertices: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(vertices, generator=generator)[:3] for _ in range(count)])


def test_tetrahedron() -> None:
    vertices, faces = TETRAHEDRON.vertices, TETRAHEDRON.faces
    assert module.signed_volume(vertices, faces).item() == pytest.approx(1 / 6)
    torch.testing.assert_close(module.face_areas(vertices, faces), torch.tensor([0.5, 0.5, 0.5, math.sqrt(3) / 2]))
    torch.testing.assert_close(
        module.face_normals(vertices, faces)[:3], torch.tensor([[0.0, 0, -1], [0, -1, 0], [-1, 0, 0]])
    )
    torch.testing.assert_close(module.vertex_normals(vertices, faces)[0], torch.full((3,), -1 / math.sqrt(3)))
    assert module.is_closed(faces)
    assert module.euler_characteristic(faces) == 2
    assert len(module.unique_edges(faces)) == 6
    assert module.boundary_loops(faces) == []
    assert not module.is_closed(faces.flip(1)[:3])


def test_volume_does_not_depend_on_the_origin_and_changes_sign_with_the_winding() -> None:
    mesh = sphere()
    volume = module.signed_volume(mesh.vertices, mesh.faces)
    torch.testing.assert_close(module.signed_volume(mesh.vertices + 2.0, mesh.faces), volume, rtol=1e-3, atol=0)
    torch.testing.assert_close(module.signed_volume(mesh.vertices, mesh.faces.flip(1)), -volume)


def test_normals_of_a_sphere_are_radial_and_broken_faces_fall_back() -> None:
    mesh = sphere(16)
    normals = module.vertex_normals(mesh.vertices, mesh.faces)
    radial = torch.nn.functional.normalize(mesh.vertices, dim=-1)
    assert (normals * radial).sum(-1).min() > 0.97
    vertices = torch.zeros(4, 3, requires_grad=True)
    lost = module.vertex_normals(vertices, torch.tensor([[0, 1, 2]]))
    torch.testing.assert_close(lost, torch.tensor([0.0, 0, 1]).expand(4, 3))
    lost.sum().backward()
    assert torch.isfinite(vertices.grad).all()
    assert not module.face_normals(vertices.detach(), torch.tensor([[0, 1, 2]])).any()


@pytest.mark.parametrize("term", [module.normal_consistency, module.laplacian])
def test_smoothness_terms(term: object) -> None:
    """Differentiable, the same with given edges, invariant to the order of faces, and larger on a rougher surface."""
    assert callable(term)
    mesh = sphere(4)
    vertices = mesh.vertices.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: term(v, mesh.faces), (vertices,), eps=1e-6, atol=1e-6)
    value = term(vertices, mesh.faces)
    torch.testing.assert_close(term(vertices, mesh.faces, edges=module.unique_edges(mesh.faces)), value)
    torch.testing.assert_close(term(vertices, mesh.faces.flip(0)), value)
    noise = normal(np.random.default_rng(0), *vertices.shape)
    assert term(vertices + 0.02 * noise, mesh.faces) > value
    assert term(vertices, mesh.faces[:0]) == 0.0


def test_laplacian_of_one_triangle() -> None:
    """Each vertex: twice itself less its two neighbours = three times its distance to the centroid."""
    vertices = torch.tensor([[0.0, 0, 0], [3, 0, 0], [0, 3, 0]])
    expected = 3 * (vertices - vertices.mean(0)).norm(dim=-1).mean()
    torch.testing.assert_close(module.laplacian(vertices, torch.tensor([[0, 1, 2]])), expected)


def test_normal_consistency_of_a_plane_is_zero() -> None:
    vertices = torch.cat([torch.rand(20, 2, generator=torch.Generator().manual_seed(0)), torch.zeros(20, 1)], -1)
    vertices[:10, 0], vertices[10:, 0] = torch.arange(10.0), torch.arange(10.0)
    vertices[10:, 1] += 1
    assert module.normal_consistency(vertices, strip(10)).abs() < 1e-6


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_edge_table_is_that_of_a_dictionary(seed: int) -> None:
    faces = random_faces(seed)
    owners: dict[tuple[int, int], list[int]] = {}
    for number, face in enumerate(faces.tolist()):
        for k in range(3):
            a, b = face[(k + 1) % 3], face[(k + 2) % 3]
            owners.setdefault((min(a, b), max(a, b)), []).append(number)
    table = module.edge_faces(faces)
    keys = [tuple(edge) for edge in table.edges.tolist()]
    assert keys == sorted(owners)
    assert torch.equal(module.unique_edges(faces), table.edges)
    assert table.counts.tolist() == [len(owners[key]) for key in keys]
    for key, pair in zip(keys, table.faces.tolist(), strict=True):
        listed = owners[key]
        assert pair[0] in listed
        assert pair[1] == -1 if len(listed) == 1 else pair[1] in listed and pair[1] != pair[0]
    shared = {tuple(sorted(pair)) for pair in module.face_adjacency(faces).tolist()}
    assert shared == {tuple(sorted(faces_)) for faces_ in owners.values() if len(faces_) == 2}
    neighbours = module.neighbour_faces(faces)
    for number, face in enumerate(faces.tolist()):
        for k in range(3):
            a, b = face[(k + 1) % 3], face[(k + 2) % 3]
            others = [f for f in owners[min(a, b), max(a, b)] if f != number]
            assert neighbours[number, k] == (others[0] if len(others) == 1 else -1)


def test_edges_of_a_closed_mesh_need_no_search() -> None:
    faces = sphere(6).faces
    edges = module.closed_edges(faces)
    assert torch.equal(torch.unique(edges, dim=0), module.unique_edges(faces))
    assert len(edges) == len(module.unique_edges(faces))


def test_components() -> None:
    mesh, size = sphere(6), len(sphere(6).vertices)
    speck = torch.tensor([[0, 1, 2]]) + 2 * size
    faces = torch.cat([mesh.faces, speck, mesh.faces + size])
    labels = module.connected_components(faces)
    count = len(mesh.faces)
    assert labels.tolist() == [0] * count + [1] + [2] * count
    vertices = torch.cat([mesh.vertices, mesh.vertices + 1.0, torch.rand(3, 3)])
    kept = module.keep_components(Mesh(vertices, faces), fraction=0.01)
    assert len(kept.faces) == 2 * count
    assert torch.equal(kept.vertices, vertices[: 2 * size])
    assert module.euler_characteristic(kept.faces) == 4
    assert len(module.keep_components(Mesh(vertices, faces), fraction=0.0).faces) == 2 * count + 1
    assert len(module.keep_components(Mesh(vertices, faces[:0])).faces) == 0


def test_boundary_loops() -> None:
    mesh = sphere(8)
    ring = module.boundary_loops(strip(5))
    assert len(ring) == 1
    assert sorted(ring[0].tolist()) == list(range(10))
    # Two distant faces removed: two holes of three.
    far = int((mesh.vertices[mesh.faces].mean(1) + mesh.vertices[mesh.faces[0]].mean(0)).norm(dim=-1).argmin())
    keep = torch.ones(len(mesh.faces), dtype=torch.bool)
    keep[[0, far]] = False
    loops = module.boundary_loops(mesh.faces[keep])
    assert {frozenset(loop.tolist()) for loop in loops} == {frozenset(mesh.faces[f].tolist()) for f in (0, far)}
    assert not module.is_closed(mesh.faces[keep])


def test_boundary_loops_that_touch_in_a_vertex_are_cut_apart() -> None:
    """Two separate triangles with one vertex in common."""
    loops = module.boundary_loops(torch.tensor([[0, 1, 2], [2, 3, 4]]))
    assert {frozenset(loop.tolist()) for loop in loops} == {frozenset({0, 1, 2}), frozenset({2, 3, 4})}


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_boundary_loops_use_each_lone_edge_once(seed: int) -> None:
    """Cut random faces out of a closed mesh: the loops' edges are exactly the lone edges."""
    mesh = sphere(4)
    keep = torch.rand(len(mesh.faces), generator=torch.Generator().manual_seed(seed)) < 0.8
    faces = mesh.faces[keep]
    table = module.edge_faces(faces)
    lone = {tuple(edge) for edge in table.edges[table.counts == 1].tolist()}
    loops = [loop.tolist() for loop in module.boundary_loops(faces)]
    steps = [tuple(sorted((loop[k - 1], loop[k]))) for loop in loops for k in range(len(loop))]
    assert len(steps) == len(set(steps))
    assert set(steps) == lone


def test_mesh_moves_and_detaches() -> None:
    vertices = TETRAHEDRON.vertices.clone().requires_grad_()
    mesh = Mesh(vertices, TETRAHEDRON.faces)
    assert not mesh.detach().vertices.requires_grad
    assert mesh.to("cpu").vertices.requires_grad


def test_smoothing_takes_the_bumps_and_keeps_the_volume() -> None:
    ball = sphere(16)
    noise = 0.02 * normal(np.random.default_rng(0), len(ball.vertices), 1)
    rough = Mesh(ball.vertices * (1.0 + noise), ball.faces)
    smooth = module.smoothed(rough)
    bumps = [float((mesh.vertices.norm(dim=-1) - 0.35).abs().mean()) for mesh in (rough, smooth)]
    assert bumps[1] < 0.5 * bumps[0]
    volume = [float(module.signed_volume(mesh.vertices, mesh.faces)) for mesh in (ball, smooth)]
    assert abs(volume[1] / volume[0] - 1.0) < 0.03
