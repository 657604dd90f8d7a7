"""Objects of 0 A.D.: an actor file names a mesh, its texture, and the actors that are attached to it as props.

Format: https://trac.wildfiregames.com/wiki/Actor_File_Format. Of each group of variants the first that occurs in the
game is taken, so that one actor is one object.
"""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import PurePosixPath

import numpy as np

from dreamcraft3d.training.collect.candidates import Candidate, key_of
from dreamcraft3d.training.collect.files import PackageFiles, TextureFinder
from dreamcraft3d.training.collect.formats.pmd import Attachable, read_pmd
from dreamcraft3d.training.collect.parts import FormatError, Part
from dreamcraft3d.training.collect.textures import Texture

ACTORS, MESHES, SKINS, VARIANTS = "art/actors/", "art/meshes/", "art/textures/skins/", "art/variants/"

SKIP = r"^particle|fndn_|plot_|decal|destruct|waterfall|water_|target_marker|_fnd"
"""Effects, foundations and ground: no objects."""

EFFECTS = ("particle", "props/special/eyecandy/smoke", "props/units/weapons/arrow_front")
DEEPEST = 4  # props of props


@dataclass
class _Look:
    """What the variants of an actor add up to."""

    mesh: str = ""
    texture: str = ""
    props: dict[str, str] = field(default_factory=dict)


def actors(files: PackageFiles, textures: TextureFinder) -> Iterator[Candidate]:
    """List the actors of 0 A.D.'s public archive."""
    world = _World(files, textures)
    for name in files.names:
        actor = name.removeprefix(ACTORS)
        if not name.startswith(ACTORS) or not name.endswith(".xml") or re.search(SKIP, actor):
            continue
        path = PurePosixPath(actor)
        category = "/".join(path.parts[: 2 if len(path.parts) > 2 else 1])
        yield Candidate(key_of(actor[:-4]), name, path.stem, category, partial(world.parts, actor))


class _World:
    """Actors with their meshes and textures; meshes and actor files are read once."""

    def __init__(self, files: PackageFiles, textures: TextureFinder) -> None:
        self._files, self._textures = files, textures
        self._meshes: dict[str, Attachable | None] = {}
        self._documents: dict[str, ElementTree.Element | None] = {}

    def parts(self, actor: str, depth: int = 0) -> list[Part]:
        """The parts of an actor and of its props, in the actor's coordinates."""
        root = self._actor(actor, depth)
        if root is None:
            return []
        look, material = self._look(root), root.findtext("material") or ""
        mesh = self._mesh(look.mesh) if look.mesh else None
        if mesh is None:
            return []
        found = [replace(mesh.part, texture=self._texture(look.texture, material))]
        for point, prop in look.props.items():
            matrix = np.eye(4) if point == "root" else mesh.points.get(f"prop-{point}", mesh.points.get(point))
            if matrix is not None and depth < DEEPEST and not prop.startswith(EFFECTS):
                found += [part.moved(matrix) for part in self.parts(prop, depth + 1)]
        return found

    def _actor(self, actor: str, depth: int) -> ElementTree.Element | None:
        """The actor element, of the first level of quality."""
        root = self._document(ACTORS + actor)
        if root is None or root.tag != "qualitylevels":
            return root
        first = root.find("actor")
        if first is not None and first.get("file"):
            return self._actor(first.get("file", ""), depth + 1) if depth <= DEEPEST else None
        inline = root.find("inline")
        holder = root if inline is None else inline
        inner = holder.find("actor")
        return holder if inner is None else inner

    def _look(self, root: ElementTree.Element) -> _Look:
        look = _Look()
        for group in root.findall("group"):
            variants = group.findall("variant")
            seen = [variant for variant in variants if float(variant.get("frequency") or 0) > 0] or variants
            if seen:
                self._apply(seen[0], look)
        return look

    def _apply(self, variant: ElementTree.Element, look: _Look, depth: int = 0) -> None:
        """Let a variant, after the file that it builds on, change the look."""
        base = self._document(VARIANTS + variant.get("file", "")) if variant.get("file") else None
        if base is not None and depth < DEEPEST:
            self._apply(base, look, depth + 1)
        look.mesh = (variant.findtext("mesh") or look.mesh).strip()
        for texture in variant.iter("texture"):
            if texture.get("name") == "baseTex":
                look.texture = texture.get("file", "")
        for prop in variant.iter("prop"):
            point = prop.get("attachpoint", "")
            if prop.get("actor"):
                look.props[point] = prop.get("actor", "")
            else:
                look.props.pop(point, None)

    def _document(self, name: str) -> ElementTree.Element | None:
        if name not in self._documents:
            try:
                parsed = ElementTree.fromstring(self._files.read(name)) if name in self._files else None
            except ElementTree.ParseError as error:
                raise FormatError(f"{name}: {error}") from error
            self._documents[name] = parsed
        return self._documents[name]

    def _mesh(self, name: str) -> Attachable | None:
        name = name.replace("\\", "/")
        if name not in self._meshes:
            stem = name.rsplit(".", 1)[0]
            names = (f"{name}.cached.pmd", name, f"{stem}.pmd", f"{stem}.dae.cached.pmd")
            found = next((MESHES + each for each in names if MESHES + each in self._files), None)
            self._meshes[name] = None if found is None else read_pmd(self._files.read(found))
        return self._meshes[name]

    def _texture(self, name: str, material: str) -> Texture | None:
        """The skin; its alpha is opacity, the player's colour or something else, as the material says."""
        if not name:
            return None
        name = name.replace("\\", "/")
        stem = name.rsplit(".", 1)[0]
        names = (f"{name}.cached.dds", name, f"{stem}.png.cached.dds", f"{stem}.dds")
        found = [SKINS + each for each in names if SKINS + each in self._files][:1]
        player = "player" in material
        texture = self._textures.texture(found, "", player_colour=player)
        if texture is not None and texture.cutout and "trans" not in material:
            return Texture(texture.image.convert("RGB"))
        return texture
