"""The pack: one zip file of many small objects.

`index.json` lists the objects: id, name, class, package, source, author, licence, faces, materials (colour 0..255, and
where textured the texture's name and whether it is cut out), held_out. `m/ID.npz` holds v (int16; divided by 65534 it
lies in the unit box, y up), f (corner indices), u (texture coordinates, (0, 0) = bottom left, they repeat) and m
(material of each face). `t/NAME.jpg` is a texture of at most 128 pixels a side, `t/NAME.a.png` its opacity, one bit, if
it is cut out.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dreamcraft3d.training.collect.assembly import Assembly
from dreamcraft3d.training.collect.parts import FormatError
from dreamcraft3d.training.collect.textures import Texture
from dreamcraft3d.workspace import atomic_path

INDEX, REPORT = "index.json", "report.json"
TEXTURE_SIZE = 128
QUALITY = 85  # of JPEG
SCALE = 65534
MOST_VERTICES = 60_000
LARGEST_UV = 200.0
HALF_UV = 2.0  # up to here half precision is finer than a texel
HELD_OUT_SHARE = 20
EPOCH = (1980, 1, 1, 0, 0, 0)  # the same objects make the same file


def held_out(key: str) -> bool:
    """Whether an object is never trained on: one in twenty, by its id."""
    return int(hashlib.sha1(key.encode()).hexdigest(), 16) % HELD_OUT_SHARE == 0


class PackWriter:
    """Writes objects, and their index when it is closed."""

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9)
        self._written: set[str] = set()
        self.index: list[dict[str, Any]] = []

    def __enter__(self) -> "PackWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def add(self, facts: dict[str, Any], thing: Assembly) -> None:
        """Add an object; `facts` are its entries of the index from `id` to `licence`.

        Raises:
            FormatError: it cannot be stored: too many vertices, or texture coordinates of hundreds.
        """
        mesh = _mesh_bytes(thing)
        materials = [self._material(material.colour, material.texture) for material in thing.materials]
        self.write(f"m/{facts['id']}.npz", mesh)
        measured = {"faces": len(thing.faces), "materials": materials, "held_out": held_out(facts["id"])}
        self.index.append({**facts, **measured})

    def finish(self, report: dict[str, Any] | None = None) -> None:
        """Write the index, and for a part of a collection what became of the rest."""
        self.write(INDEX, json.dumps(self.index).encode())
        if report is not None:
            self.write(REPORT, json.dumps(report).encode())

    def write(self, name: str, data: bytes) -> None:
        """Write a member, once."""
        if name not in self._written:
            kind = zipfile.ZIP_STORED if name.startswith("t/") else zipfile.ZIP_DEFLATED
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.external_attr = 0o644 << 16
            self._zip.writestr(entry, data, kind)
            self._written.add(name)

    def _material(self, colour: tuple[int, int, int], texture: Texture | None) -> dict[str, Any]:
        record: dict[str, Any] = {"colour": list(colour)}
        if texture is None:
            return record
        picture, opacity = _texture_bytes(texture)
        name = hashlib.sha1(picture).hexdigest()[:16]
        self.write(f"t/{name}.jpg", picture)
        if opacity is not None:
            self.write(f"t/{name}.a.png", opacity)
        return {**record, "texture": name, "cutout": opacity is not None}


def _mesh_bytes(thing: Assembly) -> bytes:
    if len(thing.vertices) > MOST_VERTICES:
        raise FormatError(f"{len(thing.vertices)} vertices are more than {MOST_VERTICES}")
    uv = thing.uv - np.floor(thing.uv.min(0))  # small numbers keep their precision
    if np.abs(uv).max() > LARGEST_UV:
        raise FormatError("texture coordinates are out of range")
    low, high = thing.vertices.min(0), thing.vertices.max(0)
    place = (thing.vertices - 0.5 * (low + high)) / (high - low).max()
    buffer = io.BytesIO()
    np.savez(
        buffer,
        v=np.round(place * SCALE).clip(-32767, 32767).astype(np.int16),
        f=thing.faces.astype(np.uint16),
        u=uv.astype(np.float32).astype(np.float16 if np.abs(uv).max() <= HALF_UV else np.float32),
        m=thing.material.astype(np.uint8),
    )
    return buffer.getvalue()


def _texture_bytes(texture: Texture) -> tuple[bytes, bytes | None]:
    """JPEG of the colours and, of a cut-out, PNG of the opacity."""
    image = texture.image.convert("RGBA")
    scale = min(1.0, TEXTURE_SIZE / max(image.size))
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    if size != image.size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    picture, opacity = io.BytesIO(), io.BytesIO()
    image.convert("RGB").save(picture, "JPEG", quality=QUALITY)
    if not texture.cutout:
        return picture.getvalue(), None
    image.getchannel("A").point([255 * (level > 127) for level in range(256)]).convert("1").save(opacity, "PNG")
    return picture.getvalue(), opacity.getvalue()


def read_index(path: Path) -> list[dict[str, Any]]:
    """The index of a pack."""
    with zipfile.ZipFile(path) as pack:
        index: list[dict[str, Any]] = json.loads(pack.read(INDEX))
    return index


def join(parts: Iterable[Path], out: Path, order: dict[str, int]) -> list[dict[str, Any]]:
    """Join packs into one; return its index, sorted by the rank of the ids in `order`, others behind as they come."""
    with atomic_path(out) as temporary, PackWriter(temporary) as writer:
        for path in parts:
            with zipfile.ZipFile(path) as pack:
                for name in pack.namelist():
                    if name not in (INDEX, REPORT):
                        writer.write(name, pack.read(name))
            writer.index += read_index(path)
        writer.index.sort(key=lambda entry: order.get(entry["id"], len(order)))
        writer.finish()
    return writer.index
