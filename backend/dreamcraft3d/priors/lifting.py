"""Lifts a picture into a volume of features and looks at it from another camera.

A small picture-to-picture network that must turn an object has to learn perspective from examples, pixel by pixel.
Here the turning is geometry, not learning: the encoder fills a volume that lies in the frustum of the reference camera
(columns are pixels, depth is channels), the volume is sampled along the rays of the wanted camera, and the samples are
composited front to back (transformable bottleneck networks, Olszewski et al. 2019; emission-absorption as in the
NeRF stage). What the reference does not show has to be guessed by the encoder; that is all that is left to learn.

Letters: B references, N views, C channels of the volume [opacity logit, rgb logits, features], D depth planes, h w
pixels of the volume; picture coordinates u right, v up in [-1,1].
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from dreamcraft3d.functional.cameras import DISTANCE, FOVY, orbit
from dreamcraft3d.priors.base import Estimate

REACH = 0.72  # half the depth of the volume: no object of the prior's world is larger
OPACITY_BIAS = -4.0  # cells start almost empty

Picture = Float[Tensor, "B 4 H W"]


@dataclass(frozen=True)
class ReferenceCode:
    """What the network remembers of B references: a volume, tokens for cross-attention, the cameras' elevations."""

    volume: Float[Tensor, "B C D h w"]
    tokens: Float[Tensor, "B N E"]
    elevation: Float[Tensor, " B"]

    def repeat(self, count: int) -> "ReferenceCode":
        """Every code `count` times in a row."""
        fields = (self.volume, self.tokens, self.elevation)
        return ReferenceCode(*(field.repeat_interleave(count, 0) for field in fields))

    def __getitem__(self, index: slice) -> "ReferenceCode":
        return ReferenceCode(self.volume[index], self.tokens[index], self.elevation[index])


@dataclass(frozen=True)
class Look:
    """The volume as N cameras see it: premultiplied `rgba` in [0,1], expected `depth` times opacity, features."""

    rgba: Float[Tensor, "N 4 h w"]
    depth: Float[Tensor, "N 1 h w"]
    features: Float[Tensor, "N F h w"]


def positions(size: int) -> Float[Tensor, "1 8 size size"]:
    """Sines and cosines of column and row: tells a convolution where it is."""
    centre = (torch.arange(size) + 0.5) / size * 2.0 - 1.0
    y, x = torch.meshgrid(centre, centre, indexing="ij")
    waves = [wave(k * math.pi / 2 * axis) for axis in (x, y) for k in (1, 2) for wave in (torch.sin, torch.cos)]
    return torch.stack(waves)[None]


def frustum_grid(
    elevation: Float[Tensor, " N"],
    azimuth: Float[Tensor, " N"],
    reference_elevation: Float[Tensor, " N"],
    *,
    size: int,
    planes: int,
) -> Float[Tensor, "N D h w 3"]:
    """Where the samples along the wanted cameras' rays lie in the reference's frustum, in `grid_sample` coordinates
    (column, row, depth; [-1,1] inside)."""
    half = math.tan(0.5 * FOVY)
    across = (torch.arange(size, device=elevation.device) + 0.5) / size * 2.0 - 1.0
    away = DISTANCE + REACH * ((torch.arange(planes, device=elevation.device) + 0.5) / planes * 2.0 - 1.0)
    d, v, u = torch.meshgrid(away, -across, across, indexing="ij")
    points = torch.stack([u * half * d, v * half * d, -d, torch.ones_like(d)], dim=-1)
    to_reference = orbit(reference_elevation, 0.0).w2c @ orbit(elevation, azimuth).c2w
    seen = torch.einsum("nij,dhwj->ndhwi", to_reference[:, :3], points)
    depth = -seen[..., 2]
    return torch.stack(
        [seen[..., 0] / (half * depth), -seen[..., 1] / (half * depth), (depth - DISTANCE) / REACH], dim=-1
    )


def look(volume: Float[Tensor, "N C D h w"], grid: Float[Tensor, "N K H W 3"]) -> Look:
    """Samples the volume and composites it: w_k = alpha_k prod_{j<k} (1 - alpha_j)."""
    samples = functional.grid_sample(volume, grid, mode="bilinear", padding_mode="border", align_corners=False)
    inside = (grid.abs() <= 1.0).all(-1)
    alpha = torch.sigmoid(samples[:, 0] + OPACITY_BIAS) * inside
    ahead = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :1]), 1.0 - alpha[:, :-1]], dim=1), dim=1)
    weights = (alpha * ahead)[:, None]
    planes = grid.shape[1]
    away = DISTANCE + REACH * ((torch.arange(planes, device=grid.device) + 0.5) / planes * 2.0 - 1.0)
    colour = (torch.sigmoid(samples[:, 1:4]) * weights).sum(2)
    depth = (weights * away[:, None, None]).sum(2)
    return Look(torch.cat([colour, weights.sum(2)], dim=1), depth, (samples[:, 4:] * weights).sum(2))


class ResidualBlock(nn.Module):
    """Two normalised 3 x 3 convolutions beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.layers(x)
        return result


class LiftingEncoder(nn.Module):
    """A reference picture to a volume, tokens, and an estimate of its depth and normals.

    A U of three scales (32, 16 and 8 cells a side); the coarsest attends globally, so that a hidden side can be
    copied from a visible one.
    """

    def __init__(self, *, widths: tuple[int, int, int], planes: int, features: int) -> None:
        super().__init__()
        fine, middle, coarse = widths
        self.planes, self.channels = planes, 4 + features
        self.stem = nn.Conv2d(16 + 8 + 2, fine, 3, padding=1)
        self.fine = ResidualBlock(fine)
        self.down_middle = nn.Conv2d(fine, middle, 4, stride=2, padding=1)
        self.middle = nn.Sequential(ResidualBlock(middle), ResidualBlock(middle))
        self.down_coarse = nn.Conv2d(middle, coarse, 4, stride=2, padding=1)
        self.place = nn.Parameter(torch.randn(1, 64, coarse) * 0.02)
        layer = nn.TransformerEncoderLayer(
            coarse, max(coarse // 32, 1), 3 * coarse, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.attend = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(coarse)
        self.up_middle = nn.Conv2d(coarse, 4 * middle, 1)
        self.join_middle = nn.Sequential(nn.Conv2d(2 * middle, middle, 1), ResidualBlock(middle))
        self.up_fine = nn.Conv2d(middle, 4 * 64, 1)
        self.join_fine = nn.Sequential(nn.Conv2d(64 + fine, 64, 1), ResidualBlock(64), nn.GroupNorm(8, 64), nn.SiLU())
        self.to_volume = nn.Conv2d(64, planes * self.channels, 1)
        self.to_surface = nn.Conv2d(64, 4 * 4, 3, padding=1)
        self.register_buffer("positions", positions(32), persistent=False)
        self.positions: Tensor

    def forward(self, reference: Picture, elevation: Float[Tensor, " B"]) -> tuple[ReferenceCode, Estimate]:
        batch = len(reference)
        tilt = torch.stack([torch.sin(elevation), torch.sin(2.0 * elevation)], dim=1)[:, :, None, None]
        parts = [functional.pixel_unshuffle(reference, 2), self.positions.expand(batch, -1, -1, -1)]
        stacked = torch.cat([*parts, tilt.expand(-1, -1, 32, 32)], dim=1)
        fine = self.fine(self.stem(stacked.contiguous(memory_format=torch.channels_last)))
        middle = self.middle(self.down_middle(fine))
        coarse = self.down_coarse(middle).flatten(2).transpose(1, 2) + self.place
        tokens = self.norm(self.attend(coarse))
        square = tokens.transpose(1, 2).reshape(batch, -1, 8, 8)
        middle = self.join_middle(torch.cat([functional.pixel_shuffle(self.up_middle(square), 2), middle], dim=1))
        fine = self.join_fine(torch.cat([functional.pixel_shuffle(self.up_fine(middle), 2), fine], dim=1))
        volume = self.to_volume(fine).float().reshape(batch, self.planes, self.channels, 32, 32).transpose(1, 2)
        surface = functional.pixel_shuffle(self.to_surface(fine).float(), 2)
        estimate = Estimate(DISTANCE + surface[:, :1], functional.normalize(surface[:, 1:], dim=1, eps=1e-6))
        return ReferenceCode(volume.contiguous(), tokens.float(), elevation), estimate
