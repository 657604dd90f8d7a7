"""What a person finds in the morning: ``summary.csv``, ``errors.jsonl`` and, to look at, ``index.html``.

The columns of the table up to `sha256` depend on the manifest and the results only: an interrupted batch ends with the
same ones as an undisturbed one. Paths are relative to the output folder.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import Any

from dreamcraft3d.batch.contact_sheet import write_contact_sheet
from dreamcraft3d.batch.survey import Standing
from dreamcraft3d.batch.tasks import Batch
from dreamcraft3d.workspace import atomic_path

__all__ = ["COLUMNS", "errors_of", "write_summary"]

COLUMNS = (
    "id", "name", "kind", "state", "image", "preset", "seed", "prompt", "tags", "catalog", "license", "result",
    "code", "message", "sha256", "faces", "psnr", "seconds", "attempts",
)  # fmt: skip


def write_summary(batch: Batch, standings: list[Standing]) -> None:
    """Writes the three files, each at once or not at all. Raises ``OutputError``."""
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    ordered = sorted(standings, key=lambda standing: standing.id)  # the same for every order of the manifest
    writer.writerows(_row(standing) for standing in ordered)
    _write(batch, "summary.csv", "\ufeff" + table.getvalue())  # spreadsheets take it for UTF-8 only with the mark
    _write(batch, "errors.jsonl", "".join(f"{json.dumps(error, ensure_ascii=False)}\n" for error in errors_of(ordered)))
    if batch.settings.output.contact_sheet:
        write_contact_sheet(batch, ordered)


def errors_of(standings: Iterable[Standing]) -> Iterator[dict[str, Any]]:
    """The failed items: {id, code, message, remedy, attempts, log}."""
    for standing in standings:
        if standing.state == "failed":
            told = {"attempts": standing.history.attempts, "log": standing.log}
            yield {"id": standing.id, **(standing.error or {}), **told}


def _row(standing: Standing) -> dict[str, Any]:
    item, outcome = standing.task.item, standing.outcome
    row = {
        "id": item.id, "name": item.name or item.id, "kind": item.kind, "state": standing.state,
        "image": item.image or "", "preset": item.preset, "seed": standing.task.config.seed,
        "prompt": item.prompt or "", "tags": ";".join(item.tags), "catalog": item.catalog or "",
        "license": item.license or "", "attempts": standing.history.attempts,
    }  # fmt: skip
    if standing.error is not None and standing.state == "failed":
        row |= {"code": standing.error.get("code", ""), "message": standing.error.get("message", "")}
    if outcome is not None and outcome.mesh is not None:
        metrics = outcome.report.get("metrics") or {}
        row |= {"result": f"items/{item.id}/{outcome.mesh}", "sha256": outcome.outputs[outcome.mesh].sha256}
        row |= {"faces": outcome.report.get("faces") or ""}
        row |= {"psnr": metrics.get("reference_psnr", ""), "seconds": standing.history.seconds or ""}
    return {key: value if key == "id" else _harmless(value) for key, value in row.items()}


def _harmless(value: Any) -> Any:
    """Words that a spreadsheet would take for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def _write(batch: Batch, name: str, text: str) -> None:
    with atomic_path(batch.out / name) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")
