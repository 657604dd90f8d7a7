"""Trains the bundled prior on pictures of real and procedural objects, within a budget of minutes.

The losses are those of `training.losses`. A reference is encoded once for several wanted views. Three quarters of the
timesteps lie in the range [.2, .95] that distillation and the first steps of sampling ask. AdamW, cosine to zero over
the budget, EMA, 10 % reference dropout for guidance.

On the CPU each worker thread computes the gradient of its share of the batch with one core; the weights are shared
and the gradients added in a fixed order. A barrier per step instead of one per operator is what keeps a shared
machine busy. Convolutions run in bfloat16 where the processor has the instructions for it.

On a GPU nothing waits within a step: raw pictures and the few random numbers of the CPU go there from pinned memory,
noise is drawn there, and losses stay there until they are logged. Networks compute in bfloat16, cameras do not.
Missing pictures can be drawn by processes beside the training.

A run is a folder: `world-N/` (cached pictures), `checkpoint.pt` (resumes exactly), `log.jsonl`, `sheet-*.png`,
`bundled.safetensors`. Weights carry the time that they were trained for: where there is no checkpoint, on another
machine, a run can go on from weights with an optimiser of its own.
"""

import copy
import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreamcraft3d.errors import DreamCraftError
from dreamcraft3d.priors.bundled import WEIGHTS, BundledPrior, Trained
from dreamcraft3d.priors.network import BundledNetwork, channels_last
from dreamcraft3d.training.dataset import Batch, TrainingSet, sent, world_folder
from dreamcraft3d.training.losses import Share, Weights, training_loss
from dreamcraft3d.training.objects import ObjectPack
from dreamcraft3d.training.report import HeldOut, held_out_figures, procedural_objects, real_objects, sample_sheet
from dreamcraft3d.training.shards import EXAMPLES, Source, drawing_beside, shards_of, write_shard

logger = logging.getLogger(__name__)

OnLog = Callable[[dict[str, Any]], None]

DEFAULT_FOLDER = Path(".cache/prior")
CHECKPOINT = "checkpoint.pt"
SHARDS = 240
ENOUGH = 8  # shards, to start training with while the others are drawn
REFRESH_SECONDS = 5.0


@dataclass(frozen=True)
class TrainSettings:
    """How to train. The budget is `minutes` of training in all (over resumes), or `steps` where given (tests).

    A batch is `batch` examples with `targets` wanted views each. `pack`: real objects (`training.objects`); without it
    all are procedural.
    """

    minutes: float = 90.0
    steps: int | None = None
    batch: int = 8
    targets: int = 3
    learning_rate: float = 8e-4
    warm_up: int = 300
    weight_decay: float = 0.01
    ema: float = 0.999
    dropout: float = 0.1
    real: float = 0.6  # share of real objects, where there is a pack
    weights: Weights = field(default_factory=Weights)
    bfloat16: bool | None = None  # networks in half the bits; by default where the processor or card is fast at it
    workers: int = 2
    seed: int = 0
    pack: Path | None = None
    shards: int = SHARDS
    first_shard: int = 0  # another sitting may draw other pictures
    examples: int = EXAMPLES  # per shard; the same for all of a folder
    checkpoint_minutes: float = 5.0
    sheet_minutes: float = 20.0
    log_seconds: float = 30.0


class Trainer:
    """Network, EMA, optimiser and random state of one run."""

    def __init__(self, settings: TrainSettings, *, network: BundledNetwork | None = None, device: str = "cpu") -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.device = settings, torch.device(device)
        self.network = channels_last(network or BundledNetwork()).to(self.device).train()
        self.ema = copy.deepcopy(self.network).eval().requires_grad_(False)
        on_card = self.device.type != "cpu"
        self._fused = True if on_card else None  # one kernel for all weights
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=0.0, betas=(0.9, 0.99), weight_decay=settings.weight_decay, fused=self._fused
        )
        self.generator = torch.Generator().manual_seed(settings.seed)
        self._noise = torch.Generator(self.device).manual_seed(settings.seed) if on_card else self.generator
        self.step, self.seconds, self.images = Trained()
        self._cold, self._cold_seconds = 0, 0.0  # where the optimiser knew nothing
        self.narrow = _narrow_is_fast(self.device) if settings.bfloat16 is None else settings.bfloat16
        workers = 1 if on_card else settings.workers
        self._replicas = [self.network, *(_sharing_weights(self.network) for _ in range(workers - 1))]
        self._pool = (
            ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) if workers > 1 else None
        )

    @property
    def progress(self) -> float:
        """Share of the budget that is used up."""
        steps = self.settings.steps
        return self.step / steps if steps is not None else self.seconds / max(60.0 * self.settings.minutes, 1e-9)

    @property
    def annealing(self) -> float:
        """Share of the learning rate's fall that is behind: from where the optimiser began to the end of the budget."""
        steps = self.settings.steps
        begun = (
            self._cold / steps if steps is not None else self._cold_seconds / max(60.0 * self.settings.minutes, 1e-9)
        )
        return min(max((self.progress - begun) / max(1.0 - begun, 1e-9), 0.0), 1.0)

    @property
    def worked(self) -> float:
        """Seconds of work of this process: a shared, paused or sleeping machine counts only what it gave.

        On the CPU the processor time of all threads, divided by how many train; elsewhere the clock.
        """
        if self.device.type != "cpu":
            return time.monotonic()
        return time.process_time() / (len(self._replicas) if self._pool else torch.get_num_threads())

    @property
    def steps_of_noise(self) -> int:
        """T, the number of timesteps."""
        return len(self.network.alphas_cumprod)

    def train_step(self, batch: Batch) -> Float[Tensor, ""]:
        """One optimiser step; returns the loss, without waiting for it."""
        rate = self.settings.learning_rate * min(1.0, (self.step - self._cold + 1) / self.settings.warm_up)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * 0.5 * (1.0 + math.cos(math.pi * self.annealing))
        shares = self._shares(batch, len(self._replicas))
        run = self._pool.map if self._pool else map
        losses = list(run(self._backward, self._replicas, shares, [len(s.t) / len(batch.pose) for s in shares]))
        self._update()
        self.step += 1
        self.images += batch.pose.shape[:2].numel()
        self._follow()
        return torch.stack(losses).sum()

    def _update(self) -> None:
        """Adds the replicas' gradients in their order, clips them and takes the optimiser's step."""
        parameters = list(self.network.parameters())
        for replica in self._replicas[1:]:
            for parameter, other in zip(parameters, replica.parameters(), strict=True):
                if parameter.grad is not None and other.grad is not None:
                    parameter.grad.add_(other.grad)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        self.optimiser.step()
        for replica in self._replicas:
            replica.zero_grad(set_to_none=True)

    @torch.no_grad()
    def _follow(self) -> None:
        """The EMA, over few steps at first."""
        keep = min(self.settings.ema, (1.0 + self.step) / (10.0 + self.step))
        torch._foreach_lerp_([*self.ema.parameters()], [*self.network.parameters()], 1.0 - keep)

    def _shares(self, batch: Batch, count: int) -> list[Share]:
        examples = len(batch.pose)
        dropped = torch.rand(examples, generator=self.generator) < self.settings.dropout
        t = draw_timesteps(examples, self.steps_of_noise, self.generator)
        noise = torch.randn(batch.target[:, 0].shape, generator=self._noise, device=self.device)
        row, column = torch.randint(2, (2,), generator=self.generator).tolist()
        pictures = (tensor.to(self.device) for tensor in vars(batch).values())  # on the GPU already, if there is one
        drawn = (sent(dropped, self.device), sent(t, self.device), noise)
        fields = [tensor.chunk(count) for tensor in (*pictures, *drawn)]
        pieces = zip(*fields, strict=True)
        return [Share(Batch(*each), gone, step, noise, (row, column)) for *each, gone, step, noise in pieces]

    def _backward(self, network: BundledNetwork, share: Share, weight: float) -> Float[Tensor, ""]:
        loss = weight * training_loss(network, share, self.settings.weights, narrow=self.narrow)
        loss.backward()
        return loss.detach()

    def save(self, path: Path) -> None:
        """Everything that resuming needs, written to the side and renamed."""
        state = {
            "network": self.network.state_dict(), "ema": self.ema.state_dict(),
            "optimiser": self.optimiser.state_dict(), "generator": self.generator.get_state(),
            "step": self.step, "seconds": self.seconds, "images": self.images, "cold": self._cold,
            "cold_seconds": self._cold_seconds, "training": json.dumps(asdict(self.settings), default=str),
        }  # fmt: skip
        if self._noise is not self.generator:
            state["noise"] = self._noise.get_state()
        temporary = path.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(path)

    def load(self, path: Path) -> None:
        """Goes on where `save` stopped."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.ema.load_state_dict(state["ema"])
        for group in state["optimiser"]["param_groups"]:
            group["fused"] = self._fused  # of this machine, not of the one that saved; it says where steps are counted
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"].cpu())
        if self._noise is not self.generator and "noise" in state:
            self._noise.set_state(state["noise"].cpu())
        self.step, self.seconds, self.images = Trained.of(state)
        self._cold, self._cold_seconds = state["cold"], state.get("cold_seconds", 0.0)

    def start_from(self, weights: Path) -> None:
        """Goes on from exported weights, and counts the time that they were trained for; the learning rate begins its
        fall anew."""
        prior = BundledPrior.load(weights)
        self.network.load_state_dict(prior.network.state_dict())
        self.ema.load_state_dict(self.network.state_dict())
        self.step, self.seconds, self.images = prior.trained
        self._cold, self._cold_seconds = self.step, self.seconds


def _narrow_is_fast(device: torch.device) -> bool:
    """Whether bfloat16 is worth it."""
    return bool(torch.cpu._is_avx512_bf16_supported() if device.type == "cpu" else torch.cuda.is_bf16_supported())


@contextmanager
def fast_arithmetic(device: torch.device, *, narrow: bool) -> Iterator[None]:
    """On a card: the fastest algorithms for shapes that stay the same, and TF32 for what is left of float32.

    Where networks compute in bfloat16 (`narrow`) the only products left in float32 are those of cameras, few and small:
    in TF32 they would look the volume up some hundredths of a cell beside the place, for no gain.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    if device.type != "cpu":
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = not narrow, True, True
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before


def draw_timesteps(size: int, total: int, generator: torch.Generator) -> Int[Tensor, " B"]:
    """Three quarters uniform in [.2, .95] of the range, one quarter uniform over all of it."""
    draw = torch.rand(2, size, generator=generator)
    share = torch.where(draw[0] < 0.75, 0.2 + 0.75 * draw[1], draw[1])
    return (share * total).long().clamp(max=total - 1)


def train(
    *,
    minutes: float = 90.0,
    resume: bool = True,
    folder: Path = DEFAULT_FOLDER,
    start: Path | None = None,
    export: Path | None = None,
    settings: TrainSettings | None = None,
    device: str = "cpu",
    writers: int = 0,
    on_log: OnLog | None = None,
) -> Path:
    """Trains within the budget and returns the path of the exported weights (EMA, fp16).

    Args:
        minutes: of work in all (see `Trainer.worked`); a resumed run counts what it has used before.
        resume: go on from `folder`/checkpoint.pt where there is one.
        start: weights to go on from where there is no checkpoint.
        folder: pictures (drawn where missing), checkpoint, log and sheets.
        export: a second place for the weights, renewed at every checkpoint.
        settings: everything else; its `minutes` give way to the argument.
        writers: processes that draw missing pictures beside the training, which begins once there are a few shards;
            with 0, this process draws them all first.
        on_log: receives each log record: {"objects"} while pictures are drawn, then {"step", "images", "loss",
            "img_per_s", "minutes", "objects"}, at times held-out figures, and at the end {"step", "images", "minutes",
            "overall_img_per_s"}.
    """
    settings = replace(settings or TrainSettings(), minutes=minutes)
    cache, source = world_folder(folder), Source(settings.pack, settings.examples)
    shards = shards_of(source, settings.shards, first=settings.first_shard)
    missing = [shard for shard in shards if not shard.exists(cache)]
    beside = bool(writers and missing)
    if not beside:
        for index, shard in enumerate(missing):
            if write_shard(cache, shard, source) and on_log is not None:
                on_log({"examples": (index + 1) * settings.examples})
    targets = [folder / WEIGHTS, *([export] if export else [])]
    drawing: AbstractContextManager[list[BaseProcess]] = nullcontext([])
    if beside:
        drawing = drawing_beside(cache, missing, source, writers=writers)
    with drawing as processes:
        trainer = _trainer(settings, device, folder / CHECKPOINT if resume else None, start)
        if beside:
            _await_shards(lambda: sum(shard.exists(cache) for shard in shards), settings, writers, processes, on_log)
        with fast_arithmetic(trainer.device, narrow=trainer.narrow):
            _loop(trainer, TrainingSet(cache, real=settings.real), folder, targets, on_log)
    return targets[0]


def _trainer(settings: TrainSettings, device: str, checkpoint: Path | None, start: Path | None) -> Trainer:
    """New, or as a checkpoint or weights left it."""
    trainer = Trainer(settings, device=device)
    if checkpoint is not None and checkpoint.exists():
        trainer.load(checkpoint)
    elif start is not None:
        trainer.start_from(start)
    if trainer.step:
        logger.info("resuming at step %d, %.1f minutes", trainer.step, trainer.seconds / 60.0)
    return trainer


def _await_shards(
    finished: Callable[[], int], settings: TrainSettings, writers: int, processes: Sequence[BaseProcess],
    on_log: OnLog | None,
) -> None:  # fmt: skip
    """Return once there are enough shards (or all)."""
    told = 0
    while True:
        drawing = any(process.is_alive() for process in processes)  # first: the last shard may come meanwhile
        there = finished()
        if there > told and on_log is not None:
            on_log({"examples": there * settings.examples})
        if there >= min(settings.shards, max(writers, ENOUGH)):
            return
        if not drawing:
            raise DreamCraftError("the processes that draw training pictures have failed", remedy="use --writers 0")
        told = there
        time.sleep(0.2)


class _Every:
    """Tells when a period has passed."""

    def __init__(self, period: float, now: float) -> None:
        self.period, self.last = period, now

    def due(self, now: float) -> bool:
        """Whether it has, since this was last so."""
        passed = now - self.last >= self.period
        self.last = now if passed else self.last
        return passed


def _loop(trainer: Trainer, world: TrainingSet, folder: Path, targets: list[Path], on_log: OnLog | None) -> None:
    settings, losses, now = trainer.settings, list[Tensor](), time.monotonic()
    before, started = trainer.seconds, trainer.worked
    first = since = (trainer.images, before)
    logs, sheets = _Every(settings.log_seconds, before), _Every(60.0 * settings.sheet_minutes, before)
    saves, refreshes = _Every(60.0 * settings.checkpoint_minutes, now), _Every(REFRESH_SECONDS, now)
    while trainer.progress < 1.0:
        batch = world.batch(settings.batch, trainer.generator, targets=settings.targets, device=trainer.device)
        losses.append(trainer.train_step(batch))
        trainer.seconds = before + trainer.worked - started
        if logs.due(trainer.seconds):
            loss = round(float(torch.stack(losses).mean()), 5)
            record = {**_reached(trainer), "loss": loss, "img_per_s": _speed(trainer, since), "examples": len(world)}
            _log(folder, on_log, record)
            losses, since = [], (trainer.images, trainer.seconds)
        if refreshes.due(time.monotonic()):
            world.refresh()
        if saves.due(time.monotonic()):
            _save(trainer, folder / CHECKPOINT, targets)
        if sheets.due(trainer.seconds):
            _judge(trainer, folder, on_log)
            sheets.last = trainer.seconds = before + trainer.worked - started
    _save(trainer, folder / CHECKPOINT, targets)
    _log(folder, on_log, {**_reached(trainer), "overall_img_per_s": _speed(trainer, first)})


def _reached(trainer: Trainer) -> dict[str, Any]:
    return {"step": trainer.step, "images": trainer.images, "minutes": round(trainer.seconds / 60.0, 2)}


def _speed(trainer: Trainer, since: tuple[int, float]) -> float:
    """Images per second since (images, seconds)."""
    return round((trainer.images - since[0]) / max(trainer.seconds - since[1], 1e-9), 1)


def _save(trainer: Trainer, checkpoint: Path, targets: list[Path]) -> None:
    trainer.save(checkpoint)
    for target in targets:
        write_weights(trainer.ema, target, step=trainer.step, seconds=trainer.seconds, images=trainer.images)


def _judge(trainer: Trainer, folder: Path, on_log: OnLog | None) -> None:
    """Draw a sample sheet and log the figures of some held-out objects, procedural and real."""
    prior = BundledPrior(copy.deepcopy(trainer.ema)).to(trainer.device)
    judged = {"procedural": procedural_objects(range(24))}
    if trainer.settings.pack is not None:
        judged["real"] = real_objects(ObjectPack(trainer.settings.pack), limit=48)
    scores = {kind: _scores(prior, objects) for kind, objects in judged.items()}
    sample_sheet(prior, folder / f"sheet-{trainer.step:06d}.png", judged[next(reversed(judged))][:12])
    _log(folder, on_log, {"step": trainer.step, "held_out": scores})


def _scores(prior: BundledPrior, objects: Sequence[HeldOut]) -> dict[str, dict[str, float]]:
    figures = held_out_figures(prior, objects, views=3, steps=4)
    return {name: {"psnr": round(score.psnr, 3), "iou": round(score.iou, 4)} for name, score in figures.items()}


def _log(folder: Path, on_log: OnLog | None, record: dict[str, Any]) -> None:
    logger.info("%s", record)
    with (folder / "log.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")
    if on_log is not None:
        on_log(record)


def write_weights(network: BundledNetwork, path: Path, *, step: int = 0, seconds: float = 0.0, images: int = 0) -> None:
    """The network as a safetensors file: fp16 weights; as metadata its settings, and how long it was trained for.

    Written to the side and renamed.
    """
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    tensors = {name: tensor.detach().half().contiguous().cpu() for name, tensor in network.state_dict().items()}
    # One key, because the library writes several ones in no fixed order.
    record = {**network.settings, "trained": {"step": step, "seconds": round(seconds, 1), "images": images}}
    save_file(tensors, str(temporary), metadata={"network": json.dumps(record)})
    temporary.chmod(0o644)
    temporary.replace(path)


def _sharing_weights(network: BundledNetwork) -> BundledNetwork:
    """A copy with the same weight storage and gradients of its own."""
    replica = copy.deepcopy(network)
    for parameter, original in zip(replica.parameters(), network.parameters(), strict=True):
        parameter.data = original.data
    return replica
