"""VRML as KiCad writes it: named materials, polygons that -1 ends."""

import numpy as np
import pytest

from dreamcraft3d.training.collect.formats.vrml import read_vrml
from dreamcraft3d.training.collect.parts import FormatError
from mesh_files import triangle, vrml


def test_shapes_share_named_materials() -> None:
    (part,) = read_vrml(vrml(triangle()).encode())
    assert np.array_equal(part.vertices, triangle().vertices)
    assert part.colour == (0.1, 0.2, 0.3)


def test_polygons_become_fans() -> None:
    text = vrml(triangle()).replace("[0,1,2,-1]", "[0,1,2,0,-1,2,1,0,-1]")
    assert read_vrml(text.encode())[0].faces.tolist() == [[0, 1, 2], [0, 2, 0], [2, 1, 0]]


@pytest.mark.parametrize(
    ("old", "new"), [("#VRML", "VRML"), ("[0,1,2,-1]", "[0,1,7,-1]"), ("0.5]", "half]"), ("0.5]", "]")]
)
def test_damage_is_named(old: str, new: str) -> None:
    text = vrml(triangle())
    assert old in text
    with pytest.raises(FormatError):
        read_vrml(text.replace(old, new).encode())
