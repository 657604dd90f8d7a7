"""DeepFloyd IF, first stage: the 2D prior of the geometry stages, in pixels (method sections 6.2 and 6.3)."""

from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreamcraft3d.functional.perp_neg import blend_directions, direction_of, perp_neg_guidance
from dreamcraft3d.priors.base import ViewCondition, resize_area
from dreamcraft3d.priors.components import NoiseSchedule, load_network, precision, read_schedule
from dreamcraft3d.priors.prompts import Prompts, encode_with_t5, make_prompts
from dreamcraft3d.priors.unet_prior import Branch, Latents, UnetPrior, over_white

__all__ = ["DeepFloydPrior"]


class DeepFloydPrior(UnetPrior):
    """A text-conditioned denoiser of 64 x 64 pictures over white; guided away from the names of other directions."""

    adapted = ("to_q", "to_k", "to_v", "to_out.0", "add_k_proj", "add_v_proj")

    def __init__(
        self, name: str, unet: object, schedule: NoiseSchedule, prompts: Prompts, *, size: int, dtype: torch.dtype
    ) -> None:
        super().__init__(name, unet, schedule, image_size=size, dtype=dtype)
        self._prompts = prompts

    @classmethod
    def load(cls, folder: Path, *, prompt: str, name: str = "", cache: Path | None = None) -> "DeepFloydPrior":
        """From a folder in diffusers layout, in main memory. `cache`: see `prompts.make_prompts`.

        Raises:
            DreamCraftError: a part is missing or damaged. MissingDependencyError: transformers is not installed.
        """
        from diffusers import UNet2DConditionModel

        dtype = precision()
        prompts = make_prompts(folder, prompt, encode_with_t5, cache=cache)
        unet = load_network(UNet2DConditionModel, folder, "unet", dtype=dtype)
        size = int(unet.config.sample_size)
        return cls(name or folder.name, unet, read_schedule(folder), prompts, size=size, dtype=dtype)

    def to(self, device: torch.device | str) -> "DeepFloydPrior":
        super().to(device)
        self._prompts = self._prompts.to(device, self.dtype)
        return self

    def encode(self, rgba: Float[Tensor, "B H W 4"]) -> Latents:
        """x = 2 rgb - 1 over white, averaged over the pixels of the render (issue B21); differentiable."""
        return 2.0 * over_white(resize_area(rgba.to(self.device), self.image_size)) - 1.0

    def decode(self, x: Latents) -> Float[Tensor, "B h w 4"]:
        """Opaque pictures."""
        rgb = (0.5 * (x.permute(0, 2, 3, 1) + 1.0)).clamp(0.0, 1.0)
        return torch.cat([rgb, torch.ones_like(rgb[..., :1])], dim=-1)

    @torch.no_grad()
    def predict_noise(
        self, x_t: Latents, t: Int[Tensor, " B"], condition: ViewCondition, *, cfg_scale: float
    ) -> Latents:
        """Perp-Neg guidance: four conditions for each picture; plain guidance where the words name no direction."""
        if cfg_scale == 1.0 or condition.wording == "plain":
            return super().predict_noise(x_t, t, condition, cfg_scale=cfg_scale)
        blend = blend_directions(condition.elevation, condition.azimuth)
        family = self._prompts.family(condition.wording)
        shares = blend.positive.to(family)
        positive = torch.einsum("bd,dle->ble", shares, family)
        negatives = [family[direction.to(family.device)] for direction in blend.negatives.unbind(1)]
        tokens = [self._prompts.nothing(len(x_t)), positive, *negatives]
        nothing, wanted, *unwanted = self._noises(x_t, t, [Branch(branch) for branch in tokens])
        return perp_neg_guidance(nothing, wanted, tuple(unwanted), blend.weights.to(x_t), cfg_scale)

    def _unconditional(self, condition: ViewCondition) -> Branch:
        return Branch(self._prompts.nothing(len(condition.azimuth)))

    def _conditional(self, condition: ViewCondition) -> Branch:
        direction = direction_of(condition.elevation, condition.azimuth)
        return Branch(self._prompts.of(condition.wording, direction))
