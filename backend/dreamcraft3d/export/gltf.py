"""The GLB writer: one mesh, one material, one embedded PNG.

The file's frame is glTF's (y up, front +z): ours (x, y, z) becomes (y, z, x), so that the object stands upright and
faces the front view in Blender. The texture holds display-referred colours with the light baked in, so the material
adds none of its own: metallic 0, roughness 1, specular 0 (KHR_materials_specular). Normals are smooth and belong to
the vertex, not to the corner: where a seam needs two vertices, both have the same normal and the seam does not show.
"""

import json
import struct
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

import dreamcraft3d
from dreamcraft3d.export.mesh import TexturedMesh
from dreamcraft3d.functional.mesh import vertex_normals

ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963
FLOAT, UNSIGNED_INT = 5126, 5125
LINEAR, LINEAR_MIPMAP_LINEAR, CLAMP_TO_EDGE, REPEAT = 9729, 9987, 33071, 10497

Floats = NDArray[np.floating[Any]]


class _Buffer:
    """The binary chunk and the JSON that describes it, growing together."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, object]] = []
        self.accessors: list[dict[str, object]] = []

    def view(self, content: bytes, target: int | None = None) -> int:
        """Appends bytes (aligned to 4) and returns the index of their view."""
        entry: dict[str, object] = {"buffer": 0, "byteOffset": len(self.data), "byteLength": len(content)}
        if target is not None:
            entry["target"] = target
        self.data += content + bytes(-len(content) % 4)
        self.views.append(entry)
        return len(self.views) - 1

    def vectors(self, values: NDArray[np.float32], *, bounds: bool = False) -> int:
        """An accessor of vertex attributes (N x C float32)."""
        entry: dict[str, object] = {
            "bufferView": self.view(values.astype("<f4").tobytes(), ARRAY_BUFFER),
            "componentType": FLOAT,
            "count": len(values),
            "type": f"VEC{values.shape[1]}",
        }
        if bounds:
            entry["min"], entry["max"] = values.min(axis=0).tolist(), values.max(axis=0).tolist()
        self.accessors.append(entry)
        return len(self.accessors) - 1

    def indices(self, values: NDArray[np.int64]) -> int:
        """An accessor of triangle corners."""
        view = self.view(values.astype("<u4").tobytes(), ELEMENT_ARRAY_BUFFER)
        entry: dict[str, object] = {
            "bufferView": view,
            "componentType": UNSIGNED_INT,
            "count": values.size,
            "type": "SCALAR",
        }
        self.accessors.append(entry)
        return len(self.accessors) - 1


def write_glb(mesh: TexturedMesh, *, name: str = "DreamCraft") -> bytes:
    """The bytes of a GLB file; writing them to disk atomically is the caller's business."""
    vertices = mesh.vertices.detach().cpu().numpy().astype(np.float32)
    faces = mesh.faces.detach().cpu().numpy()
    normals = vertex_normals(mesh.vertices.detach().double().cpu(), mesh.faces.cpu()).numpy().astype(np.float32)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    buffer = _Buffer()
    attributes: dict[str, int] = {}
    material = _material(name)
    document: dict[str, object] = {}
    if mesh.texture is not None and mesh.uvs is not None:
        source, faces, uvs = _split_seams(faces, mesh.uvs.detach().cpu().numpy().astype(np.float32))
        vertices, normals = vertices[source], normals[source]
        attributes["TEXCOORD_0"] = buffer.vectors(uvs)
        png = _png(mesh.texture.detach().cpu().numpy())
        document["images"] = [{"bufferView": buffer.view(png), "mimeType": "image/png", "name": name}]
        inside = bool(((uvs >= 0.0) & (uvs <= 1.0)).all())
        wrap = CLAMP_TO_EDGE if inside else REPEAT
        document["samplers"] = [{"magFilter": LINEAR, "minFilter": LINEAR_MIPMAP_LINEAR, "wrapS": wrap, "wrapT": wrap}]
        document["textures"] = [{"sampler": 0, "source": 0}]
        material["pbrMetallicRoughness"]["baseColorTexture"] = {"index": 0}
    else:
        attributes["COLOR_0"] = buffer.vectors(srgb_to_linear(mesh.colours().detach().cpu().numpy()).astype(np.float32))
    attributes["POSITION"] = buffer.vectors(vertices[:, [1, 2, 0]], bounds=True)
    attributes["NORMAL"] = buffer.vectors(normals[:, [1, 2, 0]])
    primitive = {"attributes": attributes, "indices": buffer.indices(faces), "material": 0, "mode": 4}
    document |= {
        "asset": {"version": "2.0", "generator": f"DreamCraft {dreamcraft3d.__version__}"},
        "extensionsUsed": ["KHR_materials_specular"],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": name}],
        "meshes": [{"primitives": [primitive], "name": name}],
        "materials": [material],
        "accessors": buffer.accessors,
        "bufferViews": buffer.views,
        "buffers": [{"byteLength": len(buffer.data)}],
    }
    return container(document, bytes(buffer.data))


def srgb_to_linear(colours: Floats) -> Floats:
    """The sRGB transfer function: glTF keeps vertex colours linear, and only textures display-referred."""
    return np.where(colours <= 0.04045, colours / 12.92, ((np.maximum(colours, 0.0) + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(colours: Floats) -> Floats:
    """Inverse of `srgb_to_linear`."""
    return np.where(colours <= 0.0031308, colours * 12.92, 1.055 * np.maximum(colours, 0.0) ** (1 / 2.4) - 0.055)


def _material(name: str) -> dict[str, dict[str, object]]:
    return {
        "name": name,  # type: ignore[dict-item]
        "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0},
        "extensions": {"KHR_materials_specular": {"specularFactor": 0.0}},
    }


def _split_seams(
    faces: NDArray[np.int64], uvs: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """One file vertex for each distinct (vertex, uv): their source vertices, the faces between them, their uvs."""
    record = np.zeros(faces.size, dtype=[("vertex", np.int64), ("u", np.float32), ("v", np.float32)])
    record["vertex"], record["u"], record["v"] = faces.reshape(-1), uvs[..., 0].reshape(-1), uvs[..., 1].reshape(-1)
    unique, inverse = np.unique(record, return_inverse=True)
    return unique["vertex"], inverse.reshape(-1, 3), np.stack([unique["u"], unique["v"]], axis=1)


def _png(texture: Floats) -> bytes:
    """8 bits per channel, rounded, colours as they are."""
    levels = np.clip(np.rint(texture * 255.0), 0, 255).astype(np.uint8)
    done, encoded = cv2.imencode(".png", levels[..., ::-1])
    if not done:
        raise ValueError("the texture cannot be encoded as PNG")
    return bytes(encoded)


def container(document: dict[str, object], binary: bytes) -> bytes:
    """Header, JSON chunk padded with spaces, binary chunk padded with zeros."""
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    binary += bytes(-len(binary) % 4)
    total = 12 + 8 + len(text) + 8 + len(binary)
    header = struct.pack("<4sII", b"glTF", 2, total)
    return (
        header + struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\x00") + binary
    )
