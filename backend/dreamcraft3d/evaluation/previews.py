"""What a stage has so far, as a picture: colours above, world-space normals below, from four sides."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from dreamcraft3d.evaluation.turntable import encode_png
from dreamcraft3d.functional.cameras import Cameras, orbit
from dreamcraft3d.rendering import Render

VIEWS = 4
PAPER = 0.96


def preview_cameras() -> Cameras:
    """Front, and the sides between it and the back, slightly from above."""
    azimuth = torch.tensor([0.0, 70.0, 180.0, 290.0]).deg2rad()
    return orbit(torch.full_like(azimuth, 0.2), azimuth)


@torch.no_grad()
def preview_png(render: Callable[[Cameras], Render]) -> bytes:
    """PNG of what `render` gives for the preview cameras."""
    picture = render(preview_cameras())
    normals = picture.normal_rgba
    rows = [picture.over(PAPER), normals[..., :3] + PAPER * (1.0 - normals[..., 3:])]
    return encode_png(torch.cat([_strip(row) for row in rows]).clamp(0.0, 1.0))


def _strip(views: Float[Tensor, "B H W 3"]) -> Float[Tensor, "H BW 3"]:
    return torch.cat(list(views), dim=1)
