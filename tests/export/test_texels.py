"""Texels as samples of the surface."""

import numpy as np
import pytest
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

import shapes
from dreamcraft3d.export import UnwrappedMesh, prepare
from dreamcraft3d.export.texels import Texels, grown, neighbours, texels_of

SIZE = 128


@pytest.fixture(scope="module")
def ball() -> UnwrappedMesh:
    return prepare(shapes.sphere(0.5), target_faces=1280, texture_size=SIZE)


@pytest.fixture(scope="module")
def texels(ball: UnwrappedMesh) -> Texels:
    return texels_of(ball, SIZE)


def test_a_texel_knows_its_place_on_the_surface(ball: UnwrappedMesh, texels: Texels) -> None:
    row, column = np.divmod(texels.index, SIZE)
    uv = texels.attributes(ball.uvs)
    assert np.abs(uv * SIZE - np.stack([column, row], axis=1) - 0.5).max() < 1e-3
    assert np.abs(np.linalg.norm(texels.points, axis=1) - 0.5).max() < 0.01
    assert len(np.unique(texels.index)) == len(texels.index) > 0.2 * SIZE**2


def test_every_texel_of_the_texture_has_a_nearest_one(texels: Texels) -> None:
    assert (texels.nearest.reshape(-1)[texels.index] == np.arange(len(texels.index))).all()
    rows, columns = np.divmod(texels.index[texels.nearest[0, 0]], SIZE)
    every_row, every_column = np.divmod(texels.index, SIZE)
    assert np.hypot(rows, columns) <= 1.1 * np.hypot(every_row, every_column).min()


def components(texels: Texels, pairs: np.ndarray) -> int:
    count = len(texels.index)
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return int(connected_components(graph, directed=False)[0])


def test_neighbours_are_near_and_join_the_charts_across_seams(ball: UnwrappedMesh, texels: Texels) -> None:
    pairs = neighbours(ball, texels)
    charts = ball.charts.numpy()[texels.face]
    crossing = charts[pairs[:, 0]] != charts[pairs[:, 1]]
    assert len(np.unique(ball.charts)) > 1
    assert components(texels, pairs) == 1
    assert components(texels, pairs[~crossing]) > 1
    step = np.linalg.norm(texels.points[pairs[:, 0]] - texels.points[pairs[:, 1]], axis=1)
    assert step[crossing].max() < 3.0 * np.median(step[~crossing])
    assert len(np.unique(np.sort(pairs, axis=1), axis=0)) == len(pairs)


def test_growing_follows_neighbours() -> None:
    chain = np.stack([np.arange(9), np.arange(1, 10)], axis=1)
    start = np.zeros(10, dtype=bool)
    start[4] = True
    assert grown(start, chain, 2).nonzero()[0].tolist() == [2, 3, 4, 5, 6]
    assert start.sum() == 1


def test_a_texture_too_small_for_the_mesh_is_refused() -> None:
    sliver = torch.tensor([[[0.1, 0.1], [0.11, 0.1], [0.1, 0.11]]])
    mesh = UnwrappedMesh(torch.eye(3), torch.tensor([[0, 1, 2]]), sliver, torch.zeros(1), 4, "box", 0.0, None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no texel"):
        texels_of(mesh, 4)
