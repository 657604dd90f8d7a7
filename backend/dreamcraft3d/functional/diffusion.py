"""The algebra of diffusion priors: noising, guidance, conversions, and gradients as losses (method section 6).

Letters: x clean pictures or latents (B C h w), eps noise, x_t = sqrt(alphabar_t) x + sqrt(1 - alphabar_t) eps,
v = sqrt(alphabar_t) eps - sqrt(1 - alphabar_t) x, g a gradient on x, s the guidance scale.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

Latents = Float[Tensor, "B C h w"]


def signal_and_noise_rates(
    alphas_cumprod: Float[Tensor, " T"], t: Int[Tensor, " B"]
) -> tuple[Float[Tensor, "B 1 1 1"], Float[Tensor, "B 1 1 1"]]:
    """(sqrt(alphabar_t), sqrt(1 - alphabar_t)) per picture, ready to broadcast over C h w."""
    alphabar = alphas_cumprod[t].reshape(-1, 1, 1, 1)
    return alphabar.sqrt(), (1.0 - alphabar).sqrt()


def add_noise(x: Latents, noise: Latents, alphas_cumprod: Float[Tensor, " T"], t: Int[Tensor, " B"]) -> Latents:
    """x_t = sqrt(alphabar_t) x + sqrt(1 - alphabar_t) eps."""
    signal, sigma = signal_and_noise_rates(alphas_cumprod, t)
    return signal * x + sigma * noise


def classifier_free_guidance(unconditional: Latents, conditional: Latents, scale: float) -> Latents:
    """uncond + s (cond - uncond): the only guidance formula in this package (s = 1 is the plain conditional)."""
    return unconditional + scale * (conditional - unconditional)


def noise_to_x0(x_t: Latents, noise: Latents, alphas_cumprod: Float[Tensor, " T"], t: Int[Tensor, " B"]) -> Latents:
    """x0_hat = (x_t - sqrt(1 - alphabar_t) eps) / sqrt(alphabar_t)."""
    signal, sigma = signal_and_noise_rates(alphas_cumprod, t)
    return (x_t - sigma * noise) / signal


def x0_to_noise(x_t: Latents, x0: Latents, alphas_cumprod: Float[Tensor, " T"], t: Int[Tensor, " B"]) -> Latents:
    """eps_hat = (x_t - sqrt(alphabar_t) x0) / sqrt(1 - alphabar_t): the noise that a denoiser who knows x0 predicts."""
    signal, sigma = signal_and_noise_rates(alphas_cumprod, t)
    return (x_t - signal * x0) / sigma


def velocity_to_noise(x_t: Latents, v: Latents, alphas_cumprod: Float[Tensor, " T"], t: Int[Tensor, " B"]) -> Latents:
    """eps_hat = sqrt(alphabar_t) v + sqrt(1 - alphabar_t) x_t, for v-prediction networks."""
    signal, sigma = signal_and_noise_rates(alphas_cumprod, t)
    return signal * v + sigma * x_t


def velocity_target(x: Latents, noise: Latents, alphas_cumprod: Float[Tensor, " T"], t: Int[Tensor, " B"]) -> Latents:
    """v = sqrt(alphabar_t) eps - sqrt(1 - alphabar_t) x: what a v-prediction network is trained to say."""
    signal, sigma = signal_and_noise_rates(alphas_cumprod, t)
    return signal * noise - sigma * x


def sds_gradient(
    predicted: Latents, noise: Latents, alphas_cumprod: Float[Tensor, " T"], t: Int[Tensor, " B"]
) -> Latents:
    """g = w(t) (eps_hat - eps) with w(t) = 1 - alphabar_t (DreamFusion, as released by DreamCraft3D)."""
    weight = (1.0 - alphas_cumprod[t]).reshape(-1, 1, 1, 1)
    return torch.nan_to_num(weight * (predicted - noise))


def vsd_gradient(
    predicted: Latents, variational: Latents, alphas_cumprod: Float[Tensor, " T"], t: Int[Tensor, " B"]
) -> Latents:
    """g = w(t) (eps_hat - eps_lora): the render's own score takes the place of the noise (method section 6.5)."""
    return sds_gradient(predicted, variational, alphas_cumprod, t)


def gradient_as_loss(x: Latents, gradient: Latents) -> Float[Tensor, ""]:
    """L = 1/2 ||x - sg(x - g)||^2 / B, whose gradient on x is g / B; its value is meaningless (method section 2.3)."""
    target = (x - gradient).detach()
    return 0.5 * (x - target).square().sum() / x.shape[0]


def rescale_x0(x0: Latents, conditional: Latents, share: float = 0.5) -> Latents:
    """Takes back the contrast that guidance adds (MVDream).

    A blend of x0 and x0 scaled to the conditional's deviation.
    """
    ratio = conditional.std(dim=(1, 2, 3), keepdim=True) / x0.std(dim=(1, 2, 3), keepdim=True).clamp_min(1e-6)
    return share * x0 * ratio + (1.0 - share) * x0


def cosine_alphas_cumprod(total: int = 1000, offset: float = 0.008) -> Float[Tensor, " T"]:
    """alphabar_t = f(t) / f(0), f(t) = cos^2((t/T + o) / (1 + o) pi/2), betas below .999 (Nichol and Dhariwal 2021)."""
    time = torch.linspace(0.0, 1.0, total + 1, dtype=torch.float64)
    f = torch.cos((time + offset) / (1.0 + offset) * torch.pi / 2.0).square()
    betas = (1.0 - f[1:] / f[:-1]).clamp(max=0.999)
    return torch.cumprod(1.0 - betas, dim=0).float()
