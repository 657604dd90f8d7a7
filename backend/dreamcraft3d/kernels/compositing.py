"""Volume rendering along packed rays: weights from opacities, and weighted sums (method section 5.6).

Samples are packed by ray: ray r owns entries ray_offsets[r] : ray_offsets[r + 1]. Each ray is summed by one thread,
in order: results are bitwise reproducible on every device. The CUDA path has never run on a GPU in our hands.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from dreamcraft3d.kernels import accelerators, dispatch
from dreamcraft3d.kernels.compositing_source import compositing_kernels, sum_kernels


def render_weights(alphas: Float[Tensor, " M"], ray_offsets: Int[Tensor, " R+1"]) -> Float[Tensor, " M"]:
    """w_i = alpha_i prod_{j<i} (1 - alpha_j) within each ray; differentiable once, also where alpha = 1.

    >>> render_weights(torch.tensor([0.4, 0.8, 0.1, 0.8, 0.1, 0.0, 0.9]), torch.tensor([0, 3, 5, 7]))
    tensor([0.4000, 0.4800, 0.0120, 0.8000, 0.0200, 0.0000, 0.9000])

    Raises:
        ValueError: `alphas` is not float32.
    """
    _check(alphas)
    faster = accelerators.weigh_accelerator(alphas.device) if dispatch.may_accelerate(alphas.device) else None
    return (faster or weigh_with_warp)(alphas, ray_offsets)


def weigh_with_warp(alphas: Tensor, ray_offsets: Tensor) -> Tensor:
    """Our own kernel, whatever accelerators there are."""
    inputs = (alphas.contiguous(), ray_offsets.contiguous())
    weights: Tensor = _RenderWeights.apply(*inputs)  # type: ignore[no-untyped-call]
    return weights


def accumulate(
    weights: Float[Tensor, " M"], values: Float[Tensor, "M C"] | None, ray_offsets: Int[Tensor, " R+1"]
) -> Float[Tensor, "R C"]:
    """sum of w_i v_i over each ray; without values the sum of the weights (C = 1). Differentiable once in both.

    >>> accumulate(torch.tensor([0.5, 0.25, 1.0]), None, torch.tensor([0, 2, 2, 3]))
    tensor([[0.7500],
            [0.0000],
            [1.0000]])

    Raises:
        ValueError: a tensor is not float32.
    """
    values = torch.ones_like(weights)[:, None] if values is None else values
    _check(weights, values)
    inputs = (weights.contiguous(), values.contiguous(), ray_offsets.contiguous())
    sums: Tensor = _Accumulate.apply(*inputs)  # type: ignore[no-untyped-call]
    return sums


class _RenderWeights(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, alphas: Tensor, ray_offsets: Tensor) -> Tensor:
        weights, transmittance = torch.empty_like(alphas), torch.empty_like(alphas)
        before, after = _arrays(alphas, ray_offsets), _arrays(weights, transmittance)
        _by_ray(compositing_kernels().weigh, ray_offsets, before, after)
        ctx.save_for_backward(alphas, ray_offsets, transmittance)
        return weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        alphas, ray_offsets, transmittance = ctx.saved_tensors
        result = torch.empty_like(alphas)
        before, after = _arrays(alphas, ray_offsets), _arrays(transmittance, grad.contiguous(), result)
        _by_ray(compositing_kernels().weigh_backward, ray_offsets, before, after)
        return result, None


class _Accumulate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, values: Tensor, ray_offsets: Tensor) -> Tensor:
        kernels, vector = sum_kernels(values.shape[1]), sum_kernels(values.shape[1]).vector
        output = values.new_empty(len(ray_offsets) - 1, values.shape[1])
        w, at, v, out = *_arrays(weights, ray_offsets), *_arrays(values, output, dtype=vector)
        _by_ray(kernels.gather, ray_offsets, [w, v, at], [out])
        ctx.save_for_backward(weights, values, ray_offsets)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        weights, values, ray_offsets = ctx.saved_tensors
        kernels, vector = sum_kernels(values.shape[1]), sum_kernels(values.shape[1]).vector
        grad_weights = torch.empty_like(weights) if ctx.needs_input_grad[0] else None
        grad_values = torch.empty_like(values) if ctx.needs_input_grad[1] else None
        w, at, v, g = *_arrays(weights, ray_offsets), *_arrays(values, grad.contiguous(), dtype=vector)
        if grad_weights is not None:
            _by_ray(kernels.grade_weights, ray_offsets, [v, at], [g, *_arrays(grad_weights)])
        if grad_values is not None:
            _by_ray(kernels.grade_values, ray_offsets, [w, at], [g, *_arrays(grad_values, dtype=vector)])
        return grad_weights, grad_values, None


def _arrays(*tensors: Tensor, dtype: Any = None) -> list[Any]:
    return [dispatch.view(tensor, dtype) for tensor in tensors]


def _by_ray(kernel: Any, ray_offsets: Tensor, before: list[Any], after: list[Any]) -> None:
    """One thread per ray; every kernel takes the number of its first ray between two groups of arrays."""

    def body(first: int, count: int) -> None:
        dispatch.launch(kernel, count, [*before, first, *after])

    dispatch.in_ranges(ray_offsets.device, len(ray_offsets) - 1, body)


def _check(*tensors: Tensor) -> None:
    for tensor in tensors:
        if tensor.dtype != torch.float32:
            raise ValueError(f"compositing works in float32, got {tensor.dtype}")
