"""Random batches of the picture cache (`training.shards`), varied anew each time.

All pictures of an example are mirrored, tinted, or get their colour channels in another order. The reference alone is
then damaged as photographs and their masks are: blur, noise and JPEG, a colour cast, masks that are too wide, too
narrow or ragged.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from numpy.typing import NDArray
from torch import Tensor

from dreamcraft3d.functional.cameras import framing_distance
from dreamcraft3d.training.drawing import DRAWING_VERSION, Drawn, depth_of, occupancy_of, procedural_example
from dreamcraft3d.training.occupancy import PLANES, SIDE
from dreamcraft3d.training.shapes import HELD_OUT, WORLD_VERSION
from dreamcraft3d.training.shards import FIELDS, Kind, Shard

TINTED = 0.5  # share of the examples whose colours are changed
GAIN, LIFT = 0.3, 0.15  # by up to so much, each channel by itself
REORDERED: dict[Kind, float] = {"real": 0.15, "procedural": 0.6}  # share whose colour channels change places
DAMAGED = 0.45  # share of the references that are damaged, in each of several ways
UNTINTED: Float[Tensor, "3 2"] = torch.tensor([[1.0, 0.0]] * 3)


@dataclass(frozen=True)
class Batch:
    """B examples, T wanted views each; pictures are premultiplied RGBA in [0,1].

    Attributes:
        reference: 128 pixels a side. target: 64, as everything else.
        depth, reference_depth: along the camera axis, world units, 0 on the background.
        normal: of the reference, unit, in view space (x right, y up, z to the viewer).
        occupancy: cells of the reference frustum.
        camera: elevation and fovy of the reference. pose: elevation, azimuth, fovy of the wanted views; radians.
    """

    reference: Float[Tensor, "B 4 H W"]
    reference_depth: Float[Tensor, "B 1 h w"]
    normal: Float[Tensor, "B 3 h w"]
    target: Float[Tensor, "B T 4 h w"]
    depth: Float[Tensor, "B T 1 h w"]
    occupancy: Bool[Tensor, "B h w D"]
    camera: Float[Tensor, "B 2"]
    pose: Float[Tensor, "B T 3"]


class TrainingSet:
    """The cached examples of both kinds as one collection that random batches are drawn from."""

    def __init__(self, folder: Path, *, real: float = 0.6) -> None:
        """`real`: share of real objects in a batch, where there are both kinds."""
        self._folder, self._real = folder, real
        self._known: set[Shard] = set()
        self._shards: dict[Kind, list[dict[str, NDArray[Any]]]] = {"real": [], "procedural": []}
        self.refresh()
        if not len(self):
            raise FileNotFoundError(f"no training pictures in {folder}")

    def __len__(self) -> int:
        return sum(len(shard["reference"]) for shards in self._shards.values() for shard in shards)

    def refresh(self) -> None:
        """Take in the shards that were finished since."""
        for path in sorted(self._folder.glob(f"*.{FIELDS[-1]}.npy")):
            kind, _, number = path.name.partition(".")[0].partition("-")
            shard = Shard(int(number), "real" if kind == "real" else "procedural")
            if shard not in self._known:
                self._shards[shard.kind].append({name: _mapped(shard.file(self._folder, name)) for name in FIELDS})
                self._known.add(shard)

    def batch(
        self, examples: int, generator: torch.Generator, *, targets: int = 1, device: torch.device | str = "cpu"
    ) -> Batch:
        """Random examples and `targets` different views of each. The generator is one of the CPU; the batch lies on
        `device`."""
        rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        raw = self._stored(examples, targets, rng, pinned=torch.device(device).type != "cpu")
        return batch_of(raw.to(torch.device(device)))

    def _stored(self, examples: int, targets: int, rng: np.random.Generator, *, pinned: bool) -> "Raw":
        kinds = self._drawn_kinds(examples, rng)
        rows = [self._row(kind, rng) for kind in kinds]
        views = [rng.choice(shard["views"].shape[1], targets, replace=False) for shard, _ in rows]
        stacked = partial(_stacked, pinned=pinned)
        reference = [damaged(shard["reference"][n], rng) for shard, n in rows]
        seen = [(shard, n, [0, *(v + 1)]) for (shard, n), v in zip(rows, views, strict=True)]
        return Raw(
            stacked(reference),
            stacked([shard["views"][n][v] for (shard, n), v in zip(rows, views, strict=True)]),
            stacked([shard["depth"][n][v] for shard, n, v in seen]),
            stacked([shard["normals"][n] for shard, n in rows]),
            stacked([shard["occupancy"][n] for shard, n in rows]),
            torch.from_numpy(np.stack([shard["cameras"][n][v] for shard, n, v in seen])),
            torch.stack([_order(REORDERED[kind], rng) for kind in kinds]),
            torch.from_numpy(rng.random(examples) < 0.5),
            torch.stack([_tint(rng) for _ in kinds]),
        )

    def _drawn_kinds(self, examples: int, rng: np.random.Generator) -> list[Kind]:
        share = self._real if self._shards["procedural"] else 1.0
        share = share if self._shards["real"] else 0.0
        return ["real" if real else "procedural" for real in rng.random(examples) < share]

    def _row(self, kind: Kind, rng: np.random.Generator) -> tuple[dict[str, NDArray[Any]], int]:
        shard = self._shards[kind][int(rng.integers(len(self._shards[kind])))]
        return shard, int(rng.integers(len(shard["reference"])))


def held_out(seeds: Iterable[int], *, wide: bool = False, views: int = 8) -> list[Batch]:
    """One batch for each procedural seed below HELD_OUT: all its views, nothing varied. In the set-up of figures, or
    (`wide`) with lenses, elevations and light of the whole training world."""
    batches = []
    for seed in seeds:
        if seed >= HELD_OUT:
            raise ValueError(f"seed {seed} belongs to the training set; held-out seeds are below {HELD_OUT}")
        batches.append(plain_batch(procedural_example(seed, plain=not wide, views=views)))
    return batches


def plain_batch(drawn: Drawn) -> Batch:
    """One example as it is, with all its views."""
    unvaried = (torch.arange(3), torch.tensor(False), UNTINTED)
    return batch_of(Raw(*(tensor[None] for tensor in (*vars(drawn).values(), *unvaried))))


@dataclass(frozen=True)
class Raw:
    """What is stored of B examples, T wanted views each (see `Drawn`), and how they are to be varied: the `order` of
    the colour channels, whether to `mirror`, and a `tint` (gain and lift of each channel) of all views alike."""

    reference: UInt8[Tensor, "B H W 4"]
    views: UInt8[Tensor, "B T h w 4"]
    depth: UInt8[Tensor, "B T+1 h w"]
    normals: UInt8[Tensor, "B h w 3"]
    occupancy: UInt8[Tensor, "B bytes"]
    cameras: Float[Tensor, "B T+1 3"]
    order: Int[Tensor, "B 3"]
    mirror: Bool[Tensor, " B"]
    tint: Float[Tensor, "B 3 2"]

    def to(self, device: torch.device) -> "Raw":
        """The same on another device."""
        return Raw(*(sent(tensor, device) for tensor in vars(self).values()))


def batch_of(raw: Raw) -> Batch:
    """What a network is trained on, of what is stored; computed where the stored pictures lie."""
    mirror, side = raw.mirror, torch.where(raw.mirror, -1.0, 1.0)
    reference = _varied(raw.reference[:, None], raw)[:, 0]
    levels = _mirrored(raw.depth[:, :, None], mirror)
    distance = framing_distance(raw.cameras[..., 2])[..., None, None, None]
    depth = torch.where(levels > 0, depth_of(levels) + distance, 0.0)
    normal = _mirrored(raw.normals.permute(0, 3, 1, 2), mirror).float() / 127.5 - 1.0
    normal = torch.nn.functional.normalize(normal, dim=1) * (levels[:, 0] > 0)
    normal = torch.cat([normal[:, :1] * side[:, None, None, None], normal[:, 1:]], dim=1)
    cells = occupancy_of(raw.occupancy, SIDE, PLANES).permute(0, 3, 1, 2)
    pose = raw.cameras[:, 1:] * torch.stack([torch.ones_like(side), side, torch.ones_like(side)], dim=1)[:, None]
    return Batch(
        reference, depth[:, 0], normal, _varied(raw.views, raw), depth[:, 1:],
        _mirrored(cells, mirror).permute(0, 2, 3, 1), raw.cameras[:, 0, ::2], pose,
    )  # fmt: skip


def _varied(pictures: UInt8[Tensor, "B T H W 4"], raw: Raw) -> Float[Tensor, "B T 4 H W"]:
    """Colours in another order, mirrored and tinted."""
    order = torch.cat([raw.order, torch.full_like(raw.order[:, :1], 3)], dim=1)[:, None, :, None, None]
    rgba = pictures.permute(0, 1, 4, 2, 3)
    rgba = rgba.gather(2, order.expand(-1, rgba.shape[1], -1, *rgba.shape[3:]))
    return _tinted(_mirrored(rgba, raw.mirror).float() / 255.0, raw.tint)


def _tinted(rgba: Float[Tensor, "B P 4 H W"], tint: Float[Tensor, "B 3 2"]) -> Float[Tensor, "B P 4 H W"]:
    """Straight colours c become clamp(gain c + lift); the pictures are premultiplied."""
    gain, lift = (part[:, None, :, None, None] for part in tint.unbind(-1))
    opacity = rgba[:, :, 3:]
    colour = torch.minimum((rgba[:, :, :3] * gain + opacity * lift).clamp_min(0.0), opacity)
    return torch.cat([colour, opacity], dim=2)


def _order(share: float, rng: np.random.Generator) -> Int[Tensor, "3"]:
    return torch.from_numpy(rng.permutation(3) if rng.random() < share else np.arange(3))


def _tint(rng: np.random.Generator) -> Float[Tensor, "3 2"]:
    """Gain and lift of the colours."""
    drawn = UNTINTED.numpy() + rng.uniform(-1.0, 1.0, (3, 2)) * (GAIN, LIFT)
    return torch.as_tensor(drawn, dtype=torch.float32) if rng.random() < TINTED else UNTINTED


def damaged(rgba: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A reference picture (premultiplied) as a camera and a rough mask would give it; often untouched."""
    if rng.random() >= DAMAGED:
        return rgba
    colour, opacity = _straight(rgba)
    if rng.random() < 0.4:
        colour, opacity = _coarse(colour), _coarse(opacity)
    elif rng.random() < 0.5:
        sigma = float(rng.uniform(0.4, 1.4))
        colour, opacity = cv2.GaussianBlur(colour, (0, 0), sigma), cv2.GaussianBlur(opacity, (0, 0), 0.7 * sigma)
    if rng.random() < 0.5:
        colour = np.clip(colour + rng.normal(0.0, rng.uniform(1.0, 8.0), colour.shape), 0, 255)
    if rng.random() < 0.5:
        colour = _jpeg(colour, int(rng.integers(25, 90)))
    if rng.random() < 0.3:
        colour = np.clip(colour * rng.uniform(0.8, 1.2, 3), 0, 255)
    if rng.random() < 0.4:
        opacity = _rough_mask(opacity, rng)
    mixed = np.concatenate([colour * (opacity[..., None] / 255.0), opacity[..., None]], axis=2)
    whole: NDArray[np.uint8] = np.clip(mixed + 0.5, 0, 255).astype(np.uint8)
    return whole


def _straight(rgba: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Straight colours, spread beyond the object's border, and opacity; 0 to 255."""
    opacity = rgba[..., 3].astype(np.float32)
    near = rgba.astype(np.float32)
    wide = cv2.GaussianBlur(near, (0, 0), 3.0)
    share = np.where(opacity[..., None] > 8.0, near[..., 3:], wide[..., 3:])
    colour = np.where(opacity[..., None] > 8.0, near[..., :3], wide[..., :3]) / np.maximum(share / 255.0, 1e-3)
    return np.minimum(colour, 255.0), opacity


def _coarse(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """The picture with half of its resolution."""
    height, width = picture.shape[:2]
    small = cv2.resize(picture, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    large: NDArray[np.float32] = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    return large


def _jpeg(colour: NDArray[Any], quality: int) -> NDArray[np.float32]:
    _, data = cv2.imencode(".jpg", colour.astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded: NDArray[np.float32] = cv2.imdecode(data, cv2.IMREAD_COLOR).astype(np.float32)
    return decoded


def _rough_mask(opacity: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """The mask with its border moved in or out by up to two pixels, here more, there less."""
    coarse = rng.normal(0.0, 1.0, (8, 8)).astype(np.float32)
    lean = cv2.resize(coarse, opacity.shape[::-1], interpolation=cv2.INTER_CUBIC) * 0.12 + rng.normal(0.0, 0.1)
    soft = cv2.GaussianBlur(opacity / 255.0, (0, 0), 1.5)
    mask: NDArray[np.float32] = np.clip((soft - 0.5 + lean) * 4.0 + 0.5, 0.0, 1.0) * 255.0
    return mask


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`. From pinned memory, so that a GPU goes on with its work meanwhile."""
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def world_folder(folder: Path) -> Path:
    """Where the cache of this version of the training world, drawn by this version of the drawing, lives."""
    return folder / f"world-{WORLD_VERSION}.{DRAWING_VERSION}"


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
    """Rows copied once, straight into the memory that a GPU reads from where `pinned`."""
    whole = torch.empty(len(rows), *rows[0].shape, dtype=torch.uint8, pin_memory=pinned)
    np.stack(rows, out=whole.numpy())
    return whole
