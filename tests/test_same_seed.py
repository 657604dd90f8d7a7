"""What "same seed, same result" promises: the same bytes from the same program on one machine with as many threads."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from patience import RUN_PATIENCE
from tiny import SETTINGS

PICTURE = Path(__file__).parents[1] / "examples" / "rocket.png"
BRIEF = {
    **{name: value for name, value in SETTINGS.items() if name != "oracle_size"},
    "coarse_nerf.steps": 12,
    "neus.steps": 4,
    "geometry.steps": 6,
    "texture.steps": 6,
}


def generated(out: Path) -> dict[str, bytes]:
    """The files of a run of the `preview` preset, in a process of its own with two threads."""
    settings = [word for name, value in BRIEF.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    command = [sys.executable, "-m", "dreamcraft3d", "generate", str(PICTURE), "--preset", "preview"]
    command += ["--seed", "3", "--set", "device=cpu", "--out", str(out), *settings]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=RUN_PATIENCE, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads((out / "report.json").read_text())["stages"]["mesh"]["unwrap"]["method"] == "xatlas"
    return {name: (out / name).read_bytes() for name in ("result.glb", "turntable.png", "reference.png")}


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    first, second = (generated(tmp_path / name) for name in ("first", "second"))
    assert first == second
