"""Timing of the kernels beside their slow torch twins, in one run, so that a noisy machine is noisy for both.

The two are run in turn and the medians are compared: an absolute time says little on a shared machine, the ratio much.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class BenchRow:
    """One comparison. Times are medians in milliseconds; ratio = twin / ours, how many times faster the kernel is."""

    name: str
    ours_ms: float
    twin_ms: float
    ratio: float
    detail: str = ""


@dataclass(frozen=True)
class Figure:
    """One measured figure beside what is wanted (at most)."""

    name: str
    value: float
    unit: str
    wanted: float | None = None
    detail: str = ""

    @property
    def good(self) -> bool:
        return self.wanted is None or self.value <= self.wanted


def compare(
    name: str, ours: Callable[[], object], twin: Callable[[], object], repeats: int = 5, *, detail: str = ""
) -> BenchRow:
    """Median times of `ours` and `twin`, alternated `repeats` times after one warm-up of each (which compiles kernels).

    A callable that works on an accelerator must wait for it before it returns.

    Raises:
        ValueError: repeats < 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    ours()
    twin()
    pairs = [(_milliseconds(ours), _milliseconds(twin)) for _ in range(repeats)]
    ours_ms = statistics.median(pair[0] for pair in pairs)
    twin_ms = statistics.median(pair[1] for pair in pairs)
    return BenchRow(name, ours_ms, twin_ms, twin_ms / max(ours_ms, 1e-9), detail)


def run_all() -> list[BenchRow]:
    """Every kernel at its working size (about two minutes on two cores; the twins take most of it)."""
    from dreamcraft3d.evaluation.bench_mesh import mesh_benchmarks
    from dreamcraft3d.evaluation.bench_patches import patch_benchmarks
    from dreamcraft3d.evaluation.bench_volume import volume_benchmarks

    return [*volume_benchmarks(), *mesh_benchmarks(), *patch_benchmarks()]


def _milliseconds(body: Callable[[], object]) -> float:
    start = time.perf_counter()
    body()
    return (time.perf_counter() - start) * 1e3
