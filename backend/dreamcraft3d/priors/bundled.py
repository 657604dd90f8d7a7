"""The prior that ships with the package: a small view-conditioned denoiser of 64 x 64 RGBA pictures of simple objects.

It is trained by `dreamcraft3d.training` on procedural objects (model card: docs/bundled-prior.md). The network
predicts the clean picture x0; noise predictions follow from it. A reference encoder runs once per reference; the
U-Net sees its feature map beside the noisy view and its tokens through cross-attention, and the relative camera
through the time embedding. The reference of the unconditional branch is the empty picture. The U-Net is diffusers'
own class, so that PEFT adapters attach to `network.unet`.

Letters: x = 2 rgba - 1 (premultiplied, B 4 64 64), x_t the noisy view, t timestep, P size of the pose vector.
"""

import itertools
import json
import math
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from dreamcraft3d.errors import DreamCraftError
from dreamcraft3d.functional.diffusion import (
    classifier_free_guidance,
    cosine_alphas_cumprod,
    signal_and_noise_rates,
    x0_to_noise,
)
from dreamcraft3d.priors.base import Content, ViewCondition, resize_area

WEIGHTS = "bundled.safetensors"
PATCH = 4  # pixels are folded into channels: 64 x 64 x 4 -> 16 x 16 x 64
POSE = 16
FOURIER = 8  # channels that tell a convolution where it is

Picture = Float[Tensor, "B 4 H W"]


@dataclass(frozen=True)
class ReferenceCode:
    """What the network remembers of B references: a feature map and tokens for cross-attention."""

    features: Float[Tensor, "B C h w"]
    tokens: Float[Tensor, "B N D"]

    def expand(self, batch: int) -> "ReferenceCode":
        """The code of one reference, repeated."""
        return ReferenceCode(self.features.expand(batch, -1, -1, -1), self.tokens.expand(batch, -1, -1))


def pose_vector(
    elevation: Float[Tensor, " B"], azimuth: Float[Tensor, " B"], reference_elevation: Float[Tensor, " B"]
) -> Float[Tensor, "B P"]:
    """Smooth periodic features of the relative camera (radians)."""
    turns = [wave(k * azimuth) for k in (1, 2, 3, 4) for wave in (torch.sin, torch.cos)]
    rises = [2 * elevation, torch.sin(4 * elevation), torch.cos(4 * elevation)]
    starts = [2 * reference_elevation, torch.sin(4 * reference_elevation), torch.cos(4 * reference_elevation)]
    rest = [2 * (elevation - reference_elevation), torch.ones_like(elevation)]
    return torch.stack([*turns, *rises, *starts, *rest], dim=-1)


def _positions(size: int) -> Float[Tensor, "1 F h w"]:
    """Sines and cosines of column and row."""
    centre = (torch.arange(size) + 0.5) / size * 2.0 - 1.0
    y, x = torch.meshgrid(centre, centre, indexing="ij")
    waves = [wave(k * math.pi / 2 * axis) for axis in (x, y) for k in (1, 2) for wave in (torch.sin, torch.cos)]
    return torch.stack(waves)[None]


class _ResidualBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.layers(x)
        return result


class ReferenceEncoder(nn.Module):
    """The reference picture to a 16 x 16 feature map and 64 tokens."""

    def __init__(self, *, features: int, width: int, tokens: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4 * PATCH**2 + FOURIER, width, 3, padding=1)
        self.body = nn.Sequential(_ResidualBlock(width), _ResidualBlock(width))
        self.to_features = nn.Conv2d(width, features, 1)
        self.down = nn.Sequential(nn.Conv2d(width, tokens, 3, stride=2, padding=1), _ResidualBlock(tokens))
        self.norm = nn.LayerNorm(tokens)
        self.place = nn.Parameter(torch.randn(1, 64, tokens) * 0.02)
        self.register_buffer("positions", _positions(64 // PATCH), persistent=False)
        self.positions: Tensor

    def forward(self, reference: Picture) -> ReferenceCode:
        folded = functional.pixel_unshuffle(reference, PATCH)
        positions = self.positions.expand(len(reference), -1, -1, -1)
        hidden = self.body(self.stem(torch.cat([folded, positions], dim=1)))
        tokens = self.norm(self.down(hidden).flatten(2).transpose(1, 2)) + self.place
        return ReferenceCode(self.to_features(hidden), tokens)


class BundledNetwork(nn.Module):
    """x0_hat(x_t, t, reference, pose)."""

    def __init__(
        self,
        *,
        channels: tuple[int, ...] = (96, 128),
        features: int = 48,
        encoder_width: int = 64,
        embedding: int = 192,
    ) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {
            "channels": list(channels), "features": features, "encoder_width": encoder_width, "embedding": embedding,
        }  # fmt: skip
        folded = 4 * PATCH**2
        self.encoder = ReferenceEncoder(features=features, width=encoder_width, tokens=channels[0])
        self.unet: Any = UNet2DConditionModel(  # type: ignore[no-untyped-call]
            sample_size=64 // PATCH,
            in_channels=folded + features + FOURIER,
            out_channels=folded,
            block_out_channels=channels,
            down_block_types=("CrossAttnDownBlock2D",) * len(channels),
            up_block_types=("CrossAttnUpBlock2D",) * len(channels),
            mid_block_type=None,
            layers_per_block=1,
            attention_head_dim=4,  # heads, whatever its name says
            cross_attention_dim=channels[0],
            norm_num_groups=16,
            time_embedding_dim=embedding,
            resnet_time_scale_shift="scale_shift",
            class_embed_type="projection",
            projection_class_embeddings_input_dim=POSE,
        )
        self.register_buffer("positions", _positions(64 // PATCH), persistent=False)
        self.positions: Tensor

    def forward(self, x_t: Picture, t: Int[Tensor, " B"], code: ReferenceCode, pose: Float[Tensor, "B P"]) -> Picture:
        """The clean picture expected behind x_t."""
        positions = self.positions.expand(len(x_t), -1, -1, -1)
        stacked = torch.cat([functional.pixel_unshuffle(x_t, PATCH), code.features, positions], dim=1)
        stacked = stacked.contiguous(memory_format=torch.channels_last)
        folded = self.unet(stacked, t, code.tokens, class_labels=pose, return_dict=False)[0]
        return functional.pixel_shuffle(folded.contiguous(), PATCH)


def channels_last(network: BundledNetwork) -> BundledNetwork:
    """The network with the memory layout that convolutions like best on the CPU."""
    fast: BundledNetwork = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return fast


class BundledPrior:
    """The bundled network as a `DiffusionPrior`."""

    name = "bundled"
    image_size = 64
    contents = frozenset[Content]({"rgba"})

    def __init__(self, network: BundledNetwork) -> None:
        self.network = channels_last(network.eval().requires_grad_(False))
        self.alphas_cumprod = cosine_alphas_cumprod()
        self.evaluations = 0
        self._remembered: tuple[Tensor, ReferenceCode] | None = None

    @classmethod
    def load(cls, path: Path | None = None, *, device: torch.device | str = "cpu") -> "BundledPrior":
        """The prior with the package's weights, or with those of `path` (see `training.train.export_weights`).

        Raises:
            DreamCraftError: the weights are missing.
        """
        from safetensors import safe_open

        file = path or Path(str(resources.files("dreamcraft3d.priors") / "weights" / WEIGHTS))
        if not file.is_file():
            raise DreamCraftError(
                f"the weights of the bundled prior are missing: {file.name}",
                remedy="reinstall the package, or train them with `dreamcraft3d train-prior --minutes 90`",
            )
        with safe_open(str(file), framework="pt") as archive:
            settings = json.loads(archive.metadata()["network"])
            state = {name: archive.get_tensor(name).float() for name in archive.keys()}  # noqa: SIM118
        network = BundledNetwork(**{**settings, "channels": tuple(settings["channels"])})
        network.load_state_dict(state)
        return cls(network).to(device)

    def to(self, device: torch.device | str) -> "BundledPrior":
        """Moves the network; returns itself."""
        self.network.to(device)
        self.alphas_cumprod = self.alphas_cumprod.to(device)
        self._remembered = None
        return self

    def encode(self, rgba: Float[Tensor, "B H W 4"]) -> Picture:
        """x = 2 rgba - 1 at 64 x 64; differentiable."""
        return 2.0 * resize_area(rgba, self.image_size) - 1.0

    def decode(self, x: Picture) -> Float[Tensor, "B h w 4"]:
        """The picture of x."""
        return (0.5 * (x.permute(0, 2, 3, 1) + 1.0)).clamp(0.0, 1.0)

    def predict_noise(
        self, x_t: Picture, t: Int[Tensor, " B"], condition: ViewCondition, *, cfg_scale: float
    ) -> Picture:
        """eps_uncond + s (eps_cond - eps_uncond) in one forward of 2B pictures (of B at s = 1)."""
        return x0_to_noise(x_t, self.predict_x0(x_t, t, condition, cfg_scale=cfg_scale), self.alphas_cumprod, t)

    @torch.no_grad()
    def predict_x0(self, x_t: Picture, t: Int[Tensor, " B"], condition: ViewCondition, *, cfg_scale: float) -> Picture:
        """The guided clean picture; guidance commutes with the affine map between x0 and noise."""
        batch = len(x_t)
        code = self._code(condition)
        elevation, azimuth = condition.elevation.to(x_t), condition.azimuth.to(x_t)
        pose = pose_vector(elevation, azimuth, torch.full_like(elevation, condition.reference_elevation))
        if cfg_scale == 1.0:
            self.evaluations += batch
            plain: Tensor = self.network(x_t, t, ReferenceCode(code.features[1:], code.tokens[1:]).expand(batch), pose)
            return plain
        self.evaluations += 2 * batch
        both = ReferenceCode(code.features.repeat_interleave(batch, 0), code.tokens.repeat_interleave(batch, 0))
        x0: Tensor = self.network(x_t.repeat(2, 1, 1, 1), t.repeat(2), both, pose.repeat(2, 1))
        return classifier_free_guidance(x0[:batch], x0[batch:], cfg_scale)

    @torch.no_grad()
    def sample(
        self,
        condition: ViewCondition,
        *,
        steps: int = 20,
        cfg_scale: float = 2.0,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B h w 4"]:
        """Pictures of the wanted views, drawn by deterministic DDIM from noise (Song et al. 2021, eta = 0)."""
        batch = len(condition.elevation)
        x = torch.randn(batch, 4, self.image_size, self.image_size, generator=generator).to(self.alphas_cumprod.device)
        times = torch.linspace(len(self.alphas_cumprod) - 1, 0, steps + 1, device=x.device).long()
        x0 = x
        for now, later in itertools.pairwise(times):
            t = now.expand(batch)
            x0 = self.predict_x0(x, t, condition, cfg_scale=cfg_scale).clamp(-1.0, 1.0)
            noise = x0_to_noise(x, x0, self.alphas_cumprod, t)
            signal, sigma = signal_and_noise_rates(self.alphas_cumprod, later.expand(batch))
            x = signal * x0 + sigma * noise
        return self.decode(x0)

    def _code(self, condition: ViewCondition) -> ReferenceCode:
        """Codes of (the empty picture, the reference), kept while the reference stays the same tensor."""
        if self._remembered is None or self._remembered[0] is not condition.reference:
            reference = self.encode(condition.reference.to(self.alphas_cumprod.device))
            code = self.network.encoder(torch.cat([-torch.ones_like(reference), reference]))
            self._remembered = (condition.reference, code)
        return self._remembered[1]
