"""Twin of `kernels/marching.py`: every lattice point of every ray is tested, in one dense array. Letters as there."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from dreamcraft3d.kernels.marching import OccupancyGrid, Samples


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
    """Constant steps through the occupied cells; ray 0 gets a segment of length zero if there are none at all."""
    half, n = grid.half_extent, grid.resolution
    start = torch.full_like(origins[:, 0], near)
    if generator is not None:
        start = start + step_size * torch.rand(len(origins), generator=generator, device=origins.device)
    farthest = float(origins.norm(dim=1).max()) + math.sqrt(3.0) * half
    k = torch.arange(math.ceil((farthest - near) / step_size) + 1, device=origins.device)
    t = start[:, None] + k * step_size
    middle = (origins[:, None] + (t + 0.5 * step_size)[..., None] * directions[:, None]) / half
    cell = ((middle + 1.0) / 2.0 * n).floor().long().clamp(0, n - 1)
    keep = (middle.abs() <= 1.0).all(dim=-1) & grid.binary[cell[..., 0], cell[..., 1], cell[..., 2]]
    keep &= keep.cumsum(dim=1) <= max_samples_per_ray
    ray_indices = torch.nonzero(keep)[:, 0]
    offsets = torch.cat([ray_indices.new_zeros(1), keep.sum(dim=1).cumsum(0)])
    if len(ray_indices) == 0:
        nearest = (-(origins[0] * directions[0]).sum()).clamp_min(near)[None]
        return Samples(nearest, nearest, ray_indices.new_zeros(1), (offsets + 1).index_fill(0, offsets.new_zeros(1), 0))
    return Samples(t[keep], t[keep] + step_size, ray_indices, offsets)
