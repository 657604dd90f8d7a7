"""The files of a job that may be fetched: a fixed set of names, so that no name from outside is ever a path."""

from dataclasses import dataclass
from pathlib import Path

from dreamcraft3d.presets import STAGES

__all__ = ["ARTIFACTS", "Artifact", "artifact_path", "artifacts_in"]

WEBP, GLB, PNG, JSON, TEXT = "image/webp", "model/gltf-binary", "image/png", "application/json", "text/plain"
ZIP = "application/zip"

ARTIFACTS: dict[str, str] = {
    "result.glb": GLB,
    "result.zip": ZIP,
    "result.json": JSON,
    "turntable.png": PNG,
    "report.json": JSON,
    "mask.png": PNG,
    "preview.webp": WEBP,
    "log.txt": TEXT,
    **{f"stage-{stage}.webp": WEBP for stage in ("start", *STAGES)},
    **{f"stage-{stage}.glb": GLB for stage in ("start", *STAGES)},
}
"""Name and media type."""


@dataclass(frozen=True)
class Artifact:
    """A file that is there: its name, size in bytes and media type."""

    name: str
    size: int
    media_type: str


def artifact_path(folder: Path, name: str) -> Path | None:
    """The file of a known name in a job's folder, if it is there and is a plain file."""
    if name not in ARTIFACTS:
        return None
    path = folder / name
    return path if path.is_file() and not path.is_symlink() else None


def artifacts_in(folder: Path) -> list[Artifact]:
    """All artifacts of a job, in the order of the table above."""
    found = []
    for name, media_type in ARTIFACTS.items():
        path = artifact_path(folder, name)
        if path is not None:
            found.append(Artifact(name, path.stat().st_size, media_type))
    return found
