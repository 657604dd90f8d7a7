"""Unseen sides painted with the picture's patches: what stays, what comes, and where it may come from."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from dreamcraft3d.config import ExemplarConfig, GenerateConfig
from dreamcraft3d.export import TexturedMesh
from dreamcraft3d.export.unwrapping import unwrap_box
from dreamcraft3d.functional.cameras import orbit
from dreamcraft3d.kernels.patch_match import Matches
from dreamcraft3d.stages.exemplar import (
    exemplars_of,
    paint_unseen,
    paint_unseen_sides,
    reference_weight,
    texels_of,
)
from dreamcraft3d.stages.patch_synthesis import Exemplar, Palette, blurred, upsampled
from dreamcraft3d.stages.reference import ReferenceView
from dreamcraft3d.stages.surface_views import Painting, View, filled_outward
from shapes import sphere

TEXELS = 128
COARSE = ExemplarConfig(enabled=True, size=64)


def ball() -> TexturedMesh:
    """A ball with a smooth texture, orange above and blue below."""
    mesh = sphere(0.55, subdivisions=3)
    uvs, _ = unwrap_box(mesh.vertices.double().numpy(), mesh.faces.numpy(), texture_size=TEXELS)
    bare = TexturedMesh(mesh.vertices, mesh.faces, torch.from_numpy(uvs).float(), torch.zeros(TEXELS, TEXELS, 3))
    texel, points = texels_of(mesh, bare.uvs, TEXELS)
    texture = torch.full((TEXELS * TEXELS, 3), 0.5)
    share = (points.x[:, 2:] / 1.1 + 0.5).clamp(0.0, 1.0)
    texture[texel] = share * torch.tensor([0.8, 0.5, 0.2]) + (1.0 - share) * torch.tensor([0.2, 0.4, 0.7])
    return TexturedMesh(mesh.vertices, mesh.faces, bare.uvs, texture.reshape(TEXELS, TEXELS, 3))


def picture(size: int = 128) -> Tensor:
    """The ball's front: the same colours, with stripes. Premultiplied RGBA."""
    axis = (torch.arange(size) + 0.5) / size * 2.0 - 1.0
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    inside = ((x**2 + y**2) < 0.84**2).float()[..., None]
    share = (0.5 - 0.5 * y / 0.84).clamp(0.0, 1.0)[..., None]
    colour = share * torch.tensor([0.8, 0.5, 0.2]) + (1.0 - share) * torch.tensor([0.2, 0.4, 0.7])
    stripes = 0.15 * torch.sign(torch.sin(40.0 * x))[..., None]
    return torch.cat([(colour + stripes).clamp(0.0, 1.0) * inside, inside], dim=-1)


@pytest.fixture(scope="module")
def painted() -> tuple[TexturedMesh, Tensor, Tensor]:
    """The ball, the weight of its texels, and its painted texture."""
    mesh = ball()
    weight = reference_weight(mesh.mesh, mesh.uvs, TEXELS, orbit(0.0, 0.0), picture())
    return mesh, weight, paint_unseen(mesh, weight, exemplars_of(picture()), COARSE)


def test_the_reference_shows_the_front_and_nothing_of_the_back() -> None:
    mesh = ball()
    weight = reference_weight(mesh.mesh, mesh.uvs, TEXELS, orbit(0.0, 0.0), picture()).reshape(-1)
    texel, points = texels_of(mesh.mesh, mesh.uvs, TEXELS)
    cosine = points.normal[:, 0]
    assert float(weight[texel[cosine > 0.7]].min()) > 0.999  # what `KNOWN` takes for known
    assert float(weight[texel[cosine < 0.1]].max()) == 0.0


def test_what_the_picture_shows_stays_bit_for_bit(painted: tuple[TexturedMesh, Tensor, Tensor]) -> None:
    mesh, weight, texture = painted
    assert torch.equal(texture[weight >= 0.999], mesh.texture[weight >= 0.999])
    assert bool((texture != mesh.texture).any())


def test_the_back_gets_the_picture_s_detail_and_keeps_its_colours(painted: tuple[TexturedMesh, Tensor, Tensor]) -> None:
    mesh, _, texture = painted
    texel, points = texels_of(mesh.mesh, mesh.uvs, TEXELS)
    back = texel[points.normal[:, 0] < -0.5]
    before, after = mesh.texture.reshape(-1, 3)[back], texture.reshape(-1, 3)[back]
    assert float(after.std(0).mean()) > 1.2 * float(before.std(0).mean())
    high = points.x[points.normal[:, 0] < -0.5, 2] > 0.0
    assert float(after[high, 0].mean()) > float(after[~high, 0].mean()) + 0.15
    assert 0.0 <= float(texture.min()) <= float(texture.max()) <= 1.0


def test_the_same_seed_gives_the_same_texture(painted: tuple[TexturedMesh, Tensor, Tensor]) -> None:
    mesh, weight, texture = painted
    same, other = (paint_unseen(mesh, weight, exemplars_of(picture()), COARSE, seed=seed) for seed in (0, 3))
    assert torch.equal(texture, same)
    assert not torch.equal(texture, other)


def test_where_all_is_known_nothing_changes() -> None:
    mesh = ball()
    assert torch.equal(paint_unseen(mesh, torch.ones(TEXELS, TEXELS), exemplars_of(picture()), COARSE), mesh.texture)


def test_a_mesh_without_texture_cannot_be_painted() -> None:
    mesh = sphere()
    with pytest.raises(ValueError, match="texture"):
        paint_unseen(
            TexturedMesh(mesh.vertices, mesh.faces), torch.zeros(8, 8), exemplars_of(picture()), ExemplarConfig()
        )


def test_a_run_paints_if_it_is_told_to() -> None:
    mesh, rgba = ball(), picture()
    reference = ReferenceView(rgba, rgba[..., 3] > 0.5, 0.0, "given mask")
    assert paint_unseen_sides(mesh, reference, GenerateConfig()) is mesh
    done = paint_unseen_sides(mesh, reference, GenerateConfig(exemplar=COARSE), weight=torch.ones(TEXELS, TEXELS))
    assert torch.equal(done.texture, mesh.texture)
    assert torch.equal(done.vertices, mesh.vertices)


def test_a_swatch_is_a_second_source_of_any_shape() -> None:
    swatch = torch.rand(40, 90, 4, generator=torch.Generator().manual_seed(0))
    swatch[..., 3] = 1.0
    first, second = exemplars_of(picture(), swatch)
    assert first.colour.shape == (128, 128, 3)
    assert second.colour.shape == (90, 90, 3)
    assert bool(second.inside.all())
    palette = Palette([first, second], 64, COARSE)
    assert palette.source.images.shape == (4, 64, 64, 3)


def test_patches_from_outside_the_object_are_never_used_and_eyes_cost_more() -> None:
    rgba = picture()
    spot = (slice(56, 68), slice(56, 68))
    rgba[..., :3][spot] = 0.0
    palette = Palette(exemplars_of(rgba), 64, ExemplarConfig(rarity=2.0))
    penalty = palette.source.penalty[0]
    assert bool(torch.isinf(penalty[:4]).all())
    assert float(penalty[30, 30]) > float(penalty[30, 45]) + 0.01


def test_used_patches_become_dearer() -> None:
    palette = Palette(exemplars_of(picture()), 64, ExemplarConfig(repetition=0.1))
    before = palette.source.penalty[0, 32, 32].clone()
    index = torch.full((8, 8), 32 * 64 + 32, dtype=torch.int32)
    palette.use(Matches(index, torch.zeros(8, 8)), done=True)
    assert float(palette.source.penalty[0, 32, 32]) > float(before) + 0.05
    assert float(palette.source.penalty[0, 20, 32]) == pytest.approx(float(before), abs=0.05)


def test_the_usual_detail_goes_with_the_colour() -> None:
    """Left half: flat grey. Right half: red, noisy."""
    colour = torch.full((64, 64, 3), 0.4)
    noise = 0.3 * (torch.rand(64, 32, 1, generator=torch.Generator().manual_seed(0)) - 0.5)
    colour[:, 32:] = torch.tensor([0.8, 0.2, 0.2]) + noise
    palette = Palette([Exemplar(colour, torch.ones(64, 64, dtype=torch.bool))], 64, COARSE)
    grey, red = (
        float(palette.usual_detail(torch.tensor(c).expand(64, 64, 3)).mean()) for c in ((0.4,) * 3, (0.8, 0.2, 0.2))
    )
    assert grey < 0.01
    assert red > 0.05


def test_an_enlarged_match_points_to_the_same_place() -> None:
    index = torch.full((4, 4), -1, dtype=torch.int32)
    index[1, 2] = 1 * 64 + 2 * 8 + 3  # image 1, row 2, column 3 of 8 x 8
    fine = upsampled(Matches(index, torch.zeros(4, 4)), 8).index
    assert fine[2, 4] == 1 * 256 + 4 * 16 + 6
    assert fine[3, 5] == 1 * 256 + 5 * 16 + 7
    assert int((fine >= 0).sum()) == 4


def test_a_blur_keeps_to_the_inside() -> None:
    image, inside = torch.zeros(16, 16, 1), torch.zeros(16, 16, dtype=torch.bool)
    inside[:, :8] = True
    image[:, :8], image[:, 8:] = 0.25, 100.0
    torch.testing.assert_close(blurred(image, inside, 2.0), torch.full((16, 16, 1), 0.25))


def test_a_view_sees_the_side_that_faces_it_and_gives_its_colours_back() -> None:
    mesh = sphere(0.55, subdivisions=3)
    front, left = (View(mesh, orbit(0.0, azimuth)) for azimuth in (0.0, math.pi / 2))
    pixel, points = front.pixels(64)
    weight, place = front.weigh(points)
    assert float(weight.max()) == pytest.approx(1.0, abs=0.02)
    row, column = np.divmod(pixel.numpy(), 64)
    centre = torch.from_numpy(np.stack([column, row], axis=1) + 0.5).float() / 32.0 - 1.0
    torch.testing.assert_close(place, centre, atol=1e-3, rtol=0.0)
    assert float(left.weigh(points)[0][points.normal[:, 1] < 0.0].max()) == 0.0
    covered = torch.zeros(64 * 64, dtype=torch.bool)
    covered[pixel] = True
    image = torch.zeros(64 * 64, 3)
    image[pixel] = points.normal * 0.5 + 0.5
    painting = Painting()
    painting.add(front, image.reshape(64, 64, 3), covered.reshape(64, 64))
    colour, shown = painting.at(points)
    seen = shown > 0.0
    torch.testing.assert_close(colour[seen], points.normal[seen] * 0.5 + 0.5, atol=0.03, rtol=0.0)
    assert float(painting.at(left.pixels(64)[1])[1].min()) == 0.0


def test_outside_takes_the_nearest_colour() -> None:
    image, covered = torch.zeros(3, 5, 1), torch.zeros(3, 5, dtype=torch.bool)
    image[1, 1], image[1, 4] = 0.3, 0.9
    covered[1, 1] = covered[1, 4] = True
    filled = filled_outward(image, covered)[..., 0]
    assert filled[:, :2].unique().tolist() == pytest.approx([0.3])
    assert filled[:, 4].unique().tolist() == pytest.approx([0.9])
