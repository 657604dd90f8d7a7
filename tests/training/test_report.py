"""Figures of priors with known answers: an exact one scores high, the baselines do not depend on the prior."""

import torch

from dreamcraft3d.functional.cameras import orbit
from dreamcraft3d.priors.oracle import OraclePrior
from dreamcraft3d.training.render import render_rgba
from dreamcraft3d.training.report import held_out_figures
from dreamcraft3d.training.shapes import make_object

SEED = 7


def test_an_exact_prior_is_told_from_the_baselines() -> None:
    solid = make_object(SEED).solid

    def true_view(elevation: torch.Tensor, azimuth: torch.Tensor, _content: str, size: int) -> torch.Tensor:
        return render_rgba(solid, orbit(elevation, azimuth), size=size, supersampling=3)

    figures = held_out_figures(OraclePrior(true_view, image_size=64), [SEED], views=3, steps=2)
    assert "lifted" not in figures, "only the bundled prior lifts"
    assert figures["sampled"].iou > 0.97
    assert figures["sampled"].psnr > 35.0
    assert figures["one step"].psnr > 35.0
    assert figures["another object"].iou < figures["reference again"].iou < 0.97
