"""What only Blender can do for a batch: its extension is asked, in a Blender of its own without a window."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dreamcraft3d.batch.errors import WorkersUnavailableError
from dreamcraft3d.errors import InputError

__all__ = ["ask_blender", "find_blender"]

USUAL = (
    Path("/Applications/Blender.app/Contents/MacOS/Blender"),
    *sorted(Path(os.environ.get("PROGRAMFILES", "/nowhere")).glob("Blender Foundation/Blender */blender.exe"))[::-1],
)
"""Where Blender lies on systems whose installer does not put it on the PATH; the newest first."""


def find_blender(chosen: Path | None) -> Path:
    """The Blender that was named (the program, or its folder), else the one on the PATH, else the usual one.

    Raises ``InputError`` or ``WorkersUnavailableError``.
    """
    if chosen is not None:
        path = chosen.expanduser()
        for candidate in (path, path / "blender", path / "blender.exe", path / "Contents" / "MacOS" / "Blender"):
            if candidate.is_file():
                return candidate.absolute()
        raise InputError(f"There is no Blender at {chosen}.", "Name the program with --blender.")
    if (program := shutil.which("blender")) is not None:
        return Path(program)
    for path in USUAL:
        if path.is_file():
            return path
    raise WorkersUnavailableError(
        "No Blender was found: the library is written by Blender.",
        "Name one with --blender, or press Export Library in its DreamCraft tab.",
    )


def ask_blender(blender: Path, words: Sequence[str]) -> dict[str, Any]:
    """Runs `dreamcraft batch WORDS` in Blender; returns its answer. What it says on the way goes to our error stream.

    Raises ``WorkersUnavailableError``: the extension is not there, or Blender ended without an answer.
    """
    command = [str(blender), "--background", "--command", "dreamcraft", "batch", *words]
    command += ["--backend", sys.executable, "--json"]
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                                   encoding="utf-8", errors="replace")  # fmt: skip
    except OSError as error:
        raise WorkersUnavailableError(f"{blender} cannot be started: {error.strerror}.", "Check --blender.") from error
    answer: dict[str, Any] = {}
    assert process.stdout is not None
    with process:  # Ctrl-C reaches Blender, too, and is waited for
        for line in process.stdout:
            with contextlib.suppress(ValueError):  # Blender says other things as well
                found = json.loads(line)
                answer = found if isinstance(found, dict) else answer
    if not answer:
        raise WorkersUnavailableError(
            f"{blender} does not know DreamCraft (it ended with code {process.returncode}).",
            "Install the extension in it, and enable it (Edit > Preferences > Add-ons).",
        )
    return answer
