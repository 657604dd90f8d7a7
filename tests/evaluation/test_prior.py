"""What a prior is worth: overall, per class, its guesses of cameras, and its worst objects."""

import json
import math
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dreamcraft3d.cli import app
from dreamcraft3d.evaluation.prior import Verdict, camera_error, judge, verdict_table
from dreamcraft3d.priors.bundled import BundledPrior
from dreamcraft3d.training.objects import ObjectPack
from dreamcraft3d.training.report import HeldOut, Score, object_figures, procedural_objects, real_objects
from dreamcraft3d.training.train import write_weights
from packs import write_pack
from tiny_models import tiny_network


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> list[HeldOut]:
    pack = ObjectPack(write_pack(tmp_path_factory.mktemp("pack") / "objects.zip"))
    return [*procedural_objects([7], views=4), *real_objects(pack, views=4)]


@pytest.fixture(scope="module")
def verdict(things: list[HeldOut]) -> Verdict:
    return judge(BundledPrior(tiny_network()), things, steps=1)


def made_up(things: list[HeldOut], *scores: float) -> Verdict:
    return Verdict(things, [{"sampled": Score(10.0 * iou, iou)} for iou in scores])


def test_objects_are_judged_one_by_one(verdict: Verdict, things: list[HeldOut]) -> None:
    assert verdict.scores == object_figures(BundledPrior(tiny_network()), things, steps=1)
    means = verdict.figures["sampled"]
    assert means.iou == pytest.approx(sum(scores["sampled"].iou for scores in verdict.scores) / 3)


def test_classes_are_means_of_their_own(things: list[HeldOut]) -> None:
    same = [HeldOut("a", "chair", things[0].batch), HeldOut("b", "tree", things[0].batch)]
    found = made_up([*same, HeldOut("c", "tree", things[0].batch)], 0.9, 0.4, 0.6).classes
    assert list(found) == ["tree", "chair"], "large ones first"
    assert found["tree"][0] == 2
    assert found["tree"][1]["sampled"] == Score(pytest.approx(5.0), pytest.approx(0.5))
    assert found["chair"] == (1, {"sampled": Score(9.0, 0.9)})


def test_the_worst_come_first(things: list[HeldOut]) -> None:
    found = made_up(things, 0.8, 0.3, 0.5).worst(2)
    assert [(thing.name, score.iou) for thing, score in found] == [(things[1].name, 0.3), (things[2].name, 0.5)]


def test_an_untrained_guess_of_the_camera_is_the_plain_one(verdict: Verdict, things: list[HeldOut]) -> None:
    """Level, 20 degrees wide: wrong by the picture's own elevation, right in the lens of figures."""
    elevations = sorted(math.degrees(abs(float(thing.batch.camera[0, 0]))) for thing in things)
    assert verdict.camera is not None
    assert verdict.camera.elevation == pytest.approx(elevations[1], abs=1e-3)
    assert verdict.camera.fovy == pytest.approx(1.0, abs=1e-3)
    wide = procedural_objects(range(3), wide=True, views=1)
    ratios = sorted(max(float(t.batch.camera[0, 1]) / math.radians(20), math.radians(20) / float(t.batch.camera[0, 1]))
                    for t in wide)  # fmt: skip
    assert camera_error(BundledPrior(tiny_network()), wide).fovy == pytest.approx(ratios[1], rel=1e-3)


def test_the_table_tells_it_all(verdict: Verdict) -> None:
    text = "\n".join(verdict_table("real", verdict))
    for words in ("real, 3 objects", "sampled", "another object", "plant", "furniture/home", "guessed camera", "worst"):
        assert words in text, words
    assert f"{verdict.figures['sampled'].psnr:.2f}" in text


def call(*words: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", "prior", *(str(word) for word in words)])


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    write_weights(tiny_network(), path)
    return path


def test_the_command_judges_both_kinds_and_draws_sheets(weights: Path, tmp_path: Path) -> None:
    pack, sheet, worst = write_pack(tmp_path / "objects.zip"), tmp_path / "sheet.png", tmp_path / "worst.png"
    options = ["--objects", 1, "--pack", pack, "--sheet", sheet, "--worst", worst, "--wide"]
    result = call("--weights", weights, "--steps", 1, *options, "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout.splitlines()[-1])
    assert answer["ok"] and answer["wide"]
    assert (answer["procedural"]["objects"], answer["real"]["objects"]) == (1, 2)
    assert answer["real"]["classes"].keys() == {"plant", "furniture/home"}
    assert answer["real"]["figures"]["sampled"].keys() == {"psnr", "iou"}
    assert answer["real"]["camera"].keys() == {"elevation", "fovy"}
    assert {each["name"] for each in answer["real"]["worst"]} == {"test/leaf", "test/stool"}
    assert sheet.stat().st_size > 0 and worst.stat().st_size > 0


def test_the_command_prints_a_table(weights: Path) -> None:
    result = call("--weights", weights, "--steps", 1, "--objects", 1)
    assert result.exit_code == 0, result.output
    assert "procedural, 1 objects" in result.stdout
    assert "reference again" in result.stdout
    assert "real" not in result.stdout


def test_mistakes_are_named(weights: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.zip"
    text.write_text("not a zip")
    for options, words in (
        (["--weights", tmp_path / "none.safetensors"], "no file"),
        (["--pack", tmp_path / "none.zip"], "no file"),
        (["--objects", 0, "--pack", text], "no pack of training objects"),
        (["--objects", 0], "nothing to judge by"),
        (["--objects", 0, "--pack", write_pack(tmp_path / "empty.zip", index=[])], "held out"),
    ):
        result = call("--steps", 1, *options)
        assert result.exit_code == 2, options
        assert words in result.stderr, options
