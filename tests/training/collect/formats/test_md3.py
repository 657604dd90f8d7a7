"""MD3: surfaces with shaders; tags are left out."""

import numpy as np

from dreamcraft3d.training.collect.formats.md3 import read_md3
from mesh_files import assert_damage_is_named, md3, triangle


def test_what_was_written_is_read() -> None:
    (part,) = read_md3(md3(triangle()))
    assert np.array_equal(part.vertices, triangle().vertices)
    assert np.array_equal(part.faces, triangle().faces)
    assert np.array_equal(part.uv, triangle().uv)
    assert part.images == ("models/paint.tga",)


def test_marks_for_other_models_are_no_parts() -> None:
    assert read_md3(md3(triangle(), name="tag_weapon")) == []


def test_damage_is_named() -> None:
    assert_damage_is_named(read_md3, md3(triangle()))
