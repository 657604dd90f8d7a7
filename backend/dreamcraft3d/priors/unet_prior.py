"""What the public priors have in common: a frozen U-Net of diffusers that is asked under several conditions at once.

All conditions of a guided prediction (unconditional, conditional, negative ones) go through the network in one batch,
condition by condition: picture b of condition k is row k B + b, so each noisy picture keeps its own condition (issue
B5). Networks compute in half precision on a card; everything that enters and leaves is fp32.

Letters: x pixels or latents in the network's scale, N conditions, B pictures.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from dreamcraft3d.functional.diffusion import (
    add_noise,
    classifier_free_guidance,
    velocity_target,
    velocity_to_noise,
)
from dreamcraft3d.priors.base import Content, ViewCondition, resize_area
from dreamcraft3d.priors.components import NoiseSchedule

__all__ = ["Branch", "LatentPrior", "UnetPrior", "over_white"]

Latents = Float[Tensor, "B C h w"]


@dataclass(frozen=True)
class Branch:
    """A condition for each of B pictures: tokens for cross-attention, and channels laid beside the noisy picture."""

    tokens: Float[Tensor, "B L E"]
    beside: Float[Tensor, "B D h w"] | None = None

    def where(self, chosen: Bool[Tensor, " B"], other: "Branch") -> "Branch":
        """This condition for the chosen pictures, the other one for the rest."""
        tokens = torch.where(chosen[:, None, None], self.tokens, other.tokens)
        if self.beside is None or other.beside is None:
            return Branch(tokens)
        return Branch(tokens, torch.where(chosen[:, None, None, None], self.beside, other.beside))


class UnetPrior(ABC):
    """A `Personalisable` prior; subclasses say what the network is told.

    Attributes:
        unet: the network. dtype: its precision.
    """

    contents = frozenset[Content]({"rgba", "normal"})
    adapted: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")

    def __init__(self, name: str, unet: Any, schedule: NoiseSchedule, *, image_size: int, dtype: torch.dtype) -> None:
        self.name, self.unet, self.dtype = name, unet, dtype
        self.image_size = image_size
        self.alphas_cumprod = schedule.alphas_cumprod
        self.prediction = schedule.prediction
        self.evaluations = 0
        self._measures = [self._checkpoint_activations, self._ask_one_by_one]
        self._one_by_one = self._offloaded = False

    @abstractmethod
    def encode(self, rgba: Float[Tensor, "B H W 4"]) -> Latents: ...

    @abstractmethod
    def decode(self, x: Latents) -> Float[Tensor, "B h w 4"]: ...

    @abstractmethod
    def _unconditional(self, condition: ViewCondition) -> Branch:
        """What the network is told when it is told nothing."""

    @abstractmethod
    def _conditional(self, condition: ViewCondition) -> Branch:
        """What the network is told of the wanted views."""

    @property
    def device(self) -> torch.device:
        """Where the network is asked."""
        return self.alphas_cumprod.device

    def to(self, device: torch.device | str) -> "UnetPrior":
        """Moves all networks; returns itself."""
        for network in self._networks():
            network.to(device)
        self.alphas_cumprod = self.alphas_cumprod.to(device)
        return self

    def save_memory(self) -> bool:
        """Takes the next measure; False if there is none left."""
        if not self._measures:
            return False
        self._measures.pop(0)()
        return True

    @torch.no_grad()
    def predict_noise(
        self, x_t: Latents, t: Int[Tensor, " B"], condition: ViewCondition, *, cfg_scale: float
    ) -> Latents:
        """eps_0 + s (eps_c - eps_0), without the unconditional branch at s = 1."""
        if cfg_scale == 1.0:
            return self._noises(x_t, t, [self._conditional(condition)])[0]
        branches = [self._unconditional(condition), self._conditional(condition)]
        unconditional, conditional = self._noises(x_t, t, branches)
        return classifier_free_guidance(unconditional, conditional, cfg_scale)

    def denoising_loss(
        self, x: Latents, noise: Latents, t: Int[Tensor, " B"], condition: ViewCondition, *, dropped: Bool[Tensor, " B"]
    ) -> Float[Tensor, ""]:
        """Mean squared error of the predicted noise (or velocity)."""
        with torch.no_grad():
            told = self._unconditional(condition).where(dropped, self._conditional(condition))
            x_t = add_noise(x, noise, self.alphas_cumprod, t)
            velocity = self.prediction == "v_prediction"
            target = velocity_target(x, noise, self.alphas_cumprod, t) if velocity else noise
        return F.mse_loss(self._ask(x_t, t, told), target)

    def _noises(self, x_t: Latents, t: Int[Tensor, " B"], branches: list[Branch]) -> list[Latents]:
        """The predicted noise under each condition."""
        if self._one_by_one:
            raw = torch.cat([self._ask(x_t, t, branch) for branch in branches])
        else:
            beside = [branch.beside for branch in branches if branch.beside is not None]
            told = Branch(torch.cat([branch.tokens for branch in branches]), torch.cat(beside) if beside else None)
            raw = self._ask(x_t.repeat(len(branches), 1, 1, 1), t.repeat(len(branches)), told)
        if self.prediction == "v_prediction":
            repeated = x_t.repeat(len(branches), 1, 1, 1)
            raw = velocity_to_noise(repeated, raw, self.alphas_cumprod, t.repeat(len(branches)))
        return list(raw.chunk(len(branches)))

    def _ask(self, x_t: Latents, t: Int[Tensor, " B"], told: Branch) -> Latents:
        """One pass through the network; a learnt variance (IF) is dropped."""
        self.evaluations += len(x_t)
        self._bring(self.unet)
        inputs = x_t if told.beside is None else torch.cat([x_t, told.beside.to(x_t)], dim=1)
        raw: Tensor = self.unet(
            inputs.to(self.dtype), t, encoder_hidden_states=told.tokens.to(self.dtype), return_dict=False
        )[0]
        return raw[:, : x_t.shape[1]].float()

    def _networks(self) -> list[Any]:
        """All networks of the prior."""
        return [self.unet]

    def _bring(self, network: Any) -> None:
        """With offloading, only the network that works is on the card; adapters, which an optimiser knows, stay."""
        if not self._offloaded or self.device.type == "cpu":
            return
        for other in self._networks():
            _move_frozen(other, self.device if other is network else torch.device("cpu"))

    def _checkpoint_activations(self) -> None:
        self.unet.enable_gradient_checkpointing()

    def _ask_one_by_one(self) -> None:
        self._one_by_one = True


class LatentPrior(UnetPrior):
    """A prior whose pictures are latents of an autoencoder; it sees colours over white, and decodes opaque pictures."""

    def __init__(self, name: str, unet: Any, vae: Any, schedule: NoiseSchedule, *, dtype: torch.dtype) -> None:
        factor = 2 ** (len(vae.config.block_out_channels) - 1)
        super().__init__(name, unet, schedule, image_size=factor * int(unet.config.sample_size), dtype=dtype)
        self.vae = vae
        self._measures.append(self._offload)
        self._recompute = False

    def encode(self, rgba: Float[Tensor, "B H W 4"]) -> Latents:
        """Mean of the autoencoder's posterior times its scale (a sample would add noise, issue B23); differentiable."""
        picture = 2.0 * over_white(resize_area(rgba.to(self.device), self.image_size)) - 1.0
        if self._recompute and picture.requires_grad:
            latents: Tensor = checkpoint(self._to_latents, picture, use_reentrant=False)
            return latents
        return self._to_latents(picture)

    @torch.no_grad()
    def decode(self, x: Latents) -> Float[Tensor, "B h w 4"]:
        """Opaque pictures of latents."""
        self._bring(self.vae)
        picture = self.vae.decode((x / self.vae.config.scaling_factor).to(self.dtype), return_dict=False)[0].float()
        rgb = (0.5 * (picture.permute(0, 2, 3, 1) + 1.0)).clamp(0.0, 1.0)
        return torch.cat([rgb, torch.ones_like(rgb[..., :1])], dim=-1)

    def _to_latents(self, picture: Float[Tensor, "B 3 H W"]) -> Latents:
        self._bring(self.vae)
        mean: Tensor = self.vae.encode(picture.to(self.dtype)).latent_dist.mode().float()
        return mean * float(self.vae.config.scaling_factor)

    def to(self, device: torch.device | str) -> "LatentPrior":
        super().to(device)
        return self

    def _networks(self) -> list[Any]:
        return [self.unet, self.vae]

    def _checkpoint_activations(self) -> None:
        super()._checkpoint_activations()
        self.vae.enable_slicing()
        self._recompute = True

    def _offload(self) -> None:
        self._offloaded = True


def over_white(rgba: Float[Tensor, "B 4 h w"]) -> Float[Tensor, "B 3 h w"]:
    """A premultiplied picture over white, channels first."""
    return rgba[:, :3] + 1.0 - rgba[:, 3:]


def _move_frozen(network: torch.nn.Module, device: torch.device) -> None:
    """Moves everything but adapters."""
    for name, parameter in network.named_parameters():
        if "lora_" not in name and parameter.device != device:
            parameter.data = parameter.data.to(device)
    for module in network.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))
