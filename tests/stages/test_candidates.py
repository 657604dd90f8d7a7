"""From words to a reference picture, with a tiny model of the real class."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from dreamcraft3d.cli import app
from dreamcraft3d.config import PictureConfig
from dreamcraft3d.errors import ConfigError
from dreamcraft3d.priors.text_to_picture import draw_pictures, staged
from dreamcraft3d.progress import Progress
from dreamcraft3d.stages.candidates import candidates_for, chosen, picture_score
from dreamcraft3d.workspace import Workspace
from tiny_models import save_stable_diffusion, save_zero123


def drawn(*boxes: tuple[int, int, int, int], ground: int = 255) -> Image.Image:
    picture = Image.new("RGB", (128, 128), (ground,) * 3)
    for box in boxes:
        ImageDraw.Draw(picture).ellipse(box, fill=(180, 30, 30))
    return picture


WHOLE = drawn((30, 20, 98, 108))
TWO = drawn((8, 30, 60, 100), (68, 30, 120, 100))
CUT = drawn((-40, -40, 100, 100))
TINY = drawn((60, 60, 72, 72))


def score(picture: Image.Image) -> float:
    return picture_score(np.asarray(picture))


def test_one_whole_object_on_plain_ground_is_best() -> None:
    assert score(WHOLE) > 0.9
    assert all(score(other) < 0.7 for other in (TWO, CUT, TINY))
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    assert picture_score(noise) == 0.0


def test_pictures_are_drawn_once_and_any_can_be_taken(tmp_path: Path) -> None:
    config, calls = PictureConfig(count=3), []

    def draw(seeds: list[int]) -> Iterator[Image.Image]:
        calls.append(seeds)
        yield from (TWO, WHOLE, CUT)

    with Workspace(tmp_path / "out") as workspace:
        found = candidates_for("a ball", config, 5, workspace, Progress(), draw)
        again = candidates_for("a ball", config, 5, workspace, Progress(), draw)
        assert calls == [[5, 6, 7]]
        assert again == found
        assert (
            candidates_for("a ball", config.model_copy(update={"choice": 2}), 5, workspace, Progress(), draw) == found
        )
        assert chosen(found, None).file.name == "02.png"
        assert chosen(found, 3).seed == 7
        with pytest.raises(ConfigError, match="4"):
            chosen(found, 4)
        assert Image.open(tmp_path / "out" / "candidates.png").size == (3 * 256, 256)
        candidates_for("a cube", config, 5, workspace, Progress(), draw)
        found[0].file.unlink()
        candidates_for("a cube", config, 5, workspace, Progress(), draw)
        assert len(calls) == 3


def test_a_real_pipeline_draws(tmp_path: Path) -> None:
    folder = save_stable_diffusion(tmp_path / "model")
    pictures = list(draw_pictures(folder, "a red bird", seeds=[1, 2, 1], steps=2, cfg_scale=3.0, device="cpu"))
    assert [picture.mode for picture in pictures] == ["RGB"] * 3
    arrays = [np.asarray(picture) for picture in pictures]
    assert np.array_equal(arrays[0], arrays[2])
    assert not np.array_equal(arrays[0], arrays[1])
    assert staged("a red bird.").startswith("a red bird, one whole object")


def test_the_command_draws_and_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = save_stable_diffusion(tmp_path / "model")
    words = ["generate", "--prompt", "A red bird", "--pictures-only", "--json"]
    settings = ["--set", f"picture.model={folder}", "--set", "picture.count=2", "--set", "picture.steps=1"]
    result = CliRunner().invoke(app, [*words, *settings, "--choose", "2"])
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout.splitlines()[-1])
    assert Path(answer["picture"]).resolve() == (tmp_path / "out" / "a-red-bird" / "candidates" / "02.png").resolve()
    assert (tmp_path / "out" / "a-red-bird" / "candidates.png").is_file()


def test_the_command_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DREAMCRAFT3D_MODELS", str(tmp_path / "none"))
    nothing = CliRunner().invoke(app, ["generate"])
    assert nothing.exit_code == 2
    assert "--prompt" in nothing.output
    absent = CliRunner().invoke(app, ["generate", "--prompt", "a bird"])
    assert absent.exit_code == 2
    assert "models download stable-diffusion-xl" in absent.output.replace("\n", " ")
    other = save_zero123(tmp_path / "zero")
    wrong = CliRunner().invoke(app, ["generate", "--prompt", "a bird", "--set", f"picture.model={other}"])
    assert wrong.exit_code == 2
    assert torch.is_grad_enabled()
