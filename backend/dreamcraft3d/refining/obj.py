"""OBJ files: a request out of one, and beside an unchanged copy of it a material library that shows the new images.

Slots are the materials in the order of their first use. Polygons are split into fans. The frame is taken as y up, front
towards +z, as almost every exporter writes it.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamcraft3d.refining.refusals import NoTextureCoordinates, RefineRefused
from dreamcraft3d.refining.request import Header, RefineRequest, Target, Tile, TriangleSoup, digest

__all__ = ["ObjFile", "read_obj"]

NEW_MATERIAL = "refined"

Array = NDArray[Any]


@dataclass
class _Lines:
    """What the lines of a file say; triangles hold (vertex, coordinate or -1) per corner."""

    position: list[list[float]] = field(default_factory=list)
    coordinate: list[list[float]] = field(default_factory=list)
    corner: list[tuple[int, int]] = field(default_factory=list)
    slot: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    libraries: list[str] = field(default_factory=list)

    def face(self, words: list[str], slot: int) -> None:
        corners = [self._corner(word) for word in words]
        for k in range(1, len(corners) - 1):
            self.corner += (corners[0], corners[k], corners[k + 1])
            self.slot.append(slot)

    def _corner(self, word: str) -> tuple[int, int]:
        parts = word.split("/")
        vertex = int(parts[0])
        uv = int(parts[1]) if len(parts) > 1 and parts[1] else 0
        vertex = vertex - 1 if vertex > 0 else len(self.position) + vertex
        return vertex, (uv - 1 if uv > 0 else len(self.coordinate) + uv if uv < 0 else -1)


class ObjFile:
    """An OBJ file in memory, with the material libraries beside it."""

    def __init__(self, path: Path) -> None:
        """Raises RefineRefused: the file is not an OBJ with faces."""
        self.path, self.data = path, path.read_bytes()
        try:
            self._lines = _parse(self.data.decode("utf-8", "surrogateescape"))
            self.soup = _soup(self._lines)
        except (ValueError, IndexError) as error:
            raise RefineRefused(f"{path.name} cannot be read: {error}.", "Export the mesh again.") from error
        self.libraries = {
            name: (path.parent / name).read_bytes() for name in self._lines.libraries if (path.parent / name).is_file()
        }

    def slots(self) -> list[int]:
        """Slots that have faces."""
        return sorted(set(self.soup.tri_slot.tolist()))

    def picture(self, slot: int) -> bytes | None:
        """The diffuse image of a slot."""
        name = _map_of(self._library_text(), self._lines.names[slot])
        if name is None:
            return None
        place = self.path.parent / name.replace("\\", "/")
        if not place.is_file():
            raise RefineRefused(f"The image {name} of {self._lines.names[slot]} is missing.", "Put it beside the mesh.")
        return place.read_bytes()

    def request(self, slots: list[int] | None, *, texture_size: int, **header: Any) -> RefineRequest:
        """As `GlbFile.request`."""
        files: dict[str, bytes] = {digest(data): data for data in header.pop("files", ())}
        wanted = self.slots() if slots is None else slots
        targets = []
        for slot in wanted:
            if slot not in self.slots():
                known = ", ".join(f"{s} ({self._lines.names[s]})" for s in self.slots())
                raise RefineRefused(f"There is no slot {slot}.", f"The slots of this file are: {known}.")
            if not np.isfinite(self.soup.tri_uv[self.soup.tri_slot == slot]).any():
                raise NoTextureCoordinates(f"Slot {slot}" if slots else "The mesh")
            data = self.picture(slot)
            sha256 = None if data is None else digest(data)
            if data is not None and sha256 is not None:
                files[sha256] = data
            tile = Tile(width=texture_size, height=texture_size, sha256=sha256)
            targets.append(Target(slot=slot, tiles=(tile,)))
        return RefineRequest(Header(targets=tuple(targets), **header), self.soup, None, files)

    def with_images(self, images: Mapping[int, bytes]) -> dict[str, bytes]:
        """The files to write, by name: the mesh as it was, its libraries with new image names, and the images.

        Only a mesh without a library gets two lines more, before everything else.
        """
        stem = self.path.stem
        names = {slot: f"{stem}-{slot}-refined.png" for slot in images}
        files = {names[slot]: png for slot, png in images.items()}
        if not self.libraries:
            line = "" if self._lines.libraries else f"mtllib {stem}.mtl\n"
            head = f"{line}usemtl {NEW_MATERIAL}\n" if self._lines.names == [""] else line
            library = self._lines.libraries[0] if self._lines.libraries else f"{stem}.mtl"
            text = "".join(
                f"newmtl {self._lines.names[slot] or NEW_MATERIAL}\nKd 1 1 1\nmap_Kd {name}\n\n"
                for slot, name in names.items()
            )
            return {**files, library: text.encode(), self.path.name: head.encode() + self.data}
        changed = {self._lines.names[slot]: name for slot, name in names.items()}
        for library, data in self.libraries.items():
            files[library] = _with_maps(
                data.decode("utf-8", "surrogateescape"), changed, self.path.parent, files
            ).encode("utf-8", "surrogateescape")
        return {**files, self.path.name: self.data}

    def _library_text(self) -> str:
        return "\n".join(data.decode("utf-8", "surrogateescape") for data in self.libraries.values())


def read_obj(path: Path) -> ObjFile:
    """Reads a file."""
    return ObjFile(path)


def _parse(text: str) -> _Lines:
    lines, slot, numbers = _Lines(), -1, dict[str, int]()
    for line in text.replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "v":
            lines.position.append([float(value) for value in rest.split()[:3]])
        elif word == "vt":
            lines.coordinate.append([float(value) for value in [*rest.split(), "0"][:2]])
        elif word == "f":
            if slot < 0:
                slot = numbers.setdefault("", len(numbers))
            lines.face(rest.split(), slot)
        elif word == "usemtl":
            slot = numbers.setdefault(rest.strip(), len(numbers))
        elif word == "mtllib":
            lines.libraries.append(rest.strip())
    lines.names = list(numbers)
    return lines


def _soup(lines: _Lines) -> TriangleSoup:
    if not lines.corner:
        raise ValueError("it has no faces")
    corner = np.array(lines.corner, dtype=np.int64).reshape(-1, 3, 2)
    x, y, z = np.array(lines.position, dtype=np.float64).T
    position = np.stack([x, -z, y], axis=1)
    coordinate = np.array([*lines.coordinate, [np.nan, np.nan]], dtype=np.float64)
    places = position[corner[..., 0]]
    normal = np.cross(places[:, 1] - places[:, 0], places[:, 2] - places[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-30)
    count = len(corner)
    return TriangleSoup(
        position.astype(np.float32),
        corner[..., 0].astype(np.int32),
        coordinate[corner[..., 1]].astype(np.float32),
        np.repeat(normal[:, None], 3, axis=1).astype(np.float32),
        np.arange(count, dtype=np.int32),
        np.array(lines.slot, dtype=np.int16),
        np.ones(count, dtype=bool),
    )


def _map_of(library: str, material: str) -> str | None:
    """The image that a material's `map_Kd` names (the last word; options come before it)."""
    current = None
    for line in library.splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "newmtl":
            current = rest.strip()
        elif word.lower() == "map_kd" and current == material:
            return rest.strip() if not rest.strip().startswith("-") else rest.split()[-1]
    return None


def _with_maps(library: str, changed: Mapping[str, str], folder: Path, files: dict[str, bytes]) -> str:
    """The library with new diffuse images; images of other materials are named by where they are now."""
    result, current, waiting = [], "", dict(changed)
    for line in library.splitlines(keepends=True):
        word, _, rest = line.strip().partition(" ")
        end = line[len(line.rstrip("\r\n")) :]
        if word == "newmtl":
            if current in waiting:  # the material before this one had no image
                result.append(f"map_Kd {waiting.pop(current)}\n")
            current = rest.strip()
        if word.lower() == "map_kd" and current in changed:
            line = f"map_Kd {changed[current]}{end}"
            waiting.pop(current, None)
        elif word.lower().startswith(("map_", "bump", "norm", "disp", "decal", "refl")) and rest.strip():
            name = rest.strip().split()[-1] if rest.strip().startswith("-") else rest.strip()
            place = folder / name.replace("\\", "/")
            flat = os.path.basename(name.replace("\\", "/"))  # noqa: PTH119 - a name in a file, not a path here
            if place.is_file():
                files.setdefault(flat, place.read_bytes())
                line = line.replace(name, flat)
        result.append(line)
    if current in waiting:
        result.append(f"{'' if library.endswith(chr(10)) else chr(10)}map_Kd {waiting.pop(current)}\n")
    return "".join(result)
