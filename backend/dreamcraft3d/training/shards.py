"""The picture cache: drawn examples as uint8 files on disk, written by one or more processes.

A shard holds EXAMPLES of one kind, real or procedural: an array `KIND-NUMBER.FIELD.npy` for each field of
`drawing.Drawn`. Shards are memory-mapped, so that a large training set costs no memory; files are written under a
temporary name and renamed, `cameras` last: a shard with cameras is complete.
"""

import logging
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cached_property
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from dreamcraft3d.errors import InputError
from dreamcraft3d.training.drawing import VIEWS, Drawn, procedural_example, real_example
from dreamcraft3d.training.objects import ObjectPack
from dreamcraft3d.training.shapes import HELD_OUT

logger = logging.getLogger(__name__)

Kind = Literal["real", "procedural"]
EXAMPLES = 64  # per shard
FIELDS = tuple(field.name for field in fields(Drawn))  # cameras last: they complete a shard


@dataclass(frozen=True)
class Source:
    """Where examples come from: procedural seeds from HELD_OUT on, and the training objects of a pack (if any)."""

    pack: Path | None = None
    examples: int = EXAMPLES
    views: int = VIEWS

    @cached_property
    def _pack(self) -> ObjectPack:
        if self.pack is None:
            raise ValueError("there is no pack of real objects")
        pack = ObjectPack(self.pack)
        if not pack.chosen(held_out=False):
            raise InputError(f"{self.pack.name} has no objects to train on.", "Give another pack, or none.")
        return pack

    def drawn(self, kind: Kind, number: int) -> Drawn:
        """Example `number` of a kind; for ever the same. All real objects come in turn, in an order of their own."""
        if kind == "procedural":
            return procedural_example(HELD_OUT + number, views=self.views)
        things = self._pack.chosen(held_out=False)
        turn, place = divmod(number, len(things))
        order = np.random.default_rng([turn]).permutation(len(things))
        return real_example(self._pack, things[order[place]], number, views=self.views)


@dataclass(frozen=True, order=True)
class Shard:
    """One shard's name."""

    number: int
    kind: Kind

    def file(self, folder: Path, field: str) -> Path:
        """Where one of its arrays lies."""
        return folder / f"{self.kind}-{self.number:05d}.{field}.npy"

    def exists(self, folder: Path) -> bool:
        """Whether it is complete."""
        return self.file(folder, FIELDS[-1]).exists()


def shards_of(source: Source, count: int, *, first: int = 0) -> list[Shard]:
    """`count` shards from number `first` on, real and procedural ones in turn where there is a pack."""
    kinds: tuple[Kind, ...] = ("real", "procedural") if source.pack else ("procedural",)
    return [Shard(first + index // len(kinds), kinds[index % len(kinds)]) for index in range(count)]


def write_shard(folder: Path, shard: Shard, source: Source) -> bool:
    """Draw a shard and save it; false where it exists already."""
    if shard.exists(folder):
        return False
    folder.mkdir(parents=True, exist_ok=True)
    start = shard.number * source.examples
    drawn = [source.drawn(shard.kind, number) for number in range(start, start + source.examples)]
    for name in FIELDS:
        target = shard.file(folder, name)
        temporary = target.with_suffix(f".{os.getpid()}.tmp")
        with temporary.open("wb") as file:
            np.save(file, torch.stack([getattr(each, name) for each in drawn]).numpy())
        temporary.replace(target)
    logger.info("%s shard %d: %d examples", shard.kind, shard.number, source.examples)
    return True


@contextmanager
def drawing_beside(
    folder: Path, shards: Sequence[Shard], source: Source, *, writers: int
) -> Iterator[list[BaseProcess]]:
    """Draw the given shards, in their order, in `writers` processes beside the block.

    What is unfinished when the block ends is given up: the processes are ended, and half-written files removed.
    """
    procedural_example(HELD_OUT, views=1)  # Warp compiles its kernels now and once, not N times at the same time
    folder.mkdir(parents=True, exist_ok=True)
    spawn = multiprocessing.get_context("spawn")
    shares = [list(shards[k::writers]) for k in range(min(writers, len(shards)))]
    processes: list[BaseProcess] = [
        spawn.Process(target=_write_alone, args=(folder, share, source), daemon=True) for share in shares
    ]
    try:
        with _hidden_gpu():
            for process in processes:
                process.start()
        yield processes
    finally:
        _end([process for process in processes if process.pid is not None], folder)


def _write_alone(folder: Path, shards: list[Shard], source: Source) -> None:
    """What a writer process does, on one core, until it is done or alone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its writers
    if hasattr(os, "nice"):
        os.nice(10)  # the one thread that feeds a GPU goes first
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    for shard in shards:
        if parent is None or not parent.is_alive():
            return
        write_shard(folder, shard, source)


@contextmanager
def _hidden_gpu() -> Iterator[None]:
    """Processes that are started meanwhile see no GPU. Set before they start: an import of theirs may look for one."""
    name = "CUDA_VISIBLE_DEVICES"
    before = os.environ.get(name)
    os.environ[name] = ""
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def _end(processes: list[BaseProcess], folder: Path) -> None:
    for process in processes:
        if process.exitcode not in (None, 0):
            logger.warning("a process that drew training pictures has failed (exit code %d)", process.exitcode)
        process.terminate()
    for process in processes:
        process.join(5.0)
        if process.is_alive():
            process.kill()
            process.join()
        for temporary in folder.glob(f"*.{process.pid}.tmp"):
            temporary.unlink(missing_ok=True)
