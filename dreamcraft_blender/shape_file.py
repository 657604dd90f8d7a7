"""An object of the scene as a GLB file to start from: its evaluated faces, placed, with the base colour of each slot.

Blender's own exporter is an operator: it needs a mode, a selection and an extension that can be disabled. What the
backend needs is little: triangles, and a picture or a colour for each material.

Frames: Blender has z up and the front towards -y; glTF has y up and the front towards +z. (x, y, z) becomes (x, z, -y).
"""

import json
import struct
from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np

from . import refine_materials
from .problems import Problem
from .refine_request import values

MIMES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg"}
"""Kinds of image that a GLB file may hold, by their first bytes."""

FLOAT, TRIANGLES = 5126, 4


@dataclass(frozen=True)
class Part:
    """The faces of one material slot.

    Attributes:
        points: 3T x 3, corner by corner, in glTF's frame. uvs: 3T x 2 (v down), or None. image: a PNG or JPEG file, or
        None. colour: linear RGB where there is no image; None where nothing is known.
    """

    points: Any
    uvs: Any = None
    image: bytes | None = None
    colour: tuple[float, ...] | None = None


def file_of(item) -> bytes:
    """The object as a GLB file; changes nothing. Raises `Problem` for what is no mesh or has no faces."""
    if item is None or item.type != "MESH":
        text = "There is no mesh to start from."
        raise Problem("no_shape", text, "Choose a mesh object as the shape, or make one the active object.")
    if item.mode == "EDIT":
        item.update_from_editmode()
    graph = bpy.context.evaluated_depsgraph_get()
    final = item.evaluated_get(graph)
    mesh = final.to_mesh(preserve_all_data_layers=True, depsgraph=graph)
    try:
        parts = parts_of(item, mesh)
    finally:
        final.to_mesh_clear()
    if not parts:
        text = f"{item.name} has no faces to start from."
        raise Problem("no_shape", text, "Choose an object with faces; Realize Instances, if Geometry Nodes make them.")
    return packed(parts)


def parts_of(item, mesh) -> list[Part]:
    """The triangles by slot."""
    mesh.calc_loop_triangles()
    corners = values(mesh.loop_triangles, "loops", np.int32, 3)
    if not len(corners):
        return []
    slots = values(mesh.polygons, "material_index", np.int32, 1)[
        values(mesh.loop_triangles, "polygon_index", np.int32, 1)
    ]
    matrix = np.array(item.matrix_world, dtype=np.float64)
    points = values(mesh.vertices, "co", np.float32, 3) @ matrix[:3, :3].T + matrix[:3, 3]
    points = np.stack([points[:, 0], points[:, 2], -points[:, 1]], axis=1).astype(np.float32)
    if np.linalg.det(matrix[:3, :3]) < 0.0:
        corners = corners[:, ::-1]
    vertices = values(mesh.loops, "vertex_index", np.int32, 1)
    return [
        part_of(item, mesh, int(slot), points[vertices[mine].reshape(-1)], mine.reshape(-1))
        for slot in np.unique(slots)
        for mine in [corners[slots == slot]]
    ]


def part_of(item, mesh, slot, points, corners) -> Part:
    """One slot's faces with what its material shows; a material that is not understood shows nothing."""
    material = item.material_slots[slot].material if slot < len(item.material_slots) else None
    if material is None:
        return Part(points)
    try:
        source = refine_materials.source_of(material, slot)
        data = refine_materials.files_of(source.image)[0].data if source.image is not None else None
    except Problem:
        return Part(points)
    if data is None:
        return Part(points, colour=tuple(source.colour))
    layer = mesh.uv_layers.get(source.uv_map) or next((one for one in mesh.uv_layers if one.active_render), None)
    if layer is None or mime_of(data) is None:
        return Part(points)
    uvs = values(layer.uv, "vector", np.float32, 2)[corners]
    return Part(points, np.stack([uvs[:, 0], 1.0 - uvs[:, 1]], axis=1), data)


def mime_of(data):
    """The kind of an image that a GLB file may hold; None for any other."""
    return next((kind for head, kind in MIMES.items() if data.startswith(head)), None)


def packed(parts: list[Part]) -> bytes:
    """A glTF 2 binary of these parts: one mesh with a primitive and a material for each."""
    document: dict[str, Any] = {
        "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": []}], "accessors": [], "bufferViews": [], "materials": [],
    }  # fmt: skip
    binary = bytearray()

    def view(data: bytes) -> int:
        document["bufferViews"].append({"buffer": 0, "byteOffset": len(binary), "byteLength": len(data)})
        binary.extend(data + bytes(-len(data) % 4))
        return len(document["bufferViews"]) - 1

    def accessor(array, kind: str) -> int:
        entry = {"bufferView": view(array.astype("<f4").tobytes()), "componentType": FLOAT, "count": len(array)}
        ends = {"min": array.min(axis=0).tolist(), "max": array.max(axis=0).tolist()}
        document["accessors"].append({**entry, "type": kind, **ends})
        return len(document["accessors"]) - 1

    for part in parts:
        primitive: dict[str, Any] = {"attributes": {"POSITION": accessor(part.points, "VEC3")}, "mode": TRIANGLES}
        shine: dict[str, Any] = {"metallicFactor": 0.0}
        if part.image is not None:
            primitive["attributes"]["TEXCOORD_0"] = accessor(part.uvs, "VEC2")
            images, textures = document.setdefault("images", []), document.setdefault("textures", [])
            textures.append({"source": len(images)})
            images.append({"bufferView": view(part.image), "mimeType": mime_of(part.image)})
            shine["baseColorTexture"] = {"index": len(textures) - 1}
        elif part.colour is not None:
            shine["baseColorFactor"] = [*(min(1.0, max(0.0, float(value))) for value in part.colour[:3]), 1.0]
        if len(shine) > 1:
            primitive["material"] = len(document["materials"])
            document["materials"].append({"pbrMetallicRoughness": shine})
        document["meshes"][0]["primitives"].append(primitive)
    return container({**document, "buffers": [{"byteLength": len(binary)}]}, bytes(binary))


def container(document: dict[str, Any], binary: bytes) -> bytes:
    """The two chunks of a GLB file."""
    text = json.dumps({key: value for key, value in document.items() if value != []}).encode()
    text += b" " * (-len(text) % 4)
    head = struct.pack("<4sII", b"glTF", 2, 28 + len(text) + len(binary))
    return head + struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
