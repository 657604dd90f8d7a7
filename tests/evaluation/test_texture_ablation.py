"""The comparison of forms compares: all start from the same colours, and the scores see what they claim to see."""

import pytest
import torch

from dreamcraft3d.evaluation.oracle import TrueView
from dreamcraft3d.evaluation.texture_ablation import START, TextureRow, compare_forms, texture_table, unseen_scores
from dreamcraft3d.priors.oracle import OraclePrior
from dreamcraft3d.progress import Progress
from tiny import lopsided_textured, tiny_config


class Painted:
    """The true colours, blurred or disturbed."""

    def __init__(self, noise: float) -> None:
        self.noise = noise

    def at(self, x: torch.Tensor) -> torch.Tensor:
        from shapes import lopsided_colour

        colour = lopsided_colour(x)
        return colour + self.noise * torch.randn(colour.shape, generator=torch.Generator().manual_seed(0))


def test_noise_costs_decibels_and_looks_sharp() -> None:
    truth = lopsided_textured()
    clean, noisy = (unseen_scores(Painted(noise), truth) for noise in (0.0, 0.1))  # type: ignore[arg-type]
    assert clean[0] > noisy[0] + 3.0
    assert noisy[1] > clean[1]
    assert clean[1] == pytest.approx(1.0, abs=0.35)


@pytest.mark.slow
def test_forms_go_on_from_one_start() -> None:
    truth = lopsided_textured()
    prior = OraclePrior(TrueView(truth), image_size=32)
    config = tiny_config({"texture.steps": 30, "texture.fit_steps": 30})
    forms = {"x0": {}, "SDS": {"guidance.form": "sds"}, "nothing": {"guidance.view_weight": 0.0}}
    rows = list(compare_forms([("lopsided", truth, 0.0)], prior, config, Progress(), forms=forms))
    assert [row.form for row in rows] == [START, "x0", "SDS", "nothing"]
    score = {row.form: row.psnr for row in rows}
    assert score["x0"] > score[START]
    assert score["x0"] > score["nothing"]
    assert [row.evaluations for row in rows] == [15 * config.texture.guidance.batch] * 3 + [0]


def test_the_table_has_a_row_for_each_form() -> None:
    rows = [TextureRow("SDS", "a", 10.0, 0.5, 4, 1.0), TextureRow("SDS", "b", 20.0, 1.5, 6, 3.0)]
    assert texture_table(rows).splitlines()[-1] == "| SDS | 15.00 | 1.00 | 5 | 2 | 2 |"
