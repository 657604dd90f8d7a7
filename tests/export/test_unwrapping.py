"""A place in the texture for every face: inside, apart, and in time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shapes
from dreamcraft3d.export import prepare, unwrapping
from dreamcraft3d.functional.mesh import Mesh

SIZE = 512


def arrays(mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    return mesh.vertices.double().numpy(), mesh.faces.numpy()


def smallest_gap(uvs: np.ndarray, charts: np.ndarray, size: int, reach: int) -> int:
    """The fewest empty texels between two charts along rows and columns, or `reach` when there are at least as many."""
    face, texel = unwrapping.texel_hits(uvs, size)
    label = np.full(size * size, -1)
    label[texel] = charts[face]
    label = label.reshape(size, size)
    for gap in range(reach):
        for a, b in ((label[:, : -gap - 1], label[:, gap + 1 :]), (label[: -gap - 1], label[gap + 1 :])):
            if ((a >= 0) & (b >= 0) & (a != b)).any():
                return gap
    return reach


def check(mesh: Mesh, uvs: np.ndarray, charts: np.ndarray) -> None:
    assert uvs.shape == (len(mesh.faces), 3, 2)
    assert uvs.min() >= 0.0
    assert uvs.max() <= 1.0
    assert unwrapping.overlap(uvs, SIZE) <= 0.001
    assert smallest_gap(uvs, charts, SIZE, unwrapping.PADDING) == unwrapping.PADDING
    texels = unwrapping.texel_hits(uvs, SIZE)[1]
    assert len(np.unique(texels)) > 0.3 * SIZE * SIZE


@pytest.mark.parametrize("make", [shapes.torus, shapes.sphere, shapes.lopsided])
def test_xatlas_charts_lie_inside_apart_and_padded(make) -> None:
    mesh = make()
    uvs, charts, method = unwrapping.unwrap(*arrays(mesh), texture_size=SIZE, seconds=120.0)
    assert method == "xatlas"
    check(mesh, uvs, charts)


@pytest.mark.parametrize("make", [shapes.torus, shapes.sphere, shapes.lopsided])
def test_when_time_is_up_box_projection_does_the_same(make) -> None:
    mesh = make()
    uvs, charts, method = unwrapping.unwrap(*arrays(mesh), texture_size=SIZE, seconds=0.001)
    assert method == "box"
    check(mesh, uvs, charts)


def test_box_projection_parts_a_spiral_staircase() -> None:
    """Two turns of a ramp: connected, facing up everywhere, and twice over every point."""
    angle = np.linspace(0, 4 * np.pi, 80)
    ring = np.stack([np.cos(angle), np.sin(angle), 0.05 * angle], axis=1)
    vertices = np.concatenate([0.3 * ring + [[0, 0, 0]], ring]) * [1, 1, 0.3]
    i = np.arange(79)
    faces = np.concatenate([np.stack([i, i + 80, i + 81], 1), np.stack([i, i + 81, i + 1], 1)])
    uvs, charts = unwrapping.unwrap_box(vertices, faces, texture_size=SIZE)
    assert charts.max() >= 1
    assert unwrapping.overlap(uvs, SIZE) == 0.0


def test_the_unwrap_is_the_same_every_time() -> None:
    first, second = (prepare(shapes.torus(), target_faces=1500, texture_size=SIZE) for _ in range(2))
    assert (first.uvs == second.uvs).all()
    assert (first.faces == second.faces).all()


def test_overlap_counts_the_texels_that_two_faces_claim() -> None:
    square = np.array([[[0.0, 0.0], [0.5, 0.0], [0.5, 0.5]], [[0.0, 0.0], [0.5, 0.5], [0.0, 0.5]]])
    assert unwrapping.overlap(square, 64) == 0.0
    assert unwrapping.overlap(np.concatenate([square, square + 0.25]), 64) == pytest.approx(0.25 / 1.75)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 32), st.integers(0, 32)), min_size=4, max_size=4, unique=True))
def test_a_texel_on_a_shared_edge_belongs_to_one_face(points: list[tuple[int, int]]) -> None:
    """Two triangles on either side of an edge, corners on the grid's half texels: none twice, none lost in between."""
    a, b, c, d = (np.array(p, dtype=np.float64) for p in points)
    side = [np.cross(b - a, p - a) for p in (c, d)]
    if side[0] * side[1] >= 0:
        return
    pair = np.stack([np.stack([a, b, c]), np.stack([b, a, d])]) / 32.0
    _, texel = unwrapping.texel_hits(pair, 64)
    assert len(texel) == len(np.unique(texel))
    quad = abs(side[0]) / 2 + abs(side[1]) / 2
    assert (
        abs(len(texel) / 4.0 - quad)
        <= 0.5 * sum(np.linalg.norm(p - q) for p, q in ((a, c), (c, b), (b, d), (d, a))) + 1
    )
