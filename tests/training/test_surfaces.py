"""Paint and light of surfaces, against values computed by hand."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from dreamcraft3d.training.surfaces import Lighting, Surface, TexturePaint, VertexPaint, random_lighting

FACES = torch.tensor([[0, 1, 2]])


def chequered(corners: list[list[float]]) -> TexturePaint:
    """One face whose corners have these texture coordinates; texels, from the top: 0 100 / 200 40 (red only).

    A second, grey texture lies before it.
    """
    texels = torch.zeros(5, 3, dtype=torch.uint8)
    texels[0] = 128
    texels[1:, 0] = torch.tensor([0, 100, 200, 40])
    layout = torch.tensor([[0, 1, 1], [1, 2, 2]])
    return TexturePaint(FACES, torch.tensor(corners), torch.tensor([1]), texels, layout)


def red_at(u: float, v: float) -> float:
    """The colour at a texture coordinate: all of the first corner's weight."""
    paint = chequered([[u, v], [9.0, 9.0], [-7.0, 3.0]])
    colour = paint.at(torch.tensor([0]), torch.tensor([[1.0, 0.0, 0.0]]))[0]
    assert float(colour[1]) == float(colour[2]) == 0.0
    return float(colour[0]) * 255.0


@pytest.mark.parametrize(
    ("u", "v", "wanted"),
    [
        (0.25, 0.75, 0.0),  # the middle of a texel; v counts upwards, rows downwards
        (0.75, 0.75, 100.0),
        (0.25, 0.25, 200.0),
        (0.5, 0.75, 50.0),  # between two
        (0.5, 0.5, 85.0),  # between all four
        (0.375, 0.625, 0.1875 * 100 + 0.1875 * 200 + 0.0625 * 40),
        (0.0, 0.75, 50.0),  # the border: half of the texel on the other side
        (0.25, 1.0, 100.0),
    ],
)
def test_textures_are_interpolated_and_repeat(u: float, v: float, wanted: float) -> None:
    assert red_at(u, v) == pytest.approx(wanted, abs=1e-3)
    assert red_at(u + 1.0, v - 2.0) == pytest.approx(wanted, abs=1e-3)
    assert red_at(u - 3.0, v + 1.0) == pytest.approx(wanted, abs=1e-3)


def test_texture_coordinates_are_weighted_like_corners() -> None:
    paint = chequered([[0.25, 0.75], [0.75, 0.75], [0.25, 0.25]])
    colour = paint.at(torch.tensor([0]), torch.tensor([[0.0, 0.5, 0.5]]))[0]
    assert float(colour[0]) * 255.0 == pytest.approx(85.0, abs=1e-3)


def test_colours_of_corners_are_weighted() -> None:
    paint = VertexPaint(FACES, torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.5]]))
    assert paint.at(torch.tensor([0]), torch.tensor([[0.5, 0.3, 0.2]]))[0].tolist() == pytest.approx([0.5, 0.3, 0.1])


def lit(lighting: Lighting, normal: list[float], viewer: list[float], albedo: float = 0.5) -> float:
    colour = lighting.on(torch.full((1, 3), albedo), torch.tensor([normal]), torch.tensor([viewer]))
    assert colour.shape == (1, 3)
    return float(colour[0, 0])


def test_light_follows_its_formula() -> None:
    """gain albedo (ambient + sum_l s_l (1/4 + 3/4 n . l)+) + gloss sum_l s_l (n . h_l)+^shininess."""
    lamps = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    lighting = Lighting(lamps, torch.tensor([0.4, 0.2]), 0.3, gain=1.1, gloss=0.5, shininess=10.0)
    wanted = 1.1 * 0.5 * (0.3 + 0.4 * 1.0 + 0.2 * 0.25)  # n = v = l_1, l_2 at a right angle
    wanted += 0.5 * (0.4 * 1.0 + 0.2 * math.cos(math.pi / 4) ** 10)
    assert lit(lighting, [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]) == pytest.approx(wanted, abs=1e-5)


def test_what_looks_away_keeps_the_ambient_light_and_colours_end_at_one() -> None:
    lighting = Lighting(torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([5.0]), 0.3, gloss=0.5)
    assert lit(lighting, [-1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]) == pytest.approx(0.15)
    assert lit(lighting, [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]) == 1.0


def test_random_light_is_from_the_front_and_above_and_not_too_bright() -> None:
    found = [random_lighting(np.random.default_rng(seed)) for seed in range(200)]
    assert {len(lighting.strength) for lighting in found} == {1, 2, 3}
    for lighting in found:
        assert torch.allclose(lighting.towards.norm(dim=1), torch.ones(len(lighting.towards)), atol=1e-5)
        assert float(lighting.towards[:, 2].min()) >= 0.0
        assert 0.9 <= lighting.ambient + float(lighting.strength.sum()) <= 1.4
    assert 0.15 < sum(lighting.gloss > 0.0 for lighting in found) / 200 < 0.35


def folded(degrees: float) -> tuple[Surface, Tensor]:
    """Two triangles that share an edge along z, with so many degrees between their normals; and at a corner of that
    edge the normals of both."""
    turn = math.radians(degrees)
    corners = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0], [-math.sin(turn), math.cos(turn), 0.0]])
    faces = torch.tensor([[2, 0, 1], [0, 3, 1]])
    surface = Surface(corners, faces, VertexPaint(faces, torch.ones(4, 3)))
    return surface, surface.normals_at(torch.tensor([0, 1]), torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]))


def test_normals_are_smooth_where_faces_meet_gently_and_flat_at_creases() -> None:
    surface, normals = folded(20.0)
    assert torch.allclose(normals[0], normals[1], atol=1e-5)
    assert 0.0 < float((normals[0] * surface.face_normals()[0]).sum()) < 0.999
    surface, normals = folded(120.0)
    assert torch.allclose(normals, surface.face_normals(), atol=1e-5)
