"""From a manifest to work: paths resolved, settings checked, seeds given. Nothing is written, and nothing starts.

Everything that would stop an item early is found here, for all items at once: a missing picture, an unknown setting,
a folder name that Windows cannot make.
"""

import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dreamcraft3d.batch.manifest import (
    BatchSettings,
    Item,
    ManifestError,
    Problem,
    item_seed,
    parse_items,
    problems_of,
)
from dreamcraft3d.batch.tables import read_rows
from dreamcraft3d.config import GenerateConfig
from dreamcraft3d.errors import DreamCraftError
from dreamcraft3d.presets import configure

__all__ = ["Batch", "Task", "load_batch"]

MAPS = ("reference.mask", "reference.depth", "reference.normal")
"""Settings that name pictures."""

SHAPE = "shape.mesh"
"""The setting that names a mesh; in a manifest the key `shape` does."""

WINDOWS_PATH = 259
DEEPEST = "items//stages/coarse_nerf/.partial-12345678.safetensors"
"""The longest path below the output folder, apart from the id."""


@dataclass(frozen=True)
class Task:
    """An item that can be run.

    Attributes:
        config: all its settings. settings: those that differ from the preset, files apart. inputs: every file that it
        reads, by the key that names it. timeout: seconds.
    """

    item: Item
    config: GenerateConfig
    settings: dict[str, Any]
    inputs: dict[str, Path]
    timeout: float | None

    @property
    def id(self) -> str:
        return self.item.id


@dataclass(frozen=True)
class Batch:
    """A checked manifest. `tasks` are in the order in which they will run, `warnings` are for the user."""

    source: Path
    out: Path
    settings: BatchSettings
    tasks: tuple[Task, ...]
    warnings: tuple[str, ...]

    def folder(self, task_id: str) -> Path:
        """The folder of an item's results."""
        return self.out / "items" / task_id


def load_batch(source: Path, *, out: Path | None = None, decode: bool = False) -> Batch:
    """Reads and checks a manifest: JSONL, CSV, or a folder of pictures; `decode` looks at every pixel of the pictures.

    Raises:
        ManifestError: with everything that is wrong.
    """
    source = source.expanduser().absolute()
    base = source if source.is_dir() else source.parent
    settings = _settings(base / "batch.json")
    rows = read_rows(source)
    parsed, problems = parse_items(rows, settings.defaults)
    place = _out(source, base, settings, out)
    resolver = _Resolver(base, settings, place, decode=decode)
    tasks = [task for line, item in parsed if (task := resolver.task(line, item)) is not None]
    problems += resolver.problems
    if not rows and not problems:
        problems.append(
            Problem(None, None, "The manifest is empty.", 'Write lines such as {"id": "a", "image": "a.png"}.')
        )
    if problems:
        raise ManifestError(sorted(problems, key=lambda problem: problem.line or 0))
    tasks.sort(key=lambda task: -task.item.priority)  # stable: equal priorities keep the order of the manifest
    return Batch(source, place, settings, tuple(tasks), tuple(resolver.warnings))


def _settings(path: Path) -> BatchSettings:
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return BatchSettings()
    except OSError as error:
        raise ManifestError([Problem(None, None, f"Cannot read {path}: {error.strerror}.")]) from error
    try:
        settings = BatchSettings.model_validate_json(text)
    except ValidationError as error:
        raise ManifestError(problems_of(error, BatchSettings, line=None, item="batch.json")) from error
    if "id" in settings.defaults:
        raise ManifestError([Problem(None, "batch.json", "The id cannot have a default.", "Every item has its own.")])
    return settings


def _out(source: Path, base: Path, settings: BatchSettings, out: Path | None) -> Path:
    if out is not None:
        return out.expanduser().absolute()
    if settings.output.folder is not None:
        return Path(os.path.normpath(base / settings.output.folder))
    return source.with_name(f"{source.name if source.is_dir() else source.stem}-out")


class _Resolver:
    """Makes tasks from items, and collects what is wrong."""

    def __init__(self, base: Path, settings: BatchSettings, out: Path, *, decode: bool) -> None:
        self._base, self._batch, self._out, self._decode = base, settings, out, decode
        self.problems: list[Problem] = []
        self.warnings: list[str] = []

    def task(self, line: int, item: Item) -> Task | None:
        found = [Problem(line, item.id, *words) for words in _kind_problems(item)]
        if sys.platform == "win32" and len(f"{self._out}{DEEPEST}{item.id}") > WINDOWS_PATH:
            found.append(Problem(line, item.id, "The path of the results is too long.", "Shorten the id or --out."))
        settings = self._settings(item)
        config = _checked(item.preset, settings, line, item, found)
        inputs = dict(self._inputs(line, item, found))
        self.problems += found
        if found or config is None:
            return None
        given = {key for key, text in (("prompt", item.prompt), ("negative_prompt", item.negative)) if text}
        for key in sorted(given - GenerateConfig.model_fields.keys()):
            self._warn(f"'{key.removesuffix('_prompt')}' is kept with the results, but this version does not read it.")
        timeout = self._batch.limits.timeout_s if item.timeout_s is None else item.timeout_s
        return Task(item, _with_maps(config, inputs), settings, inputs, timeout)

    def _settings(self, item: Item) -> dict[str, Any]:
        """What the item changes in its preset, its seed among it; files are not settings here."""
        settings = {key: value for key, value in item.params.items() if key not in (*MAPS, SHAPE)}
        if item.seed is not None:
            settings["seed"] = item.seed
        settings.setdefault("seed", item_seed(self._batch.batch_seed, item.id))
        words = {"prompt": item.prompt, "negative_prompt": item.negative}
        known = GenerateConfig.model_fields
        return settings | {key: text for key, text in words.items() if text is not None and key in known}

    def _inputs(self, line: int, item: Item, found: list[Problem]) -> Iterator[tuple[str, Path]]:
        named = {"image": item.image, "shape": item.shape, "mesh": item.mesh, "blend": item.blend}
        named |= {key: value for key in MAPS if isinstance(value := item.params.get(key), str)}
        for key, text in named.items():
            if text is None:
                continue
            path = Path(os.path.normpath(self._base / text.replace("\\", os.sep)))
            if (words := self._file_problem(key, text, path)) is not None:
                found.append(Problem(line, item.id, *words))
            yield key, path
            if key in ("mesh", "shape"):
                yield from _companions(path)

    def _file_problem(self, key: str, text: str, path: Path) -> tuple[str, str] | None:
        if not self._batch.allow_outside and not path.is_relative_to(self._base):
            return (
                f"{key}: {text} is outside the folder of the manifest.",
                'Move it inside, or write "allow_outside": true into batch.json.',
            )
        if not path.is_file():
            return f"{key}: there is no file {text}.", _nearby(path)
        if key == "image" or key in MAPS:
            return _picture_problem(key, path, decode=self._decode and key == "image")
        return None

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)


def _kind_problems(item: Item) -> Iterator[tuple[str, str]]:
    """What the kinds need and must not have."""
    if SHAPE in item.params:
        yield f"{SHAPE} cannot be a setting here.", 'Write "shape": "NAME.glb" beside the params.'
    if item.kind == "refine":
        if item.shape is not None:
            yield "An item of kind refine has no shape.", "Drop it, or write kind generate."
        yield from _refine_problems(item)
        return
    if item.image is None:
        yield "An item of kind generate needs an image.", 'Write "image": "NAME.png".'
    for key in ("mesh", "blend", "object", "slots"):
        if getattr(item, key):
            yield f"An item of kind generate has no {key}.", "Drop it, or write kind refine."


def _checked(
    preset: str, settings: dict[str, Any], line: int, item: Item, found: list[Problem]
) -> GenerateConfig | None:
    """The settings as a configuration; None, and a problem more, if they are no good."""
    seed = settings["seed"]
    shared = {key: value for key, value in settings.items() if key != "seed"}
    try:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
            return configure(preset, settings)  # says what is wrong with the seed
        return _configured(preset, json.dumps(shared, sort_keys=True)).model_copy(update={"seed": seed})
    except DreamCraftError as error:
        found.append(Problem(line, item.id, error.message, error.remedy))
        return None


def _refine_problems(item: Item) -> Iterator[tuple[str, str]]:
    if item.blend is not None or item.object is not None:
        yield from _object_problems(item)
        return
    if item.mesh is None:
        yield "An item of kind refine needs a mesh.", 'Write "mesh": "NAME.glb".'
    elif not item.mesh.lower().endswith((".glb", ".obj")):
        yield f"{item.mesh} cannot be refined in place.", "Give a GLB or OBJ file."
    if any(isinstance(slot, str) for slot in item.slots):
        yield "The slots of a mesh file have numbers, not names.", 'Write "slots": [0].'


def _object_problems(item: Item) -> Iterator[tuple[str, str]]:
    if item.blend is None or item.object is None:
        yield "An object of a Blender file needs both names.", 'Write "blend": "NAME.blend", "object": "NAME".'
    elif not item.blend.lower().endswith(".blend"):
        yield f"{item.blend} is no Blender file.", "Give a .blend file, or write mesh for a GLB or OBJ file."
    if item.mesh is not None:
        yield "An item has either a mesh or an object of a Blender file.", "Drop one of them."


def _companions(mesh: Path) -> Iterator[tuple[str, Path]]:
    """What an OBJ file refers to, its material libraries and their images: they are inputs, too."""
    if mesh.suffix.lower() != ".obj":
        return
    for library in _referred(mesh, b"mtllib"):
        yield f"mesh:{library.name}", library
        for image in _referred(library, b"map_"):
            yield f"mesh:{image.name}", image


def _referred(path: Path, keyword: bytes) -> Iterator[Path]:
    try:
        lines = [line.strip() for line in path.read_bytes().splitlines() if line.lstrip().startswith(keyword)]
    except OSError:
        return
    for line in lines:
        name = line.partition(b" ")[2].strip().decode("utf-8", "replace")
        for candidate in (name, name.rpartition(" ")[2]):  # options may stand before the name, and blanks in it
            if candidate and (file := path.parent / candidate).is_file():
                yield file
                break


@lru_cache(maxsize=64)
def _configured(preset: str, settings: str) -> GenerateConfig:
    """Thousands of items share few settings."""
    return configure(preset, json.loads(settings))


def _with_maps(config: GenerateConfig, inputs: dict[str, Path]) -> GenerateConfig:
    if "shape" in inputs:
        config = config.model_copy(update={"shape": config.shape.model_copy(update={"mesh": inputs["shape"]})})
    update = {key.rpartition(".")[2]: path for key, path in inputs.items() if key in MAPS}
    if not update:
        return config
    return config.model_copy(update={"reference": config.reference.model_copy(update=update)})


def _nearby(path: Path) -> str:
    """Another spelling of the name, where that is the mistake (Windows and macOS do not see it)."""
    try:
        names: Iterable[str] = (entry.name for entry in path.parent.iterdir())
        match = next((name for name in names if name.lower() == path.name.lower()), None)
    except OSError:
        match = None
    return f"Did you mean {match}?" if match else "Check the path; it is relative to the manifest."


def _picture_problem(key: str, path: Path, *, decode: bool) -> tuple[str, str] | None:
    from dreamcraft3d.stages.pictures import check_picture, read_picture

    try:
        read_picture(path) if decode else check_picture(path)
    except DreamCraftError as error:
        return f"{key}: {error.message}", error.remedy
    return None
