"""Closed surfaces out of broken ones."""

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamcraft3d.export import topology


def arrays(shape: trimesh.Trimesh) -> tuple[np.ndarray, np.ndarray]:
    return np.array(shape.vertices, dtype=np.float64), np.array(shape.faces, dtype=np.int64)


BALL = arrays(trimesh.creation.icosphere(subdivisions=2))


def watertight_after_merging(vertices: np.ndarray, faces: np.ndarray) -> bool:
    """What a stranger's tool says, which knows positions in single precision only."""
    shape = trimesh.Trimesh(vertices.astype(np.float32), faces, process=True)
    return bool(shape.is_watertight and shape.is_winding_consistent)


@settings(max_examples=25, deadline=None)
@given(st.sets(st.integers(0, len(BALL[1]) - 1), min_size=1, max_size=120))
def test_any_set_of_faces_can_be_cut_out_and_the_rest_is_closed_again(missing: set[int]) -> None:
    vertices, faces = BALL
    vertices, faces, holes = topology.close(vertices, np.delete(faces, sorted(missing), axis=0))
    assert holes >= 1
    assert topology.is_manifold(faces)
    assert watertight_after_merging(vertices, faces)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, len(BALL[1]) - 1), max_size=80))
def test_orient_makes_neighbours_agree_again(turned: list[int]) -> None:
    vertices, faces = BALL
    mixed = faces.copy()
    mixed[turned] = mixed[turned, ::-1]
    oriented = topology.orient(mixed)
    assert topology.is_closed(oriented)
    volume = topology.volumes(vertices, oriented)
    np.testing.assert_allclose(np.abs(volume), topology.volumes(vertices, faces))


def test_two_cubes_that_share_an_edge_come_apart() -> None:
    a, b = trimesh.creation.box(bounds=[[0, 0, 0], [1, 1, 1]]), trimesh.creation.box(bounds=[[1, 1, 0], [2, 2, 1]])
    vertices, faces = topology.weld(*arrays(trimesh.util.concatenate([a, b])), 1e-6)
    assert len(vertices) == 14
    assert not topology.is_manifold(faces)
    vertices, faces, holes = topology.close(vertices, faces)
    assert holes == 0
    assert topology.is_manifold(faces)
    assert topology.components(faces).max() == 1
    np.testing.assert_allclose(topology.volumes(vertices, faces), 1.0, atol=0.1)
    assert watertight_after_merging(vertices, faces)


def test_two_cubes_that_share_a_corner_come_apart() -> None:
    a, b = trimesh.creation.box(bounds=[[0, 0, 0], [1, 1, 1]]), trimesh.creation.box(bounds=[[1, 1, 1], [2, 2, 2]])
    vertices, faces = topology.weld(*arrays(trimesh.util.concatenate([a, b])), 1e-6)
    assert topology.is_closed(faces)
    assert not topology.is_manifold(faces)
    vertices, faces, _ = topology.close(vertices, faces)
    assert topology.is_manifold(faces)
    assert topology.components(faces).max() == 1


def test_a_flap_without_volume_disappears_and_a_repeated_face_is_kept_once() -> None:
    faces = BALL[1]
    flap = np.array([[0, 1, 2], [2, 1, 0]])
    result = topology.cancel_duplicates(np.concatenate([faces, flap, np.roll(faces[:5], 1, axis=1)]))
    assert len(result) == len(faces)
    assert topology.is_manifold(result)


def test_weld_joins_doubled_vertices_and_drops_collapsed_faces() -> None:
    vertices, faces = BALL
    soup = vertices[faces].reshape(-1, 3) + np.random.default_rng(0).uniform(-1e-8, 1e-8, (faces.size, 3))
    needle = np.array([[0, 1, 1]])
    welded, joined = topology.weld(soup, np.concatenate([np.arange(faces.size).reshape(-1, 3), needle]), 1e-6)
    assert len(welded) == len(vertices)
    assert topology.is_manifold(joined)


def test_nothing_is_not_closed() -> None:
    assert not topology.is_closed(np.zeros((0, 3), dtype=np.int64))
    assert not topology.is_manifold(np.zeros((0, 3), dtype=np.int64))


@pytest.mark.parametrize("size", [3, 4, 9])
def test_a_hole_of_any_size_is_filled_flat(size: int) -> None:
    angles = np.linspace(0, 2 * np.pi, size, endpoint=False)
    ring = np.stack([np.cos(angles), np.sin(angles), np.zeros(size)], axis=1)
    cone = np.concatenate([ring, [[0, 0, 1.0]]])
    faces = np.array([[i, (i + 1) % size, size] for i in range(size)])
    vertices, faces, holes = topology.close(cone, faces)
    assert holes == 1
    assert topology.is_manifold(faces)
    area = 0.5 * size * np.sin(2 * np.pi / size)
    np.testing.assert_allclose(topology.volumes(vertices, faces), area / 3)
