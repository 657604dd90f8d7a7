"""`dreamcraft3d collect-objects`: real objects for the training of the bundled prior."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dreamcraft3d.cli.shell import Json, app, console, failing_politely, finish
from dreamcraft3d.errors import InputError
from dreamcraft3d.terminal import reporting

if TYPE_CHECKING:
    from dreamcraft3d.training.collect.recipe import Outcome

MOST_NAMED = 10  # missing objects in the summary


@app.command("collect-objects", context_settings={"allow_extra_args": True})
def collect_objects(
    context: typer.Context,
    packages: Annotated[
        list[str] | None, typer.Option(metavar="NAME ...", help="Debian packages (default: all of the selection).")
    ] = None,
    out: Annotated[Path, typer.Option(help="The pack (zip).")] = Path("objects.zip"),
    workspace: Annotated[
        Path, typer.Option(help="Folder for downloads and finished packages; a second call goes on from there.")
    ] = Path("out/collect"),
    source: Annotated[
        Path | None, typer.Option("--from", metavar="FOLDER", help="Folder with extracted packages, one folder each.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All that pass the filters, not only what the shipped weights know.")
    ] = False,
    attribution: Annotated[
        Path | None, typer.Option(metavar="FILE.md", help="Write the list of the selection, and collect nothing.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Collect textured, freely licensed objects from Debian packages, to train the bundled prior on."""
    with failing_politely(workspace, as_json=as_json):
        if attribution is not None:
            from dreamcraft3d.training.collect.attribution import attribution as page

            attribution.write_text(page(), encoding="utf-8")
            finish({"ok": True, "file": str(attribution)}, as_json=as_json, lines=[str(attribution)])
            return
        if context.args and not packages:
            raise InputError(f"'{context.args[0]}' is no option.", "Name packages behind --packages.")
        from dreamcraft3d.training.collect.packages import PACKAGES, package
        from dreamcraft3d.training.collect.recipe import collect

        chosen = [package(name) for name in dict.fromkeys([*(packages or []), *context.args])] or PACKAGES
        with reporting(console, as_json=as_json) as progress:
            outcomes = collect(
                chosen, out, workspace=workspace, everything=everything, source=source, progress=progress
            )
        record = {"ok": True, "pack": str(out), "packages": [vars(outcome) for outcome in outcomes]}
        finish(record, as_json=as_json, lines=[*_lines(outcomes), str(out)])


def _lines(outcomes: Sequence["Outcome"]) -> Iterator[str]:
    """What became of each package."""
    for outcome in outcomes:
        left_out = ", ".join(f"{count} {reason}" for reason, count in outcome.left_out.items())
        yield f"{outcome.package:24} {outcome.packed:5} of {outcome.wanted:5}{f'  ({left_out})' if left_out else ''}"
        if outcome.missing:
            more = len(outcome.missing) - MOST_NAMED
            names = ", ".join(outcome.missing[:MOST_NAMED])
            yield f"  missing: {names}{f' and {more} more' if more > 0 else ''}"
