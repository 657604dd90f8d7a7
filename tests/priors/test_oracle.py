import math

import torch

from dreamcraft3d.functional.diffusion import add_noise, noise_to_x0
from dreamcraft3d.priors.base import Content, ViewCondition
from dreamcraft3d.priors.oracle import MixtureOracle, OraclePrior

SIZE = 16


def half_discs(elevation: torch.Tensor, azimuth: torch.Tensor, content: Content, size: int) -> torch.Tensor:
    """An opaque square that is red in front and blue behind, with a bright column that walks with the azimuth."""
    rgba = torch.zeros(len(azimuth), size, size, 4)
    rgba[:, 2:-2, 2:-2, 3] = 1.0
    for i, a in enumerate(azimuth.tolist()):
        rgba[i, 2:-2, 2:-2, 0 if math.cos(a) >= 0 else 2] = 0.8
        rgba[i, 2:-2, 2 + int((a % (2 * math.pi)) / (2 * math.pi) * (size - 4)), 1] = 1.0
    return rgba


def condition(azimuth: float) -> ViewCondition:
    return ViewCondition(torch.zeros(1, SIZE, SIZE, 4), 0.0, torch.zeros(1), torch.tensor([azimuth]))


def denoise(prior: OraclePrior | MixtureOracle, picture: torch.Tensor, t: int, azimuth: float) -> torch.Tensor:
    x = prior.encode(picture)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    at = torch.tensor([t])
    x_t = add_noise(x, noise, prior.alphas_cumprod, at)
    predicted = prior.predict_noise(x_t, at, condition(azimuth), cfg_scale=5.0)
    return prior.decode(noise_to_x0(x_t, predicted, prior.alphas_cumprod, at))


def test_the_oracle_sees_the_true_view_through_any_noise_and_from_any_start() -> None:
    prior = OraclePrior(half_discs, image_size=SIZE)
    truth = half_discs(torch.zeros(1), torch.tensor([2.0]), "rgba", SIZE)
    for t in (20, 500, 900):
        assert torch.allclose(denoise(prior, torch.rand(1, SIZE, SIZE, 4), t, 2.0), truth, atol=1e-2)
    assert prior.evaluations == 3


def test_encode_and_decode_are_inverse_and_differentiable() -> None:
    prior = OraclePrior(half_discs, image_size=SIZE)
    picture = torch.rand(2, 2 * SIZE, 2 * SIZE, 4, requires_grad=True)
    x = prior.encode(picture)
    assert x.shape == (2, 4, SIZE, SIZE)
    x.sum().backward()
    assert picture.grad is not None and bool((picture.grad != 0).all())
    small = torch.rand(1, SIZE, SIZE, 4)
    assert torch.allclose(prior.decode(prior.encode(small)), small, atol=1e-6)


def test_the_mixture_averages_at_high_noise_and_snaps_at_low_noise() -> None:
    prior = MixtureOracle(half_discs, image_size=SIZE, views=8, elevations=(0.0,))
    shown = half_discs(torch.zeros(1), torch.tensor([math.pi]), "rgba", SIZE)
    blurred, snapped = denoise(prior, shown, 995, 0.0), denoise(prior, shown, 100, 0.0)
    assert torch.allclose(snapped, shown, atol=2e-2)  # the view that was shown, whatever camera was asked for: Janus
    assert 0.2 < float(blurred[0, SIZE // 2, SIZE // 2, 0]) < 0.7  # red and blue mixed


def test_an_unsure_oracle_prefers_the_wanted_camera_to_the_shown_picture() -> None:
    prior = MixtureOracle(half_discs, image_size=SIZE, views=8, elevations=(0.0,), spread=math.radians(50))
    back = half_discs(torch.zeros(1), torch.tensor([math.pi]), "rgba", SIZE)
    answer = denoise(prior, back, 300, 0.0)
    assert float(answer[0, 4, 4, 0]) > 0.7 > 0.1 > float(answer[0, 4, 4, 2])  # red: a front view
