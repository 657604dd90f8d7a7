"""Whether our kernels give on a graphics card what they give on the processor: asked once, before a scene is put there.

A driver that is too old, a card that the compiler does not know, a kernel that is wrong there: all of it shows in a few
small problems, each with its gradients. Where it does, the scene stays on the processor, which is slow and right.
"""

import logging
import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from dreamcraft3d.functional.cameras import orbit, project, rays
from dreamcraft3d.functional.mesh import Mesh
from dreamcraft3d.functional.tets import bcc_grid, marching_tets
from dreamcraft3d.kernels.compositing import accumulate, render_weights
from dreamcraft3d.kernels.frustum import pixel_centres, relative_cameras, render_frustum
from dreamcraft3d.kernels.hash_grid import HashGridLayout, hash_encode
from dreamcraft3d.kernels.marching import OccupancyGrid, march
from dreamcraft3d.kernels.mesh_query import signed_distance
from dreamcraft3d.kernels.rasterize import antialias, interpolate, rasterize

__all__ = ["card_trouble"]

logger = logging.getLogger(__name__)

TOLERANCE = 0.05
"""Largest |a - b| / |b|: rounding moves a pixel or sample across an edge here and there; wrong kernels err by more."""

BROKEN = (RuntimeError, OSError, ImportError, AttributeError, TypeError, ValueError, AssertionError)
"""What torch, Warp, its compiler and the driver raise."""

Problem = Callable[[torch.device], list[Tensor]]


@cache
def card_trouble(device: torch.device) -> str | None:
    """What is wrong with our kernels on this device, in a few words; None if nothing is (on the processor: never)."""
    if device.type == "cpu":
        return None
    for problem in PROBLEMS:
        name = problem.__name__.strip("_")
        try:
            answers = zip(problem(device), problem(torch.device("cpu")), strict=True)
            off = max(_distance(theirs, ours) for theirs, ours in answers)
        except BROKEN as error:
            return f"{name}: {str(error).partition(chr(10))[0]}"
        if not off <= TOLERANCE:
            return f"{name}: results differ by {off:.0%}"
    logger.info("the kernels on %s agree with those on the processor", device)
    return None


def _distance(theirs: Tensor, ours: Tensor) -> float:
    """|a - b| / |b|; 0 where both are empty, infinite where shapes differ."""
    if theirs.shape != ours.shape:
        return math.inf
    theirs, ours = theirs.detach().cpu().double(), ours.detach().double()
    return float((theirs - ours).norm() / ours.norm().clamp_min(1e-9)) if ours.numel() else 0.0


def _encoding(device: torch.device) -> list[Tensor]:
    """The hash grid, and its gradients to points and table."""
    generator = torch.Generator().manual_seed(0)
    layout = HashGridLayout(levels=6, base_resolution=4, growth=1.7, log2_table_size=9)
    points = torch.rand(500, 3, generator=generator).to(device).requires_grad_()
    table = torch.randn(layout.entries, 2, generator=generator).to(device).requires_grad_()
    features = hash_encode(points, table, layout)
    return [features, *torch.autograd.grad(features.sin().sum(), (points, table))]


def _marching(device: torch.device) -> list[Tensor]:
    """How many samples each ray has, and how far they lie."""
    grid = OccupancyGrid(16, device=device)
    grid.update(lambda x: (x.norm(dim=1) < 0.7).float(), generator=torch.Generator().manual_seed(1), step=0)
    origins, directions = (part.reshape(-1, 3) for part in rays(orbit(0.3, 0.8).to(device), 24))
    samples = march(origins, directions, grid, step_size=0.02, generator=torch.Generator().manual_seed(2))
    lengths = torch.zeros_like(origins[:, 0]).index_add(0, samples.ray_indices, samples.t_starts)
    return [samples.ray_offsets.diff().float(), lengths]


def _compositing(device: torch.device) -> list[Tensor]:
    """Weights and sums along rays, and their gradients."""
    generator = torch.Generator().manual_seed(3)
    offsets = torch.tensor([0, 5, 5, 12, 40, 41]).to(device)
    alphas = (0.9 * torch.rand(41, generator=generator)).to(device).requires_grad_()
    values = torch.randn(41, 8, generator=generator).to(device).requires_grad_()
    weights = render_weights(alphas, offsets)
    sums = accumulate(weights, values, offsets)
    return [weights, sums, *torch.autograd.grad(sums.square().sum(), (alphas, values))]


def _drawing(device: torch.device) -> list[Tensor]:
    """Anti-aliased pictures of a ball, and their gradients to its vertices and colours."""
    mesh = _ball().to(device)
    vertices, colours = mesh.vertices.clone().requires_grad_(), mesh.vertices.clone().requires_grad_()
    clip = project(vertices, orbit(torch.tensor([0.2, -0.4]), torch.tensor([0.0, 2.0])).to(device))
    raster = rasterize(clip, mesh.faces, 48)
    covered = (raster.face_ids >= 0).float()[..., None]
    picture = antialias(
        torch.cat([interpolate(colours, raster, mesh.faces), covered], dim=-1), raster, clip, mesh.faces
    )
    return [picture, *torch.autograd.grad(picture.square().sum(), (vertices, colours))]


def _distances(device: torch.device) -> list[Tensor]:
    """Signed distances to the ball."""
    mesh = _ball().to(device)
    points = 2.0 * torch.rand(300, 3, generator=torch.Generator().manual_seed(4)) - 1.0
    return [signed_distance(points.to(device), mesh.vertices, mesh.faces)]


def _lifting(device: torch.device) -> list[Tensor]:
    """Two volumes in the frustum of a camera, each as two other cameras see it, and the gradients to their cells."""
    volume = torch.randn(2, 8, 8, 6, 8, generator=torch.Generator().manual_seed(5)).to(device).requires_grad_()
    wanted = orbit(torch.tensor([0.2, -0.3, 0.5, 0.0]), torch.tensor([0.0, 2.0, 4.0, 1.0])).to(device)
    cameras = relative_cameras(wanted, orbit(torch.zeros(4), 0.0).to(device))
    seen = render_frustum(volume, cameras, pixel_centres(16, device).expand(4, -1, -1), samples=8, reach=0.7, bias=-1.0)
    pictures = torch.cat([seen.opacity, seen.colour, seen.features, seen.depth], dim=-1)
    return [pictures, *torch.autograd.grad(pictures.square().sum(), volume)]


PROBLEMS: tuple[Problem, ...] = (_encoding, _marching, _compositing, _drawing, _distances, _lifting)


def _ball() -> Mesh:
    grid, tets = bcc_grid(10)
    box = 2.0 * grid - 1.0
    return marching_tets(box, box.norm(dim=1) - 0.6, tets)
