"""Configuration: unknown keys and wrong values are refused with a way out; equal work has equal fingerprints."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dreamcraft3d.config import (
    CoarseNerfConfig,
    GenerateConfig,
    NeusConfig,
    describe,
    fingerprint,
    parse_setting,
    with_settings,
)
from dreamcraft3d.errors import ConfigError
from dreamcraft3d.presets import PRESETS, configure


def changed(*settings: str) -> GenerateConfig:
    return with_settings(GenerateConfig(), dict(map(parse_setting, settings)))


def test_records_are_frozen_and_strict():
    with pytest.raises(ValidationError):
        GenerateConfig().seed = 1
    with pytest.raises(ValidationError):
        CoarseNerfConfig(steps="5")
    with pytest.raises(ValidationError):
        CoarseNerfConfig(stepz=5)


def test_settings_of_every_kind():
    config = changed(
        "seed=7",
        "coarse_nerf.lr=1",
        "coarse_nerf.render_size=[[0, 32], [0.5, 32], [0.5, 64]]",
        "neus.normal_epsilon=null",
        "texture.guidance.form=sds",
        "geometry.guidance.elevation=[0, 30]",
        "reference.mask=a b.png",
    )
    assert config.seed == 7
    assert config.coarse_nerf.lr == 1.0
    assert config.coarse_nerf.render_size == ((0.0, 32.0), (0.5, 32.0), (0.5, 64.0))
    assert config.neus.normal_epsilon is None
    assert config.texture.guidance.form == "sds"
    assert config.geometry.guidance.elevation == (0.0, 30.0)
    assert str(config.reference.mask) == "a b.png"
    assert config.export == GenerateConfig().export


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("coarse_nerf.stepz=3", ["coarse_nerf.stepz", "mean coarse_nerf.steps"]),
        ("steps=3", ["'steps'", "coarse_nerf.steps"]),
        ("coarse.lr=3", ["coarse_nerf.lr"]),
        ("quux=3", ["'quux'", "coarse_nerf, neus"]),
        ("coarse_nerf=3", ["group", "coarse_nerf.steps"]),
        ("coarse_nerf.steps.x=3", ["coarse_nerf.steps"]),
        ("coarse_nerf.steps=fast", ["coarse_nerf.steps", "integer", '"fast"']),
        ("coarse_nerf.steps=0", ["coarse_nerf.steps", "greater"]),
        ("coarse_nerf.steps=true", ["coarse_nerf.steps", "integer"]),
        ("coarse_nerf.lr=NaN", ["coarse_nerf.lr", "finite"]),
        ("coarse_nerf.render_size=[]", ["render_size", "number, or points"]),
        ("coarse_nerf.render_size=[[0, 8], [2, 8]]", ["render_size", "rise from 0 to 1"]),
        ("coarse_nerf.render_size=[[0.5, 8], [0, 8]]", ["render_size", "rise from 0 to 1"]),
        ("seed=-1", ["seed", "greater than or equal to 0", "-1"]),
        ("prior=gpt", ["prior", "bundled"]),
        ("reference.elevation=90", ["reference.elevation", "80"]),
        ("nonsense", ["nonsense", "stage.key=value"]),
        ("=3", ["stage.key=value"]),
    ],
)
def test_wrong_settings_name_the_key_and_a_way_out(setting, words):
    with pytest.raises(ConfigError) as caught:
        changed(setting)
    for word in words:
        assert word in str(caught.value)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_and_round_trip(name):
    config = configure(name)
    assert config.preset == name
    assert GenerateConfig.model_validate_json(config.model_dump_json()) == config


def test_settings_override_the_preset():
    assert configure("paper", {"neus.steps": 3}).neus.steps == 3
    assert configure("paper").neus.steps == 5000
    with pytest.raises(ConfigError, match="mean paper"):
        configure("papr")


def test_fingerprint_knows_the_config_and_everything_upstream():
    a = fingerprint(CoarseNerfConfig(), "0")
    assert a == fingerprint(CoarseNerfConfig(steps=CoarseNerfConfig().steps), "0")
    others = [
        fingerprint(CoarseNerfConfig(steps=7), "0"),
        fingerprint(CoarseNerfConfig(), "1"),
        fingerprint(CoarseNerfConfig(), "0", ""),
        fingerprint(NeusConfig(), "0"),
    ]
    assert len({a, *others}) == 5


def test_fingerprint_is_the_same_in_another_process():
    code = "from dreamcraft3d.config import *; print(fingerprint(GenerateConfig(), 'x'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == fingerprint(GenerateConfig(), "x")


def test_describe_lists_every_setting_with_its_meaning():
    rows = list(describe(GenerateConfig()))
    keys = [key for key, _, _ in rows]
    assert len(keys) == len(set(keys)) > 100
    assert "coarse_nerf.guidance.t_high" in keys
    assert all(meaning for _, _, meaning in rows)
    for key, value, _ in rows:
        assert with_settings(GenerateConfig(), {key: json.loads(value)}) == GenerateConfig()


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(-1e6, 1e6)), min_size=1, max_size=6))
def test_any_ordered_points_are_a_schedule(points):
    points.sort(key=lambda point: point[0])
    config = with_settings(CoarseNerfConfig(), {"sparsity": points})
    assert config.sparsity == tuple(points)
    assert CoarseNerfConfig.model_validate_json(config.model_dump_json()) == config
