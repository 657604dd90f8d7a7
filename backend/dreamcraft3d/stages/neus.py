"""Stage 1b: a NeuS surface that starts from the NeRF's shape (method section 9).

The release threw that shape away (issue I3).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dreamcraft3d.config import NeusConfig
from dreamcraft3d.errors import ObjectLost
from dreamcraft3d.fields.density_field import DensityField
from dreamcraft3d.fields.sdf_field import SDFField
from dreamcraft3d.fields.tet_mesh import closed_at_box
from dreamcraft3d.functional import losses
from dreamcraft3d.functional.cameras import orbit
from dreamcraft3d.functional.mesh import Mesh, keep_components, smoothed
from dreamcraft3d.functional.schedules import piecewise_linear
from dreamcraft3d.functional.tets import bcc_grid, marching_tets
from dreamcraft3d.functional.volume import neus_alpha
from dreamcraft3d.kernels.marching import OccupancyGrid
from dreamcraft3d.kernels.mesh_query import signed_distance
from dreamcraft3d.rendering import Render, render_density, render_mesh, render_sdf
from dreamcraft3d.stages.coarse_nerf import HEALTH_EVERY, OCCUPANCY_DECAY, OCCUPANCY_EVERY, CoarseNerf, check_opacity
from dreamcraft3d.stages.run import WEAK_VIEWS, StageRun, adam, descend
from dreamcraft3d.stages.supervision import Supervision

THRESHOLDS = (4.0, 8.0, 16.0, 32.0, 64.0)
"""Densities that may be the surface; the release fixed 25."""

SOFTER = 0.5
"""A young NeRF is porous at the density whose silhouettes are right; at half of it the surface is whole, and a little
thick."""

SMALLEST_PART = 0.02
"""Share of the largest part's faces below which a part of the NeRF is fog."""


@dataclass(frozen=True)
class Neus:
    """The stage's result: the field and where its surface may be."""

    field: SDFField
    grid: OccupancyGrid


def train_neus(supervision: Supervision, nerf: CoarseNerf, config: NeusConfig, run: StageRun) -> Neus:
    """Optimises a signed distance field from the NeRF's shape, features and colours.

    Raises:
        ObjectLost: the NeRF has no surface, or the object keeps vanishing.
    """
    neus = new_neus(nerf, config, run.generator())
    field, grid = neus.field, neus.grid
    optimiser = adam(parameter_groups(field, config), eps=1e-15)
    if not run.resumes():
        fit_shape(field, extract_surface(nerf, config), config, run.generator(-2))
    supervision = supervision.with_weak_views(config, run.generator(WEAK_VIEWS))
    for step in run.steps(config.steps, field=field, grid=grid, optimiser=optimiser):
        fraction, generator = step / config.steps, run.generator(step)
        size = int(piecewise_linear(fraction, config.render_size))
        if step % OCCUPANCY_EVERY == 0:
            grid.update(
                lambda x: occupancy(field, x, config.step_size), generator=generator, step=0, decay=OCCUPANCY_DECAY
            )
        cameras = supervision.alternating_cameras(config, step, fraction, generator)
        render = render_sdf(
            field,
            grid,
            cameras,
            size,
            step_size=config.step_size,
            normal_epsilon=config.normal_epsilon,
            generator=generator,
        )
        loss = supervision.alternating_loss(render, cameras, config, step, fraction, generator)
        loss = loss + regularisers(field, render, config, generator)
        descend(loss, optimiser)
        if step % HEALTH_EVERY == 0:
            check_opacity(run, step, render.opacity, supervision.targets(size).mask, loss)
    return neus


def new_neus(nerf: CoarseNerf, config: NeusConfig, generator: torch.Generator) -> Neus:
    """The NeRF's features and colours, and a full occupancy grid (the stale one would forbid the surface to grow)."""
    field = SDFField.from_density(nerf.field, generator=generator)
    with torch.no_grad():
        field.variance.fill_(math.log(config.initial_sharpness) / 10.0)
    return Neus(field, OccupancyGrid(nerf.grid.resolution, device=nerf.grid.values.device))


def parameter_groups(field: SDFField, config: NeusConfig) -> list[dict[str, object]]:
    """Learning rates of the hash grid, the heads and the sharpness."""
    heads = [*field.sdf_head.parameters(), *field.colour_head.parameters()]
    return [
        {"params": [field.encoding.table], "lr": config.lr_grid},
        {"params": heads, "lr": config.lr_heads},
        {"params": [field.variance], "lr": config.lr_sharpness},
    ]


def occupancy(field: SDFField, x: Float[Tensor, "N 3"], step_size: float) -> Float[Tensor, " N"]:
    """Opacity of a segment that runs straight into the surface at x."""
    f = field.sdf(x)
    return neus_alpha(f + 0.5 * step_size, f - 0.5 * step_size, field.inverse_deviation)


def regularisers(field: SDFField, render: Render, config: NeusConfig, generator: torch.Generator) -> Float[Tensor, ""]:
    """Eikonal on random points and near the surface (issue B15), opaque, sparse, and normals that face the camera."""
    loss = config.sparsity * losses.sparsity_loss(render.opacity) + config.opaque * losses.opaque_loss(render.opacity)
    seen = render.samples
    points = (2.0 * torch.rand(config.eikonal_points, 3, generator=generator) - 1.0).to(render.opacity)
    if seen is not None:
        points = torch.cat([points, seen.positions[:: max(1, len(seen.positions) // config.eikonal_points)].detach()])
        if seen.normals is not None:
            rays = render.opacity.numel()
            loss = loss + config.orient * losses.orientation_loss(seen.weights, seen.normals, seen.directions, rays)
            loss = loss + config.normal_smooth * losses.smoothness_loss(render.normal)
    return loss + config.eikonal * losses.eikonal_loss(field.gradient(points, config.eikonal_epsilon))


def extract_surface(nerf: CoarseNerf, config: NeusConfig) -> Mesh:
    """The NeRF's iso-surface at the density whose silhouettes agree best with its own pictures.

    It is without fog, and smoothed.

    Raises:
        ObjectLost: no density threshold gives a surface.
    """
    device = nerf.grid.values.device
    unit, tets = bcc_grid(config.extraction_cells, device=device)
    box = 2.0 * unit - 1.0
    cameras = orbit(torch.tensor([0.0, 0.3] * 3), torch.arange(6) * (math.pi / 3.0)).to(device)
    with torch.no_grad():
        density = _density(nerf.field, nerf.grid, box)
        seen = render_density(nerf.field, nerf.grid, cameras, 64, step_size=config.step_size).opacity > 0.5

        def surface(threshold: float) -> Mesh:
            return marching_tets(box, closed_at_box(threshold - density, box), tets)

        def agreement(threshold: float) -> float:
            mesh = surface(threshold)
            if len(mesh.faces) == 0:
                return 0.0
            silhouette = render_mesh(mesh, None, cameras, 64).opacity > 0.5
            return float((silhouette & seen).sum() / (silhouette | seen).sum().clamp_min(1))

        best = max(THRESHOLDS, key=agreement)
        mesh = surface(SOFTER * best)
    if len(mesh.faces) == 0:
        raise ObjectLost(
            "The coarse stage ended without a surface.",
            remedy="Try another --seed, or check the mask of the reference picture.",
        )
    return smoothed(keep_components(mesh, fraction=SMALLEST_PART))


def fit_shape(field: SDFField, surface: Mesh, config: NeusConfig, generator: torch.Generator) -> None:
    """Teaches the field the signed distance to a mesh: least squares on points in the box and around the surface."""
    optimiser = adam([field.encoding.table, *field.sdf_head.parameters()], lr=1e-2)
    low, high = surface.vertices.amin(dim=0), surface.vertices.amax(dim=0)
    everywhere = 2.0 * torch.rand(config.fit_points, 3, generator=generator).to(low) - 1.0
    around = low - 0.1 + (high - low + 0.2) * torch.rand(config.fit_points, 3, generator=generator).to(low)
    chosen = torch.randint(len(surface.vertices), (2 * config.fit_points,), generator=generator).to(low.device)
    near = surface.vertices[chosen] + 0.03 * torch.randn(2 * config.fit_points, 3, generator=generator).to(low)
    points = torch.cat([everywhere, around, near]).clamp(-1.0, 1.0)
    distance = signed_distance(points, surface.vertices, surface.faces)
    for step in range(config.fit_steps):
        batch = torch.randint(len(points), (config.fit_batch,), generator=generator).to(points.device)
        error = field.sdf(points[batch]) - distance[batch]
        loss = (error.square() / (error.detach().abs() + 0.02)).mean()
        for group in optimiser.param_groups:
            group["lr"] = 1e-2 * 0.1 ** (step / config.fit_steps)
        descend(loss, optimiser)


def _density(field: DensityField, grid: OccupancyGrid, points: Float[Tensor, "N 3"]) -> Float[Tensor, " N"]:
    """Density in chunks; nothing where the occupancy grid says so."""
    cells = ((0.5 * points + 0.5) * grid.resolution).long().clamp(0, grid.resolution - 1)
    occupied = grid.binary[cells[:, 0], cells[:, 1], cells[:, 2]]
    density = torch.zeros_like(points[:, 0])
    density[occupied] = torch.cat([field.density(chunk) for chunk in points[occupied].split(1 << 18)])
    return density
