"""Objects of Sweet Home 3D's furniture libraries, and of Minetest's home decor: OBJ files described elsewhere."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import PurePosixPath

from dreamcraft3d.training.collect.candidates import Candidate, key_of
from dreamcraft3d.training.collect.files import PackageFiles, TextureFinder
from dreamcraft3d.training.collect.formats.obj import read_obj
from dreamcraft3d.training.collect.parts import Part

CATALOGUE = "PluginFurnitureCatalog.properties"

LICENCES = {"BlendSwap-CC-0": "CC0", "KatorLegaz": "CC-BY-3.0-USA", "Reallusion": "CC-BY-3.0-USA"}
"""Libraries with a licence of their own; the others are CC-BY-3.0."""

TILES = re.compile(r"tiles\s*=\s*\{(.*?)\n?\s*\}", re.DOTALL)
BEFORE, BEHIND = 600, 900
"""Characters around a mesh's name in which its tiles are looked for."""


def sweet_home(files: PackageFiles, _textures: TextureFinder) -> Iterator[Candidate]:
    """List the furniture of each library, as its catalogue names it."""
    for catalogue in (name for name in files.names if PurePosixPath(name).name == CATALOGUE):
        library = PurePosixPath(catalogue).parts[0]
        entries = properties(files.read(catalogue))
        numbers = sorted(key.removeprefix("model#") for key in entries if key.startswith("model#"))
        for number in numbers:
            name = entries.get(f"name#{number}", "")
            mesh = _mesh(files, f"{library}/{entries[f'model#{number}'].lstrip('/')}")
            yield Candidate(
                key_of(f"{library}_{number}_{name}"),
                mesh,
                name,
                entries.get(f"category#{number}", ""),
                _reading(files, mesh),
                author=entries.get(f"creator#{number}", library),
                licence=LICENCES.get(library, "CC-BY-3.0"),
            )


def properties(data: bytes) -> dict[str, str]:
    r"""Read Java properties: `key=value` in Latin-1 with `\uXXXX`."""
    pairs = (line.split("=", 1) for line in data.decode("latin-1").splitlines() if "=" in line and line[0] != "#")
    return {key.strip(): value.strip().encode("latin-1").decode("unicode_escape") for key, value in pairs}


def _mesh(files: PackageFiles, name: str) -> str:
    """The OBJ that stands for a model of another format."""
    if name.lower().endswith(".obj"):
        return name
    folder = PurePosixPath(name).parent
    return next((other for other in files.ending(".obj") if PurePosixPath(other).parent == folder), name)


def _reading(files: PackageFiles, mesh: str) -> Callable[[], list[Part]]:
    folder = PurePosixPath(mesh).parent

    def beside(name: str) -> bytes | None:
        wanted = folder / name.replace("\\", "/")
        if str(wanted) in files:
            return files.read(str(wanted))
        low = wanted.name.lower()
        siblings = (other for other in files.names if PurePosixPath(other).parent == folder)
        found = next((other for other in siblings if PurePosixPath(other).name.lower() == low), None)
        return None if found is None else files.read(found)

    return lambda: read_obj(files.read(mesh), beside)


def home_decor(files: PackageFiles, textures: TextureFinder) -> Iterator[Candidate]:
    """List the OBJ meshes; the Lua code that registers a mesh names the images of its materials, in their order."""
    code = "\n".join(files.read(name).decode("utf-8", "replace") for name in files.ending(".lua"))
    for name in files.ending(".obj"):
        path = PurePosixPath(name)
        tiles = _tiles(code, path.name)

        def read(name: str = name, folder: str = str(path.parent), tiles: list[str] = tiles) -> list[Part]:
            parts = read_obj(files.read(name))
            named = [replace(part, images=(tile,)) for part, tile in zip(parts, tiles, strict=False)]
            return [*(textures.bound(part, folder) for part in named), *parts[len(named) :]]

        yield Candidate(key_of(path.stem), name, path.stem.replace("homedecor_", ""), "home", read)


def _tiles(code: str, mesh: str) -> list[str]:
    """The images in the list of tiles nearest to where the code names a mesh."""
    named = re.search(r'mesh\s*=\s*"' + re.escape(mesh) + '"', code)
    if named is None:
        return []
    start = max(0, named.start() - BEFORE)
    lists = TILES.finditer(code[start : named.end() + BEHIND])
    nearest = min(lists, key=lambda found: abs(found.start() - (named.start() - start)), default=None)
    return [] if nearest is None else re.findall(r'"([A-Za-z0-9_]+\.png)', nearest[1])
