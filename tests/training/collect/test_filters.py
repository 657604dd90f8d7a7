"""What is kept and what is not."""

from dataclasses import replace

import numpy as np
import pytest

from dreamcraft3d.training.collect.assembly import Assembly, assemble
from dreamcraft3d.training.collect.filters import Duplicates, fault, shape_fault
from dreamcraft3d.training.collect.parts import Part
from dreamcraft3d.training.collect.textures import Texture
from mesh_files import ball, image

BALL = ball()


def painted(colour=(200, 100, 50), *, stretch=(1.0, 1.0, 1.0), shift=(0.0, 0.0, 0.0), thing=BALL) -> Part:
    vertices = thing.vertices * stretch + shift
    return Part(vertices, thing.faces, thing.uv, texture=Texture(image(colour=colour)))


def test_a_painted_ball_is_kept() -> None:
    assert fault(assemble([painted()]), Duplicates()) is None


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([replace(painted(), texture=None)], "plain"),
        ([painted(stretch=(1, 1, 0.01))], "flat"),
        ([painted(thing=ball(3, 4))], "too few faces"),
        ([painted(thing=ball(60, 60))], "too many faces"),
        ([painted(stretch=(0.02, 1, 0.03))], "small silhouette"),
        ([painted(shift=(0, 0, 3 * k)) for k in range(2)], "scattered"),
        ([painted(colour=(8, 8, 8))], "near-black"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_worth_learning_from(parts, reason) -> None:
    assert fault(assemble(parts), Duplicates()) == reason


def test_two_colours_are_not_plain() -> None:
    red, grey = replace(painted(), texture=None, colour=(1.0, 0, 0)), replace(painted(shift=(1, 0, 0)), texture=None)
    assert shape_fault(assemble([red, grey])) is None


def made(*options: dict) -> list[Assembly]:
    return [assemble([painted(**each)]) for each in options]


def test_duplicates_and_what_looks_alike_are_left_out() -> None:
    known = Duplicates()
    first, same, close, other = made({}, {}, {"colour": (199, 100, 51)}, {"colour": (20, 200, 50)})
    assert [fault(thing, known) for thing in (first, same, close, other)] == [
        None,
        "duplicate",
        "looks like another",
        None,
    ]


def test_of_a_group_one_per_texture_is_kept() -> None:
    known = Duplicates()
    tall, wide, blue = made({}, {"stretch": (1, 0.4, 1)}, {"stretch": (1, 0.4, 1), "colour": (20, 20, 250)})
    assert [fault(thing, known, "poses") for thing in (tall, wide, blue)] == [None, "variant", None]
    assert fault(wide, Duplicates(), "poses") is None


def test_what_was_left_out_does_not_count_as_known() -> None:
    known = Duplicates()
    dark = assemble([painted(colour=(8, 8, 8))])
    assert [fault(dark, known), fault(dark, known)] == ["near-black", "near-black"]
    assert np.isfinite(dark.vertices).all()
