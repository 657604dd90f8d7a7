"""The ideal local score: the posterior mean over the picture's patches, and what is rare among them."""

import pytest
import torch
from torch import Tensor

from dreamcraft3d.functional.diffusion import add_noise, noise_to_x0
from dreamcraft3d.guidance import distill
from dreamcraft3d.priors.base import DiffusionPrior, ViewCondition
from dreamcraft3d.priors.exemplar import ExemplarPrior, patch_rarity
from dreamcraft3d.priors.loading import check_present, load_prior, needs_words

SIZE = 24


def checkers(size: int = SIZE, tile: int = 3) -> Tensor:
    """An opaque picture of two colours in squares, 1 x size x size x 4."""
    axis = torch.arange(size) // tile
    board = ((axis[:, None] + axis[None]) % 2).float()[..., None]
    colour = board * torch.tensor([0.9, 0.2, 0.1]) + (1.0 - board) * torch.tensor([0.1, 0.3, 0.8])
    return torch.cat([colour, torch.ones(size, size, 1)], dim=-1)[None]


def condition(picture: Tensor) -> ViewCondition:
    return ViewCondition(picture, 0.0, torch.zeros(1), torch.zeros(1))


def noisy(prior: ExemplarPrior, picture: Tensor, t: int) -> tuple[Tensor, Tensor]:
    x, steps = prior.encode(picture), torch.tensor([t])
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    return add_noise(x, noise, prior.alphas_cumprod, steps), steps


def test_it_is_a_prior_without_weights_that_goes_by_its_name() -> None:
    prior: DiffusionPrior = load_prior("exemplar")
    assert isinstance(prior, ExemplarPrior)
    check_present(("exemplar",))
    assert not needs_words("exemplar")


def test_little_noise_is_taken_off_and_a_shifted_picture_stays() -> None:
    prior, picture = ExemplarPrior(image_size=SIZE), checkers()
    moved = picture.roll((1, 2), (1, 2))
    x_t, t = noisy(prior, moved, 200)
    clean = prior.decode(prior.predict_x0(x_t, t, picture))
    inner = slice(6, SIZE - 6)
    before = (prior.decode(x_t / prior.alphas_cumprod[200].sqrt()) - moved)[:, inner, inner].abs().mean()
    after = (clean - moved)[:, inner, inner].abs().mean()
    assert float(after) < 0.1 * float(before)


def test_pure_noise_gives_the_mean_of_the_patches() -> None:
    prior, picture = ExemplarPrior(image_size=SIZE, rarity=0.0), checkers()
    x_t, t = noisy(prior, picture, 999)
    mean = prior.decode(prior.predict_x0(x_t, t, picture))[0, 8:16, 8:16].mean((0, 1))
    torch.testing.assert_close(mean, picture.mean((0, 1, 2)), atol=0.06, rtol=0.0)


def test_noise_and_clean_picture_say_the_same() -> None:
    prior, picture = ExemplarPrior(image_size=SIZE), checkers()
    x_t, t = noisy(prior, picture, 500)
    noise = prior.predict_noise(x_t, t, condition(picture), cfg_scale=7.0)
    x0 = noise_to_x0(x_t, noise, prior.alphas_cumprod, t)
    torch.testing.assert_close(x0, prior.predict_x0(x_t, t, picture), atol=1e-4, rtol=0.0)
    assert prior.evaluations == 2


def test_patches_may_be_mirrored() -> None:
    picture = checkers()
    picture[..., :3] = torch.linspace(0.0, 1.0, SIZE)[None, None, :, None] ** 2
    prior = ExemplarPrior(image_size=SIZE)
    x_t, t = noisy(prior, picture.flip(2), 200)
    clean = prior.decode(prior.predict_x0(x_t, t, picture))
    assert float((clean - picture.flip(2))[:, :, 4:-4].abs().max()) < 0.08


def test_distillation_pulls_a_render_towards_the_picture_s_patches() -> None:
    prior, picture = ExemplarPrior(image_size=SIZE), checkers()
    render = torch.cat([torch.full((1, SIZE, SIZE, 3), 0.45), torch.ones(1, SIZE, SIZE, 1)], dim=-1).requires_grad_()
    result = distill(
        prior,
        render,
        condition(picture),
        torch.tensor([300]),
        cfg_scale=1.0,
        form="x0",
        generator=torch.Generator().manual_seed(0),
    )
    (gradient,) = torch.autograd.grad(result.loss, render)
    assert float(result.loss.detach()) > 0.0
    assert bool(torch.isfinite(gradient).all())
    assert float(gradient.abs().max()) > 0.0


def test_an_eye_is_rare_and_a_texture_is_not() -> None:
    picture = checkers(32)[0, ..., :3].clone()
    picture[12:17, 20:25] = 0.0
    rarity = patch_rarity(picture, torch.ones(32, 32, dtype=torch.bool), 5)
    assert float(rarity[14, 22]) > 0.02
    assert float(rarity[4:8, 4:28].max()) < 0.1 * float(rarity[14, 22])  # at the border patches are made up in part
    assert float(rarity[22:28, 4:28].max()) < 0.1 * float(rarity[14, 22])


def test_outside_the_object_nothing_is_rare() -> None:
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[3:13, 3:13] = True
    rarity = patch_rarity(torch.rand(16, 16, 3, generator=torch.Generator().manual_seed(0)), inside, 3)
    assert float(rarity[~inside].abs().max()) == 0.0
    assert float(patch_rarity(torch.rand(16, 16, 3), torch.zeros(16, 16, dtype=torch.bool), 3).max()) == 0.0


def test_even_patches_are_refused() -> None:
    with pytest.raises(ValueError, match="odd"):
        ExemplarPrior(patch=4)
