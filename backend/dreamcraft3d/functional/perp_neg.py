"""Directions in words: which name a view has, and how guidance leads away from the names of other views (Perp-Neg).

A text prior shown the back of a bird would rather see a face. So the unwanted directions are negative prompts, of
which only the part perpendicular to the wanted one counts (Armandpour et al. 2023; method sections 6.1 and 6.2).

Letters: e elevation, a azimuth from the reference view (radians), eps_0 unconditional noise, d = eps - eps_0.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["DIRECTIONS", "Blend", "blend_directions", "direction_of", "perp_neg_guidance", "perpendicular"]

DIRECTIONS = ("side", "front", "back", "overhead")
SIDE, FRONT, BACK, OVERHEAD = range(4)
OVERHEAD_ABOVE = math.radians(60.0)
Noise = Float[Tensor, "B C h w"]


@dataclass(frozen=True)
class Blend:
    """How views are named.

    Attributes:
        positive: shares of `DIRECTIONS` in the wanted prompt. negatives: two directions to lead away from, with their
        `weights` (zero or below).
    """

    positive: Float[Tensor, "B 4"]
    negatives: Int[Tensor, "B 2"]
    weights: Float[Tensor, "B 2"]


def direction_of(
    elevation: Float[Tensor, " B"],
    azimuth: Float[Tensor, " B"],
    *,
    front: float = math.radians(45.0),
    back: float = math.radians(45.0),
) -> Int[Tensor, " B"]:
    """Index into `DIRECTIONS`: overhead above 60 degrees, front and back within these angles, side elsewhere."""
    away = _from_front(azimuth)
    direction = torch.full(azimuth.shape, SIDE, dtype=torch.int64, device=azimuth.device)
    direction[away < front] = FRONT
    direction[away > math.pi - back] = BACK
    direction[elevation > OVERHEAD_ABOVE] = OVERHEAD
    return direction


def blend_directions(elevation: Float[Tensor, " B"], azimuth: Float[Tensor, " B"]) -> Blend:
    """Smoothly from front over side to back, with the weights of the release: h(r) = A exp(-r/2) + C."""
    away = _from_front(azimuth) / (0.5 * math.pi)
    ahead = away < 1.0
    r = torch.where(ahead, 1.0 - away, 2.0 - away).clamp(0.0, 1.0)
    positive = torch.zeros(len(azimuth), 4, device=azimuth.device)
    positive[:, FRONT] = torch.where(ahead, r, 0.0)
    positive[:, SIDE] = torch.where(ahead, 1.0 - r, r)
    positive[:, BACK] = torch.where(ahead, 0.0, 1.0 - r)
    towards_front = torch.stack([-_h(4.0, -2.426, r), -_h(4.0, -2.426, 1.0 - r)], dim=1)
    towards_back = torch.stack([-_h(1.0, -0.606, r), -_h(1.0, 0.967, r)], dim=1)
    weights = torch.where(ahead[:, None], towards_front, towards_back)
    pair = torch.tensor([[SIDE, FRONT], [FRONT, SIDE]], device=azimuth.device)
    above = elevation > OVERHEAD_ABOVE
    positive[above] = torch.nn.functional.one_hot(torch.tensor(OVERHEAD), 4).to(positive)
    return Blend(positive, pair[ahead.long()], torch.where(above[:, None], 0.0, weights))


def perpendicular(x: Noise, y: Noise) -> Noise:
    """x without its part along y, picture by picture: x - (<x, y> / max(<y, y>, 1e-6)) y."""
    along = (x * y).sum(dim=(1, 2, 3), keepdim=True) / y.square().sum(dim=(1, 2, 3), keepdim=True).clamp_min(1e-6)
    return x - along * y


def perp_neg_guidance(
    unconditional: Noise, positive: Noise, negatives: tuple[Noise, ...], weights: Float[Tensor, "B N"], scale: float
) -> Noise:
    """eps_0 + s (d_pos + sum_i w_i perp(d_i, d_pos)); without negatives the one guidance formula of this package."""
    wanted = positive - unconditional
    lead = wanted
    for negative, weight in zip(negatives, weights.unbind(dim=1), strict=True):
        lead = lead + weight.reshape(-1, 1, 1, 1) * perpendicular(negative - unconditional, wanted)
    return unconditional + scale * lead


def _h(a: float, c: float, r: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    return a * torch.exp(-0.5 * r) + c


def _from_front(azimuth: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """|a| after wrapping to (-pi, pi]."""
    return (torch.remainder(azimuth + math.pi, 2.0 * math.pi) - math.pi).abs()
