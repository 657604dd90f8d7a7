"""`dreamcraft3d doctor` and `train-prior`: the installation and its prior."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from dreamcraft3d.cli.shell import Json, app, check_file, console, failing_politely, finish
from dreamcraft3d.errors import InputError


@app.command()
def doctor(
    bundle: Annotated[
        Path | None, typer.Option(metavar="FILE.zip", help="Pack logs and findings for a bug report; no pictures.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check this machine, and say how to cure what is wrong. Ends with code 2 if something is."""
    with failing_politely(None, as_json=as_json):
        from dreamcraft3d.doctor import examine

        checks = examine()
        if bundle is not None:
            from dreamcraft3d.server.bundle import write_bundle
            from dreamcraft3d.server.paths import service_paths

            packed = write_bundle(bundle, service_paths(), checks)
            console.print(f"{bundle}: {len(packed)} texts, nothing secret.", highlight=False, markup=False)
        colours = {"ok": "green", "warn": "yellow", "fail": "red"}
        lines = []
        for check in checks:
            line = Text.assemble((f"{check.status:5}", colours[check.status]), f"{check.name}: {check.detail}")
            lines.append(line.append(f" -> {check.cure}", style="dim") if check.cure else line)
        healthy = all(check.status != "fail" for check in checks)
        finish({"ok": healthy, "checks": [vars(check) for check in checks]}, as_json=as_json, lines=lines)
    if not healthy:
        raise typer.Exit(2)


@app.command("train-prior")
def train_prior(
    minutes: Annotated[float, typer.Option(min=0.0, help="Training time.")] = 90.0,
    folder: Annotated[Path | None, typer.Option(help="Where pictures, checkpoints and logs go.")] = None,
    export: Annotated[Path | None, typer.Option(help="A second place for the weights.")] = None,
    start: Annotated[Path | None, typer.Option(help="Weights to go on from where there is no checkpoint.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start again instead of resuming.")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    as_json: Json = False,
) -> None:
    """Train the bundled prior on procedural objects."""
    with failing_politely(folder, as_json=as_json):
        if device not in ("cpu", "cuda"):
            raise InputError(f"There is no device '{device}'.", "Choose cpu or cuda.")
        from dreamcraft3d.training.train import DEFAULT_FOLDER, train

        def show(record: dict[str, Any]) -> None:
            console.print(json.dumps(record), highlight=False, markup=False, soft_wrap=True)

        place = folder or DEFAULT_FOLDER
        if start is not None:
            check_file(start)
        weights = train(
            minutes=minutes, resume=not fresh, folder=place, start=start, export=export, device=device, on_log=show
        )
        finish({"ok": True, "weights": str(weights)}, as_json=as_json, lines=[str(weights)])
