"""The volume kernels beside their reference implementations at working size: 200k points x 16 levels, 128 x 128 rays,
and the volume of the bundled prior."""

from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor

from dreamcraft3d.evaluation.bench import BenchRow, compare
from dreamcraft3d.functional.cameras import orbit, rays
from dreamcraft3d.kernels import compositing, frustum, hash_grid, marching
from dreamcraft3d.kernels.reference import compositing as slow_compositing
from dreamcraft3d.kernels.reference import frustum as slow_frustum
from dreamcraft3d.kernels.reference import hash_grid as slow_hash_grid
from dreamcraft3d.kernels.reference import marching as slow_marching

POINTS = 200_000
RAY_SIDE = 128
STEP = 0.01
CHANNELS = 8
FRUSTUM = (64, 48)  # cells a side (and pixels of the views), planes
HASH_GRIDS = ((15, False, False), (15, True, False), (15, True, True), (19, True, False))
"""log2 of the table's size, whether the gradient is timed too, whether also that of the points."""


def volume_benchmarks(repeats: int = 3) -> list[BenchRow]:
    """Hash grid (small and full table), marching, compositing, the last two together, and frustum volumes."""
    return [*_hash_grid_rows(repeats), *_ray_rows(repeats), *_frustum_rows(repeats)]


def _hash_grid_rows(repeats: int) -> list[BenchRow]:
    generator = torch.Generator().manual_seed(0)
    rows = []
    for log2_table_size, backward, with_points in HASH_GRIDS:
        layout = hash_grid.HashGridLayout(log2_table_size=log2_table_size)
        table = torch.randn(layout.entries, layout.features, generator=generator).requires_grad_()
        points = torch.rand(POINTS, 3, generator=generator).requires_grad_(with_points)
        ours, twin = (_encoder(module, (points, table), layout, backward) for module in (hash_grid, slow_hash_grid))
        name = "hash grid forward" + " + backward" * backward + ", points too" * with_points
        detail = f"{POINTS} points x {layout.levels} levels, table 2^{log2_table_size}"
        rows.append(compare(name, ours, twin, repeats, detail=detail))
    return rows


def _encoder(
    module: ModuleType, inputs: tuple[Tensor, Tensor], layout: hash_grid.HashGridLayout, backward: bool
) -> Callable[[], object]:
    wanted = [tensor for tensor in inputs if tensor.requires_grad]

    def run() -> object:
        features = module.hash_encode(*inputs, layout)
        return torch.autograd.grad(features.sum(), wanted) if backward else features

    return run


def _ray_rows(repeats: int) -> list[BenchRow]:
    origins, directions = (t.reshape(-1, 3) for t in rays(orbit(0.3, 0.7), RAY_SIDE))
    grid = _ball()
    samples = marching.march(origins, directions, grid, step_size=STEP)
    generator = torch.Generator().manual_seed(0)
    alphas = (0.2 * torch.rand(len(samples), generator=generator)).requires_grad_()
    values = torch.rand(len(samples), CHANNELS, generator=generator).requires_grad_()

    def walk(module: ModuleType) -> Callable[[], object]:
        return lambda: module.march(origins, directions, grid, step_size=STEP)

    def blend(module: ModuleType) -> Callable[[], object]:
        def run() -> object:
            weights = module.render_weights(alphas, samples.ray_offsets)
            sums = module.accumulate(weights, values, samples.ray_offsets)
            return torch.autograd.grad(sums.sum(), (alphas, values))

        return run

    ours, twin = (
        [walk(marching), blend(compositing)],
        [walk(slow_marching), blend(slow_compositing)],
    )
    detail = f"{len(origins)} rays, {len(samples)} samples"
    return [
        compare("march", ours[0], twin[0], repeats, detail=detail),
        compare("composite forward + backward", ours[1], twin[1], repeats, detail=f"{detail}, {CHANNELS} channels"),
        compare("march + composite", lambda: [f() for f in ours], lambda: [f() for f in twin], repeats, detail=detail),
    ]


def _ball() -> marching.OccupancyGrid:
    """A grid of 64^3 cells that is occupied within 0.6 of the centre, as an object is."""
    grid = marching.OccupancyGrid(64)
    grid.update(lambda x: (x.norm(dim=-1) < 0.6).to(x.dtype), generator=torch.Generator().manual_seed(0), step=0)
    return grid


def _frustum_rows(repeats: int) -> list[BenchRow]:
    """Four views of one volume of the bundled prior's size: a ball, soft at its border."""
    (side, planes), views, reach = FRUSTUM, 4, 0.72
    across = torch.linspace(-1.0, 1.0, side)
    away = torch.stack(torch.meshgrid(across, across, torch.linspace(-1.0, 1.0, planes), indexing="ij")).norm(dim=0)
    volume = torch.randn(1, side, side, planes, CHANNELS, generator=torch.Generator().manual_seed(0))
    volume[0, ..., 0] = 40.0 * (0.6 - away)
    cameras = frustum.relative_cameras(
        orbit(torch.full((views,), 0.3), 1.5 * torch.arange(views)), orbit(torch.zeros(views), 0.0)
    )
    pixels = frustum.pixel_centres(side).expand(views, -1, -1)

    def look(module: ModuleType, *, backward: bool) -> Callable[[], object]:
        def run() -> object:
            cells = volume.clone().requires_grad_(backward)
            seen = module.render_frustum(cells, cameras, pixels, samples=planes, reach=reach, bias=-4.0)
            total = seen.opacity.sum() + seen.colour.sum() + seen.features.sum() + seen.depth.sum()
            return torch.autograd.grad(total, cells) if backward else total

        return run

    detail = f"{views} views of {side} px, {side} x {side} x {planes} cells, {CHANNELS} channels"
    return [
        compare(name, look(frustum, backward=b), look(slow_frustum, backward=b), repeats, detail=detail)
        for name, b in (("frustum volume forward", False), ("frustum volume forward + backward", True))
    ]
