"""Adapters teach a frozen network without touching it."""

import copy

import pytest
import torch

from dreamcraft3d.guidance import learn
from dreamcraft3d.priors.adapters import AdapterName, Adapters, attached, camera_vector
from dreamcraft3d.priors.base import Personalisable, ViewCondition
from dreamcraft3d.priors.bundled import BundledPrior
from dreamcraft3d.priors.components import NoiseSchedule
from dreamcraft3d.priors.network import BundledNetwork
from dreamcraft3d.priors.prompts import Prompts
from dreamcraft3d.priors.stable_diffusion import StableDiffusionPrior
from tiny_models import EMBEDDING, tiny_unet, tiny_vae

RANKS: dict[AdapterName, int] = {"personal": 4, "variational": 2}
T = torch.tensor([300, 700])


def bundled() -> BundledPrior:
    torch.manual_seed(3)
    network = BundledNetwork(channels=(16, 16), widths=(8, 16, 32), planes=4, embedding=32)
    torch.nn.init.normal_(network.unet.conv_out.weight, std=0.05)
    return BundledPrior(network)


def diffusion(dtype: torch.dtype = torch.float32) -> StableDiffusionPrior:
    prompts = Prompts(torch.randn(10, 5, EMBEDDING, generator=torch.Generator().manual_seed(4)))
    schedule = NoiseSchedule(torch.linspace(0.999, 0.01, 1000), "epsilon")
    unet, vae = (network.to(dtype).requires_grad_(False) for network in (tiny_unet("unet-sd-2"), tiny_vae()))
    return StableDiffusionPrior("tiny", unet, vae, schedule, prompts, dtype=dtype).to("cpu")


@pytest.fixture(params=[bundled, diffusion])
def prior(request: pytest.FixtureRequest) -> Personalisable:
    return request.param()  # type: ignore[no-any-return]


def condition() -> ViewCondition:
    picture = torch.rand(1, 64, 64, 4, generator=torch.Generator().manual_seed(5))
    return ViewCondition(picture, 0.1, torch.tensor([0.0, 0.4]), torch.tensor([0.3, 2.5]))


def noisy(prior: Personalisable) -> torch.Tensor:
    blank = prior.encode(torch.zeros(1, 64, 64, 4))
    return torch.randn((2, *blank.shape[1:]), generator=torch.Generator().manual_seed(6))


def asked(prior: Personalisable) -> torch.Tensor:
    return prior.predict_noise(noisy(prior), T, condition(), cfg_scale=3.0)


def teach(prior: Personalisable, adapters: Adapters, adapter: AdapterName, steps: int) -> list[float]:
    """A plain picture, with the same noise and timesteps at every step, so that losses compare."""
    x = torch.full_like(noisy(prior), 0.6)
    optimiser = torch.optim.AdamW(adapters.by_name[adapter].parameters(), lr=0.01)
    losses = []
    for _ in range(steps):
        generator = torch.Generator().manual_seed(7)
        optimiser.zero_grad()
        loss = learn(prior, adapters, adapter, x, condition(), dropout=0.1, generator=generator)
        optimiser.step()
        losses.append(float(loss))
    return losses


@pytest.mark.slow
def test_an_adapter_learns_and_the_network_does_not(prior: Personalisable) -> None:
    before, weights = asked(prior), copy.deepcopy(prior.unet.state_dict())
    with attached(prior, RANKS, torch.Generator().manual_seed(0)) as adapters:
        assert torch.equal(asked(prior), before)
        for adapter in RANKS:
            with adapters.using(adapter, camera_vector(condition())):
                assert torch.equal(asked(prior), before)  # it has nothing to say yet
        losses = teach(prior, adapters, "personal", 25)
        assert losses[-1] < 0.7 * losses[0]
        assert all(p.grad is not None for p in adapters.by_name["personal"].parameters())
        assert all(p.grad is None for p in adapters.by_name["variational"].parameters())
        with adapters.using("personal", camera_vector(condition())):
            assert not torch.allclose(asked(prior), before)
        with adapters.using("variational", camera_vector(condition())):
            assert torch.equal(asked(prior), before)
        assert torch.equal(asked(prior), before)
        untouched = [name for name, p in prior.unet.named_parameters() if "lora_" not in name and p.grad is not None]
        assert untouched == []
    assert torch.equal(asked(prior), before)
    after = prior.unet.state_dict()
    assert after.keys() == weights.keys()
    assert all(torch.equal(after[name], weights[name]) for name in weights)


def test_adapters_go_when_the_work_fails(prior: Personalisable) -> None:
    names = prior.unet.state_dict().keys()
    with pytest.raises(RuntimeError, match="broken"), attached(prior, RANKS, torch.Generator()):
        raise RuntimeError("broken")
    assert prior.unet.state_dict().keys() == names
    with attached(prior, RANKS, torch.Generator()):  # and the next run can have its own
        pass


def test_an_adapter_is_told_the_camera(prior: Personalisable) -> None:
    with attached(prior, RANKS, torch.Generator().manual_seed(0)) as adapters:
        teach(prior, adapters, "variational", 10)
        with adapters.using("variational", camera_vector(condition())):
            here = asked(prior)
        with adapters.using("variational", camera_vector(condition()).flip(0)):
            assert not torch.equal(asked(prior), here)


def test_the_same_random_numbers_make_the_same_adapters(prior: Personalisable) -> None:
    states = []
    for _ in range(2):
        with attached(prior, RANKS, torch.Generator().manual_seed(11)) as adapters:
            states.append({key: value.clone() for key, value in adapters.by_name["personal"].layers.items()})
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_recomputed_activations_go_through_the_same_adapter() -> None:
    """Gradient checkpointing runs the network again in the backward pass: the gradient must not change."""
    gradients = []
    for recompute in (False, True):
        prior = diffusion()
        if recompute:
            assert prior.save_memory()
            assert prior.unet.is_gradient_checkpointing
        with attached(prior, RANKS, torch.Generator().manual_seed(0)) as adapters:
            teach(prior, adapters, "personal", 3)
            gradients.append([p.grad.clone() for p in adapters.by_name["personal"].parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 10
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))


def test_adapters_of_a_network_in_half_precision_are_in_full() -> None:
    """Issue B1: in half precision, steps as small as theirs are lost."""
    prior = diffusion(torch.bfloat16)
    before = asked(prior)
    assert before.dtype == torch.float32
    with attached(prior, RANKS, torch.Generator().manual_seed(0)) as adapters:
        assert {p.dtype for adapter in adapters.by_name.values() for p in adapter.parameters()} == {torch.float32}
        assert torch.equal(asked(prior), before)
        teach(prior, adapters, "personal", 2)
        assert all(
            bool(p.grad.isfinite().all()) for p in adapters.by_name["personal"].parameters() if p.grad is not None
        )
