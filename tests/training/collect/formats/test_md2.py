"""MD2: positions in steps, texture coordinates in pixels, clockwise triangles."""

import numpy as np
import pytest

from dreamcraft3d.training.collect.formats.md2 import read_md2
from dreamcraft3d.training.collect.parts import FormatError
from mesh_files import assert_damage_is_named, md2, triangle


def test_what_was_written_is_read() -> None:
    (part,) = read_md2(md2(triangle()))
    want = triangle()
    assert np.allclose(part.vertices[part.faces], want.vertices[want.faces])
    assert np.allclose(part.uv[part.faces], want.uv[want.faces])
    assert part.images == ("paint.png",)


def test_damage_is_named() -> None:
    assert_damage_is_named(read_md2, md2(triangle()))


def test_a_triangle_beyond_the_vertices() -> None:
    data = md2(triangle())
    at = 68 + 64 + 3 * 4
    with pytest.raises(FormatError, match="not there"):
        read_md2(data[:at] + b"\x09\0" + data[at + 2 :])
