"""Pictures in bands of rows: how the rasteriser's launches share the threads of the CPU without writing to the same
place.

Scattered gradients go to one buffer per band, and the buffers are added in order; their number never depends on the
machine, so gradients are bitwise the same on any number of threads.
"""

from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from dreamcraft3d.kernels import dispatch

GRADIENT_BANDS = 4


def as_warp(tensor: Tensor, width: int | None = None) -> Any:
    """A Warp view of a contiguous tensor; its last axis becomes a vector type of that width (1 = it stays an axis)."""
    wp = dispatch.warp()
    width = tensor.shape[-1] if width is None else width
    name = str(tensor.dtype).removeprefix("torch.")
    vectors = {
        ("float32", 2): wp.vec2,
        ("float32", 3): wp.vec3,
        ("float32", 4): wp.vec4,
        ("int32", 3): wp.vec3i,
    }
    return dispatch.view(tensor, getattr(wp, name) if width == 1 else vectors[name, width])


def loaded(kernels: SimpleNamespace, device: torch.device) -> SimpleNamespace:
    """The same kernels, compiled for the device: before several threads launch, and would compile, a new one."""
    _load(next(iter(vars(kernels).values())).module.name, device)
    return kernels


@cache
def _load(module: str, device: torch.device) -> None:
    wp = dispatch.warp()
    wp.load_module(module, device=wp.device_from_torch(device))


def gradient_buffers(tensor: Tensor) -> Tensor:
    """Zeros like the tensor, one per band; add them over the first axis."""
    return tensor.new_zeros(GRADIENT_BANDS if tensor.device.type == "cpu" else 1, *tensor.shape)


def over_rows(device: torch.device, height: int, body: Callable[[int, int], None]) -> None:
    """body(first row, rows) for bands that cover the picture, one per thread."""
    _in_bands(device, height, min(dispatch.threads(), 8), lambda _, first, rows: body(first, rows))


def over_gradient_bands(device: torch.device, height: int, body: Callable[[int, int, int], None]) -> None:
    """body(number of the buffer, first row, rows) for the bands of `gradient_buffers`."""
    _in_bands(device, height, GRADIENT_BANDS, body)


def _in_bands(device: torch.device, height: int, count: int, body: Callable[[int, int, int], None]) -> None:
    count = count if device.type == "cpu" else 1

    def band(k: int, _: int) -> None:
        first, end = height * k // count, height * (k + 1) // count
        if end > first:
            body(k, first, end - first)

    dispatch.in_parallel(device, [(k, 1) for k in range(count)], band)
