"""The ``dreamcraft3d`` command.

Exit codes: 0 done; 2 the user can fix it (one line that says what and how); 3 the run lost the object; 130 cancelled;
1 a bug of ours (the traceback goes to a log file). Heavy libraries are imported inside the commands, so that
``--help`` is quick. Results go to the standard output, everything else to the standard error stream.
"""

import contextlib
import json
import logging
import sys
import tempfile
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from dreamcraft3d import __version__
from dreamcraft3d.config import GenerateConfig, describe, parse_setting
from dreamcraft3d.errors import DreamCraftError, InputError
from dreamcraft3d.presets import PRESETS, configure
from dreamcraft3d.terminal import reporting

app = typer.Typer(
    name="dreamcraft3d",
    help="One picture in, a UV-unwrapped, textured mesh out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
console = Console(stderr=True)
output = Console()

Preset = Annotated[str, typer.Option(help=f"Named set of values: {', '.join(PRESETS)}.")]
Settings = Annotated[
    list[str], typer.Option("--set", metavar="STAGE.KEY=VALUE", help="Change one setting; repeatable.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on the standard output; progress as JSON lines.")]
Seed = Annotated[int | None, typer.Option(help="Same seed, same result.")]
TargetFaces = Annotated[int | None, typer.Option(help="Largest number of triangles.")]
TextureSize = Annotated[int | None, typer.Option(help="Side of the texture in pixels.")]
Elevation = Annotated[float | None, typer.Option(help="Camera height of the picture in degrees; 0 = level.")]
Out = Annotated[Path | None, typer.Option(help="Folder for the results (default: out/NAME).")]


@app.command()
def generate(
    picture: Annotated[Path, typer.Argument(help="PNG, JPEG, WebP, TIFF or BMP of one object.", show_default=False)],
    preset: Preset = "preview",
    seed: Seed = None,
    elevation: Elevation = None,
    target_faces: TargetFaces = None,
    texture_size: TextureSize = None,
    mask: Annotated[Path | None, typer.Option(help="Where the object is: white on black.")] = None,
    depth: Annotated[Path | None, typer.Option(help="Depth map; larger = farther.")] = None,
    normal: Annotated[Path | None, typer.Option(help="Normal map in view space (OpenGL).")] = None,
    prior: Annotated[str | None, typer.Option(help="The network that judges novel views.")] = None,
    settings: Settings = [],  # noqa: B006 - typer's way of repeatable options
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Turn a picture into a textured mesh. Run it again to resume after Ctrl-C or a crash."""
    folder = out or Path("out") / picture.stem
    with _failing_politely(folder, as_json=as_json):
        shortcuts = {
            "seed": seed,
            "prior": prior,
            "reference.elevation": elevation,
            "reference.mask": mask,
            "reference.depth": depth,
            "reference.normal": normal,
            "export.target_faces": target_faces,
            "export.texture_size": texture_size,
        }
        config = _configured(preset, settings, shortcuts)
        from dreamcraft3d.stages.pictures import check_picture

        for path in (picture, mask, depth, normal):
            if path is not None:
                check_picture(path, max_megapixels=config.reference.max_megapixels)
        from dreamcraft3d import pipeline
        from dreamcraft3d.workspace import Workspace

        with reporting(console, as_json=as_json) as progress:
            result = pipeline.generate(picture, config, Workspace(folder), progress)
        files = {"glb": str(result.glb), "turntable": str(result.turntable)}
        record = {"ok": True, "out": str(folder), **files, "report": result.report}
        _finish(record, as_json=as_json, lines=files.values())


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
    with _failing_politely(folder, as_json=as_json):
        config = _configured(preset, settings, {"seed": seed, "reference.elevation": elevation})
        _check_file(oracle)
        from dreamcraft3d.evaluation.oracle import evaluate_oracle

        with reporting(console, as_json=as_json) as progress:
            report = evaluate_oracle(oracle, folder, config, progress)
        scores = report["scores"]
        lines = [str(folder / "result.glb"), *(f"{name}: {value:.4g}" for name, value in scores.items())]
        _finish({"ok": True, "out": str(folder), "report": report}, as_json=as_json, lines=lines)


@app.command()
def ablate(
    meshes: Annotated[list[Path], typer.Argument(help="Meshes to be found.", show_default=False)],
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each variant on each mesh.")] = 2,
    as_json: Json = False,
) -> None:
    """Run the coarse stage without one idea of the paper at a time, and print a table."""
    with _failing_politely(None, as_json=as_json):
        for mesh in meshes:
            _check_file(mesh)
        from dreamcraft3d.evaluation.ablation import ablate as runs
        from dreamcraft3d.evaluation.ablation import ablation_table
        from dreamcraft3d.progress import Progress

        rows = []
        for row in runs(meshes, seeds=seeds, progress=Progress()):
            rows.append(row)
            note = f"{row.object} {row.seed} {row.variant}: IoU {row.iou:.3f}, {row.psnr:.2f} dB"
            console.print(note, highlight=False, markup=False)
        lines = ablation_table(rows).splitlines()
        _finish({"ok": True, "rows": [vars(row) for row in rows]}, as_json=as_json, lines=lines)


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
    with _failing_politely(target.parent, as_json=as_json):
        _check_file(mesh)
        from dreamcraft3d.evaluation.turntable import turntable as draw
        from dreamcraft3d.workspace import output_error

        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            draw(mesh, target, views=views, size=size)
        except OSError as error:
            raise output_error(error, target) from error
        _finish({"ok": True, "turntable": str(target)}, as_json=as_json, lines=[str(target)])


@app.command()
def bench(as_json: Json = False) -> None:
    """Time each kernel beside its slow twin, in one run."""
    with _failing_politely(None, as_json=as_json):
        from dreamcraft3d.evaluation.bench import run_all

        rows = run_all()
        width = max((len(row.name) for row in rows), default=0)
        lines = [f"{'kernel':{width}}   ours ms   twin ms   faster  size"]
        for row in rows:
            times = f"{row.ours_ms:9.1f} {row.twin_ms:9.1f} {row.ratio:7.1f}x"
            lines.append(f"{row.name:{width}} {times}  {row.detail}")
        _finish({"ok": True, "rows": [vars(row) for row in rows]}, as_json=as_json, lines=lines)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check this machine, and say how to cure what is wrong. Ends with code 2 if something is."""
    with _failing_politely(None, as_json=as_json):
        from dreamcraft3d.doctor import examine

        checks = examine()
        colours = {"ok": "green", "warn": "yellow", "fail": "red"}
        lines = []
        for check in checks:
            line = Text.assemble((f"{check.status:5}", colours[check.status]), f"{check.name}: {check.detail}")
            lines.append(line.append(f" -> {check.cure}", style="dim") if check.cure else line)
        healthy = all(check.status != "fail" for check in checks)
        _finish({"ok": healthy, "checks": [vars(check) for check in checks]}, as_json=as_json, lines=lines)
    if not healthy:
        raise typer.Exit(2)


@app.command("settings")
def list_settings(preset: Preset = "preview", as_json: Json = False) -> None:
    """List every setting of a preset, for --set."""
    with _failing_politely(None, as_json=as_json):
        config = configure(preset)
        rows = describe(config)
        lines = [Text.assemble((key, "bold"), f" = {value}", (f"  {meaning}", "dim")) for key, value, meaning in rows]
        _finish(config.model_dump(mode="json"), as_json=as_json, lines=lines)


@app.command("train-prior")
def train_prior(
    minutes: Annotated[float, typer.Option(min=0.0, help="Training time.")] = 90.0,
    folder: Annotated[Path | None, typer.Option(help="Where pictures, checkpoints and logs go.")] = None,
    export: Annotated[Path | None, typer.Option(help="A second place for the weights.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start again instead of resuming.")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    as_json: Json = False,
) -> None:
    """Train the bundled prior on procedural objects."""
    with _failing_politely(folder, as_json=as_json):
        if device not in ("cpu", "cuda"):
            raise InputError(f"There is no device '{device}'.", "Choose cpu or cuda.")
        from dreamcraft3d.training.train import DEFAULT_FOLDER, train

        def show(record: dict[str, Any]) -> None:
            console.print(json.dumps(record), highlight=False, markup=False, soft_wrap=True)

        place = folder or DEFAULT_FOLDER
        weights = train(minutes=minutes, resume=not fresh, folder=place, export=export, device=device, on_log=show)
        _finish({"ok": True, "weights": str(weights)}, as_json=as_json, lines=[str(weights)])


def _print_version(wanted: bool) -> None:
    if wanted:
        output.print(__version__, highlight=False)
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the log, too.")] = False,
) -> None:
    logger = logging.getLogger("dreamcraft3d")
    logger.addHandler(logging.StreamHandler() if verbose else logging.NullHandler())
    logger.setLevel(logging.DEBUG if verbose else logging.WARNING)


# --- what the commands share ----------------------------------------------------------------------


def _configured(preset: str, settings: list[str], shortcuts: dict[str, Any]) -> GenerateConfig:
    """The preset, changed by the options that were given, changed by --set."""
    given = {key: value for key, value in shortcuts.items() if value is not None}
    return configure(preset, {**given, **dict(map(parse_setting, settings))})


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"There is no file {path}.", "Check the path.")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty.", "Choose another file, or copy it again.")


def _finish(result: dict[str, Any], *, as_json: bool, lines: Iterable[str | Text]) -> None:
    """The result: one JSON object, or lines for people."""
    if as_json:
        sys.stdout.write(json.dumps(result) + "\n")
        return
    for line in lines:
        output.print(line, markup=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def _failing_politely(folder: Path | None, *, as_json: bool) -> Iterator[None]:
    """Turns errors into a line and an exit code; a bug's traceback goes to a log in `folder`, if there is one."""
    try:
        yield
    except DreamCraftError as error:
        _report_failure(error.message, error.remedy, error.code, as_json=as_json)
    except KeyboardInterrupt:
        _report_failure("Cancelled.", "", 130, as_json=as_json)
    except typer.Exit:
        raise
    except Exception as error:  # noqa: BLE001 - the last stop of every bug
        log = _write_log(folder)
        summary = f"{type(error).__name__}: {error}".splitlines()[0]
        _report_failure(
            f"This is a bug of DreamCraft ({summary}).", f"Please report it with {log}.", 1, as_json=as_json
        )


def _report_failure(message: str, remedy: str, code: int, *, as_json: bool) -> None:
    if as_json:
        failure = {"ok": False, "code": code, "error": message, "remedy": remedy}
        sys.stdout.write(json.dumps(failure) + "\n")
    else:
        style = "yellow" if code == 130 else "red"
        console.print(f"{message} {remedy}".rstrip(), style=style, highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(code)


def _write_log(folder: Path | None) -> Path:
    place = folder if folder is not None and folder.is_dir() else Path(tempfile.gettempdir())
    log = place / "dreamcraft3d-error.log"
    log.write_text(f"dreamcraft3d {__version__}\n{' '.join(sys.argv)}\n\n{traceback.format_exc()}", encoding="utf-8")
    return log


def main() -> None:
    """Entry point of the console script."""
    app()
