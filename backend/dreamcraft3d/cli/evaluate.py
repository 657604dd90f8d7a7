"""`dreamcraft3d evaluate`, `ablate` and `bench`: measuring."""

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dreamcraft3d.cli.shell import (
    Elevation,
    Json,
    Out,
    Preset,
    Seed,
    Settings,
    app,
    check_file,
    configured,
    console,
    failing_politely,
    finish,
)
from dreamcraft3d.errors import InputError
from dreamcraft3d.terminal import reporting

if TYPE_CHECKING:
    from dreamcraft3d.evaluation.bench import Figure
    from dreamcraft3d.training.report import HeldOut

evaluations = typer.Typer(
    help="Score runs and priors against known answers.", invoke_without_command=True, no_args_is_help=True
)
app.add_typer(evaluations, name="evaluate")


@evaluations.callback()
def evaluate(
    context: typer.Context,
    oracle: Annotated[Path | None, typer.Option(metavar="MESH", help="The mesh to be found.")] = None,
    preset: Preset = "oracle",
    seed: Seed = None,
    elevation: Elevation = None,
    settings: Settings = [],  # noqa: B006
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Run all stages against a prior that knows the answer (--oracle MESH), or one of the commands below."""
    if context.invoked_subcommand is not None:
        return
    folder = out or Path("out") / f"oracle-{oracle.stem if oracle else ''}"
    with failing_politely(folder, as_json=as_json):
        if oracle is None:
            raise InputError("Nothing to evaluate.", "Give --oracle MESH, or see `dreamcraft3d evaluate --help`.")
        config = configured(preset, settings, {"seed": seed, "reference.elevation": elevation})
        check_file(oracle)
        from dreamcraft3d.evaluation.oracle import evaluate_oracle

        with reporting(console, as_json=as_json) as progress:
            report = evaluate_oracle(oracle, folder, config, progress)
        scores = report["scores"]
        lines = [str(folder / "result.glb"), *(f"{name}: {value:.4g}" for name, value in scores.items())]
        finish({"ok": True, "out": str(folder), "report": report}, as_json=as_json, lines=lines)


@evaluations.command("prior")
def evaluate_prior(
    weights: Annotated[Path | None, typer.Option(help="Another weights file than the package's.")] = None,
    objects: Annotated[
        int, typer.Option(min=0, max=1000, help="Held-out procedural objects, four unseen views each.")
    ] = 64,
    pack: Annotated[Path | None, typer.Option(help="Real objects: its held-out ones are judged, too.")] = None,
    wide: Annotated[
        bool, typer.Option("--wide", help="Lenses of 10 to 50 degrees, pictures from -20 to 60 degrees, other light.")
    ] = False,
    steps: Annotated[int, typer.Option(min=1, help="Steps of sampling.")] = 20,
    cfg_scale: Annotated[float, typer.Option(help="Guidance scale of sampling.")] = 1.0,
    sheet: Annotated[Path | None, typer.Option(help="Where a sheet of samples (PNG) goes.")] = None,
    worst: Annotated[Path | None, typer.Option(help="Where a sheet of the ten worst objects (PNG) goes.")] = None,
    as_json: Json = False,
) -> None:
    """Compare pictures drawn from the prior with the truth, on objects that it has never seen."""
    with failing_politely(None, as_json=as_json):
        for file in (weights, pack):
            if file is not None:
                check_file(file)
        worlds = held_out_worlds(objects, pack, wide=wide)
        from dreamcraft3d.evaluation.prior import judge, verdict_table
        from dreamcraft3d.kernels.dispatch import default_device
        from dreamcraft3d.priors.bundled import BundledPrior
        from dreamcraft3d.training.report import sample_sheet

        prior = BundledPrior.load(weights, device=default_device())
        verdicts = {name: judge(prior, things, steps=steps, cfg_scale=cfg_scale) for name, things in worlds.items()}
        if sheet is not None:
            each = 12 // len(worlds)
            sample_sheet(prior, sheet, [thing for things in worlds.values() for thing in things[:each]], steps=steps)
        if worst is not None:
            found = sorted((pair for v in verdicts.values() for pair in v.worst()), key=lambda pair: pair[1].iou)
            sample_sheet(prior, worst, [thing for thing, _ in found[:10]], steps=steps)
        lines = [line for name, verdict in verdicts.items() for line in (*verdict_table(name, verdict), "")]
        told = {name: verdict.to_json() for name, verdict in verdicts.items()}
        finish({"ok": True, "wide": wide, **told}, as_json=as_json, lines=lines[:-1])


def held_out_worlds(objects: int, pack: Path | None, *, wide: bool) -> dict[str, list["HeldOut"]]:
    """The objects to judge by: procedural seeds, and the held-out objects of a pack.

    Raises:
        InputError: there are none at all, or the file is no pack.
    """
    from dreamcraft3d.training.objects import ObjectPack
    from dreamcraft3d.training.report import procedural_objects, real_objects

    worlds = {"procedural": procedural_objects(range(objects), wide=wide)} if objects else {}
    if pack is not None:
        worlds["real"] = real_objects(ObjectPack(pack), wide=wide)
        if not worlds["real"]:
            raise InputError(f"No object of {pack.name} is held out.", "Give a pack with held-out objects.")
    if not worlds:
        raise InputError("There is nothing to judge by.", "Give --objects 1 or more, or --pack.")
    return worlds


@evaluations.command("objects")
def evaluate_objects(
    meshes: Annotated[list[Path] | None, typer.Argument(help="Meshes whose front picture is given.")] = None,
    held_out: Annotated[str, typer.Option(metavar="A-B", help="Seeds of held-out procedural objects.")] = "",
    pack: Annotated[Path | None, typer.Option(help="Real objects: those held out of training, too.")] = None,
    per_class: Annotated[int, typer.Option(min=1, help="Of each class of the pack.")] = 3,
    preset: Preset = "preview",
    settings: Settings = [],  # noqa: B006
    compare: Annotated[
        Literal["both", "with", "without"], typer.Option(help="With the prior, without it, or both.")
    ] = "both",
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("out/objects"),
    as_json: Json = False,
) -> None:
    """Reconstruct known objects from one picture each, with the prior and without, and print a table."""
    with failing_politely(None, as_json=as_json):
        chosen = chosen_objects(meshes, held_out, pack)
        config = configured(preset, settings, {})
        from dreamcraft3d.evaluation.reconstruction import (
            objects_from,
            packed_objects,
            reconstruct,
            reconstruction_table,
            variants,
        )
        from dreamcraft3d.progress import Progress

        configs = variants(config, with_prior=compare != "without", without=compare != "with")
        rows = []
        objects = chain(objects_from(*chosen), packed_objects(pack, per_class=per_class) if pack else ())
        for row in reconstruct(objects, configs, out, Progress()):
            rows.append(row)
            note = f"{row.object} {row.variant}: IoU {row.unseen_iou:.3f}, {row.unseen_psnr:.2f} dB"
            console.print(note, highlight=False, markup=False)
        lines = reconstruction_table(rows).splitlines()
        finish({"ok": True, "rows": [vars(row) for row in rows]}, as_json=as_json, lines=lines)


@evaluations.command("texture")
def evaluate_texture(
    meshes: Annotated[list[Path] | None, typer.Argument(help="Meshes whose front picture is given.")] = None,
    held_out: Annotated[str, typer.Option(metavar="A-B", help="Seeds of held-out procedural objects.")] = "",
    preset: Preset = "preview",
    seed: Seed = None,
    settings: Settings = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Paint known meshes by each form of score distillation (x0, SDS, VSD, BSD), and print a table."""
    with failing_politely(None, as_json=as_json):
        chosen = chosen_objects(meshes, held_out)
        config = configured(preset, settings, {"seed": seed})
        from dreamcraft3d.evaluation.reconstruction import objects_from
        from dreamcraft3d.evaluation.texture_ablation import compare_forms, texture_table
        from dreamcraft3d.pipeline import scene_device
        from dreamcraft3d.priors.bundled import BundledPrior
        from dreamcraft3d.progress import Progress

        rows, objects, progress = [], objects_from(*chosen), Progress()
        prior = BundledPrior.load(device=scene_device(config, progress))
        for row in compare_forms(objects, prior, config, progress, seed=config.seed):
            rows.append(row)
            note = f"{row.object} {row.form}: {row.psnr:.2f} dB, sharpness {row.sharpness:.2f}"
            console.print(note, highlight=False, markup=False)
        lines = texture_table(rows).splitlines()
        finish({"ok": True, "rows": [vars(row) for row in rows]}, as_json=as_json, lines=lines)


def chosen_objects(meshes: list[Path] | None, held_out: str, pack: Path | None = None) -> tuple[list[Path], list[int]]:
    """The meshes and the held-out seeds that were named.

    Raises:
        InputError: none at all, a file that is not there, or seeds that cannot be read.
    """
    for mesh in meshes or []:
        check_file(mesh)
    seeds = seeds_of(held_out)
    if pack is not None:
        check_file(pack)
    elif not meshes and not seeds:
        raise InputError("No object is named.", "Name meshes, or seeds with --held-out 0-11.")
    return meshes or [], seeds


def seeds_of(text: str) -> list[int]:
    """The numbers of "3,7-9": 3, 7, 8, 9.

    Raises:
        InputError: anything else, or a seed that is not held out.
    """
    seeds: list[int] = []
    for piece in filter(None, (part.strip() for part in text.split(","))):
        first, dash, last = piece.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise InputError(f"'{piece}' is not a seed or a range of seeds.", "Write for example --held-out 0-11.")
        seeds += range(int(first), int(last or first) + 1)
    from dreamcraft3d.training.shapes import HELD_OUT

    if any(seed >= HELD_OUT for seed in seeds):
        raise InputError(f"Seeds from {HELD_OUT} on are trained on.", f"Choose seeds below {HELD_OUT}.")
    return seeds


@app.command()
def ablate(
    meshes: Annotated[list[Path], typer.Argument(help="Meshes to be found.", show_default=False)],
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each variant on each mesh.")] = 2,
    as_json: Json = False,
) -> None:
    """Run the coarse stage without one idea of the paper at a time, and print a table."""
    with failing_politely(None, as_json=as_json):
        for mesh in meshes:
            check_file(mesh)
        from dreamcraft3d.evaluation.ablation import ablate as runs
        from dreamcraft3d.evaluation.ablation import ablation_table
        from dreamcraft3d.progress import Progress

        rows = []
        for row in runs(meshes, seeds=seeds, progress=Progress()):
            rows.append(row)
            note = f"{row.object} {row.seed} {row.variant}: IoU {row.iou:.3f}, {row.psnr:.2f} dB"
            console.print(note, highlight=False, markup=False)
        lines = ablation_table(rows).splitlines()
        finish({"ok": True, "rows": [vars(row) for row in rows]}, as_json=as_json, lines=lines)


@app.command()
def bench(
    what: Annotated[Literal["kernels", "prior", "service"], typer.Argument(help="What to time.")] = "kernels",
    queued: Annotated[int, typer.Option(min=1, help="Jobs in the service's queue.")] = 10_000,
    seconds: Annotated[float, typer.Option(min=1.0, help="How long the service is under load.")] = 40.0,
    as_json: Json = False,
) -> None:
    """Time each kernel beside its slow twin; the bundled prior; or the service with a long queue and a busy worker."""
    with failing_politely(None, as_json=as_json):
        if what == "kernels":
            bench_kernels(as_json=as_json)
        elif what == "prior":
            from dreamcraft3d.evaluation.bench_prior import measure_prior

            finish_figures(measure_prior(), as_json=as_json)
        else:
            bench_service(queued, seconds, as_json=as_json)


def bench_kernels(*, as_json: bool) -> None:
    from dreamcraft3d.evaluation.bench import run_all

    rows = run_all()
    width = max((len(row.name) for row in rows), default=0)
    lines = [f"{'kernel':{width}}   ours ms   twin ms   faster  size"]
    for row in rows:
        times = f"{row.ours_ms:9.1f} {row.twin_ms:9.1f} {row.ratio:7.1f}x"
        lines.append(f"{row.name:{width}} {times}  {row.detail}")
    finish({"ok": True, "rows": [vars(row) for row in rows]}, as_json=as_json, lines=lines)


def bench_service(queued: int, seconds: float, *, as_json: bool) -> None:
    from dreamcraft3d.evaluation.bench_service import measure_service

    figures = measure_service(
        queued=queued, seconds=seconds, say=lambda text: console.print(text, highlight=False, markup=False)
    )
    finish_figures(figures, as_json=as_json)


def finish_figures(figures: list["Figure"], *, as_json: bool) -> None:
    """Shows each figure beside what is wanted of it."""
    lines = []
    for figure in figures:
        wanted = "" if figure.wanted is None else f"(wanted: {figure.wanted:g}{'' if figure.good else ', MISSED'})"
        lines.append(f"{figure.name:26} {figure.value:9.2f} {figure.unit:4} {wanted:22} {figure.detail}")
    good = all(figure.good for figure in figures)
    finish({"ok": good, "figures": [vars(figure) for figure in figures]}, as_json=as_json, lines=lines)
