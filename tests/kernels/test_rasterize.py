"""The rasteriser against its reference implementation, against ray casting, and against known areas and derivatives."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from draws import normal
from dreamcraft3d.functional.cameras import orbit, project, rays
from dreamcraft3d.functional.mesh import Mesh, neighbour_faces
from dreamcraft3d.functional.tets import bcc_grid, marching_tets
from dreamcraft3d.kernels import rasterize as fast
from dreamcraft3d.kernels.reference import rasterize as reference


def sphere(n: int = 8, radius: float = 0.4, centre: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Mesh:
    """A closed sphere-like mesh from marching tets, its vertices exactly on the sphere."""
    grid, tets = bcc_grid(n)
    mesh = marching_tets(2 * grid - 1, (2 * grid - 1).norm(dim=-1) - 0.613, tets)
    return Mesh(torch.nn.functional.normalize(mesh.vertices, dim=-1) * radius + torch.tensor(centre), mesh.faces)


def join(*meshes: Mesh) -> Mesh:
    starts = [sum(len(m.vertices) for m in meshes[:k]) for k in range(len(meshes))]
    faces = [m.faces + start for m, start in zip(meshes, starts, strict=True)]
    return Mesh(torch.cat([m.vertices for m in meshes]), torch.cat(faces))


def screen_clip(points: Tensor, size: int) -> Tensor:
    """Clip positions of points given in pixels (x right, y down) and depth in -1..1."""
    x, y = 2 * points[:, 0] / size - 1, 1 - 2 * points[:, 1] / size
    return torch.stack([x, y, points[:, 2], torch.ones_like(x)], -1)[None]


def views(count: int = 2) -> Tensor:
    return orbit(torch.linspace(0.1, 0.7, count), torch.linspace(0.2, 2.9, count))


def soup(seed: int) -> tuple[Tensor, Tensor]:
    """Clip positions of twelve points in two views, and eight random triangles of them, no two on the same points."""
    draws = np.random.default_rng(seed)
    vertices, triples = 0.3 * normal(draws, 12, 3), list(itertools.combinations(range(12), 3))
    faces = draws.permuted(draws.permutation(triples)[:8], axis=1)
    return project(vertices, views()), torch.from_numpy(faces)


def exact_depth(clip: Tensor, faces: Tensor, ids: Tensor) -> Tensor:
    """Depth z / w, in float64, of the plane of face ids[b, y, x] at each pixel centre; NaN where the face does not
    cover it."""
    pixels = reference.pixel_centres(*ids.shape[1:], clip.double())
    corners = reference._gather(clip.double(), faces, ids)
    weights = reference._barycentrics(corners, pixels.expand(*ids.shape, 2))
    depth = (weights * corners[..., 2]).sum(-1) / (weights * corners[..., 3]).sum(-1)
    return torch.where((ids >= 0) & (weights >= 0).all(-1), depth, math.nan)


def agreement(clip: Tensor, faces: Tensor, ids: Tensor, expected: Tensor) -> Tensor:
    """Where both rasterisers chose the same face; elsewhere the two candidates must be a tie.

    A tie: both faces cover the pixel centre, and their depths, computed in float64, differ by no more than 4 units in
    the last place of float32. The order of such faces is that of rounding errors, and differs between processors.
    """
    same = ids == expected
    ours, theirs = (exact_depth(clip, faces, candidate)[~same] for candidate in (ids, expected))
    assert bool(((ours - theirs).abs() <= 4 * torch.finfo(torch.float32).eps * theirs.abs()).all()), "not a tie"
    return same


@pytest.mark.parametrize("doubled", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_values_and_gradients_match_the_reference_on_a_soup(seed: int, doubled: bool) -> None:
    """Doubled: every face a second time in the other winding, so that every covered pixel is a tie."""
    clip, faces = soup(seed)
    faces = torch.cat([faces, faces.flip(1)]) if doubled else faces
    draws = np.random.default_rng(100 + seed)
    attributes, weight = normal(draws, 2, 12, 5), normal(draws, 2, 24, 20, 5)
    inputs, rasters = [], []
    for module, dtype in ((fast, torch.float32), (reference, torch.float64)):
        inputs.append([x.detach().to(dtype).requires_grad_() for x in (clip, attributes)])
        rasters.append(module.rasterize(inputs[-1][0], faces, (24, 20)))
    same = agreement(clip, faces, rasters[0].face_ids, rasters[1].face_ids)
    assert (same & (rasters[0].face_ids >= 0)).sum() > 30
    results = []
    for module, leaves, raster in zip((fast, reference), inputs, rasters, strict=True):
        image = torch.where(same[..., None], module.interpolate(leaves[1], raster, faces), 0.0)
        (image * weight).sum().backward()
        results.append((image.detach().double(), *(x.grad.double() for x in leaves)))
    (image, grad_clip, grad_attributes), expected = results
    torch.testing.assert_close(image, expected[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(grad_clip, expected[1], atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(grad_attributes, expected[2], atol=1e-4, rtol=1e-4)


def test_only_a_tie_excuses_another_face() -> None:
    """Two parallel triangles and a copy: the copy is a tie; the one 1e-5 behind, and background, are not."""
    near = torch.tensor([[1, 1, 0.5], [15, 1, 0.5], [1, 15, 0.5]])
    clip = screen_clip(torch.cat([near, near + torch.tensor([0.0, 0.0, 1e-5])]), 16)
    faces = torch.tensor([[0, 1, 2], [2, 1, 0], [3, 4, 5]])
    expected = reference.rasterize(clip.double(), faces, 16).face_ids
    y, x = 4, 4
    assert expected[0, y, x] == 0
    for other, allowed in ((1, True), (2, False), (-1, False)):
        ids = expected.clone()
        ids[0, y, x] = other
        if allowed:
            assert (~agreement(clip, faces, ids, expected)).nonzero().tolist() == [[0, y, x]]
        else:
            with pytest.raises(AssertionError, match="not a tie"):
                agreement(clip, faces, ids, expected)


def test_attributes_shared_by_all_views_collect_the_gradient_of_all() -> None:
    clip, faces = soup(1)
    raster = fast.rasterize(clip, faces, 20)
    shared = normal(np.random.default_rng(0), 12, 3).requires_grad_()
    repeated = shared.detach().expand(2, -1, -1).clone().requires_grad_()
    fast.interpolate(shared, raster, faces).square().sum().backward()
    fast.interpolate(repeated, raster, faces).square().sum().backward()
    torch.testing.assert_close(shared.grad, repeated.grad.sum(0))


def test_the_reference_agrees_with_finite_differences() -> None:
    clip, faces = soup(2)
    attributes = normal(np.random.default_rng(0), 12, 2).double()

    def image(c: Tensor, a: Tensor) -> Tensor:
        return reference.interpolate(a, reference.rasterize(c, faces, 8), faces)

    inputs = (clip.double().requires_grad_(), attributes.requires_grad_())
    assert torch.autograd.gradcheck(image, inputs, eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("n", [4, 8])
def test_antialias_matches_the_reference(n: int) -> None:
    """Folds, and one object in front of another; triangles of a few pixels and of a fraction of one."""
    mesh = join(sphere(n, 0.35, (0.0, 0.1, 0.02)), sphere(n, 0.25, (0.5, -0.2, 0.1)))
    clip = project(mesh.vertices, views(1))
    generator = torch.Generator().manual_seed(0)
    picture, weight = torch.rand(1, 14, 14, 2, generator=generator), torch.rand(1, 14, 14, 2, generator=generator)
    results = []
    for module, dtype in ((fast, torch.float32), (reference, torch.float64)):
        c, p = clip.detach().to(dtype).requires_grad_(), picture.detach().to(dtype).requires_grad_()
        raster = module.rasterize(c, mesh.faces, 14)
        smooth = module.antialias(p, raster, c, mesh.faces)
        (smooth * weight).sum().backward()
        results.append((smooth.detach(), c.grad, p.grad))
    (smooth, grad_clip, grad_image), expected = results
    assert ((smooth - picture).abs().sum(-1) > 0).sum() > 20
    torch.testing.assert_close(smooth.double(), expected[0], atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(grad_image.double(), expected[2], atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(grad_clip.double(), expected[1], atol=5e-3, rtol=5e-3)


def test_antialias_gradient_agrees_with_finite_differences() -> None:
    mesh = join(sphere(6, 0.35, (0.0, 0.1, 0.02)), sphere(6, 0.25, (0.5, -0.2, 0.1)))
    clip = project(mesh.vertices, views(1)).double()
    generator = torch.Generator().manual_seed(3)
    picture, weight = torch.rand(2, 1, 10, 10, 1, generator=generator, dtype=torch.float64)
    raster = reference.rasterize(clip, mesh.faces, 10)
    topology = reference.edge_topology(mesh.faces)

    def total(c: Tensor) -> Tensor:
        return (reference.antialias(picture, raster, c, mesh.faces, topology=topology) * weight).sum()

    # A shift on the screen: the edges' directions, and so their weights, stay.
    direction = clip[..., 3:] * torch.tensor([0.7, -0.4, 0.0, 0.0], dtype=torch.float64)
    clip.requires_grad_()
    (grad,) = torch.autograd.grad(total(clip), clip)
    step = 1e-6
    difference = (total(clip.detach() + step * direction) - total(clip.detach() - step * direction)) / (2 * step)
    assert difference.abs() > 1e-3
    torch.testing.assert_close((grad * direction).sum(), difference, rtol=1e-5, atol=1e-7)


def test_silhouette_is_that_of_the_rays() -> None:
    cameras, size, radius = views(3), 48, 0.45
    mesh = sphere(24, radius)
    seen = fast.rasterize(project(mesh.vertices, cameras), mesh.faces, size).face_ids >= 0
    origins, directions = rays(cameras, size)
    along = (origins * directions).sum(-1)
    gap = (origins.square().sum(-1) - along.square()).sqrt() - radius  # of the ray to the sphere
    pixel = 2 * 3.8 * math.tan(math.radians(10.0)) / size
    assert torch.equal(seen, gap < 0) or bool((gap[seen != (gap < 0)].abs() < 0.2 * pixel).all())


def test_interpolated_positions_lie_on_their_rays() -> None:
    """Perspective-correct: the position at a pixel is on the ray through its centre."""
    cameras, mesh = views(2), sphere(6)
    raster = fast.rasterize(project(mesh.vertices, cameras), mesh.faces, 32)
    seen = raster.face_ids >= 0
    points = fast.interpolate(mesh.vertices, raster, mesh.faces)[seen]
    origins, directions = (x[seen] for x in rays(cameras, 32))
    assert torch.linalg.cross(points - origins, directions).norm(dim=-1).max() < 2e-5


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_neighbouring_triangles_leave_no_cracks(seed: int) -> None:
    """A jittered grid over the whole picture, some vertices exactly on pixel centres: every pixel is covered."""
    generator, size, cells = torch.Generator().manual_seed(seed), 16, 6
    line = torch.linspace(-1.0, size + 1.0, cells + 1)
    points = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)
    points[1:-1, 1:-1] += 0.8 * (torch.rand(cells - 1, cells - 1, 2, generator=generator) - 0.5)
    snapped = torch.rand(cells - 1, cells - 1, 1, generator=generator) < 0.5
    points[1:-1, 1:-1] = torch.where(snapped, points[1:-1, 1:-1].floor() + 0.5, points[1:-1, 1:-1])
    vertices = torch.cat([points.reshape(-1, 2), torch.zeros((cells + 1) ** 2, 1)], -1)
    index = torch.arange((cells + 1) ** 2).reshape(cells + 1, cells + 1)
    a, b, c, d = (x.reshape(-1) for x in (index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]))
    faces = torch.cat([torch.stack([a, b, c], -1), torch.stack([a, c, d], -1)])
    raster = fast.rasterize(screen_clip(vertices, size), faces, size)
    assert (raster.face_ids >= 0).all()
    assert (raster.barycentrics >= -1e-4).all()
    assert (raster.barycentrics.sum(-1) <= 1 + 1e-4).all()


def test_the_nearer_triangle_wins_whatever_the_order() -> None:
    points = torch.tensor([[1, 1, 0.5], [15, 1, 0.5], [1, 15, 0.5], [1, 1, -0.2], [15, 1, -0.2], [1, 15, -0.2]])
    for faces in ([[0, 1, 2], [3, 4, 5]], [[3, 5, 4], [0, 1, 2]]):
        ids = fast.rasterize(screen_clip(points, 16), torch.tensor(faces), 16).face_ids
        assert set(ids.unique().tolist()) == {-1, faces.index(next(f for f in faces if 3 in f))}


def test_broken_triangles_are_dropped_and_change_nothing() -> None:
    """Behind the eye, through the near plane, beyond far, zero area, NaN, infinite, off the picture."""
    mesh = sphere(6)
    clip = project(mesh.vertices, views(1))
    nan, inf = math.nan, math.inf
    bad = torch.tensor(
        [
            [0.0, 0.0, 0.0, -1.0], [0.5, 0.0, -2.0, 1.0], [nan, 0.0, 0.0, 1.0], [inf, 0.0, 0.0, 1.0],
            [0.0, 0.0, 0.0, 0.0], [1e30, 1e30, 0.0, 1.0], [0.1, 0.1, 5.0, 1.0], [0.3, 0.1, 5.0, 1.0],
            [0.1, 0.4, 5.0, 1.0],
        ]
    )  # fmt: skip
    start = clip.shape[1]
    extra = torch.tensor([[0, 1, 4], [2, 3, 0], [5, 5, 5], [3, 3, 3], [6, 7, 8], [2, 6, 7], [4, 4, 6]]) + start
    extra = torch.cat([extra, torch.tensor([[0, 0, 1], [0, 1, start], [2, 3, start + 2]])])
    joined = torch.cat([clip, bad[None]], 1).requires_grad_()
    faces = torch.cat([mesh.faces, extra])
    raster = fast.rasterize(joined, faces, 24)
    plain = fast.rasterize(clip, mesh.faces, 24)
    assert torch.equal(raster.face_ids, plain.face_ids)
    smooth = fast.antialias(fast.interpolate(torch.rand(start + 9, 3), raster, faces), raster, joined, faces)
    smooth.sum().backward()
    assert torch.isfinite(smooth).all()
    assert torch.isfinite(joined.grad).all()


def test_nothing_to_draw() -> None:
    clip = torch.zeros(2, 3, 4, requires_grad=True)
    faces = torch.zeros(0, 3, dtype=torch.int64)
    raster = fast.rasterize(clip, faces, (5, 7))
    assert raster.face_ids.shape == (2, 5, 7)
    assert (raster.face_ids == -1).all()
    image = fast.antialias(fast.interpolate(torch.rand(3, 4), raster, faces), raster, clip, faces)
    image.sum().backward()
    assert image.shape == (2, 5, 7, 4)
    assert not image.any()


def test_gradients_are_bitwise_the_same_in_every_run_and_on_any_number_of_threads() -> None:
    mesh, before, grads = sphere(16), torch.get_num_threads(), []
    for threads in (1, 2, 3, 2):
        torch.set_num_threads(threads)
        vertices = mesh.vertices.clone().requires_grad_()
        clip = project(vertices, views(2))
        raster = fast.rasterize(clip, mesh.faces, 40)
        image = fast.antialias(fast.interpolate(vertices, raster, mesh.faces), raster, clip, mesh.faces)
        (image.sin() ** 2).sum().backward()
        grads.append(vertices.grad)
    torch.set_num_threads(before)
    assert all(torch.equal(grads[0], grad) for grad in grads)


@given(st.floats(2.0, 6.0), st.floats(9.0, 13.0))
@settings(max_examples=20, deadline=None)
def test_antialiased_area_of_a_rectangle(left: float, right: float) -> None:
    """Edges at any fraction of a pixel: the antialiased mask sums to the area, up to the corners."""
    points = torch.tensor([[left, 3.0, 0], [right, 3.0, 0], [right, 12.0, 0], [left, 12.0, 0]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    x = points[:, 0].clone().requires_grad_()
    clip = screen_clip(torch.cat([x[:, None], points[:, 1:]], -1), 16)
    raster = fast.rasterize(clip, faces, 16)
    mask = (raster.face_ids >= 0)[..., None].float()
    area = fast.antialias(mask, raster, clip, faces).sum()
    area.backward()
    assert abs(area.item() - 9 * (right - left)) < 1e-2
    growth = x.grad[1:3].sum().item()  # of the right side: its height, 9 pixel rows
    assert abs(growth - 9.0) < 1e-2


@pytest.mark.parametrize(("n", "size"), [(8, 64), (24, 64), (24, 24)])
def test_growing_a_sphere_grows_its_silhouette_by_the_swept_area(n: int, size: int) -> None:
    """Triangles from many pixels down to a fraction of one: d(sum of the antialiased mask)/d(radius) is the analytic
    one."""
    distance, focal = 3.8, 0.5 * size / math.tan(math.radians(10.0))
    mesh, cameras = sphere(n, 1.0), views(4)
    radius = torch.tensor(0.4, requires_grad=True)
    clip = project(mesh.vertices * radius, cameras)
    raster = fast.rasterize(clip, mesh.faces, size)
    mask = (raster.face_ids >= 0)[..., None].float()
    area = fast.antialias(mask, raster, clip, mesh.faces).sum() / 4
    area.backward()
    visible = torch.tensor(0.4, requires_grad=True)
    disc = math.pi * (focal * visible / (distance**2 - visible**2).sqrt()) ** 2
    disc.backward()
    assert area.item() == pytest.approx(disc.item(), rel=0.02)
    assert radius.grad.item() == pytest.approx(visible.grad.item(), rel=0.03)


def test_antialiased_mask_is_close_to_the_covered_share_of_each_pixel() -> None:
    mesh, camera = sphere(24), views(1)
    clip = project(mesh.vertices, camera)
    raster = fast.rasterize(clip, mesh.faces, 48)
    mask = (raster.face_ids >= 0)[..., None].float()
    smooth = fast.antialias(mask, raster, clip, mesh.faces)[0, ..., 0]
    fine = fast.rasterize(clip, mesh.faces, 48 * 8).face_ids >= 0
    share = fine.float().reshape(48, 8, 48, 8).mean((1, 3))
    assert (smooth - share).square().mean() < 0.05 * (mask[0, ..., 0] - share).square().mean()
    assert (smooth - share).abs().max() < 0.25


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_topology_matches_the_sorted_edge_table(seed: int) -> None:
    """Random faces: boundary, manifold and non-manifold edges alike."""
    generator = torch.Generator().manual_seed(seed)
    faces = torch.stack([torch.randperm(9, generator=generator)[:3] for _ in range(12)])
    neighbours = fast.edge_topology(faces).neighbours
    assert torch.equal(torch.where(neighbours >= 0, neighbours // 3, -1).long(), neighbour_faces(faces))
    assert torch.equal(neighbours, reference.edge_topology(faces).neighbours)
