"""Pictures of procedural objects with the project's own rasteriser and cameras."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreamcraft3d.functional.cameras import Cameras, project
from dreamcraft3d.kernels.rasterize import interpolate, rasterize
from dreamcraft3d.training.sculptor import Solid, vertex_normals


@dataclass(frozen=True)
class Views:
    """Pictures: premultiplied `rgba`, `depth` along the camera axis (0 on the background), world `normals`."""

    rgba: Float[Tensor, "B H W 4"]
    depth: Float[Tensor, "B H W 1"]
    normals: Float[Tensor, "B H W 3"]


def render_rgba(solid: Solid, cameras: Cameras, *, size: int, supersampling: int = 2) -> Float[Tensor, "B H W 4"]:
    """Premultiplied RGBA, box-filtered from `supersampling` times the size."""
    vertices, faces = _geometry(solid)
    colours = torch.as_tensor(solid.colours, dtype=torch.float32)
    solid_colours = torch.cat([colours, torch.ones_like(colours[:, :1])], dim=1)
    raster = rasterize(project(vertices, cameras), faces, size * supersampling)
    return _shrink(interpolate(solid_colours, raster, faces), supersampling)


def render_views(solid: Solid, cameras: Cameras, *, size: int) -> Views:
    """RGBA (2x supersampled), depth and smooth world normals of each pixel centre."""
    vertices, faces = _geometry(solid)
    clip = project(vertices, cameras)
    raster = rasterize(clip, faces, size)
    normals = torch.as_tensor(vertex_normals(solid.vertices, solid.faces), dtype=torch.float32)
    hit = (raster.face_ids >= 0).unsqueeze(-1)
    smooth = torch.nn.functional.normalize(interpolate(normals, raster, faces), dim=-1) * hit
    depth = interpolate(clip[..., 3:].contiguous(), raster, faces)
    return Views(render_rgba(solid, cameras, size=size), depth, smooth)


def _geometry(solid: Solid) -> tuple[Float[Tensor, "V 3"], Int[Tensor, "F 3"]]:
    return torch.as_tensor(solid.vertices, dtype=torch.float32), torch.as_tensor(solid.faces)


def _shrink(image: Float[Tensor, "B H W 4"], factor: int) -> Float[Tensor, "B h w 4"]:
    b, h, w, c = image.shape
    return image.reshape(b, h // factor, factor, w // factor, factor, c).mean((2, 4)).clamp(0.0, 1.0)
