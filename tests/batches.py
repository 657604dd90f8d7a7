"""Pictures, manifests and a quick worker for the tests of batches."""

import csv
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from dreamcraft3d.batch.crew import LocalCrew
from dreamcraft3d.batch.runner import BatchEvent, Choice, Runner
from dreamcraft3d.batch.survey import Standing
from dreamcraft3d.batch.tasks import load_batch

PAINTER = (sys.executable, str(Path(__file__).with_name("batch") / "painter.py"))

Rows = list[dict[str, Any]]


def write(folder: Path, rows: Rows, settings: Mapping[str, Any] | None = None) -> Path:
    """Writes a manifest, and a picture of its own for each item."""
    for number, row in enumerate(rows):
        if "image" in row and not (folder / row["image"]).exists():
            Image.new("RGB", (24, 24), (number * 9 % 256, 60, 200)).save(folder / row["image"])
    if settings is not None:
        (folder / "batch.json").write_text(json.dumps(settings))
    path = folder / "things.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def items(*names: str, **values: Any) -> Rows:
    """A row for each name, with a picture of that name."""
    return [{"id": name, "image": f"{name}.png", **values} for name in names]


def make(manifest: Path, *, jobs: int = 1, silence: float = 60.0, events: list[BatchEvent] | None = None,
         **choice: Any) -> dict[str, Standing]:  # fmt: skip
    """Runs a batch with the quick worker."""
    sink = (lambda event: None) if events is None else events.append
    crew = LocalCrew(jobs, command=PAINTER, silence=silence)
    standings = Runner(load_batch(manifest), crew, choice=Choice(**choice), sink=sink).run()
    return {standing.id: standing for standing in standings}


def journal(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "journal.jsonl").read_text(encoding="utf-8").splitlines()]


def commits(out: Path) -> list[str]:
    """Ids in the order in which they were committed."""
    return [entry["id"] for entry in journal(out) if entry["event"] == "item_committed"]


def runs_of(out: Path, item: str) -> int:
    """How often the worker finished an item."""
    return len((out / "items" / item / "made.txt").read_text().splitlines())


def summary(out: Path) -> list[dict[str, str]]:
    with (out / "summary.csv").open(encoding="utf-8-sig", newline="") as table:
        return list(csv.DictReader(table))


def tell_tale(out: Path) -> list[dict[str, str]]:
    """The columns that depend on the manifest and the results alone."""
    return [{key: row[key] for key in row if key not in ("seconds", "attempts")} for row in summary(out)]
