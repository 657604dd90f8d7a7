"""What the views show: which texels a run can know anything about, and which faces lie inside out.

The views are those from which the texture stage looks: a ring at several heights within the guidance's range, and the
reference camera. Depth maps decide; a texel is seen if nothing lies before it and it is not seen edge-on.

Letters: B views, N points.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from dreamcraft3d.functional.cameras import Cameras, orbit, project
from dreamcraft3d.functional.mesh import face_normals
from dreamcraft3d.kernels.rasterize import Raster, interpolate, rasterize
from dreamcraft3d.refining.surface import Surface

__all__ = ["Views", "looks"]

SIZE = 512
AZIMUTHS = 12
EDGE_ON = 0.15
"""Cosine below which a surface is seen edge-on (81 degrees): too few pixels fall on it."""

BEHIND = 0.004
"""Depth by which a point may lie behind the depth map, in our units: less than thin walls are apart."""

CHUNK = 1 << 20


@dataclass(frozen=True)
class Views:
    """Depth maps of all views, and which way each face looks.

    Attributes:
        depth: along the viewing axis, the farthest of 3 x 3 pixels; -inf on background.
        facing: per face of the copy, +1, or -1 if the views mostly see its back.
    """

    cameras: Cameras
    depth: Float[Tensor, "B S S"]
    facing: Float[Tensor, " F"]

    @property
    def inside_out(self) -> int:
        """Number of faces that look inward."""
        return int((self.facing < 0).sum())

    def show(self, x: Float[Tensor, "N 3"], normal: Float[Tensor, "N 3"]) -> Bool[Tensor, " N"]:
        """Which points some view sees; `normal` looks outward."""
        parts = zip(torch.split(x, CHUNK), torch.split(normal, CHUNK), strict=True)
        return torch.cat([self._show(*part) for part in parts]) if len(x) else torch.zeros(0, dtype=torch.bool)

    def _show(self, x: Float[Tensor, "N 3"], normal: Float[Tensor, "N 3"]) -> Bool[Tensor, " N"]:
        seen = torch.zeros(len(x), dtype=torch.bool)
        left = torch.arange(len(x))
        for b in range(len(self.cameras)):
            found = _seen_by(self.cameras[b : b + 1], self.depth[b], x[left], normal[left])
            seen[left[found]] = True
            left = left[~found]
        return seen


def looks(surface: Surface, elevation: tuple[float, float], reference: Cameras) -> Views:
    """Renders the depth maps.

    Args:
        elevation: range of the guidance's camera heights, degrees.
    """
    low, high = (math.radians(angle) for angle in elevation)
    heights = sorted({low, 0.5 * (low + high), high})
    angles = [
        (e, 2.0 * math.pi * (k + i / len(heights)) / AZIMUTHS) for i, e in enumerate(heights) for k in range(AZIMUTHS)
    ]
    angles.append((float(reference.elevation[0]), float(reference.azimuth[0])))
    pairs = torch.tensor(angles)
    cameras = orbit(pairs[:, 0], pairs[:, 1])
    normals = face_normals(surface.mesh.vertices, surface.mesh.faces)
    depths, votes = [], torch.zeros(len(surface.mesh.faces))
    for b in range(len(cameras)):
        camera = cameras[b : b + 1]
        clip = project(surface.mesh.vertices, camera)
        raster = rasterize(clip, surface.mesh.faces, SIZE)
        depths.append(_depth_map(clip, raster, surface))
        votes += _votes(raster, camera, surface, normals)
    return Views(cameras, torch.cat(depths), torch.where(votes < 0.0, -1.0, 1.0))


def _depth_map(clip: Float[Tensor, "1 V 4"], raster: Raster, surface: Surface) -> Float[Tensor, "1 S S"]:
    depth = interpolate(clip[0, :, 3:], raster, surface.mesh.faces)[..., 0]
    depth = torch.where(raster.face_ids >= 0, depth, -torch.inf)
    return torch.nn.functional.max_pool2d(depth[:, None], 3, stride=1, padding=1)[:, 0]


def _votes(raster: Raster, camera: Cameras, surface: Surface, normals: Float[Tensor, "F 3"]) -> Float[Tensor, " F"]:
    """Pixels that show each face's front, less those that show its back."""
    face = raster.face_ids[raster.face_ids >= 0]
    centre = surface.mesh.vertices[surface.mesh.faces].mean(dim=1)
    front = ((camera.c2w[0, :3, 3] - centre) * normals).sum(-1).sign()
    pixels = torch.bincount(face, minlength=len(normals)).float()
    return pixels * front


def _seen_by(
    camera: Cameras, depth: Float[Tensor, "S S"], x: Float[Tensor, "N 3"], normal: Float[Tensor, "N 3"]
) -> Bool[Tensor, " N"]:
    clip = project(x, camera)[0]
    column = ((0.5 + 0.5 * clip[:, 0] / clip[:, 3]) * SIZE).long()
    row = ((0.5 - 0.5 * clip[:, 1] / clip[:, 3]) * SIZE).long()
    inside = (column >= 0) & (column < SIZE) & (row >= 0) & (row < SIZE)
    there = depth[row.clamp(0, SIZE - 1), column.clamp(0, SIZE - 1)]
    towards = torch.nn.functional.normalize(camera.c2w[0, :3, 3] - x, dim=-1)
    return inside & (clip[:, 3] <= there + BEHIND) & ((towards * normal).sum(-1) > EDGE_ON)


def outward_normals(surface: Surface, views: Views) -> NDArray[np.floating[Any]]:
    """T x 3: the normals of the request's triangles, turned where the views see their backs."""
    result = surface.normals.copy()
    own = surface.source >= 0
    result[surface.source[own]] *= views.facing.numpy()[own, None]
    return result
