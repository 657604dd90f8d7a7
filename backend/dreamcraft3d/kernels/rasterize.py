"""Differentiable rasterisation of triangle meshes: rasterize, interpolate, antialias (method 5.9).

Clip space is OpenGL's (y up, visible depth -w..w); pixel (column i, row j) has its centre at (i + 1/2, j + 1/2) and row
0 is the top of the image. Both sides of a triangle are drawn; a triangle with a corner behind the eye, or not finite,
is not.

The kernels are one Warp source (`rasterize_source.py`) with hand-written gradients. On the CPU a launch is split into
bands of image rows that run on a small thread pool, each with gradient buffers of its own, so that results, gradients
included, are bitwise reproducible. On CUDA the order of the atomic additions of the gradients is the hardware's.
`reference/rasterize.py` is the slow torch twin.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from dreamcraft3d.kernels import bands
from dreamcraft3d.kernels.bands import as_warp
from dreamcraft3d.kernels.dispatch import launch
from dreamcraft3d.kernels.rasterize_source import EMPTY, raster_kernels
from dreamcraft3d.kernels.silhouette_source import silhouette_kernels


@dataclass(frozen=True)
class Raster:
    """What each pixel of B views sees.

    Attributes:
        face_ids: the nearest face, -1 = background.
        barycentrics: perspective-correct weights (u, v) of the face's corners 0 and 1 (corner 2 has 1 - u - v);
        differentiable
            with respect to the clip positions. 0 on background.
    """

    face_ids: Int[Tensor, "B H W"]
    barycentrics: Float[Tensor, "B H W 2"]


def rasterize(clip: Float[Tensor, "B V 4"], faces: Int[Tensor, "F 3"], size: int | tuple[int, int]) -> Raster:
    """The nearest triangle at each pixel centre.

    Args:
        clip: homogeneous clip positions of the vertices in each view.
        faces: corner indices.
        size: pixels (height, width), or one number for square images.
    """
    height, width = (size, size) if isinstance(size, int) else size
    face_ids, barycentrics = _Rasterize.apply(  # type: ignore[no-untyped-call]
        clip.float().contiguous(), faces.int().contiguous(), height, width
    )
    return Raster(face_ids, barycentrics)


def interpolate(
    attributes: Float[Tensor, "V C"] | Float[Tensor, "B V C"], raster: Raster, faces: Int[Tensor, "F 3"]
) -> Float[Tensor, "B H W C"]:
    """Vertex attributes at each pixel: u a0 + v a1 + (1 - u - v) a2; 0 on background.

    Differentiable in the attributes and, through the barycentrics, in the clip positions.
    """
    batched = attributes if attributes.ndim == 3 else attributes[None]
    pixels = raster.barycentrics.contiguous(), raster.face_ids.contiguous()
    image: Tensor = _Interpolate.apply(  # type: ignore[no-untyped-call]
        batched.float().contiguous(), *pixels, faces.int().contiguous()
    )
    return image


@dataclass(frozen=True)
class EdgeTopology:
    """Which half-edge lies across each half-edge.

    Attributes:
        neighbours: for the edge of face f opposite corner k, the number 3 g + l of the same edge in the other face g
        (opposite
            its corner l); -1 if there is no other face, or more than one.
    """

    neighbours: Int[Tensor, "F 3"]


def edge_topology(faces: Int[Tensor, "F 3"], vertex_count: int | None = None) -> EdgeTopology:
    """The adjacency that `antialias` walks over; worth keeping while the faces stay."""
    corners = faces.int().contiguous()
    count = vertex_count or (int(faces.max()) + 1 if len(faces) else 0)
    valence, head = corners.new_zeros(count), corners.new_full((count,), -1)
    following, neighbours = torch.empty_like(corners), torch.empty_like(corners)
    f, v, h, n = as_warp(corners), as_warp(valence, 1), as_warp(head, 1), as_warp(following.view(-1), 1)
    kernels = silhouette_kernels()
    launch(kernels.count, (len(faces),), [f, v])
    launch(kernels.link, (len(faces),), [f, v, h, n])
    launch(kernels.match, (len(faces),), [f, v, h, n, as_warp(neighbours, 1)])
    return EdgeTopology(neighbours)


def antialias(
    image: Float[Tensor, "B H W C"],
    raster: Raster,
    clip: Float[Tensor, "B V 4"],
    faces: Int[Tensor, "F 3"],
    *,
    topology: EdgeTopology | None = None,
) -> Float[Tensor, "B H W C"]:
    """Blend neighbouring pixels where a silhouette edge passes between their centres (method 5.9).

    If the edge crosses the segment from the nearer surface's pixel P to Q at fraction tau, then for tau < 1/2 P moves
    towards Q's colour by 1/2 - tau, else Q towards P's by tau - 1/2: an edge that moves changes the picture's sum by
    the area it sweeps. An edge acts on horizontal pairs with the weight dy^2 / (dx^2 + dy^2) and on vertical ones with
    the rest, so that it counts once. Triangles may be far smaller than a pixel. tau carries the gradient to the clip
    positions of the edge's ends, the weight does not (of a tiny edge it would be noise); the image's own gradient
    passes through the blend. Stack several images along C rather than call this several times.
    """
    clip = clip.float().contiguous()
    topology = topology or edge_topology(faces, clip.shape[1])
    pixels, others, ends, direction = _silhouette_pairs(raster, clip.detach(), faces, topology)
    tau, weight = _crossing_fraction(clip, ends, pixels, others, direction, raster.face_ids.shape[1:])
    near = tau < 0.5
    target, source = torch.where(near, pixels, others), torch.where(near, others, pixels)
    amount = weight * torch.where(near, 0.5 - tau, tau - 0.5)  # not abs(): its gradient vanishes at an edge halfway
    blended: Tensor = _Blend.apply(  # type: ignore[no-untyped-call]
        image.reshape(-1, image.shape[-1]), amount[:, None], target, source
    )
    return blended.reshape(image.shape)


def _silhouette_pairs(
    raster: Raster, clip: Tensor, faces: Tensor, topology: EdgeTopology
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Per pixel pair with a silhouette edge between: flat index of the nearer pixel, of the other, edge ends (K 2),
    direction."""
    views, height, width = raster.face_ids.shape
    corners, found = faces.int().contiguous(), faces.new_empty((2, views, height, width), dtype=torch.int32)
    c, f, n, out = as_warp(clip), as_warp(corners), as_warp(topology.neighbours, 1), as_warp(found, 1)
    ids, uv = as_warp(raster.face_ids.contiguous(), 1), as_warp(raster.barycentrics.detach().contiguous())

    kernels = bands.loaded(silhouette_kernels(), clip.device)

    def band(row: int, rows: int) -> None:
        launch(kernels.find_silhouettes, (views, rows, width), [c, f, row, n, ids, uv, out])

    bands.over_rows(clip.device, height, band)
    flat = found.view(-1)
    where = torch.nonzero(flat >= 0).squeeze(1)
    code = flat[where].long()
    direction = where // (views * height * width)
    first = where % (views * height * width)
    second = first + torch.where(direction == 0, 1, width)
    swapped = (code & 1).bool()
    half_edge = code >> 1
    face, corner = half_edge // 3, half_edge % 3
    ends = torch.stack([faces[face, (corner + 1) % 3], faces[face, (corner + 2) % 3]], -1)
    return torch.where(swapped, second, first), torch.where(swapped, first, second), ends, direction


def _crossing_fraction(
    clip: Tensor, ends: Tensor, pixels: Tensor, others: Tensor, direction: Tensor, size: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """tau of each pair, differentiable in the clip positions, and its weight."""
    height, width = size
    rows = (pixels // (height * width) * clip.shape[1])[:, None] + ends
    corner = clip.reshape(-1, 4).index_select(0, rows.reshape(-1)).reshape(-1, 2, 4)
    right = (0.5 + 0.5 * corner[..., 0] / corner[..., 3]) * width - (pixels % width + 0.5)[:, None]
    down = (0.5 - 0.5 * corner[..., 1] / corner[..., 3]) * height - (pixels // width % height + 0.5)[:, None]
    sign = torch.where(others > pixels, 1.0, -1.0)[:, None]
    horizontal = (direction == 0)[:, None]
    along, across = torch.where(horizontal, right, down) * sign, torch.where(horizontal, down, right)
    span, reach = across[:, 1] - across[:, 0], along[:, 1] - along[:, 0]
    # The kernel saw the ends on both sides of the line; here rounding may put both on it.
    safe = torch.where(span == 0, torch.ones_like(span), span)
    tau = (along[:, 0] * across[:, 1] - along[:, 1] * across[:, 0]) / safe
    weight = span.square() / (span.square() + reach.square()).clamp_min(1e-30)
    return tau.clamp(0.0, 1.0), weight.detach()


class _Blend(torch.autograd.Function):
    """pixels[target] += amount (pixels[source] - pixels[target]), all from the same old pixels."""

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, amount: Tensor, target: Tensor, source: Tensor) -> Tensor:
        contrast = pixels.index_select(0, source) - pixels.index_select(0, target)
        ctx.save_for_backward(amount, contrast, target, source)
        return pixels.index_add(0, target, amount * contrast)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        amount, contrast, target, source = ctx.saved_tensors
        at_target = grad.index_select(0, target)
        moved = amount * at_target
        grad_pixels = grad.index_add(0, source, moved).index_add_(0, target, -moved)
        return grad_pixels, (at_target * contrast).sum(-1, keepdim=True), None, None


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, clip: Tensor, faces: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        kernels, views = bands.loaded(raster_kernels(), clip.device), len(clip)
        zbuffer = torch.full((views, height, width), EMPTY, dtype=torch.int64, device=clip.device)
        face_ids = torch.empty_like(zbuffer)
        barycentrics = clip.new_empty(views, height, width, 2)
        c, f, z = as_warp(clip), as_warp(faces), as_warp(zbuffer, 1)
        ids, uv = as_warp(face_ids, 1), as_warp(barycentrics)

        def band(row: int, rows: int) -> None:
            launch(kernels.draw, (views, len(faces)), [c, f, row, rows, z])
            launch(kernels.resolve, (views, rows, width), [c, f, row, z, ids, uv])

        bands.over_rows(clip.device, height, band)
        ctx.save_for_backward(clip, faces, face_ids, barycentrics)
        ctx.mark_non_differentiable(face_ids)
        return face_ids, barycentrics

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor, grad: Tensor) -> tuple[Tensor, None, None, None]:
        clip, faces, face_ids, barycentrics = ctx.saved_tensors
        kernels, (views, height, width) = raster_kernels(), face_ids.shape
        grad_clip = bands.gradient_buffers(clip)
        arrays = [as_warp(face_ids, 1), as_warp(barycentrics), as_warp(grad.contiguous())]
        c, f, out = as_warp(clip), as_warp(faces), [as_warp(buffer) for buffer in grad_clip]

        def band(index: int, row: int, rows: int) -> None:
            launch(kernels.resolve_backward, (views, rows, width), [c, f, row, *arrays, out[index]])

        bands.over_gradient_bands(clip.device, height, band)
        return grad_clip.sum(0), None, None, None


class _Interpolate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, attributes: Tensor, barycentrics: Tensor, face_ids: Tensor, faces: Tensor) -> Tensor:
        views, height, width = face_ids.shape
        image = attributes.new_zeros(views, height, width, attributes.shape[-1])
        a, f, out = as_warp(attributes, 1), as_warp(faces), as_warp(image, 1)
        ids, uv = as_warp(face_ids, 1), as_warp(barycentrics)
        kernels = bands.loaded(raster_kernels(), image.device)

        def band(row: int, rows: int) -> None:
            launch(kernels.interpolate, (views, rows, width), [a, f, row, ids, uv, out])

        bands.over_rows(image.device, height, band)
        ctx.save_for_backward(attributes, barycentrics, face_ids, faces)
        return image

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        attributes, barycentrics, face_ids, faces = ctx.saved_tensors
        kernels, (views, height, width) = raster_kernels(), face_ids.shape
        grad_attributes = bands.gradient_buffers(attributes)
        grad_barycentrics = torch.zeros_like(barycentrics)
        a, f, ids, uv = as_warp(attributes, 1), as_warp(faces), as_warp(face_ids, 1), as_warp(barycentrics)
        g, grad_uv = as_warp(grad.contiguous(), 1), as_warp(grad_barycentrics)
        out = [as_warp(buffer, 1) for buffer in grad_attributes]

        def band(index: int, row: int, rows: int) -> None:
            inputs = [a, f, row, ids, uv, g, out[index], grad_uv]
            launch(kernels.interpolate_backward, (views, rows, width), inputs)

        bands.over_gradient_bands(attributes.device, height, band)
        return grad_attributes.sum(0), grad_barycentrics, None, None
