"""How much memory the scene itself needs in each stage: fields, optimiser and renders, without any prior.

Measured, not modelled: each stage's own renderer runs one training step on an untrained scene (a soft ball, or its
surface) at two small sizes while `LiveBytes` watches; a line through both gives the size that is asked for, because
what a render keeps grows with its pixels. Configurations that differ in sizes or schedules only share the measurement.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

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

VOLUME_SIZES = (64, 96)
"""Sides of the volume renders that are measured, pixels; smaller ones are hidden by the gradient of the hash grid."""
MESH_SIZES = (384, 512)
"""The same for renders of meshes, which keep less per pixel; smaller ones are hidden by making the mesh."""

ADAM = 4
"""Parameter, gradient and two moments."""


@dataclass(frozen=True)
class SceneBytes:
    """`state`: parameters with gradients and Adam's moments. `render`: what one step makes and keeps on the way."""

    state: int
    render: int


MATTERS = {
    "coarse_nerf": ("hash_grid", "active_levels", "occupancy_resolution", "step_size", "normal_epsilon"),
    "neus": ("initial_sharpness", "step_size", "normal_epsilon"),
    "geometry": ("cells",),
    "texture": ("hash_grid",),
}
"""What the memory per pixel depends on: these settings of each stage, and its views per step."""


@dataclass(frozen=True)
class Line:
    """What a step needs at its worst moment, by the side of its render: through the peaks at two sizes."""

    sizes: tuple[int, int]
    peaks: tuple[int, int]

    def at(self, size: int) -> int:
        """Bytes for a render of `size` pixels a side."""
        (small, large), (few, many) = self.sizes, self.peaks
        slope = max(0.0, (many - few) / (large**2 - small**2))
        return max(0, round(many + slope * (size**2 - large**2)))


@dataclass(frozen=True)
class _Measured:
    """Bytes of a stage's state, and a line for each of the renders that it makes in turn."""

    state: int
    renders: tuple[Line, ...]


def largest(schedule: object) -> int:
    """The largest value of a schedule of sizes."""
    if isinstance(schedule, int | float):
        return int(schedule)
    assert isinstance(schedule, tuple)
    return max(int(piecewise_linear(fraction, schedule)) for fraction in (0.0, 0.25, 0.5, 0.75, 1.0))


def scene_bytes(config: GenerateConfig) -> dict[str, SceneBytes]:
    """Bytes of all four stages of a configuration."""
    sizes = {stage: [largest(getattr(config, stage).render_size)] for stage in MATTERS}
    sizes["texture"].append(config.texture.reference_size)
    return {
        stage: SceneBytes(
            found.state, max(line.at(size) for line, size in zip(found.renders, sizes[stage], strict=True))
        )
        for stage, found in _measure(_what_matters(config)).items()
    }


def _what_matters(config: GenerateConfig) -> GenerateConfig:
    """The default configuration with the settings of `MATTERS` taken from `config`."""
    plain = GenerateConfig()
    stages = {}
    for stage, names in MATTERS.items():
        given, base = getattr(config, stage), getattr(plain, stage)
        guidance = base.guidance.model_copy(update={"batch": given.guidance.batch})
        stages[stage] = base.model_copy(update={name: getattr(given, name) for name in names} | {"guidance": guidance})
    return plain.model_copy(update=stages)


@cache
def _measure(config: GenerateConfig) -> dict[str, _Measured]:
    """From one untrained scene; `config` holds nothing but what matters, so that it can be the key."""
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


def _nerf(nerf: CoarseNerf, config: GenerateConfig, generator: torch.Generator) -> _Measured:
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

    return _Measured(ADAM * _bytes(nerf.field.parameters()), (_line(step, VOLUME_SIZES),))


def _neus(neus: Neus, config: GenerateConfig, generator: torch.Generator) -> _Measured:
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

    return _Measured(ADAM * _bytes(neus.field.parameters()), (_line(step, VOLUME_SIZES),))


def _geometry(geometry: Geometry, config: GenerateConfig) -> _Measured:
    stage = config.geometry

    def step(size: int) -> Tensor:
        render = render_mesh(geometry.tet_mesh.extract(), geometry.colour, _views(1 + stage.guidance.batch), size)
        return render.rgba.sum() + render.normal.sum()

    state = ADAM * _bytes([*geometry.tet_mesh.parameters(), *geometry.colour.parameters()])
    grid = _bytes(geometry.tet_mesh.buffers())
    return _Measured(state + grid, (_line(step, MESH_SIZES),))


def _texture(geometry: Geometry, config: GenerateConfig, generator: torch.Generator) -> _Measured:
    stage = config.texture
    mesh, colour = geometry.mesh(), new_colour(stage, generator)
    topology = edge_topology(mesh.faces)

    def seen(views: int) -> Callable[[int], Tensor]:
        return lambda size: render_mesh(mesh, colour, _views(views), size, topology=topology).rgba.sum()

    batch = stage.guidance.batch
    lines = {views: _line(seen(views), MESH_SIZES) for views in sorted({1, batch})}
    return _Measured(ADAM * _bytes(colour.parameters()), (lines[batch], lines[1]))


def _views(count: int) -> Cameras:
    return orbit(torch.zeros(count), torch.arange(count) * 1.0)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _line(step: Callable[[int], Tensor], sizes: tuple[int, int]) -> Line:
    """The peaks of one step, forward and backward, at both sizes."""
    step(sizes[0])  # what is made once and kept belongs to neither size
    peaks = []
    for size in sizes:
        with LiveBytes() as live:
            step(size).backward()
        peaks.append(live.peak)
    return Line(sizes, (peaks[0], peaks[1]))
