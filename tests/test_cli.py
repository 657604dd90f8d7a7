"""The command line: exit codes, one clear line for every mistake, JSON for programs, Ctrl-C that stops and resumes."""

import json
import os
import re
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from dreamcraft3d import __version__
from dreamcraft3d.cli import app
from dreamcraft3d.progress import Progress
from dreamcraft3d.terminal import reporting
from patience import PATIENCE, eventually


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def one_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if "Warp" not in line]
    assert len(lines) == 1, text
    return lines[0]


@pytest.fixture
def picture(tmp_path) -> Path:
    y, x = np.mgrid[0:64, 0:64]
    mask = (x - 32) ** 2 + (y - 32) ** 2 < 400
    rgba = np.dstack([np.full((64, 64, 3), 120), mask * 255]).astype(np.uint8)
    Image.fromarray(rgba).save(tmp_path / "ball.png")
    return tmp_path / "ball.png"


# --- mistakes -------------------------------------------------------------------------------------


def bad_pictures(folder: Path) -> dict[str, str]:
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("hello")
    Image.new("RGB", (1, 1)).save(folder / "one.png")
    header = struct.pack("<IiiHHIIiiII", 40, 30000, 30000, 1, 24, 0, 0, 2835, 2835, 0, 0)
    (folder / "huge.bmp").write_bytes(b"BM" + struct.pack("<IHHI", 2_700_000_054, 0, 0, 54) + header)
    Image.new("RGBA", (64, 64)).save(folder / "clear.png")
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    Image.fromarray(noise).save(folder / "cut.jpg")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:3000])
    return {
        "empty.png": "empty",
        "text.png": "not a picture",
        "one.png": "1 x 1",
        "huge.bmp": "megapixels",
        "clear.png": "transparent",
        "noise.png": "noise",
        "cut.jpg": "damaged",
        "missing.png": "no file",
    }


def test_bad_pictures_cost_one_line_and_leave_nothing(tmp_path):
    out = tmp_path / "deep" / "out"
    for name, words in bad_pictures(tmp_path).items():
        result = call("generate", tmp_path / name, "--out", out)
        assert result.exit_code == 2, (name, result.output)
        assert words in one_line(result.stderr)
        assert not result.stdout
        assert not out.parent.exists(), name


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--preset", "previw"], "Did you mean preview?"),
        (["--seed", "-1"], "seed"),
        (["--set", "coarse_nerf.stepz=3"], "coarse_nerf.steps"),
        (["--set", "coarse_nerf.steps=many"], "integer"),
        (["--set", "nonsense"], "stage.key=value"),
        (["--texture-size", "7"], "export.texture_size"),
        (["--target-faces", "0"], "export.target_faces"),
        (["--elevation", "95"], "reference.elevation"),
        (["--prior", "gpt"], "prior"),
        (["--mask", "missing.png"], "no file"),
        (["--shape", "missing.glb"], "no file"),
        (["--set", "shape.pitch=90"], "shape.pitch"),
    ],
)
def test_bad_settings_cost_one_line(picture, tmp_path, words, expected):
    result = call("generate", picture, "--out", tmp_path / "out", *words)
    assert result.exit_code == 2
    assert expected in one_line(result.stderr)
    assert not (tmp_path / "out").exists()


def test_unknown_option_and_missing_argument():
    assert call("generate").exit_code == 2
    assert call("generate", "a.png", "--colour").exit_code == 2
    assert call("paint").exit_code == 2


def test_output_in_the_way(picture):
    result = call("generate", picture, "--out", picture)
    assert result.exit_code == 2
    assert "another --out folder" in one_line(result.stderr)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
def test_full_disk_is_found_before_the_work(picture, tmp_path, monkeypatch):
    def fail(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    result = call("generate", picture, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "disk is full" in one_line(result.stderr)
    assert not (tmp_path / "out").exists()


def test_mistakes_as_json(tmp_path):
    result = call("generate", tmp_path / "missing.png", "--json")
    assert result.exit_code == 2
    answer = json.loads(one_line(result.stdout))
    assert answer == {
        "ok": False,
        "code": 2,
        "error": f"There is no file {tmp_path / 'missing.png'}.",
        "remedy": "Check the path.",
    }


def test_other_commands_refuse_a_missing_mesh(tmp_path):
    for words in (["turntable", tmp_path / "no.glb"], ["evaluate", "--oracle", tmp_path / "no.glb"]):
        result = call(*words)
        assert result.exit_code == 2
        assert "no file" in one_line(result.stderr)


# --- quick answers --------------------------------------------------------------------------------


def test_version_help_and_settings():
    assert call("--version").stdout.strip() == __version__
    assert "generate" in call("--help").stdout
    settings = call("settings", "--preset", "paper")
    assert "coarse_nerf.steps = 5000" in settings.stdout
    assert json.loads(call("settings", "--json").stdout)["preset"] == "preview"


def test_doctor_names_a_cure_for_everything_that_is_wrong():
    result = call("doctor", "--json")
    answer = json.loads(result.stdout.splitlines()[-1])
    checks = {check["name"]: check for check in answer["checks"]}
    assert {"python", "torch", "warp", "disk", "memory", "bundled prior"} <= checks.keys()
    assert checks["torch"]["status"] == checks["warp"]["status"] == "ok"
    assert all(check["cure"] for check in answer["checks"] if check["status"] != "ok")
    assert result.exit_code == (0 if answer["ok"] else 2)


def test_bench_prints_a_line_per_kernel(monkeypatch):
    from dreamcraft3d.evaluation import bench

    monkeypatch.setattr(bench, "run_all", lambda: [bench.BenchRow("hash grid", 2.0, 50.0, 25.0, "200k points")])
    assert "hash grid       2.0      50.0    25.0x  200k points" in call("bench").stdout
    answer = json.loads(call("bench", "--json").stdout)
    assert answer["rows"][0]["ratio"] == 25.0


def test_help_loads_no_torch():
    code = (
        "import sys; from dreamcraft3d import cli; print(sorted({'torch', 'numpy', 'cv2', 'warp'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- a run, with a pipeline that only counts ------------------------------------------------------

DRIVER = """
import sys, time, types
from pathlib import Path

def generate(picture, config, workspace, progress):
    if config.seed == 13:
        raise ZeroDivisionError("bad luck")
    with workspace:
        done = workspace.file("steps.txt")
        start = int(done.read_text()) if done.exists() else 0
        progress.note(f"starting at {start}")
        for step in progress.track("coarse_nerf", range(start, 40), 40):
            workspace.write_text("steps.txt", str(step + 1))
            time.sleep(0.02)
            if config.seed == 7:
                time.sleep(600)
            while config.seed == 8 and step == 2 and not workspace.file("go").exists():
                time.sleep(0.02)
        glb = workspace.write_bytes("result.glb", b"glTF")
        return types.SimpleNamespace(glb=glb, turntable=glb, report={"seed": config.seed})

fake = types.ModuleType("dreamcraft3d.pipeline")
fake.generate = generate
import dreamcraft3d
sys.modules["dreamcraft3d.pipeline"] = dreamcraft3d.pipeline = fake
from dreamcraft3d.cli import main
main()
"""


def start(*words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", DRIVER, "generate", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(process: subprocess.Popen[str], pattern: str) -> str:
    """What it says until the pattern comes, that line included."""
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if re.search(pattern, line):
            return said
    raise AssertionError(f"never said {pattern}")


def test_a_run_as_json(picture, tmp_path):
    stdout, stderr = start(picture, "--out", tmp_path / "out", "--json", "--seed", 5).communicate(timeout=PATIENCE)
    answer = json.loads(one_line(stdout))
    assert answer["ok"]
    assert answer["report"] == {"seed": 5}
    assert Path(answer["glb"]).read_bytes() == b"glTF"
    events = [json.loads(line) for line in stderr.splitlines()]
    steps = [event for event in events if event["kind"] == "step"]
    assert steps[-1]["step"] == steps[-1]["total"] == 40
    assert {"stage_started", "note", "stage_finished"} <= {event["kind"] for event in events}


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_stops_within_a_step_and_the_same_command_resumes(picture, tmp_path):
    words = (picture, "--out", tmp_path / "out", "--json", "--seed", 8)
    run = start(*words)
    steps = tmp_path / "out" / "steps.txt"
    eventually(lambda: steps.exists() and steps.read_text() == "3")  # the third step waits for us
    run.send_signal(signal.SIGINT)
    said = wait_for(run, "Ctrl-C again")
    (tmp_path / "out" / "go").touch()
    stdout, stderr = run.communicate(timeout=PATIENCE)
    assert run.returncode == 130
    assert "resumes" in json.loads(one_line(stdout))["remedy"]
    assert "Traceback" not in said + stderr
    assert steps.read_text() == "3"
    stdout, stderr = start(*words).communicate(timeout=PATIENCE)
    assert json.loads(stdout)["ok"]
    assert "starting at 3" in stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_second_ctrl_c_kills(picture, tmp_path):
    run = start(picture, "--out", tmp_path / "out", "--json", "--seed", 7)
    wait_for(run, "starting at")
    run.send_signal(signal.SIGINT)
    wait_for(run, "Ctrl-C again")
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=PATIENCE)
    assert run.returncode == -signal.SIGINT


def test_a_bug_leaves_its_traceback_in_a_file(picture, tmp_path):
    (tmp_path / "out").mkdir()
    run = start(picture, "--out", tmp_path / "out", "--seed", 13)
    _, stderr = run.communicate(timeout=PATIENCE)
    assert run.returncode == 1
    assert "ZeroDivisionError: bad luck" in one_line(stderr)
    assert "in generate" in (tmp_path / "out" / "dreamcraft3d-error.log").read_text()


def test_bars_show_steps_and_time_left():
    from rich.console import Console

    console = Console(force_terminal=True, width=80, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    with reporting(console, as_json=False) as progress:
        for _ in progress.track("coarse_nerf", range(3), 3):
            progress.warn("careful")
    text = console.export_text()
    assert "Coarse NeRF" in text
    assert "3/3" in text
    assert "Warning: careful" in text
    console.file.close()


def test_plain_lines_where_nothing_can_be_redrawn():
    from rich.console import Console

    with Console(record=True, file=open(os.devnull, "w")).file as file:  # noqa: PTH123
        console = Console(record=True, file=file)
        with reporting(console, as_json=False) as progress:
            assert isinstance(progress, Progress)
            list(progress.track("neus", range(3), 3))
            progress.artifact("result.glb", Path("out") / "result.glb")
        text = console.export_text()
    assert "NeuS: done in 0:00" in text
    assert "result.glb" in text
