"""A tiny pack of real objects, written as `training.objects` reads it: two to train on, two held out."""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HOLE = 0.25
"""Radius of the hole in the leaf, in sides of its texture."""
GREY = (90, 90, 90)

BOX_CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * (0.25, 0.5, 0.4)
BOX_FACES = np.array([[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
                      [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]])  # fmt: skip
SHEET_CORNERS = np.array([[-0.5, -0.5, 0.0], [0.5, -0.5, 0.0], [0.5, 0.5, 0.0], [-0.5, 0.5, 0.0]])
SHEET_FACES = np.array([[0, 1, 2], [0, 2, 3]])
SHEET_UV = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])


def write_pack(path: Path, *, without: str = "", index: Any = None) -> Path:
    """The pack; `without` leaves one member out, `index` is written in place of its own."""
    plain, flag = [{"colour": list(GREY)}], [{"colour": [0, 0, 0], "texture": "flag"}]
    leaf = [{"colour": [0, 200, 0], "texture": "leaf", "cutout": True}]
    records = [
        record("test/bar", "prop", plain, held_out=False),
        record("test/flag", "building", flag, held_out=False),
        record("test/leaf", "plant", leaf, held_out=True),
        record("test/stool", "furniture/home", plain, held_out=True),
    ]
    box, sheet = mesh(BOX_CORNERS, BOX_FACES, np.zeros((8, 2))), mesh(SHEET_CORNERS, SHEET_FACES, SHEET_UV)
    members: dict[str, bytes] = {
        "index.json": json.dumps(records if index is None else index).encode(),
        "m/test/bar.npz": box, "m/test/stool.npz": box, "m/test/flag.npz": sheet, "m/test/leaf.npz": sheet,
        "t/flag.jpg": encoded(two_halves(), "JPEG"), "t/leaf.jpg": encoded(green(), "JPEG"),
        "t/leaf.a.png": encoded(with_a_hole(), "PNG"),
    }  # fmt: skip
    write_members(path, {name: data for name, data in members.items() if name != without})
    return path


def record(name: str, kind: str, materials: list[dict[str, Any]], *, held_out: bool) -> dict[str, Any]:
    rights = {"package": "test", "source": "test.obj", "author": "nobody", "licence": "CC0-1.0"}
    return {"id": name, "name": name, "class": kind, **rights, "materials": materials, "held_out": held_out}


def mesh(vertices: NDArray[Any], faces: NDArray[Any], uv: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    stored = np.round(vertices * 65534).astype(np.int16)
    material = np.zeros(len(faces), np.uint8)
    np.savez(buffer, v=stored, f=faces.astype(np.uint16), u=uv.astype(np.float32), m=material)
    return buffer.getvalue()


def two_halves(size: int = 32) -> NDArray[np.uint8]:
    """Red on the left, blue on the right."""
    picture = np.zeros((size, size, 3), np.uint8)
    picture[:, : size // 2, 0] = 255
    picture[:, size // 2 :, 2] = 255
    return picture


def green(size: int = 32) -> NDArray[np.uint8]:
    return np.full((size, size, 3), (0, 200, 0), np.uint8)


def with_a_hole(size: int = 64) -> NDArray[np.uint8]:
    """Opacity of a sheet with a round hole in its middle."""
    centre = (np.arange(size) + 0.5) / size - 0.5
    return np.where(np.hypot(centre[:, None], centre) < HOLE, 0, 255).astype(np.uint8)


def encoded(picture: NDArray[np.uint8], kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return buffer.getvalue()


def write_members(path: Path, members: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
