"""SPM: half-precision coordinates, vertex colours of one byte or four."""

import struct

import numpy as np
import pytest

from dreamcraft3d.training.collect.formats.spm import read_spm
from dreamcraft3d.training.collect.parts import FormatError
from mesh_files import assert_damage_is_named, ball, floats, spm, triangle


@pytest.mark.parametrize("thing", [triangle(), ball(20, 20)], ids=["8-bit faces", "16-bit faces"])
def test_what_was_written_is_read(thing) -> None:
    (part,) = read_spm(spm(thing))
    assert np.allclose(part.vertices, thing.vertices, atol=1e-6)
    assert np.array_equal(part.faces, thing.faces)
    assert np.allclose(part.uv, thing.uv, atol=1e-3)
    assert part.images == ("paint.png",)


def test_without_a_texture_the_mean_vertex_colour_is_the_colour() -> None:
    head = b"SP" + bytes([(1 << 3) | 2, 2]) + bytes(24) + struct.pack("<H", 1) + b"\0\0"
    rows = floats([0, 0, 0]) + b"\x80" + floats([1, 0, 0]) + b"\x01\xff\0\0" + floats([0, 1, 0]) + b"\x01\0\0\0"
    (part,) = read_spm(head + struct.pack("<HHIIH", 1, 1, 3, 3, 0) + rows + bytes([0, 1, 2]))
    assert part.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert part.colour == pytest.approx((2 / 3, 1 / 3, 1 / 3))


def test_damage_is_named() -> None:
    assert_damage_is_named(read_spm, spm(triangle()))


def test_a_face_beyond_the_vertices() -> None:
    with pytest.raises(FormatError, match="not there"):
        read_spm(spm(triangle())[:-1] + b"\x09")
