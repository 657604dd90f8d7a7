"""build.py: repeatable, interruptible, and polite to an old Python. Nothing is really installed here."""

import ast
import importlib.util
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def load():
    """build.py as a module."""
    spec = importlib.util.spec_from_file_location("build_script", ROOT / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def build(tmp_path, monkeypatch):
    """The module, working in an empty folder, with a pip and an environment that only take notes."""
    module = load()
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    venv = tmp_path / ".venv"
    replaced = {
        "ROOT": tmp_path,
        "VENV": venv,
        "TOOLS": tmp_path / ".tools",
        "STAMP": venv / "stamp.json",
        "PYTHON": venv / "python",
    }
    for name, value in replaced.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module, "install_validator", lambda: None)

    def make_venv():
        venv.mkdir(exist_ok=True)
        (venv / "python").touch()

    module.calls = []
    module.code = 0

    def run(arguments):
        module.calls.append(list(arguments))
        return module.code

    monkeypatch.setattr(module, "make_venv", make_venv)
    monkeypatch.setattr(module, "run", run)
    return module


def installs(build):
    return [call[-1] for call in build.calls if "pip" in call]


def test_second_setup_does_nothing(build):
    assert build.main(["setup"]) == 0
    assert installs(build) == [".[dev]"]
    assert build.main(["setup"]) == 0
    assert len(installs(build)) == 1


def test_demo_installs_no_more_than_a_run_needs_and_keeps_what_is_there(build):
    assert build.main(["demo"]) == 0
    assert installs(build) == ["."]
    assert "generate" in build.calls[-1]
    assert build.main(["test", "--fast"]) == 0
    assert installs(build) == [".", ".[dev]"]
    assert build.main(["demo"]) == 0
    assert len(installs(build)) == 2


def test_changed_packages_are_installed_again(build):
    build.main(["setup"])
    (build.ROOT / "pyproject.toml").write_text("[project]\ndependencies = []\n")
    build.main(["setup"])
    assert len(installs(build)) == 2


def test_interrupted_or_failed_setup_is_repeated(build, capsys):
    build.code = 1
    assert build.main(["setup"]) == 2
    assert "run this again" in capsys.readouterr().err
    assert build.stamped() is None
    build.code = 0
    assert build.main(["setup"]) == 0
    build.STAMP.write_text("{half")
    assert build.main(["setup"]) == 0
    assert len(installs(build)) == 3


def test_whole_suite_or_its_quick_part(build):
    build.main(["test", "-k", "mesh"])
    build.main(["test", "--fast"])
    whole, quick = (call for call in build.calls if "pytest" in call)
    assert "-m" not in whole[2:] and whole[-2:] == ["-k", "mesh"]
    assert quick[quick.index("pytest") + 1 :][:2] == ["-m", "not slow"]
    build.code = 1
    assert build.main(["test"]) == 1


def test_modules_of_the_environment_are_compiled_once(tmp_path, monkeypatch):
    """Also where Python is told not to keep what it compiles, or every process would compile torch again."""
    module = load()
    (tmp_path / "once.py").write_text("print('imported')\n")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "PYTHON", Path(sys.executable))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    assert module.run(["-c", "import once"]) == 0
    assert list(tmp_path.glob("__pycache__/once.*.pyc"))


def test_lint_runs_all_checks(build):
    assert build.main(["lint"]) == 0
    assert [call[1] for call in build.calls][-3:] == ["ruff", "ruff", "mypy"]


def test_only_a_working_environment_is_kept(tmp_path, monkeypatch):
    module = load()
    made = []
    monkeypatch.setattr(module, "VENV", tmp_path)
    monkeypatch.setattr(module, "PYTHON", Path(sys.executable))
    kept = subprocess.run

    def fake(command, **options):
        if "venv" in command:
            made.append(command)
            return subprocess.CompletedProcess(command, 0)
        return kept(command, **options)

    monkeypatch.setattr(module.subprocess, "run", fake)
    module.make_venv()
    assert not made
    broken = tmp_path / "python"
    for content in (None, "broken"):
        if content is not None:
            broken.write_text(content)
            broken.chmod(0o755)
        monkeypatch.setattr(module, "PYTHON", broken)
        module.make_venv()
    assert len(made) == 2
    assert all("--clear" in command for command in made)


def test_only_the_standard_library():
    tree = ast.parse((ROOT / "build.py").read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    assert {name.partition(".")[0] for name in names} <= set(sys.stdlib_module_names)


def test_an_old_python_gets_one_clear_line(tmp_path):
    source = (ROOT / "build.py").read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 7))  # an old Python must get as far as the check
    old = source.replace("import sys\n", "import sys\nsys.version_info = (3, 9, 1)\n", 1)
    done = subprocess.run([sys.executable, "-c", old, "setup"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("DreamCraft needs Python 3.11 or later; this is 3.9.")
    assert len(done.stderr.strip().splitlines()) == 1


def test_version_lives_in_one_place():
    manifest = tomllib.loads((ROOT / "blender_manifest.toml").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "version" in project["dynamic"]
    assert "version" not in project
    from dreamcraft3d import __version__

    assert __version__ == manifest["version"]
    assert manifest["license"] == ["SPDX:GPL-3.0-or-later"]
    assert len(manifest["tagline"]) <= 64


def test_exact_pins():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "torch==2.13.0" in project["dependencies"]
    everything = json.dumps(project)
    assert "torchvision" not in everything
    assert "lpips" not in everything
