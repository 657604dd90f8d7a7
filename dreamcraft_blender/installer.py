"""Installing the backend beside Blender: an environment of its own, made step by step by child processes.

Plain Python. Blender's own Python is never touched. The wheel comes packed in the extension; its dependencies come from
the package index, so the caller asks first whether Blender may go online. `poll` is called by a timer and never waits.
Each finished step is written down; after an interruption the next run goes on there, and `repair` starts afresh.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .launcher import clean_environment, detached, environment_python, tail
from .problems import Problem

__all__ = ["Installer", "find_pythons", "packed_wheel", "removal"]

OLDEST, NEWEST = (3, 11), (3, 14)
"""Versions of Python that the backend's dependencies exist for."""

NEEDED_GIB = 6.0
"""Free space that an installation wants (torch is most of it)."""

PROBE = "import json, sys, venv, ensurepip; print(json.dumps([sys.version_info[:2], sys.prefix, sys.executable]))"
STAMP = "installed.json"
PROGRESS = "installing.json"


@dataclass(frozen=True)
class Step:
    """One child process, and what is said while it works."""

    name: str
    command: tuple[str, ...]


def packed_wheel(addon: Path) -> Path | None:
    """The backend's wheel inside the extension; none in a source checkout."""
    return next(iter(sorted((addon / "backend").glob("dreamcraft3d-*.whl"))), None)


def find_pythons(chosen: str = "") -> Iterator[tuple[str, ...]]:
    """Commands that may be a suitable Python, the likeliest first; the chosen one is the only one, if there is one."""
    if chosen:
        yield (chosen,)
        return
    versions = [f"3.{minor}" for minor in (12, 13, 11, 14)]
    if sys.platform == "win32":
        launcher = shutil.which("py")
        if launcher:
            yield from ((launcher, f"-{version}") for version in versions)
    names = [f"python{version}" for version in versions] + ["python3", "python"]
    places = [None, "/usr/local/bin", "/opt/homebrew/bin", str(Path.home() / ".local/bin")]
    seen: set[str] = set()
    for name in names:
        for place in places:
            found = shutil.which(name, path=place)
            if found and found not in seen:
                seen.add(found)
                yield (found,)


def probe(command: Sequence[str], *, seconds: float = 10.0) -> str | None:
    """The executable behind a command, if it can make an environment for the backend. Takes a moment: not in a tick."""
    try:
        done = subprocess.run(
            [*command, "-I", "-c", PROBE],
            capture_output=True,
            timeout=seconds,
            check=True,
            env=clean_environment(),
            **{key: value for key, value in detached().items() if key == "creationflags"},
        )
        version, _, executable = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return str(executable) if OLDEST <= tuple(version) <= NEWEST else None


def no_python(chosen: str) -> Problem:
    versions = f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
    if chosen:
        text = f"{chosen} is not a Python {versions} that can make environments."
        return Problem("no_python", text, "Choose another one in the preferences.")
    if sys.platform == "win32":
        cure = "Install Python 3.12 from python.org (or: winget install Python.Python.3.12), then press Install again."
    elif sys.platform == "darwin":
        cure = "Install Python 3.12 from python.org (or: brew install python@3.12), then press Install again."
    else:
        cure = (
            "Install it, with its venv part (Debian, Ubuntu: sudo apt install python3-venv), then press Install again."
        )
    return Problem("no_python", f"No Python {versions} was found outside of Blender.", cure)


class Installer:
    """One installation under way. Read `fraction` and `text`; `poll` until `done`; then `problem` tells how it went."""

    def __init__(self, folder: Path, wheel: Path, *, chosen: str = "", index: Sequence[str] = ()) -> None:
        self.folder = folder
        self.wheel = wheel
        self.done = False
        self.problem: Problem | None = None
        self.text = "Looking for a Python"
        self.log = folder.parent / "install.log"
        self._chosen = chosen
        self._index = tuple(index)
        self._candidates = find_pythons(chosen)
        self._probe: subprocess.Popen[str] | None = None
        self._steps: list[Step] = []
        self._finished: list[str] = []
        self._child: subprocess.Popen[bytes] | None = None
        self._packages = 0
        self._prepare()

    @property
    def fraction(self) -> float:
        """Between 0 and 1; the middle step is nearly all of it and counts packages."""
        if self.done:
            return 1.0
        if not self._steps:
            return 0.0
        done, name = len(self._finished), self._steps[len(self._finished)].name
        inside = 1.0 - 0.97**self._packages if name == "packages" else 0.0
        return (0.05, 0.1, 0.95)[min(done, 2)] + (0.85 * inside if name == "packages" else 0.0)

    def poll(self) -> None:
        """Looks at the child; starts the next one. Never waits."""
        if self.done:
            return
        try:
            if not self._steps:
                self._look_for_python()
            elif self._child is None:
                self._begin(self._steps[len(self._finished)])
            else:
                self._watch(self._child)
        except OSError as error:
            self._fail(
                Problem("read_only", f"The installation stopped: {error}.", "Choose another folder in the preferences.")
            )

    def cancel(self) -> None:
        """Ends the child; what is finished stays and is used by the next run."""
        for child in (self._child, self._probe):
            if child is not None and child.poll() is None:
                child.terminate()
        self._fail(Problem("cancelled", "The installation was stopped.", "Install again: it goes on where it was."))

    def _prepare(self) -> None:
        """Refuses what cannot end well before anything is downloaded."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "writable").write_text("")
            (self.folder / "writable").unlink()
        except OSError as error:
            text = f"The folder {self.folder} cannot be written ({error.strerror})."
            raise Problem("read_only", text, "Choose another folder in the preferences.") from error
        marks = (STAMP, PROGRESS, "pyvenv.cfg")
        if any(self.folder.iterdir()) and not any((self.folder / name).is_file() for name in marks):
            text = f"The folder {self.folder} holds other things, and an installation would replace them."
            raise Problem("in_the_way", text, "Choose another folder in the preferences.")
        self._note(PROGRESS, self._noted())  # from now on the folder is ours
        free = shutil.disk_usage(self.folder).free / 2**30
        if free < NEEDED_GIB:
            text = f"Only {free:.1f} GiB are free at {self.folder}; the backend needs {NEEDED_GIB:.0f}."
            raise Problem("disk_full", text, "Free some space, or choose another folder in the preferences.")

    def _look_for_python(self) -> None:
        if self._probe is None:
            command = next(self._candidates, None)
            if command is None:
                self._fail(no_python(self._chosen))
                return
            try:
                self._probe = subprocess.Popen(
                    [*command, "-I", "-c", PROBE],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    stdin=subprocess.DEVNULL,
                    text=True,
                    env=clean_environment(),
                    **detached(),
                )
            except OSError:
                return  # the next poll tries the next one
        if self._probe.poll() is None:
            return
        answer = self._probe.communicate()[0]
        self._probe = None
        try:
            version, _, executable = json.loads(answer)
        except ValueError:
            return
        if OLDEST <= tuple(version) <= NEWEST:
            self._plan(str(executable))

    def _plan(self, python: str) -> None:
        """The steps for this Python and this wheel, less those that were finished for just these."""
        inside = str(environment_python(self.folder))
        pip = (
            inside,
            "-I",
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--no-input",
            "--progress-bar",
            "off",
        )
        self._steps = [
            Step("environment", (python, "-I", "-m", "venv", "--clear", str(self.folder))),
            Step("packages", (*pip, *self._index, str(self.wheel))),
            Step("check", (inside, "-I", "-m", "dreamcraft3d", "doctor", "--json")),
        ]
        self._key = hashlib.sha256(self.wheel.read_bytes() + python.encode()).hexdigest()
        noted = self._noted()
        fits = noted.get("key") == self._key and environment_python(self.folder).exists()
        before = noted.get("finished") or []
        self._finished = [step.name for step in self._steps if fits and step.name in before][:2]

    def _noted(self) -> dict[str, Any]:
        """What an earlier run wrote down; empty if there was none."""
        try:
            noted = json.loads((self.folder / PROGRESS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return noted if isinstance(noted, dict) else {}

    def _begin(self, step: Step) -> None:
        self.text = {"environment": "Making the environment", "packages": "Downloading packages"}.get(
            step.name, "Checking"
        )
        if step.name == "environment":
            (self.folder / STAMP).unlink(missing_ok=True)
        with self.log.open("wb" if step.name == "environment" else "ab") as log:
            log.write(f"\n--- {step.name}: {' '.join(step.command)}\n".encode())
            log.flush()
            self._child = subprocess.Popen(
                step.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=clean_environment(),
                cwd=self.folder.parent,
                **detached(),
            )

    def _watch(self, child: subprocess.Popen[bytes]) -> None:
        step = self._steps[len(self._finished)]
        code = child.poll()
        if step.name == "packages":
            self._read_pip()
        if code is None:
            return
        self._child = None
        # `doctor` ends with 2 if this machine lacks something; the installation itself is fine then
        if code != 0 and not (step.name == "check" and code == 2):
            self._fail(explained(step.name, tail(self.log, 30)))
            return
        self._finished.append(step.name)
        self._note(PROGRESS, {"key": self._key, "finished": self._finished})
        if len(self._finished) == len(self._steps):
            self._note(STAMP, {"key": self._key, "wheel": self.wheel.name})
            self.text, self.done = "Installed", True

    def _read_pip(self) -> None:
        """What pip is doing, from the end of its log."""
        lines = re.findall(r"^(Collecting|  Downloading|Downloading|Installing)\s+(.*)$", tail(self.log, 40), re.M)
        if not lines:
            return
        verb, rest = lines[-1]
        text = f"{verb.strip()} {rest.split('/')[-1][:48]}"
        if text != self.text:
            self._packages += 1
            self.text = text

    def _note(self, name: str, value: object) -> None:
        partial = self.folder / (name + ".partial")
        partial.write_text(json.dumps(value), encoding="utf-8")
        os.replace(partial, self.folder / name)  # noqa: PTH105 - one atomic call, on every system

    def _fail(self, problem: Problem) -> None:
        self.problem, self.done, self.text = problem, True, problem.message


def explained(step: str, log: str) -> Problem:
    """What a failed step means for a person."""
    if step == "environment":
        text = "The environment could not be made."
        return Problem("broken_installation", text, "Choose another Python in the preferences.", log=log)
    if step == "check":
        text = "The backend is installed but does not run."
        return Problem("broken_installation", text, "Repair the installation; its log says why.", log=log)
    if re.search(r"No space left|Errno 28", log):
        return Problem("disk_full", "The disk is full.", "Free some space and install again: it goes on.", log=log)
    if re.search(r"Connection|Temporary failure|timed out|resolve|SSL|Network is unreachable", log):
        text = "A package could not be downloaded."
        return Problem("no_network", text, "Check the network and install again: it goes on.", log=log)
    text = "A package could not be installed."
    return Problem("broken_installation", text, "The log says why; then install again.", log=log)


def removal(folder: Path) -> subprocess.Popen[bytes]:
    """A child process that deletes an installation (gigabytes: too slow for a tick). Only what the installer made."""
    if not any((folder / name).is_file() for name in (STAMP, PROGRESS, "pyvenv.cfg")):
        text = f"{folder} does not hold a backend that this extension installed."
        raise Problem("not_installed", text, "Remove it by hand if you want it gone.")
    trash = folder.with_name(folder.name + ".removed")
    try:
        folder.rename(trash)
    except OSError as error:
        text = f"The backend cannot be removed: {error.strerror}."
        raise Problem("read_only", text, "Stop the backend, and close programs that use its folder.") from error
    command = ["cmd", "/c", "rmdir", "/s", "/q", str(trash)] if os.name == "nt" else ["rm", "-rf", str(trash)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, **detached())
