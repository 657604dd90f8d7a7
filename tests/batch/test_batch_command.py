"""`dreamcraft3d batch`: exit codes, what goes to which stream, and stopping it from elsewhere."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from batches import PAINTER, commits, items, journal, write
from dreamcraft3d.batch.crew import LocalCrew
from dreamcraft3d.batch.lock import BatchLock
from dreamcraft3d.cli import app, batch
from patience import PATIENCE

COMMAND = """
import sys
from dreamcraft3d.batch import crew
crew.LocalCrew.__init__.__kwdefaults__["command"] = {painter!r}
from dreamcraft3d.cli import main
main()
"""


@pytest.fixture(autouse=True)
def quick_worker(monkeypatch):
    monkeypatch.setattr(batch, "LocalCrew", lambda jobs: LocalCrew(jobs, command=PAINTER))


def call(*words: object) -> Result:
    return CliRunner().invoke(app, ["batch", *[str(word) for word in words]])


def start(*words: object) -> subprocess.Popen[str]:
    """The command as a process, with the quick worker."""
    code = COMMAND.format(painter=PAINTER)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, "batch", *[str(word) for word in words]]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_from_nothing_to_done(tmp_path):
    manifest = write(tmp_path, items("a", "poison", "z"))
    assert call("validate", manifest).exit_code == 0
    assert not (tmp_path / "things-out").exists()
    dry = call("run", manifest, "--dry-run")
    assert (dry.exit_code, (tmp_path / "things-out").exists()) == (0, False)
    assert "3 of 3 items would run, unknown" in dry.stdout
    result = call("run", manifest)
    assert result.exit_code == 3
    assert "2 done, 1 failed" in result.stdout
    assert "poison: The picture shows nothing. Choose another one." in result.stdout
    assert "[1/3] a: done" in result.stderr
    status = call("status", manifest)
    assert status.exit_code == 3 and "2 done, 1 failed" in status.stdout
    (tmp_path / "poison.png").rename(tmp_path / "fine.png")
    write(tmp_path, [*items("a", "z"), {"id": "poison", "image": "fine.png"}])
    dry = call("retry", manifest, "--dry-run")
    assert "1 of 3 items would run, about 0.0 minutes" in dry.stdout
    assert call("retry", manifest).exit_code == 0
    assert call("run", manifest).exit_code == 0


@pytest.mark.slow
def test_lines_of_json_for_programs(tmp_path):
    result = call("run", write(tmp_path, items("a", "poison")), "--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["event"] for line in lines] == ["committed", "failed", "summary"]
    assert (lines[1]["id"], lines[1]["code"], lines[1]["failed"]) == ("poison", "InputError", 1)
    assert lines[2] == {"event": "summary", "ok": False, "code": 3, "out": str(tmp_path / "things-out"),
                        "counts": {"done": 1, "failed": 1}}  # fmt: skip
    assert {json.loads(line)["event"] for line in result.stderr.splitlines()} >= {"plan", "started", "end"}
    status = json.loads(call("status", tmp_path / "things.jsonl", "--json").stdout)
    assert [item["state"] for item in status["items"]] == ["done", "failed"]
    assert "items/a/result.glb" in status["items"][0]["outputs"]


def test_mistakes_are_listed_and_nothing_starts(tmp_path):
    manifest = write(tmp_path, [{"id": "a"}, {"id": "b", "image": "none.png", "preset": "quick"}])
    (tmp_path / "none.png").unlink()
    result = call("run", manifest)
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 3
    assert not (tmp_path / "things-out").exists()
    problems = json.loads(call("validate", manifest, "--json").stdout)["problems"]
    assert [problem["line"] for problem in problems] == [1, 2, 2]
    assert call("run", tmp_path / "nowhere.jsonl").exit_code == 2


def test_validate_decodes_what_run_only_opens(tmp_path):
    manifest = write(tmp_path, items("a"))
    noise = os.urandom(3 * 64 * 64)
    from PIL import Image

    Image.frombytes("RGB", (64, 64), noise).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:6000])
    result = call("validate", manifest)
    assert result.exit_code == 2 and "damaged" in result.stderr


def test_exit_codes_of_what_cannot_be_had(tmp_path):
    manifest = write(tmp_path, items("a"))
    assert call("run", manifest, "--executor", "ray").exit_code == 4
    with BatchLock(tmp_path / "things-out"):
        busy = call("run", manifest)
    assert busy.exit_code == 4
    assert f"Process {os.getpid()}" in busy.stderr


def test_a_bug_is_a_bug(tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "load_batch", lambda *_, **__: 1 / 0)
    assert call("run", write(tmp_path, items("a"))).exit_code == 1


def test_a_folder_and_a_table(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    write(folder, items("a", "b"))
    assert call("run", folder, "--limit", 1).exit_code == 0
    assert commits(tmp_path / "pictures-out") == ["a"]
    table = folder / "table.csv"
    table.write_text("id,image,tags\nx,a.png,red;round\n")
    assert call("run", table, "--out", tmp_path / "made").exit_code == 0
    with (tmp_path / "made" / "summary.csv").open(encoding="utf-8-sig") as rows:
        assert next(csv.DictReader(rows))["tags"] == "red;round"


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.slow
def test_ctrl_c_and_cancel_stop_at_a_checkpoint_with_code_5(tmp_path):
    manifest = write(tmp_path, items("slow-1", "slow-2", params={"coarse_nerf.steps": 100}))
    out = tmp_path / "things-out"
    checkpoint = out / "items" / "slow-1" / "stages" / "coarse_nerf"
    process = start("run", manifest)
    wait_for(checkpoint)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 5, stderr
    assert "Stopping at the next step" in stderr and "goes on where it stopped" in stderr
    process = start("run", manifest)
    while len([entry for entry in journal(out) if entry["event"] == "item_started"]) < 2:
        time.sleep(0.02)
    running = json.loads(call("status", manifest, "--json").stdout)
    assert running["runner"]["pid"] == process.pid
    assert "Stopped." in call("cancel", manifest).stdout
    assert process.wait(PATIENCE) == 5
    process.communicate()
    assert not (out / "batch.cancel").exists()
    assert commits(out) == []
    assert "No runner" in call("cancel", manifest).stdout


def test_help_is_quick_to_say_what_there_is():
    text = CliRunner().invoke(app, ["batch", "--help"]).stdout
    for command in ("validate", "run", "retry", "status", "cancel"):
        assert command in text
