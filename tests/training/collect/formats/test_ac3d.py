"""AC3D: trees of objects, polygons, strips, materials."""

import numpy as np
import pytest

from dreamcraft3d.training.collect.formats.ac3d import read_ac3d
from dreamcraft3d.training.collect.parts import FormatError
from mesh_files import ac3d, triangle

HEAD = 'AC3Db\nMATERIAL "a" rgb 1 0 0 trans 0\nMATERIAL "glass" rgb 0 0 1 trans 0.9\n'


def test_what_was_written_is_read() -> None:
    (part,) = read_ac3d(ac3d(triangle()).encode())
    assert np.array_equal(part.vertices, triangle().vertices)
    assert np.array_equal(part.uv, triangle().uv)
    assert part.images == ("paint.png",)
    assert part.colour == (0.2, 0.4, 0.6)


def test_children_move_with_their_parents_and_texture_coordinates_repeat() -> None:
    text = HEAD + (
        "OBJECT world\nkids 2\n"
        "OBJECT group\nloc 10 0 0\nrot 0 1 0 -1 0 0 0 0 1\nkids 1\n"
        'OBJECT poly\ndata 7\nkids 9\n"\nloc 1 0 0\ntexrep 2 3\ntexoff 1 0\nnumvert 3\n0 0 0\n1 0 0\n0 1 0\n'
        "numsurf 1\nSURF 0x10\nmat 0\nrefs 3\n0 0 0\n1 1 0\n2 0 1\nkids 0\n"
        "OBJECT poly\nnumvert 3\n5 5 5\n6 5 5\n5 6 5\nnumsurf 1\nSURF 0x10\nmat 0\nrefs 3\n0 0 0\n1 0 0\n2 0 0\n"
        "kids 0\n"
    )
    (part,) = read_ac3d(text.encode())
    # the matrix is stored by columns: x becomes y, y becomes -x; the second object hangs on the world itself
    assert np.allclose(part.vertices[:3], [[10, 1, 0], [10, 2, 0], [9, 1, 0]])
    assert np.allclose(part.vertices[3:], [[5, 5, 5], [6, 5, 5], [5, 6, 5]])
    assert np.allclose(part.uv[:3], [[1, 0], [3, 0], [1, 3]])


@pytest.mark.parametrize(("flags", "faces"), [("0x10", 2), ("0x14", 2), ("0x12", 0)])
def test_polygons_become_fans_strips_turn_and_lines_are_nothing(flags: str, faces: int) -> None:
    rows = "numvert 4\n0 0 0\n1 0 0\n0 1 0\n1 1 0\n"
    corners = "0 0 0\n1 0 0\n3 0 0\n2 0 0\n" if flags == "0x10" else "0 0 0\n1 0 0\n2 0 0\n3 0 0\n"
    text = f"{HEAD}OBJECT poly\n{rows}numsurf 1\nSURF {flags}\nmat 0\nrefs 4\n{corners}kids 0\n"
    parts = read_ac3d(text.encode())
    assert sum(len(part.faces) for part in parts) == faces
    for part in parts:  # a square in z = 0, each triangle of which turns the same way round
        corner = part.vertices[part.faces]
        assert (np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])[:, 2] > 0).all()


def test_glass_is_left_out() -> None:
    text = ac3d(triangle()).replace("trans 0", "trans 0.9")
    assert read_ac3d(text.encode()) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("AC3Db", "AC2"),
        ("numvert 3", "numvert 300"),
        ("refs 3\n0 ", "refs 3\n7 "),
        ("refs 3", "refs x"),
        ("0.5", "half"),
    ],
)
def test_damage_is_named(old: str, new: str) -> None:
    text = ac3d(triangle())
    assert old in text
    with pytest.raises(FormatError):
        read_ac3d(text.replace(old, new, 1).encode())
