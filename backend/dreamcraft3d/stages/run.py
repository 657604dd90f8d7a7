"""How a stage runs its loop: steps that can be cancelled, resumed and rolled back.

Everything random in a step comes from a generator seeded by (seed, stage, step), so a resumed run takes the same steps
as one that was never stopped. A checkpoint is one safetensors file of everything that a step reads and changes.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreamcraft3d.errors import Cancelled, ObjectLost
from dreamcraft3d.progress import Progress
from dreamcraft3d.workspace import atomic_path

logger = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 30.0
MAX_ROLLBACKS = 3
WEAK_VIEWS = -4
"""The "step" whose random numbers the weak reference views are drawn with."""
VIEW_POOL = -5
"""The "step" whose random numbers the texture stage's pool of novel views is drawn with."""
State = dict[str, Tensor]


class Stateful(Protocol):
    """Modules, optimisers and grids alike."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Any) -> Any: ...


@dataclass
class StageRun:
    """One stage's run: its name, seed, checkpoint file, and what has to be saved in it.

    Attributes:
        checkpoint: file of the way's state; None keeps nothing (tests, ablations).
        meter: prior evaluations made so far by this process; the stage's own count survives a resume.
        draw: a PNG of the stage's parts, for live previews.
    """

    name: str
    seed: int
    progress: Progress
    checkpoint: Path | None = None
    meter: Callable[[], int] = int
    draw: Callable[[dict[str, Any]], bytes] | None = None
    _parts: dict[str, Stateful] = field(default_factory=dict)
    _good: tuple[int, State] | None = None
    _rollbacks: int = 0
    _before: tuple[float, int] = (0.0, 0)
    _started: float = 0.0
    _metered: int = 0

    def __post_init__(self) -> None:
        self._started, self._metered = time.monotonic(), self.meter()

    @property
    def seconds(self) -> float:
        """Time spent in this stage, earlier interrupted runs included."""
        return self._before[0] + time.monotonic() - self._started

    @property
    def evaluations(self) -> int:
        """Prior evaluations (images) of this stage, earlier interrupted runs included."""
        return self._before[1] + self.meter() - self._metered

    def generator(self, step: int = -1) -> torch.Generator:
        """Random numbers of one step (-1: of the stage's beginning), the same in every run with this seed."""
        digest = hashlib.sha256(f"{self.seed}/{self.name}/{step}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))

    def steps(self, total: int, **parts: Stateful) -> Iterator[int]:
        """The steps still to do. Restores `parts` from the checkpoint, and saves them on the way, at the end of every
        `CHECKPOINT_SECONDS` and when the user cancels.
        """
        self._parts = parts
        start = self._restore()
        self._good = (start, _clone(self._state()))
        saved = time.monotonic()
        following = start
        try:
            for step in self.progress.track(self.name, range(start, total), total):
                if time.monotonic() - saved > CHECKPOINT_SECONDS:
                    self._save(step)
                    saved = time.monotonic()
                self._offer_preview()
                yield step
                following = step + 1
        except Cancelled:
            self._save(following)
            raise

    def _offer_preview(self) -> None:
        draw, parts = self.draw, self._parts
        if self.progress.preview is not None and draw is not None:
            self.progress.preview(self.name, lambda: draw(dict(parts)))

    def keep_if_healthy(self, step: int, healthy: bool, *, reason: str) -> bool:
        """Remembers a healthy state, or returns to the last one (and says so). Returns `healthy`.

        Raises:
            ObjectLost: when going back has not helped `MAX_ROLLBACKS` times.
        """
        if healthy:
            self._good = (step, _clone(self._state()))
            return True
        self._rollbacks += 1
        if self._good is None or self._rollbacks > MAX_ROLLBACKS:
            raise ObjectLost(
                f"The {self.name} stage lost the object at step {step}: {reason}.",
                remedy="Try another --seed, or check the mask of the reference picture.",
            )
        self.progress.warn(f"{self.name}: {reason} at step {step}; going back to the state of step {self._good[0]}.")
        self._load(self._good[1])
        return False

    def _state(self) -> State:
        return {f"{name}/{key}": t for name, part in self._parts.items() for key, t in flatten(part.state_dict())}

    def _save(self, step: int) -> None:
        if self.checkpoint is None:
            return
        state = {key: t.cpu().contiguous() for key, t in _clone(self._state()).items()}
        with atomic_path(self.checkpoint) as path:
            book = torch.tensor([float(step), self.seconds, float(self.evaluations)], dtype=torch.float64)
            save_file({**state, "book": book}, path)

    def resumes(self) -> bool:
        """Whether there is a checkpoint to go on from: what a stage does before its first step is then done already.

        A checkpoint that cannot be read is as good as none; it is removed, with a warning.
        """
        if self.checkpoint is None or not self.checkpoint.exists():
            return False
        try:
            return "book" in load_file(self.checkpoint)
        except (SafetensorError, OSError) as error:
            self.progress.warn(f"{self.name}: the checkpoint cannot be used ({error}); starting the stage again.")
            self.checkpoint.unlink(missing_ok=True)
            return False

    def _restore(self) -> int:
        """The step to go on from."""
        if self.checkpoint is None or not self.resumes():
            return 0
        state = load_file(self.checkpoint)
        step, seconds, evaluations = state.pop("book").tolist()
        self._load(state)
        self._before = (seconds, int(evaluations))
        self.progress.note(f"{self.name}: going on from step {int(step)}.")
        return int(step)

    def _load(self, state: State) -> None:
        for name, part in self._parts.items():
            part.load_state_dict(unflatten(state, name, part.state_dict()))


def adam(parameters: Iterable[Any], *, lr: float = 1e-3, eps: float = 1e-8) -> torch.optim.Optimizer:
    """Return Adam with beta = (0.9, 0.99) for parameters, or groups of them with learning rates of their own.

    On the CPU in its fused form: one pass over a hash table and its moments instead of about ten, which is 27 of the
    75 ms of a texture step (2.5 million parameters).
    """
    groups = list(parameters)
    members = [p for group in groups for p in (group["params"] if isinstance(group, dict) else [group])]
    fused = all(type(p) is torch.nn.Parameter and p.device.type == "cpu" for p in members)
    return torch.optim.Adam(groups, lr=lr, betas=(0.9, 0.99), eps=eps, fused=fused or None)


def descend(loss: Tensor, optimiser: torch.optim.Optimizer) -> None:
    """One optimiser step; a gradient that is not finite (two grid values that meet at zero, say) moves nothing."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                parameter.grad.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
    optimiser.step()


def _clone(state: State) -> State:
    return {key: t.detach().clone() for key, t in state.items()}


def flatten(state: dict[Any, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of nested dictionaries, under the path of their keys."""
    for key, value in state.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{key}", value
        elif isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}/")


def unflatten(state: State, name: str, present: dict[str, Any]) -> dict[str, Any]:
    """The state dictionary of one part; an optimiser's settings (configuration, not state) stay as at present."""
    flat = {key.removeprefix(f"{name}/"): t.clone() for key, t in state.items() if key.startswith(f"{name}/")}
    if "param_groups" not in present:
        return dict(flat)
    moments: dict[int, State] = {}
    for path, tensor in flat.items():
        _, index, key = path.split("/")
        moments.setdefault(int(index), {})[key] = tensor
    return {"state": moments, "param_groups": present["param_groups"]}
