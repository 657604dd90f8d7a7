"""Wavefront OBJ with MTL, through trimesh."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image
from trimesh.exchange.obj import load_obj
from trimesh.geometry import triangulate_quads
from trimesh.resolvers import Resolver

from dreamcraft3d.training.collect.parts import FormatError, Part
from dreamcraft3d.training.collect.textures import prepare

INVISIBLE = 0.05
"""Opacity (`d`, or 1 - `Tr`) below which a material is left out."""


class _Beside(Resolver):
    """Gives trimesh the files that an OBJ and its MTL name."""

    def __init__(self, read: Callable[[str], bytes | None]) -> None:
        self._read = read

    def get(self, key: str) -> bytes:
        """The file, whose name may follow options (`-s 1 1 1 name`) of a texture."""
        data = self._read(key.split()[-1] if key.startswith("-") else key)
        if data is None:
            raise FileNotFoundError(key)
        return data

    def keys(self) -> list[str]:
        """Nothing is listed."""
        return []

    def write(self, name: str, data: Any) -> None:
        """Nothing is written."""
        raise NotImplementedError

    def namespaced(self, namespace: str) -> "_Beside":
        """There is one folder only."""
        return self


def read_obj(data: bytes, beside: Callable[[str], bytes | None] = lambda _: None) -> list[Part]:
    """Read an OBJ file; a part per material, in the order in which they first occur.

    Args:
        data: the file.
        beside: gives the bytes of a material library or an image that it names; None where there is none.

    Raises:
        FormatError: trimesh does not get through it.
    """
    try:
        found = load_obj(io.BytesIO(data.decode("latin-1").encode()), resolver=_Beside(beside))
        meshes = list(found.get("geometry", {}).values())
        parts = [_part(mesh) for mesh in reversed(meshes)]  # trimesh takes the materials from the end
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"not a readable OBJ: {error}") from error
    return [part for part in parts if part is not None]


def _part(mesh: dict[str, Any]) -> Part | None:
    """One mesh of trimesh's; None where its material is invisible."""
    visual = mesh.get("visual")
    material, uv = getattr(visual, "material", None), getattr(visual, "uv", None)
    settings: dict[str, Any] = getattr(material, "kwargs", None) or {}
    if _opacity(settings) < INVISIBLE:
        return None
    image = getattr(material, "image", None)
    known = isinstance(image, Image.Image) and "file_path" in image.info  # else a placeholder of trimesh's
    texture = prepare(image) if image is not None and known and uv is not None else None
    colour = _colour(settings) if texture is None else None
    vertices = np.asarray(mesh["vertices"], np.float64)
    faces = np.asarray(triangulate_quads(mesh["faces"]), np.int64)
    return Part(vertices, faces, None if uv is None else np.asarray(uv)[:, :2], colour, texture=texture)


def _opacity(settings: dict[str, Any]) -> float:
    if "d" in settings:
        return float(settings["d"][-1])
    return 1.0 - float(settings["tr"][-1]) if "tr" in settings else 1.0


def _colour(settings: dict[str, Any]) -> tuple[float, float, float] | None:
    """The diffuse colour, where there is one of three numbers."""
    colour = settings.get("kd")
    if not isinstance(colour, list) or len(colour) < 3:
        return None
    red, green, blue = (min(max(float(value), 0.0), 1.0) for value in colour[:3])
    return red, green, blue
