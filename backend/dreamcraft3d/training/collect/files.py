"""The files of an extracted package, those inside its archives among them, under one name space."""

import fnmatch
import os
import zipfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from itertools import takewhile
from pathlib import Path, PurePosixPath

from dreamcraft3d.training.collect.parts import Part
from dreamcraft3d.training.collect.textures import Texture, read_texture

IMAGES = ("png", "jpg", "jpeg", "tga", "rgb", "rgba", "sgi", "dds", "bmp", "gif", "webp")


class PackageFiles:
    """Read-only files by name.

    Args:
        folder: where the package lies extracted.
        root: a folder within it that names are relative to; files elsewhere keep their whole name.
        archives: a pattern of names of zip files whose members are taken instead; later ones replace files of earlier
            ones. With `mounted`, each lies in a folder of its own name.
    """

    def __init__(self, folder: Path, *, root: str = "", archives: str = "", mounted: bool = False) -> None:
        self._files: dict[str, Path | tuple[zipfile.ZipFile, str]] = {}
        self._zips: list[zipfile.ZipFile] = []
        for path in sorted(folder.rglob("*")):
            if not path.is_file():  # a folder, or a link to what another package holds
                continue
            if not archives:
                self._files[path.relative_to(folder).as_posix().removeprefix(root)] = path
            elif fnmatch.fnmatch(path.name, archives):
                self._mount(path, f"{path.stem}/" if mounted else "")

    def _mount(self, path: Path, prefix: str) -> None:
        archive = zipfile.ZipFile(path)
        self._zips.append(archive)
        for member in archive.infolist():
            if not member.is_dir():
                self._files[prefix + member.filename] = (archive, member.filename)

    def close(self) -> None:
        """Close the archives."""
        for archive in self._zips:
            archive.close()

    def __contains__(self, name: str) -> bool:
        return name in self._files

    @property
    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._files)

    def ending(self, *suffixes: str) -> list[str]:
        """The names with one of these suffixes (".obj"), in any case, sorted."""
        return [name for name in self.names if name.lower().endswith(suffixes)]

    def read(self, name: str) -> bytes:
        """The bytes of a file.

        Raises:
            KeyError: there is no such file.
        """
        place = self._files[name]
        return place.read_bytes() if isinstance(place, Path) else place[0].read(place[1])


class TextureFinder:
    """Finds the image that a mesh names, though such names are seldom exact: folder, case and suffix may differ."""

    def __init__(self, packages: Iterable[PackageFiles]) -> None:
        self._files: dict[str, tuple[PackageFiles, str]] = {}  # lower-case name -> where
        for files in packages:
            for name in files.ending(*(f".{kind}" for kind in IMAGES)):
                self._files.setdefault(name.lower(), (files, name))
        self._stems: dict[str, str] = {}
        self._by_base: dict[str, list[str]] = defaultdict(list)
        for name in self._files:
            self._stems.setdefault(_stem(name), name)
            for key in {PurePosixPath(name).name, _stem(PurePosixPath(name).name)}:
                self._by_base[key].append(name)
        self._load = lru_cache(maxsize=256)(self._load_uncached)

    def find(self, name: str, folder: str) -> str | None:
        """The file that is meant by `name` in a mesh of `folder`.

        In this order: the whole name, in the mesh's folder, the nearest elsewhere; each with its own suffix, then with
        any.
        """
        wanted = name.replace("\\", "/").lower().lstrip("./")
        base = PurePosixPath(wanted).name
        if not base:
            return None
        for key in (wanted, os.path.normpath(f"{folder.lower()}/{wanted}"), f"{folder.lower()}/{base}".lstrip("/")):
            if key in self._files:
                return key
            if _stem(key) in self._stems:
                return self._stems[_stem(key)]
        choice = self._by_base.get(base) or self._by_base.get(_stem(base)) or []
        return min(choice, key=lambda path: (-_common(path, folder.lower()), path), default=None)

    def texture(self, names: Iterable[str], folder: str, *, player_colour: bool = False) -> Texture | None:
        """The first of several images that is there and can be read."""
        for name in names:
            found = self.find(name, folder)
            texture = None if found is None else self._load(found, player_colour)
            if texture is not None:
                return texture
        return None

    def bound(self, part: Part, folder: str, fallback: str = "") -> Part:
        """The part with its texture, if `images` names one that is there; `fallback` is tried last."""
        if part.texture is not None or part.uv is None:
            return part
        names = [*part.images, *([fallback] if fallback else [])]
        texture = self.texture(names, folder, player_colour=part.player_colour)
        return part if texture is None else replace(part, texture=texture)

    def _load_uncached(self, key: str, player_colour: bool) -> Texture | None:
        files, name = self._files[key]
        return read_texture(files.read(name), player_colour=player_colour)


def _stem(name: str) -> str:
    """A name without its suffix."""
    return name.rsplit(".", 1)[0] if "." in PurePosixPath(name).name else name


def _common(first: str, second: str) -> int:
    """Folders that two paths share, from the root on."""
    pairs = zip(PurePosixPath(first).parts, PurePosixPath(second).parts, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
