"""`dreamcraft3d batch export-assets`: finds a Blender, asks its extension, and says what to do where that fails."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from batches import items, write
from dreamcraft3d.cli import app
from dreamcraft3d.errors import InputError
from dreamcraft3d.executors import blender as module
from dreamcraft3d.executors.blender import BlenderUnavailableError, find_blender

TESTS = Path(__file__).resolve().parents[1]
HEADLESS = TESTS / "blender" / "headless.py"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="programs are shell scripts here")


def program(folder: Path, script: str) -> Path:
    path = folder / "blender"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def call(*words: object) -> Result:
    return CliRunner().invoke(app, ["batch", "export-assets", *[str(word) for word in words]])


def test_where_blender_is_looked_for(tmp_path, monkeypatch):
    found = program(tmp_path, "")
    assert find_blender(found) == find_blender(tmp_path) == found
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_blender(None) == found
    with pytest.raises(InputError, match="no Blender at"):
        find_blender(tmp_path / "nowhere")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(module, "USUAL", ())
    with pytest.raises(BlenderUnavailableError, match="No Blender was found") as caught:
        find_blender(None)
    assert caught.value.code == 4 and "--blender" in caught.value.remedy


def test_mistakes_come_before_blender(tmp_path):
    manifest = write(tmp_path, [{"id": "a"}])
    assert call(manifest, "--blender", program(tmp_path, "touch started")).exit_code == 2
    assert not (tmp_path / "started").exists()


def test_a_blender_without_the_extension_says_so(tmp_path):
    manifest = write(tmp_path, items("a"))
    result = call(manifest, "--blender", program(tmp_path, "echo 'Blender 5.0'; echo Unrecognized >&2; exit 1"))
    assert result.exit_code == 4 and "does not know DreamCraft" in result.stderr


def test_blenders_answer_is_handed_on(tmp_path):
    manifest = write(tmp_path, items("a"))
    answer = {"library": "shelf", "added": ["a"], "updated": [], "unchanged": [], "missing": [], "failed": {}}
    script = f"echo \"$@\" > {tmp_path}/words; echo 'Blender 5.0'; echo '{json.dumps(answer)}'; echo bye"
    result = call(manifest, "--blender", program(tmp_path, script), "--only", "a*", "--library", tmp_path / "shelf")
    assert (result.exit_code, result.stdout) == (0, "1 added, 0 updated, 0 unchanged, 0 missing. shelf\n")
    words = (tmp_path / "words").read_text().split()
    assert words[:6] == ["--background", "--command", "dreamcraft", "batch", "export-assets", str(manifest)]
    assert words[-7:] == ["--library", str(tmp_path / "shelf"), "--only", "a*", "--backend", sys.executable, "--json"]
    answer["failed"] = {"a": "Its result is damaged."}
    script = f"echo '{json.dumps(answer)}'; exit 3"
    assert call(manifest, "--blender", program(tmp_path, script), "--json").exit_code == 3


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("bpy") is None, reason="needs bpy")
def test_with_blender_itself(tmp_path):
    """bpy as the program, with the extension of this source tree."""
    manifest = write(tmp_path, items("a", "b"))
    subprocess.run([sys.executable, str(TESTS / "batch" / "quick.py"), "batch", "run", str(manifest)], check=True)
    blender = program(tmp_path, f'exec "{sys.executable}" "{HEADLESS}" "$@"')
    result = call(manifest, "--blender", blender)
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (
        0,
        f"2 added, 0 updated, 0 unchanged, 0 missing. {tmp_path / 'things-out' / 'library'}",
    )
    assert (tmp_path / "things-out" / "library" / "things-001.blend").is_file()
    again = json.loads(call(manifest, "--blender", blender, "--json").stdout)
    assert (again["added"], again["unchanged"]) == ([], ["a", "b"])
    assert call(manifest, "--blender", blender, "--only", "nothing").exit_code == 0
