"""`dreamcraft3d generate`, `settings` and `turntable`: making an object and looking at it."""

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from dreamcraft3d.cli.shell import (
    Elevation,
    Json,
    Out,
    Preset,
    Seed,
    Settings,
    TargetFaces,
    TextureSize,
    app,
    check_file,
    configured,
    console,
    failing_politely,
    finish,
)
from dreamcraft3d.config import describe
from dreamcraft3d.presets import configure
from dreamcraft3d.terminal import reporting


@app.command()
def generate(
    picture: Annotated[
        Path | None, typer.Argument(help="PNG, JPEG, WebP, TIFF or BMP of one object.", show_default=False)
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="The object in words: what the picture shows, or what to draw if there is none.")
    ] = None,
    choose: Annotated[
        int | None, typer.Option(min=1, help="Which of the drawn pictures to take (default: best).")
    ] = None,
    pictures_only: Annotated[bool, typer.Option(help="Draw pictures from --prompt, and stop there.")] = False,
    preset: Preset = "preview",
    seed: Seed = None,
    elevation: Elevation = None,
    fov: Annotated[
        float | None,
        typer.Option(help="Field of view in degrees, cut to the object. Guessed if not given."),
    ] = None,
    target_faces: TargetFaces = None,
    texture_size: TextureSize = None,
    mask: Annotated[Path | None, typer.Option(help="Where the object is: white on black.")] = None,
    depth: Annotated[Path | None, typer.Option(help="Depth map; larger = farther.")] = None,
    normal: Annotated[Path | None, typer.Option(help="Normal map in view space (OpenGL).")] = None,
    shape: Annotated[
        Path | None, typer.Option(metavar="MESH", help="Start from this object's shape (GLB, OBJ).")
    ] = None,
    shape_aligned: Annotated[
        bool, typer.Option("--shape-aligned", help="The mesh lies where a result would lie: do not align it.")
    ] = False,
    delight: Annotated[
        bool | None, typer.Option("--delight", help="Take the light out of the picture before texturing.")
    ] = None,
    exemplar: Annotated[
        Path | None, typer.Option(help="Paint unseen sides with patches of the picture and of this one.")
    ] = None,
    prior: Annotated[str | None, typer.Option(help="The network that judges novel views.")] = None,
    settings: Settings = [],  # noqa: B006 - typer's way of repeatable options
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Turn a picture, or words, into a textured mesh. Run it again to resume after Ctrl-C or a crash."""
    folder = out or Path("out") / (folder_name(prompt or "") if picture is None else picture.stem)
    with failing_politely(folder, as_json=as_json):
        shortcuts = {
            "seed": seed,
            "prompt": prompt,
            "picture.choice": choose,
            "prior": prior,
            "reference.elevation": elevation,
            "reference.fov": fov,
            "reference.mask": mask,
            "reference.depth": depth,
            "reference.normal": normal,
            "shape.mesh": shape,
            "shape.aligned": shape_aligned or None,
            "reference.delight": delight,
            "exemplar.picture": exemplar,
            "exemplar.enabled": True if exemplar is not None else None,
            "export.target_faces": target_faces,
            "export.texture_size": texture_size,
        }
        config = configured(preset, settings, shortcuts)
        from dreamcraft3d.stages.pictures import check_picture

        for path in (picture, mask, depth, normal, config.exemplar.picture):
            if path is not None:
                check_picture(path, max_megapixels=config.reference.max_megapixels)
        if shape is not None:
            check_file(shape)
        from dreamcraft3d import pipeline
        from dreamcraft3d.workspace import Workspace

        with reporting(console, as_json=as_json) as progress:
            if picture is None:
                picture = pipeline.picture_from_words(config, Workspace(folder), progress)
            if pictures_only:
                finish({"ok": True, "out": str(folder), "picture": str(picture)}, as_json=as_json, lines=[str(picture)])
                return
            result = pipeline.generate(picture, config, Workspace(folder), progress)
        files = {"glb": str(result.glb), "turntable": str(result.turntable)}
        record = {"ok": True, "out": str(folder), **files, "report": result.report}
        finish(record, as_json=as_json, lines=files.values())


def folder_name(prompt: str) -> str:
    """Words as the name of a folder.

    >>> folder_name("A red bird, sitting!")
    'a-red-bird-sitting'
    """
    return "-".join(re.findall(r"[^\W_]+", prompt.lower()))[:60] or "prompt"


@app.command("settings")
def list_settings(preset: Preset = "preview", as_json: Json = False) -> None:
    """List every setting of a preset, for --set."""
    with failing_politely(None, as_json=as_json):
        config = configure(preset)
        rows = describe(config)
        lines = [Text.assemble((key, "bold"), f" = {value}", (f"  {meaning}", "dim")) for key, value, meaning in rows]
        finish(config.model_dump(mode="json"), as_json=as_json, lines=lines)


@app.command()
def turntable(
    mesh: Annotated[Path, typer.Argument(help="GLB, OBJ, PLY or STL.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="PNG to write (default: beside the mesh).")] = None,
    views: Annotated[int, typer.Option(min=1, max=360, help="Pictures around the object.")] = 8,
    size: Annotated[int, typer.Option(min=16, max=2048, help="Side of each picture in pixels.")] = 256,
    as_json: Json = False,
) -> None:
    """Draw a mesh from all around, in colour and in clay."""
    target = out or mesh.with_name(f"{mesh.stem}-turntable.png")
    with failing_politely(target.parent, as_json=as_json):
        check_file(mesh)
        from dreamcraft3d.evaluation.turntable import turntable as draw
        from dreamcraft3d.workspace import output_error

        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            draw(mesh, target, views=views, size=size)
        except OSError as error:
            raise output_error(error, target) from error
        finish({"ok": True, "turntable": str(target)}, as_json=as_json, lines=[str(target)])
