"""What a run reports, and how it is told to stop.

A stage loops over ``progress.track("coarse_nerf", range(start, total), total)``: each turn checks whether the user
cancelled and sends an event. Events are frozen records; whoever wants them (a progress bar, a JSON stream, a
server, a test) is a *sink*: a callable that takes one event. Sinks are called in order, on the thread that works,
and must be quick.

Letters: step = index of an optimiser step, total = number of steps of the whole stage (also after a resume), eta =
seconds left.
"""

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from dreamcraft3d.errors import Cancelled

__all__ = ["Artifact", "Event", "Note", "Progress", "Sink", "StageFinished", "StageStarted", "StepDone", "Warned"]

logger = logging.getLogger(__name__)

SMOOTHING = 0.9
"""Weight of the past in the running mean of seconds per step: about the last ten steps count."""


@dataclass(frozen=True)
class Event:
    """Something that happened. ``kind`` names it on the wire."""

    kind: ClassVar[str] = "event"

    def as_dict(self) -> dict[str, Any]:
        """The event as JSON-ready values, ``kind`` first."""
        values = {key: str(value) if isinstance(value, Path) else value for key, value in vars(self).items()}
        return {"kind": self.kind, **values}


@dataclass(frozen=True)
class StageStarted(Event):
    kind: ClassVar[str] = "stage_started"
    stage: str
    total: int


@dataclass(frozen=True)
class StepDone(Event):
    """``step`` steps of ``total`` are behind us; ``eta`` seconds are left in this stage."""

    kind: ClassVar[str] = "step"
    stage: str
    step: int
    total: int
    seconds: float
    eta: float


@dataclass(frozen=True)
class StageFinished(Event):
    kind: ClassVar[str] = "stage_finished"
    stage: str
    seconds: float


@dataclass(frozen=True)
class Warned(Event):
    """The run goes on, but the user should know."""

    kind: ClassVar[str] = "warning"
    text: str


@dataclass(frozen=True)
class Note(Event):
    kind: ClassVar[str] = "note"
    text: str


@dataclass(frozen=True)
class Artifact(Event):
    """A file that is worth showing: a preview, a mesh, a report."""

    kind: ClassVar[str] = "artifact"
    name: str
    path: Path


Sink = Callable[[Event], None]
Draw = Callable[[], bytes]
"""Makes a PNG of what a stage has so far; costs about as much as a step."""


@dataclass
class Progress:
    """Sends events to sinks and carries the cancel flag. ``Progress()`` is silent and never cancels by itself.

    ``preview`` is offered a picture of the work before every step, and decides whether to have it drawn.
    """

    sinks: tuple[Sink, ...] = ()
    preview: Callable[[str, Draw], None] | None = None
    _cancel: threading.Event = dataclasses.field(default_factory=threading.Event, repr=False)

    def cancel(self) -> None:
        """Ask the run to stop at its next step. Safe from a signal handler or another thread."""
        self._cancel.set()

    @property
    def cancelled(self) -> bool:
        return self._cancel.is_set()

    def check(self) -> None:
        """Raise ``Cancelled`` if the user asked to stop. For long work between steps."""
        if self.cancelled:
            raise Cancelled

    def emit(self, event: Event) -> None:
        for sink in self.sinks:
            sink(event)

    def track(self, stage: str, steps: Iterable[int], total: int) -> Iterator[int]:
        """Yield the steps; before each one check for cancel, after each one send ``StepDone`` with an ETA.

        ``steps`` may start in the middle (a resumed stage): ``total`` is still the length of the whole stage.
        Raises ``Cancelled`` from the ``for`` line, so that a stage can save a checkpoint in an ``except Cancelled``
        and raise again.
        """
        start = before = time.perf_counter()
        mean: float | None = None
        self.emit(StageStarted(stage, total))
        for step in steps:
            self.check()
            yield step
            now = time.perf_counter()
            mean = now - before if mean is None else SMOOTHING * mean + (1 - SMOOTHING) * (now - before)
            before = now
            self.emit(StepDone(stage, step + 1, total, now - start, mean * max(0, total - step - 1)))
        self.emit(StageFinished(stage, time.perf_counter() - start))

    def warn(self, text: str) -> None:
        logger.warning(text)
        self.emit(Warned(text))

    def note(self, text: str) -> None:
        logger.info(text)
        self.emit(Note(text))

    def artifact(self, name: str, path: Path) -> None:
        self.emit(Artifact(name, path))
