"""Reads a pack of real objects (`training.collect` makes it): meshes with image textures, made by many people.

A pack is a zip: `index.json` (id, name, class, package, source, author, licence, materials, held_out of each object),
`m/ID.npz` (v: int16 / 65534 = coordinates in the unit box, y up; f: faces; u: texture coordinates; m: material of each
face), `t/HASH.jpg` and, for textures with holes, `t/HASH.a.png`. Objects marked held_out are never trained on.

Holes of cut-out textures (leaves, hair, fences) become holes of the mesh: such faces are cut into small ones, and those
whose middle is transparent are left out. What is left is an ordinary opaque mesh.
"""

import io
import json
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dreamcraft3d.errors import InputError
from dreamcraft3d.training.primitives import Array, Indices
from dreamcraft3d.training.surfaces import Surface, TexturePaint

CUT_FACES = 16_000  # what cut-out faces may become
CUT_TEXELS = 3.0  # longest edge, in texels, below which they are not cut further


@dataclass(frozen=True)
class PackedObject:
    """What the index says of one object."""

    id: str
    name: str
    kind: str
    held_out: bool
    materials: tuple[dict[str, Any], ...]

    @property
    def cut_out(self) -> bool:
        """Whether a texture has holes."""
        return any(material.get("cutout") for material in self.materials)


class ObjectPack:
    """The objects of one file; may be sent to another process.

    Raises:
        InputError: the file is no pack.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.objects = [_packed(record) for record in json.loads(self._archive.read("index.json"))]
        except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
            raise InputError(
                f"{path.name} is no pack of training objects ({error}).",
                "Give the objects.zip that `dreamcraft3d collect-objects` made.",
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "objects": self.objects}

    @cached_property
    def _archive(self) -> zipfile.ZipFile:
        return zipfile.ZipFile(self.path)

    def chosen(self, *, held_out: bool) -> list[PackedObject]:
        """Those to train on, or those to judge by."""
        return [thing for thing in self.objects if thing.held_out == held_out]

    def load(self, thing: PackedObject) -> Surface:
        """The surface, z up, its front (where files have one) towards +x.

        Raises:
            InputError: the pack lacks a part of the object, or a part cannot be read.
        """
        try:
            return self._surface(thing)
        except (OSError, KeyError, ValueError, IndexError, zipfile.BadZipFile) as error:
            raise InputError(
                f"{self.path.name} has no whole object {thing.id} ({error}).",
                "Make the pack again with `dreamcraft3d collect-objects`.",
            ) from error

    def _surface(self, thing: PackedObject) -> Surface:
        with np.load(io.BytesIO(self._archive.read(f"m/{thing.id}.npz"))) as stored:
            vertices = stored["v"].astype(np.float64)[:, [2, 0, 1]] / 65534.0
            faces, uv = stored["f"].astype(np.int64), stored["u"].astype(np.float64)
            material = stored["m"].astype(np.int64)
        images = [self._image(each) for each in thing.materials]
        for index, each in enumerate(thing.materials):
            if each.get("cutout"):
                holes = self._holes(each["texture"])
                vertices, uv, faces, material = _cut(vertices, uv, faces, material, index, holes)
        sizes = [(image.shape[1], image.shape[0]) for image in images]
        starts = np.cumsum([0, *(w * h for w, h in sizes[:-1])])
        layout = torch.tensor([[int(s), w, h] for s, (w, h) in zip(starts, sizes, strict=True)])
        texels = torch.from_numpy(np.concatenate([image.reshape(-1, 3) for image in images]))
        corners = torch.from_numpy(faces)
        coordinates = torch.as_tensor(uv, dtype=torch.float32)
        paint = TexturePaint(corners, coordinates, torch.from_numpy(material), texels, layout)
        return Surface(torch.as_tensor(vertices, dtype=torch.float32), corners, paint)

    def _image(self, material: dict[str, Any]) -> NDArray[np.uint8]:
        if not material.get("texture"):
            return np.array(material["colour"], np.uint8).reshape(1, 1, 3)
        with Image.open(io.BytesIO(self._archive.read(f"t/{material['texture']}.jpg"))) as image:
            return np.array(image.convert("RGB"))

    def _holes(self, texture: str) -> NDArray[np.bool_]:
        with Image.open(io.BytesIO(self._archive.read(f"t/{texture}.a.png"))) as image:
            return np.asarray(image.convert("L")) < 128


def _packed(record: dict[str, Any]) -> PackedObject:
    materials = tuple(record["materials"])
    return PackedObject(record["id"], record["name"], record["class"], bool(record["held_out"]), materials)


def _cut(
    vertices: Array, uv: Array, faces: Indices, material: Indices, cut: int, holes: NDArray[np.bool_]
) -> tuple[Array, Array, Indices, Indices]:
    """The mesh without the holes of material `cut`; its faces become soups of small triangles."""
    chosen = material == cut
    corners = np.concatenate([vertices, uv], axis=1)[faces[chosen]]
    scale = np.array(holes.shape[::-1])
    while len(corners) and 4 * len(corners) <= CUT_FACES:
        edges = np.linalg.norm((corners - np.roll(corners, 1, axis=1))[..., 3:] * scale, axis=-1)
        if edges.max() <= CUT_TEXELS:
            break
        corners = split_faces(corners)
    middle = corners[..., 3:].mean(1) % 1.0
    column = np.minimum((middle[:, 0] * scale[0]).astype(int), scale[0] - 1)
    row = np.minimum(((1.0 - middle[:, 1]) * scale[1]).astype(int), scale[1] - 1)
    corners = corners[~holes[row, column]]
    soup = np.arange(3 * len(corners)).reshape(-1, 3) + len(vertices)
    return (
        np.concatenate([vertices, corners[..., :3].reshape(-1, 3)]),
        np.concatenate([uv, corners[..., 3:].reshape(-1, 2)]),
        np.concatenate([faces[~chosen], soup]),
        np.concatenate([material[~chosen], np.full(len(corners), cut)]),
    )


def split_faces(corners: Array) -> Array:
    """Every triangle (T x 3 x C) into four at the middles of its edges."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    ab, bc, ca = 0.5 * (a + b), 0.5 * (b + c), 0.5 * (c + a)
    parts = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    split: Array = np.concatenate([np.stack(part, axis=1) for part in parts])
    return split
