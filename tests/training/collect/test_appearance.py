"""Small renders: silhouettes, textures, holes that show what is behind."""

from dataclasses import replace

import numpy as np
import pytest

from dreamcraft3d.training.collect.appearance import render
from dreamcraft3d.training.collect.assembly import assemble
from dreamcraft3d.training.collect.parts import Part
from dreamcraft3d.training.collect.textures import Texture
from mesh_files import ball, image

BALL = ball(24, 32)
PART = Part(BALL.vertices, BALL.faces, BALL.uv, colour=(1.0, 0.0, 0.0))


def test_a_ball_is_a_disc_from_both_sides() -> None:
    seen = render(assemble([PART]))
    # the camera stands where a ball of half the box's diagonal (sqrt(3)/2 of this one's diameter) would fill the view
    tangent = np.tan(np.radians(20))
    distance = 1.02 * np.sqrt(3) / 2 / np.sin(np.radians(20))
    radius = 0.5 * np.tan(np.arcsin(0.5 / distance)) / tangent  # of the disc, as a share of the view
    assert seen.covered.mean((1, 2)) == pytest.approx(np.pi * radius**2, rel=0.02)
    assert (seen.colours[~seen.covered] == 1.0).all()
    red = seen.colours[seen.covered]
    assert red[:, 1:].max() == 0.0
    assert red[:, 0].min() > 0.4


def test_textures_are_looked_up_bottom_left_first() -> None:
    painted = image(size=(16, 16), colour=(0, 0, 255))
    painted.paste((0, 255, 0), (0, 0, 16, 8))  # the upper half, where v > 1/2
    seen = render(assemble([replace(PART, colour=None, texture=Texture(painted))]))
    rows = np.nonzero(seen.covered[0].any(1))[0]
    top, bottom = seen.colours[0, rows[2]], seen.colours[0, rows[-3]]
    middle = seen.covered.shape[1] // 2
    assert top[middle].argmax() == 1
    assert bottom[middle].argmax() == 2


def test_a_hole_shows_what_is_behind() -> None:
    sheet = Part(
        np.array([[-3.0, -3, 3], [3, -3, 3], [3, 3, 3], [-3, 3, 3]]) @ _turned(), np.array([[0, 1, 2], [0, 2, 3]]),
        np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]]), texture=Texture(image("RGBA")),
    )  # fmt: skip
    seen = render(assemble([PART, sheet]))
    row = column = seen.covered.shape[1] // 2  # where the middle of the box is: a bit below and right of the ball's
    left, right = seen.colours[0, row - 4, column - 8], seen.colours[0, row - 4, column + 8]
    assert left.argmax() == 0
    assert left[1] == 0.0, "the red ball, through the transparent half"
    assert right[1] > 0.1, "the sheet's own colour"


def _turned() -> np.ndarray:
    """Around y, so that +x is to the right of the first camera, at 35 degrees, and +z looks to it."""
    sine, cosine = np.sin(np.radians(35.0)), np.cos(np.radians(35.0))
    return np.array([[-sine, 0, -cosine], [0, 1, 0], [cosine, 0, -sine]])
