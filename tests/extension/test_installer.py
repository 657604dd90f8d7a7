"""Installing the backend: with a real Python, a real environment and a real pip; the wheel is a tiny one made here."""

import json
import os
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from dreamcraft_blender import installer as module
from dreamcraft_blender.installer import Installer, explained, find_pythons, packed_wheel, removal
from dreamcraft_blender.launcher import environment_python, find_installation
from dreamcraft_blender.problems import Problem
from patience import PATIENCE, RUN_PATIENCE

OFFLINE = ("--no-index",)
TEXT = "import json, sys\nprint(json.dumps({'ok': True}))\nsys.exit(2)\n"  # as doctor does on a weak machine


def wheel(folder: Path, main: str = TEXT) -> Path:
    """A wheel called like the backend's, without dependencies."""
    path = folder / "backend" / "dreamcraft3d-0.1.0-py3-none-any.whl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("dreamcraft3d/__init__.py", "")
        archive.writestr("dreamcraft3d/__main__.py", main)
        info = "dreamcraft3d-0.1.0.dist-info/"
        archive.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: dreamcraft3d\nVersion: 0.1.0\n")
        archive.writestr(
            info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(info + "RECORD", "dreamcraft3d/__init__.py,,\ndreamcraft3d/__main__.py,,\n")
    return path


def finished(installer: Installer, seconds: float = RUN_PATIENCE) -> Installer:
    """Polls until it is done; that a poll does not wait for its child, the test of stopping shows."""
    end, last = time.monotonic() + seconds, 0.0
    while not installer.done:
        installer.poll()
        assert installer.fraction >= last
        last = installer.fraction
        time.sleep(0.02)
        assert time.monotonic() < end, installer.text
    return installer


@pytest.fixture
def bare_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's shell may have the real backend on its path."""
    monkeypatch.setenv("PATH", os.defpath)


@pytest.mark.slow
@pytest.mark.usefixtures("bare_path")
def test_installs_beside_blender_resumes_and_is_removed(tmp_path: Path) -> None:
    folder, source = tmp_path / "place" / "backend", wheel(tmp_path)
    assert packed_wheel(tmp_path) == source
    first = finished(Installer(folder, source, chosen=sys.executable, index=OFFLINE))
    assert first.problem is None, (first.problem, first.log.read_text())
    found = find_installation("", folder)
    assert found is not None
    assert found.command[0] == str(environment_python(folder))
    shown = subprocess.run([*found.command], capture_output=True, text=True, check=False)
    assert json.loads(shown.stdout) == {"ok": True}
    # the second time only the check is left
    made = environment_python(folder).lstat().st_mtime_ns
    again = finished(Installer(folder, source, chosen=sys.executable, index=OFFLINE))
    assert again.problem is None
    assert environment_python(folder).lstat().st_mtime_ns == made
    removal(folder).wait(PATIENCE)
    assert not folder.exists()
    assert find_installation("", folder) is None


@pytest.mark.slow
@pytest.mark.usefixtures("bare_path")
def test_a_broken_backend_is_named_and_not_taken_for_installed(tmp_path: Path) -> None:
    folder = tmp_path / "place" / "backend"
    broken = wheel(tmp_path, "raise ImportError('torch')")
    done = finished(Installer(folder, broken, chosen=sys.executable, index=OFFLINE))
    assert done.problem is not None
    assert done.problem.code == "broken_installation"
    assert "ImportError" in done.problem.log
    assert find_installation("", folder) is None


def test_stopping_keeps_what_is_there(tmp_path: Path) -> None:
    installer = Installer(tmp_path / "place", wheel(tmp_path), chosen=sys.executable, index=OFFLINE)
    while installer._child is None:
        installer.poll()
        time.sleep(0.01)
    child = installer._child
    installer.cancel()
    assert child.wait(PATIENCE) != 0
    assert installer.problem is not None
    assert installer.problem.code == "cancelled"


def test_what_is_no_python_is_told_with_a_cure(tmp_path: Path) -> None:
    fake = tmp_path / "python3"
    fake.write_text('#!/bin/sh\necho \'[[3, 8], "/usr", "/usr/bin/python3"]\'\n')
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    for chosen in (str(fake), str(tmp_path / "nothing")):
        done = finished(Installer(tmp_path / "place", wheel(tmp_path), chosen=chosen))
        assert done.problem is not None
        assert done.problem.code == "no_python"
        assert "preferences" in done.problem.remedy


def test_pythons_are_looked_for_outside_of_blender() -> None:
    assert (sys.executable,) not in [tuple(c) for c in find_pythons("/x/python")]
    assert all(len(command) >= 1 for command in find_pythons())


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_read_only_place_is_refused_before_anything_is_downloaded(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(Problem) as caught:
        Installer(tmp_path / "place", wheel(tmp_path))
    assert caught.value.code == "read_only"


def test_a_place_that_is_a_file_and_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Problem) as caught:
        Installer(tmp_path / "file" / "backend", wheel(tmp_path))
    assert caught.value.code == "read_only"
    monkeypatch.setattr(module, "NEEDED_GIB", 1e9)
    with pytest.raises(Problem) as caught:
        Installer(tmp_path / "place", wheel(tmp_path))
    assert caught.value.code == "disk_full"


@pytest.mark.parametrize(
    ("step", "log", "code"),
    [
        ("packages", "OSError: [Errno 28] No space left on device", "disk_full"),
        ("packages", "Temporary failure in name resolution", "no_network"),
        ("packages", "No matching distribution found for torch", "broken_installation"),
        ("environment", "anything", "broken_installation"),
    ],
)
def test_failures_mean_something(step: str, log: str, code: str) -> None:
    problem = explained(step, log)
    assert problem.code == code
    assert problem.remedy
    assert problem.log == log


def test_what_lies_there_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.jpg").write_text("")
    with pytest.raises(Problem, match="holds other things"):
        Installer(tmp_path / "photos", wheel(tmp_path))
    assert (tmp_path / "photos" / "mine.jpg").is_file()


def test_only_what_was_installed_here_is_removed(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="does not hold a backend"):
        removal(tmp_path)
    assert tmp_path.is_dir()
