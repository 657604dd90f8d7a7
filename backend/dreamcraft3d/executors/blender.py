"""What only Blender can do: its extension is asked, in a Blender of its own without a window."""

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from dreamcraft3d.errors import DreamCraftError, InputError

__all__ = ["BlenderObject", "BlenderRefused", "BlenderUnavailableError", "ask_blender", "find_blender"]

USUAL = (
    Path("/Applications/Blender.app/Contents/MacOS/Blender"),
    *sorted(Path(os.environ.get("PROGRAMFILES", "/nowhere")).glob("Blender Foundation/Blender */blender.exe"))[::-1],
)
"""Where Blender lies on systems whose installer does not put it on the PATH; the newest first."""


class BlenderUnavailableError(DreamCraftError):
    """There is no Blender, or it does not know the extension."""

    code: ClassVar[int] = 4


class BlenderRefused(InputError):  # noqa: N818 - the name says what happened
    """The extension says why not. `reason`: its name for programs."""

    def __init__(self, message: str, remedy: str, reason: str) -> None:
        super().__init__(message, remedy)
        self.reason = reason


def find_blender(chosen: Path | None) -> Path:
    """The Blender that was named (the program, or its folder), else the one on the PATH, else the usual one.

    Raises ``InputError`` or ``BlenderUnavailableError``.
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
    raise BlenderUnavailableError(
        "No Blender was found: this needs one.",
        "Name one with --blender, or use the Batch panel in Blender.",
    )


def ask_blender(blender: Path, words: Sequence[str]) -> dict[str, Any]:
    """Runs `dreamcraft batch WORDS` in Blender; returns its answer. What it says on the way goes to our error stream.

    Raises ``BlenderUnavailableError``: the extension is not there, or Blender ended without an answer.
    """
    command = [str(blender), "--background", "--command", "dreamcraft", "batch", *words, "--json"]
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                                   encoding="utf-8", errors="replace")  # fmt: skip
    except OSError as error:
        raise BlenderUnavailableError(f"{blender} cannot be started: {error.strerror}.", "Check --blender.") from error
    answer: dict[str, Any] = {}
    assert process.stdout is not None
    with process:  # Ctrl-C reaches Blender, too, and is waited for
        for line in process.stdout:
            with contextlib.suppress(ValueError):  # Blender says other things as well
                found = json.loads(line)
                answer = found if isinstance(found, dict) else answer
    if not answer:
        raise BlenderUnavailableError(
            f"{blender} does not know DreamCraft (it ended with code {process.returncode}).",
            "Install the extension in it, and enable it (Edit > Preferences > Add-ons).",
        )
    return answer


@dataclass(frozen=True)
class BlenderObject:
    """A mesh object of a Blender file. `slots`: of its materials, by number or name; none = all."""

    blender: Path
    file: Path
    name: str
    slots: tuple[int | str, ...] = ()

    def send(self, request: Path, reference: Path | None) -> None:
        """Writes what there is to refine as a request. Raises ``BlenderRefused`` or ``BlenderUnavailableError``."""
        words = [word for slot in self.slots for word in ("--slot", str(slot))]
        words += [] if reference is None else ["--reference", str(reference)]
        self._ask("export-request", *words, "--to", str(request))

    def receive(self, request: Path, result: Path, target: Path) -> None:
        """Writes a copy of the file in which the object has the new images. Raises as `send` does."""
        self._ask("apply-result", "--request", str(request), "--result", str(result), "--to", str(target))

    def _ask(self, action: str, *words: str) -> None:
        answer = ask_blender(self.blender, [action, str(self.file), "--object", self.name, *words])
        if "error" in answer:
            raise BlenderRefused(answer["error"], answer.get("remedy", ""), str(answer.get("reason", "E_REQUEST")))
