"""Join the parts of an object into one mesh in the unit box."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from dreamcraft3d.training.collect.arrays import Array
from dreamcraft3d.training.collect.parts import FormatError, Part
from dreamcraft3d.training.collect.textures import Texture

MOST_MATERIALS = 256


@dataclass(frozen=True)
class Material:
    """What a face looks like: RGB in 0..255, which multiplies the texture where there is one."""

    colour: tuple[int, int, int]
    texture: Texture | None = None


@dataclass(frozen=True)
class Assembly:
    """An object: triangles in the unit box [-1/2, 1/2]^3, centred, y up."""

    vertices: Float[Array, "V 3"]
    faces: Int[Array, "F 3"]
    uv: Float[Array, "V 2"]
    material: Int[Array, " F"]
    materials: tuple[Material, ...]

    @property
    def size(self) -> Float[Array, " 3"]:
        """Sides of the bounding box; the longest is 1."""
        sides: Float[Array, " 3"] = np.ptp(self.vertices, axis=0)
        return sides

    @property
    def textured(self) -> bool:
        """Whether any material has a texture."""
        return any(material.texture is not None for material in self.materials)


def assemble(parts: list[Part], *, z_up: bool = False) -> Assembly:
    """Join parts: turned upright, scaled, without unused vertices, equal materials listed once.

    Args:
        parts: of one object, in common coordinates.
        z_up: turn z up to y up: (x, y, z) becomes (x, z, -y).

    Raises:
        FormatError: no face, no extent, or more than 256 materials.
    """
    parts = [_used(part) for part in parts if len(part.faces)]
    if not parts:
        raise FormatError("the object has no faces")
    materials: dict[tuple[object, ...], Material] = {}
    numbers = [_number(materials, part) for part in parts]
    if len(materials) > MOST_MATERIALS:
        raise FormatError(f"{len(materials)} materials are more than {MOST_MATERIALS}")
    starts = np.cumsum([0, *(len(part.vertices) for part in parts[:-1])])
    return Assembly(
        _in_unit_box(np.concatenate([part.vertices for part in parts]), z_up=z_up),
        np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=True)]),
        np.concatenate([np.zeros((len(part.vertices), 2)) if part.uv is None else part.uv for part in parts]),
        np.repeat(numbers, [len(part.faces) for part in parts]),
        tuple(materials.values()),
    )


def _in_unit_box(vertices: Float[Array, "V 3"], *, z_up: bool) -> Float[Array, "V 3"]:
    """Centred, the longest side 1, y up."""
    low, high = vertices.min(0), vertices.max(0)
    if not (extent := float((high - low).max())) > 0.0:
        raise FormatError("the object is a point")
    place: Float[Array, "V 3"] = (vertices - 0.5 * (low + high)) / extent
    return np.stack([place[:, 0], place[:, 2], -place[:, 1]], axis=1) if z_up else place


def _number(materials: dict[tuple[object, ...], Material], part: Part) -> int:
    """The number of a part's material, new or known."""
    red, green, blue = (int(255.0 * min(max(value, 0.0), 1.0)) for value in part.shown_colour)
    texture = part.shown_texture
    key = (red, green, blue, None if texture is None else id(texture.image))
    materials.setdefault(key, Material((red, green, blue), texture))
    return list(materials).index(key)


def _used(part: Part) -> Part:
    """The part without vertices that no face uses."""
    used, faces = np.unique(part.faces, return_inverse=True)
    uv = None if part.uv is None else part.uv[used]
    return replace(part, vertices=part.vertices[used], faces=faces.reshape(-1, 3), uv=uv)
