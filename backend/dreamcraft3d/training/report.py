"""How good a prior is on objects that the bundled one has never seen: figures, and sheets of samples.

Works with any `DiffusionPrior`. Two baselines say what the figures are worth: giving the reference picture back,
whatever camera is asked for, and giving the right view of another object.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from dreamcraft3d.evaluation.metrics import psnr, silhouette_iou
from dreamcraft3d.functional.cameras import orbit
from dreamcraft3d.functional.diffusion import add_noise, noise_to_x0
from dreamcraft3d.priors.base import DiffusionPrior, ViewCondition
from dreamcraft3d.priors.bundled import BundledPrior
from dreamcraft3d.priors.sampling import sample
from dreamcraft3d.training.dataset import SIZE, Batch, held_out
from dreamcraft3d.training.render import render_rgba
from dreamcraft3d.training.shapes import HELD_OUT, make_object

Picture = Float[Tensor, "B H W 4"]
ONE_STEP = 700


@dataclass(frozen=True)
class Score:
    """Means over objects and views: PSNR in dB over white, IoU of silhouettes at opacity 1/2."""

    psnr: float
    iou: float


def over_white(rgba: Picture) -> Float[Tensor, "B H W 3"]:
    """Premultiplied RGBA on white."""
    return rgba[..., :3] + (1.0 - rgba[..., 3:])


def condition_of(batch: Batch) -> ViewCondition:
    """The condition of a held-out batch (one reference, several views)."""
    reference = batch.reference[:1].permute(0, 2, 3, 1)
    return ViewCondition(reference, float(batch.pose[0, 0, 2]), batch.pose[0, :, 0], batch.pose[0, :, 1])


def held_out_figures(
    prior: DiffusionPrior, seeds: Iterable[int], *, views: int = 5, steps: int = 20, cfg_scale: float = 1.0
) -> dict[str, Score]:
    """Compares `views` - 1 unseen views of each held-out object with the truth; the same noise every time.

    Returns:
        "sampled": drawn from noise. "one step": x0 from the true view noised to t = 700. "lifted" (the bundled prior
        only): its first guess, before any denoising. "reference again" and "another object": the baselines.
    """
    generator, rows = torch.Generator().manual_seed(0), dict[str, list[Tensor]]()
    seeds = list(seeds)
    for seed, batch in zip(seeds, held_out(seeds, views=views), strict=True):
        condition, truth = condition_of(batch), batch.target[0].permute(0, 2, 3, 1)
        pictures = {
            "sampled": sample(prior, condition, steps=steps, cfg_scale=cfg_scale, generator=generator),
            "one step": one_step(prior, truth, condition, generator),
            "reference again": condition.reference.expand_as(truth),
            "another object": _another(seed, condition),
        }
        if isinstance(prior, BundledPrior):
            pictures["lifted"] = _resized(prior.lifted(condition))
        for name, picture in pictures.items():
            picture = _resized(picture.cpu())
            decibels = psnr(over_white(picture), over_white(truth))
            rows.setdefault(name, []).append(torch.stack([decibels, silhouette_iou(picture[..., 3], truth[..., 3])]))
    return {name: Score(*torch.cat(row, dim=1).mean(1).tolist()) for name, row in rows.items()}


def one_step(prior: DiffusionPrior, truth: Picture, condition: ViewCondition, generator: torch.Generator) -> Picture:
    """The clean picture that the prior expects behind the true view at t = 700 of 1000."""
    alphas = prior.alphas_cumprod
    x = prior.encode(truth.to(alphas.device))
    t = torch.full((len(x),), ONE_STEP * len(alphas) // 1000, device=alphas.device)
    x_t = add_noise(x, torch.randn(x.shape, generator=generator).to(x), alphas, t)
    return prior.decode(noise_to_x0(x_t, prior.predict_noise(x_t, t, condition, cfg_scale=1.0), alphas, t))


def _another(seed: int, condition: ViewCondition) -> Picture:
    solid = make_object((seed + 1) % HELD_OUT).solid
    return render_rgba(solid, orbit(condition.elevation, condition.azimuth), size=SIZE, supersampling=3)


def _resized(picture: Picture) -> Picture:
    if picture.shape[1] == SIZE:
        return picture
    channels_first = picture.permute(0, 3, 1, 2)
    large = torch.nn.functional.interpolate(channels_first, (SIZE, SIZE), mode="bilinear", antialias=True)
    return large.permute(0, 2, 3, 1)


def sample_sheet(prior: DiffusionPrior, path: Path, *, seeds: Iterable[int] = range(100, 112), steps: int = 10) -> None:
    """A sheet of (reference; then truth above sample for two views) per held-out object."""
    generator, tiles = torch.Generator().manual_seed(1), []
    for batch in held_out(seeds, views=3):
        sampled = over_white(_resized(sample(prior, condition_of(batch), steps=steps, generator=generator).cpu()))
        truth = over_white(batch.target[0].permute(0, 2, 3, 1))
        reference = over_white(batch.reference[:1].permute(0, 2, 3, 1))
        upper, lower = torch.cat([reference, truth]), torch.cat([torch.ones_like(reference), sampled])
        tiles.append(torch.cat([torch.cat(list(row), dim=1) for row in (upper, lower)], dim=0))
    columns = [torch.cat(tiles[k::4], dim=0) for k in range(4)]
    picture = torch.cat(columns, dim=1).clamp(0.0, 1.0)
    Image.fromarray((picture * 255.0 + 0.5).to(torch.uint8).numpy()).save(path)
