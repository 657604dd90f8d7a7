"""Perp-Neg's table (method section 6.2), and what makes it Perp-Neg: only the perpendicular part counts."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dreamcraft3d.functional.diffusion import classifier_free_guidance
from dreamcraft3d.functional.perp_neg import (
    DIRECTIONS,
    blend_directions,
    direction_of,
    perp_neg_guidance,
    perpendicular,
)

ANGLES = st.floats(-720.0, 720.0)


def radians(*degrees: float) -> torch.Tensor:
    return torch.tensor(degrees).deg2rad()


@pytest.mark.parametrize(
    ("azimuth", "positive", "negatives", "weights"),
    [
        (0.0, {"front": 1.0}, ("front", "side"), (0.0, -1.574)),
        (45.0, {"front": 0.5, "side": 0.5}, ("front", "side"), (-0.689, -0.689)),
        (89.99, {"side": 1.0}, ("front", "side"), (-1.574, 0.0)),
        (90.01, {"side": 1.0}, ("side", "front"), (0.0, -1.574)),
        (135.0, {"side": 0.5, "back": 0.5}, ("side", "front"), (-0.173, -1.746)),
        (180.0, {"back": 1.0}, ("side", "front"), (-0.394, -1.967)),
        (-180.0, {"back": 1.0}, ("side", "front"), (-0.394, -1.967)),
    ],
)
def test_the_table(
    azimuth: float, positive: dict[str, float], negatives: tuple[str, str], weights: tuple[float, float]
) -> None:
    blend = blend_directions(radians(0.0), radians(azimuth))
    expected = torch.tensor([[positive.get(name, 0.0) for name in DIRECTIONS]])
    assert torch.allclose(blend.positive, expected, atol=2e-4)
    assert tuple(DIRECTIONS[index] for index in blend.negatives[0]) == negatives
    assert torch.allclose(blend.weights[0], torch.tensor(weights), atol=1e-3)


@given(azimuth=ANGLES, elevation=st.floats(-80.0, 80.0))
def test_shares_sum_to_one_and_negatives_only_push_away(azimuth: float, elevation: float) -> None:
    blend = blend_directions(radians(elevation), radians(azimuth))
    assert float(blend.positive.sum()) == pytest.approx(1.0)
    assert bool((blend.weights <= 0.0).all())
    mirrored = blend_directions(radians(elevation), radians(-azimuth))
    assert torch.allclose(blend.positive, mirrored.positive, atol=1e-3)


def test_seen_from_above_there_is_nothing_to_lead_away_from() -> None:
    blend = blend_directions(radians(70.0), radians(170.0))
    assert DIRECTIONS[int(blend.positive[0].argmax())] == "overhead"
    assert float(blend.weights.abs().max()) == 0.0


def test_later_names_win() -> None:
    elevation, azimuth = radians(0, 0, 0, 0, 61, 0), radians(0, 44, 90, 136, 180, 361)
    names = [DIRECTIONS[index] for index in direction_of(elevation, azimuth)]
    assert names == ["front", "front", "side", "back", "overhead", "front"]
    narrow = direction_of(elevation, azimuth, front=math.radians(30.0), back=math.radians(30.0))
    assert DIRECTIONS[narrow[1]] == "side"
    assert DIRECTIONS[narrow[3]] == "side"


def test_perpendicular_is_orthogonal_picture_by_picture() -> None:
    x, y = torch.randn(2, 3, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    assert torch.allclose((perpendicular(x, y) * y).sum(dim=(1, 2, 3)), torch.zeros(3), atol=1e-4)
    assert torch.allclose(perpendicular(y, y), torch.zeros_like(y), atol=1e-5)


def test_a_negative_along_the_wish_changes_nothing() -> None:
    nothing, wish = torch.randn(2, 1, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    along = nothing + 3.0 * (wish - nothing)
    guided = perp_neg_guidance(nothing, wish, (along,), torch.tensor([[-2.0]]), 7.0)
    assert torch.allclose(guided, classifier_free_guidance(nothing, wish, 7.0), atol=1e-4)
