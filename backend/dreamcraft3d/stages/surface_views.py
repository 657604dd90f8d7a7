"""A surface seen from several cameras: which point each pixel shows, and images that are laid back onto the surface.

The images of a few views are the representation in which the surface is painted: a point takes the mean of the images
that show it, weighted by how squarely and how far from an outline they do. No texture coordinates are needed, so that
one way serves a mesh that has just been unwrapped and a mesh with coordinates of its own.

Notation: B views, L side of an image, N points, D side of the depth maps.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from dreamcraft3d.functional.cameras import Cameras, orbit, project
from dreamcraft3d.functional.mesh import Mesh, vertex_normals
from dreamcraft3d.kernels.rasterize import interpolate, rasterize

__all__ = ["AROUND", "Painting", "SurfacePoints", "View", "filled_outward", "views_around"]

AROUND = (
    *((180, 0), (110, 0), (-110, 0), (145, 10), (-145, 10), (70, 0), (-70, 0)),
    *((90, 45), (-90, 45), (180, 50), (0, 60), (0, -50), (180, -40)),
)
"""(azimuth, elevation) of the painted views relative to the reference camera, degrees: the back first, then what turns
towards the front, then top and bottom."""

DEPTH_SIZE = 512
BEHIND = 0.006
"""Depth by which a point may lie behind the depth map, world units: less than thin walls are apart."""

SLANT = 0.2
"""Cosine of the viewing angle at which an image says nothing of a surface any more."""

SHARPNESS = 4.0
"""Power of the cosine in the weights: of several images that show a point nearly the squarest alone decides."""

LEAST = 1e-6
"""Weights below this are none."""

RIM = 0.012
"""Distance to an outline, as a share of the image's side, from which on an image counts in full."""


@dataclass(frozen=True)
class SurfacePoints:
    """Points of a mesh's surface: their face, the barycentric weights of its corners, position and unit normal."""

    face: Int[Tensor, " N"]
    weights: Float[Tensor, "N 3"]
    x: Float[Tensor, "N 3"]
    normal: Float[Tensor, "N 3"]

    @classmethod
    def on(
        cls,
        mesh: Mesh,
        face: Int[Tensor, " N"],
        weights: Float[Tensor, "N 3"],
        vertex_normal: Float[Tensor, "V 3"] | None = None,
    ) -> "SurfacePoints":
        """The points at barycentric weights of faces; normals are the smooth ones (computed if they are not given)."""
        corners = mesh.faces[face]
        smooth = vertex_normals(mesh.vertices, mesh.faces) if vertex_normal is None else vertex_normal
        normals = (weights[..., None] * smooth[corners]).sum(1)
        x = (weights[..., None] * mesh.vertices[corners]).sum(1)
        return cls(face, weights, x, F.normalize(normals, dim=-1, eps=1e-9))

    def __len__(self) -> int:
        return len(self.face)

    def __getitem__(self, chosen: Bool[Tensor, " N"] | slice) -> "SurfacePoints":
        return SurfacePoints(self.face[chosen], self.weights[chosen], self.x[chosen], self.normal[chosen])


class View:
    """One camera: its depth map, how far each pixel is from an outline, and the points that its pixels show."""

    def __init__(self, mesh: Mesh, camera: Cameras, vertex_normal: Float[Tensor, "V 3"] | None = None) -> None:
        self._mesh, self.camera, self._normal = mesh, camera, vertex_normal
        depth = _depth_map(mesh, camera)
        self._depth = F.max_pool2d(depth[None, None], 3, stride=1, padding=1)[0, 0]
        self._rim = _distance_to_outline(depth)

    def pixels(self, size: int) -> tuple[Int[Tensor, " N"], SurfacePoints]:
        """The covered pixels of an image of this size (row * size + column), and the points at their centres."""
        raster = rasterize(project(self._mesh.vertices, self.camera), self._mesh.faces, size)
        face = raster.face_ids[0].reshape(-1)
        pixel = torch.nonzero(face >= 0).squeeze(1)
        weights = raster.barycentrics[0].reshape(-1, 2)[pixel]
        weights = torch.cat([weights, 1.0 - weights.sum(-1, keepdim=True)], dim=-1)
        return pixel, SurfacePoints.on(self._mesh, face[pixel].long(), weights, self._normal)

    def weigh(self, points: SurfacePoints) -> tuple[Float[Tensor, " N"], Float[Tensor, "N 2"]]:
        """How well this view shows each point (0 = not at all, 1 = squarely), and where: -1..1, right and down."""
        clip = project(points.x, self.camera)[0]
        place = clip[:, :2] / clip[:, 3:] * clip.new_tensor([1.0, -1.0])
        towards = F.normalize(self.camera.c2w[0, :3, 3] - points.x, dim=-1)
        cosine = (towards * points.normal).sum(-1)
        column, row = ((0.5 * place + 0.5) * DEPTH_SIZE).long().clamp(0, DEPTH_SIZE - 1).unbind(-1)
        visible = (clip[:, 3] <= self._depth[row, column] + BEHIND) & (place.abs() < 1.0).all(-1)
        square = ((cosine - SLANT) / (1.0 - SLANT)).clamp_min(0.0)
        weight = square**SHARPNESS * self._rim[row, column] * visible
        return torch.where(weight > LEAST, weight, 0.0), place


class Painting:
    """Images of some of the views, as colours of the surface."""

    def __init__(self) -> None:
        self._images: list[tuple[View, Float[Tensor, "1 3 L L"]]] = []

    def add(self, view: View, image: Float[Tensor, "L L 3"], covered: Bool[Tensor, "L L"]) -> None:
        """One more image, in which the object covers the given pixels."""
        self._images.append((view, filled_outward(image, covered).permute(2, 0, 1)[None]))

    def at(self, points: SurfacePoints, *, mode: str = "bilinear") -> tuple[Float[Tensor, "N 3"], Float[Tensor, " N"]]:
        """Colours of points, and the weight behind each: 0 where no image shows the point."""
        colour, total = points.x.new_zeros(len(points), 3), points.x.new_zeros(len(points))
        for view, image in self._images:
            weight, place = view.weigh(points)
            shown = torch.nonzero(weight > 0.0).squeeze(1)
            found = F.grid_sample(image, place[shown][None, None], mode, "border", align_corners=False)
            colour.index_add_(0, shown, weight[shown, None] * found[0, :, 0].T)
            total += weight
        return (colour / total.clamp_min(1e-12)[:, None]).clamp(0.0, 1.0), total


def views_around(mesh: Mesh, elevation: float) -> list[View]:
    """The views of `AROUND`; `elevation` of the reference camera, radians."""
    pairs = torch.tensor(AROUND, dtype=torch.float32).deg2rad()
    cameras = orbit(pairs[:, 1] + elevation * pairs[:, 0].cos(), pairs[:, 0]).to(mesh.vertices.device)
    normals = vertex_normals(mesh.vertices, mesh.faces)
    return [View(mesh, cameras[k : k + 1], normals) for k in range(len(cameras))]


def filled_outward(image: Float[Tensor, "H W C"], covered: Bool[Tensor, "H W"]) -> Float[Tensor, "H W C"]:
    """The image with the colour of the nearest covered pixel in every other one."""
    free = (~covered).cpu().numpy()
    if free.all() or not free.any():
        return image
    _, labels = cv2.distanceTransformWithLabels(
        free.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    source = np.zeros(labels.max() + 1, dtype=np.int64)
    source[labels[~free]] = np.flatnonzero(~free)
    return image.reshape(-1, image.shape[-1])[torch.from_numpy(source[labels]).to(image.device)]


def _depth_map(mesh: Mesh, camera: Cameras) -> Float[Tensor, "D D"]:
    """Depth along the viewing axis; -inf on background."""
    clip = project(mesh.vertices, camera)
    raster = rasterize(clip, mesh.faces, DEPTH_SIZE)
    depth = interpolate(clip[0, :, 3:].contiguous(), raster, mesh.faces)[0, ..., 0]
    return torch.where(raster.face_ids[0] >= 0, depth, -torch.inf)


def _distance_to_outline(depth: Float[Tensor, "D D"]) -> Float[Tensor, "D D"]:
    """0 at silhouettes and at jumps of the depth, 1 from `RIM` on."""
    known = torch.where(torch.isfinite(depth), depth, 1e6)[None, None]
    spread = F.max_pool2d(known, 3, 1, 1) + F.max_pool2d(-known, 3, 1, 1)
    pixel = 2.0 * 3.8 * math.tan(math.radians(10.0)) / DEPTH_SIZE
    free = ((spread[0, 0] < 16.0 * pixel) & torch.isfinite(depth)).cpu().numpy().astype(np.uint8)
    distance = cv2.distanceTransform(free, cv2.DIST_L2, cv2.DIST_MASK_5)
    return (torch.from_numpy(distance).to(depth) / (RIM * DEPTH_SIZE)).clamp(0.0, 1.0)
