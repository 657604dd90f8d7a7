"""Every kernel computes on the card what it computes on the CPU, and what its twin of plain torch computes.

float32 sums in another order, and products that the card fuses into sums, move a few samples over the wall of a cell
and a few pixels over an edge: nearly all numbers must agree, and the rest may not weigh much.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from dreamcraft3d.functional.cameras import orbit, project, rays
from dreamcraft3d.functional.mesh import Mesh
from dreamcraft3d.functional.tets import bcc_grid, marching_tets
from dreamcraft3d.kernels import bands, compositing, hash_grid, marching, rasterize
from dreamcraft3d.kernels.hash_grid import HashGridLayout
from dreamcraft3d.kernels.marching import OccupancyGrid
from dreamcraft3d.kernels.mesh_query import MeshQuery
from dreamcraft3d.kernels.reference import compositing as compositing_twin
from dreamcraft3d.kernels.reference import hash_grid as hash_grid_twin
from dreamcraft3d.kernels.reference import marching as marching_twin
from dreamcraft3d.kernels.reference import rasterize as rasterize_twin

Place = Callable[[Tensor], Tensor]
"""Brings an input to where the kernel shall work."""
Results = dict[str, Tensor]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- what the kernels are asked -----------------------------------------------------------------------


def encode(place: Place, module: Any, large: bool) -> Results:
    """Features and both gradients, twice from the same tensors: the second use finds everything prepared."""
    layout = HashGridLayout() if large else HashGridLayout(levels=6, base_resolution=5, growth=1.8, log2_table_size=10)
    points = place(torch.rand(20_000 if large else 700, 3, generator=seeded())).requires_grad_()
    table = place(torch.randn(layout.entries, layout.features, generator=seeded(1))).requires_grad_()
    results = {}
    for use, active in (("first", layout.levels - 2), ("second", layout.levels)):
        features = module.hash_encode(points, table, layout, active_levels=active)
        slopes = torch.autograd.grad(features.sin().sum(), (points, table))
        results |= {f"{use} features": features, f"{use} points": slopes[0], f"{use} table": slopes[1]}
    return results


def composite(place: Place, module: Any, large: bool) -> Results:
    """Weights and sums of rays of unequal length, some of them empty, some samples opaque; their gradients."""
    counts = torch.randint(0, 60 if large else 9, (9000 if large else 300,), generator=seeded(2))
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    alphas = 0.5 * torch.rand(int(offsets[-1]), generator=seeded(3))
    alphas[::9] = 1.0
    alphas = place(alphas).requires_grad_()
    values = place(torch.randn(len(alphas), 8, generator=seeded(4))).requires_grad_()
    packed = place(offsets)
    weights = module.render_weights(alphas, packed)
    sums = module.accumulate(weights, values, packed)
    total = sums.square().sum() + module.accumulate(weights, None, packed).sin().sum()
    slopes = torch.autograd.grad(total, (alphas, values))
    return {"weights": weights, "sums": sums, "alphas": slopes[0], "values": slopes[1]}


def march(place: Place, module: Any, large: bool) -> Results:
    """Samples of jittered rays through a speckled grid: how many each ray has, and where they lie on average."""
    resolution = 64 if large else 16
    grid = OccupancyGrid(resolution)
    grid.binary = place(torch.rand(grid.binary.shape, generator=seeded(5)) < 0.2)
    origins, directions = (place(t.reshape(-1, 3)) for t in rays(orbit(0.3, 0.8), 96 if large else 20))
    generator = seeded(6) if module is marching else None  # the twin draws where its rays are
    samples = module.march(origins, directions, grid, step_size=0.013, generator=generator)
    counts = samples.ray_offsets.diff()
    sums = samples.t_starts.new_zeros(len(origins)).index_add(0, samples.ray_indices, samples.t_starts)
    return {"counts": counts, "middles": sums / counts.clamp_min(1)}


def march_without_jitter(place: Place, module: Any, large: bool) -> Results:
    """As `march`, for the twin."""
    grid = OccupancyGrid(16)
    grid.binary = place(torch.rand(grid.binary.shape, generator=seeded(5)) < 0.2)
    origins, directions = (place(t.reshape(-1, 3)) for t in rays(orbit(0.3, 0.8), 24))
    samples = module.march(origins, directions, grid, step_size=0.013, near=0.5)
    return {"counts": samples.ray_offsets.diff()}


def update(place: Place, module: Any, large: bool) -> Results:
    """An occupancy grid after a full update and a partial one; the same random numbers everywhere."""
    like = place(torch.zeros(1))
    grid = module.OccupancyGrid(48 if large else 12, device=like.device)
    for step in (0, 300):
        grid.update(lambda x: 0.02 * (-8.0 * x.square().sum(1)).exp(), generator=seeded(step), step=step)
    return {"values": grid.values, "binary": grid.binary}


def sphere(n: int, radius: float = 0.4, centre: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Mesh:
    grid, tets = bcc_grid(n)
    mesh = marching_tets(2 * grid - 1, (2 * grid - 1).norm(dim=-1) - 0.613, tets)
    return Mesh(torch.nn.functional.normalize(mesh.vertices, dim=-1) * radius + torch.tensor(centre), mesh.faces)


@cache
def two_spheres(n: int) -> Mesh:
    """One in front of the other: outlines, folds, and faces that nobody sees."""
    a, b = sphere(n, 0.35, (0.0, 0.1, 0.02)), sphere(n, 0.25, (0.5, -0.2, 0.1))
    return Mesh(torch.cat([a.vertices, b.vertices]), torch.cat([a.faces, b.faces + len(a.vertices)]))


def draw(place: Place, module: Any, large: bool) -> Results:
    """Two views of a mesh, drawn with smooth outlines; gradients to the clip positions and to the attributes."""
    mesh, size = two_spheres(20 if large else 6), 192 if large else 16
    views = orbit(torch.tensor([0.1, 0.7]), torch.tensor([0.2, 2.9]))
    clip, faces = place(project(mesh.vertices, views)).requires_grad_(), place(mesh.faces)
    attributes = place(torch.cat([mesh.vertices, (5.0 * mesh.vertices).sin()], dim=1)).requires_grad_()
    raster = module.rasterize(clip, faces, size)
    image = module.interpolate(attributes, raster, faces)
    smooth = module.antialias(image, raster, clip, faces, topology=module.edge_topology(faces))
    slopes = torch.autograd.grad(smooth.square().sum() + smooth.sum(), (clip, attributes))
    return {"faces": raster.face_ids, "image": image, "smooth": smooth, "clip": slopes[0], "attributes": slopes[1]}


def neighbours(place: Place, module: Any, large: bool) -> Results:
    """The face across each edge, where there is one: of a closed mesh with a few faces torn off."""
    faces = place(two_spheres(20 if large else 6).faces[5:])
    return {"neighbours": module.edge_topology(faces).neighbours}


def query(place: Place, module: Any, large: bool) -> Results:
    """Distances, nearest points, and rays, from one prepared mesh."""
    mesh = sphere(28 if large else 10)
    prepared = module(place(mesh.vertices), place(mesh.faces))
    points = place(2.0 * torch.rand(20_000 if large else 500, 3, generator=seeded(7)) - 1.0)
    nearest, _, weights = prepared.closest_points(points)
    origins, directions = (place(t.reshape(-1, 3)) for t in rays(orbit(0.4, 1.0), 128 if large else 20))
    t, hit = prepared.cast_rays(origins, directions)
    signed = prepared.signed_distance(points)
    return {"signed": signed, "nearest": nearest, "weights": weights.sum(1), "t": t.nan_to_num(posinf=-1.0), "hit": hit}


@dataclass(frozen=True)
class Case:
    """A question, the module of ours that answers it, and its twin."""

    ask: Callable[[Place, Any, bool], Results]
    ours: Any
    twin: Any = None


CASES = {
    "hash grid": Case(encode, hash_grid, hash_grid_twin),
    "compositing": Case(composite, compositing, compositing_twin),
    "marching": Case(march, marching),
    "marching without jitter": Case(march_without_jitter, marching, marching_twin),
    "occupancy grid": Case(update, marching),
    "rasteriser": Case(draw, rasterize, rasterize_twin),
    "edge topology": Case(neighbours, rasterize, rasterize_twin),
    "mesh queries": Case(query, MeshQuery),
}


# --- how answers are compared -------------------------------------------------------------------------


@cache
def on_the_cpu(name: str, large: bool) -> Results:
    return CASES[name].ask(Tensor.clone, CASES[name].ours, large)


def agree(results: Results, expected: Results, *, where: torch.device, tolerance: float = 2e-3) -> None:
    """The results live on the device, and all but one number in 200 are close, in the scale of their tensor."""
    for name, theirs in expected.items():
        ours = results[name]
        assert ours.device.type == where.type, f"{name} is on the {ours.device}"
        a, b = ours.detach().cpu().double(), theirs.detach().cpu().double()
        assert a.shape == b.shape, name
        assert bool(a.isfinite().all()), f"{name} is not finite"
        if ours.is_floating_point():
            scale = b.square().mean().sqrt()
            off = (a - b).abs() > tolerance * (b.abs() + scale) + 1e-7
            assert float((a - b).norm()) <= 0.05 * float(b.norm()) + 1e-6, f"{name}: {float((a - b).abs().max()):.3g}"
        else:
            off = a != b
        assert float(off.double().mean()) <= 5e-3, f"{name}: {int(off.sum())} of {off.numel()} differ"


def late(device: torch.device) -> Place:
    """Copies that the stream has not made yet when they are handed out; until then there is rubbish in their place."""

    def place(tensor: Tensor) -> Tensor:
        source = tensor.to(device)
        copy = torch.full_like(source, math.nan if source.is_floating_point() else 0)
        if device.type == "cuda":
            torch.cuda._sleep(3_000_000)  # a millisecond or two
        return copy.copy_(source)

    return place


@contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """A block that works on another stream than the default one."""
    if device.type != "cuda":
        yield
        return
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        yield
    torch.cuda.synchronize(device)


def litter(device: torch.device) -> None:
    """Fills blocks of many sizes with rubbish and gives them back, for the next ones to find."""
    blocks = [torch.full((1 << power,), math.nan, device=device) for power in range(6, 22, 2) for _ in range(3)]
    del blocks[::2], blocks


# --- tests --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_the_card_agrees_with_the_cpu(name: str, card: torch.device) -> None:
    case = CASES[name]
    agree(case.ask(lambda tensor: tensor.to(card), case.ours, True), on_the_cpu(name, True), where=card)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.twin is not None])
def test_the_card_agrees_with_the_twin(name: str, card: torch.device) -> None:
    """The twin computes in float64, on the CPU."""
    case = CASES[name]
    expected = case.ask(lambda t: t.double() if t.is_floating_point() else t, case.twin, False)
    agree(case.ask(lambda tensor: tensor.to(card), case.ours, False), expected, where=card, tolerance=1e-2)


@pytest.mark.parametrize("name", CASES)
def test_a_kernel_keeps_to_the_current_stream(name: str, card: torch.device) -> None:
    """Inputs that come late would be read too early by a launch on any other stream."""
    case, expected = CASES[name], on_the_cpu(name, False)
    case.ask(lambda tensor: tensor.to(card), case.ours, False)  # compiled and prepared
    with own_stream(card):
        results = case.ask(late(card), case.ours, False)
        results = {key: result.clone() for key, result in results.items()}
    agree(results, expected, where=card)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("stream", ["default", "own"])
def test_memory_that_is_used_again_holds_what_was_written_last(name: str, stream: str, card: torch.device) -> None:
    case, expected = CASES[name], on_the_cpu(name, False)
    with own_stream(card if stream == "own" else torch.device("cpu")):
        for _ in range(4):
            litter(card)
            agree(case.ask(late(card), case.ours, False), expected, where=card)


def test_neighbouring_triangles_leave_no_cracks(card: torch.device) -> None:
    """Jittered grids over the whole picture, half of their points exactly on pixel centres: every pixel is covered."""
    size, cells, views = 64, 24, 8
    line = torch.linspace(-1.0, size + 1.0, cells + 1)
    points = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).repeat(views, 1, 1, 1)
    inner = points[:, 1:-1, 1:-1] + 0.8 * (torch.rand(views, cells - 1, cells - 1, 2, generator=seeded()) - 0.5)
    snapped = torch.rand(views, cells - 1, cells - 1, 1, generator=seeded(1)) < 0.5
    points[:, 1:-1, 1:-1] = torch.where(snapped, inner.floor() + 0.5, inner)
    x, y = points.reshape(views, -1, 2).unbind(-1)
    clip = torch.stack([2 * x / size - 1, 1 - 2 * y / size, torch.zeros_like(x), torch.ones_like(x)], -1)
    index = torch.arange((cells + 1) ** 2).reshape(cells + 1, cells + 1)
    a, b, c, d = (t.reshape(-1) for t in (index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]))
    faces = torch.cat([torch.stack([a, b, c], -1), torch.stack([a, c, d], -1)])
    raster = rasterize.rasterize(clip.to(card), faces.to(card), size)
    assert bool((raster.face_ids >= 0).all())
    assert bool((raster.barycentrics >= -1e-4).all())


def test_a_card_draws_a_picture_in_one_launch(card: torch.device) -> None:
    """Bands are for the threads of the CPU."""
    called: list[tuple[int, int]] = []
    bands.over_rows(card, 100, lambda first, rows: called.append((first, rows)))
    assert len(bands.gradient_buffers(torch.zeros(3, 4, device=card))) == (1 if card.type == "cuda" else 4)
    assert sum(rows for _, rows in called) == 100
    assert card.type == "cpu" or called == [(0, 100)]


def test_broken_triangles_and_points_are_harmless(card: torch.device) -> None:
    mesh = sphere(8)
    vertices = torch.cat([mesh.vertices, torch.full((1, 3), math.nan)]).to(card).requires_grad_()
    faces = torch.cat([mesh.faces, torch.tensor([[0, 1, len(mesh.vertices)], [3, 3, 3]])]).to(card)
    clip = project(vertices, orbit(0.3, 0.4).to(card))
    raster = rasterize.rasterize(clip, faces, 32)
    image = rasterize.antialias(rasterize.interpolate(vertices, raster, faces), raster, clip, faces)
    assert bool(image.isfinite().all())
    assert bool(torch.autograd.grad(image.sum(), vertices)[0][:-1].isfinite().all())
    points = torch.tensor([[0.0, 0.0, 0.0], [math.nan, 0.0, 0.0]], device=card)
    distance = MeshQuery(vertices, faces).signed_distance(points)
    assert float(distance[0]) < -0.3 and float(distance[1]) == math.inf
