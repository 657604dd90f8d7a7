"""G3D: first frame, textures, player colours."""

import numpy as np
import pytest

from dreamcraft3d.training.collect.formats.g3d import read_g3d
from dreamcraft3d.training.collect.parts import FormatError
from mesh_files import assert_damage_is_named, g3d, triangle


@pytest.mark.parametrize("player", [False, True])
def test_the_first_frame_is_read(player: bool) -> None:
    (part,) = read_g3d(g3d(triangle(), player=player))
    assert np.array_equal(part.vertices, triangle().vertices)
    assert np.array_equal(part.faces, triangle().faces)
    assert np.array_equal(part.uv, triangle().uv)
    assert part.images == ("paint.png",)
    assert part.player_colour is player


def test_without_a_texture_there_is_a_colour() -> None:
    (part,) = read_g3d(g3d(triangle(), texture=""))
    assert part.uv is None
    assert part.colour == (0.5, 0.25, 1.0)


def test_transparent_meshes_are_left_out() -> None:
    assert read_g3d(g3d(triangle(), opacity=0.2)) == []


def test_damage_is_named() -> None:
    assert_damage_is_named(read_g3d, g3d(triangle()))


def test_other_versions_are_refused() -> None:
    data = bytearray(g3d(triangle()))
    data[3] = 3
    with pytest.raises(FormatError, match="version 3"):
        read_g3d(bytes(data))
