"""Whole runs on a pretended card (`pretend_card`): no tensor is in a wrong place, and results are those of the CPU."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import soups
from dreamcraft3d import export
from dreamcraft3d.errors import Cancelled
from dreamcraft3d.evaluation.meshes import load_mesh
from dreamcraft3d.evaluation.oracle import evaluate_oracle, reference_of
from dreamcraft3d.evaluation.refining import evaluate_refine
from dreamcraft3d.evaluation.texture_ablation import compare_forms
from dreamcraft3d.pipeline import generate
from dreamcraft3d.presets import configure
from dreamcraft3d.priors.bundled import BundledPrior
from dreamcraft3d.progress import Event, Note, Progress, StepDone
from dreamcraft3d.workspace import Workspace
from pretend_card import pretend_card
from tiny import LEARNING, SETTINGS, lopsided_textured, tiny_config
from tiny_models import save_deepfloyd, save_stable_diffusion, save_zero123

NAME = "Pretend Card"

FEW: dict[str, Any] = {
    "coarse_nerf.steps": 20,
    "neus.steps": 6,
    "neus.fit_steps": 40,
    "geometry.steps": 6,
    "texture.steps": 6,
    "texture.fit_steps": 6,
}
OWN = {key: value for key, value in SETTINGS.items() if not key.startswith("oracle")}


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    path = tmp_path / "lopsided.glb"
    path.write_bytes(export.write_glb(lopsided_textured()))
    return path


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "lopsided.png"
    rgba = reference_of(lopsided_textured(), size=128).rgba
    Image.fromarray((rgba.clamp(0.0, 1.0) * 255.0).to(torch.uint8).numpy()).save(path)
    return path


@pytest.mark.slow
def test_a_run_against_the_exact_prior_begun_on_the_card_and_ended_without(truth: Path, tmp_path: Path) -> None:
    """Cancelled in the geometry stage; what was done on the card is taken over, its checkpoint too."""

    def cancel(event: Event) -> None:
        if isinstance(event, StepDone) and event.stage == "geometry" and event.step == 3:
            progress.cancel()

    progress, heard = Progress((cancel,)), list[Event]()
    with pretend_card(), pytest.raises(Cancelled):
        evaluate_oracle(truth, tmp_path / "both", tiny_config(FEW), progress)
    report = evaluate_oracle(truth, tmp_path / "both", tiny_config(FEW), Progress((heard.append,)))
    plain = evaluate_oracle(truth, tmp_path / "plain", tiny_config(FEW), Progress())
    assert report["device"] == plain["device"] == "cpu"
    notes = [event.text for event in heard if isinstance(event, Note)]
    assert sum("already done" in text for text in notes) == 2
    assert sum("going on from step" in text for text in notes) == 1
    assert report["scores"]["unseen_iou"] == pytest.approx(plain["scores"]["unseen_iou"], abs=0.02)


@pytest.mark.parametrize("start", ["ball", "lifted"])
def test_the_bundled_prior_learns_and_the_report_says_where(picture: Path, tmp_path: Path, start: str) -> None:
    config = configure("preview", {**OWN, **FEW, **LEARNING, "coarse_nerf.start": start})
    with pretend_card():
        result = generate(picture, config, Workspace(tmp_path / "out"), Progress())
    assert result.report["device"] == NAME
    assert ("start" in result.report["stages"]) == (start == "lifted")
    assert all("peak_card_memory_mib" in record for record in result.report["stages"].values())
    assert load_mesh(result.glb).texture is not None
    assert json.loads((tmp_path / "out" / "report.json").read_text())["device"] == NAME


def test_a_refinement(tmp_path: Path) -> None:
    mesh = soups.cube()
    request = soups.request(mesh, {0: soups.painted(mesh, 0, 64, soups.waves)}, strength=0.6)
    texture = {key: value for key, value in SETTINGS.items() if key.startswith(("texture", "oracle"))}
    config = configure("oracle", {**texture, "reference.size": 64, "texture.steps": 6, "texture.fit_steps": 6})
    with pretend_card():
        result, _ = evaluate_refine(request, config, Workspace(tmp_path / "card"), Progress())
    plain, _ = evaluate_refine(request, config, Workspace(tmp_path / "plain"), Progress())
    assert result.images[0].path.read_bytes() == plain.images[0].path.read_bytes()


def test_forms_of_distillation_are_compared() -> None:
    config = tiny_config({"texture.steps": 4, "texture.fit_steps": 4, **LEARNING, "texture.bootstrap.form": "none"})
    forms = {"BSD": {"bootstrap.form": "bsd"}}
    with pretend_card():
        prior = BundledPrior.load(device="cuda")
        rows = list(compare_forms([("lopsided", lopsided_textured(), 0.0)], prior, config, Progress(), forms=forms))
    assert all(row.psnr > 5.0 for row in rows)


@pytest.mark.slow
def test_all_public_families(picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMCRAFT3D_MODELS", str(tmp_path / "home"))
    names = {
        "priors.view": str(save_zero123(tmp_path / "zero")),
        "priors.image": str(save_deepfloyd(tmp_path / "floyd")),
        "priors.texture": str(save_stable_diffusion(tmp_path / "diffusion")),
    }
    weights = {
        f"{stage}.guidance.{kind}_weight": 0.001
        for stage in ("coarse_nerf", "neus", "geometry", "texture")
        for kind in ("view", "image")
    }
    settings = {**FEW, **LEARNING, **names, **weights, "texture.guidance.form": "sds"}
    config = tiny_config(settings).model_copy(update={"prompt": "a red thing"})
    with pretend_card():
        result = generate(picture, config, Workspace(tmp_path / "out"), Progress())
    assert result.report["device"] == NAME
    assert result.report["stages"]["texture"]["prior_evaluations"] > 0
