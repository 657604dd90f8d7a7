"""Which priors are where: loaded when a stage first needs them, on the card only while it does.

A stage names its two priors; all others wait in main memory meanwhile, so that the card holds one stage's priors and
not the sum of all. When memory still runs out, priors that can are asked to use less (`Frugal`).
"""

from collections.abc import Callable, Iterable
from typing import Protocol, runtime_checkable

import torch

from dreamcraft3d.priors.base import DiffusionPrior

__all__ = ["FixedPriors", "Frugal", "LoadedPriors", "Movable", "Names", "Pair", "Shelf"]

Names = tuple[str | None, str | None]
"""(3D-aware prior, 2D prior) by name; see `GenerateConfig.priors_of`."""
Pair = tuple[DiffusionPrior | None, DiffusionPrior | None]


@runtime_checkable
class Movable(Protocol):
    """A prior whose networks can be moved between devices."""

    def to(self, device: torch.device | str) -> object:
        """Moves all networks."""
        ...


@runtime_checkable
class Frugal(Protocol):
    """A prior that can work in less memory, at the cost of time."""

    def save_memory(self) -> bool:
        """Takes the next measure (checkpointing, slices, parts of it in main memory); False if there is none left."""
        ...


class Shelf(Protocol):
    """Where a run takes its priors from."""

    def pair(self, names: Names) -> Pair:
        """The priors of a stage, ready for work."""
        ...

    def save_memory(self, names: Names) -> bool:
        """Asks these priors to use less memory; False if none of them can."""
        ...

    def all(self) -> Iterable[DiffusionPrior]:
        """All priors in use so far."""
        ...

    def titles(self, names: Iterable[str]) -> list[str]:
        """What the report calls the priors of these names."""
        ...


class FixedPriors:
    """Two priors that are there already and stay where they are, whatever a stage names."""

    def __init__(self, view: DiffusionPrior | None, image: DiffusionPrior | None = None) -> None:
        self._pair = view, image

    def pair(self, names: Names) -> Pair:
        return self._pair

    def save_memory(self, names: Names) -> bool:
        return _any_saves(self.all())

    def all(self) -> list[DiffusionPrior]:
        return [prior for prior in self._pair if prior is not None]

    def titles(self, names: Iterable[str]) -> list[str]:
        return [prior.name for prior in self.all()]


class LoadedPriors:
    """Priors by name, loaded at their first use.

    Args:
        load: makes a prior, in main memory. device: where the priors of the present stage are.
        frugal: priors take every measure that saves memory at once, not only when it runs out.
    """

    def __init__(
        self,
        load: Callable[[str], DiffusionPrior],
        device: torch.device | str = "cpu",
        *,
        frugal: bool = False,
    ) -> None:
        self._load, self._device = load, torch.device(device)
        self._frugal = frugal
        self._loaded: dict[str, DiffusionPrior] = {}

    def pair(self, names: Names) -> Pair:
        """Makes room first: the others leave the card before these are brought."""
        for name, prior in self._loaded.items():
            if name not in names:
                self._move(prior, torch.device("cpu"))
        view, image = (None if name is None else self._ready(name) for name in names)
        return view, image

    def save_memory(self, names: Names) -> bool:
        return _any_saves(prior for name, prior in self._loaded.items() if name in names)

    def all(self) -> list[DiffusionPrior]:
        return list(self._loaded.values())

    def titles(self, names: Iterable[str]) -> list[str]:
        return list(names)

    def _ready(self, name: str) -> DiffusionPrior:
        if name not in self._loaded:
            prior = self._loaded[name] = self._load(name)
            while self._frugal and _any_saves([prior]):
                pass
        self._move(self._loaded[name], self._device)
        return self._loaded[name]

    def _move(self, prior: DiffusionPrior, device: torch.device) -> None:
        subject: object = prior
        if self._device.type != "cpu" and isinstance(subject, Movable):
            subject.to(device)


def _any_saves(priors: Iterable[object]) -> bool:
    """Every prior takes its next measure."""
    taken = [prior.save_memory() for prior in priors if isinstance(prior, Frugal)]
    return any(taken)
