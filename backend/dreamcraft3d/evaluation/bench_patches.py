"""The patch search beside its reference implementation at the sizes of the exemplar stage's coarse views."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from dreamcraft3d.evaluation.bench import BenchRow, compare
from dreamcraft3d.kernels import patch_match as ours
from dreamcraft3d.kernels.patch_match import Matches, PatchQuery, PatchSource
from dreamcraft3d.kernels.reference import patch_match as reference

SIZE, PASSES = 64, 8


def patch_benchmarks(repeats: int = 3) -> list[BenchRow]:
    """Exact search, PatchMatch (which does not find the very nearest patch everywhere), and the vote."""
    query, source = _problem()
    nothing = Matches(torch.full((SIZE, SIZE), -1, dtype=torch.int32), torch.full((SIZE, SIZE), torch.inf))
    exact = reference.exact_search(query, source)
    near = ours.patch_match(query, source, nothing, passes=PASSES)
    window, trust = torch.ones(source.size, source.size), torch.ones(SIZE, SIZE)
    scene = f"{len(query.centres)} among {source.penalty.numel()} patches of {source.size} x {source.size}"
    excess = float(near.cost.sum() / exact.cost.sum()) - 1.0
    return [
        compare(
            "patch search, exact",
            lambda: ours.exact_search(query, source),
            lambda: reference.exact_search(query, source),
            repeats,
            detail=scene,
        ),
        compare(
            "patch search, PatchMatch",
            lambda: ours.patch_match(query, source, nothing, passes=PASSES),
            lambda: reference.exact_search(query, source),
            repeats,
            detail=f"{scene}; {PASSES} passes, costs {excess:+.0%}; reference: exact",
        ),
        compare(
            "patch vote",
            lambda: ours.vote(exact, source, query.centres, window, trust),
            lambda: reference.vote(exact, source, query.centres, window, trust),
            repeats,
            detail=scene,
        ),
    ]


def _problem() -> tuple[PatchQuery, PatchSource]:
    """A smooth image to be found in two others."""
    generator = torch.Generator().manual_seed(0)
    images = _smooth(3, generator)
    guide = 0.1 * images
    query = PatchQuery(images[0], torch.ones(SIZE, SIZE), guide[0], torch.arange(SIZE * SIZE))
    return query, PatchSource(images[1:], guide[1:], torch.zeros(2, SIZE, SIZE), 7)


def _smooth(count: int, generator: torch.Generator) -> Float[Tensor, "N H W 3"]:
    noise = torch.rand(count, 3, SIZE, SIZE, generator=generator)
    return F.avg_pool2d(noise, 9, 1, 4, count_include_pad=False).permute(0, 2, 3, 1).contiguous()
