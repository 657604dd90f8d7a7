"""Figures of priors with known answers: an exact one scores high, the baselines do not depend on the prior."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dreamcraft3d.functional.cameras import orbit
from dreamcraft3d.priors.bundled import BundledPrior
from dreamcraft3d.priors.oracle import OraclePrior
from dreamcraft3d.training.drawing import LIT
from dreamcraft3d.training.objects import ObjectPack
from dreamcraft3d.training.render import render_surface
from dreamcraft3d.training.report import (
    HeldOut,
    Score,
    condition_of,
    held_out_figures,
    lifted_scores,
    mean_scores,
    object_figures,
    procedural_objects,
    real_objects,
    sample_sheet,
)
from dreamcraft3d.training.shapes import make_object
from dreamcraft3d.training.surfaces import surface_of
from packs import write_pack
from tiny_models import tiny_network

SEED = 11


@pytest.fixture(scope="module")
def two() -> list[HeldOut]:
    return procedural_objects([SEED, 46], views=3)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> ObjectPack:
    return ObjectPack(write_pack(tmp_path_factory.mktemp("pack") / "objects.zip"))


def exact_prior() -> OraclePrior:
    surface = surface_of(make_object(SEED).solid)

    def true_view(elevation: torch.Tensor, azimuth: torch.Tensor, _content: str, size: int) -> torch.Tensor:
        return render_surface(surface, orbit(elevation, azimuth), LIT, size=size, supersampling=3).rgba

    return OraclePrior(true_view, image_size=64)


def test_an_exact_prior_is_told_from_the_baselines(two: list[HeldOut]) -> None:
    first, second = object_figures(exact_prior(), two, views=3, steps=2)
    assert "lifted" not in first, "only the bundled prior lifts"
    assert first["sampled"].iou > 0.97
    assert first["sampled"].psnr > 35.0
    assert first["one step"].psnr > 35.0
    assert first["another object"].iou < first["reference again"].iou < 0.97
    assert second["sampled"].iou < 0.9, "its answer is that of the first object"


def test_baselines_do_not_depend_on_the_prior(two: list[HeldOut]) -> None:
    exact, tiny = (
        held_out_figures(prior, two, views=3, steps=1) for prior in (exact_prior(), BundledPrior(tiny_network()))
    )
    for name in ("reference again", "another object"):
        assert exact[name] == tiny[name]
    assert list(tiny) == ["sampled", "one step", "lifted", "reference again", "another object"]


def test_procedural_objects_are_named_and_plain(two: list[HeldOut]) -> None:
    for thing, seed in zip(two, (SEED, 46), strict=True):
        assert thing.kind == make_object(seed).solid.kind
        assert thing.name == f"{thing.kind}-{seed}"
        assert thing.batch.target.shape == (1, 3, 4, 64, 64)
        assert thing.batch.pose[0, :, 2].rad2deg().tolist() == pytest.approx([20.0] * 3, abs=1e-4)
    with pytest.raises(ValueError, match="training set"):
        procedural_objects([1000])


def test_real_objects_are_the_held_out_ones(pack: ObjectPack) -> None:
    plain = real_objects(pack, views=2)
    assert [(thing.name, thing.kind) for thing in plain] == [("test/leaf", "plant"), ("test/stool", "furniture/home")]
    assert [thing.name for thing in real_objects(pack, limit=1, views=1)] == ["test/leaf"]
    assert [thing.batch.pose.shape for thing in plain] == [(1, 2, 3)] * 2
    again = real_objects(pack, views=2)
    for first, second in zip(plain, again, strict=True):
        assert torch.equal(first.batch.target, second.batch.target)


def test_the_wide_world_has_other_lenses(pack: ObjectPack) -> None:
    things = [*real_objects(pack, wide=True, views=1), *procedural_objects(range(4), wide=True, views=1)]
    lenses = torch.stack([thing.batch.camera[0, 1] for thing in things]).rad2deg()
    assert float(lenses.min()) >= 10.0 and float(lenses.max()) <= 50.0
    assert int((lenses - 20.0).abs().gt(0.5).sum()) >= 1
    for thing in things:
        condition = condition_of(thing.batch)
        assert condition.reference_fovy == pytest.approx(float(thing.batch.camera[0, 1]))
        assert condition.fovy == pytest.approx(float(thing.batch.pose[0, 0, 2]))


def test_the_lifted_view_alone_is_scored_per_object(two: list[HeldOut]) -> None:
    prior = BundledPrior(tiny_network())
    alone = lifted_scores(prior, two)
    beside = [scores["lifted"] for scores in object_figures(prior, two, views=3, steps=1)]
    assert len(alone) == 2
    for first, second in zip(alone, beside, strict=True):
        assert (first.psnr, first.iou) == pytest.approx((second.psnr, second.iou))
    assert prior.evaluations == 2 * 3 * 2, "and asks no denoiser"


def test_means_are_means() -> None:
    rows = [{"a": Score(10.0, 0.5)}, {"a": Score(20.0, 1.0)}]
    assert mean_scores(rows) == {"a": Score(15.0, 0.75)}
    assert mean_scores([]) == {}


@pytest.mark.parametrize(("count", "columns", "lines"), [(1, 1, 1), (2, 2, 1), (5, 4, 2)])
def test_a_sheet_of_any_number_of_objects(
    two: list[HeldOut], tmp_path: Path, count: int, columns: int, lines: int
) -> None:
    """Each object has three pictures beside each other, and truth, sample and lifted view below each other."""
    things = [two[k % 2] for k in range(count)]
    sample_sheet(BundledPrior(tiny_network()), tmp_path / "sheet.png", things, steps=1)
    picture = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert picture.shape == (lines * 3 * 64, columns * 3 * 64, 3)
    truth = two[0].batch.target[0, 0]
    shown = torch.from_numpy(picture[:64, 64:128].copy()).permute(2, 0, 1) / 255.0
    assert torch.allclose(shown, truth[:3] + 1.0 - truth[3:], atol=0.005)
    assert math.isclose(float(picture[-1, -1].mean()), 255.0) or count % 4 == 0 or lines == 1
