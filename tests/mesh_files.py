"""Tiny mesh files of the formats that `training.collect` reads, written here: what is read back is known."""

import io
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreamcraft3d.training.collect.parts import FormatError


@dataclass(frozen=True)
class Thing:
    """A mesh with texture coordinates, (0, 0) = bottom left."""

    vertices: np.ndarray
    faces: np.ndarray
    uv: np.ndarray


def ball(rows: int = 6, columns: int = 8) -> Thing:
    """A ball of radius 1 around the origin, as a grid from pole to pole."""
    v, u = (
        grid.ravel() for grid in np.meshgrid(np.linspace(0, 1, rows + 1), np.linspace(0, 1, columns + 1), indexing="ij")
    )
    around, along = 2 * np.pi * u, np.pi * v
    vertices = np.stack([np.sin(along) * np.cos(around), np.cos(along), np.sin(along) * np.sin(around)], axis=1)
    first = (np.arange(rows)[:, None] * (columns + 1) + np.arange(columns)).ravel()
    below = first + columns + 1
    faces = np.concatenate([np.stack([first, below, first + 1], 1), np.stack([first + 1, below, below + 1], 1)])
    return Thing(vertices, faces, np.stack([u, 1 - v], axis=1))


def triangle() -> Thing:
    """One triangle with coordinates that every format stores exactly."""
    return Thing(
        np.array([[0.0, 0, 0], [2, 0, 0], [0, 1, 0.5]]), np.array([[0, 1, 2]]), np.array([[0, 0], [1, 0], [0, 0.5]])
    )


def image(mode: str = "RGB", size: tuple[int, int] = (16, 16), colour: tuple[int, ...] = (200, 100, 50)) -> Image.Image:
    """A plain image; with an alpha channel the left half is transparent."""
    made = Image.new("RGB", size, colour)
    if mode == "RGBA":
        alpha = np.full(size[::-1], 255, np.uint8)
        alpha[:, : size[0] // 2] = 0
        made.putalpha(Image.fromarray(alpha))
    return made


def png(*args, **options) -> bytes:
    """The bytes of `image(...)`."""
    buffer = io.BytesIO()
    image(*args, **options).save(buffer, "PNG")
    return buffer.getvalue()


def write(folder: Path, files: dict[str, bytes | str]) -> Path:
    """Write files below a folder."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    return folder


def assert_damage_is_named(read, data: bytes) -> None:
    """No cut-off file is read as if it were whole, nor ends in another error than the reader's own."""
    read(data)
    for end in range(len(data)):
        with pytest.raises(FormatError):
            read(data[:end])
    with pytest.raises(FormatError):
        read(b"nothing of the kind, but long enough for a header of any of these formats" * 4)


def fixed(text: str, length: int = 64) -> bytes:
    return text.encode().ljust(length, b"\0")


def floats(values) -> bytes:
    return np.asarray(values, "<f4").tobytes()


def obj(thing: Thing, *, library: str = "", material: str = "") -> str:
    lines = [f"mtllib {library}"] * bool(library) + ["o thing"]
    lines += [f"v {x} {y} {z}" for x, y, z in thing.vertices] + [f"vt {u} {v}" for u, v in thing.uv]
    lines += [f"usemtl {material}"] * bool(material)
    lines += ["f " + " ".join(f"{i + 1}/{i + 1}" for i in face) for face in thing.faces]
    return "\n".join(lines) + "\n"


def ac3d(thing: Thing, *, texture: str = "paint.png") -> str:
    rows = "\n".join(f"{x} {y} {z}" for x, y, z in thing.vertices)
    surfaces = "\n".join(
        "SURF 0x20\nmat 0\nrefs 3\n" + "\n".join(f"{i} {thing.uv[i, 0]} {thing.uv[i, 1]}" for i in face)
        for face in thing.faces
    )
    return (
        'AC3Db\nMATERIAL "a" rgb 0.2 0.4 0.6 amb 1 1 1 emis 0 0 0 spec 0 0 0 shi 1 trans 0\nOBJECT world\nkids 1\n'
        f'OBJECT poly\nname "thing"\ntexture "{texture}"\nnumvert {len(thing.vertices)}\n{rows}\n'
        f"numsurf {len(thing.faces)}\n{surfaces}\nkids 0\n"
    )


def spm(thing: Thing, *, texture: str = "paint.png", normals: bool = True) -> bytes:
    """A static mesh of one buffer; the format's v points down."""
    uv = thing.uv * [1, -1] + [0, 1] if texture else None
    rows = b"".join(
        floats(place) + b"\0\0\0\0" * normals + (b"" if uv is None else np.asarray(uv[k], "<f2").tobytes())
        for k, place in enumerate(thing.vertices)
    )
    name = texture.encode()
    head = b"SP" + bytes([(1 << 3) | 2, int(normals)]) + bytes(24) + struct.pack("<HB", 1, len(name)) + name + b"\0"
    sizes = struct.pack("<HHIIH", 1, 1, len(thing.vertices), thing.faces.size, 0)
    return head + sizes + rows + thing.faces.astype("<u2" if len(thing.vertices) > 255 else "u1").tobytes()


def g3d(thing: Thing, *, texture: str = "paint.png", player: bool = False, opacity: float = 1.0) -> bytes:
    """A mesh of two frames, the second of which is elsewhere."""
    head = b"G3D" + struct.pack("<BHB", 4, 1, 0) + fixed("body")
    sizes = struct.pack("<III", 2, len(thing.vertices), thing.faces.size)
    look = struct.pack("<8fII", 0.5, 0.25, 1.0, 0, 0, 0, 1.0, opacity, int(player), int(bool(texture)))
    names = fixed(texture) if texture else b""
    frames = floats(thing.vertices) + floats(thing.vertices + 9) + floats(np.zeros((2, len(thing.vertices), 3)))
    uv = floats(thing.uv) if texture else b""
    return head + sizes + look + names + frames + uv + thing.faces.astype("<u4").tobytes()


def md2(thing: Thing, *, skin: str = "paint.png") -> bytes:
    """One frame, whose positions are steps of 1/64 from -1; coordinates in pixels of a 64 x 32 skin, v down."""
    texels = np.stack([thing.uv[:, 0] * 64, (1 - thing.uv[:, 1]) * 32], 1).round().astype("<i2")
    steps = np.zeros((len(thing.vertices), 4), np.uint8)
    steps[:, :3] = ((thing.vertices + 1) * 64).round().clip(0, 255)
    frame = floats([1 / 64] * 3) + floats([-1] * 3) + fixed("stand", 16) + steps.tobytes()
    corners = thing.faces[:, ::-1]
    triangles = np.stack([corners, corners], 1).astype("<u2")
    at = np.cumsum([68, 64, texels.nbytes, triangles.nbytes, len(frame)]).tolist()
    counts = [1, len(thing.vertices), len(texels), len(triangles), 0, 1]
    header = struct.pack("<16i", 8, 64, 32, len(frame), *counts, *at[:4], at[4], at[4])
    return b"IDP2" + header + fixed(skin) + texels.tobytes() + triangles.tobytes() + frame


def md3(thing: Thing, *, shader: str = "models/paint.tga", name: str = "body") -> bytes:
    uv = thing.uv * [1, -1] + [0, 1]
    triangles, places = thing.faces[:, ::-1].astype("<i4"), np.zeros((len(uv), 4), "<i2")
    places[:, :3] = (thing.vertices * 64).round()
    at = np.cumsum([108, triangles.nbytes, 68, uv.size * 4, places.nbytes]).tolist()
    numbers = [0, 1, 1, len(uv), len(triangles), *at]
    surface = b"IDP3" + fixed(name) + struct.pack("<10i", *numbers) + triangles.tobytes() + fixed(shader, 68)
    surface += floats(uv) + places.tobytes()
    header = struct.pack("<i64s9i", 15, b"thing", 0, 1, 0, 1, 0, 112, 112, 112, 112 + len(surface))
    return b"IDP3" + header + b"\0\0\0\0" + surface


def pie(thing: Thing, *, texture: str = "paint.png") -> str:
    points = "\n".join(f"\t{x} {y} {z}" for x, y, z in thing.vertices)
    polygons = "\n".join(
        "\t200 3 " + " ".join(map(str, face)) + " " + " ".join(f"{thing.uv[i, 0]} {1 - thing.uv[i, 1]}" for i in face)
        for face in thing.faces
    )
    return (
        f"PIE 3\nTYPE 200\nTEXTURE 0 {texture} 256 256\nLEVELS 1\nLEVEL 1\nPOINTS {len(thing.vertices)}\n{points}\n"
        f"POLYGONS {len(thing.faces)}\n{polygons}\n"
    )


def pmd(thing: Thing, points: dict[str, tuple[float, ...]] | None = None) -> bytes:
    """Version 4, one set of coordinates; `points` are translation and quaternion of points without a bone."""
    uv = thing.uv * [1, -1] + [0, 1]
    rows = b"".join(
        floats([*place, 0, 0, 1, *uv[k]]) + b"\xff" * 4 + floats([0] * 4) for k, place in enumerate(thing.vertices)
    )
    body = struct.pack("<III", len(thing.vertices), 1, 0)[:8] + rows
    body += struct.pack("<I", len(thing.faces)) + thing.faces.astype("<u2").tobytes() + struct.pack("<I", 0)
    body += struct.pack("<I", len(points or {}))
    for name, values in (points or {}).items():
        body += struct.pack("<I", len(name)) + name.encode() + floats(values) + b"\xff"
    return b"PSMD" + struct.pack("<II", 4, len(body)) + body


def vrml(thing: Thing, *, colour: str = "0.1 0.2 0.3") -> str:
    points = ", ".join(f"{x} {y} {z}" for x, y, z in thing.vertices)
    indices = ",".join(",".join(map(str, [*face, -1])) for face in thing.faces)
    return (
        "#VRML V2.0 utf8\n"
        f"Shape {{ appearance Appearance {{material DEF PIN Material {{ diffuseColor {colour} }} }} }}\n"
        f"Shape {{ geometry IndexedFaceSet {{ coordIndex [{indices}] coord Coordinate {{ point [{points}] }} }}\n"
        "appearance Appearance { material USE PIN } }\n"
    )
