"""What a run will take, as far as the results that are already there tell."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from dreamcraft3d.batch.survey import Standing

__all__ = ["Forecast", "forecast"]

GLB_BYTES_PER_FACE = 3 * 4 + 3 * 8 * 4
"""An index and at most three vertices of position, normal and UV, in 32 bits each."""


@dataclass(frozen=True)
class Forecast:
    """Of the items to be run. `seconds` is None where no item with the same preset has been measured here yet;
    `disk_bytes` is an upper bound of what stays."""

    items: int
    seconds: float | None
    disk_bytes: int


def forecast(chosen: Iterable[Standing], all_items: Iterable[Standing], *, jobs: int) -> Forecast:
    """Medians of the committed items of each preset, spread over the jobs."""
    measured: dict[str, list[float]] = {}
    for standing in all_items:
        if standing.outcome is not None and standing.history.seconds:
            measured.setdefault(standing.task.item.preset, []).append(standing.history.seconds)
    wanted = list(chosen)
    known = all(standing.task.item.preset in measured for standing in wanted)
    total = sum(statistics.median(measured[standing.task.item.preset]) for standing in wanted) if known else None
    seconds = None if total is None else total / max(1, min(jobs, len(wanted)))
    return Forecast(len(wanted), seconds, sum(_largest(standing) for standing in wanted))


def _largest(standing: Standing) -> int:
    """Bytes of a result whose pictures do not compress at all."""
    export = standing.task.config.export
    return export.target_faces * GLB_BYTES_PER_FACE + 3 * export.texture_size**2
