"""What the service asks of whoever runs its jobs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

__all__ = ["Executor", "MaskRequest"]


@dataclass(frozen=True)
class MaskRequest:
    """Stage 0 of a picture: what would be taken for the object. The answer's picture is written to `target`."""

    files: dict[str, Path]
    settings: dict[str, Any]
    target: Path


class Executor(Protocol):
    """Takes jobs from the store, runs them, and writes what happens back into the store."""

    def start(self) -> None:
        """Begins to take jobs."""
        ...

    def stop(self) -> None:
        """Releases the running jobs (checkpointed, back in the queue) and ends every process it has started."""
        ...

    def poke(self) -> None:
        """Something changed in the store: a new job, a wish, a new order."""
        ...

    @property
    def busy(self) -> bool:
        """Whether a job is running."""
        ...

    def mask(self, request: MaskRequest, *, seconds: float) -> dict[str, Any]:
        """Runs stage 0, for at most `seconds`; {"ok": true, "matting"} or {"ok": false, "code", "message", "hint"}."""
        ...
