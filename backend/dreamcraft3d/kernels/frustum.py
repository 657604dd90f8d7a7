"""Volume rendering of a volume that lies in the frustum of a reference camera, seen by other cameras.

Columns and rows of the volume are pixels of the reference picture, planes are equal steps along its axis. A sample at
depth d of a wanted camera's ray is looked up trilinearly in it, and the samples are composited front to back:
w_k = alpha_k prod_{j<k} (1 - alpha_j) with alpha = sigmoid(bias + logit) (transformable bottleneck networks, Olszewski
et al. 2019; emission-absorption as in NeRF). Compared with `grid_sample` no grid and no samples are kept in memory, and
cells that nothing can be seen of cost one channel.

On the CPU one thread works on one volume, so that gradients are bitwise reproducible; on CUDA the order of their atomic
additions is the hardware's. `reference/frustum.py` is the reference implementation.
"""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from dreamcraft3d.functional.cameras import Cameras
from dreamcraft3d.kernels import bands, dispatch
from dreamcraft3d.kernels.frustum_source import frustum_kernels

Volume = Float[Tensor, "B h w D C"]


@dataclass(frozen=True)
class FrustumView:
    """What R rays of each of N views see.

    Attributes:
        opacity: sum of weights. colour: premultiplied, in [0,1]. features: weighted sums. depth: sum of w d along the
            wanted camera's axis, world units.
    """

    opacity: Float[Tensor, "N R 1"]
    colour: Float[Tensor, "N R 3"]
    features: Float[Tensor, "N R F"]
    depth: Float[Tensor, "N R 1"]


def relative_cameras(wanted: Cameras, reference: Cameras) -> Float[Tensor, "N 16"]:
    """Camera numbers for `render_frustum`: 3 x 4 matrix from wanted to reference camera, then tan(fovy / 2) and
    distance of each; one reference per wanted view."""
    matrix = (reference.w2c @ wanted.c2w)[:, :3].flatten(1)
    lens = [(0.5 * wanted.fovy).tan(), wanted.distance, (0.5 * reference.fovy).tan(), reference.distance]
    return torch.cat([matrix, torch.stack(lens, dim=1)], dim=1)


def pixel_centres(size: int, device: torch.device | str = "cpu") -> Float[Tensor, "R 2"]:
    """Picture coordinates (u right, v up, in [-1,1]) of the pixels of a square picture, row by row from the top."""
    centre = (torch.arange(size, device=device) + 0.5) / size * 2.0 - 1.0
    v, u = torch.meshgrid(-centre, centre, indexing="ij")
    return torch.stack([u, v], dim=-1).reshape(-1, 2)


def render_frustum(
    volume: Volume,
    cameras: Float[Tensor, "N 16"],
    pixels: Float[Tensor, "N R 2"],
    *,
    samples: int,
    reach: float,
    bias: float,
) -> FrustumView:
    """Composite the volume along the rays through `pixels` of each camera; differentiable once in the volume.

    Args:
        volume: cells [opacity logit, three colour logits, features ...]; rows from the top, planes from the nearest.
        cameras: of N = B T views (`relative_cameras`); view n sees volume n // T.
        pixels: picture coordinates of the rays in each view.
        samples: along each ray, equal steps between distance - reach and distance + reach.
        reach: half the depth of the volume, world units. bias: added to opacity logits.

    Raises:
        ValueError: N is no multiple of B, a tensor has another shape than these, or is not float32.
    """
    if any(tensor.dtype != torch.float32 for tensor in (volume, cameras, pixels)):
        raise ValueError("frustum volumes are rendered in float32")
    if volume.ndim != 5 or volume.shape[4] < 4 or cameras.shape[1:] != (16,) or pixels.shape[2:] != (2,):
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (volume, cameras, pixels))
        raise ValueError(f"a volume, its cameras and their rays cannot have the shapes {shapes}")
    if len(cameras) % len(volume) or len(pixels) != len(cameras):
        raise ValueError(f"{len(cameras)} cameras and {len(pixels)} sets of rays do not fit {len(volume)} volumes")
    sums, depth = _RenderFrustum.apply(  # type: ignore[no-untyped-call]
        volume.contiguous(), cameras.detach().contiguous(), pixels.contiguous(), samples, reach, bias
    )
    return FrustumView(sums[..., :1], sums[..., 1:4], sums[..., 4:], depth[..., None])


class _RenderFrustum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, volume: Tensor, cameras: Tensor, pixels: Tensor, samples: int, reach: float, bias: float
    ) -> tuple[Tensor, Tensor]:
        sums = volume.new_empty(*pixels.shape[:2], volume.shape[-1])
        depth = volume.new_empty(pixels.shape[:2])
        ctx.settings = (samples, reach, bias)
        ctx.save_for_backward(volume, cameras, pixels, sums, depth)
        _launch("render", volume, cameras, pixels, ctx.settings, [sums, depth])
        return sums, depth

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_sums: Tensor, grad_depth: Tensor) -> tuple[Tensor | None, ...]:
        volume, cameras, pixels, sums, depth = ctx.saved_tensors
        grad = torch.zeros_like(volume)
        results = [sums, depth, grad_sums.contiguous(), grad_depth.contiguous()]
        _launch("render_backward", volume, cameras, pixels, ctx.settings, results, grad)
        return grad, None, None, None, None, None


def _launch(
    name: str, volume: Tensor, cameras: Tensor, pixels: Tensor, settings: tuple[int, float, float],
    results: list[Tensor], grad: Tensor | None = None,
) -> None:  # fmt: skip
    """One launch per view; views of one volume follow each other on one thread, since they add to the same gradient."""
    kernels = frustum_kernels(volume.shape[-1])
    kernel = bands.loaded(SimpleNamespace(kernel=getattr(kernels, name)), volume.device).kernel
    vector, wp = kernels.vector, dispatch.warp()
    height, width, planes = volume.shape[1:4]
    each = len(cameras) // len(volume)
    cells = [dispatch.view(volume.view(-1)), dispatch.view(volume.view(-1, volume.shape[-1]), vector)]
    rays = [dispatch.view(cameras), dispatch.view(pixels, wp.vec2), wp.vec3i(width, height, planes)]
    out = [dispatch.view(tensor, vector if tensor.ndim == 3 else None) for tensor in results]
    if grad is not None:
        out += [dispatch.view(grad.view(-1)), dispatch.view(grad.view(-1, grad.shape[-1]), vector)]

    def body(b: int, _: int) -> None:
        for n in range(b * each, (b + 1) * each):
            dispatch.launch(kernel, pixels.shape[1], [*cells, *rays, n, b, *settings, *out])

    dispatch.in_parallel(volume.device, [(b, 1) for b in range(len(volume))], body)
