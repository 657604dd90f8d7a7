"""Faster kernels of other packages that take over on CUDA: tinycudann's hash grid, nerfacc's marching and weights.

A package is imported on the first CUDA call that could use it, never before and never for CPU tensors. Its kernel is
used only if, on a small problem, it gives the values and gradients of our own; otherwise a warning says why not. The
answer is kept. nerfacc's `accumulate_along_rays` is left out: it is torch's index_add, which gains nothing over ours.

No GPU was at hand when this was written: it was tested with stand-ins for the packages that follow their documented
interfaces, and has never run with the packages themselves.
"""

import importlib
import logging
from collections.abc import Callable
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from dreamcraft3d.kernels.hash_grid import HashGridLayout

logger = logging.getLogger(__name__)

Encode = Callable[[Tensor, Tensor, "HashGridLayout", int], Tensor]
March = Callable[[Tensor, Tensor, Tensor, Tensor, float, float, float, int], tuple[Tensor, Tensor, Tensor]]
Weigh = Callable[[Tensor, Tensor], Tensor]
Kernel = TypeVar("Kernel")

BROKEN = (ImportError, OSError, RuntimeError, AttributeError, TypeError, ValueError, AssertionError)
"""What a package raises that does not fit this machine (tinycudann: OSError without CUDA) or this interface."""


@cache
def encode_accelerator(device: torch.device) -> Encode | None:
    """tinycudann's multiresolution hash encoding in float32, reading our table."""
    from dreamcraft3d.kernels.hash_grid import HashGridLayout, encode_with_warp

    def check(encode: Encode) -> None:
        layout = HashGridLayout(levels=6, base_resolution=4, growth=1.7, log2_table_size=9)
        generator = torch.Generator().manual_seed(0)
        points = torch.rand(777, 3, generator=generator).to(device).requires_grad_()
        table = torch.randn(layout.entries, 2, generator=generator).to(device).requires_grad_()
        for active in (4, 6):
            _same_with_gradients(encode, encode_with_warp, (points, table), (layout, active))

    return _resolve("tinycudann", _tinycudann_encode, check)


@cache
def weigh_accelerator(device: torch.device) -> Weigh | None:
    """nerfacc's rendering weights along packed rays."""
    from dreamcraft3d.kernels.compositing import weigh_with_warp

    def check(weigh: Weigh) -> None:
        generator = torch.Generator().manual_seed(0)
        offsets = torch.tensor([0, 5, 5, 12, 40, 41]).to(device)
        alphas = (0.98 * torch.rand(41, generator=generator)).to(device).requires_grad_()
        _same_with_gradients(weigh, weigh_with_warp, (alphas,), (offsets,))
        opaque = torch.ones_like(alphas).requires_grad_()
        (grad,) = torch.autograd.grad(weigh(opaque, offsets).sum(), opaque)
        if not bool(grad.isfinite().all()):
            raise ValueError("gradients are not finite where alpha is 1")

    return _resolve("nerfacc", _nerfacc_weigh, check)


@cache
def march_accelerator(device: torch.device) -> March | None:
    """nerfacc's grid traversal."""
    from dreamcraft3d.kernels.marching import march_with_warp

    def check(march: March) -> None:
        generator = torch.Generator().manual_seed(0)
        origins = 3.0 * torch.nn.functional.normalize(torch.randn(200, 3, generator=generator), dim=1)
        directions = torch.nn.functional.normalize(0.5 * torch.randn(200, 3, generator=generator) - origins, dim=1)
        binary = torch.rand(8, 8, 8, generator=generator) < 0.5
        starts = 0.02 * torch.rand(200, generator=generator)
        o, d, occupied, s = (t.to(device) for t in (origins, directions, binary, starts))
        for limit in (1000, 11):
            theirs, ours = (f(o, d, occupied, s, 0.0, 0.02, 1.0, limit) for f in (march, march_with_warp))
            _same_samples(theirs, ours, 0.02)

    return _resolve("nerfacc", _nerfacc_march, check)


def _resolve(package: str, build: Callable[[Any], Kernel], check: Callable[[Kernel], None]) -> Kernel | None:
    """The package's kernel if it is installed and keeps the contract."""
    try:
        kernel = build(importlib.import_module(package))
        check(kernel)
    except BROKEN as error:
        if isinstance(error, ModuleNotFoundError) and error.name == package:
            return None
        logger.warning("%s is installed but is not used: %s", package, error)
        return None
    logger.info("%s takes over from our own kernel", package)
    return kernel


def _tinycudann_encode(package: Any) -> Encode:
    @lru_cache(maxsize=4)
    def module_of(layout: "HashGridLayout", device: torch.device) -> torch.nn.Module:
        config = {
            "otype": "HashGrid",
            "n_levels": layout.levels,
            "n_features_per_level": layout.features,
            "log2_hashmap_size": layout.log2_table_size,
            "base_resolution": layout.base_resolution,
            "per_level_scale": layout.growth,
            "interpolation": "Linear",
        }
        module: torch.nn.Module = package.Encoding(n_input_dims=3, encoding_config=config, dtype=torch.float32)
        return module.to(device)

    def encode(points: Tensor, table: Tensor, layout: "HashGridLayout", active: int) -> Tensor:
        module = module_of(layout, points.device)
        arguments = (points.clamp(0.0, 1.0),)
        features: Tensor = torch.func.functional_call(module, {"params": table.reshape(-1)}, arguments)
        channels = torch.arange(features.shape[1], device=features.device)
        return torch.where(channels < active * layout.features, features.float(), 0.0)

    return encode


def _nerfacc_weigh(package: Any) -> Weigh:
    def weigh(alphas: Tensor, ray_offsets: Tensor) -> Tensor:
        packed_info = torch.stack([ray_offsets[:-1], ray_offsets.diff()], dim=1)
        weights: Tensor = package.render_weight_from_alpha(alphas, packed_info=packed_info)[0]
        return weights

    return weigh


def _nerfacc_march(package: Any) -> March:
    def march(
        origins: Tensor,
        directions: Tensor,
        binary: Tensor,
        starts: Tensor,
        near: float,
        step: float,
        half: float,
        limit: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        box = origins.new_tensor([[-half] * 3 + [half] * 3])
        intervals, samples, _ = package.traverse_grids(
            origins, directions, binary[None], box, near_planes=starts, step_size=step, traverse_steps_limit=limit
        )
        counts = samples.packed_info[:, 1].long()
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return intervals.vals[intervals.is_left], samples.ray_indices.long(), offsets

    return march


def _same_with_gradients(
    theirs: Callable[..., Tensor], ours: Callable[..., Tensor], inputs: tuple[Tensor, ...], rest: tuple[Any, ...]
) -> None:
    """Raises AssertionError unless both give the same values, and the same gradients of a sum of sines."""
    results = []
    for function in (theirs, ours):
        output = function(*inputs, *rest)
        results.append([output, *torch.autograd.grad(output.sin().sum(), inputs)])
    for theirs_part, ours_part in zip(*results, strict=True):
        torch.testing.assert_close(theirs_part, ours_part, rtol=2e-3, atol=2e-4)


def _same_samples(theirs: tuple[Tensor, ...], ours: tuple[Tensor, ...], step: float) -> None:
    """Raises ValueError unless the samples agree but for a few whose midpoints lie on the wall of a cell."""
    (t, rays, offsets), (our_t, our_rays, our_offsets) = theirs, ours
    if offsets.shape != our_offsets.shape or len(t) != len(rays) or int(offsets[-1]) != len(t):
        raise ValueError("the samples are not packed by ray")
    same = offsets.diff() == our_offsets.diff()
    if float(same.float().mean()) < 0.95:
        raise ValueError(f"only {int(same.sum())} of {len(same)} rays have as many samples as they should")
    difference = (t[same[rays]] - our_t[same[our_rays]]).abs()
    if float((difference > 0.05 * step).float().mean()) > 0.01:
        raise ValueError(f"samples are displaced by up to {float(difference.max()):.2g}")
