"""The catalogue is complete and consistent, files are chosen right, and a hostile manifest cannot reach outside."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamcraft3d.errors import ConfigError, DreamCraftError
from dreamcraft3d.presets import PRESETS, configure
from dreamcraft3d.priors import models
from dreamcraft3d.priors.model_files import (
    MANIFEST,
    Manifest,
    ModelFile,
    choose,
    digest_of,
    read_manifest,
    variant_of,
    write_manifest,
)


@pytest.mark.parametrize("name", models.catalogue())
def test_every_entry_is_complete(name):
    model = models.entry(name)
    assert model.summary and model.licence.url.startswith("https://")
    assert model.sources and all("/" in source.repository and source.checked for source in model.sources)
    assert all(source.revision is None or re.fullmatch(r"[0-9a-f]{40}", source.revision) for source in model.sources)
    assert "unet" in model.networks and "scheduler" in model.files
    assert (model.pose is not None) == (model.role == "view")
    assert 1e9 < model.size < 2e10


def test_presets_name_models_of_the_catalogue_with_the_right_role():
    for preset in PRESETS:
        config = configure(preset)
        assert set(config.prior_names()) <= {"bundled", *models.catalogue()}
    priors = configure("paper").priors
    assert [models.entry(name).role for name in (priors.view, priors.image, priors.texture)] == [
        "view",
        "image",
        "texture",
    ]


def test_fast_allows_commercial_use_and_needs_no_account():
    for name in configure("fast").prior_names():
        assert models.entry(name).licence.commercial and not models.entry(name).gated


def test_unknown_names_are_explained():
    with pytest.raises(ConfigError, match="zero123-xl"):
        models.entry("zero123-xxl")


def test_variants_in_names():
    assert variant_of("model.safetensors") is None
    assert variant_of("model.fp16.safetensors") == "fp16"
    assert variant_of("model.fp16-00001-of-00002.safetensors") == "fp16"
    assert variant_of("model-00001-of-00002.safetensors") is None
    assert variant_of("diffusion_pytorch_model.fp16_ema.safetensors") == "fp16_ema"


def test_shards_come_with_their_own_index():
    listing = [
        "text_encoder/config.json",
        "text_encoder/model-00001-of-00002.safetensors",
        "text_encoder/model-00002-of-00002.safetensors",
        "text_encoder/model.fp16-00001-of-00002.safetensors",
        "text_encoder/model.fp16-00002-of-00002.safetensors",
        "text_encoder/model.safetensors.index.fp16.json",
        "text_encoder/model.safetensors.index.json",
        "text_encoder/pytorch_model.bin.index.json",
        "text_encoder/pytorch_model-00001-of-00002.bin",
    ]
    half, whole = (choose(listing, ["text_encoder"], variant) for variant in ("fp16", None))
    assert [path.removeprefix("text_encoder/") for path in half] == [
        "config.json",
        "model.fp16-00001-of-00002.safetensors",
        "model.fp16-00002-of-00002.safetensors",
        "model.safetensors.index.fp16.json",
    ]
    assert "text_encoder/model.safetensors.index.json" in whole and len(whole) == 4


@given(st.lists(st.sampled_from(["bin", "ckpt", "pt", "pth", "msgpack", "safetensors", "json", "txt", "py", "md"])))
def test_nothing_executable_is_ever_chosen(suffixes):
    listing = [f"unet/file{index}.{suffix}" for index, suffix in enumerate(suffixes)] + ["modeling.py", "run.sh"]
    try:
        chosen = choose(listing, ["unet"], "fp16")
    except DreamCraftError:
        assert "safetensors" not in suffixes
        return
    assert {path.rpartition(".")[2] for path in chosen} <= {"safetensors", "json", "txt"}


def test_checksums_are_those_of_git_and_sha256(tmp_path):
    (tmp_path / "file").write_bytes(b"hello\n")
    assert digest_of(tmp_path / "file", "git-sha1") == "ce013625030ba8dba906f756967f9e9ca394464a"
    assert digest_of(tmp_path / "file", "sha256").startswith("5891b5b522d5df086d0ff0b110fbd9d21bb4fc71")


def test_manifests_survive_writing_and_reading(tmp_path):
    manifest = Manifest("m", "a/b", "c", "fp16", (ModelFile("unet/x.safetensors", 3, "sha256", "00"),))
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "unet/../../x", "C:\\x", "c:x"])
def test_manifests_that_point_outside_are_no_manifests(tmp_path, path):
    write_manifest(tmp_path, Manifest("m", "", "", None, (ModelFile(path, 1, "sha256", "00"),)))
    assert read_manifest(tmp_path) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": 1}', '{"files": [1]}', "\x00"])
def test_broken_manifests_are_no_manifests(tmp_path, text):
    (tmp_path / MANIFEST).write_text(text)
    assert read_manifest(tmp_path) is None


def test_the_catalogue_is_data_only():
    text = models._data().joinpath("catalogue.json").read_text()
    assert set(json.loads(text)) == {"licences", "models"}
    used = {model["licence"] for model in json.loads(text)["models"]}
    assert used == set(json.loads(text)["licences"])
