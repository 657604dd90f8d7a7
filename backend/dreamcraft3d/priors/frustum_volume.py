"""A feature volume in the frustum of the reference camera, read as density and colour at world points."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dreamcraft3d.functional.cameras import Cameras

__all__ = ["FrustumVolume"]


@dataclass(frozen=True)
class FrustumVolume:
    """A `LiftedVolume` whose columns are pixels of the reference view and whose planes are equally spaced in depth.

    A cell holds the logit z of the opacity alpha = sigmoid(z) of one plane spacing delta along the camera axis, and the
    logits of its colour. Density follows from alpha = 1 - exp(-sigma delta):

        sigma = -log(1 - sigmoid(z)) / delta = softplus(z) / delta

    so that the field does not depend on how many cells there are. Outside of the frustum it is empty.

    Attributes:
        logits: [opacity, red, green, blue] at cell centres; planes from near to far, rows from the top.
        camera: the reference view. near, far: depth of the volume's ends along the camera axis, world units.
    """

    logits: Float[Tensor, "4 D H W"]
    camera: Cameras
    near: float
    far: float

    def density_and_colour(self, x: Float[Tensor, "N 3"]) -> tuple[Float[Tensor, " N"], Float[Tensor, "N 3"]]:
        """Return the density per unit length and the colour in [0,1] of world points, by trilinear interpolation."""
        grid = self._coordinates(x)
        samples = functional.grid_sample(
            self.logits[None], grid[None, None, None], mode="bilinear", padding_mode="border", align_corners=False
        )[0, :, 0, 0]
        spacing = (self.far - self.near) / self.logits.shape[1]
        density = functional.softplus(samples[0]) / spacing
        return density * (grid.abs() <= 1.0).all(-1), torch.sigmoid(samples[1:4]).T

    def _coordinates(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """World points as (column, row, depth) of `grid_sample`, [-1,1] inside the frustum."""
        w2c, half = self.camera.w2c[0], math.tan(0.5 * float(self.camera.fovy[0]))
        seen = x @ w2c[:3, :3].T + w2c[:3, 3]
        depth = (-seen[:, 2]).clamp_min(1e-3)
        along = (2.0 * (-seen[:, 2]) - self.near - self.far) / (self.far - self.near)
        return torch.stack([seen[:, 0] / (half * depth), -seen[:, 1] / (half * depth), along], dim=-1)
