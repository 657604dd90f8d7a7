"""What is seen while a batch runs: a bar for the whole and a line for each running item, plain lines, or JSON lines."""

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from dreamcraft3d.batch.runner import BatchEvent, Sink

__all__ = ["stopping_on_signals", "watching"]

JSON_SECONDS = 1.0
"""Shortest time between two JSON lines about the progress of one item."""
ANSWERS = ("committed", "failed")
"""Events that are results, and go to the standard output."""


@contextlib.contextmanager
def watching(console: Console, *, as_json: bool) -> Iterator[Sink]:
    """A sink that shows a batch while the block runs."""
    if as_json:
        yield JsonLines()
    elif console.is_terminal:
        with Bars(console) as bars:
            yield bars
    else:
        yield PlainLines(console)


class JsonLines:
    """Items that are done or failed on the standard output; everything else on the standard error stream."""

    def __init__(self) -> None:
        self._last: dict[str | None, float] = {}

    def __call__(self, event: BatchEvent) -> None:
        if event.kind == "progress":
            if time.monotonic() - self._last.get(event.item, 0.0) < JSON_SECONDS:
                return
            self._last[event.item] = time.monotonic()
        line = {"event": event.kind, "id": event.item, "total": event.total, "done": event.done}
        stream = sys.stdout if event.kind in ANSWERS else sys.stderr
        stream.write(json.dumps({**line, "failed": event.failed, "eta": event.eta, **event.data}) + "\n")
        stream.flush()


class PlainLines:
    """A line for each item that begins or ends."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __call__(self, event: BatchEvent) -> None:
        if (text := _sentence(event)) is not None:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)


class Bars:
    """A bar for the batch, one for each item at work, and a line for each that ends."""

    def __init__(self, console: Console) -> None:
        columns = (
            TextColumn("{task.description:20.20}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._bars = Progress(*columns, console=console)
        self._items: dict[str, TaskID] = {}
        self._whole: TaskID | None = None

    def __enter__(self) -> "Bars":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def __call__(self, event: BatchEvent) -> None:
        if self._whole is None:
            self._whole = self._bars.add_task("Batch", total=event.total, note="")
        self._bars.update(self._whole, completed=event.done + event.failed, note=_whole_note(event))
        if event.item is not None:
            self._item(event.item, event)
        if event.kind not in ("plan", "started", "end") and (text := _sentence(event)) is not None:
            self._bars.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _item(self, item: str, event: BatchEvent) -> None:
        match event.kind:
            case "started":
                self._items[item] = self._bars.add_task(item, total=None, note="starting")
            case "progress" if item in self._items:
                data = event.data
                note = f"{data.get('stage', '')}, {_clock(data.get('eta', 0.0))} left in this stage"
                self._bars.update(self._items[item], completed=data.get("step"), total=data.get("total"), note=note)
            case "committed" | "failed" | "stopped" | "lost" if item in self._items:
                self._bars.remove_task(self._items.pop(item))


@contextlib.contextmanager
def stopping_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C, SIGTERM or SIGHUP stops the batch at checkpoints; the second one kills this process."""
    asked = False

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        asked = True
        stop()
        os.write(2, b"\nStopping at the next step of each item. Press Ctrl-C again to kill.\n")

    names = ("SIGINT", "SIGTERM", "SIGHUP")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    # Under nohup SIGHUP is ignored, and stays so.
    before = {number: old for number in numbers if (old := signal.getsignal(number)) is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _sentence(event: BatchEvent) -> str | None:
    data: dict[str, Any] = event.data
    place = f"[{event.done + event.failed}/{event.total}]"
    match event.kind:
        case "plan":
            return f"{event.total} items to do."
        case "started":
            return f"{place} {event.item}: started"
        case "committed":
            eta = f", {_clock(event.eta)} left" if event.eta else ""
            return f"{place} {event.item}: done in {_clock(data['seconds'])}{eta}"
        case "failed":
            return f"{place} {event.item}: failed. {data['message']} {data['remedy']}".rstrip()
        case "lost":
            return f"{place} {event.item}: tried again. {data['message']}"
        case "stopped":
            return f"{place} {event.item}: stopped"
        case "warning":
            return f"{event.item}: warning: {data.get('text', '')}"
        case _:
            return None


def _whole_note(event: BatchEvent) -> str:
    failed = f"{event.failed} failed" if event.failed else ""
    left = f"{_clock(event.eta)} left" if event.eta else ""
    return ", ".join(filter(None, (failed, left)))


def _clock(seconds: float) -> str:
    """95.0 -> 1:35."""
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
