"""How quick the bundled prior is: reading its file, and one guided question about several views."""

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from dreamcraft3d.evaluation.bench import Figure
from dreamcraft3d.priors.base import ViewCondition
from dreamcraft3d.priors.bundled import BundledPrior

__all__ = ["measure_prior"]

VIEWS, SCALE = 4, 3.0
LOADS = 5


def measure_prior(*, repeats: int = 30) -> list[Figure]:
    """Loading, and four views with guidance (eight evaluations) of a known and of a new reference picture."""
    loads = [milliseconds(BundledPrior.load) for _ in range(LOADS)]
    figures = [Figure("loading", round(statistics.median(loads), 1), "ms", 1000.0, f"median of {LOADS}")]
    prior, generator = BundledPrior.load(), torch.Generator().manual_seed(0)
    x, t = torch.randn(VIEWS, 4, prior.image_size, prior.image_size, generator=generator), torch.full((VIEWS,), 500)
    pictures = [torch.rand(1, 64, 64, 1, generator=generator).expand(-1, -1, -1, 4) for _ in range(repeats)]
    elevation, azimuth = torch.linspace(0.0, 0.5, VIEWS), torch.linspace(0.0, 3.0, VIEWS)

    def ask(picture: Tensor) -> None:
        prior.predict_noise(x, t, ViewCondition(picture, 0.1, elevation, azimuth), cfg_scale=SCALE)

    for name, shown in (("known reference", pictures[:1] * repeats), ("new reference", pictures)):
        ask(shown[0])
        times = [milliseconds(partial(ask, picture)) for picture in shown]
        detail = f"{VIEWS} views with guidance, median of {repeats}, worst {max(times):.0f} ms"
        figures.append(Figure(name, round(statistics.median(times), 1), "ms", 300.0, detail))
    return figures


def milliseconds(body: Callable[[], object]) -> float:
    start = time.perf_counter()
    body()
    return 1000.0 * (time.perf_counter() - start)
