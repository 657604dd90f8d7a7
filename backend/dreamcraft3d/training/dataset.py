"""The picture cache: every object of the procedural world seen from the front and from random places, as uint8 files
on disk.

A shard holds OBJECTS consecutive seeds: `views-*.npy` (N x V x 64 x 64 x 4, premultiplied RGBA; view 0 is the
reference) and `poses-*.npy` (N x V x 2: elevation, azimuth in radians). Shards are memory-mapped, so a large world
costs no memory; they are written under a temporary name and renamed, poses last: a shard with poses is complete.
Several processes may add shards.
"""

import logging
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from dreamcraft3d.functional.cameras import orbit
from dreamcraft3d.training.render import render_rgba
from dreamcraft3d.training.shapes import HELD_OUT, WORLD_VERSION, make_object

logger = logging.getLogger(__name__)

SIZE = 64
OBJECTS = 256  # per shard
VIEWS = 7  # per object, the reference among them
ELEVATIONS = (math.radians(-10.0), math.radians(45.0))
FRONT_SHARE = 0.07  # of training targets that are the reference view itself


@dataclass(frozen=True)
class Batch:
    """B training examples: reference and wanted picture, premultiplied RGBA in [0,1].

    `pose` is (elevation, azimuth relative to the reference, elevation of the reference), radians.
    """

    reference: Float[Tensor, "B 4 H W"]
    target: Float[Tensor, "B 4 H W"]
    pose: Float[Tensor, "B 3"]


def draw_object(
    seed: int, *, views: int = VIEWS, size: int = SIZE, supersampling: int = 3
) -> tuple[UInt8[Tensor, "V H W 4"], Float[Tensor, "V 2"]]:
    """Pictures and poses of one seed; azimuths are stratified, elevations uniform, both fixed by the seed."""
    rng = np.random.default_rng([WORLD_VERSION, seed, views])
    thing = make_object(seed)
    bins = np.arange(views - 1) + rng.uniform(0.0, 1.0, views - 1)
    azimuth = np.concatenate([[0.0], bins * (2.0 * np.pi / max(views - 1, 1)) - np.pi])
    elevation = np.concatenate([[thing.elevation], rng.uniform(*ELEVATIONS, views - 1)])
    poses = torch.as_tensor(np.stack([elevation, azimuth], axis=1), dtype=torch.float32)
    rgba = render_rgba(thing.solid, orbit(poses[:, 0], poses[:, 1]), size=size, supersampling=supersampling)
    return (rgba * 255.0 + 0.5).to(torch.uint8), poses


def write_shard(folder: Path, index: int, *, objects: int = OBJECTS, views: int = VIEWS) -> bool:
    """Draws the seeds HELD_OUT + index * objects ... and saves them; false where the shard exists already."""
    pictures, poses = (folder / f"{name}-{index:05d}.npy" for name in ("views", "poses"))
    if poses.exists():
        return False
    folder.mkdir(parents=True, exist_ok=True)
    first = HELD_OUT + index * objects
    drawn = [draw_object(seed, views=views) for seed in range(first, first + objects)]
    for path, tensors in ((pictures, [d[0] for d in drawn]), (poses, [d[1] for d in drawn])):
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        with temporary.open("wb") as file:
            np.save(file, torch.stack(tensors).numpy())
        temporary.replace(path)
    logger.info("shard %d: %d objects, %d views each", index, objects, views)
    return True


def write_shards(folder: Path, indices: Iterable[int]) -> None:
    """Fills the cache with the given shards."""
    for index in indices:
        write_shard(folder, index)


def world_folder(folder: Path) -> Path:
    """Where the cache of this world version lives."""
    return folder / f"world-{WORLD_VERSION}"


class World:
    """The cached pictures as one collection that random batches are drawn from."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: list[str] = []
        self._views: list[NDArray[np.uint8]] = []
        self._poses: list[NDArray[np.float32]] = []
        self.refresh()
        if not self._views:
            raise FileNotFoundError(f"no training pictures in {folder}")

    def __len__(self) -> int:
        return sum(len(poses) for poses in self._poses)

    def refresh(self) -> None:
        """Takes in the shards that were finished since."""
        for path in sorted(self._folder.glob("poses-*.npy")):
            if path.name not in self._names:
                self._names.append(path.name)
                self._poses.append(np.load(path))
                self._views.append(np.load(path.with_name(path.name.replace("poses", "views")), mmap_mode="r"))

    def batch(self, size: int, generator: torch.Generator) -> Batch:
        """Random objects, a random wanted view of each, mirrored and with permuted colour channels at random."""
        draw = torch.rand(size, 5, generator=generator).numpy()
        references: list[Tensor] = []
        targets: list[Tensor] = []
        poses = []
        for shard, item, view, front, mirror in draw:
            k = int(shard * len(self._views))
            pictures, pose = self._views[k], self._poses[k]
            n = int(item * len(pose))
            v = 0 if front < FRONT_SHARE else 1 + int(view * (pose.shape[1] - 1))
            elevation, azimuth = pose[n, v]
            flip = mirror < 0.5
            order = [*torch.randperm(3, generator=generator).tolist(), 3]
            for pile, picture in ((references, pictures[n, 0]), (targets, pictures[n, v])):
                pile.append(torch.from_numpy((picture[:, ::-1] if flip else picture)[..., order].copy()))
            poses.append((elevation, -azimuth if flip else azimuth, pose[n, 0, 0]))
        return Batch(_to_float(references), _to_float(targets), torch.tensor(np.asarray(poses), dtype=torch.float32))


def held_out(seeds: Iterable[int], *, views: int = VIEWS) -> list[Batch]:
    """One batch per seed below HELD_OUT: the reference and every other view of it, unaugmented."""
    batches = []
    for seed in seeds:
        if seed >= HELD_OUT:
            raise ValueError(f"seed {seed} belongs to the training set; held-out seeds are below {HELD_OUT}")
        pictures, poses = draw_object(seed, views=views)
        images = _to_float(list(pictures))
        pose = torch.cat([poses[1:], poses[:1, :1].expand(views - 1, 1)], dim=1)
        batches.append(Batch(images[:1].expand(views - 1, -1, -1, -1), images[1:], pose))
    return batches


def _to_float(pictures: list[Tensor]) -> Float[Tensor, "B 4 H W"]:
    return torch.stack(pictures).permute(0, 3, 1, 2).float() / 255.0
