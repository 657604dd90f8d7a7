"""Reference implementation of `kernels/patch_match.py` in plain torch: every cost by a matrix product.

Notation as there.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from dreamcraft3d.kernels.patch_match import Matches, PatchQuery, PatchSource

CHUNK = 1024


def exact_search(query: PatchQuery, source: PatchSource) -> Matches:
    """The cheapest source patch for each centre."""
    index = torch.full(query.weight.shape, -1, dtype=torch.int32, device=query.weight.device).reshape(-1)
    cost = torch.full_like(query.weight, torch.inf).reshape(-1)
    for centres in query.centres.long().split(CHUNK):
        best = costs(query, source, centres).min(dim=1)
        cost[centres] = best.values
        index[centres] = torch.where(torch.isfinite(best.values), best.indices, -1).int()
    return Matches(index.reshape(query.weight.shape), cost.reshape(query.weight.shape))


def costs(query: PatchQuery, source: PatchSource, centres: Int[Tensor, " N"]) -> Float[Tensor, "N P"]:
    """cost(q, p) of N query patches and all source patches: w |I|^2 - 2 (w I) J + w |J|^2, and the two other terms."""
    size = source.size
    image, weight = _patches(query.image[None], size)[centres], _patches(query.weight[None, ..., None], size)[centres]
    guide = query.guide.reshape(-1, query.guide.shape[-1])[centres]
    patches = _patches(source.images, size)
    weights = weight.expand(-1, 3, -1).flatten(1)
    image, patches = image.flatten(1), patches.flatten(1)
    squared = (weights * image.square()).sum(1, keepdim=True) - 2.0 * (weights * image) @ patches.T
    squared = squared + weights @ patches.square().T
    scale = query.scale(size).reshape(-1)[centres, None]
    features = source.guide.reshape(-1, source.guide.shape[-1])
    apart = (guide[:, None] - features[None]).square().sum(-1)
    return (squared * scale).clamp_min(0.0) + apart + source.usable_penalty.reshape(1, -1)


def vote(
    matches: Matches,
    source: PatchSource,
    targets: Int[Tensor, " M"],
    window: Float[Tensor, "k k"],
    trust: Float[Tensor, "H W"],
) -> tuple[Float[Tensor, "M 3"], Float[Tensor, " M"]]:
    """The same mean, by adding each patch to an image."""
    size, (height, width) = source.size, matches.index.shape
    r = size // 2
    found = torch.nonzero(matches.index.reshape(-1) >= 0).squeeze(1)
    patches = _patches(source.images, size)[matches.index.reshape(-1)[found].long()]
    weight = window.reshape(1, -1) * trust.reshape(-1)[found, None]
    total, colour = trust.new_zeros(height + 2 * r, width + 2 * r), trust.new_zeros(3, height + 2 * r, width + 2 * r)
    y, x = found // width, found % width
    for k in range(size * size):
        place = (y + k // size, x + k % size)
        total.index_put_(place, weight[:, k], accumulate=True)
        for c in range(3):
            colour[c].index_put_(place, weight[:, k] * patches[:, c, k], accumulate=True)
    inner = slice(r, r + height), slice(r, r + width)
    share = total[inner].reshape(-1)[targets.long()]
    return (colour[:, inner[0], inner[1]].reshape(3, -1)[:, targets.long()] / share.clamp_min(1e-20)).T, share


def _patches(images: Float[Tensor, "S h w C"], size: int) -> Float[Tensor, "P C K"]:
    """All patches, one for each pixel as centre; zero beyond the border."""
    channels = images.shape[-1]
    columns: Tensor = F.unfold(images.permute(0, 3, 1, 2), size, padding=size // 2)
    return columns.transpose(1, 2).reshape(-1, channels, size * size)
