"""The reader of models against the backend's own writer, and against damage."""

import double
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamcraft_blender.glb import parse
from dreamcraft_blender.problems import Problem


def test_a_box_is_whole_again() -> None:
    model = parse(double.glb())
    assert model.vertices.shape == (8, 3)  # 24 in the file: seams are joined again
    assert model.faces.shape == (12, 3)
    assert model.uvs.shape == (12, 3, 2)
    np.testing.assert_allclose(np.ptp(model.vertices, axis=0), [0.4, 0.6, 1.2], atol=1e-6)  # upright: z is up
    assert model.picture is not None
    assert model.picture.startswith(b"\x89PNG")
    assert (model.metallic, model.roughness, model.specular) == (0.0, 1.0, 0.0)


def test_what_the_backend_writes_comes_back() -> None:
    """Same surface, same corners' texture coordinates, in Blender's frame."""
    pytest.importorskip("torch")
    import shapes
    from dreamcraft3d.export import bake, prepare, write_glb

    unwrapped = prepare(shapes.lopsided(), target_faces=1000, texture_size=128)
    model = parse(write_glb(unwrapped.with_texture(bake(unwrapped, shapes.lopsided_colour))))
    ours = unwrapped.vertices.numpy()  # z up, front +x; Blender: front -y, so (x, y, z) is (y, -x, z)
    theirs = np.stack([ours[:, 1], -ours[:, 0], ours[:, 2]], axis=1)
    corners = theirs[unwrapped.faces.numpy()]
    np.testing.assert_allclose(model.vertices[model.faces], corners, atol=1e-6)
    np.testing.assert_allclose(model.uvs, np.stack([unwrapped.uvs[..., 0], 1 - unwrapped.uvs[..., 1]], -1), atol=1e-6)
    assert len(model.vertices) <= len(ours)


@given(st.integers(0, 3000), st.integers(0, 255), st.integers(1, 3000))
def test_damage_is_one_problem_and_never_a_crash(place: int, value: int, length: int) -> None:
    data = bytearray(double.glb())
    data[place % len(data)] = value
    try:
        parse(bytes(data[:length]) if length % 2 else bytes(data))
    except Problem as problem:
        assert problem.code in ("bad_model", "empty_model")  # noqa: PT017


def test_no_faces() -> None:
    with pytest.raises(Problem) as caught:
        parse(double.glb(faces=0))
    assert caught.value.code == "empty_model"
