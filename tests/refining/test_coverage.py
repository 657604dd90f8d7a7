"""Which triangle owns which texel: exact, deterministic, and never twice in an ordinary unwrap."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import soups
from dreamcraft3d.refining.coverage import (
    barycentrics,
    check_overlaps,
    coverage_of,
    covered_texels,
    plain_coordinates,
)
from dreamcraft3d.refining.refusals import OverlappingTexels, TilingTexture
from dreamcraft3d.refining.request import Target, Tile


def target(*tiles: Tile, udim: bool = False) -> Target:
    return Target(slot=0, tiles=tiles or (Tile(width=64, height=64),), udim=udim)


def cover(mesh, wanted=None):
    wanted = wanted or target()
    uv, folded = plain_coordinates(mesh, wanted)
    return list(coverage_of(mesh, wanted, uv, np.ones(len(uv), bool))), folded


coordinate = st.floats(-3.0, 19.0, allow_nan=False, width=32)


@given(st.lists(coordinate, min_size=6, max_size=6))
def test_a_texel_is_covered_exactly_if_its_centre_lies_inside(values):
    corners = np.array(values, dtype=np.float64).reshape(1, 3, 2)
    texel, _ = covered_texels(corners, 16, 16)
    y, x = np.mgrid[0:16, 0:16] + 0.5
    sides = []
    for k in range(3):
        a, b = corners[0, k], corners[0, (k + 1) % 3]
        sides.append((b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0]))
    surely = (np.all([s > 1e-9 for s in sides], axis=0) | np.all([s < -1e-9 for s in sides], axis=0)).reshape(-1)
    perhaps = (np.all([s >= -1e-9 for s in sides], axis=0) | np.all([s <= 1e-9 for s in sides], axis=0)).reshape(-1)
    got = np.zeros(256, bool)
    got[texel] = True
    assert len(texel) == got.sum()
    assert (got[surely]).all()
    assert perhaps[got].all()


@given(st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=12), st.integers(0, 2**32 - 1))
def test_a_welded_fan_covers_no_texel_twice(points, seed):
    """Triangles around a point, whatever their shapes, share edges and nothing else."""
    angle = np.sort(np.random.default_rng(seed).uniform(0, 2 * np.pi, len(points)))
    ring = np.array([8.1, 7.9]) + 7.0 * np.stack([np.cos(angle), np.sin(angle)], 1)
    gap = np.diff(np.append(angle, angle[0] + 2 * np.pi))
    fan = [[[8.1, 7.9], ring[i], ring[(i + 1) % len(ring)]] for i in range(len(ring)) if 0 < gap[i] < np.pi]
    texel, _ = covered_texels(np.array(fan).reshape(-1, 3, 2), 16, 16)
    assert len(texel) == len(set(texel.tolist()))


@pytest.mark.parametrize("mesh", [soups.sphere(), soups.cube(), soups.card(0.0)], ids=["sphere", "cube", "card"])
def test_ordinary_meshes_do_not_overlap(mesh):
    (coverage,), _ = cover(mesh)
    assert coverage.overlap == 0.0
    assert (coverage.owner >= 0).mean() > 0.5


def test_mirrored_halves_belong_to_the_lowest_face_every_time():
    mesh = soups.mirrored(soups.sphere(8, 16))
    coverages, folded = cover(mesh)
    check_overlaps(coverages, "auto", folded)
    assert coverages[0].overlap > 0.99
    assert coverages[0].owner.max() < len(mesh.tri_vertex) // 2
    for _ in range(4):
        assert (cover(mesh)[0][0].owner == coverages[0].owner).all()
    with pytest.raises(OverlappingTexels):
        check_overlaps(coverages, "error", folded)


def test_stacked_islands_are_refused_unless_somebody_decides():
    mesh = soups.together(soups.card(0.0), soups.card(1.0))
    coverages, folded = cover(mesh)
    with pytest.raises(OverlappingTexels) as caught:
        check_overlaps(coverages, "auto", folded)
    assert caught.value.reason == "E_OVERLAP"
    assert caught.value.remedy
    for policy in ("owner", "average"):
        check_overlaps(coverages, policy, folded)


def test_repeating_textures_are_refused_but_a_parked_mirror_half_is_not():
    wide = soups.card(0.0, box=(0.0, 0.0, 4.0, 4.0))
    with pytest.raises(TilingTexture) as caught:
        check_overlaps(*(lambda c: (c[0], "auto", c[1]))(cover(wide)))
    assert caught.value.reason == "E_TILING_UV"
    one_face = soups.soup([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]], [[0, 0], [2.5, 0], [0, 2.5]])
    with pytest.raises(TilingTexture):
        cover(one_face)
    parked = soups.mirrored(soups.sphere(8, 16))
    parked.tri_uv[len(parked.tri_uv) // 2 :, :, 0] += 1.0
    coverages, folded = cover(parked)
    check_overlaps(coverages, "auto", folded)
    assert folded == 0.5


def test_udim_tiles_take_their_own_faces_at_their_own_size():
    tiles = [Tile(number=n, width=w, height=h) for n, w, h in ((1001, 32, 32), (1002, 64, 16), (1011, 8, 128))]
    parts = [soups.card(float(k), box=(u, v, u + 0.9, v + 0.9)) for k, (u, v) in enumerate([(0, 0), (1, 0), (0, 1)])]
    mesh = soups.together(*parts)
    coverages, _ = cover(mesh, target(*tiles, udim=True))
    faces = len(parts[0].tri_vertex)
    for k, (coverage, tile) in enumerate(zip(coverages, tiles, strict=True)):
        assert coverage.owner.shape == (tile.height, tile.width)
        owners = np.unique(coverage.owner[coverage.owner >= 0])
        assert owners.min() >= k * faces and owners.max() < (k + 1) * faces
        assert abs((coverage.owner >= 0).mean() - 0.81) < 0.12


def test_unpainted_faces_own_nothing_but_cover():
    mesh = soups.card(0.0, paint=[False] * 64 + [True] * 64)
    (coverage,), _ = cover(mesh)
    assert coverage.owner[coverage.owner >= 0].min() >= 64
    assert coverage.covered.sum() > 1.8 * (coverage.owner >= 0).sum()


@given(st.lists(coordinate, min_size=6, max_size=6), st.floats(0, 1), st.floats(0, 1))
def test_barycentrics_find_a_point_inside_again(values, a, b):
    corners = np.array(values, dtype=np.float64).reshape(1, 3, 2)
    edges = corners[0, 1:] - corners[0, 0]
    if abs(np.linalg.det(edges)) < 1e-2:
        return
    share = np.array([1 - a, a * (1 - b), a * b])
    weights = barycentrics(corners, share @ corners)
    assert np.allclose(weights @ corners[0], share @ corners, atol=1e-6)
