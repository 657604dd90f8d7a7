"""Stage 1a: a coarse NeRF of the object (method section 8).

Even steps show the field the reference picture, odd steps ask the priors about novel views. Noise and view range are
annealed.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dreamcraft3d.config import CoarseNerfConfig
from dreamcraft3d.fields.density_field import DensityField
from dreamcraft3d.fields.encoding import layout_of
from dreamcraft3d.functional import losses
from dreamcraft3d.functional.schedules import piecewise_linear
from dreamcraft3d.functional.volume import density_to_alpha
from dreamcraft3d.kernels.marching import OccupancyGrid
from dreamcraft3d.rendering import Render, render_density
from dreamcraft3d.stages.run import WEAK_VIEWS, StageRun, adam, descend
from dreamcraft3d.stages.supervision import Supervision

OCCUPANCY_EVERY = 8
OCCUPANCY_DECAY = 0.6
"""A stage has hundreds of steps here, not thousands: cells are forgotten as fast, and all are asked at each update."""
HEALTH_EVERY = 20
"""Even, so that the reference view is there to be looked at."""


@dataclass(frozen=True)
class CoarseNerf:
    """The stage's result: the field and where it is not empty."""

    field: DensityField
    grid: OccupancyGrid


def train_coarse_nerf(supervision: Supervision, config: CoarseNerfConfig, run: StageRun) -> CoarseNerf:
    """Optimises a density field from scratch.

    Raises:
        ObjectLost: if the object keeps vanishing in spite of going back to healthy states.
    """
    nerf = new_coarse_nerf(config, run.generator(), supervision.device)
    field, grid = nerf.field, nerf.grid
    optimiser = adam(field.parameters(), lr=config.lr)
    supervision = supervision.with_weak_views(config, run.generator(WEAK_VIEWS))
    for step in run.steps(config.steps, field=field, grid=grid, optimiser=optimiser):
        fraction, generator = step / config.steps, run.generator(step)
        size = int(piecewise_linear(fraction, config.render_size))
        field.active_levels = int(piecewise_linear(fraction, config.active_levels))
        if step % OCCUPANCY_EVERY == 0:
            grid.update(
                lambda x: density_to_alpha(field.density(x), torch.full_like(x[:, 0], config.step_size)),
                generator=generator,
                step=0,
                threshold=0.005,
                decay=OCCUPANCY_DECAY,
            )
        cameras = supervision.alternating_cameras(config, step, fraction, generator)
        render = render_density(
            field,
            grid,
            cameras,
            size,
            step_size=config.step_size,
            normal_epsilon=config.normal_epsilon,
            generator=generator,
        )
        loss = supervision.alternating_loss(render, cameras, config, step, fraction, generator)
        loss = loss + regularisers(render, config, fraction)
        descend(loss, optimiser)
        if step % HEALTH_EVERY == 0 and fraction > 0.1:
            check_opacity(run, step, render.opacity, supervision.targets(size).mask, loss)
    field.active_levels = int(piecewise_linear(1.0, config.active_levels))
    return nerf


def new_coarse_nerf(
    config: CoarseNerfConfig, generator: torch.Generator, device: torch.device | str = "cpu"
) -> CoarseNerf:
    """An untrained field (a soft ball) and an occupancy grid that is full."""
    field = DensityField(layout_of(config.hash_grid), hidden=config.hash_grid.hidden, generator=generator).to(device)
    field.active_levels = int(piecewise_linear(1.0, config.active_levels))  # what a finished field is read with
    return CoarseNerf(field, OccupancyGrid(config.occupancy_resolution, device=device))


def regularisers(render: Render, config: CoarseNerfConfig, fraction: float) -> Float[Tensor, ""]:
    """Opaque, sparse and smooth: the terms that need no picture (method section 7).

    They are ramped instead of switched (issue B17).
    """
    loss = piecewise_linear(fraction, config.sparsity) * losses.sparsity_loss(render.opacity)
    loss = loss + piecewise_linear(fraction, config.opaque) * losses.opaque_loss(render.opacity)
    if config.normal_epsilon is not None:
        loss = loss + config.normal_smooth * losses.smoothness_loss(render.normal)
        seen = render.samples
        if seen is not None and seen.normals is not None:
            rays = render.opacity.numel()
            loss = loss + config.orient * losses.orientation_loss(seen.weights, seen.normals, seen.directions, rays)
    return loss


def check_opacity(
    run: StageRun, step: int, opacity: Float[Tensor, "1 H W"], mask: Tensor, loss: Float[Tensor, ""]
) -> bool:
    """Goes back when the object is vanishing or the numbers are broken (issue B17)."""
    inside = float(opacity.detach()[mask].mean())
    finite = bool(torch.isfinite(loss))
    reason = f"only {inside:.0%} of the object is left" if finite else "a loss is not a number"
    return run.keep_if_healthy(step, finite and inside > 0.5, reason=reason)
