"""``result.json``: the commit marker of an item. It is written last, and names the hash of every file of the result.

An item without a marker is not done, whatever else lies in its folder. An item whose files differ from the marker
(a damaged disk, a helping hand) is not done either.
"""

import contextlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dreamcraft3d.batch.keys import file_digest
from dreamcraft3d.workspace import atomic_path, output_error

__all__ = ["MARKER", "Outcome", "OutputFile", "clear", "commit", "read_outcome", "tidy"]

MARKER = "result.json"
OUTPUTS = ("result.glb", "turntable.png", "thumbnail.webp", "report.json", "mask.png")
"""Files that can be part of a result."""
REFINED = "refined"
"""Folder of a refined mesh, all of which is part of the result; refining has a ``result.json`` of its own there."""
SCHEMA = "result/1"


@dataclass(frozen=True)
class OutputFile:
    """Size in bytes, and hash."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Outcome:
    """A committed result. `report`: what was measured (seconds, faces, metrics)."""

    id: str
    key: str
    outputs: dict[str, OutputFile]
    report: dict[str, Any]

    def intact(self, folder: Path) -> bool:
        """Whether every file is there as it was committed."""
        return all(_same(folder / name, output) for name, output in self.outputs.items())

    @property
    def mesh(self) -> str | None:
        """The name of the mesh (or of the Blender file that has it) among the outputs."""
        return next((name for name in self.outputs if name.endswith((".glb", ".obj", ".blend"))), None)


def commit(folder: Path, item_id: str, key: str, report: Mapping[str, Any]) -> Outcome:
    """Makes what lies in the folder the item's result. Raises ``OutputError``."""
    try:
        present = [name for name in OUTPUTS if (folder / name).is_file()] + _refined(folder)
        outputs = {name: OutputFile((folder / name).stat().st_size, file_digest(folder / name)) for name in present}
    except OSError as error:
        raise output_error(error, folder) from error
    outcome = Outcome(item_id, key, outputs, dict(report))
    with atomic_path(folder / MARKER) as temporary:
        text = json.dumps({"schema": SCHEMA, **asdict(outcome)}, indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    return outcome


def read_outcome(folder: Path) -> Outcome | None:
    """The committed result in a folder; None if there is none, or none that this version can read."""
    try:
        values = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        if values.pop("schema") != SCHEMA:
            return None
        outputs = {str(name): OutputFile(**output) for name, output in values.pop("outputs").items()}
        return Outcome(outputs=outputs, **values)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def clear(folder: Path) -> None:
    """Takes the mark of being done away, so that the item can run again. Raises ``OutputError``."""
    try:
        (folder / MARKER).unlink(missing_ok=True)
    except OSError as error:
        raise output_error(error, folder / MARKER) from error


def tidy(folder: Path, *, keep_stages: bool) -> None:
    """Removes what a finished item no longer needs. Nothing here is worth failing for."""
    with contextlib.suppress(OSError):
        for live in [*folder.glob("preview.webp"), *folder.glob("stage-*.webp"), *folder.glob("stage-*.glb")]:
            live.unlink()
    if not keep_stages:
        for place in (folder, folder / REFINED):
            shutil.rmtree(place / "stages", ignore_errors=True)


def _refined(folder: Path) -> list[str]:
    """Everything that refining has made, but for its log and what it needs on the way."""
    names = [path.relative_to(folder) for path in sorted((folder / REFINED).rglob("*")) if path.is_file()]
    return [
        name.as_posix()
        for name in names
        if name.parts[1] not in ("stages", "log.txt", "picture") and not name.name.startswith(".")
    ]


def _same(path: Path, output: OutputFile) -> bool:
    try:
        return path.stat().st_size == output.size and file_digest(path) == output.sha256
    except OSError:
        return False
