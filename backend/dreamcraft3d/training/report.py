"""How good a prior is on objects it has never seen: figures and sample sheets.

`python -m dreamcraft3d.training.report --objects 64 --sheet sheet.png` measures the bundled weights.
"""

import argparse
import json
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from dreamcraft3d.priors.base import ViewCondition
from dreamcraft3d.priors.bundled import BundledPrior
from dreamcraft3d.training.dataset import Batch, held_out

logger = logging.getLogger(__name__)

Picture = Float[Tensor, "B H W 4"]


@dataclass(frozen=True)
class PriorFigures:
    """Means over held-out objects and views; PSNR in dB over white, IoU of silhouettes at opacity 1/2.

    `sampled_*`: pictures drawn from noise. `one_step_*`: x0 from the true view noised to t = 700. `reference_*`: the
    baseline "the reference picture again".
    """

    sampled_psnr: float
    sampled_iou: float
    one_step_psnr: float
    one_step_iou: float
    reference_psnr: float
    reference_iou: float


def over_white(rgba: Picture) -> Float[Tensor, "B H W 3"]:
    """Premultiplied RGBA on white."""
    return rgba[..., :3] + (1.0 - rgba[..., 3:])


def psnr(a: Picture, b: Picture) -> Float[Tensor, " B"]:
    """Peak signal-to-noise ratio over white, per picture."""
    return -10.0 * torch.log10((over_white(a) - over_white(b)).square().mean((1, 2, 3)).clamp_min(1e-10))


def silhouette_iou(a: Picture, b: Picture) -> Float[Tensor, " B"]:
    """Intersection over union of the silhouettes, per picture."""
    first, second = a[..., 3] > 0.5, b[..., 3] > 0.5
    union = (first | second).sum((1, 2))
    return (first & second).sum((1, 2)) / union.clamp_min(1)


def condition_of(batch: Batch) -> ViewCondition:
    """The condition of a held-out batch (one reference, several views)."""
    reference = batch.reference[:1].permute(0, 2, 3, 1)
    return ViewCondition(reference, float(batch.pose[0, 2]), batch.pose[:, 0], batch.pose[:, 1])


def held_out_figures(
    prior: BundledPrior, seeds: Iterable[int], *, views: int = 5, steps: int = 20, cfg_scale: float = 2.0
) -> PriorFigures:
    """Compares `views` - 1 unseen views of each seed with the truth; the same noise every time."""
    generator, rows = torch.Generator().manual_seed(0), []
    t = torch.tensor([700])
    for batch in held_out(seeds, views=views):
        condition, truth = condition_of(batch), batch.target.permute(0, 2, 3, 1)
        sampled = prior.sample(condition, steps=steps, cfg_scale=cfg_scale, generator=generator).cpu()
        x = prior.encode(truth)
        alphabar = prior.alphas_cumprod.cpu()[t]
        x_t = alphabar.sqrt() * x + (1.0 - alphabar).sqrt() * torch.randn(x.shape, generator=generator)
        device = prior.alphas_cumprod.device
        x0 = prior.predict_x0(x_t.to(device), t.expand(len(x)).to(device), condition, cfg_scale=1.0)
        again = batch.reference.permute(0, 2, 3, 1)
        pairs = [
            measure(picture, truth)
            for picture in (sampled, prior.decode(x0).cpu(), again)
            for measure in (psnr, silhouette_iou)
        ]
        rows.append(torch.stack(pairs, dim=1))
    return PriorFigures(*torch.cat(rows).mean(0).tolist())


def sample_sheet(prior: BundledPrior, path: Path, *, seeds: Iterable[int] = range(100, 112), steps: int = 10) -> None:
    """A sheet of (reference; then truth above sample for two views) per held-out object."""
    generator, tiles = torch.Generator().manual_seed(1), []
    for batch in held_out(seeds, views=3):
        sampled = over_white(prior.sample(condition_of(batch), steps=steps, generator=generator).cpu())
        truth = over_white(batch.target.permute(0, 2, 3, 1))
        reference = over_white(batch.reference[:1].permute(0, 2, 3, 1))
        upper, lower = torch.cat([reference, truth]), torch.cat([torch.ones_like(reference), sampled])
        tiles.append(torch.cat([torch.cat(list(row), dim=1) for row in (upper, lower)], dim=0))
    columns = [torch.cat(tiles[k::4], dim=0) for k in range(4)]
    picture = torch.cat(columns, dim=1).clamp(0.0, 1.0)
    Image.fromarray((picture * 255.0 + 0.5).to(torch.uint8).numpy()).save(path)


def main() -> None:
    """Measures a weights file on held-out objects."""
    parser = argparse.ArgumentParser(description="measure the bundled prior on held-out objects")
    parser.add_argument("--weights", type=Path, help="another file than the package's")
    parser.add_argument("--objects", type=int, default=64)
    parser.add_argument("--sheet", type=Path, help="where a sheet of samples goes")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    prior = BundledPrior.load(arguments.weights)
    if arguments.sheet:
        sample_sheet(prior, arguments.sheet, steps=20)
    logger.info(json.dumps(asdict(held_out_figures(prior, range(arguments.objects)))))


if __name__ == "__main__":
    main()
