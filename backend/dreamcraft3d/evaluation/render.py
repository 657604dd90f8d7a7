"""Pictures of finished meshes: unlit base colour, depth and normals, anti-aliased by supersampling.

Images are B x H x W x C, row 0 at the top, RGBA premultiplied. Nothing here is differentiated.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, normalize

from dreamcraft3d.export import TexturedMesh
from dreamcraft3d.functional.cameras import Cameras, project
from dreamcraft3d.functional.mesh import face_areas, face_normals, vertex_normals
from dreamcraft3d.kernels.rasterize import rasterize

VIEWS_AT_ONCE = 4
CREASE = 0.64  # cosine of about 50 degrees: where a face turns farther from the smooth normal, its own is used


@dataclass(frozen=True)
class MeshRender:
    """What B cameras see of a mesh.

    Attributes:
        rgba: premultiplied. depth: along the viewing axis, world units, at the sample nearest to the pixel's centre,
            infinite on background. normals: unit, world, towards the camera, premultiplied by coverage.
    """

    rgba: Float[Tensor, "B H W 4"]
    depth: Float[Tensor, "B H W"]
    normals: Float[Tensor, "B H W 3"]

    def over(self, background: float = 1.0) -> Float[Tensor, "B H W 3"]:
        """The colours on a grey background (1 = white)."""
        return self.rgba[..., :3] + (1.0 - self.rgba[..., 3:]) * background


@torch.no_grad()
def render_textured(mesh: TexturedMesh, cameras: Cameras, size: int, *, supersample: int = 2) -> MeshRender:
    """Renders `size` x `size` images with supersample^2 samples per pixel and bilinear texture lookups."""
    cameras = cameras.to(mesh.vertices.device)
    texture = None if mesh.texture is None else _mip(mesh, cameras, size * supersample)
    surface = _corner_normals(mesh)
    renders = [
        _render(mesh, texture, surface, cameras[i : i + VIEWS_AT_ONCE], size * supersample, supersample)
        for i in range(0, len(cameras), VIEWS_AT_ONCE)
    ]
    return MeshRender(*(torch.cat([getattr(r, name) for r in renders]) for name in ("rgba", "depth", "normals")))


def _render(
    mesh: TexturedMesh,
    texture: Tensor | None,
    surface: tuple[Tensor, Tensor],
    cameras: Cameras,
    size: int,
    supersample: int,
) -> MeshRender:
    flat, smooth = surface
    clip = project(mesh.vertices, cameras)
    raster = rasterize(clip, mesh.faces, size)
    covered = raster.face_ids >= 0
    face = raster.face_ids[covered]
    weights = raster.barycentrics[covered]
    weights = torch.cat([weights, 1.0 - weights.sum(-1, keepdim=True)], dim=-1)[..., None]
    view = torch.arange(len(cameras), device=face.device)[:, None, None].expand_as(covered)[covered]

    normal = normalize((weights * smooth[face]).sum(1), dim=-1)
    point = (weights * mesh.vertices[mesh.faces[face]]).sum(1)
    away = ((cameras.c2w[view, :3, 3] - point) * flat[face]).sum(-1) < 0
    normal = torch.where(away[:, None], -normal, normal)
    if texture is not None and mesh.uvs is not None:
        colour = sample_texture(texture, (weights * mesh.uvs[face]).sum(1))
    else:
        colour = (weights * mesh.colours()[mesh.faces[face]]).sum(1)

    image = torch.zeros(*covered.shape, 7, device=colour.device)
    image[covered] = torch.cat([colour, torch.ones_like(colour[:, :1]), normal], dim=-1)
    depth = torch.full(covered.shape, torch.inf, device=colour.device)
    depth[covered] = ((cameras.c2w[view, :3, 3] - point) * cameras.c2w[view, :3, 2]).sum(-1)
    image = avg_pool2d(image.permute(0, 3, 1, 2), supersample).permute(0, 2, 3, 1)
    middle = supersample // 2
    return MeshRender(image[..., :4], depth[:, middle::supersample, middle::supersample], image[..., 4:])


def sample_texture(texture: Float[Tensor, "H W 3"], uvs: Float[Tensor, "N 2"]) -> Float[Tensor, "N 3"]:
    """Bilinear lookup, glTF coordinates (v down), repeating outside [0, 1]."""
    if uvs.numel() and (uvs.min() < 0 or uvs.max() > 1):
        uvs = uvs - uvs.floor()
    grid = (2.0 * uvs - 1.0)[None, None]
    image = texture.permute(2, 0, 1)[None]
    return grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)[0, :, 0].T


def _mip(mesh: TexturedMesh, cameras: Cameras, size: int) -> Tensor:
    """The texture, halved until a sample steps over less than two texels (one level for the whole mesh)."""
    texture, uvs = mesh.texture, mesh.uvs
    assert texture is not None
    assert uvs is not None
    height, width = texture.shape[:2]
    a, b = uvs[:, 1] - uvs[:, 0], uvs[:, 2] - uvs[:, 0]
    texels = 0.5 * (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).abs().sum() * height * width
    area = face_areas(mesh.vertices, mesh.faces).sum()
    pixel = (2.0 * cameras.distance * torch.tan(0.5 * cameras.fovy) / size).min()
    step = float((texels / area.clamp(min=1e-12)).sqrt() * pixel)
    while step >= 2.0 and min(texture.shape[:2]) > 1:
        texture = avg_pool2d(texture.permute(2, 0, 1), 2).permute(1, 2, 0)
        step /= 2.0
    return texture


def _corner_normals(mesh: TexturedMesh) -> tuple[Float[Tensor, "F 3"], Float[Tensor, "F 3 3"]]:
    """The faces' own normals, and at their corners smooth ones, except at creases."""
    flat = face_normals(mesh.vertices, mesh.faces)
    smooth = vertex_normals(mesh.vertices, mesh.faces)[mesh.faces]
    crease = (smooth * flat[:, None]).sum(-1, keepdim=True) < CREASE
    return flat, torch.where(crease, flat[:, None].expand_as(smooth), smooth)


def clay(render: MeshRender, cameras: Cameras) -> Float[Tensor, "B H W 4"]:
    """The shape alone: matt clay under a light from the upper left of each camera, premultiplied RGBA."""
    axes = cameras.to(render.rgba.device).c2w[:, :3, :3]
    light = normalize(torch.tensor([-0.45, 0.65, 0.8], device=axes.device), dim=0)
    normal = torch.einsum("bij,bhwi->bhwj", axes, render.normals)
    opacity = render.rgba[..., 3:]
    half_lambert = (0.5 * opacity[..., 0] + 0.5 * normal @ light).clamp(min=0.0)
    rim = 0.12 * (opacity[..., 0] - normal[..., 2]).clamp(min=0.0)
    tint = torch.tensor([0.93, 0.89, 0.85], device=axes.device)
    shade = (0.16 * opacity[..., 0] + 0.84 * half_lambert - rim).clamp(0.0, 1.0)
    return torch.cat([shade[..., None] * tint, opacity], dim=-1)
