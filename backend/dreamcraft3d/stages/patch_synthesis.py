"""Painting a part of an image with patches of other images, guided by its low frequencies (texture optimisation).

Kwatra et al. 2005 with the search of PatchMatch: every patch of the part looks for its nearest source patch, the
overlapping matches vote on each pixel, and so on. Source and query carry guides: blurred colours, and the height in
the image (what is above in the picture belongs above). Two penalties keep the result plausible: for patches that are
rare in the source (faces, eyes, logos), and for patches that have been used often already.

Notation: L side of an image; S source images (each one also mirrored); the rest as in `kernels.patch_match`.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from dreamcraft3d.config import ExemplarConfig
from dreamcraft3d.kernels.patch_match import Matches, PatchQuery, PatchSource, patch_match, vote
from dreamcraft3d.priors.exemplar import patch_rarity
from dreamcraft3d.stages.surface_views import filled_outward

__all__ = ["Canvas", "Effort", "Exemplar", "Palette", "blurred", "detail_of", "synthesise", "upsampled"]

COARSE = 64
"""Side of the coarsest images; blurs and guides are measured at it."""

BLUR = 1.2
"""Standard deviation of the guides' blur, pixels of the coarsest images."""

RARE_SIZE, RARE_PATCH = 32, 5
"""Where rarity is measured: at this size fine texture is gone, and what remains rare is a feature of its own."""

UNKNOWN = 0.3
"""Weight of a pixel that is still to be painted; known ones weigh 1."""

BANDWIDTH, HEIGHT_SCALE = 0.04, 0.1
"""Distance of blurred colours at which they pass for the same material, and the height in units of colour."""

PATCH = 7
WINDOW = 0.6
"""Standard deviation of a patch's votes, pixels: narrow, for the mean of patches that disagree is a blur."""


@dataclass(frozen=True)
class Exemplar:
    """One source image: straight colours and the pixels that belong to the object (all of a swatch), L x L."""

    colour: Float[Tensor, "L L 3"]
    inside: Bool[Tensor, "L L"]

    def at(self, size: int) -> "Exemplar":
        """The same at another size, nothing bled in from outside."""
        share = self.inside[None, None].float()
        colour = _resized(filled_outward(self.colour, self.inside).permute(2, 0, 1)[None], size)[0].permute(1, 2, 0)
        return Exemplar(colour, _resized(share, size)[0, 0] > 0.75)


class Palette:
    """The patches of all exemplars at one size, mirrored ones too, and how often each has been used."""

    def __init__(self, exemplars: list[Exemplar], size: int, config: ExemplarConfig) -> None:
        self._config = config
        scaled = [exemplar.at(size) for exemplar in exemplars]
        both = [*scaled, *(Exemplar(e.colour.flip(1), e.inside.flip(1)) for e in scaled)]
        inside = torch.stack([e.inside for e in both])
        rare = [_rarity_at(e, size) for e in exemplars]
        rarity = torch.stack([*rare, *(plane.flip(1) for plane in rare)])
        covered = F.avg_pool2d(inside[:, None].float(), PATCH, 1, PATCH // 2)[:, 0]
        self._penalty = config.rarity * rarity + (1.0 - covered).square() * 0.05
        self._penalty = torch.where(inside, self._penalty, torch.inf)
        if not bool(torch.isfinite(self._penalty).any()):
            self._penalty = torch.where(inside.any(), self._penalty, 0.0)
        images = torch.stack([filled_outward(e.colour, e.inside) for e in both])
        self._height = len(exemplars) == 1  # a swatch has no above and below
        deviation = BLUR * size / COARSE
        low = torch.stack([blurred(e.colour, e.inside, deviation) for e in both])
        detail = torch.stack([detail_of(e.colour, plane, e.inside) for e, plane in zip(both, low, strict=True)])
        self._details = _sampled_pairs(low, detail, inside, size)
        self._source = PatchSource(images, self.guide(low), self._penalty, PATCH)
        self._used, self._now = torch.zeros_like(self._penalty), torch.zeros_like(self._penalty)

    @property
    def source(self) -> PatchSource:
        """The patches; those that were used more often than others cost more."""
        usable = torch.isfinite(self._penalty)
        used = self._used + self._now
        expected = used.sum() / usable.sum().clamp_min(1)
        local = F.avg_pool2d(used[:, None], 5, 1, 2, count_include_pad=False)[:, 0]
        excess = (local / expected.clamp_min(1e-6) - 1.0).clamp(0.0, 8.0)
        return self._source.with_penalty(self._penalty + self._config.repetition * excess)

    def guide(self, low: Float[Tensor, "*S L L 3"]) -> Float[Tensor, "*S L L 4"]:
        """Blurred colours and the height in the image, each times the root of its weight."""
        height = self._config.height if self._height else 0.0
        return torch.cat([self._config.guide**0.5 * low, height**0.5 * _rows(low)], dim=-1)

    def usual_detail(self, low: Float[Tensor, "L L 3"]) -> Float[Tensor, "L L 1"]:
        """E[detail | blurred colour, height] over the source (Nadaraya-Watson), for these blurred colours."""
        features, details = self._details
        size = low.shape[0]
        planes = F.adaptive_avg_pool2d(low.permute(2, 0, 1)[None], COARSE)[0].permute(1, 2, 0)
        queries = _with_height(planes).reshape(-1, 4)
        near = torch.softmax(-torch.cdist(queries, features).square() / (2.0 * BANDWIDTH**2), dim=1)
        detail = (near @ details).reshape(1, 1, COARSE, COARSE)
        return F.interpolate(detail, (size, size), mode="bilinear", align_corners=False)[0].permute(1, 2, 0)

    def use(self, matches: Matches, *, done: bool) -> None:
        """Remember which patches the view at work takes (`done`: has taken)."""
        index = matches.index[matches.index >= 0].long()
        self._now = torch.zeros_like(self._used)
        self._now.view(-1).index_add_(0, index, torch.ones_like(index, dtype=self._used.dtype))
        if done:
            self._used, self._now = self._used + self._now, torch.zeros_like(self._used)


def _sampled_pairs(
    low: Float[Tensor, "S L L 3"], detail: Float[Tensor, "S L L 1"], inside: Bool[Tensor, "S L L"], size: int
) -> tuple[Float[Tensor, "K 4"], Float[Tensor, "K 1"]]:
    """(blurred colour and height, detail) at pixels of the source, one in each pixel of the coarsest size."""
    step = max(1, size // COARSE)
    half = slice(0, max(1, len(low) // 2))  # the mirrored ones say the same
    parts = [planes[half, step // 2 :: step, step // 2 :: step] for planes in (_with_height(low), detail, inside)]
    return parts[0][parts[2]], parts[1][parts[2]]


def _with_height(low: Float[Tensor, "*S L L 3"]) -> Float[Tensor, "*S L L 4"]:
    return torch.cat([low, HEIGHT_SCALE * _rows(low)], dim=-1)


def _rows(low: Float[Tensor, "*S L L 3"]) -> Float[Tensor, "*S L L 1"]:
    """The height in the image, 0 at the top and 1 at the bottom."""
    size = low.shape[-2]
    return torch.linspace(0.0, 1.0, size, device=low.device)[:, None, None].expand(*low.shape[:-1], 1)


@dataclass(frozen=True)
class Canvas:
    """What is painted, and what is known of it.

    Attributes:
        image: with a first guess where nothing is known. known: 1 = must stay, 0 = free. covered: the object.
        guide: as the palette's. start: matches to begin with (-1 = none).
    """

    image: Float[Tensor, "L L 3"]
    known: Float[Tensor, "L L"]
    covered: Bool[Tensor, "L L"]
    guide: Float[Tensor, "L L 4"]
    start: Matches


@dataclass(frozen=True)
class Effort:
    """Rounds of search and vote, passes of the search in each, and how far random trials begin (None = anywhere)."""

    rounds: int
    passes: int
    reach: int | None


def synthesise(
    canvas: Canvas, palette: Palette, effort: Effort, *, seed: int
) -> tuple[Float[Tensor, "L L 3"], Matches]:
    """The image with its free part made of the palette's patches, and the matches."""
    targets = torch.nonzero((canvas.covered & (canvas.known < 1.0)).reshape(-1)).squeeze(1)
    near = F.max_pool2d((canvas.covered & (canvas.known < 1.0))[None, None].float(), 3, 1, 1)[0, 0] > 0
    centres = torch.nonzero((near & canvas.covered).reshape(-1)).squeeze(1)
    image, matches = canvas.image, canvas.start
    begun = bool((matches.index >= 0).any())
    if begun:  # like is compared with like: an enlarged coarse image would find blurred patches only
        image = _painted(canvas, matches, palette.source, targets)
    for step in range(effort.rounds):
        unknown = UNKNOWN if begun or step > 0 else 0.0
        weight = torch.where(canvas.covered, unknown + (1.0 - unknown) * canvas.known, 0.0)
        query = PatchQuery(image, weight, canvas.guide, centres)
        matches = patch_match(
            query, palette.source, matches, passes=effort.passes, reach=effort.reach, seed=seed + 7919 * step
        )
        image = _painted(canvas, matches, palette.source, targets)
        palette.use(matches, done=step == effort.rounds - 1)
    return image, matches


def _painted(
    canvas: Canvas, matches: Matches, source: PatchSource, targets: Int[Tensor, " M"]
) -> Float[Tensor, "L L 3"]:
    """Vote; a pixel moves as far as it is free."""
    colour, total = vote(matches, source, targets, _window(WINDOW).to(canvas.image), torch.ones_like(matches.cost))
    free = (1.0 - canvas.known.reshape(-1)[targets]) * (total > 0.0)
    flat = canvas.image.reshape(-1, 3).clone()
    flat[targets] = torch.lerp(flat[targets], colour, free[:, None])
    return flat.reshape(canvas.image.shape)


def blurred(image: Float[Tensor, "L L C"], inside: Bool[Tensor, "L L"], deviation: float) -> Float[Tensor, "L L C"]:
    """Gaussian blur among the inside pixels only; elsewhere the colours of the nearest ones."""
    radius = max(1, round(3.0 * deviation))
    x = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (x / deviation) ** 2)
    planes = torch.cat([image * inside[..., None], inside[..., None].to(image)], dim=-1).permute(2, 0, 1)[:, None]
    planes = F.conv2d(planes, kernel[None, None, None], padding=(0, radius))
    planes = F.conv2d(planes, kernel[None, None, :, None], padding=(radius, 0))[:, 0].permute(1, 2, 0)
    return filled_outward(planes[..., :-1] / planes[..., -1:].clamp_min(1e-6), inside)


def detail_of(
    image: Float[Tensor, "L L 3"], low: Float[Tensor, "L L 3"], inside: Bool[Tensor, "L L"]
) -> Float[Tensor, "L L 1"]:
    """Local root mean square of what the blur `low` took from the image."""
    deviation = BLUR * image.shape[0] / COARSE
    return blurred((image - low).square().mean(-1, keepdim=True), inside, deviation).clamp_min(0.0).sqrt()


def upsampled(matches: Matches, source_size: int) -> Matches:
    """Matches of the next finer images, twice as large: both pixels of a pair move together."""
    w = source_size
    index = matches.index.repeat_interleave(2, 0).repeat_interleave(2, 1)
    size = index.shape[0]
    odd = torch.arange(size, device=index.device, dtype=index.dtype) % 2
    s, v, u = index // (w * w), index // w % w, index % w
    fine = (s * 2 * w + 2 * v + odd[:, None]) * 2 * w + 2 * u + odd[None]
    index = torch.where(index >= 0, fine, -1).int()
    return Matches(index, torch.full(index.shape, torch.inf, device=index.device))


def _rarity_at(exemplar: Exemplar, size: int) -> Float[Tensor, "L L"]:
    small = exemplar.at(RARE_SIZE)
    rarity = patch_rarity(filled_outward(small.colour, small.inside), small.inside, RARE_PATCH)
    return F.interpolate(rarity[None, None], (size, size), mode="bilinear", align_corners=False)[0, 0]


def _window(width: float) -> Float[Tensor, "k k"]:
    x = torch.arange(PATCH) - PATCH // 2
    line = torch.exp(-0.5 * (x / width) ** 2)
    return line[:, None] * line[None]


def _resized(planes: Float[Tensor, "1 C H W"], size: int) -> Float[Tensor, "1 C L L"]:
    if planes.shape[-1] == size:
        return planes
    return F.interpolate(planes, (size, size), mode="bilinear", antialias=True, align_corners=False)
