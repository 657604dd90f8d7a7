"""How alike two sets of images look patch by patch: sharpness, and a distance between distributions of patches.

A blur of the truth has a good PSNR and looks wrong; a texture of the right kind has a worse PSNR and looks right. What
the eye sees is closer to two statistics that do not ask where things are:

    sharpness       sum |grad I|^2 inside the silhouette over the same of the truth; below 1 is blurred, above noisy
    patch distance  the sliced Wasserstein-1 distance (Rabin et al. 2011) between the k x k patches of both, the mean
                    over projections and over three scales: patches as vectors of colours in [0, 1], projected on
                    random unit vectors; 0 for equal distributions

Both are deterministic. Images are premultiplied RGBA, B x H x W x 4; only patches and gradients that lie wholly inside
a silhouette count.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from dreamcraft3d.evaluation.metrics import unseen_views
from dreamcraft3d.evaluation.render import render_textured
from dreamcraft3d.export import TexturedMesh
from dreamcraft3d.functional.cameras import Cameras

__all__ = ["PatchStatistics", "patch_distance", "patch_statistics", "sharpness", "unseen_statistics"]

PATCH, SCALES, PROJECTIONS, QUANTILES = 7, 3, 128, 256
AT_MOST = 20_000
"""Patches of each set and scale that are looked at; more say nothing more."""

SOLID = 0.999
FLAT = (0.25 / 255.0) ** 2


@dataclass(frozen=True)
class PatchStatistics:
    """See the module. `distance` is in units of colour (0 to 1): two images that differ by a constant d in all channels
    have a distance of about .8 d (the mean |direction . 1| of unit vectors, where patches are long)."""

    sharpness: float
    distance: float


def patch_statistics(result: Float[Tensor, "B H W 4"], truth: Float[Tensor, "C H W 4"]) -> PatchStatistics:
    """Both statistics of all images of a result against all images of the truth."""
    return PatchStatistics(sharpness(result, truth), patch_distance(result, truth))


def unseen_statistics(
    result: TexturedMesh, truth: TexturedMesh, reference: Cameras, *, views: int = 24, size: int = 256
) -> PatchStatistics:
    """Both statistics over views around the object that are not the reference view; in black where nothing is drawn."""
    cameras = unseen_views(views, reference=reference)
    images = [render_textured(mesh, cameras, size).rgba for mesh in (result, truth)]
    return patch_statistics(*images)


def sharpness(result: Float[Tensor, "B H W 4"], truth: Float[Tensor, "C H W 4"]) -> float:
    """Mean squared difference of neighbouring pixels of the result over that of the truth; 1 if neither has any.

    Of a truth in one colour the difference counts as a quarter of a display level: the ratio then says how far the
    result is from flat.

    >>> flat = torch.ones(1, 8, 8, 4)
    >>> sharpness(flat, flat)
    1.0
    """
    ours, theirs = _gradient_energy(result), _gradient_energy(truth)
    return 1.0 if ours == theirs else ours / max(theirs, FLAT)


def patch_distance(result: Float[Tensor, "B H W 4"], truth: Float[Tensor, "C H W 4"], *, seed: int = 0) -> float:
    """Sliced Wasserstein-1 distance between the patches, mean over three scales (each half of the one before).

    A set without any patch inside its silhouettes counts as one black patch; scales at which both are without are
    left out (0 if all are).
    """
    distances = []
    for scale in range(SCALES):
        ours, theirs = (_patches(_halved(images, scale), seed) for images in (result, truth))
        if len(ours) or len(theirs):
            black = ours.new_zeros(1, ours.shape[1])
            distances.append(_sliced(ours if len(ours) else black, theirs if len(theirs) else black, seed))
    return sum(distances) / max(1, len(distances))


def _gradient_energy(images: Float[Tensor, "B H W 4"]) -> float:
    """Mean over pairs of neighbours inside the silhouette, three channels, across and down."""
    colour, inside = images[..., :3], images[..., 3] > SOLID
    across = (colour[:, :, 1:] - colour[:, :, :-1])[inside[:, :, 1:] & inside[:, :, :-1]]
    down = (colour[:, 1:] - colour[:, :-1])[inside[:, 1:] & inside[:, :-1]]
    both = torch.cat([across, down])
    return float(both.double().square().mean()) if len(both) else 0.0


def _halved(images: Float[Tensor, "B H W 4"], times: int) -> Float[Tensor, "B h w 4"]:
    for _ in range(times):
        images = F.avg_pool2d(images.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    return images


def _patches(images: Float[Tensor, "B H W 4"], seed: int) -> Float[Tensor, "P D"]:
    """The patches inside the silhouettes, or a fixed random choice of them."""
    inside = _whole(images[..., 3] > SOLID)
    place = torch.nonzero(inside)
    if len(place) > AT_MOST:
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(place), generator=generator)[:AT_MOST].to(place.device)
        place = place[chosen]
    view, row, column = place.unbind(-1)
    steps = torch.arange(PATCH, device=images.device)
    rows = (row[:, None] + steps)[:, :, None]
    columns = (column[:, None] + steps)[:, None, :]
    return images[view[:, None, None], rows, columns, :3].flatten(1)


def _whole(inside: Bool[Tensor, "B H W"]) -> Bool[Tensor, "B h w"]:
    """By its first pixel: whether a patch lies inside altogether."""
    return -F.max_pool2d(-inside[:, None].float(), PATCH, 1)[:, 0] > 0.5


def _sliced(a: Float[Tensor, "P D"], b: Float[Tensor, "Q D"], seed: int) -> float:
    """Mean over projections of the mean distance between equal quantiles."""
    directions = torch.randn(a.shape[1], PROJECTIONS, generator=torch.Generator().manual_seed(seed)).to(a)
    directions = F.normalize(directions, dim=0)
    return float((_quantiles(a @ directions) - _quantiles(b @ directions)).abs().mean())


def _quantiles(values: Float[Tensor, "P K"]) -> Float[Tensor, "Q K"]:
    """Values at evenly spaced ranks, between neighbours linearly."""
    ordered = values.sort(dim=0).values
    rank = (torch.arange(QUANTILES, device=values.device) + 0.5) / QUANTILES * (len(ordered) - 1)
    low = rank.floor().long()
    return torch.lerp(ordered[low], ordered[(low + 1).clamp_max(len(ordered) - 1)], (rank - low)[:, None].to(values))
