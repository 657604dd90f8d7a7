"""`dreamcraft3d refine`: a new texture for an existing mesh, and `evaluate refine`, which measures it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from dreamcraft3d.cli.evaluate import evaluations
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

Slots = Annotated[
    list[int], typer.Option("--slot", min=0, help="Material number to repaint; repeatable (default: all with UVs).")
]


@app.command()
def refine(
    mesh: Annotated[Path, typer.Argument(help="GLB or OBJ with texture coordinates.", show_default=False)],
    reference: Annotated[
        Path | None, typer.Option(help="Picture of how it should look (default: its present look).")
    ] = None,
    strength: Annotated[float | None, typer.Option(help="0 changes nothing, 1 may change everything.")] = None,
    slots: Slots = [],  # noqa: B006 - typer's way of repeatable options
    prompt: Annotated[str, typer.Option(help="What it is, for priors that read.")] = "",
    overlap: Annotated[
        str | None, typer.Option(help="Shared texels: auto, error, owner (lowest face paints) or average.")
    ] = None,
    preset: Preset = "preview",
    seed: Seed = None,
    elevation: Elevation = None,
    settings: Settings = [],  # noqa: B006
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Repaint a mesh in its own texture coordinates; geometry and coordinates stay byte for byte."""
    folder = out or Path("out") / f"{mesh.stem}-refined"
    with failing_politely(folder, as_json=as_json):
        shortcuts = {
            "seed": seed,
            "refine.strength": strength,
            "refine.overlap": overlap,
            "reference.elevation": elevation,
        }
        config = configured(preset, settings, shortcuts)
        for path in (mesh, reference):
            if path is not None:
                check_file(path)
        if reference is not None:
            from dreamcraft3d.stages.pictures import check_picture

            check_picture(reference, max_megapixels=config.reference.max_megapixels)
        from dreamcraft3d.refining.files import refine_file
        from dreamcraft3d.workspace import Workspace

        picture = None if reference is None else reference.read_bytes()
        with reporting(console, as_json=as_json) as progress:
            done = refine_file(
                mesh, config, Workspace(folder), progress, picture=picture, slots=slots or None, prompt=prompt
            )
        report: dict[str, Any] = done.result.report
        lines = [str(done.mesh), *(str(image.path) for image in done.result.images)]
        finish({"ok": True, "out": str(folder), "mesh": str(done.mesh), "report": report}, as_json=as_json, lines=lines)


@evaluations.command("refine")
def evaluate_refine(
    mesh: Annotated[Path, typer.Argument(help="GLB or OBJ whose own texture is the truth.", show_default=False)],
    preset: Preset = "oracle",
    settings: Settings = [],  # noqa: B006
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Repaint a grey copy of a mesh with the exact prior, and compare its texels with the mesh's own."""
    folder = out or Path("out") / f"refine-{mesh.stem}"
    with failing_politely(folder, as_json=as_json):
        check_file(mesh)
        config = configured(preset, settings, {})
        from dreamcraft3d.evaluation.refining import evaluate_refine as run
        from dreamcraft3d.refining.files import open_mesh, request_for
        from dreamcraft3d.workspace import Workspace

        request = request_for(open_mesh(mesh), config, picture=None, slots=None)
        with reporting(console, as_json=as_json) as progress:
            _, scores = run(request, config, Workspace(folder), progress)
        lines = ["slot  tile  PSNR dB  painted  bytes changed elsewhere"]
        lines += [f"{s.slot:4}  {s.tile}  {s.psnr:7.2f}  {s.painted:7.1%}  {s.changed}" for s in scores]
        finish({"ok": True, "scores": [vars(score) for score in scores]}, as_json=as_json, lines=lines)
