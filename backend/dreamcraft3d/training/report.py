"""How good a prior is on objects that the bundled one has never seen: figures, and sheets of samples.

Works with any `DiffusionPrior`. Two baselines say what the figures are worth: giving the reference picture back,
whatever camera is asked for, and giving the right view of another object.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from dreamcraft3d.evaluation.metrics import psnr, silhouette_iou
from dreamcraft3d.functional.diffusion import add_noise, noise_to_x0
from dreamcraft3d.priors.base import DiffusionPrior, ViewCondition, resize_area
from dreamcraft3d.priors.bundled import BundledPrior
from dreamcraft3d.priors.network import SIZE
from dreamcraft3d.priors.sampling import sample
from dreamcraft3d.training.dataset import Batch, held_out, plain_batch
from dreamcraft3d.training.drawing import held_out_example
from dreamcraft3d.training.objects import ObjectPack
from dreamcraft3d.training.shapes import make_object

Picture = Float[Tensor, "B H W 4"]
ONE_STEP = 700
SHEET_COLUMNS = 4


@dataclass(frozen=True)
class HeldOut:
    """An object to judge by: its name, its class, and its batch (one reference, all views)."""

    name: str
    kind: str
    batch: Batch


@dataclass(frozen=True)
class Score:
    """Means over objects and views: PSNR in dB over white, IoU of silhouettes at opacity 1/2."""

    psnr: float
    iou: float


def procedural_objects(seeds: Iterable[int], *, wide: bool = False, views: int = 4) -> list[HeldOut]:
    """Held-out seeds of the procedural world, in the set-up of figures, or in that of the wide world."""
    seeds = list(seeds)
    kinds = [make_object(seed).solid.kind for seed in seeds]
    batches = held_out(seeds, wide=wide, views=views)
    return [HeldOut(f"{kind}-{seed}", kind, batch) for seed, kind, batch in zip(seeds, kinds, batches, strict=True)]


def real_objects(pack: ObjectPack, *, limit: int | None = None, wide: bool = False, views: int = 4) -> list[HeldOut]:
    """The pack's held-out objects (evenly chosen if they are more than `limit`), in the set-up of figures, or in that
    of the wide world."""
    things = pack.chosen(held_out=True)
    count = min(limit or len(things), len(things))
    chosen = [things[k * len(things) // count] for k in range(count)]
    draw = partial(held_out_example, pack, wide=wide, views=views)
    return [HeldOut(thing.id, thing.kind, plain_batch(draw(thing))) for thing in chosen]


def over_white(rgba: Picture) -> Float[Tensor, "B H W 3"]:
    """Premultiplied RGBA on white."""
    return rgba[..., :3] + (1.0 - rgba[..., 3:])


def condition_of(batch: Batch) -> ViewCondition:
    """The condition of a held-out batch (one reference, several views through one lens)."""
    reference = batch.reference[:1].permute(0, 2, 3, 1)
    elevation, azimuth, fovy = batch.pose[0].unbind(1)
    tilt, lens = batch.camera[0].tolist()
    return ViewCondition(reference, tilt, elevation, azimuth, reference_fovy=lens, fovy=float(fovy[0]))


def pictures_of(
    prior: DiffusionPrior, batch: Batch, *, steps: int, cfg_scale: float, generator: torch.Generator
) -> dict[str, Picture]:
    """What the prior says of the views of one object.

    Returns:
        "sampled": drawn from noise (with steps > 0). "one step": x0 from the true view noised to t = 700. "lifted" (the
        bundled prior only): its first guess, before any denoising. "reference again": a baseline.
    """
    condition, truth = condition_of(batch), batch.target[0].permute(0, 2, 3, 1)
    pictures: dict[str, Picture] = {}
    if steps:
        pictures["sampled"] = sample(prior, condition, steps=steps, cfg_scale=cfg_scale, generator=generator)
    pictures["one step"] = one_step(prior, truth, condition, generator)
    if isinstance(prior, BundledPrior):
        pictures["lifted"] = prior.lifted(condition)
    pictures["reference again"] = condition.reference.expand(len(truth), -1, -1, -1)
    return {name: _resized(picture.cpu()) for name, picture in pictures.items()}


def scores_of(pictures: dict[str, Picture], batch: Batch) -> dict[str, Float[Tensor, "2 V"]]:
    """PSNR and IoU of each view."""
    truth = batch.target[0].permute(0, 2, 3, 1)
    return {
        name: torch.stack(
            [psnr(over_white(picture), over_white(truth)), silhouette_iou(picture[..., 3], truth[..., 3])]
        )
        for name, picture in pictures.items()
    }


def held_out_figures(
    prior: DiffusionPrior, objects: Sequence[HeldOut], *, views: int = 4, steps: int = 20, cfg_scale: float = 1.0
) -> dict[str, Score]:
    """Compare `views` unseen views of each object with the truth: means of `object_figures`."""
    return mean_scores(object_figures(prior, objects, views=views, steps=steps, cfg_scale=cfg_scale))


def object_figures(
    prior: DiffusionPrior, objects: Sequence[HeldOut], *, views: int = 4, steps: int = 20, cfg_scale: float = 1.0
) -> list[dict[str, Score]]:
    """Scores of each object, in their order; the same noise every time (see `pictures_of` for the names).

    "another object" is the baseline that shows the next object instead.
    """
    generator, found = torch.Generator().manual_seed(0), []
    batches = [_first_views(thing.batch, views) for thing in objects]
    for index, batch in enumerate(batches):
        pictures = pictures_of(prior, batch, steps=steps, cfg_scale=cfg_scale, generator=generator)
        pictures["another object"] = batches[(index + 1) % len(batches)].target[0].permute(0, 2, 3, 1)
        rows = scores_of(pictures, batch)
        found.append({name: Score(*row.mean(1).tolist()) for name, row in rows.items()})
    return found


def mean_scores(rows: Sequence[dict[str, Score]]) -> dict[str, Score]:
    """Means over objects that were seen from equally many sides; rows name the same pictures."""
    names = list(rows[0]) if rows else []
    return {name: Score(*np.mean([[row[name].psnr, row[name].iou] for row in rows], axis=0).tolist()) for name in names}


def lifted_scores(prior: BundledPrior, objects: Sequence[HeldOut]) -> list[Score]:
    """How well the lifted views of each object alone do, in the order of the objects."""
    found = []
    for thing in objects:
        lifted = _resized(prior.lifted(condition_of(thing.batch)).cpu())
        found.append(Score(*scores_of({"lifted": lifted}, thing.batch)["lifted"].mean(1).tolist()))
    return found


def _first_views(batch: Batch, views: int) -> Batch:
    cut = {"target": batch.target[:, :views], "depth": batch.depth[:, :views], "pose": batch.pose[:, :views]}
    return Batch(**{**vars(batch), **cut})


def one_step(prior: DiffusionPrior, truth: Picture, condition: ViewCondition, generator: torch.Generator) -> Picture:
    """The clean picture that the prior expects behind the true view at t = 700 of 1000."""
    alphas = prior.alphas_cumprod
    x = prior.encode(truth.to(alphas.device))
    t = torch.full((len(x),), ONE_STEP * len(alphas) // 1000, device=alphas.device)
    x_t = add_noise(x, torch.randn(x.shape, generator=generator).to(x), alphas, t)
    return prior.decode(noise_to_x0(x_t, prior.predict_noise(x_t, t, condition, cfg_scale=1.0), alphas, t))


def _resized(picture: Picture) -> Picture:
    return resize_area(picture, SIZE).permute(0, 2, 3, 1)


def sample_sheet(prior: DiffusionPrior, path: Path, objects: Sequence[HeldOut], *, steps: int = 10) -> None:
    """Draw a sheet: of each object the reference, then truth above sample above lifted view, for two views."""
    generator, tiles = torch.Generator().manual_seed(1), []
    for thing in objects:
        batch = _first_views(thing.batch, 2)
        pictures = pictures_of(prior, batch, steps=steps, cfg_scale=1.0, generator=generator)
        found = [pictures[name] for name in ("sampled", "lifted") if name in pictures]
        rows = [batch.target[0].permute(0, 2, 3, 1), *found]
        first = _resized(batch.reference.permute(0, 2, 3, 1))
        left = [first, *[torch.zeros_like(first)] * (len(rows) - 1)]
        strips = [torch.cat(list(over_white(torch.cat(pair))), dim=1) for pair in zip(left, rows, strict=True)]
        tiles.append(torch.cat(strips, dim=0))
    tiles += [torch.ones_like(tiles[0])] * (-len(tiles) % min(SHEET_COLUMNS, len(tiles)))
    columns = [torch.cat(tiles[k::SHEET_COLUMNS], dim=0) for k in range(min(SHEET_COLUMNS, len(tiles)))]
    picture = torch.cat(columns, dim=1).clamp(0.0, 1.0)
    Image.fromarray((picture * 255.0 + 0.5).to(torch.uint8).numpy()).save(path)
