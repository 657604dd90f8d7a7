"""Which objects are worth learning from, and which are there already."""

import hashlib
import math
from collections import defaultdict

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from dreamcraft3d.training.collect.appearance import Appearance, render
from dreamcraft3d.training.collect.arrays import Array
from dreamcraft3d.training.collect.assembly import Assembly

FLATTEST = 0.02
"""Thickness, as a share of the longest side, below which an object is a sheet."""

FEWEST_FACES, MOST_FACES = 60, 6000
LEAST_COVER = 0.035
"""Share of the smaller view that an object covers at least."""

LEAST_CONNECTED = 0.7
"""Share of the silhouette that its largest piece has at least."""

DARKEST = 14.0
"""Mean brightness, 0..255, of the darkest object that is kept."""

NEAR = 0.012
"""Mean difference, 0..1, of two 24-pixel views below which two objects of a package look the same."""

THUMBNAIL = 24


def shape_fault(thing: Assembly) -> str | None:
    """What is wrong with an object, as far as it shows without drawing it; None: nothing."""
    if not thing.textured and len(thing.materials) < 2:
        return "plain"
    if float(thing.size.min()) < FLATTEST:
        return "flat"
    if len(thing.faces) < FEWEST_FACES:
        return "too few faces"
    return "too many faces" if len(thing.faces) > MOST_FACES else None


def look_fault(seen: Appearance) -> str | None:
    """What is wrong with an object's looks; None: nothing."""
    if seen.covered.mean((1, 2)).min() < LEAST_COVER:
        return "small silhouette"
    pieces, count = ndimage.label(seen.covered[0], np.ones((3, 3)))
    if count > 1 and np.bincount(pieces.ravel())[1:].max() < LEAST_CONNECTED * seen.covered[0].sum():
        return "scattered"
    return "near-black" if 255.0 * seen.colours[0][seen.covered[0]].mean() < DARKEST else None


class Duplicates:
    """The objects of one package that were kept, to compare others with."""

    def __init__(self) -> None:
        self._shapes: set[tuple[str, str]] = set()
        self._groups: dict[str, set[str]] = defaultdict(set)
        self._thumbnails: list[Float[Array, " N"]] = []

    def fault(self, thing: Assembly, seen: Appearance, group: str = "") -> str | None:
        """Why an object is like one that was kept; None: it is new, and is kept.

        Args:
            thing, seen: the object and its looks.
            group: of a group, one object per texture is kept.
        """
        shape, texture, thumbnail = _shape(thing), _textures(thing), _thumbnail(seen)
        if (shape, texture) in self._shapes:
            return "duplicate"
        if group and texture in self._groups[group]:
            return "variant"
        if self._thumbnails and np.abs(np.stack(self._thumbnails) - thumbnail).mean(1).min() < NEAR:
            return "looks like another"
        self._shapes.add((shape, texture))
        self._groups[group].add(texture)
        self._thumbnails.append(thumbnail)
        return None


def fault(thing: Assembly, known: Duplicates, group: str = "") -> str | None:
    """Why an object is not kept; None: it is, and `known` remembers it."""
    found = shape_fault(thing)
    if found is not None:
        return found
    seen = render(thing)
    return look_fault(seen) or known.fault(thing, seen, group)


def _shape(thing: Assembly) -> str:
    """A digest of the rounded positions."""
    return hashlib.sha1(np.round(thing.vertices, 3).astype(np.float32).tobytes()).hexdigest()


def _textures(thing: Assembly) -> str:
    """A digest of all textures."""
    images = [material.texture.image for material in thing.materials if material.texture is not None]
    return hashlib.sha1(b"".join(image.tobytes() for image in images)).hexdigest()


def _thumbnail(seen: Appearance) -> Float[Array, " N"]:
    """Both views, box-filtered."""
    views, size = len(seen.colours), seen.colours.shape[1]
    block = math.ceil(size / THUMBNAIL)
    small = seen.colours.reshape(views, size // block, block, size // block, block, 3).mean((2, 4))
    flat: Float[Array, " N"] = small.reshape(-1)
    return flat
