"""What a prior is worth on objects that it has never seen: in all, for each class of objects, and where it is worst."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dreamcraft3d.priors.base import DiffusionPrior
from dreamcraft3d.priors.bundled import BundledPrior
from dreamcraft3d.training.report import HeldOut, Score, mean_scores, object_figures

__all__ = ["CameraError", "Verdict", "camera_error", "judge", "verdict_table"]


@dataclass(frozen=True)
class CameraError:
    """Medians over pictures: degrees between guessed and true elevation, and how many times too long or too short the
    field of view is (1 is right)."""

    elevation: float
    fovy: float


@dataclass(frozen=True)
class Verdict:
    """What was found on some objects.

    Attributes:
        objects: those judged. scores: of each, by the names of `training.report.pictures_of`.
        camera: of priors that guess it (the bundled one).
    """

    objects: list[HeldOut]
    scores: list[dict[str, Score]]
    camera: CameraError | None = None

    @property
    def figures(self) -> dict[str, Score]:
        """Means over all objects."""
        return mean_scores(self.scores)

    @property
    def classes(self) -> dict[str, tuple[int, dict[str, Score]]]:
        """Number and means of each class, large classes first."""
        kinds: dict[str, list[dict[str, Score]]] = {}
        for thing, scores in zip(self.objects, self.scores, strict=True):
            kinds.setdefault(thing.kind, []).append(scores)
        ordered = sorted(kinds.items(), key=lambda item: (-len(item[1]), item[0]))
        return {kind: (len(rows), mean_scores(rows)) for kind, rows in ordered}

    def worst(self, count: int = 10) -> list[tuple[HeldOut, Score]]:
        """The objects whose sampled views have the lowest IoU, the worst first."""
        pairs = [(thing, scores["sampled"]) for thing, scores in zip(self.objects, self.scores, strict=True)]
        return sorted(pairs, key=lambda pair: pair[1].iou)[:count]

    def to_json(self) -> dict[str, Any]:
        """For programs: numbers, figures, classes, camera, and the worst objects."""
        classes = {kind: {"objects": count, **_plain(means)} for kind, (count, means) in self.classes.items()}
        return {
            "objects": len(self.objects),
            "figures": _plain(self.figures),
            "classes": classes,
            "camera": vars(self.camera) if self.camera else None,
            "worst": [{"name": thing.name, "class": thing.kind, **vars(score)} for thing, score in self.worst()],
        }


def judge(prior: DiffusionPrior, objects: Sequence[HeldOut], *, steps: int = 20, cfg_scale: float = 1.0) -> Verdict:
    """Compare sampled and lifted views of held-out objects with the truth, and the guessed camera with the true one."""
    things = list(objects)
    scores = object_figures(prior, things, steps=steps, cfg_scale=cfg_scale)
    return Verdict(things, scores, camera_error(prior, things) if isinstance(prior, BundledPrior) else None)


def camera_error(prior: BundledPrior, objects: Sequence[HeldOut]) -> CameraError:
    """How far the prior's guesses of the reference cameras are off."""
    tilts, ratios = [], []
    for thing in objects:
        guess = prior.guess_camera(thing.batch.reference.permute(0, 2, 3, 1))
        elevation, fovy = thing.batch.camera[0].tolist()
        tilts.append(math.degrees(abs(guess[0] - elevation)))
        ratios.append(math.exp(abs(math.log(guess[1] / fovy))))
    return CameraError(statistics.median(tilts), statistics.median(ratios))


def verdict_table(title: str, verdict: Verdict) -> list[str]:
    """Lines for people."""
    width = max(24, *(len(kind) for kind in verdict.classes))
    lines = [f"{f'{title}, {len(verdict.objects)} objects':{width}}  PSNR dB    IoU"]
    lines += [f"{name:{width}} {score.psnr:8.2f} {score.iou:6.3f}" for name, score in verdict.figures.items()]
    lines += ["", f"{'class, sampled (lifted)':{width}}  PSNR dB    IoU  objects"]
    for kind, (count, means) in verdict.classes.items():
        drawn, lifted = means["sampled"], means.get("lifted")
        beside = f"  ({lifted.psnr:.2f} dB, {lifted.iou:.3f})" if lifted else ""
        lines.append(f"{kind:{width}} {drawn.psnr:8.2f} {drawn.iou:6.3f} {count:8}{beside}")
    if verdict.camera:
        off = f"elevation off by {verdict.camera.elevation:.1f} degrees, field of view {verdict.camera.fovy:.2f} times"
        lines += ["", f"guessed camera, medians: {off}"]
    return [*lines, "", "worst: " + ", ".join(f"{thing.name} ({score.iou:.2f})" for thing, score in verdict.worst())]


def _plain(figures: dict[str, Score]) -> dict[str, dict[str, float]]:
    return {name: vars(score) for name, score in figures.items()}
