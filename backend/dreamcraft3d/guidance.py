"""Score distillation: a prior's opinion of a render, as a loss on it (method section 6).

Two forms of the same direction. "sds" is the paper's: g = w(t) (eps_hat - eps) with w = 1 - alphabar_t, injected as
1/2 |x - sg(x - g)|^2. "x0" compares the render with the prior's denoised picture in pixels (HiFA; no encoder gradient):
since g = sqrt(alphabar_t (1 - alphabar_t)) (x - x0_hat), both pull towards x0_hat and differ in how t weighs. Losses
are means over pixels, so that their weights compare with those of the reference losses.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from dreamcraft3d.functional.diffusion import add_noise, gradient_as_loss, noise_to_x0, sds_gradient
from dreamcraft3d.priors.base import DiffusionPrior, ViewCondition, resize_area

Form = Literal["x0", "sds"]


@dataclass(frozen=True)
class Distillation:
    """What a prior said about a render.

    Attributes:
        loss: to be weighted and minimised.
        target: the denoised pictures (premultiplied RGBA), for previews.
    """

    loss: Float[Tensor, ""]
    target: Float[Tensor, "B h w 4"]


def distill(
    prior: DiffusionPrior,
    rgba: Float[Tensor, "B H W 4"],
    condition: ViewCondition,
    t: Int[Tensor, " B"],
    *,
    cfg_scale: float,
    form: Form,
    generator: torch.Generator,
) -> Distillation:
    """Noises the render to level t, asks the prior what it sees, and pulls the render towards it.

    Gradients reach `rgba` only; a prediction that is not finite pulls nowhere.
    """
    x = prior.encode(rgba)
    with torch.no_grad():
        noise = torch.randn(x.shape, generator=generator).to(x)
        x_t = add_noise(x, noise, prior.alphas_cumprod, t)
        predicted = prior.predict_noise(x_t, t, condition, cfg_scale=cfg_scale)
        target = plausible_rgba(prior.decode(noise_to_x0(x_t, predicted, prior.alphas_cumprod, t)))
    if form == "sds":
        gradient = sds_gradient(predicted, noise, prior.alphas_cumprod, t)
        return Distillation(gradient_as_loss(x, gradient) / x[0].numel(), target)
    present = resize_area(rgba, prior.image_size).permute(0, 2, 3, 1)
    finite = torch.where(torch.isfinite(target), target, present.detach())
    return Distillation(F.mse_loss(present, finite), target)


def plausible_rgba(rgba: Float[Tensor, "B h w 4"]) -> Float[Tensor, "B h w 4"]:
    """Into what a picture can be: values in [0,1], premultiplied colour never above its opacity."""
    opacity = rgba[..., 3:].clamp(0.0, 1.0)
    return torch.cat([torch.minimum(rgba[..., :3].clamp_min(0.0), opacity), opacity], dim=-1)
