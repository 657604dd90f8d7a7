"""Trains the bundled prior: diffusion on pictures of procedural objects, within a budget of minutes.

The loss of a wanted view is that of v-prediction written on the clean picture, |x0_hat - x0|^2 min(1 / sigma_t^2, 5),
plus what the lifted view alone gets wrong, in picture and in depth; the loss of a reference is what its estimated
depth and normals get wrong. A reference is encoded once for several wanted views. Three quarters of the timesteps lie
in the range [.2, .95] that distillation and the first steps of sampling ask. AdamW, cosine to zero over the budget,
EMA, 10 % reference dropout for guidance.

On the CPU each worker thread computes the gradient of its share of the batch with one core; the weights are shared
and the gradients added in a fixed order. A barrier per step instead of one per operator is what keeps a shared
machine busy. Convolutions run in bfloat16 where the processor has the instructions for it.

A run is a folder: `world-N/` (cached pictures), `checkpoint.pt` (resumes exactly), `log.jsonl`, `sheet-*.png`,
`bundled.safetensors`. Weights carry the time that they were trained for: where there is no checkpoint, on another
machine, a run can go on from weights with an optimiser of its own.
"""

import argparse
import copy
import json
import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from dreamcraft3d.functional.diffusion import add_noise
from dreamcraft3d.priors.base import Estimate
from dreamcraft3d.priors.bundled import WEIGHTS, BundledPrior
from dreamcraft3d.priors.lifting import Look
from dreamcraft3d.priors.network import BundledNetwork, channels_last, network_of, pose_vector
from dreamcraft3d.training.dataset import OBJECTS, Batch, World, world_folder, write_shard
from dreamcraft3d.training.report import held_out_figures, sample_sheet

logger = logging.getLogger(__name__)

DEFAULT_FOLDER = Path(".cache/prior")
SHARDS = 48  # of 256 objects


@dataclass(frozen=True)
class TrainSettings:
    """How to train. The budget is `minutes` of training in all (over resumes), or `steps` where given (tests).

    A batch is `batch` objects with `targets` wanted views each.
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
    lifted: float = 1.0  # weight of what the lifted view alone gets wrong
    surface: float = 0.1  # weight of estimated depth and normals
    bfloat16: bool | None = None  # convolutions in half the bits; by default where the processor is fast at it
    workers: int = 2
    seed: int = 0
    shards: int = SHARDS
    checkpoint_minutes: float = 5.0
    sheet_minutes: float = 20.0
    log_seconds: float = 30.0


@dataclass(frozen=True)
class _Share:
    """One worker's part of a batch: B references, of which some are `dropped`, T views each with noise drawn."""

    batch: Batch
    dropped: Bool[Tensor, " B"]
    t: Int[Tensor, "B T"]
    noise: Float[Tensor, "B T 4 H W"]


class Trainer:
    """Network, EMA, optimiser and random state of one run."""

    def __init__(self, settings: TrainSettings, *, network: BundledNetwork | None = None, device: str = "cpu") -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.device = settings, torch.device(device)
        self.network = channels_last(network or BundledNetwork()).to(self.device).train()
        self.ema = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=0.0, betas=(0.9, 0.99), weight_decay=settings.weight_decay
        )
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.step, self.seconds = 0, 0.0
        self._cold = 0  # the step at which the optimiser knew nothing
        fast = self.device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())
        self._narrow = fast if settings.bfloat16 is None else settings.bfloat16
        workers = settings.workers if self.device.type == "cpu" else 1
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

    def train_step(self, batch: Batch) -> float:
        """One optimiser step; returns the loss."""
        rate = self.settings.learning_rate * min(1.0, (self.step - self._cold + 1) / self.settings.warm_up)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * 0.5 * (1.0 + math.cos(math.pi * min(self.progress, 1.0)))
        shares = self._shares(batch, len(self._replicas))
        run = self._pool.map if self._pool else map
        losses = list(run(self._backward, self._replicas, shares, [len(s.t) / len(batch.pose) for s in shares]))
        parameters = list(self.network.parameters())
        for replica in self._replicas[1:]:
            for parameter, twin in zip(parameters, replica.parameters(), strict=True):
                if parameter.grad is not None and twin.grad is not None:
                    parameter.grad.add_(twin.grad)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        self.optimiser.step()
        for replica in self._replicas:
            replica.zero_grad(set_to_none=True)
        self.step += 1
        keep = min(self.settings.ema, (1.0 + self.step) / (10.0 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_([*self.ema.parameters()], [*parameters], 1.0 - keep)
        return sum(losses)

    def _shares(self, batch: Batch, count: int) -> list[_Share]:
        objects, targets = batch.pose.shape[:2]
        dropped = torch.rand(objects, generator=self.generator) < self.settings.dropout
        t = draw_timesteps(objects * targets, self.steps_of_noise, self.generator).reshape(objects, targets)
        noise = torch.randn(batch.target.shape, generator=self.generator)
        fields = [tensor.to(self.device).chunk(count) for tensor in (*vars(batch).values(), dropped, t, noise)]
        return [_Share(Batch(*piece[:-3]), *piece[-3:]) for piece in zip(*fields, strict=True)]

    def _backward(self, network: BundledNetwork, share: _Share, weight: float) -> float:
        loss = weight * share_loss(network, share, self.settings, narrow=self._narrow)
        loss.backward()
        return float(loss.detach())

    def save(self, path: Path) -> None:
        """Everything that resuming needs, written to the side and renamed."""
        state = {
            "network": self.network.state_dict(), "settings": self.network.settings, "ema": self.ema.state_dict(),
            "optimiser": self.optimiser.state_dict(), "generator": self.generator.get_state(),
            "step": self.step, "seconds": self.seconds, "cold": self._cold, "training": asdict(self.settings),
        }  # fmt: skip
        temporary = path.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(path)

    def load(self, path: Path) -> None:
        """Goes on where `save` stopped."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.ema.load_state_dict(state["ema"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"].cpu())
        self.step, self.seconds, self._cold = state["step"], state["seconds"], state["cold"]

    def start_from(self, weights: Path) -> None:
        """Goes on from exported weights, and counts the time that they were trained for."""
        prior = BundledPrior.load(weights)
        self.network.load_state_dict(prior.network.state_dict())
        self.ema.load_state_dict(self.network.state_dict())
        self.step, self.seconds = prior.trained
        self._cold = self.step


def share_loss(
    network: BundledNetwork, share: _Share, settings: TrainSettings, *, narrow: bool = False
) -> Float[Tensor, ""]:
    """The mean loss of a share's views and references (see the module's text); `narrow`: convolutions in bfloat16."""
    batch, targets = share.batch, share.t.shape[1]
    pose, t = batch.pose.flatten(0, 1), share.t.flatten()
    reference = torch.where(share.dropped[:, None, None, None], -1.0, 2.0 * batch.reference - 1.0)
    x = 2.0 * batch.target.flatten(0, 1) - 1.0
    x_t = add_noise(x, share.noise.flatten(0, 1), network.alphas_cumprod, t)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=narrow):
        code, estimate = network.encode(reference, batch.pose[:, 0, 2])
    repeated = code.repeat(targets)
    view = network.look(repeated, pose[:, 0], pose[:, 1])
    with torch.autocast(x.device.type, torch.bfloat16, enabled=narrow):
        x0 = network(x_t, t, view, repeated, pose_vector(*pose.unbind(1)))
    noise2 = 1.0 - network.alphas_cumprod[t]
    error = (x0 - x).square().mean((1, 2, 3)) * (1.0 / noise2).clamp(max=5.0)
    kept = (~share.dropped).to(x)
    lifted = view_loss(view, batch) * kept.repeat_interleave(targets, 0)
    surface = estimate_loss(estimate, batch) * kept
    total: Tensor = error.mean() + settings.lifted * lifted.mean() + settings.surface * surface.mean()
    return total


def view_loss(view: Look, batch: Batch) -> Float[Tensor, " N"]:
    """What lifted views get wrong: squared error of x = 2 rgba - 1 plus that of depth (world units) times opacity."""
    size = view.rgba.shape[-1]
    target = functional.adaptive_avg_pool2d(batch.target.flatten(0, 1), size)
    depth, solid = batch.depth.flatten(0, 1), (batch.depth.flatten(0, 1) > 0.0).to(target)
    cover = functional.adaptive_avg_pool2d(solid, size)
    away = functional.adaptive_avg_pool2d(depth, size) / cover.clamp_min(1e-6)
    off = (view.depth - away * view.rgba[:, 3:]).square() * (cover > 0.5)
    colour: Float[Tensor, " N"] = 4.0 * (view.rgba - target).square().mean((1, 2, 3)) + 4.0 * off.mean((1, 2, 3))
    return colour


def estimate_loss(estimate: Estimate, batch: Batch) -> Float[Tensor, " B"]:
    """Mean over the object of |depth error| (world units) and of 1 - cosine of the normals."""
    inside = (batch.reference[:, 3:] > 0.5).to(estimate.depth)
    depth = (estimate.depth - batch.reference_depth).abs()
    angle = 1.0 - (estimate.normal * batch.normal).sum(1, keepdim=True)
    mean: Float[Tensor, " B"] = ((4.0 * depth + angle) * inside).sum((1, 2, 3)) / inside.sum((1, 2, 3)).clamp_min(1.0)
    return mean


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
    on_log: Callable[[dict[str, Any]], None] | None = None,
) -> Path:
    """Trains within the budget and returns the path of the exported weights (EMA, fp16).

    Args:
        minutes: of work in all (see `Trainer.worked`); a resumed run counts what it has used before.
        resume: go on from `folder`/checkpoint.pt where there is one.
        start: weights to go on from where there is no checkpoint.
        folder: pictures (drawn first where missing), checkpoint, log and sheets.
        export: a second place for the weights, renewed at every checkpoint.
        settings: everything else; its `minutes` give way to the argument.
        on_log: receives each log record: {"objects"} while pictures are drawn, then {"step", "images", "loss",
            "img_per_s", "minutes"}, and at times held-out figures.
    """
    settings = TrainSettings(**{**asdict(settings or TrainSettings()), "minutes": minutes})
    cache = world_folder(folder)
    for index in range(settings.shards):
        if write_shard(cache, index) and on_log is not None:
            on_log({"objects": (index + 1) * OBJECTS})
    trainer, checkpoint = Trainer(settings, device=device), folder / "checkpoint.pt"
    if resume and checkpoint.exists():
        trainer.load(checkpoint)
    elif start is not None:
        trainer.start_from(start)
    if trainer.step:
        logger.info("resuming at step %d, %.1f minutes", trainer.step, trainer.seconds / 60.0)
    targets = [folder / WEIGHTS, *([export] if export else [])]
    _loop(trainer, World(cache), folder, targets, on_log)
    return targets[0]


def _loop(
    trainer: Trainer, world: World, folder: Path, targets: list[Path], on_log: Callable[[dict[str, Any]], None] | None
) -> None:
    settings, checkpoint = trainer.settings, folder / "checkpoint.pt"
    images = settings.batch * settings.targets
    started, before = trainer.worked, trainer.seconds
    logged = sheeted = before
    saved = time.monotonic()
    losses: list[float] = []
    first = trainer.step
    while trainer.progress < 1.0:
        losses.append(trainer.train_step(world.batch(settings.batch, trainer.generator, targets=settings.targets)))
        trainer.seconds = before + trainer.worked - started
        if trainer.seconds - logged >= settings.log_seconds:
            speed = images * (trainer.step - first) / (trainer.seconds - logged)
            _log(folder, on_log, {
                "step": trainer.step, "images": trainer.step * images,
                "loss": round(sum(losses) / len(losses), 5),
                "img_per_s": round(speed, 1), "minutes": round(trainer.seconds / 60.0, 2),
            })  # fmt: skip
            logged, losses, first = trainer.seconds, [], trainer.step
        if time.monotonic() - saved >= 60.0 * settings.checkpoint_minutes:
            _save(trainer, checkpoint, targets)
            world.refresh()
            saved = time.monotonic()
        if trainer.seconds - sheeted >= 60.0 * settings.sheet_minutes:
            _judge(trainer, folder, on_log)
            sheeted = trainer.seconds = before + trainer.worked - started
    _save(trainer, checkpoint, targets)


def _save(trainer: Trainer, checkpoint: Path, targets: list[Path]) -> None:
    trainer.save(checkpoint)
    for target in targets:
        write_weights(trainer.ema, target, step=trainer.step, seconds=trainer.seconds)


def _judge(trainer: Trainer, folder: Path, on_log: Callable[[dict[str, Any]], None] | None) -> None:
    """Draws a sample sheet and logs the figures of a few held-out objects."""
    prior = BundledPrior(copy.deepcopy(trainer.ema)).to(trainer.device)
    sample_sheet(prior, folder / f"sheet-{trainer.step:06d}.png")
    figures = held_out_figures(prior, range(24), views=2, steps=8)
    scores = {name: {"psnr": round(score.psnr, 3), "iou": round(score.iou, 4)} for name, score in figures.items()}
    _log(folder, on_log, {"step": trainer.step, "held_out": scores})


def _log(folder: Path, on_log: Callable[[dict[str, Any]], None] | None, record: dict[str, Any]) -> None:
    logger.info("%s", record)
    with (folder / "log.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")
    if on_log is not None:
        on_log(record)


def write_weights(network: BundledNetwork, path: Path, *, step: int = 0, seconds: float = 0.0) -> None:
    """The network as a safetensors file: fp16 weights; as metadata its settings, and how long it was trained for.

    Written to the side and renamed.
    """
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    tensors = {name: tensor.detach().half().contiguous().cpu() for name, tensor in network.state_dict().items()}
    # One key, because the library writes several ones in no fixed order.
    record = {**network.settings, "trained": {"step": step, "seconds": round(seconds, 1)}}
    save_file(tensors, str(temporary), metadata={"network": json.dumps(record)})
    temporary.chmod(0o644)
    temporary.replace(path)


def export_weights(checkpoint: Path, path: Path) -> Path:
    """The EMA weights of a checkpoint as a file that `BundledPrior.load` reads."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    network = network_of(state["settings"])
    network.load_state_dict(state["ema"])
    write_weights(network, path, step=state["step"], seconds=state["seconds"])
    return path


def _sharing_weights(network: BundledNetwork) -> BundledNetwork:
    """A copy with the same weight storage and gradients of its own."""
    twin = copy.deepcopy(network)
    for parameter, original in zip(twin.parameters(), network.parameters(), strict=True):
        parameter.data = original.data
    return twin


def main() -> None:
    """`python -m dreamcraft3d.training.train`: trains, or only exports a checkpoint."""
    parser = argparse.ArgumentParser(description="train the bundled prior")
    parser.add_argument("--minutes", type=float, default=90.0)
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER)
    parser.add_argument("--export", type=Path, help="where the weights go, at every checkpoint")
    parser.add_argument(
        "--export-only", action="store_true", help="write the checkpoint's weights to --export and stop"
    )
    parser.add_argument("--fresh", action="store_true", help="do not resume")
    parser.add_argument("--start", type=Path, help="weights to go on from where there is no checkpoint")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if arguments.export_only:
        export_weights(arguments.folder / "checkpoint.pt", arguments.export)
        return
    settings = TrainSettings(workers=arguments.workers)
    train(minutes=arguments.minutes, resume=not arguments.fresh, folder=arguments.folder, start=arguments.start,
          export=arguments.export, settings=settings)  # fmt: skip


if __name__ == "__main__":
    main()
