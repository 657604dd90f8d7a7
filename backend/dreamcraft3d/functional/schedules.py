"""Values over the steps of a stage: scheduled scalars, timesteps, and which views are seen when.

All clocks are fractions of a stage in [0,1], so that a shortened stage keeps its shape (method section 18). Angles are
in radians.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

Points = Sequence[tuple[float, float]]


def piecewise_linear(fraction: float, schedule: float | Points) -> float:
    """Value at `fraction` of a schedule through (fraction, value) points, constant outside them (method section 2.1).

    >>> piecewise_linear(0.5, [(0.0, 10.0), (1.0, 20.0)])
    15.0
    >>> piecewise_linear(0.5, 3.0)
    3.0
    """
    if isinstance(schedule, int | float):
        return float(schedule)
    before = schedule[0]
    for after in schedule:
        if fraction < after[0]:
            if after[0] == before[0]:
                return float(before[1])
            share = min(max((fraction - before[0]) / (after[0] - before[0]), 0.0), 1.0)
            return float(before[1] + share * (after[1] - before[1]))
        before = after
    return float(before[1])


def random_timesteps(
    count: int, low: float, high: float, *, total: int, generator: torch.Generator
) -> Int[Tensor, " B"]:
    """Independent t ~ U{low T .. high T}, the paper's choice (method section 6)."""
    first, last = int(low * total), max(int(high * total), int(low * total) + 1)
    return torch.randint(first, last + 1, (count,), generator=generator).clamp_(0, total - 1)


def monotone_timesteps(
    count: int, fraction: float, *, low: float, high: float, total: int, generator: torch.Generator
) -> Int[Tensor, " B"]:
    """Noise that only falls: t = high - (high - low) sqrt(fraction), jittered by +-2 % of T (HiFA, arXiv 2305.18766).

    Every step of a stage gets less noise than the one before, so coarse decisions are made first and never reopened.
    """
    centre = high - (high - low) * math.sqrt(min(max(fraction, 0.0), 1.0))
    jitter = 0.04 * (torch.rand(count, generator=generator) - 0.5)
    return ((centre + jitter) * total).long().clamp_(max(int(low * total), 0), min(int(high * total), total - 1))


def random_views(
    count: int,
    *,
    elevation: tuple[float, float],
    spread: float,
    reference_elevation: float,
    generator: torch.Generator,
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """The paper's camera sampler (method section 1.2): (elevation, azimuth) of `count` independent views, radians.

    Elevation is uniform in angle or uniform on the sphere, by one coin per batch; azimuth is uniform. `spread` in [0,1]
    grows both ranges from the reference view to everything (progressive views).
    """
    low, high = (reference_elevation + spread * (end - reference_elevation) for end in elevation)
    u = torch.rand(count, generator=generator)
    if torch.rand((), generator=generator) < 0.5:
        e = low + (high - low) * u
    else:
        e = torch.asin(math.sin(low) + (math.sin(high) - math.sin(low)) * u)
    a = spread * math.pi * (2.0 * torch.rand(count, generator=generator) - 1.0)
    return e, a


def stratified_views(
    count: int,
    step: int,
    *,
    elevation: tuple[float, float],
    spread: float,
    reference_elevation: float,
    generator: torch.Generator,
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """Views that cover the circle evenly over time and oppose each other within a batch (MV-SDI's antithetic azimuths).

    The batch's first azimuth walks by the golden angle from step to step, so any run of steps is spread evenly; the
    others of the batch are spaced by 2 pi / count around it. Opposite views disagree most about depth: seeing both
    halves the variance.
    """
    golden = math.pi * (3.0 - math.sqrt(5.0))
    offset = step * golden + 0.3 * (float(torch.rand((), generator=generator)) - 0.5)
    a = offset + torch.arange(count) * (2.0 * math.pi / count)
    a = spread * (torch.remainder(a + math.pi, 2.0 * math.pi) - math.pi)
    low, high = (reference_elevation + spread * (end - reference_elevation) for end in elevation)
    strata = (torch.rand(count, generator=generator) + torch.randperm(count, generator=generator)) / count
    return torch.asin(math.sin(low) + (math.sin(high) - math.sin(low)) * strata), a


def progressive_spread(fraction: float, until: float) -> float:
    """Share of the view range that is open at `fraction` of a stage: linear to 1 at `until` (method section 1.2)."""
    return 1.0 if until <= 0.0 else min(1.0, fraction / until)
