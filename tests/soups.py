"""Meshes for refining, made here: positions and coordinates are formulas, so that every texel has a known answer."""

from collections.abc import Sequence

import cv2
import numpy as np

from dreamcraft3d.refining.coverage import barycentrics, covered_texels
from dreamcraft3d.refining.request import (
    IDENTITY,
    Header,
    Occluders,
    Policies,
    RefineRequest,
    Target,
    Tile,
    TriangleSoup,
    digest,
)


def soup(position, tri, uv, *, slot=0, paint=True) -> TriangleSoup:
    """A soup with flat normals; `slot` and `paint` may be given per triangle."""
    position, tri = np.asarray(position, np.float32), np.asarray(tri, np.int32)
    corners = position[tri].astype(np.float64)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-30)
    count = len(tri)
    return TriangleSoup(
        position=position,
        tri_vertex=tri,
        tri_uv=np.asarray(uv, np.float32).reshape(count, 3, 2),
        tri_normal=np.repeat(normal[:, None], 3, axis=1).astype(np.float32),
        tri_face=np.arange(count, dtype=np.int32),
        tri_slot=np.broadcast_to(np.asarray(slot, np.int16), count).copy(),
        tri_paint=np.broadcast_to(np.asarray(paint, bool), count).copy(),
    )


def together(*parts: TriangleSoup) -> TriangleSoup:
    """Several soups as one."""
    offsets = np.cumsum([0, *(len(part.position) for part in parts[:-1])])
    arrays = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("position", "tri_uv", "tri_normal", "tri_face", "tri_slot", "tri_paint")
    }
    tri = np.concatenate([part.tri_vertex + offset for part, offset in zip(parts, offsets, strict=True)])
    return TriangleSoup(tri_vertex=tri.astype(np.int32), **arrays)


def grid(surface, rows: int, columns: int, *, box=(0.02, 0.02, 0.98, 0.98), **options) -> TriangleSoup:
    """A patch surface(s, t), s and t in [0, 1], with its coordinates in `box` (u0, v0, u1, v1)."""
    s, t = np.meshgrid(np.linspace(0, 1, columns + 1), np.linspace(0, 1, rows + 1))
    number = np.arange(s.size).reshape(s.shape)
    a, b, c, d = (x.reshape(-1) for x in (number[:-1, :-1], number[:-1, 1:], number[1:, 1:], number[1:, :-1]))
    tri = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    uv = np.stack([box[0] + s * (box[2] - box[0]), box[1] + t * (box[3] - box[1])], -1).reshape(-1, 2)
    position = np.stack(surface(s, t), axis=-1).reshape(-1, 3)
    return soup(position, tri, uv[tri], **options)


def sphere(rows: int = 24, columns: int = 48, *, centre=(0.0, 0.0, 0.0), radius=1.0, **options) -> TriangleSoup:
    """A UV sphere, outward; the seam lies at the back (+y)."""

    def surface(s, t):
        angle, height = 2 * np.pi * s + np.pi / 2, np.pi * (t - 0.5)
        x = radius * np.cos(height) * np.cos(angle) + centre[0]
        y = radius * np.cos(height) * np.sin(angle) + centre[1]
        return x, y, radius * np.sin(height) + centre[2]

    return grid(surface, rows, columns, **options)


def card(y: float, *, back: bool = False, **options) -> TriangleSoup:
    """A square in the x-z plane at `y`, looking to the front (-y), or to the back."""
    sign = -1.0 if back else 1.0
    return grid(lambda s, t: (sign * (s - 0.5), np.full_like(s, y), t - 0.5), 8, 8, **options)


def cube(**options) -> TriangleSoup:
    """A cube with six islands in a 3 x 2 layout."""
    sides = []
    for k, (axis, sign) in enumerate([(0, 1), (0, -1), (1, 1), (1, -1), (2, 1), (2, -1)]):
        left, low = (k % 3) / 3 + 0.03, (k // 3) / 2 + 0.03

        def surface(s, t, axis=axis, sign=sign):
            flat = [np.full_like(s, 0.5 * sign)] * 3
            p, q = (axis + 1) % 3, (axis + 2) % 3
            flat[p], flat[q] = sign * (s - 0.5), t - 0.5
            return tuple(flat)

        sides.append(grid(surface, 4, 4, box=(left, low, left + 0.27, low + 0.44), **options))
    return together(*sides)


def mirrored(part: TriangleSoup) -> TriangleSoup:
    """The part and its mirror image in x, on the same texels."""
    other = part.position * np.array([-1, 1, 1], np.float32)
    twin = soup(other, part.tri_vertex[:, ::-1], part.tri_uv[:, ::-1], slot=part.tri_slot, paint=part.tri_paint)
    return together(part, twin)


def five_slots() -> TriangleSoup:
    """A head, two mirrored arms that share texels, a body, a base and a hat: slots 0, 1, 2, 3 and 4."""
    arm = sphere(12, 24, centre=(0.75, 0.0, 0.1), radius=0.25, slot=1)
    return together(
        sphere(16, 32, centre=(0, 0, 0.9), radius=0.35, slot=0),
        mirrored(arm),
        sphere(20, 40, centre=(0, 0, 0.1), radius=0.5, slot=2),
        sphere(12, 24, centre=(0, 0, -0.65), radius=0.3, slot=3),
        sphere(10, 20, centre=(0, 0, 1.4), radius=0.2, slot=4),
    )


def png(pixels) -> bytes:
    """A lossless file of H x W (x 3 or 4) integers, red first."""
    pixels = np.asarray(pixels)
    order = [2, 1, 0, 3][: pixels.shape[-1]] if pixels.ndim == 3 else None
    return bytes(cv2.imencode(".png", pixels if order is None else pixels[..., order])[1])


def noise(height: int, width: int, channels: int = 3, *, seed: int = 0, kind=np.uint8) -> np.ndarray:
    """Random pixels: every unwanted change shows."""
    return np.random.default_rng(seed).integers(0, np.iinfo(kind).max + 1, (height, width, channels), kind)


def request(
    mesh: TriangleSoup,
    images: dict[int, bytes] | dict[int, dict[int, bytes]],
    *,
    size: int = 64,
    matrix: Sequence[Sequence[float]] = IDENTITY,
    target: dict | None = None,
    policies: dict | None = None,
    occluders: Occluders | None = None,
    files: Sequence[bytes] = (),
    **header,
) -> RefineRequest:
    """A request with one image (or images by tile) for each slot in `images`."""
    targets, kept = [], {digest(data): data for data in files}
    for slot, given in images.items():
        tiles = given if isinstance(given, dict) else {1001: given}
        kept |= {digest(data): data for data in tiles.values()}
        records = []
        for number, data in tiles.items():
            height, width = int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")
            if not data.startswith(b"\x89PNG"):
                height = width = size
            records.append(Tile(number=number, width=width, height=height, sha256=digest(data)))
        options = {"udim": len(records) > 1, **(target or {})}
        targets.append(Target(slot=slot, tiles=tuple(records), **options))
    matrix = tuple(tuple(float(v) for v in row) for row in matrix)
    sign = -1 if np.linalg.det(np.array(matrix)[:3, :3]) < 0 else 1
    head = Header(
        targets=tuple(targets), matrix_world=matrix, det_sign=sign, policies=Policies(**(policies or {})), **header
    )
    return RefineRequest(head, mesh, occluders, kept)


def painted(mesh: TriangleSoup, slot: int, size: int, colour_of) -> bytes:
    """The image of a slot whose texels show colour_of(place), the known answer of a refinement; noise elsewhere."""
    inside = np.flatnonzero(mesh.tri_slot == slot)
    corners = mesh.tri_uv[inside].astype(np.float64) * [size, -size] + [0.0, size]
    texel, local = covered_texels(corners, size, size)
    row, column = np.divmod(texel, size)
    weights = barycentrics(corners[local], np.stack([column + 0.5, row + 0.5], 1))
    places = (weights[..., None] * mesh.position[mesh.tri_vertex[inside[local]]]).sum(axis=1)
    pixels = noise(size, size, seed=slot)
    pixels.reshape(-1, 3)[texel[::-1]] = np.rint(255 * colour_of(places[::-1]).clip(0, 1))
    return png(pixels)


def waves(places) -> np.ndarray:
    """Smooth colours of all hues, with a period of about a metre."""
    phase = np.array([0.0, 2.0, 4.0])
    return 0.5 + 0.45 * np.sin(6.0 * places[:, [0, 1, 2]] + 3.0 * places[:, [1, 2, 0]] + phase)
