"""The workspace: nothing half-written, resumable, one process at a time."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dreamcraft3d.errors import OutputError, WorkspaceBusyError
from dreamcraft3d.workspace import TEMPORARY, Workspace, atomic_path


def leftovers(folder: Path) -> list[Path]:
    return list(folder.rglob(f"{TEMPORARY}*"))


def test_writes_and_reads_back(tmp_path):
    workspace = Workspace(tmp_path / "deep" / "out")
    assert workspace.write_json("report.json", {"größe": [1, 2.5]}).read_text(encoding="utf-8").startswith("{")
    assert workspace.write_bytes("a/b.bin", b"\0\1").read_bytes() == b"\0\1"
    assert not leftovers(tmp_path)


def test_making_the_object_touches_nothing(tmp_path):
    Workspace(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_failing_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "result.glb"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        assert temporary.suffix == ".glb"
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert not leftovers(tmp_path)


@pytest.mark.parametrize(("code", "word"), [(errno.ENOSPC, "full"), (errno.EACCES, "allowed"), (errno.EIO, "write")])
def test_a_failing_disk_is_one_clear_line(tmp_path, monkeypatch, code, word):
    def fail(_handle):
        raise OSError(code, os.strerror(code))

    path = tmp_path / "report.json"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match=word) as caught:
        Workspace(tmp_path).write_json("report.json", {})
    assert caught.value.remedy
    assert path.read_bytes() == b"old"
    assert not leftovers(tmp_path)


def test_a_library_with_errors_of_its_own_on_a_full_disk(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    for free, kind in ((0, OutputError), (usage.total, RuntimeError)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _path, free=free: usage._replace(free=free))
        with pytest.raises(kind), atomic_path(tmp_path / "x.pt"):
            raise RuntimeError("unexpected position")
        assert not leftovers(tmp_path)


def test_full_disk_is_found_before_the_work_and_leaves_no_folder(tmp_path, monkeypatch):
    def fail(_handle):
        raise OSError(errno.ENOSPC, "")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match="full"):
        Workspace(tmp_path / "a" / "b").check_writable()
    assert not (tmp_path / "a").exists()


def test_little_space_left(tmp_path):
    with pytest.raises(OutputError, match="are free"):
        Workspace(tmp_path / "out").check_writable(free_mib=1 << 40)
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(OutputError):
            Workspace(path).check_writable()
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="allowed"):
        Workspace(tmp_path / "out").check_writable()
    tmp_path.chmod(0o700)


def test_stage_is_finished_only_for_its_fingerprint(tmp_path):
    workspace = Workspace(tmp_path)
    assert not workspace.finished("neus", "a")
    assert workspace.record("neus") is None
    workspace.begin("neus", "a")
    assert not workspace.finished("neus", "a")
    workspace.checkpoint("neus").write_bytes(b"state")
    workspace.mark_finished("neus", "a", {"seconds": 1.5})
    assert workspace.finished("neus", "a")
    assert not workspace.finished("neus", "b")
    assert workspace.record("neus") == {"seconds": 1.5}
    assert not workspace.checkpoint("neus").exists()


def test_begin_keeps_a_checkpoint_of_the_same_work_and_removes_any_other(tmp_path):
    workspace = Workspace(tmp_path)
    workspace.begin("neus", "a")
    workspace.checkpoint("neus").write_bytes(b"state")
    (workspace.stage("neus") / "previews").mkdir()
    workspace.begin("neus", "a")
    assert workspace.checkpoint("neus").read_bytes() == b"state"
    workspace.mark_finished("neus", "a", {})
    folder = workspace.begin("neus", "b")
    assert [path.name for path in folder.iterdir()] == ["started.json"]
    assert not workspace.finished("neus", "a")


def test_damaged_marks_mean_not_finished(tmp_path):
    workspace = Workspace(tmp_path)
    for text in ("", "{", "[]", '{"fingerprint": 3}'):
        workspace.write_text("stages/neus/finished.json", text)
        assert not workspace.finished("neus", "a")


HOLDER = """
import sys, time
from pathlib import Path
from dreamcraft3d.workspace import Workspace, atomic_path
with Workspace(sys.argv[1]) as workspace, atomic_path(workspace.path / "x.bin") as temporary:
    temporary.write_bytes(b"half")
    print("ready", flush=True)
    time.sleep(60)
"""


def test_second_process_is_refused_and_a_killed_one_leaves_no_trace(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        with pytest.raises(WorkspaceBusyError, match=str(holder.pid)), Workspace(tmp_path):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert leftovers(tmp_path)
    with Workspace(tmp_path):
        assert not leftovers(tmp_path)
    assert not (tmp_path / "x.bin").exists()


def test_lock_is_released(tmp_path):
    for _ in range(2):
        with Workspace(tmp_path), pytest.raises(WorkspaceBusyError), Workspace(tmp_path):
            pass


def test_a_run_that_fails_before_writing_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), Workspace(tmp_path / "a" / "out"):
        raise RuntimeError
    assert not (tmp_path / "a").exists()
    with pytest.raises(RuntimeError), Workspace(tmp_path / "out") as workspace:
        workspace.write_text("note.txt", "")
        raise RuntimeError
    assert (tmp_path / "out" / "note.txt").exists()


WRITER = """
import itertools, sys
from dreamcraft3d.workspace import Workspace
workspace = Workspace(sys.argv[1])
for i in itertools.count():
    workspace.write_bytes("state.bin", bytes([i % 256]) * 300_000)
    if i == 0:
        print("ready", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_killed_in_the_middle_of_writing(tmp_path):
    for delay in (0.0, 0.003, 0.011):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        time.sleep(delay)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        data = (tmp_path / "state.bin").read_bytes()
        assert len(data) == 300_000
        assert len(set(data)) == 1
