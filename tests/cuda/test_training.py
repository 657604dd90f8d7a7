"""A few steps of the bundled prior's training on the card: it learns, resumes, and its weights can be used."""

from pathlib import Path

import pytest
import torch

from dreamcraft3d.priors.bundled import BundledPrior
from dreamcraft3d.training.dataset import TrainingSet, world_folder
from dreamcraft3d.training.shards import Shard, Source, write_shard
from dreamcraft3d.training.train import Trainer, TrainSettings, train
from tiny_models import tiny_network

SETTINGS = TrainSettings(
    steps=100, batch=4, targets=2, warm_up=1, shards=1, examples=2, learning_rate=4e-3, bfloat16=False
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run")
    write_shard(world_folder(path), Shard(0, "procedural"), Source(examples=2, views=3))
    return path


@pytest.fixture(scope="module")
def world(folder: Path) -> TrainingSet:
    return TrainingSet(world_folder(folder))


def test_the_loss_begins_like_the_cpu_s_and_falls(card: torch.device, world: TrainingSet) -> None:
    """Noise is drawn on the card, so the losses are alike and not the same."""
    there, here = (Trainer(SETTINGS, network=tiny_network(), device=str(place)) for place in (card, "cpu"))
    losses = [float(there.train_step(world.batch(4, there.generator))) for _ in range(16)]
    first = float(here.train_step(world.batch(4, here.generator)))
    assert losses[0] == pytest.approx(first, rel=0.3)
    assert sum(losses[-4:]) < 0.7 * sum(losses[:4])
    assert {parameter.device.type for parameter in there.network.parameters()} == {card.type}


def test_training_goes_on_from_a_checkpoint(card: torch.device, world: TrainingSet, tmp_path: Path) -> None:
    first, second = (Trainer(SETTINGS, network=tiny_network(), device=str(card)) for _ in range(2))
    for _ in range(3):
        first.train_step(world.batch(4, first.generator))
    first.save(tmp_path / "checkpoint.pt")
    second.load(tmp_path / "checkpoint.pt")
    assert second.step == 3
    there, here = (float(trainer.train_step(world.batch(4, trainer.generator))) for trainer in (first, second))
    assert there == pytest.approx(here, rel=0.1)


def test_the_whole_network_trains_and_is_exported(card: torch.device, folder: Path, tmp_path: Path) -> None:
    settings = TrainSettings(steps=3, batch=4, targets=2, shards=1, examples=2, log_seconds=0.0)
    weights = train(minutes=1.0, folder=folder, export=tmp_path / "w.safetensors", settings=settings, device=str(card))
    prior = BundledPrior.load(weights, device=card)
    assert prior.alphas_cumprod.device.type == card.type
    assert (tmp_path / "w.safetensors").read_bytes() == weights.read_bytes()
