"""The hash grid against a scalar transcription of tiny-cuda-nn's indexing, against its twin, and at its edges."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dreamcraft3d.kernels import dispatch
from dreamcraft3d.kernels.hash_grid import HashGridLayout, hash_encode
from dreamcraft3d.kernels.reference import hash_grid as twin

SMALL = HashGridLayout(levels=5, features=2, base_resolution=4, growth=1.7, log2_table_size=9)


def random_inputs(layout: HashGridLayout, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(count, 3, generator=generator)
    return points, torch.randn(layout.entries, layout.features, generator=generator)


def scalar_row(corner: tuple[int, ...], resolution: int, size: int) -> int:
    """Row within a level, as tiny-cuda-nn finds it: strides unless they exceed the level, else the hash."""
    stride, index = 1, 0
    for coordinate in corner:
        if stride > size:
            break
        index = (index + coordinate * stride) % 2**32
        stride = stride * resolution % 2**32
    if size < stride:
        index = 0
        for coordinate, prime in zip(corner, (1, 2654435761, 805459861), strict=True):
            index ^= coordinate * prime % 2**32
    return index % size


def scalar_features(u: list[float], table: Tensor, layout: HashGridLayout) -> list[float]:
    features: list[float] = []
    for level in range(layout.levels):
        scale = layout.base_resolution * layout.growth**level - 1.0
        resolution = math.ceil(scale) + 1
        size = min((resolution**3 + 7) // 8 * 8, 2**layout.log2_table_size)
        p = [x * scale + 0.5 for x in u]
        sums = [0.0] * layout.features
        for bits in itertools.product((0, 1), repeat=3):
            weight = math.prod(x % 1.0 if bit else 1.0 - x % 1.0 for x, bit in zip(p, bits, strict=True))
            row = scalar_row(tuple(int(x) + bit for x, bit in zip(p, bits, strict=True)), resolution, size)
            for f, value in enumerate(table[layout.offsets[level] + row].tolist()):
                sums[f] += weight * value
        features += sums
    return features


def test_default_layout_is_the_release_s() -> None:
    layout = HashGridLayout()
    expected = (16, 24, 34, 49, 71, 102, 148, 213, 308, 446, 646, 934, 1352, 1956, 2831, 4096)
    assert layout.resolutions == expected
    assert layout.entries == 6_299_960
    assert layout.hashed == (False,) * 5 + (True,) * 11
    assert layout.offsets[:4] == (0, 16**3, 16**3 + 24**3, 16**3 + 24**3 + 34**3)


@pytest.mark.parametrize("encode", [hash_encode, twin.hash_encode])
def test_indexing_is_tiny_cuda_nn_s(encode: object) -> None:
    points, table = random_inputs(SMALL, 60)
    points[:2] = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    assert {True, False} == set(SMALL.hashed)
    expected = torch.tensor([scalar_features(u, table, SMALL) for u in points.tolist()])
    torch.testing.assert_close(encode(points, table, SMALL), expected, rtol=1e-4, atol=1e-4)  # type: ignore[operator]


@pytest.mark.parametrize("features", [1, 2, 4, 8])
def test_values_and_gradients_equal_the_twin_s(features: int) -> None:
    layout = HashGridLayout(levels=6, features=features, base_resolution=5, growth=1.8, log2_table_size=10)
    points, table = (t.requires_grad_() for t in random_inputs(layout, dispatch.SMALL + 1))
    ours, theirs = hash_encode(points, table, layout), twin.hash_encode(points, table, layout)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    grad = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1))
    pairs = zip(*(torch.autograd.grad(output, (points, table), grad) for output in (ours, theirs)), strict=True)
    for mine, reference in pairs:
        torch.testing.assert_close(mine, reference, rtol=1e-3, atol=1e-3)


def test_twin_s_gradients_equal_finite_differences() -> None:
    layout = HashGridLayout(levels=3, features=2, base_resolution=3, growth=1.6, log2_table_size=5)
    points, table = random_inputs(layout, 4)
    inputs = (points.double().requires_grad_(), table.double().requires_grad_())
    assert torch.autograd.gradcheck(lambda p, t: twin.hash_encode(p, t, layout), inputs, eps=1e-6, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0.0, 0.85), min_size=3, max_size=3), st.lists(st.floats(-2.0, 2.0), min_size=4, max_size=4))
def test_a_dense_level_reproduces_linear_functions(u: list[float], slope: list[float]) -> None:
    layout = HashGridLayout(levels=1, features=1, base_resolution=8, log2_table_size=10)
    rows = torch.arange(layout.entries)
    corners = torch.stack([rows % 8, rows // 8 % 8, rows // 64], dim=1).float()
    table = (corners @ torch.tensor(slope[:3]) + slope[3])[:, None]
    p = torch.tensor(u) * layout.scales[0] + 0.5
    expected = p @ torch.tensor(slope[:3]) + slope[3]
    torch.testing.assert_close(hash_encode(torch.tensor([u]), table, layout)[0, 0], expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("encode", [hash_encode, twin.hash_encode])
@pytest.mark.parametrize("active", [0, 2, 5, 9, None])
def test_inactive_levels_read_zero_and_learn_nothing(encode: object, active: int | None) -> None:
    points, table = random_inputs(SMALL, 50)
    table.requires_grad_()
    output = encode(points, table, SMALL, active_levels=active)  # type: ignore[operator]
    levels = SMALL.levels if active is None else min(active, SMALL.levels)
    torch.testing.assert_close(output[:, : 2 * levels], hash_encode(points, table, SMALL)[:, : 2 * levels])
    assert bool((output[:, 2 * levels :] == 0.0).all())
    if output.requires_grad:
        (grad,) = torch.autograd.grad(output.square().sum(), table)
        assert bool((grad[SMALL.offsets[levels] :] == 0.0).all())
        assert levels == 0 or bool((grad[: SMALL.offsets[levels]] != 0.0).any())


@pytest.mark.parametrize("encode", [hash_encode, twin.hash_encode])
def test_points_outside_are_clamped_and_get_no_gradient(encode: object) -> None:
    _, table = random_inputs(SMALL, 1)
    points = torch.tensor([[-3.0, 0.3, 1.5], [1e20, 0.3, 0.5]], requires_grad=True)
    output = encode(points, table, SMALL)  # type: ignore[operator]
    torch.testing.assert_close(output, hash_encode(points.detach().clamp(0.0, 1.0), table, SMALL))
    (grad,) = torch.autograd.grad(output.sum(), points)
    assert bool((grad[points.detach() != points.detach().clamp(0.0, 1.0)] == 0.0).all())
    assert bool((grad[:, 1] != 0.0).all())


@pytest.mark.parametrize("encode", [hash_encode, twin.hash_encode])
def test_points_that_are_not_finite_give_nan_and_touch_nothing_else(encode: object) -> None:
    points, table = random_inputs(SMALL, 4)
    points[0, 1], points[1, 0], points[2, 2] = math.nan, math.inf, -math.inf
    output = encode(points, table, SMALL)  # type: ignore[operator]
    assert bool(output[:3].isnan().all())
    assert bool(output[3].isfinite().all())


def test_same_input_same_bits_for_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = [t.requires_grad_() for t in random_inputs(SMALL, 3 * dispatch.SMALL)]
    results = []
    for threads in (1, 2, 2, 3):
        monkeypatch.setattr(dispatch, "threads", lambda threads=threads: threads)
        output = hash_encode(*inputs, SMALL)
        results.append([output, *torch.autograd.grad(output.sin().sum(), inputs)])
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


def test_no_points_no_features() -> None:
    _, table = random_inputs(SMALL, 1)
    table.requires_grad_()
    output = hash_encode(torch.empty(0, 3), table, SMALL)
    assert output.shape == (0, 10)
    (grad,) = torch.autograd.grad(output.sum(), table)
    assert bool((grad == 0.0).all())


def test_refusals() -> None:
    points, table = random_inputs(SMALL, 2)
    with pytest.raises(ValueError, match="table must be"):
        hash_encode(points, table[:-1], SMALL)
    with pytest.raises(ValueError, match="float32"):
        hash_encode(points.double(), table, SMALL)
    with pytest.raises(ValueError, match="features"):
        HashGridLayout(features=3)
    with pytest.raises(ValueError, match="growth"):
        HashGridLayout(growth=0.5)
