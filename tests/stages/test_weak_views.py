"""Weak reference views: drawn as the prior sees them, shown in turn, and enough to find an object by themselves."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dreamcraft3d.config import WeakViewsConfig
from dreamcraft3d.evaluation import plan
from dreamcraft3d.evaluation.metrics import silhouette_iou
from dreamcraft3d.evaluation.render import render_textured
from dreamcraft3d.functional.cameras import orbit
from dreamcraft3d.rendering import render_density
from dreamcraft3d.stages.coarse_nerf import train_coarse_nerf
from dreamcraft3d.stages.weak_views import WeakViews, draw_weak_views
from tiny import lopsided_textured, tiny_config, tiny_run, tiny_supervision

ONLY_WEAK = {
    "coarse_nerf.weak_views.count": 6,
    "coarse_nerf.weak_views.steps": 2,
    "coarse_nerf.weak_views.every": 1,
    "coarse_nerf.weak_views.weight": 0.5,
}


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_an_exact_prior_draws_the_true_views() -> None:
    supervision = tiny_supervision()
    assert supervision.view_prior is not None
    config = WeakViewsConfig(count=3, elevation=20.0, steps=2)
    drawn = draw_weak_views(
        supervision.view_prior, supervision.picture, supervision.camera, config, cfg_scale=1.0, generator=generator()
    )
    assert torch.allclose(drawn.cameras.azimuth, torch.tensor([0.5, 1.0, 1.5]) * math.pi)
    assert torch.allclose(drawn.cameras.elevation, torch.full((3,), math.radians(20.0)))
    truth = render_textured(lopsided_textured(), drawn.cameras, 32).rgba
    assert (drawn.rgba - truth).abs().mean() < 0.01


@given(count=st.integers(1, 16), batch=st.integers(1, 16))
def test_all_come_round_and_none_is_shown_twice_at_once(count: int, batch: int) -> None:
    views = WeakViews(torch.zeros(count, 1, 1, 4), orbit(0.0, torch.zeros(count)))
    looks = [views.turn(index, batch).tolist() for index in range(count)]
    assert {view for look in looks for view in look} == set(range(count))
    assert all(len(set(look)) == len(look) == min(count, batch) for look in looks)


def test_none_are_drawn_where_none_are_wanted_or_nobody_can() -> None:
    supervision, config = tiny_supervision(), tiny_config(ONLY_WEAK).coarse_nerf
    assert supervision.with_weak_views(tiny_config().coarse_nerf, generator()) is supervision
    blind = replace(supervision, view_prior=None)
    assert blind.with_weak_views(config, generator()) is blind
    unasked = tiny_config({**ONLY_WEAK, "coarse_nerf.guidance.view_weight": 0.0}).coarse_nerf
    assert supervision.with_weak_views(unasked, generator()) is supervision
    assert len(supervision.with_weak_views(config, generator()).weak or ()) == 6


def test_they_find_the_object_without_further_questions() -> None:
    supervision, config = tiny_supervision(), tiny_config(ONLY_WEAK).coarse_nerf
    nerf = train_coarse_nerf(supervision, config, tiny_run("coarse_nerf"))
    assert supervision.view_prior is not None
    assert supervision.view_prior.evaluations == 6 * 2
    cameras = orbit(torch.tensor([0.2] * 4), torch.arange(4) * math.pi / 2 + 0.4)
    truth = render_textured(lopsided_textured(), cameras, 48).rgba[..., 3]
    with torch.no_grad():
        seen = render_density(nerf.field, nerf.grid, cameras, 48, step_size=0.03).opacity
    assert float(silhouette_iou(seen, truth).mean()) > 0.6


@pytest.mark.parametrize("weight", [0.2, ((0.0, 0.3), (0.5, 0.0))])
def test_the_plan_counts_what_a_run_asks(weight: object) -> None:
    settings = {**ONLY_WEAK, "coarse_nerf.weak_views.every": 3, "coarse_nerf.weak_views.weight": weight}
    config = tiny_config({**settings, "coarse_nerf.steps": 26, "coarse_nerf.guidance.view_cfg": 1.0})
    supervision, run = tiny_supervision(), tiny_run("coarse_nerf")
    train_coarse_nerf(supervision, config.coarse_nerf, run)
    assert supervision.view_prior is not None
    assert plan._evaluations(config, "coarse_nerf") == supervision.view_prior.evaluations
