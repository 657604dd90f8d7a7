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
    return _shrink(interpolate(solid_colours, raster, faces), supersampling).clamp(0.0, 1.0)


def render_views(solid: Solid, cameras: Cameras, *, size: int, supersampling: int = 2) -> Views:
    """RGBA, depth and smooth world normals, averaged over the covered part of each pixel."""
    vertices, faces = _geometry(solid)
    clip = project(vertices, cameras)
    raster = rasterize(clip, faces, size * supersampling)
    normals = torch.as_tensor(vertex_normals(solid.vertices, solid.faces), dtype=torch.float32)
    colours = torch.as_tensor(solid.colours, dtype=torch.float32)
    surface = torch.cat([colours, torch.ones_like(colours[:, :1]), normals], dim=1)
    drawn = _shrink(interpolate(surface, raster, faces), supersampling)
    rgba, normal = drawn[..., :4].clamp(0.0, 1.0), torch.nn.functional.normalize(drawn[..., 4:], dim=-1, eps=1e-6)
    depth = _shrink(interpolate(clip[..., 3:].contiguous(), raster, faces), supersampling)
    return Views(rgba, depth / rgba[..., 3:].clamp_min(1e-6), normal)


def _geometry(solid: Solid) -> tuple[Float[Tensor, "V 3"], Int[Tensor, "F 3"]]:
    return torch.as_tensor(solid.vertices, dtype=torch.float32), torch.as_tensor(solid.faces)


def _shrink(image: Float[Tensor, "B H W C"], factor: int) -> Float[Tensor, "B h w C"]:
    b, h, w, c = image.shape
    return image.reshape(b, h // factor, factor, w // factor, factor, c).mean((2, 4))
