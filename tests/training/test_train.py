"""The training loop on a tiny world: it learns, resumes exactly, and exports what it has learned."""

import json
from pathlib import Path

import pytest
import torch

from dreamcraft3d.priors.bundled import BundledPrior
from dreamcraft3d.priors.network import BundledNetwork
from dreamcraft3d.training.dataset import World, world_folder, write_shard
from dreamcraft3d.training.report import held_out_figures, sample_sheet
from dreamcraft3d.training.train import Trainer, TrainSettings, draw_timesteps, export_weights, train, write_weights

TINY = TrainSettings(steps=8, batch=4, targets=2, warm_up=2, shards=1, learning_rate=2e-3, bfloat16=False)


def tiny_network() -> BundledNetwork:
    torch.manual_seed(1)
    return BundledNetwork(channels=(32, 32), widths=(16, 16, 32), planes=6, features=2, embedding=32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run")
    write_shard(world_folder(path), 0, objects=2, views=3)
    return path


@pytest.fixture(scope="module")
def world(folder: Path) -> World:
    return World(world_folder(folder))


def test_the_loss_falls(world: World) -> None:
    trainer = Trainer(TrainSettings(steps=100, batch=4, warm_up=1, learning_rate=4e-3), network=tiny_network())
    losses = [trainer.train_step(world.batch(4, trainer.generator)) for _ in range(16)]
    assert sum(losses[-4:]) < 0.6 * sum(losses[:4])
    moved = [not torch.equal(a, b) for a, b in zip(trainer.ema.parameters(), tiny_network().parameters(), strict=True)]
    assert all(moved), "every weight takes part"


def test_resuming_is_exact(world: World, tmp_path: Path) -> None:
    whole, first, second = (Trainer(TINY, network=tiny_network()) for _ in range(3))
    straight = [whole.train_step(world.batch(4, whole.generator)) for _ in range(4)]
    for _ in range(2):
        first.train_step(world.batch(4, first.generator))
    first.save(tmp_path / "checkpoint.pt")
    second.load(tmp_path / "checkpoint.pt")
    assert [second.train_step(world.batch(4, second.generator)) for _ in range(2)] == straight[2:]
    for a, b in zip(whole.ema.parameters(), second.ema.parameters(), strict=True):
        assert torch.equal(a, b)


def test_another_machine_goes_on_from_weights(world: World, tmp_path: Path) -> None:
    first, second = (Trainer(TINY, network=tiny_network()) for _ in range(2))
    for _ in range(3):
        first.train_step(world.batch(4, first.generator))
    write_weights(first.ema, tmp_path / "weights.safetensors", step=3, seconds=60.0)
    second.start_from(tmp_path / "weights.safetensors")
    assert (second.step, second.seconds) == (3, 60.0)
    for here, there in zip(second.network.parameters(), first.ema.parameters(), strict=True):
        assert torch.equal(here, there.half().float())
    second.train_step(world.batch(4, second.generator))
    assert second.optimiser.param_groups[0]["lr"] < 0.6 * TINY.learning_rate, "a new optimiser warms up"


def test_workers_share_the_batch(world: World) -> None:
    """Two threads with half of the batch each do what one does with all of it."""
    batch = world.batch(4, torch.Generator().manual_seed(0))
    one, two = (Trainer(TrainSettings(**{**TINY.__dict__, "workers": n}), network=tiny_network()) for n in (1, 2))
    assert one.train_step(batch) == pytest.approx(two.train_step(batch), rel=1e-5)
    for a, b in zip(one.network.parameters(), two.network.parameters(), strict=True):
        assert torch.allclose(a, b, atol=2e-4)


def test_timesteps_favour_the_range_of_distillation() -> None:
    t = draw_timesteps(20_000, 1000, torch.Generator().manual_seed(0))
    assert int(t.min()) >= 0
    assert int(t.max()) <= 999
    inside = ((t >= 200) & (t < 950)).float().mean()
    assert float(inside) == pytest.approx(0.75 + 0.25 * 0.75, abs=0.02)


@pytest.mark.slow
def test_a_run_leaves_weights_log_and_checkpoint(folder: Path, tmp_path: Path) -> None:
    records: list[dict] = []
    settings = TrainSettings(steps=2, batch=2, targets=2, shards=1, log_seconds=0.0)
    copy = tmp_path / "weights" / "bundled.safetensors"
    weights = train(minutes=1.0, folder=folder, export=copy, settings=settings, on_log=records.append)
    assert weights.read_bytes() == copy.read_bytes()
    assert len(weights.read_bytes()) <= 40_000_000
    assert [record["step"] for record in records] == [1, 2]
    assert [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()] == [1, 2]
    again = export_weights(folder / "checkpoint.pt", tmp_path / "again.safetensors")
    assert again.read_bytes() == copy.read_bytes()
    prior = BundledPrior.load(again)
    figures = held_out_figures(prior, [3], views=2, steps=1)
    assert list(figures) == ["sampled", "one step", "reference again", "another object", "lifted"]
    assert all(0.0 <= score.iou <= 1.0 for score in figures.values())
    sample_sheet(prior, tmp_path / "sheet.png", seeds=[1, 2, 3, 4], steps=1)
    assert (tmp_path / "sheet.png").exists()
