"""Meshes from files: GLB, glTF, OBJ, PLY into our frame, with whatever colours they have.

Files are taken as y up with the front towards +z (glTF's frame): (x, y, z) in the file is (z, x, y) here. Texture
coordinates become glTF's (v down); linear colours of glTF (vertex colours, factors) become display-referred. Vertices
that a file doubled along seams are one vertex here.
"""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import trimesh
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from dreamcraft3d.errors import InputError
from dreamcraft3d.export import GREY, TexturedMesh
from dreamcraft3d.export.gltf import container, linear_to_srgb, srgb_to_linear

Array = NDArray[Any]
SUFFIXES = (".glb", ".gltf", ".obj", ".ply")


@dataclass(frozen=True)
class _Part:
    """One geometry of a file: corners F x 3 x 3 in the file's frame, and uvs + image, or colours at the corners."""

    corners: Array
    uvs: Array | None
    image: Array | None
    colours: Array


def load_mesh(path: Path | str) -> TexturedMesh:
    """Reads a mesh, its scene graph flattened.

    A file with several textures gets one atlas of them; in such a file a part without texture gets its mean colour.

    Raises:
        InputError: no such file, not a mesh, or a mesh without faces.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no mesh at {path}.", "Check the path.")
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path.name} is not a mesh that can be read.", f"Give one of: {' '.join(SUFFIXES)}.")
    return _mesh_of(lambda: _read(path), path.name, linear=path.suffix.lower() in (".glb", ".gltf"))


def parse_mesh(data: bytes, suffix: str, name: str) -> TexturedMesh:
    """Read a mesh from the bytes of a GLB or OBJ file alone: nothing that it names outside of itself is opened.

    Args:
        suffix: ".glb" or ".obj". name: what error messages call it.

    Raises:
        InputError: not a mesh, or a mesh without faces.
    """
    return _mesh_of(lambda: _parsed(data, suffix), name, linear=suffix == ".glb")


def _mesh_of(read: Callable[[], Any], name: str, *, linear: bool) -> TexturedMesh:
    """What `read` returns (a scene of trimesh) as one mesh; whatever goes wrong becomes an InputError."""
    try:
        scene = read()
        placed = [(scene.geometry[node], matrix) for matrix, node in map(scene.graph.get, scene.graph.nodes_geometry)]
        placed = [(g, np.asarray(matrix)) for g, matrix in placed if isinstance(g, trimesh.Trimesh) and len(g.faces)]
        parts = [_part(geometry, matrix, linear=linear) for geometry, matrix in placed]
        if parts:
            return _join(parts)
    except Exception as error:
        raise InputError(f"{name} cannot be read as a mesh: {error}", "Export the mesh again, as GLB.") from error
    raise InputError(f"{name} holds no triangles.", "Export the mesh again, as GLB, with its faces.")


def _read(path: Path) -> Any:
    """The scene as trimesh has it."""
    if path.suffix.lower() != ".glb":
        return trimesh.load(path, force="scene", process=False)
    return _parsed(path.read_bytes(), ".glb")


def _parsed(data: bytes, suffix: str) -> Any:
    """The same from bytes."""
    data = _with_materials(data) if suffix == ".glb" else data
    return trimesh.load(io.BytesIO(data), file_type=suffix[1:], force="scene", process=False)


def _with_materials(data: bytes) -> bytes:
    """The same GLB, with a plain material wherever vertex colours have none.

    Without a material trimesh cuts 16-bit colours to their lower byte; with one it hands them over as they are.
    """
    length = int.from_bytes(data[12:16], "little")
    document = json.loads(data[20 : 20 + length])
    bare = [
        p
        for m in document.get("meshes", [])
        for p in m["primitives"]
        if "material" not in p and "COLOR_0" in p["attributes"]
    ]
    if not bare:
        return data
    document.setdefault("materials", []).append({})
    for primitive in bare:
        primitive["material"] = len(document["materials"]) - 1
    return container(document, data[28 + length :])


def normalise(mesh: TexturedMesh, half_extent: float = 0.6) -> tuple[TexturedMesh, Float[Tensor, "4 4"]]:
    """Centres the bounding box on the origin and scales it to be seen whole by the default camera from every side.

    The longest half side becomes `half_extent`, or less: no vertex is farther than 16/15 `half_extent` (0.64; the
    default camera sees a sphere of 3.8 sin 10 deg = 0.66) from the origin. Returns the mesh and the matrix that was
    applied.
    """
    low, high = mesh.vertices.amin(0), mesh.vertices.amax(0)
    centre = 0.5 * (low + high)
    radius = (mesh.vertices - centre).norm(dim=-1).max()
    scale = torch.minimum(half_extent / (0.5 * (high - low).max()), half_extent * 16.0 / 15.0 / radius)
    matrix = torch.eye(4, dtype=mesh.vertices.dtype, device=mesh.vertices.device)
    matrix[:3, :3] *= scale
    matrix[:3, 3] = -scale * centre
    return transform(mesh, matrix), matrix


def transform(mesh: TexturedMesh, matrix: Float[Tensor, "4 4"]) -> TexturedMesh:
    """The mesh under an affine map, p -> M p."""
    vertices = mesh.vertices @ matrix[:3, :3].T + matrix[:3, 3]
    return TexturedMesh(vertices, mesh.faces, mesh.uvs, mesh.texture, mesh.vertex_colours)


def _part(geometry: trimesh.Trimesh, matrix: Array, *, linear: bool) -> _Part:
    """Moves a geometry to its place (a mirror turns its faces) and finds its colours wherever trimesh put them."""
    faces = np.asarray(geometry.faces)
    faces = faces[:, ::-1] if np.linalg.det(matrix[:3, :3]) < 0 else faces
    corners = (np.asarray(geometry.vertices) @ matrix[:3, :3].T + matrix[:3, 3])[faces]
    visual = geometry.visual
    material = getattr(visual, "material", None)
    uv = getattr(visual, "uv", None)
    image = _image(material)
    factor = _factor(material)
    if image is not None and uv is not None:
        uvs = np.asarray(uv, dtype=np.float64)[faces] * [1.0, -1.0] + [0.0, 1.0]
        if not np.allclose(factor, 1.0):
            image = linear_to_srgb(srgb_to_linear(image) * factor)
        return _Part(corners, uvs, image, np.full_like(corners, GREY))
    colours = _vertex_colours(geometry)
    if colours is not None:
        colours = linear_to_srgb(colours * factor) if linear else colours
        return _Part(corners, None, None, colours[faces])
    constant = linear_to_srgb(factor) if linear else factor
    known = material is not None and not isinstance(visual, trimesh.visual.ColorVisuals)
    return _Part(corners, None, None, np.broadcast_to(constant if known else np.full(3, GREY), corners.shape))


def _image(material: Any) -> Array | None:
    """The base colour texture, H x W x 3 in [0, 1]."""
    image = getattr(material, "baseColorTexture", None)
    image = getattr(material, "image", None) if image is None else image
    return None if image is None else np.asarray(image.convert("RGB"), dtype=np.float64) / 255.0


def _factor(material: Any) -> NDArray[np.float64]:
    """The base colour factor in [0, 1]; for OBJ the diffuse colour."""
    factor = getattr(material, "baseColorFactor", None)
    if factor is None and getattr(material, "image", None) is None:
        factor = getattr(material, "diffuse", None)
    if factor is None:
        return np.ones(3)
    return _fraction(np.asarray(factor)[:3])


def _vertex_colours(geometry: trimesh.Trimesh) -> NDArray[np.float64] | None:
    """V x 3 in [0, 1], from vertices or faces, or None."""
    visual: Any = geometry.visual
    if getattr(visual, "kind", None) in ("vertex", "face"):
        return np.asarray(visual.vertex_colors)[:, :3] / 255.0
    stored = getattr(visual, "vertex_attributes", {}).get("color")
    return None if stored is None else _fraction(np.asarray(stored)[:, :3])


def _fraction(values: Array) -> NDArray[np.float64]:
    """Integers as shares of their type's largest."""
    largest = np.iinfo(values.dtype).max if values.dtype.kind in "ui" else 1
    return np.asarray(values / largest, dtype=np.float64)


def _join(parts: list[_Part]) -> TexturedMesh:
    """One mesh in our frame, its vertices welded where position (and, without texture, colour) agree exactly."""
    corners = np.concatenate([part.corners for part in parts])[..., [2, 0, 1]].astype(np.float32)
    if all(part.image is None for part in parts):
        colours = np.concatenate([part.colours for part in parts]).astype(np.float32)
        records, inverse = _unique(np.concatenate([corners, colours], axis=-1).reshape(-1, 6))
        faces = torch.from_numpy(inverse.reshape(-1, 3))
        return TexturedMesh(
            torch.from_numpy(records[:, :3].copy()), faces, vertex_colours=torch.from_numpy(records[:, 3:].copy())
        )
    uvs, texture = (parts[0].uvs, parts[0].image) if len(parts) == 1 else _atlas(parts)
    vertices, inverse = _unique(corners.reshape(-1, 3))
    return TexturedMesh(
        torch.from_numpy(vertices),
        torch.from_numpy(inverse.reshape(-1, 3)),
        uvs=torch.from_numpy(np.asarray(uvs, dtype=np.float32)),
        texture=torch.from_numpy(np.asarray(texture, dtype=np.float32)),
    )


def _unique(rows: Array) -> tuple[Array, NDArray[np.int64]]:
    """Distinct rows in order of first appearance, and where each row went."""
    _, first, inverse = np.unique(rows + 0.0, axis=0, return_index=True, return_inverse=True)  # -0 becomes 0
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return np.ascontiguousarray(rows[first[order]]), rank[inverse.reshape(-1)].astype(np.int64)


def _atlas(parts: list[_Part]) -> tuple[Array, Array]:
    """The parts' textures in a square grid of equal tiles; of a repeating texture each face gets one repetition."""
    side = max(max(part.image.shape[:2]) for part in parts if part.image is not None)
    grid = int(np.ceil(np.sqrt(len(parts))))
    atlas = np.full((grid * side, grid * side, 3), GREY)
    placed = []
    for index, part in enumerate(parts):
        row, column = divmod(index, grid)
        tile = part.colours.mean(axis=(0, 1))[None, None] if part.image is None else part.image
        tile = cv2.resize(np.asarray(tile, dtype=np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
        atlas[row * side : (row + 1) * side, column * side : (column + 1) * side] = tile
        uvs = np.full((*part.corners.shape[:2], 2), 0.5) if part.uvs is None else part.uvs
        uvs = uvs - np.floor(uvs.min(axis=1, keepdims=True) + 1e-6)
        inset = 0.5 / side
        placed.append((np.clip(uvs, inset, 1.0 - inset) + np.array([column, row])) / grid)
    return np.concatenate(placed), atlas
