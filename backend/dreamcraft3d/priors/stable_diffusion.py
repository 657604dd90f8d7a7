"""Stable Diffusion 1.5, 2.1 and their relatives: the 2D prior of the texture stage (method sections 6.5 to 6.7)."""

import math
from pathlib import Path

import torch

from dreamcraft3d.functional.perp_neg import direction_of
from dreamcraft3d.priors.base import ViewCondition
from dreamcraft3d.priors.components import NoiseSchedule, load_network, precision, read_schedule
from dreamcraft3d.priors.prompts import Prompts, encode_with_clip, make_prompts
from dreamcraft3d.priors.unet_prior import Branch, LatentPrior

__all__ = ["StableDiffusionPrior"]

NARROW = math.radians(30.0)
"""How far "front view" and "back view" reach in the texture stage."""


class StableDiffusionPrior(LatentPrior):
    """A text-conditioned denoiser of latents; it is told the direction of each view in words."""

    def __init__(
        self, name: str, unet: object, vae: object, schedule: NoiseSchedule, prompts: Prompts, *, dtype: torch.dtype
    ) -> None:
        super().__init__(name, unet, vae, schedule, dtype=dtype)
        self._prompts = prompts

    @classmethod
    def load(cls, folder: Path, *, prompt: str, name: str = "", cache: Path | None = None) -> "StableDiffusionPrior":
        """From a folder in diffusers layout, in main memory. `cache`: see `prompts.make_prompts`.

        Raises:
            DreamCraftError: a part is missing or damaged. MissingDependencyError: transformers is not installed.
        """
        from diffusers import AutoencoderKL, UNet2DConditionModel

        dtype = precision()
        prompts = make_prompts(folder, prompt, encode_with_clip, cache=cache)
        unet = load_network(UNet2DConditionModel, folder, "unet", dtype=dtype)
        vae = load_network(AutoencoderKL, folder, "vae", dtype=dtype)
        return cls(name or folder.name, unet, vae, read_schedule(folder), prompts, dtype=dtype)

    def to(self, device: torch.device | str) -> "StableDiffusionPrior":
        super().to(device)
        self._prompts = self._prompts.to(device, self.dtype)
        return self

    def _unconditional(self, condition: ViewCondition) -> Branch:
        return Branch(self._prompts.nothing(len(condition.azimuth)))

    def _conditional(self, condition: ViewCondition) -> Branch:
        direction = direction_of(condition.elevation, condition.azimuth, front=NARROW, back=NARROW)
        return Branch(self._prompts.of(condition.wording, direction))
