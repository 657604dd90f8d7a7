from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from dreamcraft3d.functional.diffusion import x0_to_noise
from dreamcraft3d.guidance import Form, distill, distill_variationally, plausible_rgba
from dreamcraft3d.priors.adapters import Adapters, attached
from dreamcraft3d.priors.base import ViewCondition
from dreamcraft3d.priors.components import NoiseSchedule
from dreamcraft3d.priors.oracle import OraclePrior
from dreamcraft3d.priors.prompts import Prompts
from dreamcraft3d.priors.stable_diffusion import StableDiffusionPrior
from tiny_models import EMBEDDING, tiny_unet, tiny_vae

SIZE = 12


def prior() -> OraclePrior:
    truth = plausible_rgba(torch.rand(1, SIZE, SIZE, 4, generator=torch.Generator().manual_seed(5)))
    return OraclePrior(lambda e, a, content, size: truth.expand(len(a), -1, -1, -1), image_size=SIZE)


def condition(count: int) -> ViewCondition:
    return ViewCondition(torch.zeros(1, SIZE, SIZE, 4), 0.0, torch.zeros(count), torch.zeros(count))


@pytest.mark.parametrize("form", ["x0", "sds"])
def test_score_distillation_with_an_exact_prior_finds_the_picture(form: Form) -> None:
    """Method section 18, test 9: SDS with an oracle denoiser must drive a picture to the true one."""
    oracle = prior()
    image = torch.full((1, SIZE, SIZE, 4), 0.5, requires_grad=True)
    optimiser = torch.optim.Adam([image], lr=0.03)
    generator = torch.Generator().manual_seed(0)
    for _ in range(120):
        t = torch.randint(200, 800, (1,), generator=generator)
        distilled = distill(oracle, image, condition(1), t, cfg_scale=1.0, form=form, generator=generator)
        optimiser.zero_grad()
        distilled.loss.backward()
        optimiser.step()
    truth = oracle.decode(oracle.encode(oracle._true_view(torch.zeros(1), torch.zeros(1), "rgba", SIZE)))
    assert float((image.detach() - truth).abs().mean()) < 0.02
    assert oracle.evaluations == 120


def test_both_forms_point_the_same_way() -> None:
    gradients = []
    for form in ("x0", "sds"):
        image = torch.full((2, SIZE, SIZE, 4), 0.5, requires_grad=True)
        generator = torch.Generator().manual_seed(1)
        t = torch.tensor([400, 400])
        distill(prior(), image, condition(2), t, cfg_scale=1.0, form=form, generator=generator).loss.backward()
        assert image.grad is not None
        gradients.append(image.grad.flatten())
    assert float(torch.cosine_similarity(gradients[0], gradients[1], dim=0)) > 0.999


def test_a_broken_prediction_pulls_nowhere() -> None:
    class Broken(OraclePrior):
        def predict_noise(self, x_t, t, condition, *, cfg_scale):  # type: ignore[no-untyped-def]
            return torch.full_like(x_t, torch.nan)

    broken = Broken(prior()._true_view, image_size=SIZE)
    for form in ("x0", "sds"):
        image = torch.full((1, SIZE, SIZE, 4), 0.5, requires_grad=True)
        generator = torch.Generator().manual_seed(0)
        t = torch.tensor([500])
        distill(broken, image, condition(1), t, cfg_scale=1.0, form=form, generator=generator).loss.backward()
        assert image.grad is not None
        assert float(image.grad.abs().max()) == 0.0


def test_plausible_pictures_are_premultiplied() -> None:
    rgba = plausible_rgba(torch.tensor([[[[0.9, -0.1, 0.3, 0.5], [1.0, 1.0, 1.0, 1.7]]]]))
    assert torch.allclose(rgba, torch.tensor([[[[0.5, 0.0, 0.3, 0.5], [1.0, 1.0, 1.0, 1.0]]]]))


class LatentOracle(StableDiffusionPrior):
    """The exact denoiser of one latent, behind a real autoencoder and a real (tiny) network for the adapters.

    With `render` the variational adapter is exact too: it knows the render.
    """

    def __init__(self, *, seed: int = 3) -> None:
        vae, unet = tiny_vae().requires_grad_(False), tiny_unet("unet-sd-2").requires_grad_(False)
        words = Prompts(torch.randn(10, 5, EMBEDDING, generator=torch.Generator().manual_seed(4)))
        schedule = NoiseSchedule(torch.linspace(0.999, 0.01, 1000), "epsilon")
        super().__init__("oracle", unet, vae, schedule, words, dtype=torch.float32)
        picture = torch.rand(1, 16, 16, 4, generator=torch.Generator().manual_seed(seed))
        picture[..., 3] = 1.0
        with torch.no_grad():
            self.truth = self.encode(picture)
        self.adapters: Adapters | None = None
        self.render: Tensor | None = None

    @torch.no_grad()
    def predict_noise(self, x_t: Tensor, t: Tensor, condition: ViewCondition, *, cfg_scale: float) -> Tensor:
        """The truth by the frozen or the personal prior; the variational adapter is the real network."""
        if self.adapters is not None and self.adapters._active == "variational":
            if self.render is not None:
                return x0_to_noise(x_t, self.render.expand_as(x_t), self.alphas_cumprod, t)
            return super().predict_noise(x_t, t, condition, cfg_scale=cfg_scale)
        return x0_to_noise(x_t, self.truth.expand_as(x_t), self.alphas_cumprod, t)


def latent_error(prior: LatentOracle, image: Tensor) -> float:
    with torch.no_grad():
        return float((prior.encode(image) - prior.truth).square().mean() / prior.truth.square().mean())


@pytest.mark.parametrize("form", ["x0", "sds"])
def test_an_exact_prior_is_followed_through_the_autoencoder(form: Form) -> None:
    """The latent path: the gradient of what the prior says in latents reaches pixels through the encoder."""
    prior = LatentOracle()
    image = torch.rand(1, 16, 16, 4, generator=torch.Generator().manual_seed(9))
    image[..., 3] = 1.0
    image.requires_grad_()
    optimiser = torch.optim.Adam([image], lr=0.02)
    generator = torch.Generator().manual_seed(0)
    before = latent_error(prior, image)
    for _ in range(150):
        t = torch.randint(200, 800, (1,), generator=generator)
        said = distill(prior, image, condition(1), t, cfg_scale=1.0, form=form, generator=generator)
        optimiser.zero_grad()
        said.loss.backward()
        optimiser.step()
    assert latent_error(prior, image) < 0.05 * before
    assert said.show().shape == (1, 16, 16, 4)


@pytest.fixture
def oracle() -> Iterator[LatentOracle]:
    prior = LatentOracle()
    with attached(prior, {"personal": 4, "variational": 8}, torch.Generator().manual_seed(0)) as adapters:
        prior.adapters = adapters
        yield prior


def test_against_its_own_score_the_pull_has_no_noise_and_ends_at_the_truth() -> None:
    """With exact D and Q, g = w (eps_D - eps_Q) = w sqrt(alphabar / (1 - alphabar)) (x - x*), whatever noise was drawn;
    the noise of sds stays even at the truth."""
    image = torch.rand(1, 16, 16, 4, generator=torch.Generator().manual_seed(9))
    image[..., 3] = 1.0
    t = torch.tensor([600])
    prior = LatentOracle()
    with torch.no_grad():
        prior.render = x = prior.encode(image)
    alphabar = prior.alphas_cumprod[t]
    expected = (1.0 - alphabar) * (alphabar / (1.0 - alphabar)).sqrt() * (x - prior.truth)
    with attached(prior, {"personal": 2, "variational": 2}, torch.Generator().manual_seed(0)) as adapters:
        prior.adapters = adapters
        for seed in range(2):
            prior.encode = lambda rgba: x.clone().requires_grad_()  # type: ignore[method-assign]
            said = distill_variationally(
                prior, adapters, image, condition(1), t, cfg_scale=3.0, personal=True,
                generator=torch.Generator().manual_seed(seed),
            )  # fmt: skip
            assert float(said.loss.detach()) == pytest.approx(0.5 * float(expected.square().mean()), rel=1e-3)
        prior.truth = x
        said = distill_variationally(
            prior, adapters, image, condition(1), t, cfg_scale=3.0, personal=True, generator=torch.Generator()
        )
        assert float(said.loss.detach()) < 1e-9


def test_variational_gradients_reach_the_render_only(oracle: LatentOracle) -> None:
    assert oracle.adapters is not None
    image = torch.rand(2, 24, 24, 4, requires_grad=True)
    said = distill_variationally(
        oracle, oracle.adapters, image, condition(2), torch.tensor([200, 700]), cfg_scale=2.0, personal=False,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    said.loss.backward()
    assert image.grad is not None
    assert float(image.grad.abs().max()) > 0.0
    assert all(p.grad is None for adapter in oracle.adapters.by_name.values() for p in adapter.parameters())
    assert not said.x.requires_grad
