"""Views of a mesh that does not change, rasterised once: a step of the texture stage then costs its colours only."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreamcraft3d.functional import losses
from dreamcraft3d.functional.cameras import Cameras, project
from dreamcraft3d.functional.mesh import Mesh
from dreamcraft3d.kernels.rasterize import EdgeTopology, Raster, antialias, interpolate, rasterize
from dreamcraft3d.stages.colour_fit import ColourOf
from dreamcraft3d.stages.supervision import ReferenceTargets

__all__ = ["FixedViews", "ReferencePixels", "rasterised", "spread_views"]


@dataclass(frozen=True)
class FixedViews:
    """B cameras' rasters of one mesh.

    Attributes:
        mesh, topology: what is seen. cameras: from where. clip: projected vertices. raster: the nearest faces.
        surface: world points behind the pixels; zero on background.
    """

    mesh: Mesh
    topology: EdgeTopology
    cameras: Cameras
    clip: Float[Tensor, "B V 4"]
    raster: Raster
    surface: Float[Tensor, "B H W 3"]

    def __len__(self) -> int:
        return len(self.cameras)

    def __getitem__(self, index: Int[Tensor, " K"]) -> "FixedViews":
        raster = Raster(self.raster.face_ids[index], self.raster.barycentrics[index])
        clip, surface = self.clip[index], self.surface[index]
        return FixedViews(self.mesh, self.topology, self.cameras[index], clip, raster, surface)

    def render(self, colour: ColourOf) -> Float[Tensor, "B H W 4"]:
        """Premultiplied RGBA with anti-aliased silhouettes, as `rendering.render_mesh` gives; differentiable in the
        colours."""
        covered = self.raster.face_ids >= 0
        colours = colour(self.surface[covered])
        image = colours.new_zeros(*covered.shape, 4)
        image[covered] = torch.cat([colours, torch.ones_like(colours[:, :1])], dim=-1)
        return antialias(image, self.raster, self.clip, self.mesh.faces, topology=self.topology)


@torch.no_grad()
def rasterised(mesh: Mesh, topology: EdgeTopology, cameras: Cameras, size: int) -> FixedViews:
    """Rasterise a mesh for some cameras, `size` pixels a side."""
    clip = project(mesh.vertices, cameras)
    raster = rasterize(clip, mesh.faces, size)
    return FixedViews(mesh, topology, cameras, clip, raster, interpolate(mesh.vertices, raster, mesh.faces))


@dataclass(frozen=True)
class ReferencePixels:
    """The reference picture on the surface: the points behind its pixels, and the colours that they should have.

    Attributes:
        points: of the K pixels inside both outlines, away from the rim. colours: of the picture. share: K / all pixels.
    """

    points: Float[Tensor, "K 3"]
    colours: Float[Tensor, "K 3"]
    share: float

    @classmethod
    def of(cls, view: FixedViews, targets: ReferenceTargets) -> "ReferencePixels":
        """Of one view whose side is that of the targets."""
        inside = losses.erode(targets.mask & (view.raster.face_ids >= 0), 3)
        white = targets.rgba[..., :3] + 1.0 - targets.rgba[..., 3:]
        return cls(view.surface[inside], white[inside], float(inside.float().mean()))

    def loss(self, colour: ColourOf, count: int, generator: torch.Generator) -> Float[Tensor, ""]:
        """Absolute colour error, averaged over all pixels of the picture: |c(x) - c*| over the K pixels, times `share`.

        Args:
            count: of randomly drawn pixels (with replacement) that estimate it; 0, or no fewer than K, takes each once.
        """
        points, wanted = self.points, self.colours
        if len(points) == 0:
            return colour(points.new_zeros(1, 3)).sum() * 0.0
        if 0 < count < len(points):
            chosen = torch.randint(len(points), (count,), generator=generator).to(points.device)
            points, wanted = points[chosen], wanted[chosen]
        return self.share * (colour(points) - wanted).abs().mean()


def spread_views(
    count: int, elevation: tuple[float, float], generator: torch.Generator
) -> tuple[Float[Tensor, " K"], Float[Tensor, " K"]]:
    """Elevations and azimuths (radians) of `count` views: one per sector of the circle, at evenly spread heights.

    Neighbouring indices are far apart: azimuths walk around by the golden ratio, so that the first n of them are spread
    evenly too.
    """
    low, high = elevation
    golden = 0.5 * (math.sqrt(5.0) - 1.0)
    turn = torch.remainder(torch.arange(count) * golden + torch.rand((), generator=generator), 1.0)
    tilt = (torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count
    return low + (high - low) * tilt, 2.0 * math.pi * turn - math.pi
