import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dreamcraft3d.functional.schedules import (
    monotone_timesteps,
    piecewise_linear,
    progressive_spread,
    random_timesteps,
    random_views,
    stratified_views,
)

ELEVATION = (math.radians(-10), math.radians(45))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("fraction", "value"), [(0.0, 5.0), (0.39, 5.0), (0.4, 5.0), (0.5, 3.0), (0.6, 1.0), (1.0, 1.0)]
)
def test_piecewise_linear_follows_the_released_table(fraction: float, value: float) -> None:
    assert piecewise_linear(fraction, [(0.4, 5.0), (0.6, 1.0)]) == pytest.approx(value)


def test_a_hard_switch_is_two_points_at_one_place() -> None:
    switch = [(0.0, 1.0), (0.4, 1.0), (0.4, 10.0)]
    assert piecewise_linear(0.399, switch) == 1.0
    assert piecewise_linear(0.4, switch) == 10.0


@given(st.floats(0, 1), st.floats(0.05, 0.4), st.floats(0.5, 0.95), st.integers(0, 99))
def test_timesteps_stay_in_their_range(fraction: float, low: float, high: float, seed: int) -> None:
    for t in (
        random_timesteps(4, low, high, total=1000, generator=generator(seed)),
        monotone_timesteps(4, fraction, low=low, high=high, total=1000, generator=generator(seed)),
    ):
        assert int(t.min()) >= int(low * 1000) and int(t.max()) <= int(high * 1000) + 1


def test_monotone_timesteps_fall() -> None:
    means = [
        float(monotone_timesteps(64, f, low=0.05, high=0.9, total=1000, generator=generator()).float().mean())
        for f in (0.0, 0.1, 0.4, 0.7, 1.0)
    ]
    assert means == sorted(means, reverse=True) and means[0] > 850 and means[-1] < 80


@given(st.integers(0, 500), st.integers(1, 4))
def test_stratified_views_oppose_each_other_and_stay_in_range(step: int, count: int) -> None:
    e, a = stratified_views(
        count, step, elevation=ELEVATION, spread=1.0, reference_elevation=0.0, generator=generator(step)
    )
    assert float(e.min()) >= ELEVATION[0] - 1e-6 and float(e.max()) <= ELEVATION[1] + 1e-6
    gaps = torch.remainder(a[1:] - a[:-1], 2 * math.pi)
    assert torch.allclose(gaps, torch.full_like(gaps, 2 * math.pi / count), atol=1e-4)


def test_stratified_views_cover_the_circle_better_than_independent_ones() -> None:
    def largest_gap(azimuths: list[float]) -> float:
        a = torch.tensor(azimuths).remainder(2 * math.pi).sort().values
        return float(torch.cat([a, a[:1] + 2 * math.pi]).diff().max())

    options = {"elevation": ELEVATION, "spread": 1.0, "reference_elevation": 0.0}
    even = [float(stratified_views(1, s, **options, generator=generator(s))[1]) for s in range(24)]
    loose = [float(random_views(1, **options, generator=generator(s))[1]) for s in range(24)]
    assert largest_gap(even) < math.radians(40) < largest_gap(loose)


def test_progressive_views_start_at_the_reference() -> None:
    for sample in (random_views, lambda n, **k: stratified_views(n, 7, **k)):
        e, a = sample(8, elevation=ELEVATION, spread=0.0, reference_elevation=0.2, generator=generator())
        assert torch.allclose(e, torch.full_like(e, 0.2), atol=1e-6) and torch.allclose(a, torch.zeros_like(a))
    assert [progressive_spread(f, 0.5) for f in (0.0, 0.25, 0.5, 1.0)] == [0.0, 0.5, 1.0, 1.0]
    assert progressive_spread(0.0, 0.0) == 1.0
