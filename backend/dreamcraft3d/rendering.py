"""Fields and meshes to pictures: volume rendering of the coarse stages, rasterisation of the fine ones.

All three renderers give the same record, premultiplied and without a background, so that losses and priors choose
theirs. Letters: M samples along all rays, packed by ray; w volume rendering weights; t distance along a ray.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from dreamcraft3d.fields.density_field import DensityField
from dreamcraft3d.fields.sdf_field import SDFField
from dreamcraft3d.functional.cameras import Cameras, project, rays
from dreamcraft3d.functional.mesh import Mesh, vertex_normals
from dreamcraft3d.functional.volume import density_to_alpha, neus_alpha
from dreamcraft3d.kernels.compositing import accumulate, render_weights
from dreamcraft3d.kernels.marching import OccupancyGrid, Samples, march
from dreamcraft3d.kernels.rasterize import EdgeTopology, antialias, edge_topology, interpolate, rasterize

NORMAL_WEIGHT = 1e-2


@dataclass(frozen=True)
class Render:
    """Pictures of B views.

    Attributes:
        rgb: colour times opacity. opacity: in [0,1]. depth: sum w t, not divided by opacity; 0 where empty.
        normal: world-space normals times opacity; zeros where none were asked for.
        samples: what a volume renderer saw along its rays; None from the rasteriser.
    """

    rgb: Float[Tensor, "B H W 3"]
    opacity: Float[Tensor, "B H W"]
    depth: Float[Tensor, "B H W"]
    normal: Float[Tensor, "B H W 3"]
    samples: "RaySamples | None" = None

    @property
    def rgba(self) -> Float[Tensor, "B H W 4"]:
        """Premultiplied colour and opacity, as priors take it."""
        return torch.cat([self.rgb, self.opacity[..., None]], dim=-1)

    @property
    def normal_rgba(self) -> Float[Tensor, "B H W 4"]:
        """World normals as colours (n + 1) / 2, premultiplied: what a prior sees as a normal map."""
        opacity = self.opacity[..., None]
        return torch.cat([0.5 * (self.normal + opacity), opacity], dim=-1)

    def over(self, background: float = 1.0) -> Float[Tensor, "B H W 3"]:
        """Colour over a grey background (1 is white)."""
        return self.rgb + (1.0 - self.opacity[..., None]) * background


@dataclass(frozen=True)
class RaySamples:
    """Samples that carry visible weight, for the losses of the volume stages."""

    positions: Float[Tensor, "M 3"]
    directions: Float[Tensor, "M 3"]
    weights: Float[Tensor, " M"]
    normals: Float[Tensor, "M 3"] | None


class RadianceField(Protocol):
    """What volume rendering needs of a field: density per unit length and view-independent colour of world points."""

    def density_and_colour(self, x: Float[Tensor, "N 3"]) -> tuple[Float[Tensor, " N"], Float[Tensor, "N 3"]]: ...


def render_density(
    field: RadianceField,
    grid: OccupancyGrid,
    cameras: Cameras,
    size: int,
    *,
    step_size: float,
    normal_epsilon: float | None = None,
    generator: torch.Generator | None = None,
) -> Render:
    """Volume rendering of the NeRF (method section 5.6): alpha = 1 - exp(-sigma delta), w_i = alpha_i T_i.

    Args:
        step_size: length of the ray segments, world units.
        normal_epsilon: step of the finite-difference normals (of a `DensityField` only); None renders none and saves
            their evaluations.
        generator: jitters the start of each ray; None for a reproducible picture.
    """
    origins, directions = _flat_rays(cameras, size)
    samples = march(origins, directions, grid, step_size=step_size, generator=generator)
    x = _midpoints(samples, origins, directions)
    density, colour = field.density_and_colour(x)
    alphas = density_to_alpha(density, samples.t_ends - samples.t_starts)

    def normals_of(x: Float[Tensor, "K 3"]) -> Float[Tensor, "K 3"]:
        assert normal_epsilon is not None
        assert isinstance(field, DensityField)
        return field.normals(x, normal_epsilon)

    return _composite(
        samples, alphas, colour, x, directions, (len(cameras), size), normals_of if normal_epsilon else None
    )


def render_sdf(
    field: SDFField,
    grid: OccupancyGrid,
    cameras: Cameras,
    size: int,
    *,
    step_size: float,
    normal_epsilon: float | None = None,
    generator: torch.Generator | None = None,
) -> Render:
    """Volume rendering of the NeuS field: alpha from the signed distances at the two ends of each segment.

    Colours are taken where the segments begin, from the encoding that gave the distances.
    """
    origins, directions = _flat_rays(cameras, size)
    samples = march(origins, directions, grid, step_size=step_size, generator=generator)

    x = _points(samples, samples.t_starts, origins, directions)
    before, colour = field.sdf_and_colour(x)
    alphas = neus_alpha(before, _following(field, samples, before, origins, directions), field.inverse_deviation)

    def normals_of(x: Float[Tensor, "K 3"]) -> Float[Tensor, "K 3"]:
        assert normal_epsilon is not None
        return torch.nn.functional.normalize(field.gradient(x, normal_epsilon), dim=-1, eps=1e-6)

    return _composite(
        samples, alphas, colour, x, directions, (len(cameras), size), normals_of if normal_epsilon else None
    )


def render_mesh(
    mesh: Mesh,
    colour_of: Callable[[Float[Tensor, "N 3"]], Float[Tensor, "N 3"]] | None,
    cameras: Cameras,
    size: int,
    *,
    topology: EdgeTopology | None = None,
    normals: Float[Tensor, "V 3"] | None = None,
) -> Render:
    """Rasterised pictures with anti-aliased silhouettes (method section 5.9).

    They are differentiable in the vertices and in `colour_of`.

    Args:
        colour_of: colours at surface points; None gives black (normals, depth and opacity only).
        topology: edges of `mesh.faces`, to be computed once for a mesh that does not change.
        normals: vertex normals to shade with; by default those of the mesh.
    """
    topology = edge_topology(mesh.faces) if topology is None else topology
    normals = vertex_normals(mesh.vertices, mesh.faces) if normals is None else normals
    clip = project(mesh.vertices, cameras)
    raster = rasterize(clip, mesh.faces, size)
    covered = raster.face_ids >= 0
    surface = interpolate(torch.cat([mesh.vertices, normals], dim=-1), raster, mesh.faces)
    x, n = surface[covered].split(3, dim=-1)
    n = torch.nn.functional.normalize(n, dim=-1, eps=1e-6)
    colour = torch.zeros_like(x) if colour_of is None else colour_of(x)
    depth = (x - _camera_centres(cameras, covered)).norm(dim=-1, keepdim=True)
    values = torch.cat([colour, torch.ones_like(depth), depth, n], dim=-1)
    image = values.new_zeros(*covered.shape, 8)
    image[covered] = values
    image = antialias(image, raster, clip, mesh.faces, topology=topology)
    return Render(image[..., :3], image[..., 3].clamp(0.0, 1.0), image[..., 4], image[..., 5:])


def _composite(
    samples: Samples,
    alphas: Float[Tensor, " M"],
    colour: Float[Tensor, "M 3"],
    x: Float[Tensor, "M 3"],
    directions: Float[Tensor, "R 3"],
    shape: tuple[int, int],
    normals_of: Callable[[Float[Tensor, "K 3"]], Float[Tensor, "K 3"]] | None,
) -> Render:
    """One pass over the packed samples; normals only where they weigh (they cost four evaluations each)."""
    weights = render_weights(alphas, samples.ray_offsets)
    t = 0.5 * (samples.t_starts + samples.t_ends)
    heavy = weights.detach() > NORMAL_WEIGHT
    normals = normals_of(x[heavy]) if normals_of is not None and bool(heavy.any()) else None
    scattered = torch.zeros_like(x)
    if normals is not None:
        scattered[heavy] = normals
    values = torch.cat([colour, torch.ones_like(t)[:, None], t[:, None], scattered], dim=-1)
    image = accumulate(weights, values, samples.ray_offsets).reshape(shape[0], shape[1], shape[1], 8)
    record = RaySamples(x[heavy], directions[samples.ray_indices[heavy]], weights[heavy], normals)
    return Render(image[..., :3], image[..., 3].clamp(0.0, 1.0), image[..., 4], image[..., 5:], record)


def _following(
    field: SDFField,
    samples: Samples,
    before: Float[Tensor, " M"],
    origins: Float[Tensor, "R 3"],
    directions: Float[Tensor, "R 3"],
) -> Float[Tensor, " M"]:
    """Signed distances at the segments' ends.

    Each is that of the next segment's beginning, or asked for where a run of segments ends.
    """
    same_ray = samples.ray_indices[1:] == samples.ray_indices[:-1]
    last = torch.ones_like(samples.ray_indices, dtype=torch.bool)
    last[:-1] = ~(same_ray & ((samples.t_starts[1:] - samples.t_ends[:-1]).abs() < 1e-4))
    ends = _points(samples, samples.t_ends, origins, directions)[last]
    return torch.roll(before, -1).masked_scatter(last, field.sdf(ends))


def _flat_rays(cameras: Cameras, size: int) -> tuple[Float[Tensor, "R 3"], Float[Tensor, "R 3"]]:
    origins, directions = rays(cameras, size)
    return origins.reshape(-1, 3), directions.reshape(-1, 3)


def _points(
    samples: Samples, t: Float[Tensor, " M"], origins: Float[Tensor, "R 3"], directions: Float[Tensor, "R 3"]
) -> Float[Tensor, "M 3"]:
    return origins[samples.ray_indices] + t[:, None] * directions[samples.ray_indices]


def _midpoints(
    samples: Samples, origins: Float[Tensor, "R 3"], directions: Float[Tensor, "R 3"]
) -> Float[Tensor, "M 3"]:
    return _points(samples, 0.5 * (samples.t_starts + samples.t_ends), origins, directions)


def _camera_centres(cameras: Cameras, covered: Tensor) -> Float[Tensor, "N 3"]:
    views = torch.nonzero(covered)[:, 0]
    return cameras.c2w[views, :3, 3]
