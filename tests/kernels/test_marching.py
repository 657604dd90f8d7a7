"""Marching against its twin and plain geometry; the occupancy grid's rule of method section 5.5."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from draws import normal
from dreamcraft3d.functional.cameras import orbit, rays
from dreamcraft3d.kernels import dispatch
from dreamcraft3d.kernels.marching import OccupancyGrid, Samples, march
from dreamcraft3d.kernels.reference import marching as twin


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def speckled_grid(resolution: int, share: float, half_extent: float = 1.0) -> OccupancyGrid:
    grid = OccupancyGrid(resolution, half_extent=half_extent)
    grid.binary = torch.rand(grid.binary.shape, generator=seeded(5)) < share
    return grid


def random_rays(count: int) -> tuple[Tensor, Tensor]:
    """Rays from outside and inside the box, some parallel to an axis or a plane, some that miss."""
    draws = np.random.default_rng(7)
    origins = 3.0 * normal(draws, count, 3)
    origins[::5] *= 0.1
    directions = normal(draws, count, 3) - origins
    directions[::7, 0] = 0.0
    directions[::11, 1:] = 0.0
    directions[3::11, 2] = -0.0
    directions[directions.norm(dim=1) == 0.0] = torch.tensor([0.0, 0.0, 1.0])
    return origins, torch.nn.functional.normalize(directions, dim=1)


def lattice(samples: Samples, step: float, start: Tensor) -> set[tuple[int, int]]:
    k = ((samples.t_starts - start[samples.ray_indices]) / step).round().long()
    return set(zip(samples.ray_indices.tolist(), k.tolist(), strict=True))


@pytest.mark.parametrize(
    ("resolution", "share", "half_extent"), [(8, 0.3, 1.0), (33, 0.05, 1.0), (16, 1.0, 2.0), (5, 0.5, 0.4)]
)
@pytest.mark.parametrize("near", [0.0, 1.3])
@pytest.mark.parametrize("jitter", [False, True])
def test_samples_equal_the_twin_s(resolution: int, share: float, half_extent: float, near: float, jitter: bool) -> None:
    grid, step = speckled_grid(resolution, share, half_extent), 0.037
    origins, directions = random_rays(300)
    ours, theirs = (
        function(origins, directions, grid, step_size=step, near=near, generator=seeded(3) if jitter else None)
        for function in (march, twin.march)
    )
    start = near + (step * torch.rand(300, generator=seeded(3)) if jitter else torch.zeros(300))
    mine, reference = lattice(ours, step, start), lattice(theirs, step, start)
    assert len(reference) > 150
    for ray, k in mine ^ reference:  # float32 may put a midpoint that lies on a wall on either side of it
        middle = origins[ray].double() + (start[ray].double() + (k + 0.5) * step) * directions[ray].double()
        cells = (middle / half_extent + 1.0) / 2.0 * resolution
        assert float((cells - cells.round()).abs().min()) < 1e-4
    assert len(mine ^ reference) < 0.01 * len(reference)


def test_samples_are_packed_and_ascending() -> None:
    origins, directions = random_rays(2 * dispatch.SMALL)
    samples = march(origins, directions, speckled_grid(16, 0.2), step_size=0.05, generator=seeded())
    assert samples.n_rays == len(origins)
    assert int(samples.ray_offsets[0]) == 0
    assert int(samples.ray_offsets[-1]) == len(samples) == len(samples.t_ends)
    counts = torch.bincount(samples.ray_indices, minlength=samples.n_rays)
    assert torch.equal(counts, samples.ray_offsets.diff())
    same_ray = samples.ray_indices.diff() == 0
    assert bool((samples.ray_indices.diff() >= 0).all())
    assert bool((samples.t_starts.diff()[same_ray] > 0.049).all())
    lengths = samples.t_ends - samples.t_starts
    torch.testing.assert_close(lengths, torch.full_like(lengths, 0.05), rtol=0, atol=1e-5)


def test_a_full_grid_is_sampled_over_the_whole_chord() -> None:
    origins, directions = (t.reshape(-1, 3) for t in rays(orbit(0.3, 0.8), 16))
    samples = march(origins, directions, OccupancyGrid(32), step_size=0.01)
    a, b = (-1.0 - origins) / directions, (1.0 - origins) / directions
    chord = (torch.maximum(a, b).amin(dim=1) - torch.minimum(a, b).amax(dim=1)).clamp_min(0.0)
    length = samples.ray_offsets.diff() * 0.01
    assert float((length - chord).abs().max()) < 0.0101


def test_an_axis_parallel_ray_through_one_cell() -> None:
    grid = OccupancyGrid(4)
    grid.binary[:] = False
    grid.binary[2, 1, 3] = True  # x in [0, 1/2], y in [-1/2, 0], z in [1/2, 1]
    origins = torch.tensor([[3.0, -0.25, 0.75], [3.0, 0.25, 0.75]])
    samples = march(origins, torch.tensor([[-1.0, 0.0, 0.0]] * 2), grid, step_size=0.1)
    assert samples.ray_offsets.tolist() == [0, 5, 5]
    torch.testing.assert_close(samples.t_starts, torch.tensor([2.5, 2.6, 2.7, 2.8, 2.9]))


def test_jitter_shifts_each_ray_by_less_than_a_step() -> None:
    origins, directions = (t.reshape(-1, 3) for t in rays(orbit(0.0, 0.0), 8))
    still = march(origins, directions, OccupancyGrid(8), step_size=0.05)
    moved = march(origins, directions, OccupancyGrid(8), step_size=0.05, generator=seeded())
    phases = (moved.t_starts[moved.ray_offsets[:-1]] / 0.05) % 1.0
    assert float(phases.max() - phases.min()) > 0.5
    assert abs(len(moved) - len(still)) < 0.1 * len(still)
    again = march(origins, directions, OccupancyGrid(8), step_size=0.05, generator=seeded())
    assert torch.equal(moved.t_starts, again.t_starts)


@pytest.mark.parametrize("function", [march, twin.march])
def test_never_empty(function: object) -> None:
    origins, directions = (t.reshape(-1, 3) for t in rays(orbit(0.0, 0.0), 2))
    empty = OccupancyGrid(8)
    empty.binary[:] = False
    for grid, d in ((empty, directions), (OccupancyGrid(8), -directions)):
        samples = function(origins, d, grid, step_size=0.05)  # type: ignore[operator]
        assert len(samples) == 1
        assert torch.equal(samples.t_starts, samples.t_ends)
        assert samples.ray_indices.tolist() == [0]
        assert samples.ray_offsets.tolist() == [0, 1, 1, 1, 1]
        assert float(samples.t_starts[0]) >= 0.0


@pytest.mark.parametrize("function", [march, twin.march])
def test_at_most_so_many_samples_of_a_ray(function: object) -> None:
    origins, directions = (t.reshape(-1, 3) for t in rays(orbit(0.0, 0.0), 4))
    everything = march(origins, directions, OccupancyGrid(8), step_size=0.1)
    first = function(origins, directions, OccupancyGrid(8), step_size=0.1, max_samples_per_ray=7)  # type: ignore[operator]
    assert torch.equal(first.ray_offsets.diff(), everything.ray_offsets.diff().clamp(max=7))
    torch.testing.assert_close(first.t_starts[:7], everything.t_starts[:7])


def test_refusals() -> None:
    origins, directions = random_rays(2)
    with pytest.raises(ValueError, match="positive step"):
        march(origins, directions, OccupancyGrid(4), step_size=0.0)
    with pytest.raises(ValueError, match="needs rays"):
        march(origins[:0], directions[:0], OccupancyGrid(4), step_size=0.1)
    with pytest.raises(ValueError, match="resolution"):
        OccupancyGrid(0)


def ball(x: Tensor) -> Tensor:
    return (x.norm(dim=1) < 0.5).float()


def test_warm_up_visits_every_cell_inside_its_walls() -> None:
    grid, seen = OccupancyGrid(6, half_extent=2.0), []

    def number_of(x: Tensor) -> Tensor:
        seen.append(x)
        cell = ((x / 2.0 + 1.0) * 3.0).floor()
        return 1.0 + cell @ torch.tensor([36.0, 6.0, 1.0])

    grid.update(number_of, generator=seeded(), step=0)
    assert torch.equal(grid.values.view(-1), torch.arange(1.0, 217.0))
    assert float((seen[0] * 3 % 1.0).std()) > 0.2  # jittered, not centred


def test_later_updates_visit_a_quarter_and_as_many_occupied_ones() -> None:
    grid, visited = OccupancyGrid(16), []

    def counted(x: Tensor) -> Tensor:
        visited.append(len(x))
        return ball(x)

    grid.update(counted, generator=seeded(), step=255)
    occupied = int(grid.binary.sum())
    grid.update(counted, generator=seeded(), step=256)
    assert visited == [4096, 1024 + min(occupied, 1024)]
    grid.binary[:] = True
    grid.update(counted, generator=seeded(), step=300)
    assert visited[-1] == 2048


def test_values_decay_and_the_threshold_is_the_smaller_of_mean_and_limit() -> None:
    grid = OccupancyGrid(8)
    grid.update(ball, generator=seeded(), step=0)
    before = grid.values.clone()
    grid.update(lambda x: torch.zeros(len(x)), generator=seeded(), step=1)
    torch.testing.assert_close(grid.values, 0.95 * before)
    assert float(grid.values.mean()) > 0.01
    assert torch.equal(grid.binary, grid.values > 0.01)
    faint = OccupancyGrid(8)
    faint.update(lambda x: 1e-3 * ball(x), generator=seeded(), step=0)
    assert torch.equal(faint.binary, faint.values > faint.values.mean())
    assert 0 < int(faint.binary.sum()) < 512


def test_same_seed_same_grid() -> None:
    grids = [OccupancyGrid(16), OccupancyGrid(16), OccupancyGrid(16)]
    for grid, seed in zip(grids, (1, 1, 2), strict=True):
        for step in (0, 500):
            grid.update(lambda x: x.norm(dim=1), generator=seeded(seed), step=step)
    assert torch.equal(grids[0].values, grids[1].values)
    assert not torch.equal(grids[0].values, grids[2].values)


def test_state_survives_a_checkpoint_and_other_sizes_are_refused() -> None:
    grid, copy = OccupancyGrid(8), OccupancyGrid(8)
    grid.update(ball, generator=seeded(), step=0)
    copy.load_state_dict(grid.state_dict())
    assert torch.equal(copy.values, grid.values)
    assert torch.equal(copy.binary, grid.binary)
    grid.values.zero_()
    assert float(copy.values.max()) > 0.0
    with pytest.raises(ValueError, match="values"):
        OccupancyGrid(4).load_state_dict(copy.state_dict())


def test_skipping_empty_cells_loses_no_sample_of_a_thin_shell() -> None:
    grid = OccupancyGrid(64)
    index = torch.stack(torch.meshgrid(*[torch.arange(64)] * 3, indexing="ij"), dim=-1)
    radius = ((index + 0.5) / 32.0 - 1.0).norm(dim=-1)
    grid.binary = (radius - 0.6).abs() < 0.03
    origins, directions = (t.reshape(-1, 3) for t in rays(orbit(math.pi / 5, 0.4), 24))
    ours, theirs = (f(origins, directions, grid, step_size=0.006) for f in (march, twin.march))
    assert abs(len(ours) - len(theirs)) <= 1e-4 * len(theirs)
