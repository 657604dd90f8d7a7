"""Stage 3: the texture of a finished mesh, from the reference picture and the priors (method section 11)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dreamcraft3d.config import TextureConfig
from dreamcraft3d.fields.encoding import layout_of
from dreamcraft3d.fields.texture import ColourField
from dreamcraft3d.functional import losses
from dreamcraft3d.functional.cameras import Cameras, project
from dreamcraft3d.functional.mesh import Mesh, vertex_normals
from dreamcraft3d.functional.schedules import piecewise_linear
from dreamcraft3d.kernels.rasterize import edge_topology, rasterize
from dreamcraft3d.rendering import Render, render_mesh
from dreamcraft3d.stages.bootstrap import Bootstrap, bootstrapping, moments, stage_steps
from dreamcraft3d.stages.colour_fit import SurfaceSampler, fit_colours
from dreamcraft3d.stages.run import StageRun, descend
from dreamcraft3d.stages.supervision import Supervision


@dataclass(frozen=True)
class Texture:
    """The stage's result: colours anywhere on the surface."""

    colour: ColourField

    def at(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """Colours of surface points, wherever these are, without gradients."""
        with torch.no_grad():
            colour: Tensor = self.colour(x.to(self.colour.encoding.table))
            return colour.to(x)


def paint_texture(
    supervision: Supervision,
    mesh: Mesh,
    initial: Callable[[Float[Tensor, "N 3"]], Float[Tensor, "N 3"]],
    config: TextureConfig,
    run: StageRun,
) -> Texture:
    """Optimises a fine colour field on a fixed mesh; even steps see the reference picture, odd steps ask the priors.

    With `bootstrap.form = "bsd"` the prior learns the object between the painting steps (`stages.bootstrap`).

    Args:
        initial: the geometry stage's colours, learnt first by a few steps of regression on the surface.
    """
    colour = new_colour(config, run.generator(), supervision.device)
    optimiser = _optimiser(colour, config)
    if not run.resumes():
        fit_colours(colour, mesh, initial, run.generator(-2), steps=config.fit_steps, batch=config.fit_batch)
    easel = Easel(supervision, mesh, colour, config)
    rates = [group["lr"] for group in optimiser.param_groups]
    with bootstrapping(supervision, config, run.generator(-3)) as bootstrap:
        parts = {} if bootstrap is None else bootstrap.parts
        for step in run.steps(stage_steps(config), colour=colour, optimiser=optimiser, **parts):
            moment, generator = moments(config, step), run.generator(step)
            if bootstrap is not None and moment.learning is not None:
                bootstrap.study(moment, easel.render_views, generator)
                continue
            fraction = moment.painted / config.steps
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * piecewise_linear(fraction, config.lr_decay)
            if moment.painted % 2 == 0:
                loss = easel.reference_loss()
                descend(loss, optimiser)
            else:
                loss = easel.guided_step(moment.painted // 2, fraction, optimiser, bootstrap, generator)
            if step % 20 == 0:
                run.keep_if_healthy(step, bool(torch.isfinite(loss)), reason="a loss is not a number")
    return Texture(colour)


class Easel:
    """The mesh, what is painted on it, and what that looks like."""

    def __init__(self, supervision: Supervision, mesh: Mesh, colour: ColourField, config: TextureConfig) -> None:
        self._supervision, self._mesh, self._colour, self._config = supervision, mesh, colour, config
        self._topology, self._normals = edge_topology(mesh.faces), vertex_normals(mesh.vertices, mesh.faces)
        self._hidden = SurfaceSampler(mesh, unseen_faces(mesh, supervision.camera, config.reference_size))

    def render(self, cameras: Cameras, size: int) -> Render:
        """The painted mesh."""
        return render_mesh(self._mesh, self._colour, cameras, size, topology=self._topology, normals=self._normals)

    def render_views(self, cameras: Cameras) -> Float[Tensor, "B H W 4"]:
        """Pictures of novel views."""
        return self.render(cameras, self._config.render_size).rgba

    def reference_loss(self) -> Float[Tensor, ""]:
        """Absolute colour error in the reference view, away from the rim."""
        size = self._config.reference_size
        render, targets = self.render(self._supervision.camera, size), self._supervision.targets(size)
        inside = losses.erode(targets.mask & (render.opacity > 0.99), 3)
        white = targets.rgba[..., :3] + 1.0 - targets.rgba[..., 3:]
        return self._config.reference_weight * losses.masked_l1(render.over(1.0), white, inside)

    def guided_step(
        self,
        index: int,
        fraction: float,
        optimiser: torch.optim.Optimizer,
        bootstrap: Bootstrap | None,
        generator: torch.Generator,
    ) -> Float[Tensor, ""]:
        """Novel views, judged by the priors; a variational adapter then learns what it has just judged."""
        config, guidance = self._config, self._config.guidance
        cameras = self._supervision.novel_views(guidance, index, fraction, generator)
        rgba = self.render_views(cameras)
        others = self._supervision if bootstrap is None else bootstrap.others
        loss, opinion = others.guidance_loss(rgba, cameras, guidance, fraction, generator)
        if bootstrap is not None:
            opinion = bootstrap.opinion(rgba, cameras, fraction, generator)
            loss = loss + bootstrap.weight * opinion.loss
        loss = loss + config.smooth * smoothness(self._colour, self._hidden, config, generator)
        descend(loss, optimiser)
        if bootstrap is not None and opinion is not None:
            bootstrap.follow(opinion, cameras, generator)
        return loss


def _optimiser(colour: ColourField, config: TextureConfig) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        [
            {"params": [colour.encoding.table], "lr": config.lr_grid},
            {"params": colour.colour_head.parameters(), "lr": config.lr_heads},
        ],
        betas=(0.9, 0.99),
        eps=config.epsilon,
        weight_decay=0.0,
    )


def new_colour(config: TextureConfig, generator: torch.Generator, device: torch.device | str = "cpu") -> ColourField:
    """An untrained colour field, finer than the geometry's."""
    return ColourField(layout_of(config.hash_grid), hidden=config.hash_grid.hidden, generator=generator).to(device)


def smoothness(
    colour: ColourField, surface: SurfaceSampler, config: TextureConfig, generator: torch.Generator
) -> Float[Tensor, ""]:
    """mean |c(x) - c(x + d)| of nearby points that the reference picture does not show.

    The prior sees few pixels: what is finer than they are is noise unless something asks it to be quiet.
    """
    x = surface.sample(config.smooth_points, generator)
    nearby = x + config.smooth_distance * torch.randn(x.shape, generator=generator).to(x)
    both: Tensor = colour(torch.cat([x, nearby]))
    return (both[: len(x)] - both[len(x) :]).abs().mean()


def unseen_faces(mesh: Mesh, camera: Cameras, size: int) -> Bool[Tensor, " F"]:
    """Faces of which the reference picture shows nothing."""
    seen = rasterize(project(mesh.vertices, camera), mesh.faces, size).face_ids
    unseen = torch.ones(len(mesh.faces), dtype=torch.bool, device=mesh.faces.device)
    unseen[seen[seen >= 0]] = False
    return unseen
