"""Which cells of a reference frustum lie inside an object, by space carving.

Meshes made by people are rarely closed, so that inside and outside cannot be told by counting walls. But they can be
looked at: a cell is empty if the reference sees past it, or two of many views from all around do (Kutulakos and Seitz
2000, with depth in place of colour); two, because a pixel beside an edge sees past what it does not cover. Carving
alone would lose sheets without thickness, whose cells lie in front of them from one side or the other: cells that the
surface passes through are kept.
"""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dreamcraft3d.functional.cameras import Cameras, orbit, project
from dreamcraft3d.kernels.frustum import pixel_centres
from dreamcraft3d.kernels.rasterize import Raster, interpolate, rasterize
from dreamcraft3d.priors.lifting import REACH
from dreamcraft3d.training.surfaces import Surface

PLANES, SIDE = 48, 64  # of the frustum
VIEWS, SIZE = 24, 96  # that carve
WITNESSES = 2  # views that have to see past a cell
MARGIN = 0.25 * 2.0 * REACH / PLANES
POINTS = 120_000  # on the surface, to find the cells that it passes through


def frustum_cells(reference: Cameras, *, size: int = SIDE, planes: int = PLANES) -> Float[Tensor, "h w D 3"]:
    """World places of the middles of the cells (rows from the top, planes from the nearest) of one camera."""
    d = reference.distance + REACH * ((torch.arange(planes) + 0.5) / planes * 2.0 - 1.0)
    flat = pixel_centres(size)[:, None] * (torch.tan(0.5 * reference.fovy) * d)[None, :, None]
    seen = torch.cat([flat, -d[None, :, None].expand(len(flat), -1, 1)], dim=-1)
    rotation, centre = reference.c2w[0, :3, :3], reference.c2w[0, :3, 3]
    return (seen @ rotation.T + centre).reshape(size, size, planes, 3)


def carved_occupancy(surface: Surface, reference: Cameras) -> Bool[Tensor, "h w D"]:
    """Cells of the reference camera's frustum that the reference and the views around do not see past, and those that
    the surface passes through."""
    cells = frustum_cells(reference)
    shape, flat = cells.shape[:3], cells.reshape(-1, 3)
    in_front = seen_past(flat, reference, depth_maps(surface, reference, SIDE)[0])
    kept = (~in_front).nonzero()[:, 0]
    witnesses = torch.zeros(len(kept), dtype=torch.uint8)
    around = sphere_of_cameras(VIEWS)
    for index, depth in enumerate(depth_maps(surface, around, SIZE)):
        witnesses += seen_past(flat[kept], around[index : index + 1], depth)
        left = witnesses < WITNESSES
        kept, witnesses = kept[left], witnesses[left]
    occupied = torch.zeros(len(flat), dtype=torch.bool)
    occupied[kept] = True
    return occupied.reshape(shape) | cells_of_surface(surface, reference)


def cells_of_surface(
    surface: Surface, reference: Cameras, *, size: int = SIDE, planes: int = PLANES
) -> Bool[Tensor, "h w D"]:
    """Cells that hold one of many points spread over the surface by area, always the same."""
    rng = np.random.default_rng(0)
    a, b, c = surface.vertices[surface.faces].unbind(1)
    area = torch.linalg.cross(b - a, c - a).norm(dim=-1).double().numpy()
    face = torch.from_numpy(np.searchsorted(np.cumsum(area) / area.sum(), rng.random(POINTS)).clip(max=len(area) - 1))
    u, v = (torch.as_tensor(rng.random(POINTS), dtype=torch.float32)[:, None] for _ in range(2))
    u = u.sqrt()
    clip = project((1.0 - u) * a[face] + u * (1.0 - v) * b[face] + u * v * c[face], reference)[0]
    column = 0.5 * (clip[:, 0] / clip[:, 3] + 1.0) * size
    row = 0.5 * (1.0 - clip[:, 1] / clip[:, 3]) * size
    plane = 0.5 * ((clip[:, 3] - reference.distance) / REACH + 1.0) * planes
    place = torch.stack([row, column, plane], dim=1).floor().long()
    inside = ((place >= 0) & (place < torch.tensor([size, size, planes]))).all(1)
    found = torch.zeros(size, size, planes, dtype=torch.bool)
    found[tuple(place[inside].T)] = True
    return found


def sphere_of_cameras(count: int) -> Cameras:
    """Cameras spread evenly over the sphere (golden spiral)."""
    steps = torch.arange(count)
    elevation = torch.asin(1.0 - 2.0 * (steps + 0.5) / count)
    return orbit(elevation, steps * (math.pi * (3.0 - math.sqrt(5.0))))


def depth_maps(surface: Surface, cameras: Cameras, size: int) -> Float[Tensor, "B H W"]:
    """Depth of the nearest surface along the cameras' axes; infinite where there is none."""
    clip = project(surface.vertices, cameras)
    raster: Raster = rasterize(clip, surface.faces, size)
    depth = interpolate(clip[..., 3:].contiguous(), raster, surface.faces)[..., 0]
    return torch.where(raster.face_ids >= 0, depth, math.inf)


def seen_past(points: Float[Tensor, "P 3"], camera: Cameras, depth: Float[Tensor, "H W"]) -> Bool[Tensor, " P"]:
    """Whether points lie inside the picture and clearly in front of the surface that it shows."""
    rotation, centre = camera.c2w[0, :3, :3], camera.c2w[0, :3, 3]
    seen = (points - centre) @ rotation
    away = -seen[:, 2]
    wide = (torch.tan(0.5 * camera.fovy) * away).clamp_min(1e-6)
    u, v = seen[:, 0] / wide, seen[:, 1] / wide
    size = depth.shape[0]
    column, row = (0.5 * (u + 1.0) * size).long(), (0.5 * (1.0 - v) * size).long()
    inside = (u.abs() < 1.0) & (v.abs() < 1.0) & (away > 0.0)
    nearest = depth[row.clamp(0, size - 1), column.clamp(0, size - 1)]
    return inside & (away < nearest - MARGIN)
