"""The plan: what the issue promises of it, and that what is asked for changes it the right way."""

import json

import pytest
from typer.testing import CliRunner

from dreamcraft3d.cli import app
from dreamcraft3d.evaluation import plan as planning
from dreamcraft3d.evaluation.plan import make_plan, texture_memory
from dreamcraft3d.evaluation.scene_footprint import SceneBytes, largest
from dreamcraft3d.presets import configure

GB = 10**9
SCENE = {stage: SceneBytes(2 * 10**8, 10**9) for stage in ("coarse_nerf", "neus", "geometry", "texture")}


@pytest.fixture
def quick_scene(monkeypatch):
    """The scene takes most of the time; what it needs is measured by the slow tests."""
    monkeypatch.setattr(planning, "scene_bytes", lambda _: SCENE)


def test_texture_stage_needs_a_fraction_of_full_copies():
    memory = texture_memory(configure("paper"))
    assert memory.ours <= 6 * GB
    assert memory.full_copies == pytest.approx(17.4 * GB, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "gigabytes"), [("fast", 8), ("balanced", 12), ("paper", 24)])
def test_presets_fit_their_cards(preset, gigabytes, tmp_path, monkeypatch):
    monkeypatch.setenv("DREAMCRAFT3D_MODELS", str(tmp_path))
    estimate = make_plan(configure(preset))
    for stage in estimate.stages:
        assert stage.peak < gigabytes * 2**30, stage
    assert estimate.missing


@pytest.mark.slow
def test_scene_grows_with_the_render():
    """Four times the pixels need nearly four times the memory, in volumes and on meshes; the parameters do not grow."""
    small, large = (
        planning.scene_bytes(
            configure(
                "preview",
                {"coarse_nerf.render_size": size, "neus.render_size": size, "geometry.render_size": 8 * size},
            )
        )
        for size in (64, 128)
    )
    for stage in ("coarse_nerf", "geometry"):
        assert 3.0 < large[stage].render / small[stage].render < 5.0
        assert large[stage].state == small[stage].state


@pytest.mark.slow
def test_what_matters_to_the_scene_is_measured_again():
    plain, finer = (
        planning.scene_bytes(configure("preview", {"texture.hash_grid.log2_table_size": size})) for size in (15, 16)
    )
    assert finer["texture"].state > 1.3 * plain["texture"].state


@pytest.mark.slow
def test_offload_keeps_the_largest_network_only(quick_scene):
    together = make_plan(configure("balanced"))
    offloaded = make_plan(configure("balanced", {"priors.offload": True}))
    assert offloaded.stages[0].weights < 0.6 * together.stages[0].weights
    assert offloaded.stages[3].weights == planning.footprint.weights("unet-sd-2")
    assert offloaded.evaluations == together.evaluations


def test_evaluations_are_counted(quick_scene):
    settings = {"coarse_nerf.steps": 10, "neus.steps": 10, "geometry.steps": 10, "texture.steps": 10}
    counts = [stage.evaluations for stage in make_plan(configure("paper", settings)).stages]
    # (5 steps: 2 of Zero123, 4 of IF), the same, (10 steps: 2 of Zero123, twice 4 of IF), (5 steps: 2 of SD, and its
    # own score and training; two rounds of 200 learning steps and 8 pictures: 12 and 2 of 25 denoising steps, guided)
    assert counts == [30, 30, 100, 10 + 10 + 2 * 200 + 8 * (12 + 2) * 2]


def test_adapters_are_counted_when_they_are_used(quick_scene):
    plans = {form: make_plan(configure("fast", {"texture.bootstrap.form": form})) for form in ("none", "vsd", "bsd")}
    training = {form: plan.stages[3].training for form, plan in plans.items()}
    assert 0 == training["none"] < training["vsd"] < training["bsd"] < 0.2 * GB
    assert plans["none"].stages[3].priors < plans["vsd"].stages[3].priors
    assert plans["none"].evaluations < plans["vsd"].evaluations < plans["bsd"].evaluations
    frugal = make_plan(configure("fast", {"priors.offload": True}))
    assert frugal.stages[3].priors < plans["bsd"].stages[3].priors


def test_a_plan_without_models(quick_scene):
    estimate = make_plan(configure("preview"))
    assert (estimate.missing, estimate.download, estimate.encoders) == ((), 0, 0)
    assert 0 < estimate.stages[0].priors < 0.3 * GB


def test_own_folders_are_named_as_not_counted(quick_scene):
    estimate = make_plan(configure("fast", {"priors.view": "/somewhere/my-zero123"}))
    assert estimate.unknown == ("/somewhere/my-zero123",)


def test_the_command(quick_scene):
    result = CliRunner().invoke(app, ["plan", "--preset", "fast", "--memory", "2", "--json"])
    record = json.loads(result.stdout)
    assert result.exit_code == 0
    assert record["fits"] is False
    assert record["peak_bytes"] == max(stage["peak"] for stage in record["stages"])
    shown = CliRunner().invoke(app, ["plan", "--preset", "fast", "--memory", "8"])
    assert "Fits in 8 GiB" in shown.stdout and "assumed" in shown.stdout


def test_largest_of_a_schedule():
    assert largest(64) == 64
    assert largest(((0.0, 128), (0.6, 128), (0.6, 384))) == 384
