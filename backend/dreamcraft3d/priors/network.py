"""The network of the bundled prior: a lifted view of the reference, corrected by a denoising U-Net.

The lifted view mu is already a guess of the wanted picture; the U-Net F looks at the noisy picture and adds what is
missing:

    x0_hat = mu + sigma_d F(x_t, mu, features; t, tokens, camera)

Nothing of x_t passes around F. A skip connection that believes x_t as far as the noise allows (the preconditioning of
Karras et al. 2022, around mu) was tried first: after 26,000 pictures its samples were still full of grain, which this
form never shows.
"""

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from dreamcraft3d.functional.cameras import FOVY, Cameras
from dreamcraft3d.functional.diffusion import cosine_alphas_cumprod
from dreamcraft3d.priors.base import Estimate
from dreamcraft3d.priors.lifting import (
    CameraEstimator,
    LiftingEncoder,
    Look,
    Picture,
    ReferenceCode,
    look,
    positions,
)

SIZE = 64  # pixels of the views that are denoised
PATCH = 4  # pixels are folded into channels: 64 x 64 x 4 -> 16 x 16 x 64
POSE = 18
DEVIATION = 0.35  # sigma_d: how far a lifted view is off, for pictures in [-1,1]


def pose_vector(wanted: Cameras, reference: Cameras) -> Float[Tensor, "B P"]:
    """Smooth periodic features of the wanted cameras and those of their references."""
    elevation, azimuth, start = wanted.elevation, wanted.azimuth, reference.elevation
    turns = [wave(k * azimuth) for k in (1, 2, 3, 4) for wave in (torch.sin, torch.cos)]
    rises = [2 * elevation, torch.sin(4 * elevation), torch.cos(4 * elevation)]
    starts = [2 * start, torch.sin(4 * start), torch.cos(4 * start)]
    lenses = [torch.log(wanted.fovy / FOVY), torch.log(reference.fovy / FOVY)]
    rest = [2 * (elevation - start), torch.ones_like(elevation)]
    return torch.stack([*turns, *rises, *starts, *lenses, *rest], dim=-1)


class BundledNetwork(nn.Module):
    """x0_hat(x_t, t, reference, camera); see the module's equations."""

    def __init__(
        self,
        *,
        reference_size: int = 128,
        channels: tuple[int, int] = (80, 128),
        widths: tuple[int, int, int] = (48, 128, 320),
        decoder: int = 80,
        blocks: int = 6,
        planes: int = 48,
        features: int = 4,
        embedding: int = 192,
        supervised: bool = True,
    ) -> None:
        """`reference_size`: pixels of the reference; lifted views have half of it. The rest: see `LiftingEncoder`."""
        super().__init__()
        self.settings: dict[str, Any] = {
            "reference_size": reference_size, "channels": channels, "widths": widths, "decoder": decoder,
            "blocks": blocks, "planes": planes, "features": features, "embedding": embedding, "supervised": supervised,
        }  # fmt: skip
        folded = 4 * PATCH**2
        self.reference_size, self.look_size = reference_size, reference_size // 2
        self.fold = self.look_size * PATCH // SIZE  # of lifted views
        self.encoder = LiftingEncoder(
            reference_size=reference_size, widths=widths, decoder=decoder, blocks=blocks, planes=planes,
            features=features, supervised=supervised,
        )  # fmt: skip
        self.camera = CameraEstimator()
        unet: Any = UNet2DConditionModel(  # type: ignore[no-untyped-call]
            sample_size=SIZE // PATCH,
            in_channels=folded + (4 + features) * self.fold**2 + 8,
            out_channels=folded,
            block_out_channels=channels,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            mid_block_type=None,
            layers_per_block=1,
            attention_head_dim=4,  # heads, whatever its name says
            cross_attention_dim=widths[2],
            norm_num_groups=16,
            time_embedding_dim=embedding,
            resnet_time_scale_shift="scale_shift",
            class_embed_type="projection",
            projection_class_embeddings_input_dim=POSE,
        )
        self.unet = unet
        for parameter in unet.conv_out.parameters():  # the lifted view is the first answer
            nn.init.zeros_(parameter)
        self.register_buffer("positions", positions(SIZE // PATCH), persistent=False)
        self.register_buffer("alphas_cumprod", cosine_alphas_cumprod(), persistent=False)
        self.positions: Tensor
        self.alphas_cumprod: Tensor

    def encode(
        self, reference: Picture, elevation: Float[Tensor, " B"], fovy: Float[Tensor, " B"]
    ) -> tuple[ReferenceCode, Estimate]:
        """Encode references (x in [-1,1], `reference_size` a side; radians), and guess the surface they show."""
        code: tuple[ReferenceCode, Estimate] = self.encoder(reference, elevation, fovy)
        return code

    def look(self, code: ReferenceCode, wanted: Cameras) -> Look:
        """Render the codes from the wanted cameras (T for each code in turn), `look_size` pixels a side."""
        return look(code, wanted, size=self.look_size)

    def forward(
        self,
        x_t: Picture,
        t: Int[Tensor, " B"],
        view: Look,
        tokens: Float[Tensor, "B N E"],
        pose: Float[Tensor, "B P"],
    ) -> Picture:
        """Predict the clean picture behind x_t."""
        guess = 2.0 * view.rgba - 1.0
        known = functional.pixel_unshuffle(torch.cat([guess, view.features], dim=1), self.fold)
        folded = functional.pixel_unshuffle(x_t, PATCH)
        stacked = torch.cat([folded, known, self.positions.expand(len(x_t), -1, -1, -1)], dim=1)
        stacked = stacked.contiguous(memory_format=torch.channels_last)
        folded = self.unet(stacked, t, tokens, class_labels=pose, return_dict=False)[0]
        correction = functional.pixel_shuffle(folded.float().contiguous(), PATCH)
        if self.look_size != SIZE:
            guess = functional.interpolate(guess, (SIZE, SIZE), mode="bilinear", align_corners=False)
        x0: Picture = guess + DEVIATION * correction
        return x0


def channels_last(network: BundledNetwork) -> BundledNetwork:
    """The network with the memory layout that convolutions like best on the CPU."""
    fast: BundledNetwork = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return fast


def network_of(settings: dict[str, Any]) -> BundledNetwork:
    """The (untrained) network with the settings that a weights file names."""
    known: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in settings.items()}
    return BundledNetwork(**known)
