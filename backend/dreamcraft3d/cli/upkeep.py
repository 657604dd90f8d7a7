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
    pack: Annotated[Path | None, typer.Option(help="Real objects (`collect-objects`) to train on, too.")] = None,
    real: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of real objects.")] = 0.6,
    batch: Annotated[int | None, typer.Option(min=1, help="Examples per step.")] = None,
    targets: Annotated[int | None, typer.Option(min=1, max=8, help="Wanted views of each example.")] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0.0, help="At its highest.")] = None,
    shards: Annotated[int | None, typer.Option(min=1, help="Files of pictures to train on.")] = None,
    first_shard: Annotated[int, typer.Option(min=0, help="Number of the first file: others hold other pictures.")] = 0,
    examples: Annotated[int | None, typer.Option(min=1, help="Examples per file; the same in all of a folder.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Cores that compute, without a GPU.")] = None,
    writers: Annotated[int, typer.Option(min=0, help="Processes that draw missing pictures meanwhile.")] = 0,
    checkpoint_minutes: Annotated[float | None, typer.Option(min=0.0, help="From checkpoint to checkpoint.")] = None,
    as_json: Json = False,
) -> None:
    """Train the bundled prior on real and procedural objects. Options without a default suit two cores."""
    with failing_politely(folder, as_json=as_json):
        if device not in ("cpu", "cuda"):
            raise InputError(f"There is no device '{device}'.", "Choose cpu or cuda.")
        from dreamcraft3d.training.train import DEFAULT_FOLDER, TrainSettings, train

        def show(record: dict[str, Any]) -> None:
            console.print(json.dumps(record), highlight=False, markup=False, soft_wrap=True)

        place = folder or DEFAULT_FOLDER
        for file in (start, pack):
            if file is not None:
                check_file(file)
        given = {
            "batch": batch, "targets": targets, "learning_rate": learning_rate, "shards": shards, "examples": examples,
            "checkpoint_minutes": checkpoint_minutes, "workers": workers,
        }  # fmt: skip
        chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        settings = TrainSettings(pack=pack, real=real, first_shard=first_shard, **chosen)
        weights = train(
            minutes=minutes, resume=not fresh, folder=place, start=start, export=export, settings=settings,
            device=device, writers=writers, on_log=show,
        )  # fmt: skip
        finish({"ok": True, "weights": str(weights)}, as_json=as_json, lines=[str(weights)])
