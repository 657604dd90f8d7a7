"""A colour field becomes a texture."""

import torch

import shapes
from dreamcraft3d.evaluation.metrics import sample_surface
from dreamcraft3d.evaluation.render import sample_texture
from dreamcraft3d.export import UnwrappedMesh, bake, dilate, prepare
from dreamcraft3d.functional.mesh import Mesh
from dreamcraft3d.kernels.mesh_query import closest_points


def waves(points: torch.Tensor) -> torch.Tensor:
    return 0.5 + 0.5 * torch.sin(6.0 * points)


def read_back(unwrapped: UnwrappedMesh, texture: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    _, face, weights = closest_points(points, unwrapped.vertices, unwrapped.faces)
    return sample_texture(texture, (weights[..., None] * unwrapped.uvs[face]).sum(1))


def test_the_texture_holds_the_field_everywhere_on_the_surface() -> None:
    for seconds in (60.0, 0.001):
        unwrapped = prepare(shapes.torus(), target_faces=2000, seconds=seconds, texture_size=256)
        texture = bake(unwrapped, waves)
        points = sample_surface(
            Mesh(unwrapped.vertices, unwrapped.faces), 4000, generator=torch.Generator().manual_seed(0)
        )
        error = (read_back(unwrapped, texture, points) - waves(points)).abs()
        assert error.mean() < 0.01
        assert error.max() < 0.1


def test_only_the_surface_is_asked_for_colours_and_in_pieces() -> None:
    unwrapped = prepare(shapes.sphere(0.5), target_faces=1280, texture_size=256)
    asked: list[torch.Tensor] = []

    def colour(points: torch.Tensor) -> torch.Tensor:
        asked.append(points)
        return torch.ones_like(points)

    texture = bake(unwrapped, colour)
    points = torch.cat(asked)
    assert max(len(chunk) for chunk in asked) <= 1 << 17
    assert len(points) < 4 * 256 * 256
    assert ((points.norm(dim=-1) - 0.5).abs() < 0.01).all()
    assert (texture == 1.0).all()


def test_bands_do_not_show() -> None:
    """A texture too large for one band equals, texel by texel, one baked in a single band."""
    import dreamcraft3d.export.baking as baking

    unwrapped = prepare(shapes.sphere(0.5), target_faces=1280, texture_size=128)
    whole = bake(unwrapped, waves)
    before, baking.BAND_PIXELS = baking.BAND_PIXELS, 4 * 128 * 7
    try:
        parts = bake(unwrapped, waves)
    finally:
        baking.BAND_PIXELS = before
    assert (whole - parts).abs().mean() < 1e-3
    assert ((whole - parts).abs().amax(-1) > 0.02).float().mean() < 1e-3


def test_dilation_copies_the_nearest_covered_texel() -> None:
    covered = torch.zeros(40, 40, dtype=torch.bool)
    covered[10:20, 10:20] = True
    texture = torch.rand(40, 40, 3, generator=torch.Generator().manual_seed(0))
    result = dilate(texture, covered)
    assert (result[covered] == texture[covered]).all()
    assert (result[15, 39] == texture[15, 19]).all()
    assert (result[0, 0] == texture[10, 10]).all()
    assert (result[39, 12] == texture[19, 12]).all()
    assert (dilate(texture, torch.zeros_like(covered)) == texture).all()
