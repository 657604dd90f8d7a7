"""The runner is killed without warning, again and again: every item is committed once, and nothing is left over."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from batches import commits, items, journal, make, tell_tale, write
from dreamcraft3d.batch.lock import holder_of
from patience import PATIENCE, RUN_PATIENCE

MORTAL = Path(__file__).with_name("mortal.py")
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def die(manifest: Path, moment: int) -> int:
    return subprocess.run(
        [sys.executable, str(MORTAL), str(manifest), str(moment)], env=ENVIRONMENT, timeout=RUN_PATIENCE
    ).returncode


def check(manifest: Path, names: list[str], undisturbed: Path) -> None:
    """What must be true of a batch that was killed often and then finished."""
    out = manifest.with_name("things-out")
    assert sorted(commits(out)) == sorted(names)
    assert not list(out.rglob(".partial*"))
    assert tell_tale(out) == tell_tale(undisturbed)
    assert holder_of(out) is None
    over: set[str] = set()
    for entry in journal(out):
        assert not (entry["event"] == "item_started" and entry["id"] in over), entry
        over |= {entry["id"]} if entry["event"] == "item_committed" else set()
    workers = {int(line) for made in out.rglob("made.txt") for line in made.read_text().split()}
    deadline = time.monotonic() + PATIENCE
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(alive, workers))


def alive(pid: int) -> bool:
    try:
        return "painter.py" in " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return False


def undisturbed(folder: Path, names: list[str]) -> Path:
    folder.mkdir()
    manifest = write(folder, items(*names))
    make(manifest, jobs=2)
    return manifest.with_name("things-out")


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_any_durable_write(tmp_path, kills):
    names = [f"thing-{number}" for number in range(kills)]
    calm = undisturbed(tmp_path / "calm", names)
    (tmp_path / "wild").mkdir()
    manifest = write(tmp_path / "wild", items(*names))
    chance = random.Random(kills)
    for _ in range(kills):
        # One of the writes of the start (lock, journal) or of the first items: less than an item is done each time.
        assert die(manifest, chance.randint(1, 10)) == -signal.SIGKILL
    make(manifest, jobs=2)
    check(manifest, names, calm)


def lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.slow
def test_killed_at_any_time(tmp_path):
    """Not by the clock, so that a quick machine is killed as often: after some lines of the journal, and a moment."""
    names = [f"thing-{number}" for number in range(80)]
    calm = undisturbed(tmp_path / "calm", names)
    (tmp_path / "wild").mkdir()
    manifest = write(tmp_path / "wild", items(*names))
    chance, path = random.Random(1), tmp_path / "wild" / "things-out" / "journal.jsonl"
    for _ in range(20):
        enough = lines_of(path) + chance.randint(0, 6)  # an item writes two
        process = subprocess.Popen([sys.executable, str(MORTAL), str(manifest), "-1"], env=ENVIRONMENT)
        while lines_of(path) < enough and process.poll() is None:
            time.sleep(0.002)
        time.sleep(chance.uniform(0.0, 0.03))
        process.kill()
        assert process.wait() == -signal.SIGKILL
    make(manifest, jobs=2)
    check(manifest, names, calm)
