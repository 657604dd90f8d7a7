"""What all commands share: the application, its consoles, options, how results are shown and how errors end.

Exit codes: 0 done; 2 the user can fix it (one line that says what and how); 3 the run lost the object; 130 cancelled;
1 a bug of ours (the traceback goes to a log file). Results go to the standard output, everything else to the standard
error stream.
"""

import contextlib
import json
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
from dreamcraft3d.config import GenerateConfig, parse_setting
from dreamcraft3d.errors import DreamCraftError, InputError
from dreamcraft3d.presets import PRESETS, configure

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
Elevation = Annotated[
    float | None, typer.Option(help="Camera height of the picture in degrees; 0 = level. Guessed if not given.")
]
Out = Annotated[Path | None, typer.Option(help="Folder for the results (default: out/NAME).")]


def configured(preset: str, settings: list[str], shortcuts: dict[str, Any]) -> GenerateConfig:
    """The preset, changed by the options that were given, changed by --set."""
    given = {key: value for key, value in shortcuts.items() if value is not None}
    return configure(preset, {**given, **dict(map(parse_setting, settings))})


def check_file(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"There is no file {path}.", "Check the path.")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty.", "Choose another file, or copy it again.")


def finish(result: dict[str, Any], *, as_json: bool, lines: Iterable[str | Text]) -> None:
    """The result: one JSON object, or lines for people."""
    if as_json:
        sys.stdout.write(json.dumps(result) + "\n")
        return
    for line in lines:
        output.print(line, markup=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def failing_politely(folder: Path | None, *, as_json: bool) -> Iterator[None]:
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
