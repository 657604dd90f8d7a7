"""The picture cache: every object of the procedural world seen from the front and from random places, as uint8 files
on disk.

A shard holds OBJECTS consecutive seeds: `views-*.npy` (N x V x 64 x 64 x 4, premultiplied RGBA; view 0 is the
reference), `depth-*.npy` (N x V x 64 x 64, 0 on the background), `normals-*.npy` (N x 64 x 64 x 3, of the reference
view) and `poses-*.npy` (N x V x 2: elevation, azimuth in radians). Shards are memory-mapped, so a large world costs no
memory; files are written under a temporary name and renamed, poses last: a shard with poses is complete. Several
processes may add shards.
"""

import logging
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from dreamcraft3d.functional.cameras import DISTANCE, orbit
from dreamcraft3d.training.render import render_views
from dreamcraft3d.training.shapes import HELD_OUT, STREAM, WORLD_VERSION, make_object

logger = logging.getLogger(__name__)

SIZE = 64
OBJECTS = 256  # per shard
VIEWS = 8  # per object, the reference among them
ELEVATIONS = (math.radians(-10.0), math.radians(45.0))
FILES = ("views", "depth", "normals", "poses")  # poses last: they complete a shard
NEAR, FAR = DISTANCE - 1.0, DISTANCE + 1.0  # what the 255 levels of stored depth stand for


@dataclass(frozen=True)
class Drawn:
    """One object as it is stored, V views of H x W pixels; `poses` are (elevation, azimuth), radians."""

    views: UInt8[Tensor, "V H W 4"]
    depth: UInt8[Tensor, "V H W"]
    normals: UInt8[Tensor, "H W 3"]
    poses: Float[Tensor, "V 2"]


@dataclass(frozen=True)
class Batch:
    """Training examples of B objects, T wanted views each; pictures are premultiplied RGBA in [0,1].

    `pose` is (elevation, azimuth relative to the reference, elevation of the reference), radians. `depth` is measured
    along the camera axis, 0 on the background. `normal` (unit, view space: x right, y up, z to the viewer) and
    `reference_depth` belong to the reference view.
    """

    reference: Float[Tensor, "B 4 H W"]
    reference_depth: Float[Tensor, "B 1 H W"]
    normal: Float[Tensor, "B 3 H W"]
    target: Float[Tensor, "B T 4 H W"]
    depth: Float[Tensor, "B T 1 H W"]
    pose: Float[Tensor, "B T 3"]


def draw_object(seed: int, *, views: int = VIEWS, size: int = SIZE, supersampling: int = 3) -> Drawn:
    """Pictures and poses of one seed; azimuths are stratified, elevations uniform, both fixed by the seed."""
    rng = np.random.default_rng([STREAM, seed, views])
    thing = make_object(seed)
    bins = np.arange(views - 1) + rng.uniform(0.0, 1.0, views - 1)
    azimuth = np.concatenate([[0.0], bins * (2.0 * np.pi / max(views - 1, 1)) - np.pi])
    elevation = np.concatenate([[thing.elevation], rng.uniform(*ELEVATIONS, views - 1)])
    poses = torch.as_tensor(np.stack([elevation, azimuth], axis=1), dtype=torch.float32)
    cameras = orbit(poses[:, 0], poses[:, 1])
    drawn = render_views(thing.solid, cameras, size=size, supersampling=supersampling)
    levels = ((drawn.depth[..., 0] - NEAR) / (FAR - NEAR) * 254.0 + 1.5).clamp(1.0, 255.0)
    depth = torch.where(drawn.rgba[..., 3] > 0.0, levels, 0.0).to(torch.uint8)
    normals = drawn.normals[0] @ cameras.c2w[0, :3, :3]
    return Drawn(_to_bytes(drawn.rgba), depth, _to_bytes(0.5 * normals + 0.5), poses)


def write_shard(folder: Path, index: int, *, objects: int = OBJECTS, views: int = VIEWS) -> bool:
    """Draws the seeds HELD_OUT + index * objects ... and saves them; false where the shard exists already."""
    if (folder / f"poses-{index:05d}.npy").exists():
        return False
    folder.mkdir(parents=True, exist_ok=True)
    first = HELD_OUT + index * objects
    drawn = [draw_object(seed, views=views) for seed in range(first, first + objects)]
    for name in FILES:
        temporary = folder / f"{name}-{index:05d}.{os.getpid()}.tmp"
        with temporary.open("wb") as file:
            np.save(file, torch.stack([getattr(d, name) for d in drawn]).numpy())
        temporary.replace(folder / f"{name}-{index:05d}.npy")
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
        self._shards: dict[str, dict[str, NDArray[Any]]] = {}
        self.refresh()
        if not self._shards:
            raise FileNotFoundError(f"no training pictures in {folder}")

    def __len__(self) -> int:
        return sum(len(shard["poses"]) for shard in self._shards.values())

    def refresh(self) -> None:
        """Takes in the shards that were finished since."""
        for path in sorted(self._folder.glob("poses-*.npy")):
            if path.name not in self._shards:
                files = {name: path.with_name(path.name.replace("poses", name)) for name in FILES}
                self._shards[path.name] = {name: np.load(file, mmap_mode="r") for name, file in files.items()}

    def batch(self, objects: int, generator: torch.Generator, *, targets: int = 1) -> Batch:
        """Random objects and `targets` different views of each (sometimes the reference among them), mirrored and with
        permuted colour channels at random."""
        shards = list(self._shards.values())
        rows = []
        for shard, item, mirror in torch.rand(objects, 3, generator=generator).tolist():
            files = shards[int(shard * len(shards))]
            n = int(item * len(files["poses"]))
            views = torch.randperm(files["poses"].shape[1], generator=generator)[:targets].tolist()
            order = torch.randperm(3, generator=generator).tolist()
            rows.append(_example({name: file[n] for name, file in files.items()}, views, order, mirror < 0.5))
        return Batch(*(torch.stack(column) for column in zip(*rows, strict=True)))


def held_out(seeds: Iterable[int], *, views: int = VIEWS) -> list[Batch]:
    """One batch per seed below HELD_OUT: the reference and every other view of it, unaugmented."""
    batches = []
    for seed in seeds:
        if seed >= HELD_OUT:
            raise ValueError(f"seed {seed} belongs to the training set; held-out seeds are below {HELD_OUT}")
        drawn = {name: tensor.numpy() for name, tensor in vars(draw_object(seed, views=views)).items()}
        row = _example(drawn, list(range(1, views)), [0, 1, 2], mirror=False)
        batches.append(Batch(*(tensor[None] for tensor in row)))
    return batches


def _example(drawn: dict[str, NDArray[Any]], views: list[int], order: list[int], mirror: bool) -> tuple[Tensor, ...]:
    """The fields of a `Batch` of one object: the given views, colour channels in the given order."""
    picked = [0, *views]
    rgba = torch.from_numpy(drawn["views"][picked][..., [*order, 3]]).permute(0, 3, 1, 2).float() / 255.0
    levels = torch.from_numpy(drawn["depth"][picked])[:, None].float()
    depth = torch.where(levels > 0.0, NEAR + (levels - 1.0) / 254.0 * (FAR - NEAR), 0.0)
    normal = torch.from_numpy(np.array(drawn["normals"])).permute(2, 0, 1).float() / 127.5 - 1.0
    normal = torch.nn.functional.normalize(normal, dim=0) * (rgba[0, 3:] > 0.0)
    poses = torch.from_numpy(np.array(drawn["poses"]))
    pose = torch.cat([poses[views], poses[:1, :1].expand(len(views), 1)], dim=1)
    if mirror:
        rgba, depth = rgba.flip(-1), depth.flip(-1)
        normal = normal.flip(-1) * torch.tensor([-1.0, 1.0, 1.0])[:, None, None]
        pose = pose * torch.tensor([1.0, -1.0, 1.0])
    return rgba[0], depth[0], normal, rgba[1:], depth[1:], pose


def _to_bytes(share: Tensor) -> UInt8[Tensor, "..."]:
    return (share * 255.0 + 0.5).to(torch.uint8)
