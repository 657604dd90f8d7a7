"""The reference image as the texture wherever it shows the surface; the field's texture elsewhere.

Each texel is projected into the reference camera. Its weight says how far the image may be trusted there: 1, and the
texel *is* the image; 0, and the image shows nothing of it. The weight is a product of

    visibility     nothing lies between the texel and the camera (a ray from the texel's own centre),
    viewing angle  a ramp in the cosine, for where the surface is seen at a slant a pixel is smeared over many texels,
    margin         a ramp in the distance to what is not this surface: the outside of the mask, the background of
                   the mesh, and the pixels of a surface right behind another one, for there a mesh that is off by a
                   pixel takes the colour of its neighbour.

The colours are straight and taken from inside the mask only, so that no background gets in. The border between the two
parts is closed in the gradient domain (`gradients`): what the camera sees but the image may not be trusted for, and a
band beyond the horizon, in which the field itself has a seam, are bridged smoothly.

Notation: S side of the image, T side of the texture, N texels.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from dreamcraft3d.config import ProjectionConfig
from dreamcraft3d.export.baking import dilate
from dreamcraft3d.export.gradients import Blend, blended_correction
from dreamcraft3d.export.mesh import UnwrappedMesh
from dreamcraft3d.export.texels import Texels, grown, neighbours, texels_of
from dreamcraft3d.functional.cameras import Cameras, project
from dreamcraft3d.functional.mesh import Mesh, face_normals, vertex_normals
from dreamcraft3d.kernels.mesh_query import MeshQuery
from dreamcraft3d.kernels.rasterize import interpolate, rasterize

__all__ = ["Projection", "image_weights", "project_image"]

STEEP = 16.0
"""Depth per image distance between neighbouring pixels that makes a jump: steeper surfaces have no weight anyway."""

NEAR = 1e-3
"""How far before a texel, in world units, a ray to the camera starts: the texel's own face must not stop it."""

BAND = 0.012
"""How far beyond what the camera sees the field is taken for smeared by it, world units."""

FULL = 0.999
"""Weight that counts as 1; lookups between pixels round."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Projection:
    """A texture and what it is made from.

    Attributes:
        texture: T x T x 3 in [0, 1], row 0 = v 0. weight: T x T, 1 where the texel is the image, 0 where the image
        does not show it; a texel outside of all charts has the weight of the nearest one inside.
    """

    texture: Float[Tensor, "T T 3"]
    weight: Float[Tensor, "T T"]


@torch.no_grad()
def project_image(
    unwrapped: UnwrappedMesh,
    rgba: Float[Tensor, "S S 4"],
    camera: Cameras,
    texture: Float[Tensor, "T T 3"],
    config: ProjectionConfig,
) -> Projection:
    """Put the reference image onto the part of the texture that it shows, and blend it into the rest.

    Args:
        rgba: premultiplied. camera: the one that sees it. texture: of the field, see `baking.bake`.
        config: `enabled = False` returns the field's texture, with weights of 0.
    """
    if not config.enabled:
        return Projection(texture, torch.zeros_like(texture[..., 0]))
    texels = texels_of(unwrapped, texture.shape[0])
    camera, points = camera.to(rgba.device), torch.from_numpy(texels.points).float().to(rgba)
    place = _image_coordinates(points, camera)
    weight = _sampled(image_weights(unwrapped.mesh, rgba, camera, config)[..., None], place, "bilinear")[:, 0]
    cosine = _cosine(unwrapped, texels, camera).to(weight)
    seen = cosine > 0.0
    seen[seen.clone()] = _visible(points[seen], unwrapped.mesh, camera)
    weight = weight * ramp(cosine, *config.cosine) * seen
    weight = torch.where(weight > FULL, 1.0, weight)
    spacing = texel_spacing(texels)
    image = _no_finer(solid_colours(rgba), spacing / pixel_spacing(camera, rgba.shape[0]))
    field = texture.reshape(-1, 3)[torch.from_numpy(texels.index).to(texture.device)].to(rgba)
    difference = _sampled(image, place, "bicubic").clamp(0.0, 1.0) - field
    pairs, trust = neighbours(unwrapped, texels), weight.cpu().numpy()
    unclear = grown(seen.cpu().numpy(), pairs, max(2, round(BAND / spacing))) & (trust < 1.0)
    blend = Blend(field.cpu().numpy(), difference.cpu().numpy(), trust, ~unclear)
    change = blended_correction(blend, pairs, reach=config.reach / spacing)
    whole = texture.cpu() + torch.from_numpy(change[texels.nearest])
    return Projection(whole.clamp(0.0, 1.0).to(texture), torch.from_numpy(trust[texels.nearest]).to(texture))


def image_weights(
    mesh: Mesh, rgba: Float[Tensor, "S S 4"], camera: Cameras, config: ProjectionConfig
) -> Float[Tensor, "S S"]:
    """Trust pixels by their distance to the outside of the mask, to the mesh's background, and to what lies behind."""
    size = rgba.shape[0]
    clip = project(mesh.vertices, camera)
    raster = rasterize(clip, mesh.faces, size)
    depth = interpolate(clip[..., 3:].contiguous(), raster, mesh.faces)[0, ..., 0]
    depth = torch.where(raster.face_ids[0] >= 0, depth, torch.inf)
    free = ~_beyond_jumps(depth.cpu().numpy(), STEEP * pixel_spacing(camera, size)) & (rgba[..., 3].cpu().numpy() > 0.5)
    distance = cv2.distanceTransform(np.pad(free, 1).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    begin, full = (size / 512.0 * margin for margin in config.margin)
    return ramp(torch.from_numpy(distance), begin, full).to(rgba)


def solid_colours(rgba: Float[Tensor, "S S 4"]) -> Float[Tensor, "S S 3"]:
    """Straight colours of the pixels well inside the object, continued outward by the nearest of them.

    The outermost opaque pixels often hold some background, too; they count only in parts too thin to do without.
    """
    opaque = (rgba[..., 3] > 0.99).cpu().numpy().astype(np.uint8)
    inside = cv2.erode(opaque, np.ones((3, 3), np.uint8))
    thin = opaque & ~cv2.dilate(inside, np.ones((5, 5), np.uint8))
    inside = torch.from_numpy((inside | thin) > 0).to(rgba.device)
    return dilate(rgba[..., :3] / rgba[..., 3:].clamp(min=1e-3), inside)


def texel_spacing(texels: Texels) -> float:
    """Median distance between the centres of texels side by side, world units."""
    beside = np.flatnonzero(np.diff(texels.index) == 1)
    if len(beside) == 0:
        return float(np.ptp(texels.points, axis=0).max()) / texels.size
    return float(np.median(np.linalg.norm(texels.points[beside + 1] - texels.points[beside], axis=1)))


def pixel_spacing(camera: Cameras, size: int) -> float:
    """Distance between pixels at the origin's depth, world units."""
    return float(2.0 * camera.distance[0] * torch.tan(0.5 * camera.fovy[0])) / size


def ramp(x: Float[Tensor, " *N"], begin: float, full: float) -> Float[Tensor, " *N"]:
    """0 up to `begin`, 1 from `full` on, smooth between (3 t^2 - 2 t^3)."""
    t = ((x - begin) / max(full - begin, 1e-6)).clamp(0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def _beyond_jumps(depth: Floats, largest: float) -> NDArray[np.bool_]:
    """Mark pixels that lie behind a neighbour by more than `largest`, and those without depth (infinite)."""
    behind = np.isinf(depth)
    finite = np.where(behind, np.float32(1e6), depth)
    for axis in (0, 1):
        step = np.diff(finite, axis=axis)
        before, after = ((slice(None),) * axis + (part,) for part in (slice(None, -1), slice(1, None)))
        behind[after] |= step > largest
        behind[before] |= step < -largest
    return behind


def _image_coordinates(points: Float[Tensor, "N 3"], camera: Cameras) -> Float[Tensor, "N 2"]:
    """Where the camera sees points: -1..1, right and down (as `grid_sample` wants them)."""
    clip = project(points, camera)[0]
    return clip[:, :2] / clip[:, 3:] * clip.new_tensor([1.0, -1.0])


def _sampled(image: Float[Tensor, "h w C"], place: Float[Tensor, "N 2"], mode: str) -> Float[Tensor, "N C"]:
    """Look an image up between its pixels."""
    planes = image.permute(2, 0, 1)[None]
    found: Tensor = torch.nn.functional.grid_sample(planes, place[None, None], mode, "border", align_corners=False)
    return found[0, :, 0].T


def _no_finer(image: Float[Tensor, "S S 3"], step: float) -> Float[Tensor, "s s 3"]:
    """The image, halved until a texel steps over less than two of its pixels."""
    while step >= 2.0 and image.shape[0] > 1:
        image = torch.nn.functional.avg_pool2d(image.permute(2, 0, 1), 2).permute(1, 2, 0)
        step /= 2.0
    return image


def _cosine(unwrapped: UnwrappedMesh, texels: Texels, camera: Cameras) -> Float[Tensor, " N"]:
    """Cosine between the smooth normal and the direction to the camera; -1 on faces that look away."""
    vertices, faces = unwrapped.vertices, unwrapped.faces
    eye = camera.c2w[0, :3, 3].cpu()
    towards = torch.nn.functional.normalize(eye - torch.from_numpy(texels.points).float(), dim=-1)
    smooth = torch.from_numpy(texels.attributes(vertex_normals(vertices, faces)[faces]))
    cosine = (torch.nn.functional.normalize(smooth, dim=-1, eps=1e-6) * towards).sum(-1)
    flat = face_normals(vertices, faces).cpu()[torch.from_numpy(texels.face)]
    return torch.where((flat * towards).sum(-1) > 0.0, cosine, -1.0)


def _visible(points: Float[Tensor, "N 3"], mesh: Mesh, camera: Cameras) -> Bool[Tensor, " N"]:
    """Whether nothing lies between each surface point and the camera."""
    towards = camera.c2w[0, :3, 3] - points
    distance = towards.norm(dim=-1, keepdim=True)
    free, _ = MeshQuery(mesh.vertices, mesh.faces).cast_rays(points + NEAR * towards / distance, towards / distance)
    clear: Tensor = free >= distance[:, 0]
    return clear
