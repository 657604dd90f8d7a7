"""Reads the backend's GLB files: one mesh, one material, at most one embedded picture. numpy only, no bpy.

Blender's own importer is an operator: it needs a mode, a selection and a window, takes half a second, and splits
vertices at seams. What the backend writes is simpler than what glTF allows, so reading it here makes the import one
undo step that works in every mode and in the background, with vertices joined again where only their texture
coordinates differ.

Frames: glTF has y up and the front towards +z; Blender has z up and the front towards -y. (x, y, z) becomes (x, -z, y).
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .problems import Problem

__all__ = ["Model", "parse", "read"]

TYPES = {5121: "u1", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


@dataclass(frozen=True)
class Model:
    """A mesh in Blender's frame.

    Attributes:
        vertices: V x 3. faces: F x 3 indices. normals: V x 3 or None. uvs: F x 3 x 2 (per corner) or None.
        colours: V x 4, linear, or None. picture: bytes of the base colour's file, or None, with its `suffix`.
    """

    vertices: Any
    faces: Any
    normals: Any = None
    uvs: Any = None
    colours: Any = None
    picture: bytes | None = None
    suffix: str = ".png"
    metallic: float = 0.0
    roughness: float = 1.0
    specular: float = 0.5


def read(path: Path) -> Model:
    """The model in a file. Raises `Problem` if it is none, or has no faces."""
    try:
        return parse(path.read_bytes())
    except OSError as error:
        text = f"Cannot read {path}: {error.strerror or error}."
        raise Problem("bad_model", text, "Import it again from the list of jobs.") from error


def parse(data: bytes) -> Model:
    """The model in the bytes of a GLB file."""
    try:
        document, binary = _chunks(data)
        primitive = document["meshes"][0]["primitives"][0]
        return _model(document, binary, primitive)
    except (KeyError, IndexError, ValueError, TypeError, struct.error, AttributeError) as error:
        text = "The model's file is damaged."
        raise Problem("bad_model", text, "Import it again from the list of jobs.") from error


def _chunks(data: bytes) -> tuple[dict[str, Any], bytes]:
    magic, version, length = struct.unpack_from("<4sII", data, 0)
    if magic != b"glTF" or version != 2 or length > len(data):
        raise ValueError("not a GLB")
    size, kind = struct.unpack_from("<I4s", data, 12)
    if kind != b"JSON":
        raise ValueError("no JSON chunk")
    document = json.loads(data[20 : 20 + size])
    start = 20 + size
    if start + 8 > len(data):
        return document, b""
    size, _ = struct.unpack_from("<I4s", data, start)
    return document, data[start + 8 : start + 8 + size]


def _model(document: dict[str, Any], binary: bytes, primitive: dict[str, Any]) -> Model:
    def array(index: int | None) -> Any:
        return None if index is None else _accessor(document, binary, index)

    names = primitive["attributes"]
    points = array(names["POSITION"]).astype(np.float32)
    normals, colours, uvs = array(names.get("NORMAL")), array(names.get("COLOR_0")), array(names.get("TEXCOORD_0"))
    corners = array(primitive.get("indices"))
    faces = (np.arange(len(points)) if corners is None else corners.reshape(-1)).astype(np.int64).reshape(-1, 3)
    if not len(faces):
        text = "The model has no faces."
        raise Problem("empty_model", text, "The object was lost: check the mask, or try another seed.")
    if faces.max() >= len(points) or not np.isfinite(points).all():
        raise ValueError("indices or points out of range")
    if colours is not None and colours.shape[1] == 3:
        colours = np.concatenate([colours, np.ones((len(colours), 1), np.float32)], axis=1)
    flat = None if uvs is None else np.stack([uvs[:, 0], 1.0 - uvs[:, 1]], axis=1)[faces].astype(np.float32)
    first, place = _joined(points, normals, colours)
    material = (document.get("materials") or [{}])[primitive.get("material", 0)]
    shine = material.get("pbrMetallicRoughness") or {}
    specular = (material.get("extensions") or {}).get("KHR_materials_specular") or {}
    picture, suffix = _picture(document, binary, shine)
    return Model(
        vertices=_upright(points[first]),
        faces=place[faces],
        normals=None if normals is None else _upright(normals[first].astype(np.float32)),
        uvs=flat,
        colours=None if colours is None else colours[first].astype(np.float32),
        picture=picture,
        suffix=suffix,
        metallic=float(shine.get("metallicFactor", 1.0)),
        roughness=float(shine.get("roughnessFactor", 1.0)),
        specular=0.5 * float(specular.get("specularFactor", 1.0)),
    )


def _accessor(document: dict[str, Any], binary: bytes, index: int) -> Any:
    entry = document["accessors"][index]
    view = document["bufferViews"][entry["bufferView"]]
    width = WIDTHS[entry["type"]]
    start = view.get("byteOffset", 0) + entry.get("byteOffset", 0)
    kind = np.dtype(TYPES[entry["componentType"]])
    if view.get("byteStride") not in (None, kind.itemsize * width):
        raise ValueError("interleaved attributes")
    values = np.frombuffer(binary, kind, entry["count"] * width, start).reshape(entry["count"], width)
    if entry.get("normalized") and kind.kind == "u":
        values = values.astype(np.float32) / np.iinfo(kind).max
    return values


def _joined(points: Any, *others: Any) -> tuple[Any, Any]:
    """Which file vertices are kept, and where each file vertex went: those that agree in everything become one."""
    parts = [points, *(other for other in others if other is not None)]
    records = np.ascontiguousarray(np.concatenate([part.astype(np.float32) for part in parts], axis=1))
    keys = records.view(np.dtype((np.void, records.dtype.itemsize * records.shape[1]))).reshape(-1)
    _, first, place = np.unique(keys, return_index=True, return_inverse=True)
    return first, place.reshape(-1)


def _upright(vectors: Any) -> Any:
    return np.stack([vectors[:, 0], -vectors[:, 2], vectors[:, 1]], axis=1)


def _picture(document: dict[str, Any], binary: bytes, shine: dict[str, Any]) -> tuple[bytes | None, str]:
    texture = shine.get("baseColorTexture")
    if texture is None:
        return None, ".png"
    image = document["images"][document["textures"][texture["index"]]["source"]]
    view = document["bufferViews"][image["bufferView"]]
    start = view.get("byteOffset", 0)
    suffix = {"image/jpeg": ".jpg", "image/webp": ".webp"}.get(image.get("mimeType", ""), ".png")
    return binary[start : start + view["byteLength"]], suffix
