"""What a package offers, before it is read: a candidate per object, and the plain way to list them."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from dreamcraft3d.training.collect.files import PackageFiles, TextureFinder
from dreamcraft3d.training.collect.parts import Part

LONGEST = 120  # characters of an object's key


@dataclass(frozen=True)
class Candidate:
    """An object that a package may hold.

    Attributes:
        key: its name within the package, letters of a file name only; `PACKAGE/key` is the id.
        source: the file in the package that describes it.
        name: for people.
        category: words that tell what kind of thing it is.
        read: reads its parts; raises FormatError, or KeyError where a file is missing.
        group: of candidates of one group and one texture a single one is kept; empty: each by itself.
        author, licence: where they are known of this object rather than of its package.
    """

    key: str
    source: str
    name: str
    category: str
    read: Callable[[], list[Part]]
    group: str = ""
    author: str = ""
    licence: str = ""


def key_of(text: str) -> str:
    """A text as a key: what is no letter, digit or one of `_.+-` becomes `_`."""
    return re.sub(r"[^A-Za-z0-9_.+-]", "_", text)[:LONGEST]


@dataclass(frozen=True)
class Listing:
    """One candidate per mesh file.

    Attributes:
        reader: reads the file's bytes.
        suffixes: of the mesh files, lower case.
        skip: a pattern that must not occur in the name in lower case.
        unless: a pattern that overrules `skip`.
        with_suffix: the key keeps the suffix.
        short: the key is the file's name without its folders.
        same_texture: of meshes in one folder that have the same texture (poses of a figure) one is kept.
        family: what of a file's name tells variants apart; of files that differ in it only, one is kept.
    """

    reader: Callable[[bytes], list[Part]]
    suffixes: tuple[str, ...]
    skip: str = ""
    unless: str = ""
    with_suffix: bool = False
    short: bool = False
    same_texture: bool = False
    family: str = ""

    def __call__(self, files: PackageFiles, textures: TextureFinder) -> Iterator[Candidate]:
        """List the candidates of a package."""
        for name in files.ending(*self.suffixes):
            low = name.lower()
            if self.skip and re.search(self.skip, low) and not (self.unless and re.search(self.unless, low)):
                continue
            path = PurePosixPath(name)
            label = path.name if self.short else name
            key = key_of(label if self.with_suffix else label.rsplit(".", 1)[0])
            yield Candidate(
                key, name, path.stem, str(path.parent), self._reading(files, textures, name), self._group(path)
            )

    def _group(self, path: PurePosixPath) -> str:
        if self.family:
            return str(path.parent / re.sub(self.family, "#", path.name))
        return str(path.parent) if self.same_texture else ""

    def _reading(self, files: PackageFiles, textures: TextureFinder, name: str) -> Callable[[], list[Part]]:
        folder, stem = str(PurePosixPath(name).parent), name.rsplit(".", 1)[0]

        def read() -> list[Part]:
            return [textures.bound(part, folder, stem) for part in self.reader(files.read(name))]

        return read
