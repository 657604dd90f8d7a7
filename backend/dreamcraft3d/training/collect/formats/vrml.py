"""VRML 2.0 as KiCad's part libraries write it: plain shapes with an IndexedFaceSet and a Material, no transforms."""

import re

import numpy as np

from dreamcraft3d.training.collect.arrays import Array
from dreamcraft3d.training.collect.formats.lines import numbers
from dreamcraft3d.training.collect.parts import FormatError, Part

NAMED = re.compile(r"DEF\s+(\S+)\s+Material\s*\{(.*?)\}", re.DOTALL)
COLOUR = re.compile(r"diffuseColor\s+(\S+)\s+(\S+)\s+(\S+)")
MATERIAL = re.compile(r"material\s+(?:USE|DEF)\s+(\S+)")
INDICES = re.compile(r"coordIndex\s*\[(.*?)\]", re.DOTALL)
POINTS = re.compile(r"point\s*\[(.*?)\]", re.DOTALL)

Colour = tuple[float, float, float]


def read_vrml(data: bytes) -> list[Part]:
    """Read a VRML file; a part per shape.

    Raises:
        FormatError: the file is no VRML, or damaged.
    """
    text = data.decode("latin-1")
    if not text.startswith("#VRML"):
        raise FormatError("not a VRML file")
    named = {found[1]: _colour(found[2]) for found in NAMED.finditer(text)}
    parts = [_read_shape(shape, named) for shape in re.split(r"Shape\s*\{", text)[1:]]
    return [part for part in parts if part is not None]


def _read_shape(text: str, named: dict[str, Colour | None]) -> Part | None:
    indices, points = INDICES.search(text), POINTS.search(text)
    if indices is None or points is None:
        return None
    material = MATERIAL.search(text)
    colour = named.get(material[1]) if material else None
    coordinates = points[1].replace(",", " ").split()
    if len(coordinates) % 3:
        raise FormatError("points do not come in threes")
    vertices = np.array(numbers(coordinates, len(coordinates))).reshape(-1, 3)
    return Part(vertices, _triangles(indices[1]), colour=colour or _colour(text))


def _triangles(text: str) -> Array:
    """Fans of the polygons in a list of indices that -1 ends."""
    faces: list[tuple[int, int, int]] = []
    polygon: list[int] = []
    words = text.replace(",", " ").split()
    for index in map(int, numbers(words, len(words))):
        if index >= 0:
            polygon.append(index)
            continue
        faces += [(polygon[0], polygon[k], polygon[k + 1]) for k in range(1, len(polygon) - 1)]
        polygon = []
    return np.array(faces, np.int64).reshape(-1, 3)


def _colour(text: str) -> Colour | None:
    found = COLOUR.search(text)
    if found is None:
        return None
    red, green, blue = numbers(list(found.groups()), 3)
    return red, green, blue
