"""Multiresolution hash grid with tiny-cuda-nn's indexing and parameter order (Instant NGP; method section 5.1).

A checkpoint's table therefore moves between this kernel, its twin and tiny-cuda-nn. Level l = 0..L-1 has the scale
s_l = base growth^l - 1 (in float32, as there), the resolution N_l = ceil(s_l) + 1 and min(round_up(N_l^3, 8), T)
entries; it is dense if N_l^3 <= T, otherwise hashed. A point u in [0,1]^3 lies at p = u s_l + 1/2; the features at
the eight corners of its cell are interpolated linearly. A dense index that leaves its level wraps around, as in tiny-
cuda-nn.

Determinism: on the CPU results are bitwise the same for any number of threads. On CUDA the order of the atomic
additions to the table's gradient is the hardware's; that path has never run on a GPU in our hands.
"""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from dreamcraft3d.kernels import accelerators, dispatch
from dreamcraft3d.kernels.hash_grid_source import hash_grid_kernels, hash_grid_types

PRIMES = (1, 2654435761, 805459861)
FEATURES = (1, 2, 4, 8)


@dataclass(frozen=True)
class HashGridLayout:
    """Shape of a hash grid: L `levels` of `features` each; T = 2^log2_table_size entries per level at most.

    >>> HashGridLayout().entries
    6299960
    """

    levels: int = 16
    features: int = 2
    base_resolution: int = 16
    growth: float = 1.447269237440378
    log2_table_size: int = 19

    def __post_init__(self) -> None:
        if self.features not in FEATURES:
            raise ValueError(f"features must be one of {FEATURES}, got {self.features}")
        if self.levels < 1 or self.base_resolution < 2 or self.growth < 1.0 or not 3 <= self.log2_table_size <= 24:
            raise ValueError(f"levels >= 1, base_resolution >= 2, growth >= 1 and 3 <= log2_table_size <= 24: {self}")

    @cached_property
    def scales(self) -> tuple[float, ...]:
        """s_l: how many cells the unit interval spans on each level."""
        log2_growth = np.log2(np.float32(self.growth))
        powers = np.exp2(np.arange(self.levels, dtype=np.float32) * log2_growth)
        return tuple((powers * np.float32(self.base_resolution) - np.float32(1.0)).tolist())

    @cached_property
    def resolutions(self) -> tuple[int, ...]:
        """N_l: grid points per side."""
        return tuple(math.ceil(scale) + 1 for scale in self.scales)

    @cached_property
    def hashed(self) -> tuple[bool, ...]:
        """Whether a level has more grid points than entries."""
        return tuple(n**3 > 1 << self.log2_table_size for n in self.resolutions)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """First row of each level in the table, and the number of rows at the end."""
        sizes = [min((n**3 + 7) // 8 * 8, 1 << self.log2_table_size) for n in self.resolutions]
        return (0, *np.cumsum(sizes).tolist())

    @property
    def entries(self) -> int:
        """Rows of the whole table."""
        return self.offsets[-1]


def hash_encode(
    points: Float[Tensor, "N 3"],
    table: Float[Tensor, "E F"],
    layout: HashGridLayout,
    *,
    active_levels: int | None = None,
) -> Float[Tensor, "N C"]:
    """Features of points, level-major: C = levels * features. Differentiable (once) in points and table.

    Args:
        points: in [0,1]^3; those outside are clamped, those not finite give NaN.
        table: float32, `layout.entries` rows.
        active_levels: levels from this one on read zero and receive no gradient.

    Raises:
        ValueError: the table does not fit the layout, or a tensor is not float32.
    """
    if table.shape != (layout.entries, layout.features):
        raise ValueError(f"table must be {layout.entries} x {layout.features}, got {tuple(table.shape)}")
    if points.dtype != torch.float32 or table.dtype != torch.float32:
        raise ValueError(f"points and table must be float32, got {points.dtype} and {table.dtype}")
    active = layout.levels if active_levels is None else min(max(active_levels, 0), layout.levels)
    faster = accelerators.encode_accelerator(points.device) if dispatch.may_accelerate(points.device) else None
    return (faster or encode_with_warp)(points, table, layout, active)


def encode_with_warp(points: Tensor, table: Tensor, layout: HashGridLayout, active: int) -> Tensor:
    """Our own kernel, whatever accelerators there are."""
    inputs = (points.contiguous(), table.contiguous(), layout, active)
    output: Tensor = _HashEncode.apply(*inputs)  # type: ignore[no-untyped-call]
    return output


class _HashEncode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, table: Tensor, layout: HashGridLayout, active: int) -> Tensor:
        output = points.new_empty(len(points), layout.levels, layout.features)
        output[:, active:] = 0.0
        _encode(points, table, layout, active, output)
        ctx.save_for_backward(points, table)
        ctx.layout, ctx.active = layout, active
        return output.flatten(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        points, table = ctx.saved_tensors
        grad = grad.contiguous().view(len(points), ctx.layout.levels, ctx.layout.features)
        for_points, for_table = ctx.needs_input_grad[:2]
        grad_points = _slope(points, table, ctx.layout, ctx.active, grad) if for_points else None
        grad_table = _scatter(points, table, ctx.layout, ctx.active, grad) if for_table else None
        return grad_points, grad_table, None, None


def _encode(points: Tensor, table: Tensor, layout: HashGridLayout, active: int, output: Tensor) -> None:
    kernels, levels = hash_grid_kernels(layout.features), _levels(layout, points.device)
    u, rows, out = _vec3(points), dispatch.view(table, kernels.vector), dispatch.view(output, kernels.vector)

    def body(first: int, count: int) -> None:
        dispatch.launch(kernels.encode, (active, count), [u, rows, levels, first, out])

    dispatch.in_ranges(points.device, len(points), body)


def _scatter(points: Tensor, table: Tensor, layout: HashGridLayout, active: int, grad: Tensor) -> Tensor:
    """By level on the CPU: each thread has rows of its own and adds in the order of the points."""
    kernels, levels = hash_grid_kernels(layout.features), _levels(layout, points.device)
    result = torch.zeros_like(table)
    u, g, out = _vec3(points), dispatch.view(grad, kernels.vector), dispatch.view(result, kernels.vector)

    def body(first: int, count: int) -> None:
        dispatch.launch(kernels.scatter, (count, len(points)), [u, g, levels, first, out])

    by_level = points.device.type == "cpu" and len(points) >= dispatch.SMALL
    dispatch.in_parallel(points.device, [(level, 1) for level in range(active)] if by_level else [(0, active)], body)
    return result


def _slope(points: Tensor, table: Tensor, layout: HashGridLayout, active: int, grad: Tensor) -> Tensor:
    """On the CPU level after level, so that one level fills the cache; on CUDA all levels in one launch."""
    kernels, levels = hash_grid_kernels(layout.features), _levels(layout, points.device)
    result = torch.zeros_like(points)
    u, rows, out = _vec3(points), dispatch.view(table, kernels.vector), _vec3(result)
    g = dispatch.view(grad, kernels.vector)
    passes = [(level, level + 1) for level in range(active)] if points.device.type == "cpu" else [(0, active)]

    def body(first: int, count: int) -> None:
        for low, high in passes:
            dispatch.launch(kernels.slope, count, [u, rows, levels, low, high, g, first, out])

    dispatch.in_ranges(points.device, len(points), body)
    return result


def _vec3(tensor: Tensor) -> Any:
    return dispatch.view(tensor, dispatch.warp().vec3)


@lru_cache(maxsize=32)
def _levels(layout: HashGridLayout, device: torch.device) -> Any:
    """The levels as the kernels read them."""
    wp, Level = dispatch.warp(), hash_grid_types().Level
    records = []
    for k, n in enumerate(layout.resolutions):
        level = Level()
        level.scale, level.hashed = layout.scales[k], int(layout.hashed[k])
        level.first, level.entries = layout.offsets[k], layout.offsets[k + 1] - layout.offsets[k]
        level.stride_y, level.stride_z = PRIMES[1:] if layout.hashed[k] else (n, n * n)
        records.append(level)
    levels = wp.array(records, dtype=Level, device=wp.device_from_torch(device))
    dispatch.settle(device)
    return levels
