"""Score distillation: a prior's opinion of a render, as a loss on it (method section 6).

Four forms. "sds" is DreamFusion's: g = w(t) (eps_hat - eps) with w = 1 - alphabar_t, injected as
1/2 |x - sg(x - g)|^2. "x0" compares the render with the prior's denoised picture (HiFA; no encoder gradient where the
prior sees pixels): since g = sqrt(alphabar_t (1 - alphabar_t)) (x - x0_hat), both pull towards x0_hat and differ in how
t weighs. "vsd" and "bsd" replace the drawn noise eps by the renders' own score eps_Q, which is learnt on the way: the
render is pulled towards what the prior finds likelier than its own distribution, not towards the prior's average. "bsd"
asks, instead of the prior, the prior that has learnt this object (the paper's bootstrapped score distillation).

Losses are means over pixels, so that their weights compare with those of the reference losses.

Letters: x what the prior denoises, D the personal adapter, Q the variational adapter (`priors.adapters`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from dreamcraft3d.functional.diffusion import (
    add_noise,
    gradient_as_loss,
    noise_to_x0,
    sds_gradient,
    vsd_gradient,
)
from dreamcraft3d.priors.adapters import AdapterName, Adapters, camera_vector
from dreamcraft3d.priors.base import DiffusionPrior, Personalisable, ViewCondition, resize_area

__all__ = ["Distillation", "Form", "distill", "distill_variationally", "learn", "plausible_rgba"]

Form = Literal["x0", "sds"]

LOSS_SCALE = 1024.0
"""Keeps gradients away from zero in a network of half precision; a power of two, so that fp32 does not notice."""


@dataclass(frozen=True)
class Distillation:
    """What a prior said about a render.

    Attributes:
        loss: to be weighted and minimised.
        x: the render as the prior takes it, without gradient.
        show: makes the denoised pictures (premultiplied RGBA), for previews; a latent prior has to decode them.
    """

    loss: Float[Tensor, ""]
    x: Float[Tensor, "B C h w"]
    show: Callable[[], Float[Tensor, "B h w 4"]]


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
        x_t, t, noise = _noised(prior, x, t, generator)
        predicted = prior.predict_noise(x_t, t, condition, cfg_scale=cfg_scale)
        x0 = noise_to_x0(x_t, predicted, prior.alphas_cumprod, t)
    if form == "sds":
        gradient = sds_gradient(predicted, noise, prior.alphas_cumprod, t)
        loss = gradient_as_loss(x, gradient) / x[0].numel()
    elif _sees_rgba(prior, x0):
        target = plausible_rgba(prior.decode(x0)).to(rgba.device)
        present = resize_area(rgba, prior.image_size).permute(0, 2, 3, 1)
        loss = F.mse_loss(present, torch.where(torch.isfinite(target), target, present.detach()))
    else:  # a quarter: x spans [-1,1] where pixels span [0,1]
        loss = 0.25 * F.mse_loss(x, torch.where(torch.isfinite(x0), x0, x.detach()))
    return Distillation(loss.to(rgba.device), x.detach(), lambda: plausible_rgba(prior.decode(x0)))


def distill_variationally(
    prior: Personalisable,
    adapters: Adapters,
    rgba: Float[Tensor, "B H W 4"],
    condition: ViewCondition,
    t: Int[Tensor, " B"],
    *,
    cfg_scale: float,
    personal: bool,
    generator: torch.Generator,
) -> Distillation:
    """g = w(t) (eps_D - eps_Q): guided D (the frozen prior unless `personal`) against Q, which is told the camera.

    Q is asked without guidance and without words for the direction (method sections 6.5 to 6.7).
    """
    x = prior.encode(rgba)
    with torch.no_grad():
        x_t, t, _ = _noised(prior, x, t, generator)
        camera = camera_vector(condition)
        with adapters.using("personal" if personal else None, camera):
            teller = replace(condition, wording="personal" if personal else "view")
            predicted = prior.predict_noise(x_t, t, teller, cfg_scale=cfg_scale)
        with adapters.using("variational", camera):
            own = prior.predict_noise(x_t, t, replace(condition, wording="plain"), cfg_scale=1.0)
        gradient = vsd_gradient(predicted, own, prior.alphas_cumprod, t)
        x0 = noise_to_x0(x_t, predicted, prior.alphas_cumprod, t)
    loss = gradient_as_loss(x, gradient) / x[0].numel()
    return Distillation(loss.to(rgba.device), x.detach(), lambda: plausible_rgba(prior.decode(x0)))


def learn(
    prior: Personalisable,
    adapters: Adapters,
    adapter: AdapterName,
    x: Float[Tensor, "B C h w"],
    condition: ViewCondition,
    *,
    dropout: float,
    generator: torch.Generator,
) -> Float[Tensor, ""]:
    """Adds the gradient of an adapter's loss on pictures that it is shown, at random noise levels; returns the loss.

    A loss that is not finite adds nothing. With probability `dropout` the network is not told what it sees, and with
    the same probability not from where: guidance keeps a branch to lead away from, and the adapter does not hang on the
    camera alone.
    """
    noise = torch.randn(x.shape, generator=generator).to(x)
    t = torch.randint(0, len(prior.alphas_cumprod), (len(x),), generator=generator).to(x.device)
    dropped = torch.rand(len(x), generator=generator) < dropout
    blind = torch.rand(len(x), generator=generator) < dropout
    camera = camera_vector(condition)
    camera = camera * (~blind)[:, None].to(camera)
    with adapters.using(adapter, camera):
        wording: Literal["personal", "plain"] = "personal" if adapter == "personal" else "plain"
        told = replace(condition, wording=wording)
        loss = prior.denoising_loss(x, noise, t, told, dropped=dropped.to(x.device))
        if bool(torch.isfinite(loss)):
            (LOSS_SCALE * loss).backward()
            for parameter in adapters.by_name[adapter].parameters():
                if parameter.grad is not None:
                    parameter.grad.div_(LOSS_SCALE)
    return loss.detach()


def _noised(
    prior: DiffusionPrior, x: Float[Tensor, "B C h w"], t: Int[Tensor, " B"], generator: torch.Generator
) -> tuple[Float[Tensor, "B C h w"], Int[Tensor, " B"], Float[Tensor, "B C h w"]]:
    """(x_t, t beside x, the noise in x_t)."""
    t = t.to(x.device)
    noise = torch.randn(x.shape, generator=generator).to(x)
    return add_noise(x, noise, prior.alphas_cumprod, t), t, noise


def plausible_rgba(rgba: Float[Tensor, "B h w 4"]) -> Float[Tensor, "B h w 4"]:
    """Into what a picture can be: values in [0,1], premultiplied colour never above its opacity."""
    opacity = rgba[..., 3:].clamp(0.0, 1.0)
    return torch.cat([torch.minimum(rgba[..., :3].clamp_min(0.0), opacity), opacity], dim=-1)


def _sees_rgba(prior: DiffusionPrior, x: Float[Tensor, "B C h w"]) -> bool:
    """Whether the prior denoises pixels with their opacity, so that renders compare with its pictures directly."""
    return x.shape[1:] == (4, prior.image_size, prior.image_size)
