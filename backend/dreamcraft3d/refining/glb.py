"""A request out of a GLB file (`glb_images` brings the result back into it).

Slots are material numbers (faces without material belong to slot 32767). The frame turns from glTF's (y up) to
Blender's (z up). A mesh that is placed several times is painted at its first place; the other places only hide things.
"""

import base64
import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamcraft3d.refining.refusals import MaterialNotUnderstood, NoTextureCoordinates, RefineRefused
from dreamcraft3d.refining.request import Header, Occluders, RefineRequest, Target, Tile, TriangleSoup, digest

__all__ = ["GlbFile", "MeshPicture", "read_glb"]

NO_MATERIAL = 2**15 - 1
TRIANGLES = 4
COMPONENTS: dict[int, Any] = {
    5120: np.int8,
    5121: np.uint8,
    5122: np.int16,
    5123: np.uint16,
    5125: np.uint32,
    5126: np.float32,
}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
ENDINGS = {"OPAQUE": "NONE", "MASK": "STRAIGHT", "BLEND": "STRAIGHT"}
TO_BLENDER = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
EXTENSIONS_READ = {
    "KHR_texture_transform",
    "KHR_materials_specular",
    "KHR_materials_unlit",
    "KHR_materials_ior",
    "KHR_materials_emissive_strength",
    "KHR_materials_clearcoat",
    "KHR_materials_transmission",
    "KHR_mesh_quantization",
}

Array = NDArray[Any]


@dataclass(frozen=True)
class MeshPicture:
    """The base colour image of a slot as a file has it; `data` is None where there is none."""

    data: bytes | None
    alpha_mode: str
    uv_set: int
    transform: Array


class GlbFile:
    """A GLB file in memory."""

    def __init__(self, data: bytes) -> None:
        """Raises RefineRefused for anything but an uncompressed glTF 2 binary."""
        if data[:4] != b"glTF" or len(data) < 20 or struct.unpack_from("<I", data, 4)[0] != 2:
            raise RefineRefused("This is not a glTF 2 binary file.", "Export the mesh again, as GLB.")
        self.data = data
        length = struct.unpack_from("<I", data, 12)[0]
        try:
            self.document: dict[str, Any] = json.loads(data[20 : 20 + length])
        except ValueError as error:
            raise RefineRefused(f"The GLB file is damaged: {error}.", "Export the mesh again, as GLB.") from error
        start = 20 + length
        binary = struct.unpack_from("<I", data, start)[0] if len(data) > start + 8 else 0
        self.binary = data[start + 8 : start + 8 + binary]
        odd = set(self.document.get("extensionsRequired", [])) - EXTENSIONS_READ
        if odd:
            name = ", ".join(sorted(odd))
            raise RefineRefused(f"The file needs {name}.", "Export it again without compression.")

    def slots(self) -> list[int]:
        """Material numbers that have faces, in order."""
        found = {
            primitive.get("material", NO_MATERIAL)
            for mesh in self.document.get("meshes", [])
            for primitive in mesh["primitives"]
        }
        return sorted(found)

    def request(self, slots: list[int] | None, *, texture_size: int, **header: Any) -> RefineRequest:
        """A request that paints some slots (default: all with texture coordinates).

        Args:
            texture_size: side of a new image. header: other values of `Header`; `files` are kept beside the images.

        Raises:
            RefineRefused: a slot that does not exist, or has no coordinates.
        """
        files: dict[str, bytes] = {digest(data): data for data in header.pop("files", ())}
        soup, occluders = self._soup()
        wanted = self._targets(soup, slots)
        targets = []
        for slot in wanted:
            picture = self.picture(slot)
            sha256 = None
            if picture.data is not None:
                sha256 = digest(picture.data)
                files[sha256] = picture.data
            tile = Tile(width=texture_size, height=texture_size, sha256=sha256)
            name = f"TEXCOORD_{picture.uv_set}"
            mode: Any = picture.alpha_mode
            targets.append(Target(slot=slot, uv_map=name, alpha_mode=mode, tiles=(tile,)))
        return RefineRequest(Header(targets=tuple(targets), **header), soup, occluders, files)

    def _targets(self, soup: TriangleSoup, slots: list[int] | None) -> list[int]:
        with_uvs = [slot for slot in self.slots() if slot != NO_MATERIAL and self._has_uvs(soup, slot)]
        if slots is None:
            if not with_uvs:
                raise NoTextureCoordinates("The mesh")
            return with_uvs
        for slot in slots:
            if slot not in self.slots():
                known = ", ".join(f"{s} ({self._material(s).get('name', '')})" for s in self.slots())
                raise RefineRefused(f"There is no slot {slot}.", f"The slots of this file are: {known}.")
            if slot not in with_uvs:
                raise NoTextureCoordinates(f"Slot {slot}")
        return slots

    @staticmethod
    def _has_uvs(soup: TriangleSoup, slot: int) -> bool:
        return bool(np.isfinite(soup.tri_uv[soup.tri_slot == slot]).any())

    def picture(self, slot: int) -> MeshPicture:
        """The base colour image of a slot."""
        material = self._material(slot)
        info = material.get("pbrMetallicRoughness", {}).get("baseColorTexture")
        mode = ENDINGS[material.get("alphaMode", "OPAQUE")]
        if info is None:
            return MeshPicture(None, mode, 0, np.eye(3))
        transform = info.get("extensions", {}).get("KHR_texture_transform", {})
        uv_set = transform.get("texCoord", info.get("texCoord", 0))
        texture = self.document["textures"][info["index"]]
        if "source" not in texture:
            raise MaterialNotUnderstood(f"The image of slot {slot} is compressed.", "Export it again with PNG images.")
        return MeshPicture(self._image(texture["source"]), mode, uv_set, _affine(transform))

    def notes(self, slots: list[int]) -> list[str]:
        """What multiplies the textures of these slots and is not in them."""
        result = []
        for slot in slots:
            factor = self._material(slot).get("pbrMetallicRoughness", {}).get("baseColorFactor", [1.0] * 4)[:3]
            if self.picture(slot).data is not None and factor != [1.0] * 3:
                result.append(
                    f"Slot {slot}: the material multiplies its texture by {factor}; the picture knows nothing of it."
                )
        primitives = [p for mesh in self.document.get("meshes", []) for p in mesh["primitives"]]
        if any("COLOR_0" in p["attributes"] and p.get("material") in slots for p in primitives):
            result.append("Vertex colours multiply the texture; they are not part of it.")
        return result

    def _material(self, slot: int) -> dict[str, Any]:
        materials = self.document.get("materials", [])
        return dict(materials[slot]) if slot < len(materials) else {}

    def _image(self, index: int) -> bytes:
        image = self.document["images"][index]
        if "bufferView" in image:
            return self._view(image["bufferView"])
        uri = image.get("uri", "")
        if not uri.startswith("data:"):
            raise RefineRefused(f"The image {uri} is not inside the file.", "Export the mesh again with its images.")
        return base64.b64decode(uri.partition(",")[2])

    def _view(self, index: int) -> bytes:
        view = self.document["bufferViews"][index]
        start = view.get("byteOffset", 0)
        return self.binary[start : start + view["byteLength"]]

    def _accessor(self, index: int) -> Array:
        accessor = self.document["accessors"][index]
        if "sparse" in accessor or "bufferView" not in accessor:
            raise RefineRefused("The file has sparse arrays.", "Export the mesh again, as plain GLB.")
        kind, width = np.dtype(COMPONENTS[accessor["componentType"]]).newbyteorder("<"), WIDTHS[accessor["type"]]
        view = self.document["bufferViews"][accessor["bufferView"]]
        stride = view.get("byteStride", kind.itemsize * width)
        start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
        shape, strides = (accessor["count"], width), (stride, kind.itemsize)
        values = np.ndarray(shape, kind, self.binary, start, strides).astype(kind.newbyteorder("="))
        if accessor.get("normalized"):
            largest = float(np.iinfo(COMPONENTS[accessor["componentType"]]).max)
            return np.asarray(np.maximum(values.astype(np.float64) / largest, -1.0))
        return np.asarray(values)

    def _soup(self) -> tuple[TriangleSoup, Occluders | None]:
        parts: list[tuple[Array, ...]] = []
        hidden: list[tuple[Array, ...]] = []
        done: set[int] = set()
        for mesh, matrix in self._placed():
            for primitive in self.document["meshes"][mesh]["primitives"]:
                if primitive.get("mode", TRIANGLES) != TRIANGLES:
                    continue
                arrays = self._primitive(primitive, TO_BLENDER @ matrix)
                (hidden if mesh in done else parts).append(arrays)
            done.add(mesh)
        if not parts:
            raise RefineRefused("The file holds no triangles.", "Export the mesh again, with its faces.")
        offsets = np.cumsum([0, *(len(part[0]) for part in parts[:-1])])
        tri = np.concatenate([part[1] + offset for part, offset in zip(parts, offsets, strict=True)])
        position, uv, slot = (np.concatenate([part[k] for part in parts]) for k in (0, 2, 3))
        corners = position[tri].astype(np.float64)
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-30)
        soup = TriangleSoup(
            position.astype(np.float32),
            tri.astype(np.int32),
            uv.astype(np.float32),
            np.repeat(normal[:, None], 3, axis=1).astype(np.float32),
            np.arange(len(tri), dtype=np.int32),
            slot.astype(np.int16),
            np.ones(len(tri), dtype=bool),
        )
        if not hidden:
            return soup, None
        offsets = np.cumsum([0, *(len(part[0]) for part in hidden[:-1])])
        others = np.concatenate([part[1] + offset for part, offset in zip(hidden, offsets, strict=True)])
        return soup, Occluders(np.concatenate([part[0] for part in hidden]).astype(np.float32), others.astype(np.int32))

    def _primitive(self, primitive: Mapping[str, Any], matrix: Array) -> tuple[Array, Array, Array, Array]:
        """(positions, triangles, coordinates per corner with v up, slots)."""
        position = self._accessor(primitive["attributes"]["POSITION"]).astype(np.float64)
        position = position @ matrix[:3, :3].T + matrix[:3, 3]
        count = len(position)
        index = self._accessor(primitive["indices"])[:, 0] if "indices" in primitive else np.arange(count)
        tri = index.astype(np.int64).reshape(-1, 3)
        if np.linalg.det(matrix[:3, :3]) < 0:
            tri = tri[:, ::-1]
        slot = primitive.get("material", NO_MATERIAL)
        picture = self.picture(slot)
        name = f"TEXCOORD_{picture.uv_set}"
        uv = np.full((count, 2), np.nan)
        if name in primitive["attributes"]:
            uv = self._accessor(primitive["attributes"][name]).astype(np.float64)
            uv = uv @ picture.transform[:2, :2].T + picture.transform[:2, 2]
            uv[:, 1] = 1.0 - uv[:, 1]
        return position, tri, uv[tri], np.full(len(tri), slot)

    def _placed(self) -> Iterator[tuple[int, Array]]:
        """(mesh, matrix) of every node of the scene that shows a mesh."""
        nodes, scenes = self.document.get("nodes", []), self.document.get("scenes", [])
        children = {child for node in nodes for child in node.get("children", [])}
        roots = [i for i in range(len(nodes)) if i not in children]
        if scenes:
            roots = scenes[self.document.get("scene", 0)].get("nodes", [])
        todo = [(root, np.eye(4)) for root in reversed(roots)]
        while todo:
            number, above = todo.pop()
            node = nodes[number]
            matrix = above @ _local(node)
            if "mesh" in node:
                yield node["mesh"], matrix
            todo += [(child, matrix) for child in reversed(node.get("children", []))]


def _affine(transform: Mapping[str, Any]) -> Array:
    """KHR_texture_transform as a 3 x 3 matrix: shift times rotation times scale."""
    (x, y), angle, (sx, sy) = (
        transform.get("offset", (0.0, 0.0)),
        transform.get("rotation", 0.0),
        transform.get("scale", (1.0, 1.0)),
    )
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c * sx, s * sy, x], [-s * sx, c * sy, y], [0.0, 0.0, 1.0]])


def _local(node: Mapping[str, Any]) -> Array:
    """A node's own matrix."""
    if "matrix" in node:
        return np.array(node["matrix"], dtype=np.float64).reshape(4, 4).T
    x, y, z, w = node.get("rotation", (0.0, 0.0, 0.0, 1.0))
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * np.array(node.get("scale", (1.0, 1.0, 1.0)))
    matrix[:3, 3] = node.get("translation", (0.0, 0.0, 0.0))
    return matrix


def read_glb(path: Path) -> GlbFile:
    """Reads a file.

    Raises:
        RefineRefused: not a plain glTF 2 binary.
    """
    return GlbFile(path.read_bytes())
