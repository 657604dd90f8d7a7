"""The exported file in Blender: upright, its front to the front view, left and right where they belong.

In Blender's front view the camera stands at -y and looks along +y, so image-right is +x and up is +z. bpy runs in a
process of its own and never loads here.
"""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shapes
from dreamcraft3d.export import bake, prepare, write_glb
from patience import RUN_PATIENCE

pytestmark = pytest.mark.skipif(importlib.util.find_spec("bpy") is None, reason="needs bpy")
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The lopsided object, exported here, looked at in Blender."""
    folder = tmp_path_factory.mktemp("blender")
    unwrapped = prepare(shapes.lopsided(), target_faces=1000, texture_size=256)
    (folder / "result.glb").write_bytes(write_glb(unwrapped.with_texture(bake(unwrapped, shapes.lopsided_colour))))
    command = [sys.executable, str(HERE / "look.py"), str(folder / "result.glb"), str(folder / "seen.json")]
    subprocess.run(command, check=True, capture_output=True, timeout=RUN_PATIENCE)
    return json.loads((folder / "seen.json").read_text())


def column(seen: dict[str, Any], key: str) -> np.ndarray:
    return np.array([face[key] for face in seen["faces"]])


def test_nose_arms_and_hat_are_where_a_viewer_expects_them(seen: dict[str, Any]) -> None:
    centre = column(seen, "centre")
    low, high = centre.min(axis=0), centre.max(axis=0)
    np.testing.assert_allclose(low, [-0.35, -0.4, -0.5], atol=1e-5)  # short left arm, nose towards the viewer, foot
    np.testing.assert_allclose(high, [0.6, 0.15, 0.6], atol=1e-5)  # long right arm, back, hat


@pytest.mark.parametrize(
    ("side", "direction"),
    [("front", (0, -1, 0)), ("back", (0, 1, 0)), ("right", (1, 0, 0)), ("left", (-1, 0, 0)), ("top", (0, 0, 1))],
)
def test_each_side_has_its_colour(seen: dict[str, Any], side: str, direction: tuple[int, int, int]) -> None:
    facing = column(seen, "normal") @ np.array(direction) > 0.99
    reach = column(seen, "centre") @ np.array(direction)
    outermost = facing & (reach > reach[facing].max() - 1e-4)
    np.testing.assert_allclose(column(seen, "colour")[outermost], [shapes.LOPSIDED[side]] * outermost.sum(), atol=0.01)


def test_the_material_is_matt_and_the_texture_travels_inside(seen: dict[str, Any]) -> None:
    assert (seen["metallic"], seen["roughness"], seen["specular"]) == (0.0, 1.0, 0.0)
    assert seen["colour_space"] == "sRGB"
    assert seen["packed"]


def test_suzanne_faces_the_reference_camera(tmp_path: Path) -> None:
    """Blender's own export comes back the right way round: her right ear, red, is to the image's left."""
    import torch

    from dreamcraft3d.evaluation import load_mesh, normalise, render_textured
    from dreamcraft3d.functional.cameras import orbit

    path = tmp_path / "suzanne.glb"
    subprocess.run(
        [sys.executable, str(HERE / "suzanne.py"), str(path)], check=True, capture_output=True, timeout=RUN_PATIENCE
    )
    mesh, _ = normalise(load_mesh(path))
    image = render_textured(mesh, orbit(0.0, 0.0), 64).over(1.0)[0]
    red = (image[..., 0] > 0.6) & (image[..., 1] < 0.4)
    blue = (image[..., 2] > 0.6) & (image[..., 0] < 0.4)
    columns = torch.arange(64.0).expand(64, 64)
    assert red.sum() > 20
    assert blue.sum() > 20
    assert columns[red].max() < 24
    assert columns[blue].min() > 40
    white = (image > 0.8).all(-1) & (render_textured(mesh, orbit(0.0, 0.0), 64).rgba[0, ..., 3] > 0.99)
    assert white.sum() >= 4  # her eyes
