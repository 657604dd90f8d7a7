"""Pictures of meshes."""

import math

import pytest
import torch

import shapes
from dreamcraft3d.evaluation import clay, render_textured
from dreamcraft3d.evaluation.render import sample_texture
from dreamcraft3d.export import TexturedMesh
from dreamcraft3d.functional.cameras import orbit, rays


def grey(mesh) -> TexturedMesh:
    return TexturedMesh(mesh.vertices, mesh.faces)


def test_a_texture_appears_the_right_way_round() -> None:
    image = render_textured(shapes.textured_quad(), orbit(0.0, 0.0), 64).rgba[0]
    corners = image[[16, 16, 48, 48], [16, 48, 16, 48]]
    expected = torch.tensor([[1.0, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1], [1, 1, 1, 1]])
    torch.testing.assert_close(corners, expected, atol=0.15, rtol=0)
    assert (image[0] == 0).all()


def test_sphere_against_the_formula() -> None:
    size, radius = 64, 0.5
    cameras = orbit(torch.tensor([0.3, -0.4]), torch.tensor([1.0, 4.0]))
    render = render_textured(grey(shapes.sphere(radius, subdivisions=5)), cameras, size, supersample=1)
    origin, direction = rays(cameras, size)
    along = -(origin * direction).sum(-1)
    discriminant = radius**2 - (origin.square().sum(-1) - along**2)
    hit = discriminant > 0
    assert (hit != (render.rgba[..., 3] > 0.5)).float().mean() < 0.01
    inner = discriminant > 0.02
    point = origin + (along - discriminant.clamp(min=0).sqrt())[..., None] * direction
    depth = ((origin - point) * cameras.c2w[:, None, None, :3, 2]).sum(-1)
    torch.testing.assert_close(render.depth[inner], depth[inner], atol=2e-3, rtol=0)
    torch.testing.assert_close(render.normals[inner], point[inner] / radius, atol=2e-2, rtol=0)
    assert render.depth[~hit & (render.rgba[..., 3] == 0)].isinf().all()


def test_edges_are_premultiplied_and_supersampled() -> None:
    render = render_textured(grey(shapes.sphere()), orbit(0.0, 0.0), 32, supersample=4)
    opacity = render.rgba[..., 3]
    edge = (opacity > 0) & (opacity < 1)
    assert edge.any()
    torch.testing.assert_close(render.rgba[..., 0][edge] / opacity[edge], torch.full_like(opacity[edge], 0.72))
    area = math.pi * (0.5 / (3.8 * math.tan(math.radians(10)) * 2)) ** 2 * 3.8**2 / (3.8**2 - 0.5**2)
    assert opacity.mean().item() == pytest.approx(area, rel=0.01)


def test_a_fine_texture_does_not_alias() -> None:
    """A checkerboard of single texels, far too fine for the picture, must come out grey."""
    board = (torch.arange(256)[:, None] + torch.arange(256)) % 2
    quad = shapes.textured_quad()
    fine = TexturedMesh(quad.vertices, quad.faces, quad.uvs, board.float()[..., None].expand(-1, -1, 3).contiguous())
    image = render_textured(fine, orbit(0.0, 0.0), 24).rgba[0, 8:16, 8:16, :3]
    torch.testing.assert_close(image, torch.full_like(image, 0.5), atol=0.1, rtol=0)


def test_texture_lookup_is_bilinear_and_repeats() -> None:
    texture = torch.tensor([[[0.0], [1.0]], [[2.0], [3.0]]]).expand(2, 2, 3)
    uvs = torch.tensor([[0.25, 0.25], [0.75, 0.25], [0.5, 0.5], [0.0, 0.75]])
    torch.testing.assert_close(sample_texture(texture, uvs)[:, 0], torch.tensor([0.0, 1.0, 1.5, 2.0]))
    torch.testing.assert_close(
        sample_texture(texture, uvs[:3] + torch.tensor([2.0, -1.0]))[:, 0], torch.tensor([0.0, 1.0, 1.5])
    )


def test_clay_is_lit_from_the_upper_left_of_every_camera() -> None:
    cameras = orbit(torch.tensor([0.0, 0.5]), torch.tensor([0.0, 2.0]))
    image = clay(render_textured(grey(shapes.sphere()), cameras, 64), cameras)
    shade, solid = image[..., 0], (image[..., 3] == 1).all(0)
    assert (shade[:, 22, 22] > shade[:, 42, 42] + 0.1).all()
    torch.testing.assert_close(shade[0][solid], shade[1][solid], atol=0.05, rtol=0)
