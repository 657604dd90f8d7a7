"""PIE: polygons with coordinates of versions 2 and 3, animations, the first level."""

import numpy as np
import pytest

from dreamcraft3d.training.collect.formats.pie import read_pie
from dreamcraft3d.training.collect.parts import FormatError
from mesh_files import pie, triangle


def test_what_was_written_is_read() -> None:
    text = pie(triangle())
    (part,) = read_pie((text + "LEVEL 2\n" + text.split("LEVEL 1\n")[1]).encode())
    assert np.array_equal(part.vertices, triangle().vertices)
    assert np.array_equal(part.uv, triangle().uv)
    assert part.images == ("paint.png",)


def test_old_coordinates_are_256ths_and_animations_are_passed_over() -> None:
    text = "PIE 2\nTEXTURE 0 a.png 256 256\nPOINTS 4\n0 0 0\n1 0 0\n1 1 0\n0 1 0\nPOLYGONS 1\n"
    (part,) = read_pie(f"{text}4200 4 0 1 2 3 8 1 16 16 0 0 128 0 128 64 0 64\n".encode())
    assert part.faces.tolist() == [[0, 1, 2], [0, 2, 3]]
    assert part.uv.tolist() == [[0, 1], [0.5, 1], [0.5, 0.75], [0, 0.75]]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("PIE 3", "PIG"),
        ("POINTS 3", "POINTS 9"),
        ("200 3 0", "200 3 7"),
        ("200 3", "200 5"),
        ("200 3", "zz"),
        ("POLYGONS 1", ""),
    ],
)
def test_damage_is_named(old: str, new: str) -> None:
    text = pie(triangle())
    assert old in text
    with pytest.raises(FormatError):
        read_pie(text.replace(old, new, 1).encode())
