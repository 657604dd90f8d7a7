"""A request to refine: the mesh as arrays, its images as they are in their files, and a header with what is wanted.

Conventions: positions are the object's own, in Blender's axes (right-handed, z up, the front looks to -y), and
`matrix_world` places them. Texture coordinates have v *up*, as Blender stores them. Triangles are the sender's; nothing
here triangulates. A triangle has one slot, and `tri_uv` holds the UV map that this slot's target names. Images are
named by the SHA-256 of their file's bytes. No paths, no pickles, no torch.

Letters: V vertices, T triangles.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, ValidationError

from dreamcraft3d.config import Finite, Fraction, GenerateConfig, Record
from dreamcraft3d.presets import configure
from dreamcraft3d.refining.refusals import NoTextureCoordinates, RequestBroken

__all__ = [
    "Header",
    "Occluders",
    "Policies",
    "ReferencePicture",
    "RefineRequest",
    "Target",
    "Tile",
    "TriangleSoup",
    "as_json",
    "configured_by",
    "digest",
    "read_header",
]

SCHEMA = "refine/1"
Matrix = Annotated[tuple[tuple[Finite, Finite, Finite, Finite], ...], Field(min_length=4, max_length=4)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
IDENTITY = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))


class Tile(Record):
    """One image of a target: UDIM number (1001 where there is only one), size in texels, and its file."""

    number: Annotated[int, Field(ge=1001, le=9999)] = 1001
    width: Annotated[int, Field(ge=1, le=16384)]
    height: Annotated[int, Field(ge=1, le=16384)]
    sha256: Digest | None = None
    """the file's bytes, as they are; null makes a new image"""


class Target(Record):
    """What is painted: the images behind one channel of one material slot."""

    slot: Annotated[int, Field(ge=0, lt=2**15)]
    channel: Literal["base_color"] = "base_color"
    uv_map: str = "UVMap"
    colourspace: str = "sRGB"
    bit_depth: Literal[8, 16, 32] = 8
    """of a new image; an image that exists keeps its own"""
    alpha_mode: Literal["STRAIGHT", "PREMUL", "CHANNEL_PACKED", "NONE"] = "STRAIGHT"
    udim: bool = False
    """whether coordinates outside 0..1 mean other tiles; otherwise they mean repetition"""
    tiles: Annotated[tuple[Tile, ...], Field(min_length=1)]


class ReferencePicture(Record):
    """What the object should look like, from the front or through a given camera."""

    sha256: Digest
    world_to_clip: Matrix | None = None
    """projection times view matrix (OpenGL) of the camera that sees the whole picture; null: the object's front, laid
    over its outline"""


class Policies(Record):
    """What to do where there is a choice; null leaves it to the preset (see `RefineConfig`)."""

    overlap: Literal["auto", "error", "owner", "average"] | None = None
    unseen: Literal["keep", "fill"] | None = None
    padding_px: Annotated[int, Field(ge=0, le=256)] | None = None
    alpha: Literal["copy"] = "copy"
    two_sided: bool | None = None


class Header(Record):
    """`request.json`."""

    model_config = ConfigDict(populate_by_name=True)

    version: Literal["refine/1"] = Field("refine/1", alias="schema")
    units: Literal["metre"] = "metre"
    axes: Literal["blender: +Z up, right-handed"] = "blender: +Z up, right-handed"
    matrix_world: Matrix = IDENTITY
    det_sign: Literal[-1, 1] = 1
    """sign of the determinant of `matrix_world`: -1 turns faces inside out"""
    pose: Literal["base", "current"] = "base"
    geometry: Literal["original", "evaluated"] = "original"
    fingerprint: Annotated[str, Field(max_length=256)] = ""
    """returned as it is, so that the sender can tell whether the mesh is still the same"""
    targets: Annotated[tuple[Target, ...], Field(min_length=1)]
    prompt: Annotated[str, Field(max_length=2000)] = ""
    reference: ReferencePicture | None = None
    """null: the mesh's present look is the reference"""
    elevation: Annotated[float, Field(ge=-80.0, le=80.0)] | None = None
    """camera height of the reference picture, degrees; null leaves it to the preset"""
    strength: Fraction = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    preset: str = "preview"
    policies: Policies = Policies()


@dataclass(frozen=True)
class TriangleSoup:
    """The mesh that is painted.

    Attributes:
        position: V x 3 float32, object space. tri_vertex: T x 3 int32. tri_uv: T x 3 x 2 float32, v up.
        tri_normal: T x 3 x 3 float32, object space. tri_face: T int32, the polygon of each triangle.
        tri_slot: T int16. tri_paint: T bool, the sender's face mask.
    """

    position: NDArray[np.float32]
    tri_vertex: NDArray[np.int32]
    tri_uv: NDArray[np.float32]
    tri_normal: NDArray[np.float32]
    tri_face: NDArray[np.int32]
    tri_slot: NDArray[np.int16]
    tri_paint: NDArray[np.bool_]


@dataclass(frozen=True)
class Occluders:
    """Other objects that hide parts of the mesh, already in the object's space: V x 3 float32, T x 3 int32."""

    position: NDArray[np.float32]
    tri_vertex: NDArray[np.int32]


@dataclass(frozen=True)
class RefineRequest:
    """Everything that a run needs. `files` are image files by the SHA-256 of their bytes.

    Raises:
        RefineRefused: the parts do not fit together.
    """

    header: Header
    soup: TriangleSoup
    occluders: Occluders | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_arrays(self.soup)
        if self.occluders is not None:
            _check_indices("occluder_vertex", self.occluders.tri_vertex, len(self.occluders.position))
        _check_targets(self.header, self.soup, self.files)


def configured_by(header: Header, settings: Mapping[str, Any] | None = None) -> GenerateConfig:
    """The configuration that a request asks for: its preset, changed by its policies, changed by `settings`.

    Raises:
        ConfigError: an unknown preset or setting.
    """
    policies = header.policies
    asked = {
        "seed": header.seed,
        "prompt": header.prompt or None,
        "refine.strength": header.strength,
        "reference.elevation": header.elevation,
        "refine.overlap": policies.overlap,
        "refine.unseen": policies.unseen,
        "refine.padding": policies.padding_px,
        "refine.two_sided": policies.two_sided,
    }
    given = {key: value for key, value in asked.items() if value is not None}
    return configure(header.preset, {**given, **(settings or {})})


def digest(data: bytes) -> str:
    """The name of a file in a request."""
    return hashlib.sha256(data).hexdigest()


def read_header(text: str | bytes) -> Header:
    """`request.json` as a record.

    Raises:
        RequestBroken: not JSON, another schema, an unknown key, or a value out of range.
    """
    try:
        return Header.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "request.json"
        raise RequestBroken(f"The request cannot be used: {key}: {first['msg']}.") from error


SHAPES: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
    "tri_vertex": (np.int32, (3,)),
    "tri_uv": (np.float32, (3, 2)),
    "tri_normal": (np.float32, (3, 3)),
    "tri_face": (np.int32, ()),
    "tri_slot": (np.int16, ()),
    "tri_paint": (np.bool_, ()),
}
"""Type and shape per triangle of the arrays of a request."""


def _check_arrays(soup: TriangleSoup) -> None:
    if soup.position.dtype != np.float32 or soup.position.ndim != 2 or soup.position.shape[1] != 3:
        raise RequestBroken("position is not an array of V x 3 float32.")
    count = len(soup.tri_vertex)
    for name, (kind, shape) in SHAPES.items():
        array = getattr(soup, name)
        if array.dtype != kind or array.shape != (count, *shape):
            wanted = " x ".join(map(str, (count, *shape)))
            raise RequestBroken(f"{name} is not an array of {wanted} {np.dtype(kind).name}.")
    if count == 0:
        raise RequestBroken("The mesh has no faces.", "Choose an object with faces.")
    _check_indices("tri_vertex", soup.tri_vertex, len(soup.position))


def _check_indices(name: str, indices: NDArray[np.int32], count: int) -> None:
    if indices.size and (indices.min() < 0 or indices.max() >= count):
        raise RequestBroken(f"{name} names a vertex that does not exist.")


def _check_targets(header: Header, soup: TriangleSoup, files: Mapping[str, bytes]) -> None:
    slots = [target.slot for target in header.targets]
    if len(set(slots)) != len(slots):
        raise RequestBroken("A slot is targeted twice.")
    sign = np.sign(np.linalg.det(np.array(header.matrix_world)[:3, :3]))
    if sign != 0 and sign != header.det_sign:
        raise RequestBroken("det_sign does not fit matrix_world.")
    needed = [tile.sha256 for target in header.targets for tile in target.tiles if tile.sha256 is not None]
    for name in [*needed, *([header.reference.sha256] if header.reference else [])]:
        if name not in files:
            raise RequestBroken(f"The file {name[:12]}... is missing.")
        if digest(files[name]) != name:
            raise RequestBroken(f"The file {name[:12]}... was damaged on the way.")
    for target in header.targets:
        numbers = [tile.number for tile in target.tiles]
        if len(set(numbers)) != len(numbers) or (not target.udim and numbers != [1001]):
            raise RequestBroken(f"The tiles of slot {target.slot} are {numbers}.")
        uvs = soup.tri_uv[soup.tri_slot == target.slot]
        if len(uvs) and (not np.isfinite(uvs).any() or np.ptp(uvs.reshape(-1, 2), axis=0).max() == 0.0):
            raise NoTextureCoordinates(f"Slot {target.slot}")


def as_json(header: Header) -> str:
    """The text of `request.json`."""
    return json.dumps(header.model_dump(mode="json", by_alias=True), indent=2, ensure_ascii=False) + "\n"
