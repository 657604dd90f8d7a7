"""Lifts a picture into a volume of features and renders it from another camera.

A small image-to-image network that must turn an object has to learn perspective from examples, pixel by pixel. Here
the turning is geometry, not learning: the encoder fills a volume that lies in the frustum of the reference camera
(columns are pixels, depth is channels), and the volume is rendered from the wanted camera (`kernels.frustum`). What the
reference does not show has to be guessed by the encoder; that is all that is left to learn.

Beside what is rendered, each cell has an occupancy: the probability that it lies inside the object. It is supervised
directly, and its level set at 1/2 is the surface to start from; the opacities that are rendered may be softer where the
encoder is unsure.

Letters: B references, N views, C channels of the volume [opacity logit, colour logits, features], D depth planes, h w
pixels of the volume.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from dreamcraft3d.functional.cameras import FOVY, Cameras, framing_cameras, framing_distance
from dreamcraft3d.kernels.frustum import pixel_centres, relative_cameras, render_frustum
from dreamcraft3d.priors.base import Estimate

REACH = 0.72  # half the depth of the volume, world units: no object of the training set is larger
OPACITY_BIAS = -4.0  # cells start almost empty
ESTIMATE_SIZE = 64  # pixels of estimated depth and normals
CAMERA_SIZE = 128  # pixels of the picture that the camera is guessed from

Picture = Float[Tensor, "B 4 H W"]


@dataclass(frozen=True)
class ReferenceCode:
    """What the network remembers of B references.

    Attributes:
        volume: cells in the reference frustum, rows from the top, planes from the nearest.
        occupancy: logits of the cells. tokens: for cross-attention.
        elevation, fovy: of the reference cameras, radians.
    """

    volume: Float[Tensor, "B h w D C"]
    occupancy: Float[Tensor, "B h w D"]
    tokens: Float[Tensor, "B N E"]
    elevation: Float[Tensor, " B"]
    fovy: Float[Tensor, " B"]

    @property
    def cameras(self) -> Cameras:
        """The reference cameras."""
        return framing_cameras(self.elevation, torch.zeros_like(self.elevation), self.fovy)

    def __getitem__(self, index: slice | Tensor) -> "ReferenceCode":
        return ReferenceCode(*(field[index] for field in vars(self).values()))


@dataclass(frozen=True)
class Look:
    """The volume as N cameras see it: premultiplied `rgba` in [0,1], expected `depth` times opacity, features."""

    rgba: Float[Tensor, "N 4 h w"]
    depth: Float[Tensor, "N 1 h w"]
    features: Float[Tensor, "N F h w"]

    def __getitem__(self, index: slice | Tensor) -> "Look":
        return Look(*(field[index] for field in vars(self).values()))


def look(code: ReferenceCode, wanted: Cameras, *, size: int, pixels: Float[Tensor, "N R 2"] | None = None) -> Look:
    """Render the codes from N = B T cameras, T for each code in turn.

    `pixels`: rays of a picture of `size` x `size` (`kernels.frustum.pixel_centres`); by default those of all its
    pixels.
    """
    repeats = len(wanted) // len(code.volume)
    reference = code.cameras
    rows = torch.arange(len(code.volume), device=code.volume.device).repeat_interleave(repeats)
    if pixels is None:
        pixels = pixel_centres(size, code.volume.device).expand(len(wanted), -1, -1)
    cameras = relative_cameras(wanted, reference[rows])
    seen = render_frustum(code.volume, cameras, pixels, samples=code.volume.shape[3], reach=REACH, bias=OPACITY_BIAS)
    fields = torch.cat([seen.colour, seen.opacity, seen.depth, seen.features], dim=-1).transpose(1, 2)
    picture = fields.unflatten(2, (size, size)).contiguous()
    return Look(picture[:, :4], picture[:, 4:5], picture[:, 5:])


def positions(size: int) -> Float[Tensor, "1 8 size size"]:
    """Sines and cosines of column and row: tells a convolution where it is."""
    centre = (torch.arange(size) + 0.5) / size * 2.0 - 1.0
    y, x = torch.meshgrid(centre, centre, indexing="ij")
    waves = [wave(k * torch.pi / 2 * axis) for axis in (x, y) for k in (1, 2) for wave in (torch.sin, torch.cos)]
    return torch.stack(waves)[None]


def lens_features(elevation: Float[Tensor, " B"], fovy: Float[Tensor, " B"]) -> Float[Tensor, "B 3"]:
    """Smooth features of a camera's elevation and field of view."""
    return torch.stack([torch.sin(elevation), torch.sin(2.0 * elevation), torch.log(fovy / FOVY)], dim=1)


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


class TransformerBlock(nn.Module):
    """Pre-normalised self-attention and a two-layer perceptron, each beside the identity.

    Attention is written out: at a few hundred tokens two matrix products are several times as fast in bfloat16 on a CPU
    as the fused operation, forward and backward.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(width // 32, 1)
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)

    def forward(self, x: Float[Tensor, "B N E"]) -> Float[Tensor, "B N E"]:
        batch, count, width = x.shape
        qkv = self.qkv(self.before_attention(x)).reshape(batch, count, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        mixed = (scores.softmax(-1).to(v.dtype) @ v).transpose(1, 2).reshape(batch, count, width)
        x = x + self.out(mixed)
        result: Tensor = x + self.down(functional.gelu(self.up(self.before_mlp(x))))
        return result


class LiftingEncoder(nn.Module):
    """A reference picture to a volume, tokens, and an estimate of its depth and normals.

    A U of three scales (of a picture of 128 pixels: 64, 32 and 16 cells a side); the coarsest attends globally, so that
    a hidden side can be copied from a visible one. With `supervised`, occupancy has a head of its own, and colours are
    corrections of the picture's own, laid along its rays; without, the volume's opacity stands for its occupancy.
    """

    def __init__(
        self,
        *,
        reference_size: int,
        widths: tuple[int, int, int],
        decoder: int,
        blocks: int,
        planes: int,
        features: int,
        supervised: bool,
    ) -> None:
        super().__init__()
        fine, middle, coarse = widths
        self.planes, self.channels, self.supervised = planes, 4 + features, supervised
        side = reference_size // 2
        self.enlargement = ESTIMATE_SIZE // side
        self.stem = nn.Conv2d(16 + 8 + 3, fine, 3, padding=1)
        self.fine = ResidualBlock(fine)
        self.down_middle = nn.Conv2d(fine, middle, 4, stride=2, padding=1)
        self.middle = nn.Sequential(ResidualBlock(middle), ResidualBlock(middle))
        self.down_coarse = nn.Conv2d(middle, coarse, 4, stride=2, padding=1)
        self.place = nn.Parameter(torch.randn(1, (side // 4) ** 2, coarse) * 0.02)
        self.attend = nn.Sequential(*(TransformerBlock(coarse) for _ in range(blocks)))
        self.norm = nn.LayerNorm(coarse)
        self.up_middle = nn.Conv2d(coarse, 4 * middle, 1)
        self.join_middle = nn.Sequential(nn.Conv2d(2 * middle, middle, 1), ResidualBlock(middle))
        self.up_fine = nn.Conv2d(middle, 4 * decoder, 1)
        self.join_fine = nn.Sequential(
            nn.Conv2d(decoder + fine, decoder, 1), ResidualBlock(decoder), nn.GroupNorm(8, decoder), nn.SiLU()
        )
        self.to_volume = nn.Conv2d(decoder, planes * self.channels, 1)
        self.to_occupancy = nn.Conv2d(decoder, planes, 1) if supervised else None
        self.to_surface = nn.Conv2d(decoder, 4 * self.enlargement**2, 3, padding=1)
        self.register_buffer("positions", positions(side), persistent=False)
        self.positions: Tensor

    def forward(
        self, reference: Picture, elevation: Float[Tensor, " B"], fovy: Float[Tensor, " B"]
    ) -> tuple[ReferenceCode, Estimate]:
        """Encode references (x = 2 rgba - 1) whose cameras are known (radians)."""
        fine, middle = self._convolved(reference, elevation, fovy)
        coarse = self.down_coarse(middle)
        tokens = self.norm(self.attend(coarse.flatten(2).transpose(1, 2) + self.place))
        square = tokens.transpose(1, 2).reshape(coarse.shape)
        middle = self.join_middle(torch.cat([functional.pixel_shuffle(self.up_middle(square), 2), middle], dim=1))
        fine = self.join_fine(torch.cat([functional.pixel_shuffle(self.up_fine(middle), 2), fine], dim=1))
        volume = self.to_volume(fine).float().permute(0, 2, 3, 1).unflatten(3, (self.planes, self.channels))
        if self.to_occupancy is None:
            occupancy = volume[..., 0] + OPACITY_BIAS
        else:
            volume = volume + functional.pad(picture_logits(reference)[:, :, :, None], (1, self.channels - 4))
            occupancy = self.to_occupancy(fine).float().permute(0, 2, 3, 1) + OPACITY_BIAS
        surface = functional.pixel_shuffle(self.to_surface(fine).float(), self.enlargement)
        depth = framing_distance(fovy)[:, None, None, None] + surface[:, :1]
        estimate = Estimate(depth, functional.normalize(surface[:, 1:], dim=1, eps=1e-6))
        return ReferenceCode(volume, occupancy, tokens.float(), elevation, fovy), estimate

    def _convolved(self, reference: Picture, elevation: Tensor, fovy: Tensor) -> tuple[Tensor, Tensor]:
        """Local features at the two finer scales."""
        folded = functional.pixel_unshuffle(reference, 2)
        lens = lens_features(elevation, fovy)[:, :, None, None].expand(-1, -1, *folded.shape[2:])
        stacked = torch.cat([folded, self.positions.expand(len(reference), -1, -1, -1), lens], dim=1)
        fine = self.fine(self.stem(stacked.contiguous(memory_format=torch.channels_last)))
        return fine, self.middle(self.down_middle(fine))


def picture_logits(reference: Picture) -> Float[Tensor, "B h w 3"]:
    """Logits of the picture's straight colours at half its size; where it is transparent, of its mean colour."""
    rgba = functional.avg_pool2d(0.5 * (reference + 1.0), 2)
    total = rgba.mean((2, 3), keepdim=True)
    mean = total[:, :3] / total[:, 3:].clamp_min(1e-3)
    straight = (rgba[:, :3] + 0.02 * mean) / (rgba[:, 3:] + 0.02)
    return torch.logit(straight.clamp(0.03, 0.97)).permute(0, 2, 3, 1)


class CameraEstimator(nn.Module):
    """Guesses elevation and field of view (radians) of a reference picture: a few strided convolutions."""

    SCALE = (0.3, 0.35)  # of what the last layer says: radians of elevation, and of log(fovy / FOVY)

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128, 192)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((4, *widths), widths, strict=False):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], widths[-1], 3, padding=1), nn.SiLU())
        self.out = nn.Linear(widths[-1], 2)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, reference: Picture) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        """Elevation and field of view of pictures x = 2 rgba - 1 of CAMERA_SIZE pixels a side."""
        small = functional.avg_pool2d(reference, 2)
        said: Any = self.out(self.layers(small).float().mean((2, 3)))
        return self.SCALE[0] * said[:, 0], FOVY * torch.exp(self.SCALE[1] * said[:, 1])
