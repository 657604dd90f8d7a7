"""The extension inside Blender: each case of inside.py in a process of its own. Also the zip, and the translations."""

import importlib.util
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from patience import RUN_PATIENCE

pytestmark = pytest.mark.skipif(importlib.util.find_spec("bpy") is None, reason="needs bpy")
HERE = Path(__file__).parent


def names() -> list[str]:
    lines = (HERE / "inside.py").read_text(encoding="utf-8").splitlines()
    pairs = itertools.pairwise(lines)
    return [after.removeprefix("def ").partition("(")[0] for before, after in pairs if before == "@case"]


QUICK = ("a_script_gets_its_object", "leaves_nothing_behind")


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in names()])
def test_inside_blender(name: str, tmp_path: Path) -> None:
    command = [sys.executable, str(HERE / "inside.py"), name, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_PATIENCE, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert done.stdout.strip().endswith("passed"), done.stdout + done.stderr


def test_no_word_is_left_untranslated() -> None:
    done = subprocess.run(
        [sys.executable, str(HERE / "words.py")], capture_output=True, text=True, check=True, timeout=RUN_PATIENCE
    )
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert len(found["words"]) > 150
    for language, table in found["tables"].items():
        missing = [word for word in found["words"] if not table.get(word)]
        assert not missing, (language, missing)
        unused = [word for word in table if word not in found["words"]]
        assert not unused, (language, unused)
        for english, other in table.items():
            assert english.count("{") == other.count("{"), english
