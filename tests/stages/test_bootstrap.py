"""The texture stage with a prior that learns: its timetable, what it leaves behind, and that it resumes exactly."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dreamcraft3d.config import BootstrapConfig, TextureConfig, with_settings
from dreamcraft3d.errors import Cancelled, ConfigError
from dreamcraft3d.evaluation.oracle import TrueView, reference_of
from dreamcraft3d.functional.cameras import orbit
from dreamcraft3d.priors.base import DiffusionPrior
from dreamcraft3d.priors.bundled import BundledPrior
from dreamcraft3d.priors.network import BundledNetwork
from dreamcraft3d.priors.oracle import OraclePrior
from dreamcraft3d.progress import Progress
from dreamcraft3d.stages.bootstrap import Album, moments, stage_steps
from dreamcraft3d.stages.run import StageRun
from dreamcraft3d.stages.supervision import Supervision
from dreamcraft3d.stages.texture import Texture, paint_texture
from tiny import lopsided_textured, tiny_config

SETTINGS: dict[str, Any] = {
    "steps": 8,
    "fit_steps": 4,
    "reference_size": 48,
    "render_size": 32,
    "guidance.t_low": 0.2,
    "guidance.t_high": 0.6,
    "bootstrap.form": "bsd",
    "bootstrap.rounds": 2,
    "bootstrap.round_steps": 3,
    "bootstrap.round_views": 2,
    "bootstrap.sampling_steps": 4,
    "bootstrap.lr_personal": 0.01,
    "bootstrap.lr_variational": 0.01,
    "bootstrap.personal_rank": 2,
    "bootstrap.variational_rank": 2,
}


def prior() -> BundledPrior:
    torch.manual_seed(3)
    network = BundledNetwork(channels=(16, 16), widths=(8, 16, 32), planes=4, embedding=32)
    torch.nn.init.normal_(network.unet.conv_out.weight, std=0.05)
    return BundledPrior(network)


class Stopping(StageRun):
    """A run that the user cancels while a certain step is done."""

    stop_at: int | None = None

    def generator(self, step: int = -1) -> torch.Generator:
        if step == self.stop_at:
            self.progress.cancel()
        return super().generator(step)


def paint(
    prior: DiffusionPrior, *, checkpoint: Path | None = None, stop_at: int | None = None, **changes: Any
) -> Texture:
    """The stage on a small mesh; `stop_at`: the step at which the user cancels."""
    truth = lopsided_textured()
    config = with_settings(tiny_config().texture, {**SETTINGS, **changes})
    progress = Progress()
    run = Stopping("texture", 1, progress, checkpoint, lambda: prior.evaluations)
    run.stop_at = stop_at
    supervision = Supervision(reference_of(truth, size=64), prior, None)
    return paint_texture(supervision, truth.mesh, lambda x: torch.full_like(x, 0.5), config, run)


def colours(texture: Texture) -> torch.Tensor:
    return texture.at(lopsided_textured().vertices[:50])


@given(steps=st.integers(1, 60), rounds=st.integers(1, 6), round_steps=st.integers(1, 20))
def test_every_painting_step_comes_once_and_each_round_learns_first(steps: int, rounds: int, round_steps: int) -> None:
    settings = BootstrapConfig(form="bsd", rounds=rounds, round_steps=round_steps)
    config = TextureConfig(steps=steps, bootstrap=settings)
    plan = [moments(config, step) for step in range(stage_steps(config))]
    assert [moment.painted for moment in plan if moment.learning is None] == list(range(steps))
    for index in range(rounds):
        mine = [moment for moment in plan if moment.round == index]
        learning = [moment.learning for moment in mine]
        assert learning[:round_steps] == list(range(round_steps))
        assert set(learning[round_steps:]) <= {None}
    assert [moment.round for moment in plan] == sorted(moment.round for moment in plan)


def test_without_bootstrapping_nothing_is_added() -> None:
    config = TextureConfig(steps=7)
    assert stage_steps(config) == 7
    assert stage_steps(TextureConfig(steps=7, bootstrap=BootstrapConfig(form="vsd"))) == 7
    assert moments(config, 3).painted == 3


@pytest.mark.slow
def test_a_resumed_run_equals_one_that_never_stopped(tmp_path: Path) -> None:
    """Adapters, their optimisers and the pictures being learnt are in the checkpoint: stopped in each kind of step."""
    whole = colours(paint(prior()))
    checkpoint = tmp_path / "checkpoint.safetensors"
    for stop_at in (2, 4, 9):  # learning, painting, learning in the second round
        with pytest.raises(Cancelled):
            paint(prior(), checkpoint=checkpoint, stop_at=stop_at)
        assert checkpoint.exists()
    assert torch.equal(colours(paint(prior(), checkpoint=checkpoint)), whole)


@pytest.mark.slow
def test_learning_changes_what_is_painted_and_leaves_no_trace() -> None:
    mine = prior()
    weights = {key: value.clone() for key, value in mine.unet.state_dict().items()}
    first = colours(paint(mine))
    assert all(torch.equal(mine.unet.state_dict()[key], value) for key, value in weights.items())
    assert mine.unet.state_dict().keys() == weights.keys()
    assert torch.equal(colours(paint(mine)), first)  # the next run with this very prior begins alike
    assert not torch.equal(colours(paint(mine, **{"bootstrap.lr_personal": 1e-6})), first)
    assert not torch.equal(colours(paint(mine, **{"bootstrap.form": "vsd"})), first)


def test_a_prior_without_a_network_cannot_learn() -> None:
    oracle = OraclePrior(TrueView(lopsided_textured()), image_size=16)
    with pytest.raises(ConfigError, match="oracle") as caught:
        paint(oracle)
    assert "bootstrap.form" in caught.value.remedy
    assert bool(colours(paint(oracle, **{"bootstrap.form": "none"})).isfinite().all())


def test_the_album_keeps_each_picture_with_its_camera() -> None:
    reference = orbit(0.2, 0.0)
    album = Album(torch.zeros(1, 4, 2, 2), views=2)
    assert album.count == 1
    album.put(1, torch.ones(1, 4, 2, 2), orbit(0.5, 2.0))
    x, cameras = album.pages(torch.tensor([0, 1]), reference)
    assert x[:, 0, 0, 0].tolist() == [0.0, 1.0]
    assert cameras.azimuth.tolist() == [0.0, 2.0]
    assert cameras.elevation.tolist() == pytest.approx([0.2, 0.5])
    album.put(1, torch.full((1, 4, 2, 2), 5.0), orbit(0.1, -1.0))  # a later round replaces it
    assert album.count == 2
    other = Album(torch.zeros(1, 4, 2, 2), views=2)
    other.load_state_dict(album.state_dict())
    again, turned = other.pages(torch.tensor([1]), reference)
    assert float(again[0, 0, 0, 0]) == 5.0
    assert float(turned.azimuth) == -1.0
