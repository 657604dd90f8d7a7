"""Occupancy grid and ray marching: which points of a ray are worth asking the field about (nerfacc; method 5.5).

Samples are packed: all samples of all rays in one array, sorted by ray. Ray r has the lattice t_k = near + (u_r + k)
Delta with a jitter u_r in [0,1); the segment [t_k, t_k + Delta] is a sample if its midpoint lies in the box, beyond
`near`, and in an occupied cell. No gradient flows through marching.

The CUDA path has never run on a GPU in our hands.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dreamcraft3d.kernels import accelerators, dispatch
from dreamcraft3d.kernels.marching_source import marching_kernels

WARM_UP_STEPS = 256
CHUNK = 1 << 18


@dataclass(frozen=True)
class Samples:
    """Segments of rays, packed.

    Attributes:
        t_starts, t_ends: distances along the ray, ascending within a ray.
        ray_indices: the ray of each sample, ascending.
        ray_offsets: ray r owns samples ray_offsets[r] : ray_offsets[r + 1].
    """

    t_starts: Float[Tensor, " M"]
    t_ends: Float[Tensor, " M"]
    ray_indices: Int[Tensor, " M"]
    ray_offsets: Int[Tensor, " R+1"]

    @property
    def n_rays(self) -> int:
        """Number of rays, with or without samples."""
        return len(self.ray_offsets) - 1

    def __len__(self) -> int:
        return len(self.t_starts)


class OccupancyGrid:
    """Which of resolution^3 cells of the box [-R, R]^3 may hold something; new grids are full.

    Attributes:
        values: decaying maximum of the occupancy function seen in each cell, indexed [x, y, z].
        binary: whether rays sample the cell.
    """

    def __init__(
        self, resolution: int = 32, *, half_extent: float = 1.0, device: torch.device | str | None = None
    ) -> None:
        if resolution < 1 or half_extent <= 0.0:
            raise ValueError(f"resolution and half_extent must be positive, got {resolution} and {half_extent}")
        self.resolution = resolution
        self.half_extent = half_extent
        self.values: Float[Tensor, "X Y Z"] = torch.zeros((resolution,) * 3, device=device)
        self.binary: Bool[Tensor, "X Y Z"] = torch.ones((resolution,) * 3, dtype=torch.bool, device=device)

    @torch.no_grad()
    def update(
        self,
        fn: Callable[[Float[Tensor, "N 3"]], Float[Tensor, " N"]],
        *,
        generator: torch.Generator | None,
        step: int,
        threshold: float = 0.01,
        decay: float = 0.95,
    ) -> None:
        """values <- max(decay values, fn(random point of the cell)); binary = values > min(mean(values), threshold).

        All cells while step < 256; later a quarter of the cells at random and as many occupied ones (all, if fewer).

        Args:
            fn: occupancy at world points, for instance density times step.
            generator: of the jitter and of the choice of cells.
        """
        cells = self._cells(generator, step)
        x = self._points(cells, generator)
        occupancy = torch.cat([fn(chunk).to(self.values.dtype) for chunk in torch.split(x, CHUNK)])
        values = self.values.view(-1).clone()
        values[cells] = decay * self.values.view(-1)[cells]
        values.scatter_reduce_(0, cells, occupancy, "amax")  # a cell drawn twice keeps its larger value
        self.values = values.view_as(self.values)
        self.binary = self.values > self.values.mean().clamp(max=threshold)

    def state_dict(self) -> dict[str, Tensor]:
        """The state tensors, for checkpoints."""
        return {"values": self.values, "binary": self.binary}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes over saved state tensors.

        Raises:
            ValueError: they belong to a grid of another resolution.
        """
        for name, present in self.state_dict().items():
            if state[name].shape != present.shape:
                raise ValueError(f"{name} must be {tuple(present.shape)}, got {tuple(state[name].shape)}")
            setattr(self, name, state[name].to(device=present.device, dtype=present.dtype).clone())

    def _cells(self, generator: torch.Generator | None, step: int) -> Int[Tensor, " N"]:
        total, device = self.resolution**3, self.values.device
        if step < WARM_UP_STEPS:
            return torch.arange(total, device=device)
        share = max(total // 4, 1)
        occupied = self.binary.view(-1).nonzero().squeeze(1)
        if len(occupied) > share:
            occupied = occupied[_random_integers(len(occupied), share, generator, device)]
        return torch.cat([_random_integers(total, share, generator, device), occupied])

    def _points(self, cells: Int[Tensor, " N"], generator: torch.Generator | None) -> Float[Tensor, "N 3"]:
        n = self.resolution
        corner = torch.stack([cells // (n * n), cells // n % n, cells % n], dim=1)
        jitter = _random(len(cells), 3, generator=generator, device=self.values.device)
        return ((corner + jitter) * (2.0 / n) - 1.0) * self.half_extent


def march(
    origins: Float[Tensor, "R 3"],
    directions: Float[Tensor, "R 3"],
    grid: OccupancyGrid,
    *,
    step_size: float,
    generator: torch.Generator | None = None,
    near: float = 0.0,
    max_samples_per_ray: int = 1024,
) -> Samples:
    """Constant steps through the occupied cells.

    Never empty: where no ray meets an occupied cell, ray 0 gets one segment of length zero at its point nearest to the
    centre, so that a training step has something to differentiate.

    Args:
        directions: of unit length.
        generator: jitters the start of each ray by up to one step; None does not, for reproducible pictures.
        near: nothing closer than this is sampled.
        max_samples_per_ray: later samples of a ray are left out.

    Raises:
        ValueError: no rays, or a step that is not positive.
    """
    if len(origins) == 0 or step_size <= 0.0:
        raise ValueError(f"march needs rays and a positive step, got {len(origins)} rays and step {step_size}")
    origins, directions = (ray.detach().float().contiguous() for ray in (origins, directions))
    starts = torch.full_like(origins[:, 0], near)
    if generator is not None:
        starts += step_size * _random(len(origins), generator=generator, device=origins.device)
    faster = accelerators.march_accelerator(origins.device) if dispatch.may_accelerate(origins.device) else None
    binary = grid.binary.to(origins.device).contiguous()
    t_starts, ray_indices, offsets = (faster or march_with_warp)(
        origins, directions, binary, starts, near, step_size, grid.half_extent, max_samples_per_ray
    )
    if len(t_starts) == 0:
        return _placeholder(origins, directions, near)
    return Samples(t_starts, t_starts + step_size, ray_indices, offsets)


def march_with_warp(
    origins: Tensor,
    directions: Tensor,
    binary: Tensor,
    starts: Tensor,
    near: float,
    step: float,
    half_extent: float,
    limit: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Our own kernels, whatever accelerators there are: start and ray of each sample, first sample of each ray.

    One pass counts and one writes.
    """
    kernels, rays, device = marching_kernels(), len(origins), origins.device
    vec3 = dispatch.warp().vec3
    o, d, s = dispatch.view(origins, vec3), dispatch.view(directions, vec3), dispatch.view(starts)
    where = [near, step, half_extent, dispatch.view(binary.view(torch.uint8)), *_bounds(binary)]
    offsets = torch.zeros(rays + 1, dtype=torch.long, device=device)
    counts = dispatch.view(offsets[1:])

    def count(first: int, number: int) -> None:
        dispatch.launch(kernels.count, number, [o, d, s, *where, limit, first, counts, s])

    dispatch.in_ranges(device, rays, count)
    torch.cumsum(offsets[1:], 0, out=offsets[1:])
    total = int(offsets[-1])
    t_starts, ray_indices = starts.new_empty(total), offsets.new_empty(total)
    at, t, index = dispatch.view(offsets), dispatch.view(t_starts), dispatch.view(ray_indices)

    def write(first: int, number: int) -> None:
        dispatch.launch(kernels.write, number, [o, d, s, *where, first, at, t, index])

    if total:
        dispatch.in_ranges(device, rays, write)
    return t_starts, ray_indices, offsets


def _bounds(binary: Bool[Tensor, "X Y Z"]) -> tuple[Any, Any]:
    """Lowest and highest corner of the occupied cells' bounding box, in cells; empty (high = low) if there are none."""
    vec3 = dispatch.warp().vec3
    planes = binary.any(dim=2)
    hits = [planes.any(dim=1), planes.any(dim=0), binary.any(dim=0).any(dim=0)]
    cells = [axis.nonzero().squeeze(1).tolist() or [0, -1] for axis in hits]
    return vec3(*(float(axis[0]) for axis in cells)), vec3(*(float(axis[-1] + 1) for axis in cells))


def _placeholder(origins: Tensor, directions: Tensor, near: float) -> Samples:
    t = (-(origins[:1] * directions[:1]).sum(dim=1)).clamp_min(near)
    offsets = torch.ones(len(origins) + 1, dtype=torch.long, device=origins.device)
    offsets[0] = 0
    return Samples(t, t.clone(), torch.zeros_like(offsets[:1]), offsets)


def _random(*size: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Uniform in [0,1), drawn where the generator lives: one on the CPU gives the same numbers for every device."""
    return torch.rand(size, generator=generator, device=generator.device if generator else device).to(device)


def _random_integers(high: int, count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    source = generator.device if generator else device
    return torch.randint(high, (count,), generator=generator, device=source).to(device)
