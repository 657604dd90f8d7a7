"""The whole way against an exact prior: the object is found, the files are sound, and nothing is done twice."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dreamcraft3d import export
from dreamcraft3d.errors import Cancelled
from dreamcraft3d.evaluation.meshes import load_mesh
from dreamcraft3d.evaluation.oracle import evaluate_oracle
from dreamcraft3d.priors.oracle import OraclePrior
from dreamcraft3d.progress import Event, Note, Progress, StageStarted, StepDone, Warned
from patience import RUN_PATIENCE
from tiny import SETTINGS, lopsided_textured, tiny_config

STAGES = ["coarse_nerf", "neus", "geometry", "texture"]
LIFTED = {"coarse_nerf.start": "lifted", "coarse_nerf.lifted.cells": 24}


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("truth") / "lopsided.glb"
    path.write_bytes(export.write_glb(lopsided_textured()))
    return path


@pytest.fixture(scope="module")
def finished(truth: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished")
    evaluate_oracle(truth, out, tiny_config(), Progress())
    return out


def test_the_object_is_found_and_the_report_tells_the_run(finished: Path) -> None:
    report = json.loads((finished / "report.json").read_text())
    assert report["scores"]["unseen_iou"] > 0.85
    assert report["scores"]["f_score"] > 0.7  # cells of 9 cm, hidden gaps of 2
    assert report["metrics"]["reference_psnr"] > 20.0
    assert report["seed"] == 0 and report["priors"] == ["oracle"]
    assert [name for name in report["stages"] if name in STAGES] == STAGES
    for name in STAGES:
        record = report["stages"][name]
        assert record["seconds"] > 0 and record["peak_memory_mib"] > 50
    batch = tiny_config().coarse_nerf.guidance.batch
    assert report["stages"]["coarse_nerf"]["prior_evaluations"] == batch * SETTINGS["coarse_nerf.steps"] // 2
    assert report["stages"]["geometry"]["prior_evaluations"] == 2 * batch * SETTINGS["geometry.steps"]  # and normals
    assert report["prior_evaluations"] == sum(r.get("prior_evaluations", 0) for r in report["stages"].values())


def test_result_and_truth_lie_in_one_frame(finished: Path) -> None:
    result, truth = load_mesh(finished / "result.glb"), load_mesh(finished / "ground_truth.glb")
    for end in (torch.amin, torch.amax):
        assert torch.allclose(end(result.vertices, 0), end(truth.vertices, 0), atol=0.08)
    assert result.texture is not None and result.uvs is not None
    assert float(result.uvs.min()) >= 0.0 and float(result.uvs.max()) <= 1.0
    assert Image.open(finished / "turntable.png").size[0] >= 512


def test_the_same_command_again_does_nothing_twice(truth: Path, finished: Path) -> None:
    before = (finished / "result.glb").read_bytes()
    events: list[Event] = []
    evaluate_oracle(truth, finished, tiny_config(), Progress((events.append,)))
    assert not [event for event in events if isinstance(event, StageStarted)]
    assert sum(isinstance(event, Note) and "already done" in event.text for event in events) == len(STAGES)
    assert (finished / "result.glb").read_bytes() == before


def test_a_lifted_start_needs_no_volume_stages_and_is_resumed_like_a_stage(truth: Path, tmp_path: Path) -> None:
    """Cancelled in the geometry stage: the start is read again, not made again, and the result is the same."""
    config = tiny_config({**LIFTED, "geometry.steps": 20, "texture.steps": 10})
    whole = evaluate_oracle(truth, tmp_path / "whole", config, Progress())
    assert [name for name in whole["stages"] if name in ("start", *STAGES)] == ["start", "geometry", "texture"]
    assert whole["stages"]["start"]["used"] and whole["stages"]["start"]["agreement"] > 0.85
    assert whole["scores"]["unseen_iou"] > 0.9 and whole["scores"]["reference_psnr"] > 20.0

    def cancel(event: Event) -> None:
        if isinstance(event, StepDone) and event.stage == "geometry" and event.step == 7:
            progress.cancel()

    progress, heard = Progress((cancel,)), list[Event]()
    with pytest.raises(Cancelled):
        evaluate_oracle(truth, tmp_path / "cut", config, progress)
    assert (tmp_path / "cut" / "stages" / "start" / "preview.png").is_file()
    evaluate_oracle(truth, tmp_path / "cut", config, Progress((heard.append,)))
    assert any(isinstance(event, Note) and event.text.startswith("start: already done") for event in heard)
    assert (tmp_path / "cut" / "result.glb").read_bytes() == (tmp_path / "whole" / "result.glb").read_bytes()


def test_a_lifted_start_that_disagrees_with_the_picture_is_refused_and_the_report_says_so(
    truth: Path, tmp_path: Path
) -> None:
    few = {"coarse_nerf.steps": 30, "neus.steps": 4, "geometry.steps": 4, "texture.steps": 4}
    config = tiny_config({**LIFTED, **few, "coarse_nerf.lifted.agreement": 1.0})
    heard: list[Event] = []
    report = evaluate_oracle(truth, tmp_path, config, Progress((heard.append,)))
    start = report["stages"]["start"]
    assert not start["used"] and "outline" in start["reason"] and start["agreement"] < 1.0
    assert [name for name in report["stages"] if name in STAGES] == STAGES
    assert any(isinstance(event, Note) and "soft ball" in event.text for event in heard)


@pytest.mark.slow
def test_a_changed_setting_redoes_its_stage_and_those_after_it(truth: Path, finished: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    events: list[Event] = []
    evaluate_oracle(truth, copy, tiny_config({"texture.steps": 4}), Progress((events.append,)))
    assert [event.stage for event in events if isinstance(event, StageStarted)] == ["texture"]


@pytest.mark.slow
def test_the_image_is_projected_anew_without_any_stage(truth: Path, finished: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    events: list[Event] = []
    projected = tiny_config({"projection.enabled": True})
    after = evaluate_oracle(truth, copy, projected, Progress((events.append,)))
    before = json.loads((finished / "report.json").read_text())
    assert not [event for event in events if isinstance(event, StageStarted)]
    assert before["stages"]["export"]["from_image"] == 0.0
    assert after["stages"]["export"]["from_image"] > 0.05
    assert after["scores"]["reference_psnr"] > before["scores"]["reference_psnr"] - 0.2
    assert after["scores"]["unseen_psnr"] > before["scores"]["unseen_psnr"] - 0.5


@pytest.mark.slow
def test_shading_is_taken_out_before_the_texture_stage_and_redoes_it_alone(
    truth: Path, finished: Path, tmp_path: Path
) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    for wanted in (["texture"], []):  # and is remembered
        events: list[Event] = []
        evaluate_oracle(truth, copy, tiny_config({"reference.delight": True}), Progress((events.append,)))
        assert [event.stage for event in events if isinstance(event, StageStarted)] == wanted


@pytest.mark.slow
def test_a_broken_saved_result_is_made_again(truth: Path, finished: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    (copy / "stages" / "texture" / "result.safetensors").write_bytes(b"broken")
    evaluate_oracle(truth, copy, tiny_config(), Progress())
    assert (copy / "result.glb").read_bytes() == (finished / "result.glb").read_bytes()


@pytest.mark.slow
def test_memory_that_runs_out_makes_the_run_step_down(truth: Path, tmp_path: Path, monkeypatch) -> None:
    """A prior on a card that is too small for renders of 64 pixels after some steps of the geometry stage."""
    encode, calls = OraclePrior.encode, []

    def too_much(self: OraclePrior, rgba: torch.Tensor) -> torch.Tensor:
        if rgba.shape[1] >= 64:
            calls.append(rgba.shape[1])
            if len(calls) > 5:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return encode(self, rgba)

    monkeypatch.setattr(OraclePrior, "encode", too_much)
    events: list[Event] = []
    evaluate_oracle(truth, tmp_path, tiny_config({"geometry.render_size": 64}), Progress((events.append,)))
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["stages"]["geometry"]["stepped_down"] == ["renders of half the side"]
    assert not any("stepped_down" in report["stages"][name] for name in STAGES if name != "geometry")
    assert any(isinstance(event, Warned) and "memory ran out" in event.text for event in events)
    assert report["scores"]["unseen_iou"] > 0.8
    assert report["settings"]["geometry"]["render_size"] == 64  # what was asked for


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_cancelled_in_any_stage_and_resumed_the_result_is_the_same(
    truth: Path, finished: Path, tmp_path: Path, stage: str
) -> None:
    def cancel(event: Event) -> None:
        if isinstance(event, StepDone) and event.stage == stage and event.step == 7:
            progress.cancel()

    progress = Progress((cancel,))
    with pytest.raises(Cancelled):
        evaluate_oracle(truth, tmp_path, tiny_config(), progress)
    assert not (tmp_path / "result.glb").exists()
    evaluate_oracle(truth, tmp_path, tiny_config(), Progress())
    assert turntable_psnr(tmp_path, finished) >= 40.0
    assert (tmp_path / "result.glb").read_bytes() == (finished / "result.glb").read_bytes()


@pytest.mark.slow
def test_killed_at_any_moment_the_same_command_ends_with_the_same_result(
    truth: Path, finished: Path, tmp_path: Path
) -> None:
    """A real process, SIGKILLed again and again after ever more events; then left alone."""
    settings = [item for key, value in SETTINGS.items() for item in ("--set", f"{key}={json.dumps(value)}")]
    command = [
        sys.executable,
        "-m",
        "dreamcraft3d",
        "evaluate",
        "--oracle",
        str(truth),
        "--out",
        str(tmp_path),
        *settings,
    ]
    kills = 0
    for marker in ("stages/coarse_nerf/started.json", "stages/neus/started.json", "stages/geometry/started.json",
                   "stages/mesh/started.json", "stages/texture/started.json"):  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while process.poll() is None and not (tmp_path / marker).exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.5)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
        for path in tmp_path.rglob("*.json"):
            json.loads(path.read_text())  # nothing is half-written
    assert kills >= 4
    assert subprocess.run(command, capture_output=True, timeout=RUN_PATIENCE).returncode == 0
    assert turntable_psnr(tmp_path, finished) >= 40.0


def turntable_psnr(a: Path, b: Path) -> float:
    pictures = [np.asarray(Image.open(p / "turntable.png").convert("RGB"), dtype=float) / 255 for p in (a, b)]
    return float(-10 * np.log10(max(np.square(pictures[0] - pictures[1]).mean(), 1e-12)))
