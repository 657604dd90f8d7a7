"""Baking: a colour field on the surface becomes a texture (method section 13).

The mesh is rasterised in texture space at twice the size; only covered samples are evaluated; a texel is the mean of
its covered samples; every other texel copies its nearest covered neighbour, so that filtering never bleeds the
background in.
"""

from collections.abc import Callable

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dreamcraft3d.export.mesh import UnwrappedMesh
from dreamcraft3d.kernels.rasterize import rasterize

SUPERSAMPLE = 2
BAND_PIXELS = 1 << 20
CHUNK_POINTS = 1 << 17

ColourFunction = Callable[[Float[Tensor, "N 3"]], Float[Tensor, "N 3"]]


@torch.no_grad()
def bake(
    unwrapped: UnwrappedMesh, colour_fn: ColourFunction, *, texture_size: int | None = None
) -> Float[Tensor, "T T 3"]:
    """The texture of `unwrapped`, T x T x 3 in [0, 1], row 0 = v 0 (glTF).

    Args:
        colour_fn: display-referred colours at points on the surface; called with at most 131072 points at a time.
        texture_size: T; by default the size for which the charts were laid out (the padding scales with it).
    """
    size = texture_size or unwrapped.texture_size
    rows = max(1, min(size, BAND_PIXELS // (SUPERSAMPLE**2 * size)))
    bands = [_bake_rows(unwrapped, colour_fn, size, top, min(rows, size - top)) for top in range(0, size, rows)]
    texture = torch.cat([colour for colour, _ in bands])
    return dilate(texture, torch.cat([covered for _, covered in bands]))


def _bake_rows(
    unwrapped: UnwrappedMesh, colour_fn: ColourFunction, size: int, top: int, rows: int
) -> tuple[Float[Tensor, "h T 3"], Bool[Tensor, "h T"]]:
    """Texels [top, top + rows) and which of them are covered."""
    count = len(unwrapped.faces)
    u, v = unwrapped.uvs.reshape(-1, 2).unbind(-1)
    y = 1.0 - 2.0 * (v * size - top) / rows  # the band fills clip space
    clip = torch.stack([2.0 * u - 1.0, y, torch.zeros_like(u), torch.ones_like(u)], dim=-1)
    corners = torch.arange(3 * count, device=u.device).reshape(count, 3)
    raster = rasterize(clip[None], corners, (rows * SUPERSAMPLE, size * SUPERSAMPLE))
    covered = raster.face_ids[0] >= 0
    weights = raster.barycentrics[0][covered]
    weights = torch.cat([weights, 1.0 - weights.sum(-1, keepdim=True)], dim=-1)
    triangles = unwrapped.vertices[unwrapped.faces[raster.face_ids[0][covered]]]
    points = (weights[..., None] * triangles).sum(1)
    samples = torch.zeros(*covered.shape, 3, device=u.device)
    if len(points):
        samples[covered] = torch.cat([colour_fn(chunk).float() for chunk in torch.split(points, CHUNK_POINTS)])
    total = _pool(samples)
    weight = _pool(covered[..., None].float())
    return (total / weight.clamp(min=1e-6)).clamp(0.0, 1.0), weight[..., 0] > 0


def _pool(image: Float[Tensor, "h2 w2 C"]) -> Float[Tensor, "h w C"]:
    """Mean over blocks of SUPERSAMPLE x SUPERSAMPLE."""
    return torch.nn.functional.avg_pool2d(image.permute(2, 0, 1), SUPERSAMPLE).permute(1, 2, 0)


def dilate(texture: Float[Tensor, "H W C"], covered: Bool[Tensor, "H W"]) -> Float[Tensor, "H W C"]:
    """Gives every uncovered texel the colour of its nearest covered one."""
    mask = covered.cpu().numpy()
    if mask.all() or not mask.any():
        return texture
    _, labels = cv2.distanceTransformWithLabels(
        (~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    source = np.zeros(labels.max() + 1, dtype=np.int64)
    source[labels[mask]] = np.flatnonzero(mask)
    nearest = torch.from_numpy(source[labels]).to(texture.device)
    return texture.reshape(-1, texture.shape[-1])[nearest]
