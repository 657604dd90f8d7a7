"""Weak reference views: what the 3D-aware prior draws of other sides before a stage, shown to the scene now and then.

Guidance asks about each view by itself, and may like a face on every side. Pictures that were drawn once, each for its
camera, do not change their mind: they hold the scene together while it is young, and then fade (method section 12.1,
issue I6). They are weak because they are guesses: a share of the reference picture's weight.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreamcraft3d.config import WeakViewsConfig
from dreamcraft3d.functional.cameras import Cameras, orbit
from dreamcraft3d.priors.base import DiffusionPrior, ViewCondition
from dreamcraft3d.priors.sampling import sample

__all__ = ["WeakViews", "draw_weak_views"]


@dataclass(frozen=True)
class WeakViews:
    """K drawn pictures (premultiplied), and the cameras they are for."""

    rgba: Float[Tensor, "K S S 4"]
    cameras: Cameras

    def __len__(self) -> int:
        return len(self.rgba)

    def turn(self, index: int, count: int) -> Int[Tensor, " B"]:
        """Which views the `index`-th look is at: `count` of them, as far apart as they can be; all come round."""
        stride = max(len(self) // count, 1)
        return (index + stride * torch.arange(min(count, len(self)))) % len(self)


@torch.no_grad()
def draw_weak_views(
    prior: DiffusionPrior,
    picture: Float[Tensor, "1 S S 4"],
    camera: Cameras,
    config: WeakViewsConfig,
    *,
    cfg_scale: float,
    generator: torch.Generator,
) -> WeakViews:
    """Evenly spaced views around the object, the reference's own left out, drawn from noise one after the other.

    Args:
        picture: the reference, premultiplied, as its `camera` (at azimuth 0) sees it.
    """
    azimuth = torch.arange(1, config.count + 1) * (2.0 * math.pi / (config.count + 1))
    tilt, lens = float(camera.elevation[0]), float(camera.fovy[0])
    cameras = orbit(torch.full_like(azimuth, math.radians(config.elevation)), azimuth).to(picture.device)
    drawn = [
        sample(
            prior,
            ViewCondition(picture, tilt, cameras.elevation[k : k + 1], cameras.azimuth[k : k + 1], reference_fovy=lens),
            steps=config.steps,
            cfg_scale=cfg_scale,
            generator=generator,
        )
        for k in range(config.count)
    ]
    return WeakViews(torch.cat(drawn).to(picture), cameras)
