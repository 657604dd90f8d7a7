"""The picture laid over the mesh: what the reference camera should see of it.

Three ways: the mesh's own look, when there is no picture; a picture of the front, whose object is scaled and shifted
onto the mesh's outline; a picture through a known camera, projected onto the surface it shows and seen again from the
reference camera.

Letters: S side of the reference view in pixels.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from dreamcraft3d.config import GenerateConfig
from dreamcraft3d.functional.cameras import Cameras, orbit, project
from dreamcraft3d.kernels.mesh_query import MeshQuery
from dreamcraft3d.kernels.rasterize import interpolate, rasterize
from dreamcraft3d.refining.refusals import RequestBroken
from dreamcraft3d.refining.surface import Surface
from dreamcraft3d.rendering import render_mesh
from dreamcraft3d.stages.pictures import read_picture
from dreamcraft3d.stages.reference import Frame, ReferenceView, load_reference

__all__ = ["Viewer", "laid_over_outline", "mixed", "present_view", "projected", "viewer_of"]

logger = logging.getLogger(__name__)

Colours = Callable[[Float[Tensor, "N 3"]], Float[Tensor, "N 3"]]
Doubles = NDArray[np.float64]

HIDDEN = 0.005
"""Distance, in our units, by which a surface point may lie behind what the viewer sees first."""


class Viewer:
    """The camera of a picture: where it looks from, and where points fall in its picture."""

    def __init__(self, world_to_clip: Doubles, world: Doubles) -> None:
        """`world`: object space to world."""
        self._object_to_clip = world_to_clip @ world

    def eye(self, matrix: Doubles) -> Doubles:
        """Homogeneous position of the eye (at infinity for a parallel projection) after `matrix` of object space.

        Raises:
            RequestBroken: the camera has no single eye.
        """
        clip = self._object_to_clip @ np.linalg.inv(matrix)
        _, sizes, rows = np.linalg.svd(clip[[0, 1, 3]])
        if sizes[-1] < 1e-12 * sizes[0]:
            raise RequestBroken("world_to_clip is not a camera.")
        eye = rows[3]
        if abs(eye[3]) > 1e-9 * np.abs(eye).max():
            return np.asarray(eye / eye[3])
        return np.asarray(-eye * np.sign(clip[2] @ eye))  # towards the viewer depth falls

    def angles(self, matrix: Doubles) -> tuple[float, float]:
        """(elevation, azimuth) of the eye as seen from the origin after `matrix`, radians."""
        x, y, z, _ = self.eye(matrix)
        return math.atan2(z, math.hypot(x, y)), math.atan2(y, x)

    def look(self, x: Float[Tensor, "N 3"], matrix: Doubles, query: MeshQuery) -> tuple[Doubles, NDArray[np.bool_]]:
        """Where points fall in the picture ((0, 0) top left, (1, 1) bottom right), and which of them it shows."""
        clip = self._object_to_clip @ np.linalg.inv(matrix)
        points = np.hstack([x.double().numpy(), np.ones((len(x), 1))]) @ clip.T
        ahead = points[:, 3] > 0.0
        place = points[:, :2] / np.where(ahead, points[:, 3], 1.0)[:, None] * [0.5, -0.5] + 0.5
        eye = self.eye(matrix)
        origin = torch.from_numpy(eye[:3] if eye[3] else 10.0 * eye[:3] / np.linalg.norm(eye[:3])).float()
        start = origin.expand_as(x) if eye[3] else x + origin
        distance = (x - start).norm(dim=-1)
        t, _ = query.cast_rays(start, (x - start) / distance[:, None])
        seen = ahead & (place >= 0.0).all(axis=1) & (place <= 1.0).all(axis=1)
        return place, seen & (t >= distance - HIDDEN).numpy()


def viewer_of(world_to_clip: tuple[tuple[float, ...], ...], matrix_world: tuple[tuple[float, ...], ...]) -> Viewer:
    """The viewer of a request."""
    return Viewer(np.array(world_to_clip), np.array(matrix_world))


@torch.no_grad()
def present_view(surface: Surface, present: Colours, elevation: float, size: int) -> ReferenceView:
    """What the mesh looks like now from the reference camera. `elevation` in radians."""
    render = render_mesh(surface.mesh, present, orbit(elevation, 0.0), size)
    rgba = render.rgba[0].clamp(0.0, 1.0)
    return ReferenceView(rgba=rgba, mask=rgba[..., 3] > 0.5, elevation=elevation, matting="the mesh itself")


def laid_over_outline(picture: Path, surface: Surface, config: GenerateConfig) -> tuple[ReferenceView, float]:
    """The picture's object at the place and size of the mesh's outline, and how their shapes differ.

    The second value is the ratio of their aspect ratios, at least 1.

    Raises:
        InputError: the picture cannot be used.
    """
    view = load_reference(picture, config.reference)
    size = view.rgba.shape[0]
    theirs, ours = _box(view.mask), _box(_outline(surface, orbit(view.elevation, 0.0), size))
    scale = math.sqrt((theirs[2] * theirs[3]) / (ours[2] * ours[3]))
    side = size * scale
    frame = Frame(theirs[0] - ours[0] * scale, theirs[1] - ours[1] * scale, side, size)
    rgba = frame.resample(view.rgba.numpy()).clip(0.0, 1.0)
    rgba[..., :3] = np.minimum(rgba[..., :3], rgba[..., 3:])
    aligned = torch.from_numpy(rgba)
    ratio = (theirs[2] / theirs[3]) / (ours[2] / ours[3])
    moved = replace(view, rgba=aligned, mask=aligned[..., 3] > 0.5, depth=None, normal=None)
    return moved, max(ratio, 1.0 / ratio)


@torch.no_grad()
def projected(
    picture: Path, viewer: Viewer, surface: Surface, now: ReferenceView, config: GenerateConfig
) -> ReferenceView:
    """The picture as the reference camera sees it on the surface; what it does not show looks as `now`.

    Raises:
        InputError: the picture cannot be used.
    """
    straight = read_picture(picture, max_megapixels=config.reference.max_megapixels)
    size = now.rgba.shape[0]
    clip = project(surface.mesh.vertices, orbit(now.elevation, 0.0))
    raster = rasterize(clip, surface.mesh.faces, size)
    covered = raster.face_ids[0] >= 0
    x = interpolate(surface.mesh.vertices, raster, surface.mesh.faces)[0][covered]
    query = MeshQuery(surface.mesh.vertices, surface.mesh.faces)
    place, seen = viewer.look(x, surface.matrix, query)
    grid = torch.from_numpy(2.0 * place - 1.0).float()[None, None]
    image = torch.from_numpy(straight).permute(2, 0, 1)[None]
    sampled = torch.nn.functional.grid_sample(image, grid, padding_mode="border", align_corners=False)[0, :, 0].T
    shown = torch.from_numpy(seen) & (sampled[:, 3] > 0.5)
    rgba = now.rgba.clone()
    there = rgba[covered]
    rgba[covered] = torch.where(shown[:, None], torch.cat([sampled[:, :3], torch.ones_like(there[:, 3:])], 1), there)
    rgba[..., :3] = torch.minimum(rgba[..., :3], rgba[..., 3:])
    return replace(now, rgba=rgba, matting="projected")


def mixed(wanted: ReferenceView, now: ReferenceView, strength: float) -> ReferenceView:
    """`strength` of the way from what the mesh shows now to what is wanted, where both show something."""
    both = (wanted.mask & now.mask)[..., None]
    blend = now.rgba + strength * (wanted.rgba - now.rgba)
    return replace(wanted, rgba=torch.where(both, blend, wanted.rgba))


def _outline(surface: Surface, camera: Cameras, size: int) -> Bool[Tensor, "S S"]:
    own = surface.mesh.faces[torch.from_numpy(surface.source >= 0)]
    return rasterize(project(surface.mesh.vertices, camera), own, size).face_ids[0] >= 0


def _box(mask: Bool[Tensor, "S S"]) -> tuple[float, float, float, float]:
    """(centre x, centre y, width, height) of what is true, pixels."""
    rows, columns = torch.nonzero(mask.any(dim=1)), torch.nonzero(mask.any(dim=0))
    top, bottom, left, right = (float(v) for v in (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1))
    return 0.5 * (left + right), 0.5 * (top + bottom), right - left, bottom - top
