"""The unseen sides of a finished texture, painted with the reference picture's own patches.

The prior's colours decide what belongs where, and are a blur; the picture knows what the object's surfaces look like in
detail. Some views around the object are painted from coarse to fine (64, 128, 256 pixels), the back first
(`patch_synthesis`); within a level each view continues those before it, and between levels all of them are looked up
together, so that they agree. A texel then takes the mean of the views that show it, weighted by how squarely they do.
Texels that the picture shows are never touched.

Notation: T side of the texture, L side of the views, N points of the surface.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from dreamcraft3d.config import ExemplarConfig, GenerateConfig
from dreamcraft3d.export import TexturedMesh, dilate
from dreamcraft3d.functional.cameras import Cameras
from dreamcraft3d.functional.mesh import Mesh
from dreamcraft3d.kernels.patch_match import Matches
from dreamcraft3d.kernels.rasterize import rasterize
from dreamcraft3d.stages.patch_synthesis import (
    BLUR,
    COARSE,
    Canvas,
    Effort,
    Exemplar,
    Palette,
    blurred,
    detail_of,
    synthesise,
    upsampled,
)
from dreamcraft3d.stages.pictures import read_picture
from dreamcraft3d.stages.reference import ReferenceView
from dreamcraft3d.stages.surface_views import Painting, SurfacePoints, View, filled_outward, views_around

__all__ = ["Surface", "exemplars_of", "paint_unseen", "paint_unseen_sides", "painted_views", "reference_weight"]

KNOWN = 0.999
"""Weight from which a texel is the picture's, and stays bit for bit."""

EFFORT = {COARSE: Effort(rounds=5, passes=3, reach=None)}
FINER = Effort(rounds=2, passes=2, reach=8)
"""Work on each view of the coarsest level, and of the others, which continue it."""

FULL = 0.02
"""Weight of a view from which a texel is the picture's altogether: 60 degrees, away from outlines."""

MOST_GAIN = 1.6
"""Largest factor on the detail of what was painted."""


@dataclass(frozen=True)
class Surface:
    """A surface with colours, as functions of its points.

    Attributes:
        colour: present display-referred colours. known: 1 where the picture shows the point, 0 where it does not.
    """

    mesh: Mesh
    colour: Callable[[SurfacePoints], Float[Tensor, "N 3"]]
    known: Callable[[SurfacePoints], Float[Tensor, " N"]]


def paint_unseen_sides(
    textured: TexturedMesh,
    reference: ReferenceView,
    config: GenerateConfig,
    *,
    weight: Float[Tensor, "T T"] | None = None,
) -> TexturedMesh:
    """The finished object of a run, painted as its configuration says (`config.exemplar`).

    Args:
        weight: how far each texel is the picture's, if that is known; by default `reference_weight` finds out.

    Raises:
        InputError: the second picture cannot be read.
    """
    if not config.exemplar.enabled or textured.texture is None or textured.uvs is None:
        return textured
    rgba, swatch = reference.rgba.to(textured.vertices.device), None
    if config.exemplar.picture is not None:
        straight = read_picture(config.exemplar.picture, max_megapixels=config.reference.max_megapixels)
        swatch = torch.from_numpy(straight).to(rgba)
        swatch[..., :3] *= swatch[..., 3:]
    size = textured.texture.shape[0]
    if weight is None:
        weight = reference_weight(textured.mesh, textured.uvs, size, reference.camera, rgba)
    exemplars = exemplars_of(rgba, swatch)
    texture = paint_unseen(
        textured, weight, exemplars, config.exemplar, elevation=reference.elevation, seed=config.seed
    )
    return TexturedMesh(textured.vertices, textured.faces, textured.uvs, texture)


@torch.no_grad()
def paint_unseen(
    textured: TexturedMesh,
    weight: Float[Tensor, "T T"],
    exemplars: Sequence[Exemplar],
    config: ExemplarConfig,
    *,
    elevation: float = 0.0,
    seed: int = 0,
) -> Float[Tensor, "T T 3"]:
    """The texture with what the picture does not show painted with patches of the exemplars.

    Args:
        textured: texture coordinates must not overlap. weight: per texel, 1 where the texture is the picture
        (visibility times viewing angle), 0 where it shows nothing; between them the two are mixed.
        exemplars: the reference picture first. elevation: of the reference camera, radians.

    Raises:
        ValueError: the mesh has no texture.
    """
    texture, uvs = textured.texture, textured.uvs
    if texture is None or uvs is None:
        raise ValueError("only a mesh with a texture can be painted")
    surface = Surface(
        textured.mesh,
        lambda points: _sampled(texture, _uvs_at(uvs, points)),
        lambda points: _sampled(weight[..., None], _uvs_at(uvs, points))[:, 0],
    )
    painting = painted_views(surface, exemplars, config, elevation=elevation, seed=seed)
    texel, points = texels_of(textured.mesh, uvs, texture.shape[0])
    free = weight.reshape(-1)[texel] < KNOWN
    texel, points = texel[free], points[free]
    colour, shown = painting.at(points, mode="bicubic")
    # a texel that hardly any view shows keeps its colour
    share = ((1.0 - weight.reshape(-1)[texel]) * (shown / 1e-3).clamp(max=1.0))[:, None]
    result = texture.reshape(-1, 3).clone()
    result[texel] = torch.lerp(result[texel], colour, share)
    return _into_gutter(result.reshape(texture.shape), _texels_mask(texel, texture), textured)


def painted_views(
    surface: Surface, exemplars: Sequence[Exemplar], config: ExemplarConfig, *, elevation: float = 0.0, seed: int = 0
) -> Painting:
    """Views around the object in which what is not known has been painted; see `paint_unseen`."""
    views = views_around(surface.mesh, elevation)
    sizes = [s for s in (64, 128, 256, 512) if s <= config.size]
    looks = {s: [_look(surface, view, s) for view in views] for s in sizes}
    matched = _colour_map(looks[sizes[0]], exemplars, config)
    before: Painting | None = None
    matches: list[Matches | None] = [None] * len(views)
    for size in sizes:
        palette, painting = Palette(list(exemplars), size, config), Painting()
        for k, (view, look) in enumerate(zip(views, looks[size], strict=True)):
            guide = matched(blurred(look.present, look.covered, BLUR * size / COARSE))
            canvas = _canvas(look, guide, palette.guide(guide), before, painting, matches[k])
            if bool((canvas.covered & (canvas.known < KNOWN)).any()):
                number = 104729 * seed + 131 * k + size
                image, matches[k] = synthesise(canvas, palette, EFFORT.get(size, FINER), seed=number)
                image = _calibrated(image, guide, canvas, palette, config.keep_colours)
            else:
                image = canvas.image
            painting.add(view, image, look.covered)
        before = painting
        matches = [None if m is None else upsampled(m, size) for m in matches]
    assert before is not None
    return before


@dataclass(frozen=True)
class _Look:
    """What a view shows at one size: pixels, their points, present colours (anti-aliased), and how well known."""

    pixel: Int[Tensor, " N"]
    points: SurfacePoints
    present: Float[Tensor, "L L 3"]
    known: Float[Tensor, "L L"]
    covered: Bool[Tensor, "L L"]


def _look(surface: Surface, view: View, size: int) -> _Look:
    """Colours and knowledge are looked up at twice the size and averaged."""
    pixel, points = view.pixels(size)
    fine, there = view.pixels(2 * size)
    values = points.x.new_zeros(4 * size * size, 5)
    values[fine] = torch.cat(
        [surface.colour(there), surface.known(there)[:, None], torch.ones_like(there.x[:, :1])], dim=-1
    )
    mean = F.avg_pool2d(values.reshape(2 * size, 2 * size, 5).permute(2, 0, 1), 2).permute(1, 2, 0)
    covered = torch.zeros(size * size, dtype=torch.bool, device=pixel.device)
    covered[pixel] = True
    covered = covered.reshape(size, size)
    some = mean[..., 4:] > 0
    mean = filled_outward(mean / mean[..., 4:].clamp_min(1e-6), some[..., 0])
    return _Look(pixel, points, mean[..., :3], mean[..., 3], covered)


def _canvas(
    look: _Look,
    guide: Float[Tensor, "L L 3"],
    features: Float[Tensor, "L L 4"],
    before: Painting | None,
    painting: Painting,
    start: Matches | None,
) -> Canvas:
    """What is known (from the picture, or painted by another view of this level), and a first guess elsewhere."""
    size = look.present.shape[0]
    image = guide.reshape(-1, 3).clone()
    if before is not None:
        colour, shown = before.at(look.points)
        image[look.pixel] = torch.where(shown[:, None] > 1e-4, colour, image[look.pixel])
    colour, shown = painting.at(look.points)
    share = shown / (shown + 0.15)
    image[look.pixel] = torch.lerp(image[look.pixel], colour, share[:, None])
    image = image.reshape(size, size, 3)
    image = torch.lerp(image, look.present, look.known[..., None])
    known = torch.zeros(size * size, device=image.device)
    known[look.pixel] = share
    known = torch.maximum(known.reshape(size, size), look.known)
    nothing = torch.full((size, size), -1, dtype=torch.int32, device=image.device)
    matches = start or Matches(nothing, torch.full_like(known, torch.inf))
    return Canvas(image, known, look.covered, features, matches)


def _calibrated(
    image: Float[Tensor, "L L 3"], guide: Float[Tensor, "L L 3"], canvas: Canvas, palette: Palette, share: float
) -> Float[Tensor, "L L 3"]:
    """The free part with its blurred colours moved towards the guide's, and as much detail as is usual in the picture.

    Patches that disagree and a search that prefers flat patches cost contrast; what they cost is given back, up to
    `MOST_GAIN`.
    """
    low = blurred(image, canvas.covered, BLUR * image.shape[0] / COARSE)
    usual, present = palette.usual_detail(low), detail_of(image, low, canvas.covered)
    gain = (usual / present.clamp_min(1e-4)).clamp(1.0, MOST_GAIN)
    better = torch.lerp(low, guide, share) + gain * (image - low)
    return torch.lerp(image, better, 1.0 - canvas.known[..., None]).clamp(0.0, 1.0)


def _colour_map(
    looks: Sequence[_Look], exemplars: Sequence[Exemplar], config: ExemplarConfig
) -> Callable[[Float[Tensor, "L L 3"]], Float[Tensor, "L L 3"]]:
    """Bring the unseen colours of all views to the mean and the spread of the picture's, per channel.

    Both are measured on blurred colours, and the spread changes by a factor of two at most.
    """
    low = [blurred(look.present, look.covered, BLUR) for look in looks]
    free = [look.covered & (look.known < 0.5) for look in looks]
    unseen = torch.cat([image[mask] for image, mask in zip(low, free, strict=True)])
    small = [exemplar.at(COARSE) for exemplar in exemplars]
    seen = torch.cat([blurred(e.colour, e.inside, BLUR)[e.inside] for e in small])
    if len(unseen) < 2 or len(seen) < 2:
        return lambda image: image
    gain = (seen.std(0) / unseen.std(0).clamp_min(1e-4)).clamp(0.5, 2.0) ** config.spread
    mean = unseen.mean(0)
    shift = torch.lerp(mean, seen.mean(0), config.spread)
    return lambda image: ((image - mean) * gain + shift).clamp(0.0, 1.0)


def exemplars_of(rgba: Float[Tensor, "S S 4"], swatch: Float[Tensor, "h w 4"] | None = None) -> list[Exemplar]:
    """The reference picture and, after it, a swatch (stretched to a square), from premultiplied RGBA."""
    return [_exemplar(image) for image in (rgba, swatch) if image is not None]


def _exemplar(rgba: Float[Tensor, "h w 4"]) -> Exemplar:
    inside = rgba[..., 3] > 0.99
    inside = inside if bool(inside.any()) else rgba[..., 3] > 0.5
    side = max(rgba.shape[:2])
    colour = filled_outward(rgba[..., :3] / rgba[..., 3:].clamp_min(1e-3), inside)
    planes = torch.cat([colour, inside[..., None].to(colour)], dim=-1).permute(2, 0, 1)[None]
    if planes.shape[2] != planes.shape[3]:
        planes = F.interpolate(planes, (side, side), mode="bilinear", antialias=True, align_corners=False)
    return Exemplar(planes[0, :3].permute(1, 2, 0), planes[0, 3] > 0.5)


@torch.no_grad()
def reference_weight(
    mesh: Mesh, uvs: Float[Tensor, "F 3 2"], size: int, camera: Cameras, rgba: Float[Tensor, "S S 4"]
) -> Float[Tensor, "T T"]:
    """How far each texel is the picture's: visible, not at a slant, not at an outline, inside the picture's mask."""
    view = View(mesh, camera.to(mesh.vertices.device))
    texel, points = texels_of(mesh, uvs, size)
    square, place = view.weigh(points)
    mask = (rgba[..., 3:] > 0.99).to(rgba).permute(2, 0, 1)[None]
    inside = F.grid_sample(mask, place[None, None], "bilinear", "zeros", align_corners=False)[0, 0, 0]
    weight = square.new_zeros(size * size)
    weight[texel] = (square / FULL).clamp(max=1.0) * inside
    return weight.reshape(size, size)


def texels_of(mesh: Mesh, uvs: Float[Tensor, "F 3 2"], size: int) -> tuple[Int[Tensor, " N"], SurfacePoints]:
    """The texels whose centre lies in a face (row * T + column), and their points."""
    u, v = uvs.reshape(-1, 2).unbind(-1)
    clip = torch.stack([2.0 * u - 1.0, 1.0 - 2.0 * v, torch.zeros_like(u), torch.ones_like(u)], dim=-1)
    corners = torch.arange(len(u), device=u.device).reshape(-1, 3)
    raster = rasterize(clip[None], corners, size)
    face = raster.face_ids[0].reshape(-1)
    texel = torch.nonzero(face >= 0).squeeze(1)
    weights = raster.barycentrics[0].reshape(-1, 2)[texel]
    weights = torch.cat([weights, 1.0 - weights.sum(-1, keepdim=True)], dim=-1)
    return texel, SurfacePoints.on(mesh, face[texel].long(), weights)


def _texels_mask(texel: Int[Tensor, " N"], texture: Float[Tensor, "T T 3"]) -> Bool[Tensor, "T T"]:
    """Which texels of the texture are among these numbers."""
    mask = torch.zeros(texture.shape[0] * texture.shape[1], dtype=torch.bool, device=texel.device)
    mask[texel] = True
    return mask.reshape(texture.shape[:2])


def _into_gutter(
    result: Float[Tensor, "T T 3"], changed: Bool[Tensor, "T T"], textured: TexturedMesh
) -> Float[Tensor, "T T 3"]:
    """Texels outside of all faces follow their nearest covered texel, if that one has changed."""
    assert textured.uvs is not None
    covered = _texels_mask(texels_of(textured.mesh, textured.uvs, result.shape[0])[0], result)
    planes = torch.cat([result, changed[..., None].to(result)], dim=-1)
    nearest = dilate(planes, covered)
    follow = ~covered & (nearest[..., 3] > 0.5)
    return torch.where(follow[..., None], nearest[..., :3], result)


def _uvs_at(uvs: Float[Tensor, "F 3 2"], points: SurfacePoints) -> Float[Tensor, "N 2"]:
    return (points.weights[..., None] * uvs[points.face]).sum(1)


def _sampled(texture: Float[Tensor, "T T C"], uvs: Float[Tensor, "N 2"]) -> Float[Tensor, "N C"]:
    """Bilinear lookup, v down."""
    image = texture.permute(2, 0, 1)[None]
    return F.grid_sample(image, (2.0 * uvs - 1.0)[None, None], "bilinear", "border", align_corners=False)[0, :, 0].T
