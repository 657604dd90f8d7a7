"""`dreamcraft3d models`: what people type, with a hub of our own behind it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dreamcraft3d.cli import app
from dreamcraft3d.priors import models
from hub import Hub

NAME = "zero123-xl"
UNET = "unet/diffusion_pytorch_model.safetensors"


def call(*words: object) -> Result:
    return CliRunner().invoke(app, ["models", *map(str, words)])


def repository() -> dict[str, bytes]:
    weights = {
        f"{part}/{file}.safetensors": part.encode() * 1000
        for part, file in (
            ("unet", "diffusion_pytorch_model"),
            ("vae", "diffusion_pytorch_model"),
            ("image_encoder", "model"),
            ("clip_camera_projection", "diffusion_pytorch_model"),
        )
    }
    small = {f"{part}/config.json": b"{}" for part in ("unet", "vae", "image_encoder", "clip_camera_projection")}
    other = {"scheduler/scheduler_config.json": b"{}", "feature_extractor/preprocessor_config.json": b"{}"}
    return {"model_index.json": b"{}", "LICENSE": b"MIT", **weights, **small, **other}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setenv("DREAMCRAFT3D_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(models, "_in_hub_cache", lambda _: None)
    with Hub({models.entry(NAME).sources[0].repository: repository()}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def test_list_shows_licences_and_filters():
    everything = json.loads(call("list", "--json").stdout)["models"]
    commercial = json.loads(call("list", "--commercial-only", "--json").stdout)["models"]
    assert {"deepfloyd-if-xl", "stable-zero123"} <= {model["name"] for model in everything}
    assert {model["name"] for model in everything} - {model["name"] for model in commercial} == {
        "deepfloyd-if-xl",
        "deepfloyd-if-l",
        "deepfloyd-if-m",
        "stable-zero123",
    }
    assert "NO commercial use, gated" in call("list").stdout


def test_the_licence_is_shown_and_accepted_once(hub):
    refused = call("download", NAME)
    assert refused.exit_code == 2
    assert "--accept-licence" in refused.stderr and "MIT" in refused.stderr
    assert not hub.requests
    assert call("download", NAME, "--accept-licence").exit_code == 0
    again = call("download", NAME)
    assert again.exit_code == 0 and "licence" not in again.stderr.lower()


def test_from_download_to_removal(hub):
    call("download", NAME, "--accept-licence")
    folder = models.folder_of(NAME)
    assert (folder / "LICENSE").read_bytes() == b"MIT"
    (record,) = [model for model in json.loads(call("list", "--json").stdout)["models"] if model["name"] == NAME]
    assert record["installed"] and record["bytes"] < 100_000
    assert json.loads(call("verify", "--json").stdout) == {"ok": True, "damaged": {NAME: []}}
    assert call("remove", NAME).exit_code == 0
    assert not folder.exists()
    assert call("remove", NAME).exit_code == 2


def test_verify_finds_and_repairs(hub):
    call("download", NAME, "--accept-licence")
    file = models.folder_of(NAME) / UNET
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    found = call("verify", NAME, "--json")
    assert found.exit_code == 2
    assert json.loads(found.stdout)["damaged"] == {NAME: [UNET]}
    hub.requests.clear()
    repaired = call("verify", NAME, "--repair", "--json")
    assert repaired.exit_code == 0 and json.loads(repaired.stdout)["ok"]
    assert [path for path, _ in hub.requests] == [UNET]


def test_import_of_a_foreign_folder(hub, tmp_path):
    source = tmp_path / "theirs"
    for path, content in {**repository(), "unet/diffusion_pytorch_model.bin": b"pickle"}.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes(content)
    done = call("import", NAME, source, "--accept-licence")
    assert done.exit_code == 0, done.stderr
    folder = models.folder_of(NAME)
    assert not (folder / "unet/diffusion_pytorch_model.bin").exists()
    assert (folder / UNET).read_bytes() == (source / UNET).read_bytes()
    assert call("import", NAME, source).exit_code == 0
    assert not hub.requests


def test_import_refuses_what_is_no_model(hub, tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"pickle")
    for folder, words in ((tmp_path / "cache", "diffusers layout"), (tmp_path, "no files in 'scheduler'")):
        refused = call("import", NAME, folder, "--accept-licence")
        assert refused.exit_code == 2
        assert words in refused.stderr
    assert not (models.home() / NAME).exists()


def test_mistakes_cost_one_line(hub):
    for words, expected in (
        (("download", "zero123"), "Did you mean"),
        (("download",), "No model is named"),
        (("download", "--preset", "preview"), "needs no download"),
        (("remove", "nothing"), "no model 'nothing'"),
        (("verify", NAME), "models download"),
    ):
        result = call(*words)
        assert result.exit_code == 2, words
        assert expected in result.stderr, words


def test_a_preset_names_its_models(hub, monkeypatch):
    hub.gated.update(hub.repositories)
    refused = call("download", "--preset", "fast", "--accept-licence")
    assert refused.exit_code == 2
    assert NAME in refused.stderr and "gated" in refused.stderr


def test_the_hub_cache_of_other_programs_is_used(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setenv("DREAMCRAFT3D_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    source = models.entry(NAME).sources[0]
    snapshot = tmp_path / "hub" / f"models--{source.repository.replace('/', '--')}" / "snapshots" / str(source.revision)
    for path, content in repository().items():
        (snapshot / path).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / path).write_bytes(content)
    assert models.folder_of(NAME) == snapshot
    (snapshot / UNET).unlink()
    result = CliRunner().invoke(app, ["models", "verify", NAME])
    assert result.exit_code == 2
    with pytest.raises(models.MissingDependencyError):
        models.folder_of(NAME)


def test_a_folder_of_ones_own(tmp_path):
    (tmp_path / "model_index.json").write_text("{}")
    assert models.folder_of(str(tmp_path)) == tmp_path
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"")
    assert models.variant_in(tmp_path) == "fp16"
    assert models.variant_in(Path("/nowhere")) is None
