"""The ``dreamcraft3d`` command. One module per group of commands; heavy libraries are imported inside the commands, so
that ``--help`` is quick.
"""

import logging
from typing import Annotated

import typer

from dreamcraft3d import __version__
from dreamcraft3d.cli import batch, collect, evaluate, generate, models, refine, service, upkeep
from dreamcraft3d.cli.shell import app, output

__all__ = ["app", "batch", "collect", "evaluate", "generate", "main", "models", "refine", "service", "upkeep"]


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


def main() -> None:
    """Entry point of the console script."""
    app()
