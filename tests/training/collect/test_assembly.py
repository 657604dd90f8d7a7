"""Parts joined into one mesh."""

from dataclasses import replace

import numpy as np
import pytest

from dreamcraft3d.training.collect.assembly import assemble
from dreamcraft3d.training.collect.parts import FormatError, Part
from dreamcraft3d.training.collect.textures import Texture
from mesh_files import image, triangle

THING = triangle()
PART = Part(THING.vertices, THING.faces, THING.uv)


def test_the_unit_box_is_filled_along_the_longest_side() -> None:
    thing = assemble([PART, replace(PART, vertices=PART.vertices + np.array([0, 3, 0]))])
    assert np.allclose(thing.size, [0.5, 1.0, 0.125])
    assert np.allclose(thing.vertices.min(0) + thing.vertices.max(0), 0.0)
    assert thing.faces.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_z_up_becomes_y_up_without_a_mirror() -> None:
    thing = assemble([PART], z_up=True)
    edges = [(each.vertices[1:] - each.vertices[0]) for each in (thing, PART)]
    assert np.allclose(edges[0] * 2, edges[1][:, [0, 2, 1]] * [1, 1, -1])


def test_unused_vertices_do_not_count() -> None:
    far = np.concatenate([THING.vertices, [[99.0, 99, 99]]])
    thing = assemble([Part(far, THING.faces)])
    assert len(thing.vertices) == 3
    assert thing.size.max() == pytest.approx(1.0)


def test_equal_materials_are_listed_once() -> None:
    texture = Texture(image())
    painted, red = replace(PART, texture=texture), replace(PART, colour=(1.0, 0.0, 0.5))
    thing = assemble([painted, red, painted, PART, red])
    assert thing.material.tolist() == [0, 1, 0, 2, 1]
    assert [each.colour for each in thing.materials] == [(255, 255, 255), (255, 0, 127), (178, 178, 178)]
    assert thing.materials[0].texture is texture
    assert thing.textured


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [replace(PART, faces=np.zeros((0, 3), np.int64))],
        [replace(PART, vertices=PART.vertices * 0.0)],
        [replace(PART, colour=(k / 400, 0.0, 0.1 * (k % 2))) for k in range(400)],
    ],
    ids=["no part", "no face", "a point", "too many materials"],
)
def test_what_makes_no_object_is_named(parts) -> None:
    with pytest.raises(FormatError):
        assemble(parts)
