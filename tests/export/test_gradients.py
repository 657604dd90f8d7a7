"""Blending in the gradient domain, on chains of samples whose answers are known."""

import numpy as np
import pytest

from dreamcraft3d.export.gradients import Blend, blended_correction

COUNT, BORDER, REACH = 400, 100, 20.0
CHAIN = np.stack([np.arange(COUNT - 1), np.arange(1, COUNT)], axis=1)


def blend(field: np.ndarray, image: np.ndarray, reliable: np.ndarray | None = None) -> Blend:
    known = (np.arange(COUNT) < BORDER).astype(np.float32)
    field, image = (np.repeat(line[:, None], 3, axis=1).astype(np.float32) for line in (field, image))
    return Blend(field, image - field, known, np.ones(COUNT, dtype=bool) if reliable is None else reliable)


def test_the_known_part_is_the_image_and_the_change_dies_away_beyond() -> None:
    rng = np.random.default_rng(0)
    field = rng.uniform(0.3, 0.5, COUNT)
    image = field + 0.2
    change = blended_correction(blend(field, image), CHAIN, reach=REACH)
    assert np.allclose(change[:BORDER], 0.2, atol=1e-6)
    steps = np.arange(1, 60)
    assert np.allclose(change[BORDER - 1 + steps, 0], 0.2 * np.exp(-steps / REACH), atol=3e-3)
    assert np.abs(change[-50:]).max() < 1e-3


def test_there_is_no_step_at_the_border() -> None:
    field, image = np.full(COUNT, 0.3), np.full(COUNT, 0.8)
    result = field + blended_correction(blend(field, image), CHAIN, reach=REACH)[:, 0]
    assert np.abs(np.diff(result)).max() < 1.5 * 0.5 / REACH


def test_a_seam_of_the_field_survives_only_where_the_field_is_reliable() -> None:
    image = np.full(COUNT, 0.8)
    field = np.where(np.arange(COUNT) < BORDER + 10, 0.8, 0.4)
    unclear = (np.arange(COUNT) >= BORDER) & (np.arange(COUNT) < BORDER + 40)
    kept = field + blended_correction(blend(field, image), CHAIN, reach=REACH)[:, 0]
    closed = field + blended_correction(blend(field, image, ~unclear), CHAIN, reach=REACH)[:, 0]
    assert np.abs(np.diff(kept)).max() > 0.3
    assert np.abs(np.diff(closed)).max() < 0.02
    assert closed[-1] == pytest.approx(0.4, abs=2e-3)


def test_half_known_samples_follow_the_gradients_of_the_image() -> None:
    x = np.arange(COUNT)
    weight = np.clip((BORDER + 60 - x) / 60.0, 0.0, 1.0).astype(np.float32)
    image, field = 0.5 + 0.2 * np.sin(0.5 * x), np.full(COUNT, 0.5)
    both = blend(field, image)
    result = (
        field + blended_correction(Blend(both.field, both.difference, weight, both.reliable), CHAIN, reach=200)[:, 0]
    )
    trusted = (weight > 0.9) & (weight < 1.0)
    assert np.abs(result - image)[trusted].max() < 0.05
    assert np.ptp(result[BORDER + 70 :]) < 0.1


def test_without_an_image_nothing_changes_and_with_all_of_it_everything_does() -> None:
    field, image = np.full(COUNT, 0.3), np.full(COUNT, 0.8)
    both = blend(field, image)
    nothing = Blend(both.field, both.difference, np.zeros(COUNT, dtype=np.float32), both.reliable)
    assert (blended_correction(nothing, CHAIN, reach=REACH) == 0.0).all()
    everything = Blend(both.field, both.difference, np.ones(COUNT, dtype=np.float32), both.reliable)
    assert np.allclose(blended_correction(everything, CHAIN, reach=REACH), 0.5)
