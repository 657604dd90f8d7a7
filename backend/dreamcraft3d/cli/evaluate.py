"""`dreamcraft3d evaluate`, `ablate` and `bench`: measuring."""

from pathlib import Path
from typing import Annotated

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
from dreamcraft3d.terminal import reporting


@app.command()
def evaluate(
    oracle: Annotated[Path, typer.Option(metavar="MESH", help="The mesh to be found.", show_default=False)],
    preset: Preset = "oracle",
    seed: Seed = None,
    elevation: Elevation = None,
    settings: Settings = [],  # noqa: B006
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Run all stages against a prior that knows the answer, and score the result."""
    folder = out or Path("out") / f"oracle-{oracle.stem}"
    with failing_politely(folder, as_json=as_json):
        config = configured(preset, settings, {"seed": seed, "reference.elevation": elevation})
        check_file(oracle)
        from dreamcraft3d.evaluation.oracle import evaluate_oracle

        with reporting(console, as_json=as_json) as progress:
            report = evaluate_oracle(oracle, folder, config, progress)
        scores = report["scores"]
        lines = [str(folder / "result.glb"), *(f"{name}: {value:.4g}" for name, value in scores.items())]
        finish({"ok": True, "out": str(folder), "report": report}, as_json=as_json, lines=lines)


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
def bench(as_json: Json = False) -> None:
    """Time each kernel beside its slow twin, in one run."""
    with failing_politely(None, as_json=as_json):
        from dreamcraft3d.evaluation.bench import run_all

        rows = run_all()
        width = max((len(row.name) for row in rows), default=0)
        lines = [f"{'kernel':{width}}   ours ms   twin ms   faster  size"]
        for row in rows:
            times = f"{row.ours_ms:9.1f} {row.twin_ms:9.1f} {row.ratio:7.1f}x"
            lines.append(f"{row.name:{width}} {times}  {row.detail}")
        finish({"ok": True, "rows": [vars(row) for row in rows]}, as_json=as_json, lines=lines)
