"""The paper's claims about texture in miniature: forms of score distillation on the true mesh of held-out objects.

Only the texture stage runs, on the object's own mesh. A first pass with the denoised pictures ("x0") stands for the
stages before it; from its colours every form goes on, with the same painting steps. The scores are of unseen views.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dreamcraft3d.config import GenerateConfig, with_settings
from dreamcraft3d.evaluation.metrics import unseen_views
from dreamcraft3d.evaluation.oracle import reference_of
from dreamcraft3d.evaluation.render import render_textured
from dreamcraft3d.export import TexturedMesh
from dreamcraft3d.priors.base import DiffusionPrior
from dreamcraft3d.progress import Progress
from dreamcraft3d.rendering import render_mesh
from dreamcraft3d.stages.run import StageRun
from dreamcraft3d.stages.supervision import Supervision
from dreamcraft3d.stages.texture import Texture, paint_texture

__all__ = ["FORMS", "TextureRow", "compare_forms", "texture_table"]

Colours = Callable[[Float[Tensor, "N 3"]], Float[Tensor, "N 3"]]

SIZE = 128
VIEWS = 24
START = "start"
FORMS: dict[str, dict[str, Any]] = {
    "x0": {"guidance.form": "x0"},
    "SDS": {"guidance.form": "sds"},
    "VSD": {"bootstrap.form": "vsd"},
    "BSD, 1 round": {"bootstrap.form": "bsd", "bootstrap.rounds": 1},
    "BSD, 2 rounds": {"bootstrap.form": "bsd", "bootstrap.rounds": 2},
}


@dataclass(frozen=True)
class TextureRow:
    """One form on one object: PSNR inside the silhouette of unseen views (dB), and how strongly colours change from
    pixel to pixel there, as a share of the truth's (1 = as sharp; above 1 there is noise)."""

    form: str
    object: str
    psnr: float
    sharpness: float
    evaluations: int
    seconds: float


def compare_forms(
    objects: Iterable[tuple[str, TexturedMesh, float]],
    prior: DiffusionPrior,
    config: GenerateConfig,
    progress: Progress,
    *,
    forms: Mapping[str, Mapping[str, Any]] = FORMS,
    seed: int = 0,
) -> Iterator[TextureRow]:
    """Every form on every object (name, mesh, elevation of its picture); forms alternate so that a noisy machine is
    fair."""
    for name, truth, elevation in objects:
        device = prior.alphas_cumprod.device
        supervision, mesh = Supervision(reference_of(truth, elevation).to(device), prior, None), truth.mesh.to(device)
        seen = supervision.reference.rgba[supervision.reference.mask]
        mean = seen[:, :3].mean(dim=0)
        initial: Colours = lambda x, mean=mean: mean.expand(len(x), 3)  # type: ignore[misc]  # noqa: E731
        for form, settings in {START: {}, **forms}.items():
            run = StageRun("texture", seed + (form != START), progress, meter=lambda: prior.evaluations)
            texture = paint_texture(supervision, mesh, initial, with_settings(config.texture, settings), run)
            decibels, sharpness = unseen_scores(texture, truth)
            yield TextureRow(form, name, decibels, sharpness, run.evaluations, round(run.seconds, 1))
            initial = texture.at if form == START else initial


@torch.no_grad()
def unseen_scores(texture: Texture, truth: TexturedMesh) -> tuple[float, float]:
    """(PSNR in dB, sharpness relative to the truth) inside the silhouettes of unseen views."""
    cameras = unseen_views(VIEWS)
    ours = render_mesh(truth.mesh, texture.at, cameras, SIZE)
    theirs = render_textured(truth, cameras, SIZE).rgba
    inside = (ours.opacity > 0.99) & (theirs[..., 3] > 0.99)
    error = (ours.rgb - theirs[..., :3])[inside].square().mean()
    sharpness = _change(ours.rgb, inside) / max(_change(theirs[..., :3], inside), 1e-6)
    return float(-10.0 * torch.log10(error.clamp_min(1e-10))), sharpness


def _change(rgb: Float[Tensor, "V H W 3"], inside: Bool[Tensor, "V H W"]) -> float:
    """Mean absolute difference of neighbouring pixels, both inside."""
    across = (rgb[:, :, 1:] - rgb[:, :, :-1]).abs()[inside[:, :, 1:] & inside[:, :, :-1]]
    down = (rgb[:, 1:] - rgb[:, :-1]).abs()[inside[:, 1:] & inside[:, :-1]]
    return float(torch.cat([across, down]).mean())


def texture_table(rows: list[TextureRow]) -> str:
    """Means over objects, and on how many objects a form beats the one above it in PSNR, as Markdown."""
    lines = [
        "| form | unseen PSNR (dB) | sharpness | prior evaluations | seconds | objects |",
        "|---|---|---|---|---|---|",
    ]
    for form in dict.fromkeys(row.form for row in rows):
        mine = [row for row in rows if row.form == form]
        mean = {key: sum(getattr(row, key) for row in mine) / len(mine) for key in ("psnr", "sharpness", "seconds")}
        evaluations = sum(row.evaluations for row in mine) // len(mine)
        lines.append(
            f"| {form} | {mean['psnr']:.2f} | {mean['sharpness']:.2f} | {evaluations} | {mean['seconds']:.0f} "
            f"| {len(mine)} |"
        )
    return "\n".join(lines)
