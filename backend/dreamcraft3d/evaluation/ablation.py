"""The paper's claims in miniature: the coarse stage without one of its ideas, against priors with known faults.

An all-knowing prior would hide every difference: it sees the truth through any noise, from any camera. So the 3D-aware
prior here is exact but *unsure of the camera* (it knows the pictures within some degrees of the wanted one), and the 2D
prior is exact but *has no camera* (`priors.oracle.MixtureOracle`). Both are the true denoisers of what they know; noise
levels then matter.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dreamcraft3d.config import CoarseNerfConfig, with_settings
from dreamcraft3d.evaluation.meshes import load_mesh, normalise
from dreamcraft3d.evaluation.metrics import psnr, silhouette_iou, unseen_views
from dreamcraft3d.evaluation.oracle import TrueView, reference_of
from dreamcraft3d.evaluation.render import render_textured
from dreamcraft3d.export import TexturedMesh
from dreamcraft3d.presets import configure
from dreamcraft3d.priors.oracle import MixtureOracle
from dreamcraft3d.progress import Progress
from dreamcraft3d.rendering import render_density
from dreamcraft3d.stages.coarse_nerf import CoarseNerf, train_coarse_nerf
from dreamcraft3d.stages.run import StageRun
from dreamcraft3d.stages.supervision import Supervision

SIZE = 32
SPREAD = math.radians(20.0)
BASE: dict[str, Any] = {
    "steps": 120,
    "render_size": SIZE,
    "step_size": 0.04,
    "occupancy_resolution": 32,
    "active_levels": ((0.0, 3), (0.6, 7)),
    "hash_grid.levels": 7,
    "hash_grid.log2_table_size": 14,
    "guidance.view_weight": 1.0,
    "guidance.image_weight": 0.25,
    "guidance.progressive_until": 0.15,
    "guidance.t_low": 0.1,
    "guidance.t_high": 0.85,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "full method": {},
    "no 3D-aware prior": {"guidance.view_weight": 0.0, "guidance.image_weight": 1.0},
    "no timestep annealing": {"guidance.timesteps": "random", "guidance.t_low": 0.02, "guidance.t_high": 0.98},
    "no progressive views": {"guidance.progressive_until": 0.0},
    "the paper's schedule": {
        "guidance.timesteps": "random",
        "guidance.views": "random",
        "guidance.form": "sds",
        "guidance.t_low": ((0.0, 0.7), (0.04, 0.2)),
        "guidance.t_high": ((0.0, 0.85), (0.04, 0.5)),
        "guidance.progressive_until": 0.04,
        "guidance.view_weight": 2.0,
    },
    "no prior at all": {"guidance.view_weight": 0.0, "guidance.image_weight": 0.0},
}


@dataclass(frozen=True)
class AblationRow:
    """One variant on one object with one seed, over 24 unseen views."""

    variant: str
    object: str
    seed: int
    iou: float
    psnr: float
    evaluations: int


def ablate(meshes: list[Path], *, seeds: int, progress: Progress) -> Iterator[AblationRow]:
    """Every variant on every mesh and seed, at one low budget; variants alternate so that a noisy machine is fair."""
    for path in meshes:
        truth, _ = normalise(load_mesh(path))
        for seed in range(seeds):
            for variant, settings in VARIANTS.items():
                yield _row(variant, settings, path.stem, truth, seed, progress)


def _row(
    variant: str, settings: Mapping[str, Any], name: str, truth: TexturedMesh, seed: int, progress: Progress
) -> AblationRow:
    base = configure("oracle").coarse_nerf
    config: CoarseNerfConfig = with_settings(base, {**BASE, **settings})
    view_prior = MixtureOracle(TrueView(truth), image_size=SIZE, spread=SPREAD)
    image_prior = MixtureOracle(TrueView(truth), image_size=SIZE)
    supervision = Supervision(reference_of(truth), view_prior, image_prior)
    nerf = train_coarse_nerf(supervision, config, StageRun("coarse_nerf", seed, progress))
    iou, decibels = unseen_scores(nerf, truth, config.step_size)
    return AblationRow(variant, name, seed, iou, decibels, view_prior.evaluations + image_prior.evaluations)


@torch.no_grad()
def unseen_scores(nerf: CoarseNerf, truth: TexturedMesh, step_size: float) -> tuple[float, float]:
    """Mean silhouette IoU and mean PSNR on white over 24 unseen views of 64 pixels."""
    cameras = unseen_views(24)
    ours = render_density(nerf.field, nerf.grid, cameras, 64, step_size=step_size)
    theirs = render_textured(truth, cameras, 64)
    iou = silhouette_iou(ours.opacity, theirs.rgba[..., 3])
    return float(iou.mean()), float(psnr(ours.over(1.0), theirs.over(1.0)).mean())


def ablation_table(rows: list[AblationRow]) -> str:
    """Means and standard deviations over objects and seeds, as Markdown."""
    lines = ["| variant | unseen IoU | unseen PSNR (dB) | prior evaluations | runs |", "|---|---|---|---|---|"]
    for variant in VARIANTS:
        mine = [row for row in rows if row.variant == variant]
        if mine:
            iou = torch.tensor([row.iou for row in mine])
            decibels = torch.tensor([row.psnr for row in mine])
            spread = (float(iou.std(correction=0)), float(decibels.std(correction=0)))
            means = f"{float(iou.mean()):.3f} ± {spread[0]:.3f} | {float(decibels.mean()):.2f} ± {spread[1]:.2f}"
            evaluations = sum(row.evaluations for row in mine) // len(mine)
            lines.append(f"| {variant} | {means} | {evaluations} | {len(mine)} |")
    return "\n".join(lines)
