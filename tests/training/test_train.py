"""The training loop on a tiny world: it learns, resumes exactly, and exports what it has learned."""

import json
import multiprocessing
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from crossings import Crossings
from dreamcraft3d.errors import DreamCraftError
from dreamcraft3d.kernels.reference.frustum import render_frustum as reference_implementation
from dreamcraft3d.priors import lifting
from dreamcraft3d.priors.bundled import BundledPrior
from dreamcraft3d.training import train as training
from dreamcraft3d.training.dataset import Batch, TrainingSet, world_folder
from dreamcraft3d.training.losses import Share, Weights, training_loss
from dreamcraft3d.training.report import held_out_figures, procedural_objects, sample_sheet
from dreamcraft3d.training.shards import Shard, Source, write_shard
from dreamcraft3d.training.train import (
    Trainer,
    TrainSettings,
    draw_timesteps,
    fast_arithmetic,
    train,
    write_weights,
)
from packs import write_pack
from tiny_models import tiny_network

TINY = TrainSettings(steps=8, batch=4, targets=2, warm_up=2, shards=1, examples=2, learning_rate=2e-3, bfloat16=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run")
    write_shard(world_folder(path), Shard(0, "procedural"), Source(examples=2, views=3))
    return path


@pytest.fixture(scope="module")
def world(folder: Path) -> TrainingSet:
    return TrainingSet(world_folder(folder))


def test_the_loss_falls(world: TrainingSet) -> None:
    trainer = Trainer(TrainSettings(steps=100, batch=4, warm_up=1, learning_rate=4e-3), network=tiny_network())
    losses = [float(trainer.train_step(world.batch(4, trainer.generator))) for _ in range(32)]
    assert sum(losses[-4:]) < 0.6 * sum(losses[:4])
    moved = [not torch.equal(a, b) for a, b in zip(trainer.ema.parameters(), tiny_network().parameters(), strict=True)]
    assert all(moved), "every weight takes part"


def test_resuming_is_exact(world: TrainingSet, tmp_path: Path) -> None:
    whole, first, second = (Trainer(TINY, network=tiny_network()) for _ in range(3))
    straight = [float(whole.train_step(world.batch(4, whole.generator))) for _ in range(4)]
    for _ in range(2):
        first.train_step(world.batch(4, first.generator))
    first.save(tmp_path / "checkpoint.pt")
    second.load(tmp_path / "checkpoint.pt")
    assert [float(second.train_step(world.batch(4, second.generator))) for _ in range(2)] == straight[2:]
    assert second.images == whole.images == 4 * 4
    for a, b in zip(whole.ema.parameters(), second.ema.parameters(), strict=True):
        assert torch.equal(a, b)


def test_another_machine_goes_on_from_weights(world: TrainingSet, tmp_path: Path) -> None:
    first, second = (Trainer(TINY, network=tiny_network()) for _ in range(2))
    for _ in range(3):
        first.train_step(world.batch(4, first.generator))
    write_weights(first.ema, tmp_path / "weights.safetensors", step=3, seconds=60.0, images=first.images)
    second.start_from(tmp_path / "weights.safetensors")
    assert (second.step, second.seconds, second.images) == (3, 60.0, 12)
    for here, there in zip(second.network.parameters(), first.ema.parameters(), strict=True):
        assert torch.equal(here, there.half().float())
    second.train_step(world.batch(4, second.generator))
    assert second.optimiser.param_groups[0]["lr"] < 0.6 * TINY.learning_rate, "a new optimiser warms up"


def test_a_new_optimiser_begins_its_fall_where_it_begins(tmp_path: Path) -> None:
    """Long training before must not leave a sitting with a learning rate of zero."""
    settings = TrainSettings(**{**TINY.__dict__, "steps": None, "minutes": 10.0})
    trainer = Trainer(settings, network=tiny_network())
    write_weights(trainer.ema, tmp_path / "weights.safetensors", step=3, seconds=480.0)
    trainer.start_from(tmp_path / "weights.safetensors")
    assert (trainer.progress, trainer.annealing) == (0.8, 0.0)
    trainer.seconds = 540.0
    trainer.save(tmp_path / "checkpoint.pt")
    again = Trainer(settings, network=tiny_network())
    again.load(tmp_path / "checkpoint.pt")
    assert again.annealing == pytest.approx(0.5)
    again.seconds = 700.0
    assert again.annealing == 1.0


def test_workers_share_the_batch(world: TrainingSet) -> None:
    """Two threads with half of the batch each do what one does with all of it."""
    batch = world.batch(4, torch.Generator().manual_seed(0))
    one, two = (Trainer(TrainSettings(**{**TINY.__dict__, "workers": n}), network=tiny_network()) for n in (1, 2))
    assert float(one.train_step(batch)) == pytest.approx(float(two.train_step(batch)), rel=1e-5)
    for a, b in zip(one.network.parameters(), two.network.parameters(), strict=True):
        assert torch.allclose(a, b, atol=2e-4)


def test_images_are_estimated_where_they_were_not_counted(tmp_path: Path) -> None:
    """Checkpoints and weights of before: 24 wanted views per step."""
    trainer = Trainer(TINY, network=tiny_network())
    trainer.step = 5
    trainer.save(tmp_path / "checkpoint.pt")
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del state["images"]
    torch.save(state, tmp_path / "checkpoint.pt")
    trainer.load(tmp_path / "checkpoint.pt")
    assert trainer.images == 120


def with_one_kernel(trainer: Trainer) -> Trainer:
    """As on a card: AdamW in one kernel, which counts steps where the weights are."""
    group = trainer.optimiser.param_groups[0]
    kept = {name: group[name] for name in ("lr", "betas", "weight_decay")}
    trainer.optimiser, trainer._fused = torch.optim.AdamW(trainer.network.parameters(), fused=True, **kept), True
    return trainer


@pytest.mark.parametrize("there", [False, True])
def test_checkpoints_move_between_cpu_and_card(world: TrainingSet, tmp_path: Path, there: bool) -> None:
    plain, fused = Trainer(TINY, network=tiny_network()), with_one_kernel(Trainer(TINY, network=tiny_network()))
    first, second = (plain, fused) if there else (fused, plain)
    for _ in range(2):
        first.train_step(world.batch(4, first.generator))
    first.save(tmp_path / "checkpoint.pt")
    second.load(tmp_path / "checkpoint.pt")
    assert second.optimiser.param_groups[0]["fused"] is (True if there else None)
    for trainer in (first, second):
        trainer.train_step(world.batch(4, trainer.generator))
    for here, other in zip(first.network.parameters(), second.network.parameters(), strict=True):
        assert torch.allclose(here, other, atol=1e-5)


def test_a_card_computes_fast_within_training_only() -> None:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    card = torch.device("cuda")
    with fast_arithmetic(card, narrow=False):
        assert matmul.allow_tf32 and cudnn.allow_tf32 and cudnn.benchmark
    with fast_arithmetic(card, narrow=True):
        assert not matmul.allow_tf32, "cameras stay exact"
    with pytest.raises(KeyboardInterrupt), fast_arithmetic(card, narrow=False):
        raise KeyboardInterrupt
    assert (matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark) == before
    with fast_arithmetic(torch.device("cpu"), narrow=False):
        assert not cudnn.benchmark


def test_a_gpu_is_not_waited_for(world: TrainingSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device refuses what a GPU would have to be waited for: its values, and tensors of the CPU beside it.

    Kernels of Warp cannot run there; what they are given is what their reference implementation is given.
    """
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # unknown on that device
    monkeypatch.setattr(lifting, "render_frustum", reference_implementation)
    network, device = tiny_network().to("meta"), torch.device("meta")
    batch = Batch(*(tensor.to(device) for tensor in vars(world.batch(2, torch.Generator(), targets=2)).values()))
    dropped, t = torch.zeros(2, dtype=torch.bool, device=device), torch.zeros(2, dtype=torch.long, device=device)
    share = Share(batch, dropped, t, torch.randn_like(batch.target[:, 0]), (0, 1))
    with Crossings() as crossings:
        training_loss(network, share, Weights()).backward()
    assert not crossings.found
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.slow
def test_training_takes_in_what_is_drawn_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "ENOUGH", 2)
    monkeypatch.setattr(training, "REFRESH_SECONDS", 0.0)
    cache, records, used = world_folder(tmp_path), list[dict](), list[int]()

    class Watched(TrainingSet):
        def _row(self, kind, rng):
            shard, row = super()._row(kind, rng)
            used.append(next(index for index, each in enumerate(self._shards[kind]) if each is shard))
            return shard, row

    def patient(record: dict) -> None:
        """Waits after the first step until more has been drawn."""
        records.append(record)
        if record.get("step") == 1:
            limit = time.monotonic() + 300.0
            while len(list(cache.glob("*.cameras.npy"))) <= record["examples"] + 1 and time.monotonic() < limit:
                time.sleep(0.1)

    monkeypatch.setattr(training, "TrainingSet", Watched)
    settings = TrainSettings(steps=3, batch=16, targets=1, shards=10_000, examples=1, log_seconds=0.0, workers=1)
    train(minutes=1.0, folder=tmp_path, settings=settings, writers=2, on_log=patient)
    steps = [record for record in records if "loss" in record]
    assert steps[1]["examples"] < steps[2]["examples"] or steps[0]["examples"] < steps[1]["examples"]
    assert max(used) >= steps[0]["examples"], "no later object was trained on"
    assert records[-1]["step"] == 3 and records[-1]["overall_img_per_s"] > 0.0
    assert not multiprocessing.active_children()
    assert not list(cache.glob("*.tmp"))
    assert len(list(cache.glob("*.cameras.npy"))) < 10_000, "drawing was to be given up"


@pytest.mark.slow
def test_writers_that_fail_are_reported(tmp_path: Path) -> None:
    world_folder(tmp_path).mkdir()
    for index in range(2):  # a folder where a file is to be put
        Shard(index, "procedural").file(world_folder(tmp_path), "views").mkdir()
    settings = TrainSettings(steps=1, shards=2, examples=1, workers=1)
    with pytest.raises(DreamCraftError, match="failed"):
        train(minutes=1.0, folder=tmp_path, settings=settings, writers=2)
    assert not multiprocessing.active_children()
    assert not list(world_folder(tmp_path).glob("*.tmp"))


def test_timesteps_favour_the_range_of_distillation() -> None:
    t = draw_timesteps(20_000, 1000, torch.Generator().manual_seed(0))
    assert int(t.min()) >= 0
    assert int(t.max()) <= 999
    inside = ((t >= 200) & (t < 950)).float().mean()
    assert float(inside) == pytest.approx(0.75 + 0.25 * 0.75, abs=0.02)


@pytest.mark.slow
def test_a_run_leaves_weights_log_and_checkpoint(folder: Path, tmp_path: Path) -> None:
    records: list[dict] = []
    settings = TrainSettings(steps=2, batch=2, targets=2, shards=1, examples=2, log_seconds=0.0)
    copy = tmp_path / "weights" / "bundled.safetensors"
    weights = train(minutes=1.0, folder=folder, export=copy, settings=settings, on_log=records.append)
    assert weights.read_bytes() == copy.read_bytes()
    assert len(weights.read_bytes()) <= 40_000_000
    assert [record["step"] for record in records] == [1, 2, 2]
    assert [json.loads(line)["images"] for line in (folder / "log.jsonl").read_text().splitlines()] == [4, 8, 8]
    assert records[-1]["overall_img_per_s"] > 0.0
    prior = BundledPrior.load(copy)
    assert prior.trained[::2] == (2, 8)
    things = procedural_objects([3, 4], views=2)
    figures = held_out_figures(prior, things, views=2, steps=1)
    assert list(figures) == ["sampled", "one step", "lifted", "reference again", "another object"]
    assert all(0.0 <= score.iou <= 1.0 for score in figures.values())
    sample_sheet(prior, tmp_path / "sheet.png", things, steps=1)
    assert (tmp_path / "sheet.png").exists()


@pytest.mark.slow
def test_a_run_on_real_objects_judges_itself_by_those_that_are_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "BundledNetwork", tiny_network)
    monkeypatch.setattr(training, "procedural_objects", lambda seeds: procedural_objects(list(seeds)[:2]))
    pack, records = write_pack(tmp_path / "objects.zip"), list[dict]()
    settings = TrainSettings(
        steps=1, batch=2, targets=2, shards=2, examples=1, log_seconds=0.0, sheet_minutes=0.0, pack=pack, workers=1
    )
    train(minutes=1.0, folder=tmp_path / "run", settings=settings, on_log=records.append)
    assert {path.name.partition("-")[0] for path in world_folder(tmp_path / "run").iterdir()} == {"real", "procedural"}
    (judged,) = [record["held_out"] for record in records if "held_out" in record]
    assert list(judged) == ["procedural", "real"]
    assert all(0.0 <= scores["sampled"]["iou"] <= 1.0 for scores in judged.values())
    assert (tmp_path / "run" / "sheet-000001.png").exists()
