"""What a person, or a program, sees while a run goes on: bars, plain lines or JSON lines, and Ctrl-C.

All of it goes to the standard error stream; the standard output is left for results.
"""

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from dreamcraft3d.progress import Artifact, Event, Note, Progress, Sink, StageFinished, StageStarted, StepDone, Warned

__all__ = ["reporting"]

EVERY_SECONDS = 0.2
"""Shortest time between two JSON lines about the same stage."""

LINE_SECONDS = 10.0
"""Time between two plain lines where nothing can be redrawn (a log file)."""


@contextlib.contextmanager
def reporting(console: Console, *, as_json: bool) -> Iterator[Progress]:
    """A Progress whose events are shown while the block runs, and whose cancel flag Ctrl-C sets."""
    with contextlib.ExitStack() as stack:
        if as_json:
            sink: Sink = JsonLines()
        elif console.is_terminal:
            sink = stack.enter_context(LiveBars(console))
        else:
            sink = PlainLines(console)
        progress = Progress((sink,))
        stack.enter_context(_stopping_on_signals(progress))
        yield progress


class LiveBars:
    """One bar per stage, with the time left."""

    def __init__(self, console: Console) -> None:
        self._bars = Bars(
            TextColumn("{task.description:12}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[clock]}"),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "LiveBars":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def __call__(self, event: Event) -> None:
        match event:
            case StageStarted(stage, total):
                self._tasks[stage] = self._bars.add_task(_title(stage), total=total, clock="")
            case StepDone(stage, step, total, _, eta):
                self._bars.update(self._tasks[stage], completed=step, total=total, clock=f"{_clock(eta)} left")
            case StageFinished(stage, seconds):
                self._bars.update(self._tasks[stage], clock=_clock(seconds))
            case _:
                _show(self._bars.console, event)


class PlainLines:
    """A line now and then, for a log file."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last = time.monotonic()

    def __call__(self, event: Event) -> None:
        match event:
            case StageStarted():
                self._last = time.monotonic()
            case StepDone(stage, step, total, _, eta):
                if time.monotonic() - self._last > LINE_SECONDS:
                    self._last = time.monotonic()
                    self._console.print(f"{_title(stage)}: {step}/{total}, {_clock(eta)} left", highlight=False)
            case StageFinished(stage, seconds):
                self._console.print(f"{_title(stage)}: done in {_clock(seconds)}", highlight=False)
            case _:
                _show(self._console, event)


class JsonLines:
    """Every event as one line of JSON on the standard error stream; steps at most five times a second."""

    def __init__(self) -> None:
        self._last = 0.0

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone):
            if event.step < event.total and time.monotonic() - self._last < EVERY_SECONDS:
                return
            self._last = time.monotonic()
        sys.stderr.write(json.dumps(event.as_dict()) + "\n")
        sys.stderr.flush()


def _show(console: Console, event: Event) -> None:
    match event:
        case Warned(text):
            console.print(f"Warning: {text}", style="yellow", highlight=False, markup=False)
        case Note(text):
            console.print(text, style="dim", highlight=False, markup=False)
        case Artifact(name, path) if not console.is_terminal:
            console.print(f"{name}: {path}", highlight=False, markup=False, soft_wrap=True)


def _title(stage: str) -> str:
    return stage.replace("_", " ").capitalize().replace("nerf", "NeRF").replace("Neus", "NeuS")


def _clock(seconds: float) -> str:
    """95.0 -> 1:35."""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


@contextlib.contextmanager
def _stopping_on_signals(progress: Progress) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) asks the run to stop at its next step; the second one kills the process."""

    def stop(number: int, _frame: FrameType | None) -> None:
        if progress.cancelled:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        progress.cancel()
        os.write(2, b"\nStopping at the next step. Press Ctrl-C again to kill.\n")

    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, stop) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
