"""AC3D (`.ac`, and TORCS's `.acc`): text, a tree of objects with textures, materials and polygons.

Format: https://www.inivis.com/ac3d/man/ac3dfileformat.html. Of TORCS's up to four coordinates per corner the first
count. Objects are joined by texture and material.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from dreamcraft3d.training.collect.arrays import Array
from dreamcraft3d.training.collect.formats.lines import Lines, numbers
from dreamcraft3d.training.collect.parts import FormatError, Part, fan

POLYGON, STRIP = 0, 4
"""Lower four bits of a surface's flags; lines are 1 and 2."""

GLASS = 0.7
"""Materials more transparent than it are left out: windows would hide what is behind them."""

DEFAULT = (0.8, 0.8, 0.8, 0.0)


@dataclass(frozen=True)
class _Surface:
    """One polygon: its material, corner indices and texture coordinates."""

    material: int
    corners: list[int]
    uv: list[tuple[float, float]]


@dataclass
class _Object:
    """One object while it is read."""

    matrix: Float[Array, "4 4"]
    texture: str = ""
    repeat: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)
    vertices: Float[Array, "V 3"] = field(default_factory=lambda: np.zeros((0, 3)))
    surfaces: list[_Surface] = field(default_factory=list)
    children: int = 0


@dataclass
class _Group:
    """Surfaces of one texture and material, corner by corner."""

    vertices: list[Float[Array, " 3"]] = field(default_factory=list)
    uv: list[tuple[float, float]] = field(default_factory=list)
    faces: list[tuple[int, int, int]] = field(default_factory=list)


def read_ac3d(data: bytes) -> list[Part]:
    """Read an AC3D file.

    Raises:
        FormatError: the file is no AC3D, or damaged.
    """
    lines, groups = Lines(data), dict[tuple[str, int], _Group]()
    if not lines.next().startswith("AC3D"):
        raise FormatError("not an AC3D file")
    materials: list[tuple[float, float, float, float]] = []
    open_objects: list[_Object] = []  # the way from the root to where the next object hangs
    for line in lines:
        if line.startswith("MATERIAL"):
            materials.append(_material(line))
        elif line.startswith("OBJECT"):
            parent = open_objects[-1] if open_objects else _Object(np.eye(4))
            parent.children -= 1
            current = _read_object(lines, parent.matrix)
            _collect(current, groups)
            open_objects.append(current)
            while open_objects and open_objects[-1].children <= 0:
                open_objects.pop()
    parts = []
    for (texture, number), group in groups.items():
        *colour, transparency = materials[number] if 0 <= number < len(materials) else DEFAULT
        if transparency <= GLASS:
            parts.append(_part(group, texture, (colour[0], colour[1], colour[2])))
    return parts


def _part(group: _Group, texture: str, colour: tuple[float, float, float]) -> Part:
    images = (texture,) if texture else ()
    return Part(np.array(group.vertices), np.array(group.faces), np.array(group.uv), colour, images)


def _material(line: str) -> tuple[float, float, float, float]:
    """Red, green, blue, transparency of `MATERIAL "name" rgb r g b ... trans t`."""
    words = line.split()
    if "rgb" not in words:
        return DEFAULT
    red, green, blue = numbers(words[words.index("rgb") + 1 :], 3)
    transparency = numbers(words[words.index("trans") + 1 :], 1)[0] if "trans" in words else 0.0
    return red, green, blue, transparency


def _read_object(lines: Lines, parent: Float[Array, "4 4"]) -> _Object:
    """Read up to and including the line `kids n`."""
    found, rotation, location = _Object(parent), np.eye(3), np.zeros(3)
    for line in lines:
        word, _, rest = line.partition(" ")
        words = rest.split()
        if word == "texture":
            found.texture = found.texture or _unquoted(rest)
        elif word == "texrep":
            found.repeat = _pair(words)
        elif word == "texoff":
            found.offset = _pair(words)
        elif word == "rot":
            rotation = np.array(numbers(words, 9)).reshape(3, 3).T
        elif word == "loc":
            location = np.array(numbers(words, 3))
        elif word == "data":
            lines.skip_characters(_integer(words))
        elif word == "numvert":
            found.vertices = np.array(lines.vectors(_integer(words), 3)).reshape(-1, 3)
        elif word == "SURF":
            found.surfaces += _read_surface(lines, _integer(words, 16))
        elif word == "kids":
            found.children = _integer(words)
            break
    local = np.eye(4)
    local[:3, :3], local[:3, 3] = rotation, location
    found.matrix = parent @ local
    return found


def _read_surface(lines: Lines, flags: int) -> list[_Surface]:
    """Read one surface, up to its last corner: a polygon, the triangles of a strip, or nothing for lines."""
    material, words = 0, lines.next().split()
    while not words or words[0] != "refs":
        if words and words[0] == "mat":
            material = _integer(words[1:])
        words = lines.next().split()
    rows = lines.vectors(_integer(words[1:]), 3)
    corners, uv = [int(row[0]) for row in rows], [(row[1], row[2]) for row in rows]
    kind = flags & 0xF
    if kind == POLYGON and len(rows) >= 3:
        return [_Surface(material, corners, uv)]
    if kind != STRIP:
        return []
    order = [(k, k + 1, k + 2) if k % 2 == 0 else (k + 1, k, k + 2) for k in range(len(rows) - 2)]
    return [_Surface(material, [corners[k] for k in three], [uv[k] for k in three]) for three in order]


def _collect(found: _Object, groups: dict[tuple[str, int], _Group]) -> None:
    """Add an object's surfaces, in world coordinates, to the groups of their texture and material."""
    world = found.vertices @ found.matrix[:3, :3].T + found.matrix[:3, 3]
    for surface in found.surfaces:
        if not 0 <= min(surface.corners) <= max(surface.corners) < len(world):
            raise FormatError("a surface names a vertex that is not there")
        group = groups.setdefault((found.texture, surface.material), _Group())
        group.faces += fan(len(surface.corners), len(group.vertices))
        group.vertices += [world[corner] for corner in surface.corners]
        (su, sv), (ou, ov) = found.repeat, found.offset
        group.uv += [(u * su + ou, v * sv + ov) for u, v in surface.uv]


def _unquoted(text: str) -> str:
    """The first quoted text, or the whole where there is no quote."""
    text = text.strip()
    return text[1:].split('"')[0] if text.startswith('"') else text


def _pair(words: list[str]) -> tuple[float, float]:
    first, second = numbers(words, 2)
    return first, second


def _integer(words: list[str], base: int = 10) -> int:
    try:
        return int(words[0], base)
    except (IndexError, ValueError) as error:
        raise FormatError(f"an integer is wanted, not {words}") from error
