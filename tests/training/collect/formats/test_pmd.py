"""PMD: vertices with coordinates, and points to attach props to."""

import numpy as np

from dreamcraft3d.training.collect.formats.pmd import read_pmd
from mesh_files import assert_damage_is_named, pmd, triangle

HALF = 0.5**0.5


def test_what_was_written_is_read() -> None:
    found = read_pmd(pmd(triangle(), {"prop-head": (1, 2, 3, 0, 0, HALF, HALF)}))
    assert np.array_equal(found.part.vertices, triangle().vertices)
    assert np.array_equal(found.part.faces, triangle().faces)
    assert np.array_equal(found.part.uv, triangle().uv)
    # a quarter turn around z, then the translation
    assert np.allclose(found.points["prop-head"] @ [1, 0, 0, 1], [1, 3, 3, 1], atol=1e-6)


def test_damage_is_named() -> None:
    whole = pmd(triangle(), {"prop-head": (0, 0, 0, 0, 0, 0, 1)})
    points = 4 + 4 + 9 + 28 + 1  # from the number of points on, what is missing may not have been written
    read_pmd(whole[:-points])
    assert_damage_is_named(lambda data: read_pmd(data if len(data) != len(whole) - points else b""), whole)
