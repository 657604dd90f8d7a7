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
import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
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
TINTED = 0.5  # share of the objects whose colours are changed
GAIN, LIFT = 0.3, 0.15  # by up to so much, each channel by itself
UNTINTED: Float[Tensor, "3 2"] = torch.tensor([[1.0, 0.0]] * 3)
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
    if shard_exists(folder, index):
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


def shard_exists(folder: Path, index: int) -> bool:
    """Whether a shard is complete."""
    return (folder / f"poses-{index:05d}.npy").exists()


@contextmanager
def drawing_beside(
    folder: Path, indices: Sequence[int], *, writers: int, objects: int = OBJECTS
) -> Iterator[list[BaseProcess]]:
    """Draws the given shards, in their order, in `writers` processes beside the block.

    What is unfinished when the block ends is given up: the processes are ended, and half-written files removed.
    """
    draw_object(HELD_OUT, views=2, size=8)  # Warp compiles its kernels now and once, not N times at the same time
    folder.mkdir(parents=True, exist_ok=True)
    spawn = multiprocessing.get_context("spawn")
    shares = [list(indices[k::writers]) for k in range(min(writers, len(indices)))]
    processes: list[BaseProcess] = [
        spawn.Process(target=_write_alone, args=(folder, share, objects), daemon=True) for share in shares
    ]
    try:
        with _hidden_card():
            for process in processes:
                process.start()
        yield processes
    finally:
        _end([process for process in processes if process.pid is not None], folder)


def _write_alone(folder: Path, indices: list[int], objects: int) -> None:
    """What a writer process does, on one core, until it is done or alone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its writers
    if hasattr(os, "nice"):
        os.nice(10)  # the one thread that feeds a card goes first
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    for index in indices:
        if parent is None or not parent.is_alive():
            return
        write_shard(folder, index, objects=objects)


@contextmanager
def _hidden_card() -> Iterator[None]:
    """Processes that are started meanwhile see no card. Set before they start: an import of theirs may look for one."""
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


def world_folder(folder: Path) -> Path:
    """Where the cache of this world version lives."""
    return folder / f"world-{WORLD_VERSION}"


class World:
    """The cached pictures as one collection that random batches are drawn from."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: set[str] = set()
        self._shards: list[dict[str, NDArray[Any]]] = []  # N x V x H x W pictures, mapped
        self._poses = np.empty((0, 0, 2), np.float32)  # of all objects: they are small
        self._ends = np.empty(0, np.int64)  # where shards end in it
        self.refresh()
        if not self._shards:
            raise FileNotFoundError(f"no training pictures in {folder}")

    def __len__(self) -> int:
        return len(self._poses)

    def refresh(self) -> None:
        """Takes in the shards that were finished since."""
        poses = [self._poses] if self._shards else []
        for path in sorted(self._folder.glob("poses-*.npy")):
            if path.name not in self._known:
                pictures = {name: path.with_name(path.name.replace("poses", name)) for name in FILES[:-1]}
                self._shards.append({name: _mapped(file) for name, file in pictures.items()})
                poses.append(np.load(path))
                self._known.add(path.name)
        if len(self._shards) > len(self._ends):
            self._poses = np.concatenate(poses)
            self._ends = np.cumsum([len(shard["views"]) for shard in self._shards])

    def batch(
        self, objects: int, generator: torch.Generator, *, targets: int = 1, device: torch.device | str = "cpu"
    ) -> Batch:
        """Random objects and `targets` different views of each (sometimes the reference among them), mirrored, with
        permuted colour channels and other colours at random. The generator is one of the CPU; the batch lies on
        `device`."""
        total, views = self._poses.shape[:2]
        chosen = torch.randint(total, (objects,), generator=generator)
        wanted = torch.rand(objects, views, generator=generator).argsort(1)[:, :targets]
        order = torch.rand(objects, 3, generator=generator).argsort(1)
        mirror = torch.rand(objects, generator=generator) < 0.5
        picked = torch.cat([torch.zeros_like(wanted[:, :1]), wanted], dim=1)
        stored = self._stored(chosen.numpy(), picked.numpy(), pinned=torch.device(device).type != "cpu")
        return examples(Raw(*stored, order, mirror, _tints(objects, generator)).to(torch.device(device)))

    def _stored(
        self, chosen: NDArray[np.int64], picked: NDArray[np.int64], *, pinned: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The first four fields of `Raw`: B objects, the P views `picked` of each."""
        shard = np.searchsorted(self._ends, chosen, side="right")
        first = np.concatenate([[0], self._ends])[shard]
        rows = [(self._shards[s], n) for s, n in zip(shard.tolist(), (chosen - first).tolist(), strict=True)]
        seen = [(files, n, view) for (files, n), each in zip(rows, picked.tolist(), strict=True) for view in each]
        views = _stacked([files["views"][n, view] for files, n, view in seen], pinned=pinned)
        depth = _stacked([files["depth"][n, view] for files, n, view in seen], pinned=pinned)
        normals = _stacked([files["normals"][n] for files, n in rows], pinned=pinned)
        poses = torch.from_numpy(self._poses[chosen[:, None], picked])
        return views.unflatten(0, picked.shape), depth.unflatten(0, picked.shape), normals, poses


def held_out(seeds: Iterable[int], *, views: int = VIEWS) -> list[Batch]:
    """One batch per seed below HELD_OUT: the reference and every other view of it, unaugmented."""
    batches = []
    for seed in seeds:
        if seed >= HELD_OUT:
            raise ValueError(f"seed {seed} belongs to the training set; held-out seeds are below {HELD_OUT}")
        drawn = draw_object(seed, views=views)
        stored = (drawn.views[None], drawn.depth[None], drawn.normals[None], drawn.poses[None])
        batches.append(examples(Raw(*stored, torch.arange(3)[None], torch.zeros(1, dtype=torch.bool), UNTINTED[None])))
    return batches


@dataclass(frozen=True)
class Raw:
    """What is stored of B objects, P views each with the reference first, and how it is to be varied: the `order` of
    the colour channels, whether to `mirror`, and a `tint` (gain and lift of each channel) of all views alike."""

    views: UInt8[Tensor, "B P H W 4"]
    depth: UInt8[Tensor, "B P H W"]
    normals: UInt8[Tensor, "B H W 3"]
    poses: Float[Tensor, "B P 2"]
    order: Int[Tensor, "B 3"]
    mirror: Bool[Tensor, " B"]
    tint: Float[Tensor, "B 3 2"]

    def to(self, device: torch.device) -> "Raw":
        """The same on another device."""
        return Raw(*(sent(tensor, device) for tensor in vars(self).values()))


def examples(raw: Raw) -> Batch:
    """What a network is trained on, of what is stored; computed where the stored pictures lie."""
    channels = torch.cat([raw.order, torch.full_like(raw.order[:, :1], 3)], dim=1)[:, None, :, None, None]
    shape = raw.views.shape
    rgba = raw.views.permute(0, 1, 4, 2, 3).gather(2, channels.expand(-1, shape[1], -1, shape[2], shape[3]))
    rgba, levels = (_mirrored(stored, raw.mirror).float() for stored in (rgba, raw.depth[:, :, None]))
    rgba = _tinted(rgba / 255.0, raw.tint)
    depth = torch.where(levels > 0.0, NEAR + (levels - 1.0) / 254.0 * (FAR - NEAR), 0.0)
    side = torch.where(raw.mirror, -1.0, 1.0)
    normal = _mirrored(raw.normals.permute(0, 3, 1, 2), raw.mirror).float() / 127.5 - 1.0
    normal = torch.nn.functional.normalize(normal, dim=1) * (rgba[:, 0, 3:] > 0.0)
    normal = torch.cat([normal[:, :1] * side[:, None, None, None], normal[:, 1:]], dim=1)
    elevation, azimuth = raw.poses.unbind(-1)
    pose = [elevation[:, 1:], azimuth[:, 1:] * side[:, None], elevation[:, :1].expand_as(elevation[:, 1:])]
    return Batch(rgba[:, 0], depth[:, 0], normal, rgba[:, 1:], depth[:, 1:], torch.stack(pose, dim=-1))


def _tints(objects: int, generator: torch.Generator) -> Float[Tensor, "B 3 2"]:
    """Gain and lift of the colours; of half the objects none."""
    drawn = UNTINTED + (2.0 * torch.rand(objects, 3, 2, generator=generator) - 1.0) * torch.tensor([GAIN, LIFT])
    return torch.where((torch.rand(objects, generator=generator) < TINTED)[:, None, None], drawn, UNTINTED)


def _tinted(rgba: Float[Tensor, "B P 4 H W"], tint: Float[Tensor, "B 3 2"]) -> Float[Tensor, "B P 4 H W"]:
    """Straight colours c become clamp(gain c + lift); the pictures are premultiplied."""
    gain, lift = (part[:, None, :, None, None] for part in tint.unbind(-1))
    opacity = rgba[:, :, 3:]
    colour = torch.minimum((rgba[:, :, :3] * gain + opacity * lift).clamp_min(0.0), opacity)
    return torch.cat([colour, opacity], dim=2)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`. From pinned memory, so that a card goes on with its work meanwhile."""
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def _mirrored(pictures: Tensor, mirror: Bool[Tensor, " B"]) -> Tensor:
    """Left and right exchanged (the last axis) where wanted."""
    return torch.where(mirror.reshape(-1, *[1] * (pictures.ndim - 1)), pictures.flip(-1), pictures)


def _mapped(path: Path) -> NDArray[Any]:
    """A `.npy` file mapped into memory. numpy's own maps keep a file descriptor each; hundreds of shards would use up
    what a process is allowed."""
    header: np.memmap[Any, Any] = np.load(path, mmap_mode="r")
    size = header.offset + header.nbytes
    whole = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
    stored: NDArray[Any] = whole.numpy()[header.offset :].view(header.dtype).reshape(header.shape)
    return stored


def _stacked(rows: list[NDArray[np.uint8]], *, pinned: bool) -> UInt8[Tensor, "N ..."]:
    """Rows copied once, straight into the memory that a card reads from where `pinned`."""
    whole = torch.empty(len(rows), *rows[0].shape, dtype=torch.uint8, pin_memory=pinned)
    np.stack(rows, out=whole.numpy())
    return whole


def _to_bytes(share: Tensor) -> UInt8[Tensor, "..."]:
    return (share * 255.0 + 0.5).to(torch.uint8)
