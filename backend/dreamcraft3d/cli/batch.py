"""`dreamcraft3d batch`: hundreds of items from one manifest.

Exit codes: 0 everything is done; 2 the manifest, or the disk, has to be put right; 3 some items failed; 4 the folder is
in use, or no worker can be started; 5 stopped; 1 a bug of ours.
"""

import json
import sys
import time
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.text import Text

from dreamcraft3d.batch.crew import LocalCrew
from dreamcraft3d.batch.errors import WorkersUnavailableError
from dreamcraft3d.batch.forecast import forecast
from dreamcraft3d.batch.lock import holder_of
from dreamcraft3d.batch.manifest import ManifestError, Problem
from dreamcraft3d.batch.runner import CANCEL, Choice, Runner
from dreamcraft3d.batch.survey import Standing, counts, survey
from dreamcraft3d.batch.tasks import Batch, load_batch
from dreamcraft3d.cli.batch_view import stopping_on_signals, watching
from dreamcraft3d.cli.shell import Json, app, console, failing_politely, finish
from dreamcraft3d.executors.blender import ask_blender, find_blender
from dreamcraft3d.workspace import atomic_path

batch_app = typer.Typer(
    name="batch",
    help="Make many objects from a manifest: a folder of pictures, CSV or JSONL.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(batch_app)


class ExecutorName(StrEnum):
    """Where items run."""

    LOCAL = "local"
    RAY = "ray"


Manifest = Annotated[
    Path, typer.Argument(help="manifest.jsonl, a CSV table, or a folder of pictures.", show_default=False)
]
Out = Annotated[Path | None, typer.Option(help="Folder for the results (default: NAME-out beside the manifest).")]
Only = Annotated[
    list[str], typer.Option("--only", metavar="GLOB", help="Items whose id fits, as in 'chair-*'; repeatable.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Run at most so many items.")]
Jobs = Annotated[int | None, typer.Option(min=1, max=64, help="Items at the same time (default: batch.json, or 1).")]
Executor = Annotated[ExecutorName, typer.Option(help="Where items run.")]
Blender = Annotated[Path | None, typer.Option(help="Blender, with the extension (default: on the PATH).")]
KeepStale = Annotated[bool, typer.Option("--keep-stale", help="Keep results of items that have changed since.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything and say what would be done.")]


@batch_app.command()
def validate(manifest: Manifest, out: Out = None, blender: Blender = None, as_json: Json = False) -> None:
    """Check a manifest, every setting and every picture. Lists all mistakes at once; writes nothing."""
    with failing_politely(None, as_json=as_json):
        batch = _load(manifest, out, decode=True, as_json=as_json)
        _blender(batch, blender)
        presets = sorted({task.item.preset for task in batch.tasks})
        record = {"ok": True, "items": len(batch.tasks), "presets": presets, "out": str(batch.out)}
        lines = [f"{len(batch.tasks)} items are fine. Results would go to {batch.out}."]
        finish({**record, "warnings": list(batch.warnings)}, as_json=as_json, lines=lines)


@batch_app.command()
def run(
    manifest: Manifest,
    out: Out = None,
    limit: Limit = None,
    only: Only = [],  # noqa: B006 - typer's way of repeatable options
    jobs: Jobs = None,
    executor: Executor = ExecutorName.LOCAL,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Also items that failed before.")] = False,
    keep_stale: KeepStale = False,
    dry_run: DryRun = False,
    blender: Blender = None,
    as_json: Json = False,
) -> None:
    """Make everything that is not done yet. Run it again to go on after Ctrl-C or a crash."""

    choice = Choice(tuple(only), limit, retry_failed=retry_failed, keep_stale=keep_stale)
    _run(manifest, out, choice, jobs=jobs, executor=executor, dry_run=dry_run, blender=blender, as_json=as_json)


@batch_app.command()
def retry(
    manifest: Manifest,
    out: Out = None,
    limit: Limit = None,
    only: Only = [],  # noqa: B006
    jobs: Jobs = None,
    executor: Executor = ExecutorName.LOCAL,
    dry_run: DryRun = False,
    blender: Blender = None,
    as_json: Json = False,
) -> None:
    """Run the items that failed, and no others."""

    choice = Choice(tuple(only), limit, failed_only=True)
    _run(manifest, out, choice, jobs=jobs, executor=executor, dry_run=dry_run, blender=blender, as_json=as_json)


@batch_app.command()
def status(manifest: Manifest, out: Out = None, only: Only = [], as_json: Json = False) -> None:  # noqa: B006
    """Say where every item stands; also while the batch runs. Ends with code 3 if some failed."""
    with failing_politely(None, as_json=as_json):
        batch = _load(manifest, out, as_json=as_json)
        holder, choice = holder_of(batch.out), Choice(tuple(only))
        standings = [standing for standing in survey(batch, verify=False) if choice.names(standing.id)]
        totals = counts(standings)
        runner = None if holder is None else {"host": holder.host, "pid": holder.pid}
        items = [_as_record(standing) for standing in standings]
        lines: list[str | Text] = [", ".join(f"{number} {state}" for state, number in totals.items())]
        if holder is not None:
            lines.append(f"Process {holder.pid} on {holder.host} is at work.")
        lines += _failures(items)
        record = {"ok": True, "out": str(batch.out), "runner": runner, "counts": totals, "items": items}
        finish(record, as_json=as_json, lines=lines)
        if "failed" in totals:
            raise typer.Exit(3)


@batch_app.command()
def cancel(
    manifest: Manifest,
    out: Out = None,
    wait: Annotated[float, typer.Option(min=0.0, help="Seconds to wait for the end.")] = 60.0,
    as_json: Json = False,
) -> None:
    """Stop the runner of a batch, wherever it runs; its items keep their checkpoints."""
    with failing_politely(None, as_json=as_json):
        batch = _load(manifest, out, as_json=as_json)
        holder, deadline = holder_of(batch.out), time.monotonic() + wait
        if holder is None:
            finish({"ok": True, "stopped": True}, as_json=as_json, lines=["No runner is at work there."])
            return
        with atomic_path(batch.out / CANCEL) as temporary:
            temporary.write_text("")
        while holder_of(batch.out) is not None and time.monotonic() < deadline:
            time.sleep(0.2)
        stopped = holder_of(batch.out) is None
        line = "Stopped." if stopped else f"Process {holder.pid} on {holder.host} was asked to stop."
        finish({"ok": True, "stopped": stopped}, as_json=as_json, lines=[line])


@batch_app.command("export-assets")
def export_assets(
    manifest: Manifest,
    out: Out = None,
    library: Annotated[Path | None, typer.Option(help="Folder of the library (default: library, in --out).")] = None,
    shard: Annotated[int, typer.Option(min=1, help="Assets per .blend file.")] = 100,
    only: Only = [],  # noqa: B006
    blender: Blender = None,
    as_json: Json = False,
) -> None:
    """Put the results into a library for Blender's Asset Browser; again adds only what is new. Needs Blender."""
    with failing_politely(None, as_json=as_json):
        batch = _load(manifest, out, as_json=as_json)
        words = ["export-assets", str(batch.source), "--out", str(batch.out), "--shard", str(shard)]
        words += [] if library is None else ["--library", str(library.absolute())]
        words += [word for pattern in only for word in ("--only", pattern)] + ["--backend", sys.executable]
        answer = ask_blender(find_blender(blender), words)
        finish(answer, as_json=as_json, lines=_library_lines(answer))
        if code := int(answer.get("code", 3 if answer.get("failed") else 0)):
            raise typer.Exit(code)


# --- inside ---------------------------------------------------------------------------------------


def _library_lines(answer: dict[str, Any]) -> Iterable[str | Text]:
    if "error" in answer:
        return [Text(f"{answer['error']} {answer.get('remedy', '')}".rstrip(), style="red")]
    numbers = ", ".join(f"{len(answer[word])} {word}" for word in ("added", "updated", "unchanged", "missing"))
    wrong = [Text(f"{name}: {why}", style="red") for name, why in answer["failed"].items()]
    return [f"{numbers}. {answer['library']}", *wrong]


def _run(
    manifest: Path,
    out: Path | None,
    choice: Choice,
    *,
    jobs: int | None,
    executor: ExecutorName,
    dry_run: bool,
    blender: Path | None,
    as_json: bool,
) -> None:
    with failing_politely(None, as_json=as_json):
        if executor == ExecutorName.RAY:
            raise WorkersUnavailableError("This version cannot run batches on Ray.", "Use --executor local.")
        batch = _load(manifest, out, decode=dry_run, as_json=as_json)
        program = _blender(batch, blender)
        places = jobs or batch.settings.limits.jobs
        if dry_run:
            _foretell(batch, choice, places, as_json=as_json)
            return
        with watching(console, as_json=as_json) as sink:
            runner = Runner(batch, LocalCrew(places), choice=choice, sink=sink, blender=program)
            with stopping_on_signals(runner.stop):
                standings = runner.run()
        _conclude(batch, [standing for standing in standings if choice.names(standing.id)], as_json=as_json)


def _blender(batch: Batch, chosen: Path | None) -> Path | None:
    """The Blender that this batch needs; None if it needs none. Raises ``BlenderUnavailableError``."""
    return find_blender(chosen) if any(task.item.blend is not None for task in batch.tasks) else None


def _conclude(batch: Batch, standings: list[Standing], *, as_json: bool) -> None:

    items = [_as_record(standing) for standing in standings]
    totals = counts(standings)
    failed = totals.get("failed", 0)
    code = 3 if failed else 0
    lines: list[str | Text] = [", ".join(f"{number} {state}" for state, number in totals.items()), str(batch.out)]
    lines += _failures(items)
    record = {"ok": not failed, "code": code, "out": str(batch.out), "counts": totals}
    finish({"event": "summary", **record}, as_json=as_json, lines=lines)
    if code:
        raise typer.Exit(code)


def _foretell(batch: Batch, choice: Choice, jobs: int, *, as_json: bool) -> None:
    from dreamcraft3d.batch.survey import survey

    standings = list(survey(batch))
    chosen = choice.of(standings)
    expected = forecast(chosen, standings, jobs=jobs)
    duration = "unknown (no result with this preset yet; try --limit 1)"
    if expected.seconds is not None:
        duration = f"about {expected.seconds / 60.0:.1f} minutes"
    mib = expected.disk_bytes / 2**20
    lines: list[str | Text] = [
        f"{expected.items} of {len(standings)} items would run, {duration}, at most {mib:.0f} MiB of results."
    ]
    record = {"ok": True, "items": len(standings), "chosen": [standing.id for standing in chosen]}
    finish({**record, "seconds": expected.seconds, "disk_bytes": expected.disk_bytes}, as_json=as_json, lines=lines)


def _load(manifest: Path, out: Path | None, *, as_json: bool, decode: bool = False) -> Batch:

    try:
        batch = load_batch(manifest, out=out, decode=decode)
    except ManifestError as error:
        _list_problems(error.problems, as_json=as_json)
    for warning in batch.warnings:
        console.print(f"Warning: {warning}", style="yellow", highlight=False, markup=False)
    return batch


def _list_problems(problems: Iterable[Problem], *, as_json: bool) -> NoReturn:
    found = list(problems)
    if as_json:
        sys.stdout.write(json.dumps({"ok": False, "code": 2, "problems": [vars(problem) for problem in found]}) + "\n")
    for problem in [] if as_json else found:
        console.print(str(problem), style="red", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(2)


def _as_record(standing: Standing) -> dict[str, Any]:
    history, files = standing.history, {} if standing.outcome is None else standing.outcome.outputs
    error = standing.error if standing.state == "failed" else None
    record = {"id": standing.id, "state": standing.state, "attempts": history.attempts, "seconds": history.seconds}
    record |= {"error": error, "outputs": [f"items/{standing.id}/{name}" for name in files], "log": standing.log}
    return record | _as_asset(standing)


def _as_asset(standing: Standing) -> dict[str, Any]:
    """What an asset library wants to know: names as they are written, the result's key and its mesh."""
    item, outcome, picture = standing.task.item, standing.outcome, standing.task.inputs.get("image")
    mesh = None if outcome is None or outcome.mesh is None else f"items/{item.id}/{outcome.mesh}"
    return {
        "name": item.name or item.id, "kind": item.kind, "object": item.object,
        "prompt": item.prompt or "", "preset": item.preset,
        "seed": standing.task.config.seed, "tags": list(item.tags), "catalog": item.catalog or "",
        "license": item.license or "", "author": item.author or "", "mesh": mesh,
        "key": "" if outcome is None else outcome.key, "image": None if picture is None else str(picture),
    }  # fmt: skip


def _failures(items: Iterable[dict[str, Any]]) -> Iterable[Text]:
    for item in items:
        if item["error"] is not None:
            yield Text(f"{item['id']}: {item['error']['message']} {item['error']['remedy']}".rstrip(), style="red")
