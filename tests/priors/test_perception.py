"""Marigold in small: its answers have our conventions, and who is asked is decided as the settings say."""

from pathlib import Path

import pytest
import torch
from diffusers import MarigoldDepthPipeline, MarigoldNormalsPipeline

from dreamcraft3d.errors import DreamCraftError, MissingDependencyError
from dreamcraft3d.priors.base import Estimate, SurfaceEstimator
from dreamcraft3d.priors.perception import MarigoldEstimator, choose_estimator
from tiny_models import save_marigold

pytestmark = pytest.mark.filterwarnings("ignore:.*ensembl.*")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("marigold")
    return {
        "marigold-depth": save_marigold(place / "depth", MarigoldDepthPipeline),
        "marigold-normals": save_marigold(place / "normals", MarigoldNormalsPipeline),
    }


def picture() -> torch.Tensor:
    rgba = torch.rand(1, 40, 40, 4, generator=torch.Generator().manual_seed(0))
    rgba[..., 3] = (rgba[..., 3] > 0.3).float()
    rgba[..., :3] *= rgba[..., 3:]
    return rgba


@pytest.mark.slow
def test_depth_and_normals_of_a_picture(folders: dict[str, Path]) -> None:
    estimator = MarigoldEstimator(folders["marigold-depth"], folders["marigold-normals"])
    estimate = estimator.estimate(picture(), 0.0)
    assert estimate.depth.shape == (1, 1, 40, 40)
    assert float(estimate.depth.min()) >= 0.0
    assert float(estimate.depth.max()) <= 1.0
    assert float(estimate.depth.std()) > 0.0
    assert estimate.normal.shape == (1, 3, 40, 40)
    assert torch.allclose(estimate.normal.norm(dim=1), torch.ones(1, 40, 40), atol=1e-4)
    again = estimator.estimate(picture(), 0.0)
    assert torch.equal(again.depth, estimate.depth)


def test_what_is_transparent_is_grey_to_the_network(folders: dict[str, Path]) -> None:
    """Opaque grey behind the object, or nothing behind it: the same picture."""
    clear = picture()
    grey = torch.cat([clear[..., :3] + 0.5 * (1.0 - clear[..., 3:]), torch.ones(1, 40, 40, 1)], dim=-1)
    estimator = MarigoldEstimator(folders["marigold-depth"], folders["marigold-normals"])
    assert torch.allclose(estimator.estimate(clear, 0.0).normal, estimator.estimate(grey, 0.0).normal, atol=1e-5)


class Guesser:
    def estimate(self, rgba: torch.Tensor, elevation: float, fovy: float = 0.35) -> Estimate:
        return Estimate(rgba[..., :1].permute(0, 3, 1, 2), rgba[..., :3].permute(0, 3, 1, 2))


def test_who_is_asked(folders: dict[str, Path]) -> None:
    guesser, find = Guesser(), folders.__getitem__
    assert isinstance(guesser, SurfaceEstimator)

    def nothing(name: str) -> Path:
        raise MissingDependencyError(f"The model {name} is not on this machine.", "Download it.")

    card = torch.device("meta")  # anything but the CPU
    assert choose_estimator("auto", guesser, "cpu", find=find) is guesser  # without a card, it would take minutes
    assert isinstance(choose_estimator("auto", guesser, card, find=find), MarigoldEstimator)
    assert choose_estimator("auto", guesser, card, find=nothing) is guesser
    assert choose_estimator("prior", guesser, card, find=find) is guesser
    assert choose_estimator("prior", object(), card, find=find) is None
    assert isinstance(choose_estimator("marigold", guesser, "cpu", find=find), MarigoldEstimator)
    with pytest.raises(MissingDependencyError, match="marigold-depth"):
        choose_estimator("marigold", guesser, "cpu", find=nothing)


def test_a_damaged_model_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DreamCraftError, match="empty"):
        MarigoldEstimator(tmp_path / "empty", folders["marigold-normals"]).estimate(picture(), 0.0)
