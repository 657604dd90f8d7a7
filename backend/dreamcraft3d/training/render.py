"""Pictures of training objects with the project's own rasteriser and cameras."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from dreamcraft3d.functional.cameras import Cameras, project
from dreamcraft3d.kernels.rasterize import interpolate, rasterize
from dreamcraft3d.training.sculptor import Solid
from dreamcraft3d.training.surfaces import Lighting, Surface


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


def render_surface(
    surface: Surface, cameras: Cameras, lighting: Lighting, *, size: int, supersampling: int = 2
) -> Views:
    """RGBA, depth and normals (towards the viewer, whichever side is seen), averaged over what a pixel covers."""
    raster = rasterize(project(surface.vertices, cameras), surface.faces, size * supersampling)
    covered = raster.face_ids >= 0
    face, uv = raster.face_ids[covered].long(), raster.barycentrics[covered]
    weights = torch.cat([uv, 1.0 - uv.sum(-1, keepdim=True)], dim=-1)
    view = torch.arange(len(cameras))[:, None, None].expand_as(covered)[covered]
    place = (weights[..., None] * surface.vertices[surface.faces[face]]).sum(1)
    to_viewer = cameras.c2w[view, :3, 3] - place
    normals = surface.normals_at(face, weights)
    away = (surface.face_normals()[face] * to_viewer).sum(-1, keepdim=True) < 0.0
    normals = torch.where(away, -normals, normals)
    colours = lighting.on(surface.paint.at(face, weights), normals, normalize(to_viewer, dim=-1))
    depth = (to_viewer * cameras.c2w[view, :3, 2]).sum(-1, keepdim=True)
    drawn = torch.zeros(*covered.shape, 8)
    drawn[covered] = torch.cat([colours, torch.ones_like(depth), depth, normals], dim=-1)
    drawn = _shrink(drawn, supersampling)
    rgba, mean_depth = drawn[..., :4], drawn[..., 4:5] / drawn[..., 3:4].clamp_min(1e-6)
    return Views(rgba, mean_depth, normalize(drawn[..., 5:], dim=-1, eps=1e-6))


def _geometry(solid: Solid) -> tuple[Float[Tensor, "V 3"], Int[Tensor, "F 3"]]:
    return torch.as_tensor(solid.vertices, dtype=torch.float32), torch.as_tensor(solid.faces)


def _shrink(image: Float[Tensor, "B H W C"], factor: int) -> Float[Tensor, "B h w C"]:
    b, h, w, c = image.shape
    return image.reshape(b, h // factor, factor, w // factor, factor, c).mean((2, 4))
