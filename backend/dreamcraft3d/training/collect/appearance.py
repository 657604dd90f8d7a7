"""What an assembled object looks like from two sides: small renders with textures and cut-outs, for the filters."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from dreamcraft3d.functional.cameras import Cameras, orbit, project
from dreamcraft3d.kernels.rasterize import Raster, interpolate, rasterize
from dreamcraft3d.training.collect.arrays import Array
from dreamcraft3d.training.collect.assembly import Assembly
from dreamcraft3d.training.collect.textures import TRANSPARENT

SIZE = 96
FOVY = math.radians(40.0)
ELEVATION = math.radians(20.0)
AZIMUTHS = (math.radians(35.0), math.radians(215.0))  # two opposite quarters
MARGIN = 1.02
LAYERS = 4
"""Cut-out surfaces that a line of sight may pass; what lies behind more is taken for background."""

AMBIENT, DIFFUSE = 0.45, 0.6
LIGHT = np.array([1.0, 0.4, 0.6]) / np.linalg.norm([1.0, 0.4, 0.6])
"""Towards the light: toward the camera, to its right, up."""


@dataclass(frozen=True)
class Appearance:
    """Two views: RGB in [0, 1] over white, and what the object covers."""

    colours: Float[Array, "2 H W 3"]
    covered: Bool[Array, "2 H W"]


def render(thing: Assembly, size: int = SIZE) -> Appearance:
    """Draw an object from two opposite sides, lit from beside the camera.

    A hole in a cut-out texture shows the next surface: the faces seen through are left out and the rest is drawn again,
    at most `LAYERS` times.
    """
    vertices = torch.as_tensor(_upright(thing.vertices), dtype=torch.float32)
    cameras = _cameras(float(np.linalg.norm(thing.size)) / 2.0)
    clip, uv = project(vertices, cameras), torch.as_tensor(thing.uv, dtype=torch.float32)
    left = np.arange(len(thing.faces))
    colours = np.ones((len(AZIMUTHS), size, size, 3))
    open_pixels, covered = np.ones(colours.shape[:3], bool), np.zeros(colours.shape[:3], bool)
    for _ in range(LAYERS):
        faces = torch.as_tensor(thing.faces[left], dtype=torch.int32)
        raster = rasterize(clip, faces, size)
        hit = raster.face_ids.numpy() >= 0
        ids = left[raster.face_ids.numpy().clip(0)]
        rgb, solid = _surface(thing, ids, hit & open_pixels, _coordinates(uv, raster, faces))
        colours[solid] = (rgb * _shading(thing, ids, cameras)[..., None])[solid].clip(0.0, 1.0)
        covered |= solid
        open_pixels &= hit & ~solid
        left = np.setdiff1d(left, ids[open_pixels])
        if not open_pixels.any() or not len(left):
            break
    return Appearance(colours, covered)


def _upright(vertices: Float[Array, "V 3"]) -> Float[Array, "V 3"]:
    """From y up to the project's z up."""
    return np.stack([vertices[:, 0], -vertices[:, 2], vertices[:, 1]], axis=1)


def _cameras(radius: float) -> Cameras:
    """The two cameras, which a ball of this radius fills."""
    distance = MARGIN * radius / math.sin(0.5 * FOVY)
    azimuth = torch.tensor(AZIMUTHS)
    return orbit(torch.full_like(azimuth, ELEVATION), azimuth, distance=distance, fovy=FOVY)


def _coordinates(
    uv: Float[torch.Tensor, "V 2"], raster: Raster, faces: Int[torch.Tensor, "F 3"]
) -> Float[Array, "B H W 2"]:
    found: Float[Array, "B H W 2"] = interpolate(uv, raster, faces).numpy()
    return found


def _surface(
    thing: Assembly, ids: Int[Array, "B H W"], hit: Bool[Array, "B H W"], uv: Float[Array, "B H W 2"]
) -> tuple[Float[Array, "B H W 3"], Bool[Array, "B H W"]]:
    """Colour of the surface at each pixel that is hit, nearest texel; and where it is no hole."""
    rgb, solid = np.ones((*ids.shape, 3)), hit.copy()
    used = thing.material[ids]
    for number in np.unique(used[hit]):
        material, where = thing.materials[number], hit & (used == number)
        rgb[where] = np.array(material.colour) / 255.0
        if material.texture is not None:
            texels = np.asarray(material.texture.image)
            height, width = texels.shape[:2]
            column = np.floor(uv[where][:, 0] % 1.0 * width).astype(np.int64).clip(0, width - 1)
            row = np.floor((1.0 - uv[where][:, 1] % 1.0) * height).astype(np.int64).clip(0, height - 1)
            found = texels[row, column]
            rgb[where] *= found[:, :3] / 255.0
            if material.texture.cutout:
                solid[where] = found[:, 3] >= TRANSPARENT
    return rgb, solid


def _shading(thing: Assembly, ids: Int[Array, "B H W"], cameras: Cameras) -> Float[Array, "B H W"]:
    """Brightness of the flat face at each pixel: ambient plus |normal . light|, since either side may be the front."""
    corners = _upright(thing.vertices)[thing.faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True).clip(1e-12)
    right, up, toward = (cameras.c2w[:, :3, axis].numpy() for axis in range(3))
    light = LIGHT[0] * toward + LIGHT[1] * right + LIGHT[2] * up
    brightness: Float[Array, "B H W"] = AMBIENT + DIFFUSE * np.abs(np.einsum("bhwc,bc->bhw", normal[ids], light))
    return brightness
