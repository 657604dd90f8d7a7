"""`dreamcraft3d refine`: a clear line for every mistake, JSON for programs, a file that only differs in its images."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import soups
from dreamcraft3d.cli import app
from refining.test_mesh_files import glb, images_of, textured, write_obj


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def mesh(tmp_path: Path) -> Path:
    path = tmp_path / "thing.glb"
    path.write_bytes(glb([textured(0)], [soups.png(soups.noise(16, 16))], [0]))
    return path


def test_mistakes_cost_one_line_and_leave_nothing(tmp_path, mesh):
    out = tmp_path / "out"
    (tmp_path / "mesh.ply").write_bytes(b"ply")
    bare = tmp_path / "bare.glb"
    bare.write_bytes(glb([textured(0)], [soups.png(soups.noise(8, 8))], [0], coordinates=False))
    for words, expected in [
        ([tmp_path / "missing.glb"], "no file"),
        ([tmp_path / "mesh.ply"], "GLB or OBJ"),
        ([bare], "no texture coordinates"),
        ([mesh, "--slot", 3], "no slot 3"),
        ([mesh, "--reference", mesh], "not a picture"),
        ([mesh, "--strength", 2], "refine.strength"),
        ([mesh, "--overlap", "guess"], "refine.overlap"),
    ]:
        result = call("refine", *words, "--out", out)
        assert result.exit_code == 2, (words, result.output)
        lines = [line for line in result.stderr.strip().splitlines() if "Warp" not in line]
        assert len(lines) == 1 and expected in lines[0], result.stderr
        assert not out.exists()


def test_strength_0_through_the_command_line(tmp_path, mesh):
    result = call("refine", mesh, "--strength", 0, "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout.strip().splitlines()[-1])
    assert answer["ok"] and answer["report"]["files"][0]["painted"] == 0.0
    assert Path(answer["mesh"]).read_bytes() == mesh.read_bytes()


def test_obj_through_the_command_line(tmp_path):
    path = write_obj(tmp_path / "in")
    result = call("refine", path, "--strength", 0, "--slot", 0, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    out = tmp_path / "out" / "mesh"
    assert (out / "thing.obj").read_bytes() == path.read_bytes()
    for name in ("thing.mtl", "wood.png", "bump.png"):
        assert (out / name).read_bytes() == (tmp_path / "in" / name).read_bytes()


@pytest.mark.slow
def test_the_bundled_prior_repaints_from_a_picture(tmp_path, mesh):
    """A real run with the shipped weights: the picture's colour arrives, the geometry stays."""
    import numpy as np
    from PIL import Image

    red = np.zeros((96, 96, 4), np.uint8)
    red[20:76, 20:76] = (220, 30, 30, 255)
    Image.fromarray(red).save(tmp_path / "red.png")
    words = ["--set", "texture.steps=8", "--set", "texture.fit_steps=5", "--set", "reference.size=96"]
    words += ["--set", "texture.reference_size=96", "--set", "texture.render_size=64"]
    result = call("refine", mesh, "--reference", tmp_path / "red.png", "--out", tmp_path / "out", *words, "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout.strip().splitlines()[-1])
    assert answer["report"]["priors"] == ["bundled"]
    assert answer["report"]["files"][0]["mean_shift"] != [0.0, 0.0, 0.0]
    assert images_of(Path(answer["mesh"]).read_bytes()) != images_of(mesh.read_bytes())
