"""Draws pictures from a prior, as people use diffusion models: to see what a prior believes, and to measure it."""

import itertools

import torch
from jaxtyping import Float
from torch import Tensor

from dreamcraft3d.functional.diffusion import noise_to_x0, signal_and_noise_rates
from dreamcraft3d.priors.base import DiffusionPrior, ViewCondition


@torch.no_grad()
def sample(
    prior: DiffusionPrior,
    condition: ViewCondition,
    *,
    steps: int = 20,
    cfg_scale: float = 1.0,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "B h w 4"]:
    """Pictures of the wanted views, drawn from noise by deterministic DDIM (Song et al. 2021, eta = 0).

    x_s = sqrt(alphabar_s) x0_hat + sqrt(1 - alphabar_s) eps_hat, over `steps` timesteps from the last one to 0.
    """
    views, alphas = len(condition.elevation), prior.alphas_cumprod
    blank = prior.encode(torch.zeros(1, prior.image_size, prior.image_size, 4, device=alphas.device))
    x = torch.randn((views, *blank.shape[1:]), generator=generator).to(blank)
    return prior.decode(denoise(prior, x, condition, start=len(alphas) - 1, steps=steps, cfg_scale=cfg_scale))


@torch.no_grad()
def denoise(
    prior: DiffusionPrior,
    x_t: Float[Tensor, "B C h w"],
    condition: ViewCondition,
    *,
    start: int,
    steps: int,
    cfg_scale: float,
) -> Float[Tensor, "B C h w"]:
    """x of noisy pictures at timestep `start`, over `steps` even timesteps to 0, by DDIM (eta = 0)."""
    views, alphas, x = len(x_t), prior.alphas_cumprod, x_t
    times = torch.linspace(start, 0, steps + 1, device=alphas.device).long()
    for now, later in itertools.pairwise(times):
        noise = prior.predict_noise(x, now.expand(views), condition, cfg_scale=cfg_scale)
        x0 = noise_to_x0(x, noise, alphas, now.expand(views))
        signal, sigma = signal_and_noise_rates(alphas, later.expand(views))
        x = signal * x0 + sigma * noise
    return x
