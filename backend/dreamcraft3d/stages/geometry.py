"""Stage 2: DMTet, a mesh at every step, sculpted by pictures and normal maps (method section 10)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dreamcraft3d.config import GeometryConfig, HashGridConfig
from dreamcraft3d.fields.encoding import layout_of
from dreamcraft3d.fields.tet_mesh import TetMesh
from dreamcraft3d.fields.texture import ColourField
from dreamcraft3d.functional.cameras import Cameras
from dreamcraft3d.functional.mesh import Mesh, closed_edges, laplacian, vertex_normals
from dreamcraft3d.functional.schedules import piecewise_linear
from dreamcraft3d.kernels.rasterize import edge_topology
from dreamcraft3d.rendering import Render, render_mesh
from dreamcraft3d.stages.coarse_nerf import HEALTH_EVERY
from dreamcraft3d.stages.colour_fit import ColourOf, fit_colours
from dreamcraft3d.stages.neus import Neus
from dreamcraft3d.stages.run import StageRun, adam, descend
from dreamcraft3d.stages.supervision import Supervision

COLOUR_FIT_STEPS = 60
COLOUR_FIT_POINTS = 4096


@dataclass(frozen=True)
class Geometry:
    """The stage's result: the tetrahedral mesh and the colours on it."""

    tet_mesh: TetMesh
    colour: ColourField

    def mesh(self) -> Mesh:
        """The final surface, without gradients."""
        with torch.no_grad():
            return self.tet_mesh.extract()


def sculpt_geometry(supervision: Supervision, geometry: Geometry, config: GeometryConfig, run: StageRun) -> Geometry:
    """Optimise signed distances, vertex offsets and colours together; every step sees the reference and novel views.

    Args:
        geometry: the start, changed in place: from NeuS (`new_geometry`) or from a mesh (`geometry_from_mesh`).

    Raises:
        ObjectLost: the object keeps vanishing.
    """
    tet_mesh, colour = geometry.tet_mesh, geometry.colour
    optimiser = adam(
        [
            {"params": [tet_mesh.sdf], "lr": config.lr_sdf * tet_mesh.cell},
            {"params": [tet_mesh.deformation], "lr": config.lr_deformation},
            {"params": list(colour.parameters()), "lr": config.lr_colour},
        ],
        eps=1e-15,
    )
    rates = [group["lr"] for group in optimiser.param_groups]
    for step in run.steps(config.steps, tet_mesh=tet_mesh, colour=colour, optimiser=optimiser):
        fraction, generator = step / config.steps, run.generator(step)
        size = int(piecewise_linear(fraction, config.render_size))
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * piecewise_linear(fraction, config.lr_decay)
        mesh = tet_mesh.extract()
        if len(mesh.faces) == 0:
            run.keep_if_healthy(step, False, reason="the surface is empty")
            continue
        novel = supervision.novel_views(config.guidance, step, fraction, generator)
        topology, normals = edge_topology(mesh.faces), vertex_normals(mesh.vertices, mesh.faces)
        views = joined(supervision.camera, novel)
        render = render_mesh(mesh, colour, views, size, topology=topology, normals=normals)
        reference, others = split(render)
        targets = supervision.targets(size)
        loss = supervision.reference_loss(reference, targets, config.reference, generator)
        guided, _ = supervision.guidance_loss(others.rgba, novel, config.guidance, fraction, generator)
        sculpted, _ = supervision.guidance_loss(
            others.normal_rgba, novel, config.guidance, fraction, generator, content="normal"
        )
        loss = loss + guided + config.normal_guidance * sculpted + smoothness(mesh, normals, config, fraction)
        descend(loss, optimiser)
        if step % HEALTH_EVERY == 0:
            check_silhouette(run, step, reference.opacity, targets.mask, loss)
    return geometry


def new_geometry(neus: Neus, config: GeometryConfig, generator: torch.Generator) -> Geometry:
    """The NeuS surface on a tetrahedral grid, with the NeuS colours."""
    tet_mesh = TetMesh.from_sdf(neus.field, cells=config.cells)
    return Geometry(tet_mesh, ColourField.from_sdf(neus.field, generator=generator))


def geometry_from_mesh(
    mesh: Mesh,
    colour: ColourOf | None,
    config: GeometryConfig,
    hash_grid: HashGridConfig,
    generator: torch.Generator,
    *,
    fit_steps: int = COLOUR_FIT_STEPS,
    thicken: bool = False,
) -> Geometry:
    """Start the stage from any mesh in the scene frame (object within [-1, 1]^3, reference camera on +x).

    The mesh becomes signed distances on a grid of `config.cells` cells per side (`TetMesh.from_mesh`), and a new colour
    field with the layout of `hash_grid` is fitted to `colour` on its surface.

    Args:
        colour: colours in [0,1] of points near the surface; None leaves the field untrained, which is mid-grey.
        fit_steps: regression steps on `COLOUR_FIT_POINTS` points each; 0 where a saved state replaces the colours.
        thicken: walls thinner than a cell become walls of about one, instead of being lost.

    Raises:
        ValueError: the mesh has no face.
    """
    field = ColourField(layout_of(hash_grid), hidden=hash_grid.hidden, generator=generator).to(mesh.vertices.device)
    if colour is not None:
        fit_colours(field, mesh, colour, generator, steps=fit_steps, batch=COLOUR_FIT_POINTS)
    return Geometry(TetMesh.from_mesh(mesh, cells=config.cells, thicken=thicken), field)


def smoothness(mesh: Mesh, normals: Float[Tensor, "V 3"], config: GeometryConfig, fraction: float) -> Float[Tensor, ""]:
    """Neighbouring vertex normals agree, and vertices stay among their neighbours (method section 5.8)."""
    edges = closed_edges(mesh.faces)
    ends = normals.index_select(0, edges[:, 0]), normals.index_select(0, edges[:, 1])
    disagreement = (1.0 - (ends[0] * ends[1]).sum(dim=-1)).mean()
    loss = piecewise_linear(fraction, config.normal_consistency) * disagreement
    if config.laplacian > 0.0:
        loss = loss + config.laplacian * laplacian(mesh.vertices, mesh.faces, edges=edges)
    return loss


def check_silhouette(
    run: StageRun, step: int, opacity: Float[Tensor, "1 H W"], mask: Tensor, loss: Float[Tensor, ""]
) -> bool:
    """Goes back when the silhouette leaves the reference mask or the numbers are broken (issue I8)."""
    covered = opacity.detach() > 0.5
    iou = float((covered & mask).sum() / (covered | mask).sum().clamp_min(1))
    finite = bool(torch.isfinite(loss))
    reason = f"the silhouette agrees with the mask by {iou:.0%} only" if finite else "a loss is not a number"
    return run.keep_if_healthy(step, finite and iou > 0.4, reason=reason)


def joined(first: Cameras, others: Cameras) -> Cameras:
    """One batch of both."""
    pairs = zip(vars(first).values(), vars(others).values(), strict=True)
    return Cameras(*(torch.cat(pair) for pair in pairs))


def split(render: Render) -> tuple[Render, Render]:
    """The first view, and the others."""
    first = Render(render.rgb[:1], render.opacity[:1], render.depth[:1], render.normal[:1])
    return first, Render(render.rgb[1:], render.opacity[1:], render.depth[1:], render.normal[1:])
