"""Items that are objects of Blender files: read by Blender, refined by the worker, written into a copy of the file."""

import hashlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from batches import write
from patience import RUN_PATIENCE
from tiny import SETTINGS

TESTS = Path(__file__).resolve().parents[1]
QUICK = {key: value for key, value in SETTINGS.items() if key.startswith("texture.")}
QUICK |= {"texture.steps": 4, "texture.fit_steps": 4, "reference.size": 64}

needs_bpy = pytest.mark.skipif(importlib.util.find_spec("bpy") is None, reason="needs bpy")

SCENE = """
import sys
sys.path[:0] = sys.argv[1:3]
import bpy
from refine_inside import cube, noise, textured
bpy.ops.wm.read_factory_settings(use_empty=True)
item = cube()
item.data.materials.append(textured("iron", noise(seed=2)))
other = bpy.data.objects.new("Other", item.data)
bpy.context.scene.collection.objects.link(other)
bpy.ops.wm.save_as_mainfile(filepath=sys.argv[3])
"""
LOOK = """
import json, sys
import bpy
bpy.ops.wm.open_mainfile(filepath=sys.argv[1])
words = {item.name: [slot.material.name for slot in item.material_slots] for item in bpy.data.objects}
words["packed"] = all(image.packed_file is not None for image in bpy.data.images if image.source == "FILE")
print("\\n" + json.dumps(words))
"""


def blender(script: str, *words: object, home: Path) -> str:
    """Runs a script with bpy."""
    command = [sys.executable, "-c", script, *[str(word) for word in words]]
    environment = {"BLENDER_USER_RESOURCES": str(home), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=RUN_PATIENCE)
    return done.stdout


def batch(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dreamcraft3d", "batch", *[str(word) for word in words]]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=RUN_PATIENCE)


def test_what_an_object_needs(tmp_path):
    (tmp_path / "room.blend").write_bytes(b"BLENDER")
    (tmp_path / "a.glb").write_bytes(b"glTF")
    rows = [
        {"id": "a", "kind": "refine", "blend": "room.blend"},
        {"id": "b", "kind": "refine", "blend": "a.glb", "object": "Cube"},
        {"id": "c", "kind": "refine", "blend": "room.blend", "object": "Cube", "mesh": "a.glb"},
        {"id": "d", "kind": "refine", "blend": "room.blend", "object": "Cube", "slots": ["wood", 1]},
    ]
    done = batch("validate", write(tmp_path, rows), "--json", "--blender", tmp_path / "nowhere")
    problems = json.loads(done.stdout)["problems"]
    assert [(entry["item"], entry["message"]) for entry in problems] == [
        ("a", "An object of a Blender file needs both names."),
        ("b", "a.glb is no Blender file."),
        ("c", "An item has either a mesh or an object of a Blender file."),
    ]
    fine = write(tmp_path, rows[3:])
    assert batch("validate", fine, "--blender", tmp_path / "nowhere").returncode == 2
    assert batch("validate", fine, "--blender", tmp_path / "room.blend").returncode == 0


@needs_bpy
@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the program is a shell script here")
def test_an_object_is_refined_in_a_copy_of_its_file(tmp_path):
    home, room, program = tmp_path / "home", tmp_path / "room.blend", tmp_path / "blender"
    blender(SCENE, TESTS.parent, TESTS / "blender", room, home=home)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{TESTS / "blender" / "headless.py"}" "$@"\n')
    program.chmod(0o755)
    before = hashlib.sha256(room.read_bytes()).hexdigest()
    item = {"kind": "refine", "blend": "room.blend", "params": QUICK}
    manifest = write(tmp_path, [
        {**item, "id": "cube", "object": "Cube", "slots": ["wood"], "tags": ["box"]},
        {**item, "id": "ghost", "object": "Nobody"},
        {**item, "id": "paint", "object": "Cube", "slots": ["gold"]},
    ])  # fmt: skip
    done = batch("run", manifest, "--blender", program, "--json")
    assert done.returncode == 3, done.stdout + done.stderr
    out = manifest.parent / "things-out"
    errors = {entry["id"]: entry for entry in map(json.loads, (out / "errors.jsonl").read_text().splitlines())}
    assert "no object Nobody" in errors["ghost"]["message"] and "Cube, Other" in errors["ghost"]["remedy"]
    assert "no material slot gold" in errors["paint"]["message"] and "wood, iron" in errors["paint"]["remedy"]

    folder = out / "items" / "cube" / "refined"
    marker = json.loads((folder.parent / "result.json").read_text())
    assert "refined/room.blend" in marker["outputs"] and not (folder / "stages").exists()
    assert hashlib.sha256(room.read_bytes()).hexdigest() == before
    words = json.loads(blender(LOOK, folder / "room.blend", home=home).splitlines()[-1])
    assert words["Other"] == ["wood", "iron"] and words["packed"]
    assert words["Cube"][0] != "wood" and words["Cube"][1] == "iron"

    again = batch("run", manifest, "--blender", program, "--json", "--only", "cube")
    assert again.returncode == 0 and json.loads(again.stdout.splitlines()[-1])["counts"]["done"] == 1
    assert '"started"' not in again.stderr
    library = json.loads(batch("export-assets", manifest, "--blender", program, "--json").stdout)
    assert library["added"] == ["cube"] and library["missing"] == ["ghost", "paint"]
