"""Parts: what they refuse, how they move, fans."""

import numpy as np
import pytest

from dreamcraft3d.training.collect.parts import GREY, WHITE, FormatError, Part, fan
from dreamcraft3d.training.collect.textures import Texture
from mesh_files import image, triangle

SQUARE = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])


@pytest.mark.parametrize(
    ("vertices", "faces", "uv"),
    [
        (SQUARE, [[0, 1, 4]], None),
        (SQUARE, [[0, 1, -1]], None),
        (SQUARE, [[0, 1, 2, 3]], None),
        (SQUARE * np.nan, [[0, 1, 2]], None),
        (SQUARE, [[0, 1, 2]], np.zeros((3, 2))),
        (SQUARE, [[0, 1, 2]], np.full((4, 2), np.inf)),
    ],
)
def test_what_cannot_be_drawn_is_refused(vertices, faces, uv) -> None:
    with pytest.raises(FormatError):
        Part(vertices, np.array(faces), uv)


def test_a_move_turns_and_shifts() -> None:
    turn = np.array([[0.0, -1, 0, 5], [1, 0, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1]])
    moved = Part(SQUARE, np.array([[0, 1, 2]])).moved(turn)
    assert moved.vertices[1].tolist() == [5, 7, 7]


def test_a_texture_without_coordinates_is_not_shown() -> None:
    thing, texture = triangle(), Texture(image())
    assert Part(thing.vertices, thing.faces, thing.uv, texture=texture).shown_colour == WHITE
    assert Part(thing.vertices, thing.faces, texture=texture).shown_texture is None
    assert Part(thing.vertices, thing.faces, texture=texture).shown_colour == GREY


def test_fans_have_two_triangles_less_than_corners() -> None:
    assert fan(5, 10) == [(10, 11, 12), (10, 12, 13), (10, 13, 14)]
    assert fan(2) == []
