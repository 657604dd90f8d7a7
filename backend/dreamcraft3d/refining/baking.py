"""From the colour field to the mesh's own images: painted texels and their gutter change, nothing else does.

A texel takes the mean of the field at four points inside it. With a strength below 1 the detail of the present texture
that is finer than the field survives in part: after + (1 - strength) (present - before). The gutter copies the nearest
painted texel, but never into a texel of another face. Alpha is copied, and colours under alpha 0 are left alone.

Letters: K texels.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from dreamcraft3d.refining.coverage import Coverage, barycentrics
from dreamcraft3d.refining.surface import Surface
from dreamcraft3d.refining.tiles import Picture, display_of, opacity_of, stored_of

__all__ = ["KEPT", "BakedTile", "Painter", "TileFigures", "bake_tile", "unpainted"]

KEPT, UNSEEN, FILLED, OVERLAP, PAINTED = 0, 64, 128, 192, 255
"""Levels of the masks: left alone; of a chosen face but shown by no view; gutter; painted and shared; painted."""

OFFSETS = ((-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25))
CHUNK = 1 << 18
REFERENCE_PADDING = (16, 4096)
SMALLEST_PADDING = 12  # 8 along both axes, as the third mip level needs

Colours = Callable[[Float[Tensor, "N 3"]], Float[Tensor, "N 3"]]
Ints = NDArray[np.integer[Any]]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Painter:
    """What a texel's new colour is made from.

    Attributes:
        after: the optimised field. before: the field as it was fitted to the present texture; None at strength 1.
        seen: which of N surface points (by triangle and position) any view shows; None paints all.
        padding: gutter in texels; None goes by the image's size. average: shared texels take the mean of their faces.
    """

    surface: Surface
    after: Colours
    before: Colours | None
    strength: float
    seen: Callable[[Ints, Float[Tensor, "N 3"]], NDArray[np.bool_]] | None
    padding: int | None
    average: bool


@dataclass(frozen=True)
class TileFigures:
    """Shares of the tile's texels, and the mean shift of the painted colours (after - before, display values)."""

    painted: float
    unseen: float
    filled: float
    overlap: float
    mean_shift: tuple[float, float, float]
    deviation_shift: float


@dataclass(frozen=True)
class BakedTile:
    """One image of the result. `mask`: H x W uint8, see `KEPT`."""

    slot: int
    channel: str
    number: int
    picture: Picture
    mask: NDArray[np.uint8]
    figures: TileFigures


def bake_tile(coverage: Coverage, picture: Picture, painter: Painter) -> BakedTile:
    """The tile's image with its painted texels replaced."""
    target, (height, width) = coverage.target, coverage.owner.shape
    opacity, display = opacity_of(picture, target), display_of(picture, target)
    chosen = (coverage.owner >= 0) & (opacity > 0.0)
    texel = np.flatnonzero(chosen)
    triangle = coverage.owner.reshape(-1)[texel]
    seen = _seen(texel, triangle, coverage, painter)
    mask = np.zeros(height * width, dtype=np.uint8)
    mask[texel] = np.where(seen, np.where(coverage.shared.reshape(-1)[texel], OVERLAP, PAINTED), UNSEEN)
    texel, triangle = texel[seen], triangle[seen]
    old = display.reshape(-1, 3)[texel]
    new = _colours(texel, triangle, old, coverage, painter)
    if painter.average:
        new = _averaged(texel, new, display, coverage, painter)
    image = display.copy()
    image.reshape(-1, 3)[texel] = new
    padding = painter.padding if painter.padding is not None else _padding(max(height, width))
    filled = _fill(image, mask.reshape(height, width), coverage.covered, opacity, padding)
    changed = (mask >= FILLED).reshape(height, width)
    pixels = picture.pixels.copy()
    pixels[..., :3][changed] = stored_of(image[changed], opacity[changed], picture, target)
    return BakedTile(
        target.slot,
        target.channel,
        coverage.number,
        Picture(pixels, picture.half),
        mask.reshape(height, width),
        _figures(mask, filled, coverage, old, new),
    )


def _seen(texel: Ints, triangle: Ints, coverage: Coverage, painter: Painter) -> NDArray[np.bool_]:
    if painter.seen is None:
        return np.ones(len(texel), dtype=bool)
    parts = [
        painter.seen(triangle[part], _points(texel[part], triangle[part], coverage, painter.surface, (0.0, 0.0)))
        for part in _parts(len(texel))
    ]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=bool)


def _colours(texel: Ints, triangle: Ints, old: Floats, coverage: Coverage, painter: Painter) -> Floats:
    """K x 3 display values of the new texels."""
    new = np.zeros((len(texel), 3), dtype=np.float32)
    for part in _parts(len(texel)):
        for offset in OFFSETS:
            x = _points(texel[part], triangle[part], coverage, painter.surface, offset)
            colour = painter.after(x)
            if painter.before is not None:
                colour = colour - (1.0 - painter.strength) * painter.before(x)
            new[part] += colour.cpu().numpy() / len(OFFSETS)
    if painter.before is not None:
        new += np.float32(1.0 - painter.strength) * old
    return new.clip(0.0, 1.0)


def _averaged(texel: Ints, new: Floats, display: Floats, coverage: Coverage, painter: Painter) -> Floats:
    """The same, with the mean over all painted triangles where texels are shared."""
    shared, triangle = coverage.pairs
    place = np.full(coverage.owner.size, -1)
    place[texel] = np.arange(len(texel))
    wanted = place[shared] >= 0
    shared, triangle = shared[wanted], triangle[wanted]
    colours = _colours(shared, triangle, display.reshape(-1, 3)[shared], coverage, painter)
    total, count = np.zeros_like(new), np.zeros(len(new), dtype=np.float32)
    np.add.at(total, place[shared], colours)
    np.add.at(count, place[shared], 1.0)
    return np.where(count[:, None] > 0, total / np.maximum(count, 1.0)[:, None], new).astype(np.float32)


def _points(
    texel: Ints, triangle: Ints, coverage: Coverage, surface: Surface, offset: tuple[float, float]
) -> Float[Tensor, "K 3"]:
    """Surface points at an offset (in texels) from the centres of texels."""
    row, column = np.divmod(texel, coverage.owner.shape[1])
    centre = np.stack([column + 0.5 + offset[0], row + 0.5 + offset[1]], axis=1)
    return surface.points(triangle, barycentrics(coverage.corners[triangle], centre))


def _padding(side: int) -> int:
    """Texels of gutter: enough for bilinear lookups three mip levels down."""
    return max(SMALLEST_PADDING, math.ceil(REFERENCE_PADDING[0] * side / REFERENCE_PADDING[1]))


def _fill(image: Floats, mask: NDArray[np.uint8], covered: NDArray[np.bool_], opacity: Floats, padding: int) -> int:
    """Paints the gutter into `image`, marks it in `mask`, and returns its size."""
    painted = mask >= OVERLAP
    if padding == 0 or not painted.any() or covered.all():
        return 0
    distance, labels = cv2.distanceTransformWithLabels(
        (~covered).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    nearest = np.zeros(labels.max() + 1, dtype=np.int64)
    nearest[labels[covered]] = np.flatnonzero(covered)
    source = nearest[labels]
    gutter = ~covered & (distance <= padding) & painted.reshape(-1)[source] & (opacity > 0.0)
    image[gutter] = image.reshape(-1, 3)[source[gutter]]
    mask[gutter] = FILLED
    return int(np.count_nonzero(gutter))


def _figures(mask: NDArray[np.uint8], filled: int, coverage: Coverage, old: Floats, new: Floats) -> TileFigures:
    count = mask.size
    mean = (new.mean(axis=0) - old.mean(axis=0)) if len(new) else np.zeros(3)
    deviation = float(new.std() - old.std()) if len(new) else 0.0
    return TileFigures(
        painted=round(float(np.count_nonzero(mask >= OVERLAP)) / count, 6),
        unseen=round(float(np.count_nonzero(mask == UNSEEN)) / count, 6),
        filled=round(filled / count, 6),
        overlap=round(coverage.overlap, 6),
        mean_shift=(round(float(mean[0]), 5), round(float(mean[1]), 5), round(float(mean[2]), 5)),
        deviation_shift=round(deviation, 5),
    )


def _parts(count: int) -> list[slice]:
    return [slice(first, min(first + CHUNK, count)) for first in range(0, count, CHUNK)]


def unpainted(coverage: Coverage, picture: Picture) -> BakedTile:
    """The tile as it is."""
    nothing = np.zeros(coverage.owner.shape, dtype=np.uint8)
    none = np.zeros((0, 3), dtype=np.float32)
    figures = _figures(nothing, 0, coverage, none, none)
    return BakedTile(coverage.target.slot, coverage.target.channel, coverage.number, picture, nothing, figures)
