"""Nearest patch search: for patches of one image the most similar patches of others, and images made of them.

The cost of source patch p for the query patch q, both k x k pixels, is

    cost(q, p) = sum_o w(q + o) |I(q + o) - J(p + o)|^2 / (3 sum_o w(q + o)) + |g(q) - g(p)|^2 + penalty(p)

with per-pixel weights w of the query (known pixels weigh more; 0 outside), guide vectors g at the patches' centres
(any features; their scale is their weight), and a penalty per source patch (infinite = not to be used).

`exact_search` tries every source patch; `patch_match` (Barnes et al. 2009) improves given matches by what neighbours
found and by random trials, in Jacobi passes, so that results depend neither on threads nor on order. `vote` makes an
image of the overlapping matches. Nothing is differentiable. `reference/patch_match.py` is the reference implementation.
The CUDA path has never run on a GPU in our hands.

Notation: S source images of h x w, query image H x W, G guide channels, N centres; a patch is numbered by its centre,
(s h + v) w + u among sources, y W + x in the query.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from dreamcraft3d.kernels.bands import loaded
from dreamcraft3d.kernels.dispatch import in_ranges, launch, view, warp
from dreamcraft3d.kernels.patch_match_source import patch_kernels, patch_types

__all__ = ["Matches", "PatchQuery", "PatchSource", "exact_search", "patch_match", "vote"]

JUMPS = (4, 1, 2, 1)
"""How far away the neighbours are asked, pass by pass."""


@dataclass(frozen=True)
class PatchSource:
    """Where patches come from.

    Attributes:
        images: colours. guide: per patch centre. penalty: per patch centre, inf = not to be used; patches that reach
        over the border of their image are never used.
        size: k, odd.

    Raises:
        ValueError: an even size, or parts whose shapes differ.
    """

    images: Float[Tensor, "S h w 3"]
    guide: Float[Tensor, "S h w G"]
    penalty: Float[Tensor, "S h w"]
    size: int

    def __post_init__(self) -> None:
        if self.size % 2 == 0:
            raise ValueError(f"patches need an odd size, got {self.size}")
        if not self.images.shape[:3] == self.guide.shape[:3] == self.penalty.shape:
            raise ValueError("images, guide and penalty of patches must be of one size")

    @cached_property
    def usable_penalty(self) -> Float[Tensor, "S h w"]:
        """The penalty, infinite where a patch does not lie inside its image."""
        r = self.size // 2
        inner = self.penalty[:, r : self.penalty.shape[1] - r, r : self.penalty.shape[2] - r]
        return F.pad(inner, (r, r, r, r), value=torch.inf).contiguous()

    def with_penalty(self, penalty: Float[Tensor, "S h w"]) -> "PatchSource":
        """The same patches, weighed otherwise."""
        return replace(self, penalty=penalty)


@dataclass(frozen=True)
class PatchQuery:
    """What is looked for.

    Attributes:
        image, weight: colours and how much each pixel counts. guide: per patch centre.
        centres: numbers of the patches to look for.
    """

    image: Float[Tensor, "H W 3"]
    weight: Float[Tensor, "H W"]
    guide: Float[Tensor, "H W G"]
    centres: Int[Tensor, " N"]

    def scale(self, size: int) -> Float[Tensor, "H W"]:
        """1 / (3 sum w) over each patch; 0 where nothing counts."""
        ones = self.weight.new_ones(1, 1, size, size)
        total = F.conv2d(self.weight[None, None], ones, padding=size // 2)[0, 0]
        return torch.where(total > 1e-6, 1.0 / (3.0 * total.clamp_min(1e-6)), 0.0)


@dataclass(frozen=True)
class Matches:
    """The source patch of each query patch (-1 = none) and its cost (inf where there is none)."""

    index: Int[Tensor, "H W"]
    cost: Float[Tensor, "H W"]


def exact_search(query: PatchQuery, source: PatchSource) -> Matches:
    """The cheapest source patch for each centre; of equal ones that with the lowest number."""
    place = _Search(query, source)
    return place.run(lambda kernels, centres, results: launch(kernels.search, (len(centres),), [centres, *results]))


def patch_match(
    query: PatchQuery, source: PatchSource, start: Matches, *, passes: int = 4, reach: int | None = None, seed: int = 0
) -> Matches:
    """Matches that are at least as cheap as those of `start`, after so many passes.

    Args:
        start: e.g. of a coarser image, or all -1. reach: how far from the best patch so far the random trials begin
        (None = anywhere). seed: of the random trials.
    """
    place, matches = _Search(query, source), start
    for number in range(passes):
        before = view(matches.index.int().contiguous())
        jump, salt = JUMPS[number % len(JUMPS)], (1009 * seed + number) % (1 << 31)

        def improve(
            kernels: Any, centres: Any, results: list[Any], before: Any = before, jump: int = jump, salt: int = salt
        ) -> None:
            *inputs, index, cost = results
            launch(kernels.improve, (len(centres),), [centres, *inputs, jump, reach or 0, salt, before, index, cost])

        matches = place.run(improve)
    return matches


def vote(
    matches: Matches,
    source: PatchSource,
    targets: Int[Tensor, " M"],
    window: Float[Tensor, "k k"],
    trust: Float[Tensor, "H W"],
) -> tuple[Float[Tensor, "M 3"], Float[Tensor, " M"]]:
    """The colours of pixels, as the mean over the patches that lie over them, and the weight behind each.

    Args:
        window: weight of a pixel by its place in a patch. trust: weight of each patch.
    """
    wp = warp()
    numbers = targets.int().contiguous()
    colour, total = source.images.new_zeros(len(targets), 3), source.images.new_zeros(len(targets))
    fields = view(matches.index.int().contiguous()), view(trust.float().contiguous())
    images, shape = view(source.images.contiguous(), wp.vec3), view(window.float().contiguous())
    kernels = loaded(patch_kernels(), colour.device)

    def part(first: int, count: int) -> None:
        span = slice(first, first + count)
        outputs = [view(colour[span], wp.vec3), view(total[span])]
        launch(kernels.vote, (count,), [view(numbers[span]), *fields, images, shape, *outputs])

    in_ranges(colour.device, len(targets), part)
    return colour, total


class _Search:
    """Query and source as the kernels take them."""

    def __init__(self, query: PatchQuery, source: PatchSource) -> None:
        wp, types = warp(), patch_types()
        self._shape, self._centres = query.weight.shape, query.centres.int().contiguous()
        self._radius = source.size // 2
        self._kept = [  # Warp's records do not keep torch's memory alive
            query.image.float().contiguous(),
            query.weight.float().contiguous(),
            query.scale(source.size).contiguous(),
            query.guide.float().contiguous(),
            source.images.float().contiguous(),
            source.guide.float().contiguous(),
            source.usable_penalty,
        ]
        self._query, self._source = types.Query(), types.Source()
        names = ("image", "weight", "scale", "guide")
        for name, tensor in zip(names, self._kept[:4], strict=True):
            setattr(self._query, name, view(tensor, wp.vec3 if name == "image" else None))
        for name, tensor in zip(("images", "guide", "penalty"), self._kept[4:], strict=True):
            setattr(self._source, name, view(tensor, wp.vec3 if name == "images" else None))

    def run(self, launched: Callable[[Any, Any, list[Any]], None]) -> Matches:
        """All centres, in ranges; `launched` takes (kernels, centres, [query, source, radius, index, cost])."""
        device = self._centres.device
        kernels = loaded(patch_kernels(), device)
        index = torch.full_like(self._centres, -1)
        cost = torch.full((len(index),), torch.inf, device=device)

        def part(first: int, count: int) -> None:
            span = slice(first, first + count)
            outputs = [self._query, self._source, self._radius, view(index[span]), view(cost[span])]
            launched(kernels, view(self._centres[span]), outputs)

        in_ranges(device, len(index), part)
        field = torch.full((self._shape.numel(),), -1, dtype=torch.int32, device=device)
        costs = torch.full((self._shape.numel(),), torch.inf, device=device)
        place = self._centres.long()
        field[place], costs[place] = index, cost
        return Matches(field.reshape(self._shape), costs.reshape(self._shape))
