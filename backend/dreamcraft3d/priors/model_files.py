"""Files of a model: which of a repository's files are needed, what they should contain, and whether they still do.

A model lies in a folder in diffusers layout (`model_index.json`, `unet/`, `vae/` ...) with one file of ours beside it:
`dreamcraft3d-model.json`, the *manifest*, written last, which names every file with its size and checksum. A folder
without it is an unfinished download. Only safetensors are taken: pickled weights can run code. No torch here.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from dreamcraft3d.errors import DreamCraftError
from dreamcraft3d.workspace import atomic_path

__all__ = ["MANIFEST", "Manifest", "ModelFile", "choose", "digest_of", "lacking", "read_manifest", "write_manifest"]

Algorithm = Literal["sha256", "git-sha1"]

MANIFEST = "dreamcraft3d-model.json"
PLAIN = {".json", ".txt", ".model"}
PICKLED = {".bin", ".ckpt", ".pt", ".pth"}
BLOCK = 1 << 20


@dataclass(frozen=True)
class ModelFile:
    """One file: path with slashes below the model's folder, size in bytes, checksum.

    Large files have a SHA-256; small ones have what git calls them (SHA-1 of a header and the content).
    """

    path: str
    size: int
    algorithm: Algorithm
    digest: str

    @property
    def parts(self) -> tuple[str, ...]:
        return PurePosixPath(self.path).parts


@dataclass(frozen=True)
class Manifest:
    """What lies in a model's folder and where it came from (`repository` is empty for an imported folder)."""

    name: str
    repository: str
    revision: str
    variant: str | None
    files: tuple[ModelFile, ...]

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(file.size for file in self.files)


def choose(listing: Iterable[str], components: Iterable[str], variant: str | None) -> list[str]:
    """The files of a repository that are needed: licence, index, and for each component its configuration and weights.

    Weights of the wanted variant are taken where a component has them, otherwise those without one.

    >>> choose(["unet/config.json", "unet/m.fp16.safetensors", "unet/m.safetensors", "unet/m.bin"], ["unet"], "fp16")
    ['unet/config.json', 'unet/m.fp16.safetensors']

    Raises:
        DreamCraftError: a component is missing, or has pickled weights only.
    """
    paths = [PurePosixPath(path) for path in listing]
    chosen = [path for path in paths if len(path.parts) == 1 and _is_about_all(path.name)]
    for component in components:
        inside = [path for path in paths if path.parts[:-1] == (component,)]
        weights = [path for path in inside if path.suffix == ".safetensors"]
        if not inside or (not weights and any(path.suffix in PICKLED for path in inside)):
            lack = "only pickled weights" if inside else "no files"
            raise DreamCraftError(
                f"There are {lack} in '{component}'; a safetensors file is needed.",
                "Choose another model, or convert it with diffusers' save_pretrained and import the folder.",
            )
        found = variant if any(variant_of(path.name) == variant for path in weights) else None
        chosen += [path for path in weights if variant_of(path.name) == found]
        chosen += [path for path in inside if path.suffix in PLAIN and _fits(path.name, found)]
    return sorted(str(path) for path in chosen)


def variant_of(name: str) -> str | None:
    """Variant in the name of a weights file: `model.fp16-00001-of-00002.safetensors` -> fp16."""
    words = re.sub(r"-\d{5}-of-\d{5}", "", name.removesuffix(".safetensors")).split(".")
    return ".".join(words[1:]) or None


def _fits(name: str, variant: str | None) -> bool:
    """Whether a small file is wanted: all but the shard indices of other variants and of pickled weights."""
    if ".index" not in name:
        return True
    words = [word for word in name.split(".")[1:] if word not in ("safetensors", "index", "json")]
    return "bin" not in words and (".".join(words) or None) == variant


def _is_about_all(name: str) -> bool:
    return name == "model_index.json" or name.upper().startswith("LICEN")


def digest_of(path: Path, algorithm: Algorithm, tick: Callable[[int], None] = lambda _: None) -> str:
    """Checksum of a file as hexadecimal digits. `tick` is told the bytes read, and may raise to stop."""
    digest = hashlib.sha256() if algorithm == "sha256" else hashlib.sha1(usedforsecurity=False)
    if algorithm == "git-sha1":
        digest.update(f"blob {path.stat().st_size}\0".encode())
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
            tick(len(block))
    return digest.hexdigest()


def lacking(folder: Path, files: Iterable[ModelFile]) -> list[str]:
    """Files that are missing or of another size (a quick look; `models.verify` reads them)."""
    return [file.path for file in files if _size(folder / file.path) != file.size]


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder, or None where there is none that can be read."""
    try:
        values = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = tuple(ModelFile(**file) for file in values.pop("files"))
        manifest = Manifest(**values, files=files)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return manifest if all(_is_below(file.path) for file in files) else None


def _is_below(path: str) -> bool:
    """Whether a path from a file or a server stays inside the model's folder."""
    pure = PurePosixPath(path)
    return not pure.is_absolute() and ".." not in pure.parts and "\\" not in path and ":" not in path


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Marks the folder as complete."""
    values: Mapping[str, object] = asdict(manifest)
    with atomic_path(folder / MANIFEST) as temporary:
        temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
