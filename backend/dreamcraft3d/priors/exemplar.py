"""The picture's own patches as a prior: the exact denoiser of the distribution "patches of this picture".

A network that is personalised on one object learns what the object's surfaces look like. Without a network that is

    x0_hat(patch) = sum_i pi_i p_i,   pi_i = softmax_i(-|x_t - sqrt(abar) p_i|^2 / (2 (1 - abar)) - rarity_i),

the ideal local score (Kamb and Ganguli 2024): the posterior mean of a patch whose clean version is one of the
picture's patches p_i, mirrored ones too; at low noise it is the nearest patch. Overlapping patches vote. It knows
neither the view nor the shape, needs no weights, and works at any size; it is to be used beside a prior that knows
where things are. Patches that are rare in the picture (faces, eyes, logos) are weighed down, for a back has none.

Notation: x pictures in [-1, 1] (B 4 h w, premultiplied RGBA), abar = alphas_cumprod[t], k side of a patch, P patches.
"""

from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from dreamcraft3d.functional.diffusion import cosine_alphas_cumprod, signal_and_noise_rates, x0_to_noise
from dreamcraft3d.priors.base import Content, ViewCondition, resize_area

__all__ = ["ExemplarPrior", "patch_rarity"]

CHUNK = 512
NEAREST = 0.05
"""Share of the picture's patches that must resemble a patch for it not to be rare."""

USUAL = 1.5
"""Distance to its nearest patches, in medians, up to which a patch is not rare at all."""


class ExemplarPrior:
    """The ideal local score of the reference picture (see the module), behind the `DiffusionPrior` protocol.

    Attributes:
        rarity: how much rare patches are weighed down; their excess distance in units of the usual one is a log odds.
    """

    name = "exemplar"
    contents = frozenset[Content]({"rgba"})

    def __init__(self, *, image_size: int = 64, patch: int = 7, rarity: float = 1.0) -> None:
        if patch % 2 == 0:
            raise ValueError(f"patches need an odd size, got {patch}")
        self.image_size, self.patch, self.rarity = image_size, patch, rarity
        self.alphas_cumprod = cosine_alphas_cumprod()
        self.evaluations = 0

    def to(self, device: torch.device | str) -> Self:
        """Work on another device."""
        self.alphas_cumprod = self.alphas_cumprod.to(device)
        return self

    def encode(self, rgba: Float[Tensor, "B H W 4"]) -> Float[Tensor, "B 4 h w"]:
        """2 rgba - 1 at the prior's size; differentiable."""
        return 2.0 * resize_area(rgba.to(self.alphas_cumprod.device), self.image_size) - 1.0

    def decode(self, x: Float[Tensor, "B 4 h w"]) -> Float[Tensor, "B h w 4"]:
        """The inverse, in [0, 1]."""
        return (0.5 * (x.permute(0, 2, 3, 1) + 1.0)).clamp(0.0, 1.0)

    @torch.no_grad()
    def predict_noise(
        self, x_t: Float[Tensor, "B C h w"], t: Int[Tensor, " B"], condition: ViewCondition, *, cfg_scale: float
    ) -> Float[Tensor, "B C h w"]:
        """The noise that the patches leave unexplained. Guidance changes nothing: there is no unconditional branch."""
        return x0_to_noise(x_t, self.predict_x0(x_t, t, condition.reference), self.alphas_cumprod, t)

    @torch.no_grad()
    def predict_x0(
        self, x_t: Float[Tensor, "B C h w"], t: Int[Tensor, " B"], picture: Float[Tensor, "1 H W 4"]
    ) -> Float[Tensor, "B C h w"]:
        """E[x | x_t] under "every k x k patch is one of the picture's"; overlapping patches vote with equal weight."""
        self.evaluations += len(x_t)
        patches, log_prior = self._patches_of(self.encode(picture))
        signal, noise = (rate.reshape(-1) for rate in signal_and_noise_rates(self.alphas_cumprod, t))
        return torch.cat(
            [
                self._denoised(image, patches, log_prior, float(a), float(s))
                for image, a, s in zip(x_t[:, None], signal, noise, strict=True)
            ]
        )

    def _denoised(
        self,
        x_t: Float[Tensor, "1 C h w"],
        patches: Float[Tensor, "P D"],
        log_prior: Float[Tensor, " P"],
        signal: float,
        noise: float,
    ) -> Float[Tensor, "1 C h w"]:
        """One picture: the posterior mean of each patch, then the mean over the patches that lie over a pixel.

        Patches that reach over the border compare their inner pixels only.
        """
        k, size = self.patch, x_t.shape[-2:]
        inner = F.unfold(torch.ones_like(x_t), k, padding=k // 2)[0].T
        noisy = F.unfold(x_t, k, padding=k // 2)[0].T
        squares, means = signal**2 * patches.square(), []
        for query, valid in zip(noisy.split(CHUNK), inner.split(CHUNK), strict=True):
            squared = valid @ squares.T - 2.0 * signal * query @ patches.T
            odds = log_prior - squared / (2.0 * noise**2)
            means.append(torch.softmax(odds, dim=1) @ patches)
        columns = (torch.cat(means) * inner).T[None]
        total = F.fold(inner.T[None], size, k, padding=k // 2)
        image: Tensor = F.fold(columns, size, k, padding=k // 2) / total
        return image

    def _patches_of(self, x: Float[Tensor, "1 C h w"]) -> tuple[Float[Tensor, "P D"], Float[Tensor, " P"]]:
        """All whole patches of the picture and its mirror image, and the log of their weights."""
        k, r = self.patch, self.patch // 2
        picture = self.decode(x)[0]
        rarity = patch_rarity(picture[..., :3], picture[..., 3] > 0.5, k)
        usual = rarity[rarity > 0.0].mean() if bool((rarity > 0.0).any()) else rarity.new_ones(())
        log_prior = (-self.rarity * rarity / usual)[r : rarity.shape[0] - r, r : rarity.shape[1] - r].reshape(-1)
        both = torch.cat([F.unfold(image, k)[0].T for image in (x, x.flip(3))])
        mirrored = log_prior.reshape(x.shape[2] - 2 * r, x.shape[3] - 2 * r).flip(1).reshape(-1)
        return both, torch.cat([log_prior, mirrored])


def patch_rarity(image: Float[Tensor, "H W 3"], inside: Bool[Tensor, "H W"], size: int) -> Float[Tensor, "H W"]:
    """How far each patch is from everything else in its picture: the excess of d over `USUAL` medians of d.

    d is the mean squared difference to the nearest 5 % of the patches that do not overlap it; 0 where d is usual and
    outside. A texture resembles itself everywhere; an eye, a face or a logo resembles nothing.

    Args:
        image: straight colours, continued beyond the object. size: of the patches, odd; mind that fine texture is
        "rare" in small patches of a large picture: measure at a size at which it is gone.
    """
    y, x = torch.nonzero(inside, as_tuple=True)
    if len(y) < 2:
        return torch.zeros_like(image[..., 0])
    padded = F.pad(image.permute(2, 0, 1)[None], (size // 2,) * 4, mode="replicate")
    patches = F.unfold(padded, size)[0].T[y * image.shape[1] + x]
    wanted = max(1, round(NEAREST * len(y)))
    distances = []
    for first in range(0, len(y), CHUNK):
        part = slice(first, first + CHUNK)
        squared = torch.cdist(patches[part], patches).square() / patches.shape[1]
        apart = torch.maximum((y[part, None] - y).abs(), (x[part, None] - x).abs()) >= size
        near = squared.masked_fill(~apart, torch.inf).topk(min(wanted, len(y)), largest=False).values
        distances.append(torch.where(torch.isfinite(near), near, 0.0).mean(dim=1))
    d = torch.cat(distances)
    rarity = torch.zeros_like(image[..., 0])
    rarity[y, x] = (d - USUAL * d.median()).clamp_min(0.0)
    return rarity
