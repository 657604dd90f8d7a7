"""Reference implementation of `kernels.frustum` with torch's own `grid_sample`: slow, obvious, and its definition."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dreamcraft3d.kernels.frustum import FrustumView, Volume


def frustum_grid(
    cameras: Float[Tensor, "N 16"], pixels: Float[Tensor, "N R 2"], *, samples: int, reach: float
) -> tuple[Float[Tensor, "N K R 3"], Float[Tensor, "N K"]]:
    """Where samples lie in the reference's frustum (column, row, plane; [-1,1] inside), and their depths d."""
    matrix, (half, distance, half_reference, distance_reference) = cameras[:, :12], cameras[:, 12:].unbind(1)
    steps = (torch.arange(samples, device=cameras.device) + 0.5) / samples * 2.0 - 1.0
    d = distance[:, None] + reach * steps
    flat = pixels[:, None] * (half[:, None] * d)[:, :, None, None]
    points = torch.cat([flat, -d[:, :, None, None].expand_as(flat[..., :1]), torch.ones_like(flat[..., :1])], dim=-1)
    seen = torch.einsum("nij,nkrj->nkri", matrix.reshape(-1, 3, 4), points)
    z = -seen[..., 2]
    wide = half_reference[:, None, None] * z.clamp_min(1e-6)
    plane = (z - distance_reference[:, None, None]) / reach
    return torch.stack([seen[..., 0] / wide, -seen[..., 1] / wide, plane], dim=-1), d


def render_frustum(
    volume: Volume, cameras: Float[Tensor, "N 16"], pixels: Float[Tensor, "N R 2"], *, samples: int, reach: float,
    bias: float,
) -> FrustumView:  # fmt: skip
    """See `kernels.frustum.render_frustum`; samples of small weight count in full here."""
    grid, d = frustum_grid(cameras, pixels, samples=samples, reach=reach)
    cells = volume.permute(0, 4, 3, 1, 2).repeat_interleave(len(cameras) // len(volume), 0)
    found = functional.grid_sample(
        cells, grid[:, :, :, None], mode="bilinear", padding_mode="border", align_corners=False
    )[..., 0]
    alpha = torch.sigmoid(found[:, 0] + bias) * (grid.abs() <= 1.0).all(-1)
    ahead = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :1]), 1.0 - alpha[:, :-1]], dim=1), dim=1)
    weights = (alpha * ahead)[:, None]
    colour = (torch.sigmoid(found[:, 1:4]) * weights).sum(2).transpose(1, 2)
    features = (found[:, 4:] * weights).sum(2).transpose(1, 2)
    depth = (weights[:, 0] * d[:, :, None]).sum(1)[..., None]
    return FrustumView(weights.sum(2).transpose(1, 2), colour, features, depth)
