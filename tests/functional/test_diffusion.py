import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dreamcraft3d.functional import diffusion

ALPHAS = diffusion.cosine_alphas_cumprod()
timesteps = st.integers(1, 980)


def pictures(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 4, 8, 8, generator=generator)


@given(timesteps, st.integers(0, 99))
def test_noise_x0_and_velocity_are_views_of_one_thing(t: int, seed: int) -> None:
    x, noise = pictures(seed)
    at = torch.tensor([t, t])
    x_t = diffusion.add_noise(x, noise, ALPHAS, at)
    assert torch.allclose(diffusion.noise_to_x0(x_t, noise, ALPHAS, at), x, atol=2e-3)
    assert torch.allclose(diffusion.x0_to_noise(x_t, x, ALPHAS, at), noise, atol=2e-3)
    v = diffusion.velocity_target(x, noise, ALPHAS, at)
    assert torch.allclose(diffusion.velocity_to_noise(x_t, v, ALPHAS, at), noise, atol=1e-4)


def test_schedule_falls_from_almost_one_to_almost_zero() -> None:
    assert ALPHAS[0] > 0.999 and ALPHAS[-1] < 1e-4
    assert bool((ALPHAS[1:] < ALPHAS[:-1]).all())


def test_guidance_scale_one_is_the_conditional_and_zero_the_unconditional() -> None:
    cond, uncond = pictures(0)
    assert torch.allclose(diffusion.classifier_free_guidance(uncond, cond, 1.0), cond)
    assert torch.allclose(diffusion.classifier_free_guidance(uncond, cond, 0.0), uncond)
    doubled = diffusion.classifier_free_guidance(uncond, cond, 2.0)
    assert torch.allclose(doubled, 2 * cond - uncond)


def test_the_surrogate_loss_carries_the_gradient_over_the_batch() -> None:
    x, gradient = pictures(1)
    x.requires_grad_()
    diffusion.gradient_as_loss(x, gradient).backward()
    assert x.grad is not None and torch.allclose(x.grad, gradient / 2, atol=1e-6)


@given(timesteps)
def test_sds_pulls_towards_the_denoised_picture(t: int) -> None:
    """w (eps_hat - eps) = a s (x - x0_hat): the identity behind the x0 form of the loss."""
    x, noise = pictures(2)
    truth = torch.zeros_like(x)
    at = torch.tensor([t, t])
    x_t = diffusion.add_noise(x, noise, ALPHAS, at)
    gradient = diffusion.sds_gradient(diffusion.x0_to_noise(x_t, truth, ALPHAS, at), noise, ALPHAS, at)
    a, s = diffusion.signal_and_noise_rates(ALPHAS, at)
    assert torch.allclose(gradient, a * s * (x - truth), atol=2e-4)


def test_vsd_is_zero_when_the_variational_score_is_the_prior() -> None:
    _, noise = pictures(3)
    assert float(diffusion.vsd_gradient(noise, noise, ALPHAS, torch.tensor([10, 500])).abs().max()) == 0.0


def test_gradients_that_are_not_numbers_pull_nowhere() -> None:
    _, noise = pictures(4)
    broken = noise.clone()
    broken[0, 0, 0, 0] = torch.nan
    assert torch.isfinite(diffusion.sds_gradient(broken, noise, ALPHAS, torch.tensor([10, 10]))).all()


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_rescaling_takes_back_contrast(share: float) -> None:
    x, _ = pictures(5)
    rescaled = diffusion.rescale_x0(3.0 * x, x, share)
    assert float(rescaled.std() / x.std()) == pytest.approx(3.0 - 2.0 * share, rel=1e-2)
