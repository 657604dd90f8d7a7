#!/usr/bin/env python3
"""The one entry point of a developer. It needs Python 3.11 or later and nothing else.

    python3 build.py setup              make .venv and install everything
    python3 build.py demo               set up what is missing, then turn examples/mushroom.png into a mesh
    python3 build.py test [--fast] ...  set up what is missing, then run the tests (further words go to pytest)
    python3 build.py lint               ruff and mypy
    python3 build.py package            the Blender extension's zip, and a repository that Blender can install it from

All of it may be repeated and interrupted: what is already there is not done again. The installed state is a stamp in
.venv, written last and named by what was installed (pyproject.toml and Python); without a fitting stamp the
installation is repeated.
"""

import sys

if sys.version_info < (3, 11):
    sys.exit(
        "DreamCraft needs Python 3.11 or later; this is {}.{}. Install a newer one from https://www.python.org "
        "and run this again with it.".format(*sys.version_info[:2])
    )

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
TOOLS = ROOT / ".tools"
STAMP = VENV / "dreamcraft-setup.json"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

RUN: tuple[str, ...] = ()
"""Optional parts that a run needs: none."""

DEVELOP = ("dev",)
"""Optional parts that tests and checks need."""

DIST = ROOT / "dist"
"""Where packages go."""

BACKEND_SOURCES = (
    "backend/dreamcraft3d",
    "pyproject.toml",
    "setup.py",
    "MANIFEST.in",
    "blender_manifest.toml",
    "README.md",
    "LICENSE",
)
"""What the backend's wheel is made of."""

LEFTOVERS = shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info", ".*")

VALIDATOR = "gltf-validator@2.0.0-dev.3.10"


class BuildError(Exception):
    """Something that the developer can act on; shown as one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    parser = argparse.ArgumentParser(description="Set up, try, test and check DreamCraft.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("setup", help="make .venv and install everything")
    commands.add_parser("demo", help="set up what is missing, then turn a picture into a mesh")
    testing = commands.add_parser("test", help="set up what is missing, then run the tests")
    testing.add_argument("--fast", action="store_true", help="leave out the slow ones")
    commands.add_parser("lint", help="ruff and mypy")
    commands.add_parser("package", help="the Blender extension's zip, and a repository to install it from")
    known, rest = parser.parse_known_args(arguments)
    if rest and known.command != "test":
        parser.error(f"unknown words: {' '.join(rest)}")
    try:
        if known.command == "setup":
            return setup()
        if known.command == "demo":
            return demo()
        if known.command == "lint":
            return lint()
        if known.command == "package":
            return package()
        return test(rest, fast=known.fast)
    except BuildError as error:
        print(f"build.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nbuild.py: stopped; run the same command again to go on.", file=sys.stderr)
        return 130


def setup() -> int:
    """Everything that developing needs."""
    install(DEVELOP)
    install_validator()
    say("ready. Try: python3 build.py demo")
    return 0


def demo() -> int:
    """The main job on a picture of the repository."""
    picture, out = ROOT / "examples" / "mushroom.png", ROOT / "out" / "demo"
    install(RUN)
    say(f"turning {picture.relative_to(ROOT)} into a mesh (the first run also compiles kernels)")
    command = ["-m", "dreamcraft3d", "generate", str(picture), "--preset", "preview", "--out", str(out)]
    code = run(command)
    if code == 0:
        say(f"look at {out / 'turntable.png'}, and open {out / 'result.glb'} in Blender")
    return code


SIDE_BY_SIDE = ["-n", "auto", "--maxprocesses", "4", "--dist", "worksteal"]
"""A process per core; one that has nothing left takes tests over from the others."""


def test(words: Sequence[str], *, fast: bool) -> int:
    """The whole suite, or its quick part."""
    install(DEVELOP)
    install_validator()
    return run(["-m", "pytest", *(["-m", "not slow"] if fast else []), *SIDE_BY_SIDE, *words])


def lint() -> int:
    """Style, formatting and types; runs all three and fails if one does."""
    install(DEVELOP)
    checks = (["-m", "ruff", "check", "."], ["-m", "ruff", "format", "--check", "."], ["-m", "mypy"])
    return max(run(check) for check in checks)


# --- packaging ------------------------------------------------------------------------------------


def package() -> int:
    """dist/dreamcraft-VERSION.zip, validated, and dist/repository with its index.json.

    What is packed is staged first: the manifest, the extension's modules, and the backend's wheel beside them (which
    Blender never installs: the extension gives it to a Python of its own).
    """
    install(DEVELOP)
    tool = extension_tool()
    with tempfile.TemporaryDirectory() as folder:
        staged = stage(Path(folder))
        DIST.mkdir(exist_ok=True)
        for old in DIST.glob("dreamcraft-*.zip"):
            old.unlink()
        blender_ext(tool, "build", "--source-dir", str(staged), "--output-dir", str(DIST))
    (archive,) = DIST.glob("dreamcraft-*.zip")
    blender_ext(tool, "validate", str(archive))
    repository = DIST / "repository"
    shutil.rmtree(repository, ignore_errors=True)
    repository.mkdir()
    shutil.copy2(archive, repository)
    blender_ext(tool, "server-generate", "--repo-dir", str(repository))
    say(
        f"{archive.relative_to(ROOT)} ({archive.stat().st_size >> 20} MB) and {repository.relative_to(ROOT)}/index.json"
    )
    return 0


def stage(folder: Path) -> Path:
    """A folder with exactly what goes into the zip."""
    staged, source = folder / "extension", folder / "source"
    shutil.copytree(ROOT / "dreamcraft_blender", staged, ignore=LEFTOVERS)
    shutil.copy2(ROOT / "blender_manifest.toml", staged)
    shutil.copy2(ROOT / "LICENSE", staged)
    for name in BACKEND_SOURCES:
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target, ignore=LEFTOVERS)
        else:
            shutil.copy2(ROOT / name, target)
    say("building the backend's wheel")
    wheel = ["-m", "pip", "wheel", "--disable-pip-version-check", "--quiet", "--no-deps", "--wheel-dir"]
    if run([*wheel, str(staged / "backend"), str(source)]) != 0:
        raise BuildError("the backend's wheel could not be built; pip's message is above.")
    return staged


def extension_tool() -> Path:
    """Blender's own packager: a plain Python script that comes with the bpy package."""
    found = sorted(VENV.glob("**/site-packages/bpy/*/scripts/addons_core/bl_pkg/cli/blender_ext.py"))
    if not found:
        raise BuildError("Blender's packager is missing. Use Python 3.11 for .venv: its bpy package brings it.")
    return found[-1]


def blender_ext(tool: Path, *words: str) -> None:
    """One command of Blender's packager; what it says is shown."""
    say(f"extension {words[0]}")
    if run([str(tool), *words]) != 0:
        raise BuildError(f"extension {words[0]} found a fault; it is named above.")


# --- setting up -----------------------------------------------------------------------------------


def install(extras: Sequence[str]) -> None:
    """Makes .venv and installs the project with these optional parts, unless that was done before."""
    done = stamped()
    if done is not None and set(extras) <= set(done):
        return
    start = time.monotonic()
    wanted = sorted({*extras, *(done or ())})
    make_venv()
    target = f".[{','.join(wanted)}]" if wanted else "."
    say("installing torch, warp and the other packages (several hundred megabytes the first time)")
    STAMP.unlink(missing_ok=True)
    if run(["-m", "pip", "install", "--disable-pip-version-check", "--no-compile", "--editable", target]) != 0:
        raise BuildError(
            "pip could not install the packages; its message is above. Check the network and run this again."
        )
    partial = STAMP.with_suffix(".partial")
    partial.write_text(json.dumps({"key": key(), "extras": wanted}), encoding="utf-8")
    partial.replace(STAMP)
    say(f"installed in {time.monotonic() - start:.0f} s")


def stamped() -> list[str] | None:
    """The optional parts that are installed; None if the installation is missing, unfinished or out of date."""
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
        return list(stamp["extras"]) if stamp["key"] == key() and PYTHON.exists() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def key() -> str:
    """Names an installation: the packages that are asked for, where the source is, and for which Python."""
    digest = hashlib.sha256()
    for part in ((ROOT / "pyproject.toml").read_bytes(), str(ROOT).encode(), str(sys.version_info[:2]).encode()):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def make_venv() -> None:
    """A working .venv: kept if its Python runs and is of this version, else made new."""
    if _version_of(PYTHON) == str(sys.version_info[:2]):
        return
    say(f"making {VENV.name} with Python {sys.version_info[0]}.{sys.version_info[1]}")
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=False)
    if made.returncode != 0:
        raise BuildError("cannot make a virtual environment. On Debian and Ubuntu: sudo apt install python3-venv.")


def _version_of(python: Path) -> str | None:
    """(major, minor) of an environment's Python, as text; None if it does not run, or has no pip."""
    probe = "import sys, pip; print(sys.version_info[:2])"
    try:
        found = subprocess.run([str(python), "-c", probe], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def install_validator() -> None:
    """The Khronos glTF validator for the tests, where npm is; the tests that need it are skipped elsewhere."""
    npm = shutil.which("npm")
    if npm is None or (TOOLS / "node_modules" / "gltf-validator").is_dir():
        return
    say("installing the glTF validator")
    TOOLS.mkdir(exist_ok=True)
    command = [npm, "install", "--no-audit", "--no-fund", "--no-save", "--prefix", str(TOOLS), VALIDATOR]
    if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
        say("npm could not install it; the tests that need it will be skipped")


# --- small parts ----------------------------------------------------------------------------------


def run(arguments: Sequence[str]) -> int:
    """Runs the environment's Python in the project's folder; returns its exit code. Ctrl-C reaches the child, too.

    The environment is ours, so that its modules are compiled when they are first imported, and never again, even
    where Python is told not to keep what it compiles.
    """
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    child = subprocess.Popen([str(PYTHON), *arguments], cwd=ROOT, env=variables)
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            continue  # the child got it as well and decides what to do


def say(text: str) -> None:
    """A line about what happens next."""
    print(f"== {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
