import pytest
import torch

from dreamcraft3d.guidance import Form, distill, plausible_rgba
from dreamcraft3d.priors.base import ViewCondition
from dreamcraft3d.priors.oracle import OraclePrior

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
