"""OBJ with MTL: materials in order, textures, transparency, polygons."""

import numpy as np
import pytest

from dreamcraft3d.training.collect.formats.obj import read_obj
from dreamcraft3d.training.collect.parts import FormatError
from mesh_files import obj, png, triangle

LIBRARY = b"""newmtl red
Kd 1 0 0
newmtl paint
Kd 0 1 0
map_Kd -s 1 1 1 Paint.PNG
newmtl air
d 0.01
"""


def beside(name: str) -> bytes | None:
    return {"thing.mtl": LIBRARY, "Paint.PNG": png()}.get(name)


def test_what_was_written_is_read() -> None:
    (part,) = read_obj(obj(triangle(), library="thing.mtl", material="paint").encode(), beside)
    want = triangle()
    assert np.allclose(part.vertices[part.faces], want.vertices[want.faces])
    assert np.allclose(part.uv[part.faces], want.uv[want.faces])
    assert part.texture is not None
    assert part.texture.image.getpixel((3, 3)) == (200, 100, 50)
    assert part.colour is None, "the texture is not tinted"


def test_materials_come_in_the_order_of_their_first_use_and_invisible_ones_not_at_all() -> None:
    rows = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n"
    faces = "usemtl red\nf 1 2 3 4\nusemtl air\nf 1 2 3\nusemtl other\nf 1 3 4\nusemtl red\nf 2 3 4\n"
    first, second = read_obj(f"mtllib thing.mtl\n{rows}{faces}".encode(), beside)
    assert first.colour == (1.0, 0.0, 0.0)
    assert len(first.faces) == 3, "a square is two triangles"
    assert second.colour is None
    assert len(second.faces) == 1


def test_a_missing_library_leaves_grey() -> None:
    (part,) = read_obj(obj(triangle(), library="lost.mtl", material="red").encode())
    assert part.texture is None
    assert part.shown_colour == (0.7, 0.7, 0.7)


def test_no_mesh_at_all() -> None:
    assert read_obj(b"# nothing\n") == []


def test_damage_is_named() -> None:
    with pytest.raises(FormatError):
        read_obj(b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n")
