"""How close a result is to the truth: in its surface, in its silhouettes, in its pictures.

Both meshes are compared as they lie, in one frame; nothing is aligned. Images are B x H x W x C in [0, 1].
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from scipy.spatial import cKDTree
from torch import Tensor

from dreamcraft3d.evaluation.render import MeshRender, render_textured
from dreamcraft3d.export import TexturedMesh
from dreamcraft3d.functional.cameras import Cameras, orbit, project
from dreamcraft3d.functional.mesh import Mesh
from dreamcraft3d.kernels.rasterize import interpolate, rasterize

ELEVATIONS = (-20.0, 10.0, 40.0)
VISIBILITY_VIEWS, VISIBILITY_SIZE, VISIBILITY_TOLERANCE = 64, 512, 0.006
VIEWS_AT_ONCE = 8


@dataclass(frozen=True)
class FScore:
    """Precision: share of the result within `threshold` of the truth; recall: the other way; f_score: harmonic mean."""

    f_score: float
    precision: float
    recall: float
    threshold: float


@dataclass(frozen=True)
class MultiViewReport:
    """Means over unseen views, the worst of them, the reference view, and every view (degrees, IoU, dB)."""

    silhouette_iou: float
    psnr: float
    worst_iou: float
    worst_psnr: float
    reference_psnr: float
    reference_iou: float
    elevations: tuple[float, ...]
    azimuths: tuple[float, ...]
    iou_per_view: tuple[float, ...]
    psnr_per_view: tuple[float, ...]


def psnr(a: Float[Tensor, "B H W C"], b: Float[Tensor, "B H W C"]) -> Float[Tensor, " B"]:
    """-10 log10 of the mean squared difference, per image; 100 dB at most, so that equal images stay a number."""
    error = (a - b).square().flatten(1).mean(1)
    return -10.0 * error.clamp(min=1e-10).log10()


def silhouette_iou(a: Float[Tensor, "B H W"], b: Float[Tensor, "B H W"]) -> Float[Tensor, " B"]:
    """Intersection over union of opacities above one half, per image; 1 where both are empty."""
    inside_a, inside_b = a.flatten(1) > 0.5, b.flatten(1) > 0.5
    union = (inside_a | inside_b).sum(1)
    return torch.where(union > 0, (inside_a & inside_b).sum(1) / union.clamp(min=1), 1.0)


def unseen_views(views: int = 24, *, reference: Cameras | None = None) -> Cameras:
    """Cameras on a grid: three elevations, equally spaced azimuths, each row turned by a third of a step.

    No camera comes closer than 5 degrees to the reference view (by default elevation 0, azimuth 0): those are left out.
    """
    reference = orbit(0.0, 0.0) if reference is None else reference
    columns = math.ceil(views / len(ELEVATIONS))
    angles = [
        (elevation, 360.0 * (column + row / 3.0) / columns)
        for row, elevation in enumerate(ELEVATIONS)
        for column in range(columns)
    ]
    elevation, azimuth = torch.deg2rad(torch.tensor(angles)).unbind(-1)
    cameras = orbit(elevation, azimuth, distance=float(reference.distance[0]), fovy=float(reference.fovy[0]))
    away = (cameras.c2w[:, :3, 2] * reference.c2w[:1, :3, 2]).sum(-1) < math.cos(math.radians(5.0))
    keep = away.nonzero()[:views, 0]
    return Cameras(
        *(value[keep] for value in (cameras.c2w, cameras.elevation, cameras.azimuth, cameras.distance, cameras.fovy))
    )


def multi_view_report(
    result: TexturedMesh, truth: TexturedMesh, *, views: int = 24, size: int = 256, reference: Cameras | None = None
) -> MultiViewReport:
    """Silhouettes and pictures (on white) of both meshes, from `views` unseen cameras and from the reference camera."""
    reference = orbit(0.0, 0.0) if reference is None else reference
    unseen = unseen_views(views, reference=reference)
    iou, decibels = _compare(render_textured(result, unseen, size), render_textured(truth, unseen, size))
    seen_iou, seen_psnr = _compare(render_textured(result, reference, size), render_textured(truth, reference, size))
    return MultiViewReport(
        silhouette_iou=float(iou.mean()),
        psnr=float(decibels.mean()),
        worst_iou=float(iou.min()),
        worst_psnr=float(decibels.min()),
        reference_psnr=float(seen_psnr.mean()),
        reference_iou=float(seen_iou.mean()),
        elevations=tuple(torch.rad2deg(unseen.elevation).tolist()),
        azimuths=tuple(torch.rad2deg(unseen.azimuth).tolist()),
        iou_per_view=tuple(iou.tolist()),
        psnr_per_view=tuple(decibels.tolist()),
    )


def _compare(a: MeshRender, b: MeshRender) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    return silhouette_iou(a.rgba[..., 3], b.rgba[..., 3]), psnr(a.over(1.0), b.over(1.0))


def f_score(
    result: Mesh | TexturedMesh,
    truth: Mesh | TexturedMesh,
    threshold_fraction: float = 0.02,
    *,
    samples: int = 100_000,
    seed: int = 0,
) -> FScore:
    """F-score of the surfaces that can be seen from outside.

    Points are spread evenly (by area) over each surface, and those that no camera around the object sees are dropped.
    A point counts when the nearest point of the other surface lies within `threshold_fraction` of the truth's
    bounding-box diagonal.

    A sphere against itself scores 1. Moved by d, small against its radius, the part of it with |d cos theta| <= t
    stays within the threshold t: it scores about t / d.
    """
    threshold = threshold_fraction * float((truth.vertices.amax(0) - truth.vertices.amin(0)).norm())
    generator = torch.Generator().manual_seed(seed)
    ours, theirs = (visible_points(mesh, samples, generator=generator) for mesh in (result, truth))
    precision, recall = _share_within(ours, theirs, threshold), _share_within(theirs, ours, threshold)
    mean = 2.0 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0
    return FScore(mean, precision, recall, threshold)


def sample_surface(mesh: Mesh | TexturedMesh, count: int, *, generator: torch.Generator) -> Float[Tensor, "N 3"]:
    """`count` points, uniform over the area (stratified: every face gets its share, rounded)."""
    corners = mesh.vertices.detach().cpu().double()[mesh.faces.cpu()]
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=-1)
    ladder = area.cumsum(0)
    where = (
        torch.arange(count, dtype=torch.float64) + torch.rand(count, generator=generator, dtype=torch.float64)
    ) / count
    face = torch.searchsorted(ladder, where * ladder[-1]).clamp(max=len(area) - 1)
    u, v = torch.rand(2, count, 1, generator=generator, dtype=torch.float64)
    root = u.sqrt()
    a, b, c = corners[face].unbind(1)
    points: Tensor = (1.0 - root) * a + root * (1.0 - v) * b + root * v * c
    return points.float()


@torch.no_grad()
def visible_points(mesh: Mesh | TexturedMesh, count: int, *, generator: torch.Generator) -> Float[Tensor, "N 3"]:
    """Those of `count` surface points that can be seen from outside."""
    points = sample_surface(mesh, count, generator=generator)
    return points[seen_from_outside(points, mesh)]


@torch.no_grad()
def seen_from_outside(points: Float[Tensor, "N 3"], mesh: Mesh | TexturedMesh) -> Bool[Tensor, " N"]:
    """Whether any of 64 cameras, spread evenly over a sphere around the mesh, sees each point (depth test, 512 px)."""
    vertices = mesh.vertices.detach().cpu()
    centre = 0.5 * (vertices.amin(0) + vertices.amax(0))
    scale = 0.64 / (vertices - centre).norm(dim=-1).max()
    vertices, points = (vertices - centre) * scale, (points - centre) * scale
    seen = torch.zeros(len(points), dtype=torch.bool)
    cameras = sphere_of_cameras(VISIBILITY_VIEWS)
    for i in range(0, len(cameras), VIEWS_AT_ONCE):
        hidden = (~seen).nonzero()[:, 0]
        if len(hidden) == 0:
            break
        clip = project(vertices, cameras[i : i + VIEWS_AT_ONCE])
        raster = rasterize(clip, mesh.faces.cpu(), VISIBILITY_SIZE)
        depth = interpolate(clip[..., 3:].contiguous(), raster, mesh.faces.cpu())[..., 0]  # w is the depth
        depth = torch.where(raster.face_ids >= 0, depth, torch.inf)
        at = project(points[hidden], cameras[i : i + VIEWS_AT_ONCE])
        column = ((0.5 + 0.5 * at[..., 0] / at[..., 3]) * VISIBILITY_SIZE).long().clamp(0, VISIBILITY_SIZE - 1)
        row = ((0.5 - 0.5 * at[..., 1] / at[..., 3]) * VISIBILITY_SIZE).long().clamp(0, VISIBILITY_SIZE - 1)
        front = depth.flatten(1).gather(1, row * VISIBILITY_SIZE + column)
        seen[hidden] = (at[..., 3] <= front + VISIBILITY_TOLERANCE).any(0)
    return seen


def sphere_of_cameras(count: int) -> Cameras:
    """Cameras in the directions of a Fibonacci lattice, in an order that goes all around early."""
    index = (torch.arange(count) * 29 % count).float()  # no common factor: every direction once
    elevation = torch.asin(1.0 - 2.0 * (index + 0.5) / count)
    azimuth = torch.remainder(index * (math.pi * (3.0 - math.sqrt(5.0))), 2.0 * math.pi)
    return orbit(elevation, azimuth)


def _share_within(points: Tensor, others: Tensor, threshold: float) -> float:
    if len(points) == 0 or len(others) == 0:
        return 0.0
    distance, _ = cKDTree(others.numpy()).query(points.numpy(), distance_upper_bound=threshold * 1.01)
    return float((distance <= threshold).mean())
