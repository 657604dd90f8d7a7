"""Depth and normals of the reference picture by networks made for it (Marigold); optional (method section 4.3).

Marigold's conventions are ours: depth 0 = near, 1 = far (scale and offset unknown, which the correlation loss allows),
normals with x right, y up, z to the viewer. The networks are shown the object over neutral grey, are used once, and
are freed.
"""

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from dreamcraft3d.errors import DreamCraftError, MissingDependencyError
from dreamcraft3d.functional.cameras import FOVY
from dreamcraft3d.priors.base import Estimate, SurfaceEstimator
from dreamcraft3d.priors.components import precision, quietly
from dreamcraft3d.priors.models import folder_of, variant_in

__all__ = ["MarigoldEstimator", "choose_estimator"]

Choice = Literal["auto", "prior", "marigold"]
DEPTH, NORMALS = "marigold-depth", "marigold-normals"
GREY = 0.5
SEED = 0
"""The networks start from noise: always the same, so that a resumed run sees the same maps."""


class MarigoldEstimator:
    """A `SurfaceEstimator` of two folders in diffusers layout; each network is in memory only while it works."""

    def __init__(self, depth: Path, normals: Path, *, device: torch.device | str = "cpu") -> None:
        self._folders, self._device = (depth, normals), torch.device(device)

    @torch.no_grad()
    def estimate(self, rgba: Float[Tensor, "1 H W 4"], elevation: float, fovy: float = FOVY) -> Estimate:
        """Depth (near 0, far 1) and unit normals, at the size of the picture; the camera is not needed."""
        from diffusers import MarigoldDepthPipeline, MarigoldNormalsPipeline

        grey = (rgba[..., :3] + GREY * (1.0 - rgba[..., 3:])).permute(0, 3, 1, 2).clamp(0.0, 1.0)
        depth = self._run(MarigoldDepthPipeline, self._folders[0], grey)
        normals = self._run(MarigoldNormalsPipeline, self._folders[1], grey)
        return Estimate(depth, torch.nn.functional.normalize(normals, dim=1, eps=1e-6))

    def _run(self, kind: Any, folder: Path, picture: Float[Tensor, "1 3 H W"]) -> Float[Tensor, "1 C H W"]:
        pipeline = load_pipeline(kind, folder).to(self._device)
        generator = torch.Generator().manual_seed(SEED)
        answer: Tensor = pipeline(picture, generator=generator, output_type="pt").prediction.float().cpu()
        del pipeline
        gc.collect()
        if self._device.type != "cpu":
            torch.cuda.empty_cache()
        return answer


def load_pipeline(kind: Any, folder: Path) -> Any:
    """A pipeline of diffusers from a local folder: safetensors only, no code from the folder, no progress bars.

    Raises:
        DreamCraftError: it is damaged. MissingDependencyError: transformers is not installed.
    """
    options: dict[str, Any] = {"torch_dtype": precision(), "use_safetensors": True, "local_files_only": True}
    variant = variant_in(folder)
    if variant is not None:
        options["variant"] = variant
    try:
        with quietly():
            pipeline = kind.from_pretrained(folder, **options)
    except ImportError as error:
        raise MissingDependencyError(
            "This model needs the package transformers.", "Install it: `pip install 'dreamcraft3d[models]'`."
        ) from error
    except (OSError, ValueError, KeyError, RuntimeError, AttributeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise DreamCraftError(
            f"The model in {folder} cannot be loaded ({reason}).",
            "Repair it: `dreamcraft3d models verify NAME --repair`, or import it again.",
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def choose_estimator(
    choice: Choice, prior: object, device: torch.device | str, *, find: Callable[[str], Path] = folder_of
) -> SurfaceEstimator | None:
    """Who guesses depth and normals; None if nobody can.

    "auto" takes Marigold where it is installed and there is a card (without one it takes minutes), else the prior.

    Raises:
        MissingDependencyError: Marigold is asked for and is not on this machine.
    """
    wanted = choice == "marigold" or (choice == "auto" and torch.device(device).type != "cpu")
    if wanted:
        try:
            return MarigoldEstimator(find(DEPTH), find(NORMALS), device=device)
        except MissingDependencyError:
            if choice == "marigold":
                raise
    return prior if isinstance(prior, SurfaceEstimator) else None
