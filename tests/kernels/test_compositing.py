"""Weights and sums along packed rays: closed forms, the twin, nerfacc as an independent witness, opaque samples."""

import importlib.util
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dreamcraft3d.kernels import dispatch
from dreamcraft3d.kernels.compositing import accumulate, render_weights
from dreamcraft3d.kernels.reference import compositing as twin


def packed(counts: list[int], channels: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    total = sum(counts)
    offsets = torch.tensor([0, *counts]).cumsum(0)
    return torch.rand(total, generator=generator), torch.randn(total, channels, generator=generator), offsets


def losses(module: object, alphas: Tensor, values: Tensor | None, offsets: Tensor) -> list[Tensor]:
    """Weights, sums, and the gradients of a curved function of both."""
    weights = module.render_weights(alphas, offsets)  # type: ignore[attr-defined]
    sums = module.accumulate(weights, values, offsets)  # type: ignore[attr-defined]
    wanted = [t for t in (alphas, values) if t is not None]
    return [weights, sums, *torch.autograd.grad((sums.square().sum() + weights.sin().sum()), wanted)]


def test_seven_alphas_in_seven_weights_out() -> None:
    alphas = torch.tensor([0.4, 0.8, 0.1, 0.8, 0.1, 0.0, 0.9])
    offsets = torch.tensor([0, 3, 3, 5, 7])
    weights = render_weights(alphas, offsets)
    torch.testing.assert_close(weights, torch.tensor([0.4, 0.48, 0.012, 0.8, 0.02, 0.0, 0.9]))
    torch.testing.assert_close(accumulate(weights, None, offsets), torch.tensor([[0.892], [0.0], [0.82], [0.9]]))


@pytest.mark.parametrize("channels", [None, 1, 3, 8, 11])
def test_values_and_gradients_equal_the_twin_s(channels: int | None) -> None:
    import dreamcraft3d.kernels.compositing as ours

    counts = torch.randint(0, 7, (dispatch.SMALL + 3,), generator=torch.Generator().manual_seed(2)).tolist()
    alphas, values, offsets = packed(counts, channels or 1)
    alphas[::9] = 1.0
    alphas.requires_grad_()
    inputs = (alphas, None if channels is None else values.requires_grad_(), offsets)
    for mine, reference in zip(losses(ours, *inputs), losses(twin, *inputs), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-5)


def test_twin_s_gradients_equal_finite_differences() -> None:
    alphas, values, offsets = packed([3, 0, 4], 2)
    inputs = ((0.1 + 0.8 * alphas.double()).requires_grad_(), values.double().requires_grad_())

    def sums(alphas: Tensor, values: Tensor) -> Tensor:
        return twin.accumulate(twin.render_weights(alphas, offsets), values, offsets)

    assert torch.autograd.gradcheck(sums, inputs)


def test_opaque_samples_have_finite_and_exact_gradients() -> None:
    alphas = torch.tensor([0.5, 1.0, 0.25, 1.0, 1.0], requires_grad=True)
    (grad,) = torch.autograd.grad(
        render_weights(alphas, torch.tensor([0, 5])) @ torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0]), alphas
    )
    # Behind alpha_1 = 1 there is no light; d/d alpha_0 = 1 - 2 and d/d alpha_1 = (2 - what lies behind) / 2.
    torch.testing.assert_close(grad, torch.tensor([-1.0, 0.5 * (2.0 - (0.25 * 4.0 + 0.75 * 8.0)), 0.0, 0.0, 0.0]))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.floats(0.0, 1.0, width=32), max_size=6), min_size=1, max_size=5))
def test_light_is_conserved(rays: list[list[float]]) -> None:
    alphas = torch.tensor([a for ray in rays for a in ray])
    offsets = torch.tensor([0, *(len(ray) for ray in rays)]).cumsum(0)
    weights = render_weights(alphas, offsets)
    passed = torch.tensor([math.prod(1.0 - a for a in ray) for ray in rays])
    assert bool(((weights >= 0.0) & (weights <= 1.0)).all())
    torch.testing.assert_close(accumulate(weights, None, offsets)[:, 0], 1.0 - passed, rtol=0.0, atol=1e-5)


@pytest.mark.skipif(importlib.util.find_spec("nerfacc") is None, reason="nerfacc is not installed")
def test_nerfacc_agrees() -> None:
    import nerfacc

    rays, length = 20, 9
    alphas, values, offsets = packed([length] * rays, 3)
    expected, _ = nerfacc.render_weight_from_alpha(alphas.view(rays, length))
    weights = render_weights(alphas, offsets)
    torch.testing.assert_close(weights.view(rays, length), expected)
    ray_indices = torch.arange(rays).repeat_interleave(length)
    sums = nerfacc.accumulate_along_rays(weights, values, ray_indices=ray_indices, n_rays=rays)
    torch.testing.assert_close(accumulate(weights, values, offsets), sums)


def test_only_wanted_gradients_are_made() -> None:
    alphas, values, offsets = packed([4, 2], 3)
    values.requires_grad_()
    (grad,) = torch.autograd.grad(accumulate(alphas, values, offsets).sum(), values)
    torch.testing.assert_close(grad, alphas[:, None].expand_as(values))


def test_refuses_other_types() -> None:
    alphas, values, offsets = packed([2], 1)
    with pytest.raises(ValueError, match="float32"):
        render_weights(alphas.double(), offsets)
    with pytest.raises(ValueError, match="float32"):
        accumulate(alphas, values.half(), offsets)
