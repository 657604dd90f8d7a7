"""Batches inside Blender: each case of batch_inside.py in a process of its own."""

import importlib.util
import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from patience import RUN_PATIENCE

pytestmark = pytest.mark.skipif(importlib.util.find_spec("bpy") is None, reason="needs bpy")
INSIDE = Path(__file__).with_name("batch_inside.py")
QUICK = ("a_bug_is_never_a_zero",)


def names() -> list[str]:
    lines = INSIDE.read_text(encoding="utf-8").splitlines()
    pairs = itertools.pairwise(lines)
    return [after.removeprefix("def ").partition("(")[0] for before, after in pairs if before == "@case"]


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in names()])
def test_batches_inside_blender(name: str, tmp_path: Path) -> None:
    command = [sys.executable, str(INSIDE), name, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_PATIENCE, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert done.stdout.strip().endswith("passed"), done.stdout + done.stderr
