"""Whole runs on the card: from a picture, against the exact prior, with the public families in small, and refining.

What comes out is like what the CPU makes, not the same to the last bit: atomic additions have no order on a card.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import soups
from dreamcraft3d import export
from dreamcraft3d.config import GUIDED_STAGES, GenerateConfig
from dreamcraft3d.errors import Cancelled
from dreamcraft3d.evaluation.meshes import load_mesh
from dreamcraft3d.evaluation.oracle import evaluate_oracle
from dreamcraft3d.evaluation.refining import evaluate_refine
from dreamcraft3d.kernels import dispatch
from dreamcraft3d.pipeline import generate, load_priors
from dreamcraft3d.presets import configure
from dreamcraft3d.priors.residency import Shelf
from dreamcraft3d.progress import Event, Note, Progress, StepDone, Warned
from dreamcraft3d.refining.tiles import decode
from dreamcraft3d.workspace import Workspace
from tiny import LEARNING, SETTINGS, lopsided_textured, tiny_config
from tiny_models import save_deepfloyd, save_stable_diffusion, save_zero123

pytestmark = pytest.mark.slow


def glb_header(path: Path) -> dict[str, Any]:
    """The JSON part of a GLB."""
    data = path.read_bytes()
    assert data[:4] == b"glTF"
    header: dict[str, Any] = json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])
    return header


def structure(value: Any) -> Any:
    """JSON without its numbers: which members there are, and how they are nested."""
    if isinstance(value, dict):
        return {key: structure(member) for key, member in value.items()}
    return [structure(member) for member in value] if isinstance(value, list) else type(value).__name__


def stopping_at(stage: str, step: int) -> Progress:
    """Cancels the run at this step."""

    def cancel(event: Event) -> None:
        if isinstance(event, StepDone) and event.stage == stage and event.step == step:
            progress.cancel()

    progress = Progress((cancel,))
    return progress


def picture_psnr(a: Path, b: Path) -> float:
    first, second = (np.asarray(Image.open(path).convert("RGB"), dtype=float) / 255 for path in (a, b))
    return float(-10 * np.log10(max(np.square(first - second).mean(), 1e-12)))


# --- the bundled prior, and the exact one -------------------------------------------------------------


def test_a_run_on_the_card_is_like_one_on_the_cpu(
    card: torch.device, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices: set[str] = set()
    launch = dispatch.launch

    def watched(kernel: Any, dim: Any, inputs: list[Any]) -> None:
        devices.add("cuda" if inputs[0].device.is_cuda else "cpu")
        launch(kernel, dim, inputs)

    with monkeypatch.context() as watching:
        watching.setattr(dispatch, "launch", watched)  # by the kernels of the fields and of volume rendering
        generate(picture, tiny_config(), Workspace(tmp_path / "card"), Progress())
    assert devices == {card.type}, "everything but the export works on the card"
    generate(picture, tiny_config({"device": "cpu"}), Workspace(tmp_path / "cpu"), Progress())
    there, here = (tmp_path / name / "result.glb" for name in ("card", "cpu"))
    assert structure(glb_header(there)) == structure(glb_header(here))
    ours, theirs = load_mesh(there), load_mesh(here)
    assert ours.texture is not None and ours.uvs is not None and theirs.texture is not None
    assert ours.texture.shape == theirs.texture.shape
    assert float(ours.uvs.min()) >= 0.0 and float(ours.uvs.max()) <= 1.0
    for end in (torch.amin, torch.amax):
        assert torch.allclose(end(ours.vertices, 0), end(theirs.vertices, 0), atol=0.15)
    reports = [json.loads((tmp_path / name / "report.json").read_text()) for name in ("card", "cpu")]
    assert reports[0]["stages"].keys() == reports[1]["stages"].keys()
    assert reports[0]["prior_evaluations"] == reports[1]["prior_evaluations"]
    assert reports[0]["metrics"]["reference_psnr"] > reports[1]["metrics"]["reference_psnr"] - 3.0


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("truth") / "lopsided.glb"
    path.write_bytes(export.write_glb(lopsided_textured()))
    return path


@pytest.fixture(scope="module")
def finished(truth: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run against the exact prior that nobody disturbed."""
    out = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(dispatch, "may_accelerate", lambda device: False)
        evaluate_oracle(truth, out, tiny_config(), Progress())
    return out


def test_the_object_is_found(finished: Path) -> None:
    report = json.loads((finished / "report.json").read_text())
    assert report["scores"]["unseen_iou"] > 0.85
    assert report["scores"]["f_score"] > 0.7
    assert report["metrics"]["reference_psnr"] > 20.0


def test_cancelled_in_every_stage_and_resumed_the_result_is_alike(truth: Path, finished: Path, tmp_path: Path) -> None:
    for stage in GUIDED_STAGES:
        with pytest.raises(Cancelled):
            evaluate_oracle(truth, tmp_path, tiny_config(), stopping_at(stage, 7))
    notes: list[str] = []
    progress = Progress((lambda event: notes.append(event.text) if isinstance(event, Note) else None,))
    report = evaluate_oracle(truth, tmp_path, tiny_config(), progress)
    assert any("going on from step 7" in note for note in notes)
    assert report["scores"]["unseen_iou"] > 0.85
    assert picture_psnr(tmp_path / "turntable.png", finished / "turntable.png") >= 22.0


def test_memory_that_runs_out_makes_the_run_step_down(
    card: torch.device, truth: Path, tmp_path: Path, clean_memory: None
) -> None:
    """For one step of the geometry stage the card has no memory left: the allocator's own error, not one of ours."""
    if card.type != "cuda":
        pytest.skip("only a card's allocator can be held back")
    warnings: list[str] = []

    def squeeze(event: Event) -> None:
        if isinstance(event, StepDone) and event.stage == "geometry" and event.step == 5 and not warnings:
            torch.cuda.empty_cache()
            torch.cuda.set_per_process_memory_fraction(1e-4)
        if isinstance(event, Warned):
            torch.cuda.set_per_process_memory_fraction(1.0)
            warnings.append(event.text)

    # Larger renders than the test's own: what one step needs must not fit into the blocks that are in use.
    config = tiny_config({"geometry.render_size": 512})
    report = evaluate_oracle(truth, tmp_path, config, Progress((squeeze,)))
    assert any("memory ran out" in text for text in warnings)
    assert report["stages"]["geometry"]["stepped_down"]
    assert report["scores"]["unseen_iou"] > 0.8


# --- the public families ------------------------------------------------------------------------------

BRIEF: dict[str, Any] = {
    "coarse_nerf.steps": 40,
    "neus.steps": 8,
    "geometry.steps": 6,
    "texture.steps": 6,
    **LEARNING,
    "texture.guidance.form": "sds",
    "texture.guidance.view_weight": 0.0,
    "texture.guidance.image_weight": 0.001,
    **{f"{stage}.guidance.view_weight": 0.001 for stage in GUIDED_STAGES[:3]},
    **{f"{stage}.guidance.image_weight": 0.001 for stage in GUIDED_STAGES[:3]},
    "prompt": "a red box",
}


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> GenerateConfig:
    """A configuration whose priors are folders with tiny networks of all three families."""
    folder = tmp_path_factory.mktemp("public")
    names = {
        "priors.view": str(save_zero123(folder / "zero")),
        "priors.image": str(save_deepfloyd(folder / "floyd")),
        "priors.texture": str(save_stable_diffusion(folder / "diffusion")),
    }
    return tiny_config({**BRIEF, **names})


@dataclass
class Watch:
    """Looks at the priors after each step.

    Attributes:
        places: per stage and prior, the devices of its U-Net. kinds: types of the U-Nets' own weights.
        adapters: types and devices of the adapters' weights in the texture stage.
    """

    shelf: Shelf
    places: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    kinds: set[torch.dtype] = field(default_factory=set)
    adapters: set[tuple[torch.dtype, str]] = field(default_factory=set)

    def __call__(self, event: Event) -> None:
        if not isinstance(event, StepDone) or event.stage not in GUIDED_STAGES:
            return
        for prior in self.shelf.all():
            unet: Any = getattr(prior, "unet")  # noqa: B009 - protocols of priors say nothing of networks
            for name, parameter in unet.named_parameters():
                if "lora_" in name:
                    self.adapters.add((parameter.dtype, parameter.device.type))
                    continue
                self.kinds.add(parameter.dtype)
                self.places.setdefault((event.stage, prior.name), set()).add(parameter.device.type)


def test_public_families_take_turns_on_the_card(
    card: torch.device, public: GenerateConfig, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DREAMCRAFT3D_MODELS", str(tmp_path / "home"))
    watch = Watch(load_priors(public))
    result = generate(picture, public, Workspace(tmp_path / "out"), Progress((watch,)), shelf=watch.shelf)
    assert result.glb.stat().st_size > 1000
    assert len(watch.places) > len(GUIDED_STAGES)
    for (stage, name), devices in watch.places.items():
        assert devices == ({card.type} if name in public.priors_of(stage) else {"cpu"}), f"{name} in {stage}"
    assert watch.kinds == {torch.bfloat16 if card.type == "cuda" else torch.float32}
    assert watch.adapters == {(torch.float32, card.type)}
    stages = result.report["stages"]
    assert stages["neus"]["prior_evaluations"] == 4 * public.neus.guidance.batch * (1 + 4)
    assert stages["texture"]["prior_evaluations"] > 0
    left = [name for prior in watch.shelf.all() for name, _ in getattr(prior, "unet").named_parameters()]  # noqa: B009
    assert not [name for name in left if "lora_" in name], "the adapters are taken off in the end"


def test_a_run_that_was_cancelled_while_its_prior_learnt_goes_on(
    public: GenerateConfig, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adapters and their optimisers come back from the checkpoint, into a prior that was loaded anew."""
    monkeypatch.setenv("DREAMCRAFT3D_MODELS", str(tmp_path / "home"))
    with pytest.raises(Cancelled):
        generate(picture, public, Workspace(tmp_path / "out"), stopping_at("texture", 5))
    notes: list[str] = []
    progress = Progress((lambda event: notes.append(event.text) if isinstance(event, Note) else None,))
    result = generate(picture, public, Workspace(tmp_path / "out"), progress)
    assert any("texture: going on from step 5" in note for note in notes)
    assert result.glb.stat().st_size > 1000


def test_priors_that_save_memory_work_on_the_card(
    public: GenerateConfig, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpointing, one condition at a time, and only the network that works on the card."""
    monkeypatch.setenv("DREAMCRAFT3D_MODELS", str(tmp_path / "home"))
    priors = public.priors.model_copy(update={"offload": True})
    config = public.model_copy(update={"priors": priors})
    assert generate(picture, config, Workspace(tmp_path / "out"), Progress()).glb.stat().st_size > 1000


# --- refining -----------------------------------------------------------------------------------------


def refined(folder: Path, **settings: Any) -> tuple[np.ndarray, float]:
    """The image of a sphere after a few steps against the exact prior, and how near it came to the truth (dB)."""
    cut = {key: value for key, value in SETTINGS.items() if key.startswith(("texture", "oracle"))}
    config = configure("oracle", {**cut, "reference.size": 64, "texture.fit_steps": 20, **settings})
    mesh = soups.sphere(12, 24)
    truth = soups.request(mesh, {0: soups.painted(mesh, 0, 64, soups.waves)})
    result, (score,) = evaluate_refine(truth, config, Workspace(folder), Progress())
    assert score.changed == 0
    return np.asarray(decode(result.images[0].path.read_bytes()).pixels, dtype=float) / 255, score.psnr


def test_a_refinement_on_the_card_is_like_one_on_the_cpu(tmp_path: Path) -> None:
    (there, ours), (here, theirs) = refined(tmp_path / "card"), refined(tmp_path / "cpu", device="cpu")
    assert ours > theirs - 1.0
    assert there.shape == here.shape
    assert float(np.square(there - here).mean()) < 10.0**-2.5, "25 dB"
