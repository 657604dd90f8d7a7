"""`dreamcraft3d models ...` and `plan`: the public models on this machine, and what a run with a preset will need."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from dreamcraft3d.cli.shell import Json, Preset, Settings, app, configured, console, failing_politely, finish
from dreamcraft3d.errors import InputError
from dreamcraft3d.terminal import reporting

if TYPE_CHECKING:
    from dreamcraft3d.evaluation.plan import Plan
    from dreamcraft3d.priors.models import Entry

GIB = 1 << 30

models_app = typer.Typer(help="Public models that the larger presets use: list, download, verify, import, remove.")
app.add_typer(models_app, name="models", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name in the catalogue.", show_default=False)]


@models_app.command("list")
def list_models(
    commercial_only: Annotated[
        bool, typer.Option("--commercial-only", help="Only models whose licence allows commercial use.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the catalogue: what each model is for, its size, its licence, and whether it is here."""
    with failing_politely(None, as_json=as_json):
        from dreamcraft3d.priors.models import catalogue, home

        shown = [model for model in catalogue().values() if model.licence.commercial or not commercial_only]
        records = [_record(model) for model in shown]
        lines = [line for record in records for line in _lines(record)]
        finish({"ok": True, "folder": str(home()), "models": records}, as_json=as_json, lines=lines)


def _record(model: "Entry") -> dict[str, Any]:
    from dreamcraft3d.priors.model_store import licence_accepted
    from dreamcraft3d.priors.models import installed

    manifest = installed(model.name)
    return {
        "name": model.name,
        "role": model.role,
        "summary": model.summary,
        "installed": manifest is not None,
        "bytes": manifest.size if manifest else model.size,
        "licence": model.licence.title,
        "licence_url": model.licence.url,
        "licence_note": model.licence.note,
        "licence_accepted": licence_accepted(model.licence),
        "commercial": model.licence.commercial,
        "gated": model.gated,
        "sources": [vars(source) for source in model.sources],
    }


def _lines(record: dict[str, Any]) -> list[Text]:
    here = ("installed  ", "green") if record["installed"] else ("-          ", "dim")
    use = "commercial use allowed" if record["commercial"] else "NO commercial use"
    gated = ", gated" if record["gated"] else ""
    head = Text.assemble(
        here, (f"{record['name']:27}", "bold"), f"{record['bytes'] / 1e9:5.1f} GB  {record['summary']}"
    )
    licence = f"{'':11}{record['licence']} ({use}{gated}): {record['licence_url']}"
    return [head, Text(licence, style="dim" if record["commercial"] else "yellow")]


@models_app.command()
def download(
    names: Annotated[list[str] | None, typer.Argument(help="Names in the catalogue.", show_default=False)] = None,
    preset: Annotated[str | None, typer.Option(help="All models that a preset needs.")] = None,
    accept: Annotated[bool, typer.Option("--accept-licence", help="You have read and accept the licences.")] = False,
    as_json: Json = False,
) -> None:
    """Bring models onto this machine: resumed, checked, and only after their licence was accepted."""
    with failing_politely(None, as_json=as_json):
        from dreamcraft3d.priors.downloads import download as fetch
        from dreamcraft3d.priors.models import entry

        wanted = [entry(name) for name in [*(names or []), *_needed_by(preset)]]
        if not wanted:
            raise InputError("No model is named.", "Give a name, as in `dreamcraft3d models list`, or --preset.")
        for model in wanted:
            _agree(model, accepted=accept, as_json=as_json)
        with reporting(console, as_json=as_json) as progress:
            folders = {model.name: str(fetch(model, progress=progress)) for model in wanted}
        finish({"ok": True, "folders": folders}, as_json=as_json, lines=folders.values())


def _needed_by(preset: str | None) -> list[str]:
    if preset is None:
        return []
    from dreamcraft3d.presets import configure
    from dreamcraft3d.priors.models import catalogue

    needed = list(dict.fromkeys(name for name in configure(preset).prior_names() if name in catalogue()))
    if not needed:
        raise InputError(f"The preset {preset} needs no download.", "Its prior comes with the program.")
    return needed


def _agree(model: "Entry", *, accepted: bool, as_json: bool) -> None:
    """Shows each licence once, and asks where there is somebody to answer.

    Raises:
        InputError: it was not accepted.
    """
    from dreamcraft3d.priors.model_store import accept_licence, licence_accepted

    licence = model.licence
    if licence_accepted(licence):
        return
    use = "Commercial use is allowed." if licence.commercial else "Commercial use is NOT allowed."
    console.print(f"{model.name}: {licence.title}, {licence.url}\n{use} {licence.note}", highlight=False, markup=False)
    asked = not accepted and not as_json and sys.stdin.isatty()
    if not (accepted or (asked and typer.confirm("Do you accept this licence?", err=True))):
        raise InputError(f"The licence of {model.name} is not accepted.", "Read it, then add --accept-licence.")
    accept_licence(licence)


@models_app.command()
def verify(
    names: Annotated[list[str] | None, typer.Argument(help="Default: all that are here.", show_default=False)] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Load damaged files again.")] = False,
    as_json: Json = False,
) -> None:
    """Read all files of models and compare their checksums. Ends with code 2 if something stays damaged."""
    with failing_politely(None, as_json=as_json):
        from dreamcraft3d.priors.downloads import download as fetch
        from dreamcraft3d.priors.model_store import forget
        from dreamcraft3d.priors.model_store import verify as damaged_files
        from dreamcraft3d.priors.models import catalogue, entry, installed

        chosen = names or [name for name in catalogue() if installed(name)]
        damaged: dict[str, list[str]] = {}
        with reporting(console, as_json=as_json) as progress:
            for name in chosen:
                broken = damaged_files(name, progress)
                if broken and repair:
                    forget(name, broken)
                    fetch(entry(name), progress=progress)
                    broken = damaged_files(name, progress)
                damaged[name] = broken
        whole = not any(damaged.values())
        lines = [f"{name}: {', '.join(broken) + ' damaged' if broken else 'whole'}" for name, broken in damaged.items()]
        finish({"ok": whole, "damaged": damaged}, as_json=as_json, lines=lines or ["No model is in the models folder."])
    if not whole:
        raise typer.Exit(2)


@models_app.command("import")
def import_model(
    name: Name,
    folder: Annotated[Path, typer.Argument(help="Folder in diffusers layout.", show_default=False)],
    accept: Annotated[bool, typer.Option("--accept-licence", help="You have read and accept the licence.")] = False,
    as_json: Json = False,
) -> None:
    """Take a model from a folder (another machine's models folder, a hub snapshot), without a network."""
    with failing_politely(None, as_json=as_json):
        from dreamcraft3d.priors.model_store import import_folder
        from dreamcraft3d.priors.models import entry

        _agree(entry(name), accepted=accept, as_json=as_json)
        with reporting(console, as_json=as_json) as progress:
            place = import_folder(name, folder.expanduser().absolute(), progress)
        finish({"ok": True, "folder": str(place)}, as_json=as_json, lines=[str(place)])


@models_app.command()
def remove(name: Name, as_json: Json = False) -> None:
    """Delete a model from the models folder."""
    with failing_politely(None, as_json=as_json):
        from dreamcraft3d.priors.model_store import remove as delete

        freed = delete(name)
        finish({"ok": True, "bytes": freed}, as_json=as_json, lines=[f"{freed / 1e9:.2f} GB are free again."])


@app.command()
def plan(
    preset: Preset = "fast",
    settings: Settings = [],  # noqa: B006 - typer copies it
    memory: Annotated[
        float | None, typer.Option(help="Memory of the card in GiB (default: of this machine's).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Estimate memory per stage, evaluations and downloads of a run, before it starts."""
    with failing_politely(None, as_json=as_json):
        config = configured(preset, settings, {})
        from dreamcraft3d.evaluation.plan import make_plan

        estimate = make_plan(config)
        size = memory or _card_memory()
        record = {
            "ok": True,
            "preset": preset,
            "peak_bytes": estimate.peak,
            "fits": None if size is None else estimate.peak <= size * GIB,
            "evaluations": estimate.evaluations,
            "text_encoder_bytes": estimate.encoders,
            "download_bytes": estimate.download,
            "missing": estimate.missing,
            "not_counted": estimate.unknown,
            "stages": [{**vars(stage), "peak": stage.peak} for stage in estimate.stages],
        }
        finish(record, as_json=as_json, lines=_plan_lines(estimate, size))


def _card_memory() -> float | None:
    import torch

    return torch.cuda.get_device_properties(0).total_memory / GIB if torch.cuda.is_available() else None


def _plan_lines(estimate: "Plan", memory: float | None) -> list[Text | str]:
    head = (
        f"{'GiB on the card':15}{'weights':>9}{'training':>10}{'priors':>8}{'scene':>8}{'peak':>8}{'evaluations':>13}"
    )
    lines: list[Text | str] = [Text(head, style="bold")]
    for stage in estimate.stages:
        parts = (stage.weights, stage.training, stage.priors, stage.scene, stage.peak)
        sizes = "".join(f"{part / GIB:{width}.2f}" for part, width in zip(parts, (9, 10, 8, 8, 8), strict=True))
        lines.append(f"{stage.stage:15}{sizes}{stage.evaluations:13}  {' + '.join(stage.models)}")
    total = f"Peak {estimate.peak / GIB:.1f} GiB, {estimate.evaluations} evaluations of the priors."
    if memory is not None:
        total += f" {'Fits' if estimate.peak <= memory * GIB else 'Does NOT fit'} in {memory:.0f} GiB."
    lines.append(Text(total, style="bold"))
    if estimate.encoders:
        lines.append(f"Text encoder, once before the first stage: {estimate.encoders / GIB:.1f} GiB.")
    if estimate.missing:
        lines.append(f"To be downloaded: {', '.join(estimate.missing)} ({estimate.download / 1e9:.1f} GB).")
    lines += [f"{name}: a folder of your own, not counted." for name in estimate.unknown]
    lines.append(
        Text(
            "Weights: counted in the real configurations. Priors and scene: estimates, from runs without data and at "
            "small sizes. Context of the card (0.56 GiB) and 15 % waste: assumed.",
            style="dim",
        )
    )
    return lines
