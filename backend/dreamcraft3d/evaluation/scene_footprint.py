"""How much memory the scene itself needs in each stage: fields, optimiser and renders, without any prior.

Measured, not modelled: each stage's own renderer runs one training step on an untrained scene (a soft ball, or its
surface) at two small sizes while `LiveBytes` watches; a line through both gives the size that is asked for, because
what a render keeps grows with its pixels.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from dreamcraft3d.config import GenerateConfig
from dreamcraft3d.functional.cameras import Cameras, orbit
from dreamcraft3d.functional.schedules import piecewise_linear
from dreamcraft3d.functional.volume import density_to_alpha
from dreamcraft3d.kernels.rasterize import edge_topology
from dreamcraft3d.priors.footprint import LiveBytes
from dreamcraft3d.rendering import render_density, render_mesh, render_sdf
from dreamcraft3d.stages.coarse_nerf import CoarseNerf, new_coarse_nerf
from dreamcraft3d.stages.geometry import Geometry, new_geometry
from dreamcraft3d.stages.neus import Neus, new_neus, occupancy
from dreamcraft3d.stages.texture import new_colour

__all__ = ["SceneBytes", "largest", "scene_bytes"]

SIZES = (64, 96)
"""Sides of the renders that are measured, pixels; smaller ones are hidden by the gradient of the hash grid."""

ADAM = 4
"""Parameter, gradient and two moments."""


@dataclass(frozen=True)
class SceneBytes:
    """`state`: parameters with gradients and Adam's moments. `render`: what one step makes and keeps on the way."""

    state: int
    render: int


def largest(schedule: object) -> int:
    """The largest value of a schedule of sizes."""
    if isinstance(schedule, int | float):
        return int(schedule)
    assert isinstance(schedule, tuple)
    return max(int(piecewise_linear(fraction, schedule)) for fraction in (0.0, 0.25, 0.5, 0.75, 1.0))


def scene_bytes(config: GenerateConfig) -> dict[str, SceneBytes]:
    """Bytes of all four stages of a configuration."""
    generator = torch.Generator().manual_seed(0)
    nerf = new_coarse_nerf(config.coarse_nerf, generator)
    neus = new_neus(nerf, config.neus, generator)
    geometry = new_geometry(neus, config.geometry, generator)
    return {
        "coarse_nerf": _nerf(nerf, config, generator),
        "neus": _neus(neus, config, generator),
        "geometry": _geometry(geometry, config),
        "texture": _texture(geometry, config, generator),
    }


def _nerf(nerf: CoarseNerf, config: GenerateConfig, generator: torch.Generator) -> SceneBytes:
    stage = config.coarse_nerf
    nerf.grid.update(
        lambda x: density_to_alpha(nerf.field.density(x), torch.full_like(x[:, 0], stage.step_size)),
        generator=generator,
        step=0,
        threshold=0.005,
    )

    def step(size: int) -> Tensor:
        render = render_density(
            nerf.field,
            nerf.grid,
            _views(stage.guidance.batch),
            size,
            step_size=stage.step_size,
            normal_epsilon=stage.normal_epsilon,
        )
        return render.rgba.sum() + render.normal.sum()

    return SceneBytes(ADAM * _bytes(nerf.field.parameters()), _at(step, largest(stage.render_size)))


def _neus(neus: Neus, config: GenerateConfig, generator: torch.Generator) -> SceneBytes:
    stage = config.neus
    neus.grid.update(lambda x: occupancy(neus.field, x, stage.step_size), generator=generator, step=0)

    def step(size: int) -> Tensor:
        render = render_sdf(
            neus.field,
            neus.grid,
            _views(stage.guidance.batch),
            size,
            step_size=stage.step_size,
            normal_epsilon=stage.normal_epsilon,
        )
        return render.rgba.sum() + render.normal.sum()

    return SceneBytes(ADAM * _bytes(neus.field.parameters()), _at(step, largest(stage.render_size)))


def _geometry(geometry: Geometry, config: GenerateConfig) -> SceneBytes:
    stage = config.geometry

    def step(size: int) -> Tensor:
        render = render_mesh(geometry.tet_mesh.extract(), geometry.colour, _views(1 + stage.guidance.batch), size)
        return render.rgba.sum() + render.normal.sum()

    state = ADAM * _bytes([*geometry.tet_mesh.parameters(), *geometry.colour.parameters()])
    grid = _bytes(geometry.tet_mesh.buffers())
    return SceneBytes(state + grid, _at(step, largest(stage.render_size)))


def _texture(geometry: Geometry, config: GenerateConfig, generator: torch.Generator) -> SceneBytes:
    stage = config.texture
    mesh, colour = geometry.mesh(), new_colour(stage, generator)
    topology = edge_topology(mesh.faces)

    def seen(views: int) -> Callable[[int], Tensor]:
        return lambda size: render_mesh(mesh, colour, _views(views), size, topology=topology).rgba.sum()

    renders = _at(seen(1), stage.reference_size), _at(seen(stage.guidance.batch), stage.render_size)
    return SceneBytes(ADAM * _bytes(colour.parameters()), max(renders))


def _views(count: int) -> Cameras:
    return orbit(torch.zeros(count), torch.arange(count) * 1.0)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _at(step: Callable[[int], Tensor], size: int) -> int:
    """Peak of one step at `size`, by the line through the peaks at `SIZES`."""
    step(SIZES[0])  # what is made once and kept belongs to neither size
    peaks: list[int] = []
    for small in SIZES:
        with LiveBytes() as live:
            step(small).backward()
        peaks.append(live.peak)
    slope = max(0.0, (peaks[1] - peaks[0]) / (SIZES[1] ** 2 - SIZES[0] ** 2))
    return max(0, round(peaks[1] + slope * (size**2 - SIZES[1] ** 2)))
