"""Priors that know the object: exact denoisers, with which every stage has a known right answer.

`OraclePrior` knows the picture of every view: E[x | x_t, view] is the true render. `MixtureOracle` knows only that the
picture is one of K views, as a text prior does: E[x | x_t] is their average weighted by how well each explains x_t.
Both are exact; nothing is learned. The renderer is passed in as a function, so that this module needs no kernels.

Letters: x* a true picture in [-1,1], a = sqrt(alphabar_t), s = sqrt(1 - alphabar_t).
"""

import math
from collections.abc import Callable
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreamcraft3d.functional.diffusion import cosine_alphas_cumprod, signal_and_noise_rates, x0_to_noise
from dreamcraft3d.priors.base import Content, ViewCondition, resize_area

TrueView = Callable[[Float[Tensor, " B"], Float[Tensor, " B"], Content, int], Float[Tensor, "B H W 4"]]
"""(elevations, azimuths relative to the reference, content, size) -> premultiplied RGBA of the true object."""


class _PixelPrior:
    """The parts of the protocol that pixel-space priors share: x = 2 rgba - 1 at `image_size`."""

    def __init__(self, name: str, image_size: int) -> None:
        self.name = name
        self.image_size = image_size
        self.alphas_cumprod = cosine_alphas_cumprod()
        self.evaluations = 0

    def to(self, device: torch.device | str) -> Self:
        """Answers on another device (where the true views are drawn is the renderer's business)."""
        self.alphas_cumprod = self.alphas_cumprod.to(device)
        return self

    def encode(self, rgba: Float[Tensor, "B H W 4"]) -> Float[Tensor, "B 4 h w"]:
        return 2.0 * resize_area(rgba.to(self.alphas_cumprod.device), self.image_size) - 1.0

    def decode(self, x: Float[Tensor, "B 4 h w"]) -> Float[Tensor, "B h w 4"]:
        return (0.5 * (x.permute(0, 2, 3, 1) + 1.0)).clamp(0.0, 1.0)


class OraclePrior(_PixelPrior):
    """The exact view-conditioned denoiser of one object: eps_hat = (x_t - a x*) / s.

    Guidance changes nothing (cond = uncond).
    """

    contents = frozenset[Content]({"rgba", "normal"})

    def __init__(self, true_view: TrueView, *, image_size: int = 128) -> None:
        super().__init__("oracle", image_size)
        self._true_view = true_view

    def predict_noise(
        self, x_t: Float[Tensor, "B C h w"], t: Int[Tensor, " B"], condition: ViewCondition, *, cfg_scale: float
    ) -> Float[Tensor, "B C h w"]:
        """The noise that turns the true view into x_t."""
        self.evaluations += len(x_t)
        truth = self.encode(self._true_view(condition.elevation, condition.azimuth, condition.content, self.image_size))
        return x0_to_noise(x_t, truth, self.alphas_cumprod, t)


class MixtureOracle(_PixelPrior):
    """The exact denoiser of "some view of this object": p(x) uniform over K views, as a prior without camera sees it.

    E[x | x_t] = sum_k pi_k x*_k with pi_k proportional to exp(-|x_t - a x*_k|^2 / (2 s^2)). At high t it averages
    views, at low t it snaps to the nearest: several faces (Janus), and the use of timestep annealing, come out of this
    formula alone.

    With `spread` (radians) only views within that distance of the wanted azimuth count: a view-conditioned prior that
    is unsure about the camera.
    """

    contents = frozenset[Content]({"rgba", "normal"})

    def __init__(
        self,
        true_view: TrueView,
        *,
        image_size: int = 64,
        views: int = 24,
        elevations: tuple[float, ...] = (0.0, math.radians(30.0)),
        spread: float | None = None,
    ) -> None:
        super().__init__("mixture-oracle" if spread is None else "unsure-oracle", image_size)
        azimuth = torch.arange(views) * (2.0 * math.pi / views)
        self._elevation = torch.tensor(elevations).repeat_interleave(views)
        self._azimuth = azimuth.repeat(len(elevations))
        self._spread = spread
        self._true_view = true_view
        self._atlas: dict[Content, Float[Tensor, "K D"]] = {}

    def predict_noise(
        self, x_t: Float[Tensor, "B C h w"], t: Int[Tensor, " B"], condition: ViewCondition, *, cfg_scale: float
    ) -> Float[Tensor, "B C h w"]:
        """The noise left after the posterior mean over views; exact for the mixture."""
        self.evaluations += len(x_t)
        views = self._views(condition.content)
        a, s = (rate.reshape(-1, 1) for rate in signal_and_noise_rates(self.alphas_cumprod, t))
        flat = x_t.reshape(len(x_t), -1)
        squared = (flat.square().sum(1, keepdim=True) - 2.0 * a * flat @ views.T) + a.square() * views.square().sum(1)
        logits = -squared / (2.0 * s.square())
        if self._spread is not None:
            turned, tilted = condition.azimuth.cpu()[:, None], condition.elevation.cpu()[:, None]
            turn = torch.remainder(self._azimuth - turned + math.pi, 2.0 * math.pi) - math.pi
            near = (turn.abs() <= self._spread) & (
                (self._elevation - tilted).abs() <= max(self._spread, math.radians(20.0))
            )
            logits = logits.masked_fill(~near.to(logits.device), -torch.inf)
        mean = torch.softmax(logits, dim=1) @ views
        return x0_to_noise(x_t, mean.reshape(x_t.shape), self.alphas_cumprod, t)

    def _views(self, content: Content) -> Float[Tensor, "K D"]:
        if content not in self._atlas:
            pictures = [
                self.encode(self._true_view(e[None], a[None], content, self.image_size))
                for e, a in zip(self._elevation, self._azimuth, strict=True)
            ]
            self._atlas[content] = torch.cat(pictures).flatten(1)
        return self._atlas[content]
