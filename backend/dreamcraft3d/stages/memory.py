"""What to do when memory runs out in a stage: step down and go on from the checkpoint, instead of dying.

What costs only time comes first (`Shelf.save_memory`: checkpointing, slices, parts in main memory), then renders of
half the side, as often as it takes down to `SMALLEST`. What was done is told to the user and stands in the report.
"""

import gc
import logging
from collections.abc import Callable
from typing import TypeVar

import torch
from pydantic import BaseModel

from dreamcraft3d.errors import MemoryExhaustedError
from dreamcraft3d.progress import Progress

__all__ = ["is_out_of_memory", "smaller", "within_memory"]

logger = logging.getLogger(__name__)

C = TypeVar("C", bound=BaseModel)
T = TypeVar("T")

SMALLEST = 32
"""Renders are not made smaller than this, pixels."""

SIGNS = ("out of memory", "can't allocate memory", "failed to allocate", "not enough memory")
"""How torch on the CPU, torch on a card and Warp say it."""


def within_memory(
    train: Callable[[C], T], config: C, save_memory: Callable[[], bool], *, stage: str, progress: Progress
) -> tuple[T, list[str]]:
    """Calls `train`, again with a smaller need each time that memory runs out. Returns its result and what was done.

    Args:
        train: goes on from the stage's checkpoint. save_memory: takes a measure of the priors; False if none is left.

    Raises:
        MemoryExhaustedError: nothing is left to be done.
    """
    done: list[str] = []
    while True:
        try:
            return train(config), done
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).partition("\n")[0]
        # Outside of the handler, where the error no longer keeps the failed step's tensors alive.
        release()
        config, measure = _step_down(config, save_memory, stage, reason)
        done.append(measure)
        progress.warn(f"{stage}: memory ran out; going on with {measure}.")


def _step_down(config: C, save_memory: Callable[[], bool], stage: str, reason: str) -> tuple[C, str]:
    if save_memory():
        return config, "priors that use less memory and more time"
    reduced = smaller(config)
    if reduced is None:
        raise MemoryExhaustedError(
            f"Memory ran out in the {stage} stage, and its renders cannot be made smaller ({reason}).",
            "Close other programs, or choose a smaller preset: `dreamcraft3d plan` shows what each needs.",
        )
    return reduced, "renders of half the side"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory, of the card or of the machine, ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in SIGNS)


def smaller(config: C) -> C | None:
    """The stage with renders of half the side; None if they are small already."""
    sizes = {key: getattr(config, key) for key in ("render_size", "reference_size") if hasattr(config, key)}
    halved = {key: _halved(size) for key, size in sizes.items()}
    return config.model_copy(update=halved) if halved != sizes else None


def _halved(size: object) -> object:
    """A size, or a schedule of sizes; none is made smaller than `SMALLEST`, nor larger."""
    if isinstance(size, tuple):
        return tuple((fraction, _halved(value)) for fraction, value in size)
    assert isinstance(size, int | float)
    return type(size)(min(size, max(SMALLEST, size // 2)))


def release() -> None:
    """Gives back what nothing uses any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
