"""The service's own worker in a batch: what it makes for an item is what a single run makes."""

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image
from typer.testing import CliRunner

from batches import items, write
from dreamcraft3d.batch.crew import LocalCrew
from dreamcraft3d.batch.outcome import read_outcome
from dreamcraft3d.batch.runner import Runner
from dreamcraft3d.batch.tasks import load_batch
from dreamcraft3d.cli import app
from tiny import SETTINGS

QUICK = {**SETTINGS, "coarse_nerf.steps": 20, "neus.steps": 4, "geometry.steps": 6, "texture.steps": 6}


def textured_square(path: Path) -> np.ndarray:
    """Two triangles with a texture of their own; returns its pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    uv = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.fromarray(pixels))
    visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    corners = np.column_stack([np.zeros(4), uv - 0.5])
    trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], visual=visual, process=False).export(path)
    return pixels


@pytest.mark.slow
def test_an_item_equals_a_single_run(tmp_path):
    manifest = write(tmp_path, items("a", seed=5, params=QUICK))
    yy, xx = np.mgrid[0:64, 0:64]
    mask = ((xx - 32) ** 2 + (yy - 32) ** 2 < 500)[..., None] * np.uint8(255)
    Image.fromarray(np.concatenate([np.full((64, 64, 3), 120, np.uint8), mask], 2)).save(tmp_path / "a.png")
    batch = load_batch(manifest)
    (standing,) = Runner(batch, LocalCrew(1)).run()
    assert standing.state == "done", standing.error
    settings = [word for key, value in QUICK.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    single = tmp_path / "single"
    command = ["generate", str(tmp_path / "a.png"), "--seed", "5", "--out", str(single), *settings]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert (single / "result.glb").read_bytes() == (batch.folder("a") / "result.glb").read_bytes()


@pytest.mark.slow
def test_a_mesh_is_refined_and_committed_with_all_its_files(tmp_path):
    pixels = textured_square(tmp_path / "square.glb")
    rows = [{"id": "square", "kind": "refine", "mesh": "square.glb", "params": {"refine.strength": 0.0}}]
    batch = load_batch(write(tmp_path, rows))
    (standing,) = Runner(batch, LocalCrew(1)).run()
    assert standing.state == "done", standing.error
    outcome = read_outcome(batch.folder("square"))
    assert outcome is not None
    assert outcome.mesh == "refined/mesh/square.glb"
    assert {"thumbnail.webp", "refined/result.json"} <= outcome.outputs.keys()
    assert outcome.intact(batch.folder("square"))
    (image,) = [name for name in outcome.outputs if name.startswith("refined/image_")]
    assert (np.asarray(Image.open(batch.folder("square") / image).convert("RGB")) == pixels).all()
