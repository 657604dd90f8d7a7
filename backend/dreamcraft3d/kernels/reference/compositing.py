"""Twin of `kernels/compositing.py`: rays padded to equal length, then cumulative products and sums of plain torch."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def render_weights(alphas: Float[Tensor, " M"], ray_offsets: Int[Tensor, " R+1"]) -> Float[Tensor, " M"]:
    """w_i = alpha_i prod_{j<i} (1 - alpha_j) within each ray."""
    slots = _slots(ray_offsets)
    padded = alphas.new_zeros(slots.shape).masked_scatter(slots, alphas)
    passed = torch.cumprod(1.0 - padded, dim=1)
    before = torch.cat([torch.ones_like(passed[:, :1]), passed[:, :-1]], dim=1)
    return (padded * before)[slots]


def accumulate(
    weights: Float[Tensor, " M"], values: Float[Tensor, "M C"] | None, ray_offsets: Int[Tensor, " R+1"]
) -> Float[Tensor, "R C"]:
    """sum of w_i v_i over each ray; without values the sum of the weights (C = 1)."""
    products = weights[:, None] if values is None else weights[:, None] * values
    rays = len(ray_offsets) - 1
    ray_indices = torch.repeat_interleave(torch.arange(rays, device=weights.device), ray_offsets.diff())
    return products.new_zeros(rays, products.shape[1]).index_add(0, ray_indices, products)


def _slots(ray_offsets: Int[Tensor, " R+1"]) -> Bool[Tensor, "R K"]:
    """True where a padded ray has a sample."""
    counts = ray_offsets.diff()
    longest = max(int(counts.max()), 1)
    return torch.arange(longest, device=counts.device) < counts[:, None]
