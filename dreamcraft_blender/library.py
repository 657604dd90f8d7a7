"""The results of a batch as an asset library: .blend files of many assets each, and their catalogues.

    LIBRARY/NAME-001.blend, NAME-002.blend ...      assets with tags, catalogue, licence, author, preview, packed images
    LIBRARY/blender_assets.cats.txt                 catalogues; those of the user stay
    LIBRARY/.NAME.json                              which asset lies where, and which result it was made from

What is there already is left alone: an asset is made anew only when its result or its words in the manifest changed,
and assets of other items and of the user are never touched. Opens files, so it belongs into a Blender of its own (the
panel starts one).
"""

import contextlib
import hashlib
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import bpy
import numpy as np

from . import catalogs, importer
from .pixels import encode_png, levels_of
from .problems import Problem
from .whole_file import write_whole

SHARD = 100
"""Assets per file: few enough to be opened quickly, many enough that thousands of items stay tens of files."""
ITEM, STAMP = "dreamcraft_item", "dreamcraft_stamp"
"""Custom properties of an asset: the item it is of, and what it was made from."""
VIEWS = 4
"""Views side by side in a turntable; the first one is the side of the picture."""
DEFAULT_CATALOG = "DreamCraft"
INDEX_SCHEMA = "library/1"


@dataclass
class Report:
    """What an export did: ids of items. `missing`: those that are not done."""

    library: Path
    added: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)

    @property
    def record(self):
        """For programs."""
        return {**vars(self), "ok": not self.failed, "library": str(self.library)}

    @property
    def sentence(self):
        """For people."""
        parts = [f"{len(self.added)} added", f"{len(self.updated)} updated", f"{len(self.unchanged)} unchanged"]
        parts += [f"{len(self.missing)} not done yet"] if self.missing else []
        parts += [f"{len(self.failed)} failed"] if self.failed else []
        lines = [f"{', '.join(parts)}. {self.library}", *(f"{name}: {why}" for name, why in self.failed.items())]
        return "\n".join(lines)


def export(status, library=None, *, shard=SHARD, told: Callable[[str], None] = lambda text: None) -> Report:
    """Brings a library up to date with what `batch status` says. Raises `Problem`."""
    out = Path(str(status["out"]))
    folder = (Path(library) if library else out / "library").absolute()
    name = out.name.removesuffix("-out") or "batch"
    report = Report(folder)
    done = [record for record in status["items"] if record["state"] == "done" and record["mesh"]]
    report.missing = [record["id"] for record in status["items"] if record not in done]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Problem("read_only", f"Cannot write {folder}: {error.strerror}.", "Choose another --library.") from error
    index = read_index(folder / f".{name}.json")
    paths = {record["id"]: catalog_of(record) for record in done}
    ids = catalogs.add_catalogs(folder, paths.values())
    for file, records in planned(folder, name, done, index, shard, report).items():
        told(f"{file}: {len(records)} assets")
        with opened(folder / file):
            for record in records:
                put(out, record, ids[paths[record["id"]]], report)
            save(folder / file)
        report.files.append(file)
        fine = [record for record in records if record["id"] not in report.failed]
        index |= {record["id"]: {"file": file, "stamp": stamp_of(record)} for record in fine}
        write_index(folder / f".{name}.json", index)
    return report


def catalog_of(record):
    return catalogs.catalog_path(record["catalog"]) or DEFAULT_CATALOG


def stamp_of(record):
    """A name for the result and the words that go with it: equal ones make equal assets."""
    words = {key: record.get(key) for key in ("key", "name", "tags", "catalog", "license", "author", "prompt", "mesh")}
    return hashlib.sha256(json.dumps(words, sort_keys=True).encode()).hexdigest()


def planned(folder, name, done, index, shard, report):
    """What has to be put into which file: new items fill the last file, then new ones."""
    plan: dict[str, list] = {}
    filled: dict[str, int] = {}
    for entry in index.values():
        if (folder / entry["file"]).is_file():
            filled[entry["file"]] = filled.get(entry["file"], 0) + 1
    there = frozenset(filled)
    number = max([1, *(int(file.rpartition("-")[2].partition(".")[0]) for file in filled)])
    for record in done:
        entry = index.get(record["id"])
        if entry is not None and entry["file"] in there:
            if entry["stamp"] == stamp_of(record):
                report.unchanged.append(record["id"])
            else:
                plan.setdefault(entry["file"], []).append(record)
            continue
        while filled.get(file := f"{name}-{number:03}.blend", 0) >= shard:
            number += 1
        filled[file] = filled.get(file, 0) + 1
        plan.setdefault(file, []).append(record)
    return plan


# --- one asset ------------------------------------------------------------------------------------


def put(out, record, catalog, report):
    """An item into the open file; takes the place of what was made of it before."""
    old = [block for block in (*bpy.data.objects, *bpy.data.collections) if block.get(ITEM) == record["id"]]
    if any(block.get(STAMP) == stamp_of(record) for block in old):
        report.unchanged.append(record["id"])
        return
    try:
        check_result(out, record)
        asset = load(out / record["mesh"], record)
    except Problem as problem:
        report.failed[record["id"]] = str(problem)
        return
    kept = old[0].asset_data.catalog_id if old and old[0].asset_data is not None else ""
    for block in old:
        remove(block)
    asset.name = record["name"]
    asset[ITEM], asset[STAMP] = record["id"], stamp_of(record)
    describe(asset, record, kept or catalog)
    show_preview(asset, out / "items" / record["id"])
    (report.updated if old else report.added).append(record["id"])


def check_result(out, record):
    """The files are those that were committed. Raises `Problem`."""
    path, again = out / record["mesh"], "Run the batch again: it makes damaged items anew."
    try:
        marker = json.loads((out / "items" / record["id"] / "result.json").read_text(encoding="utf-8"))
        wanted = marker["outputs"][path.relative_to(out / "items" / record["id"]).as_posix()]["sha256"]
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Problem("bad_model", f"Its result cannot be read: {error}.", again) from error
    if found != wanted:
        raise Problem("bad_model", "Its result is damaged.", again)


def load(path, record):
    """The result as an object; a refined scene of several objects as a collection. It is in no scene."""
    scene = bpy.context.scene
    if path.suffix == ".blend":
        return importer.append_object(path, record["object"])
    if record["kind"] == "generate":
        found = [importer.import_model(path, scene, importer.Placement(record["name"], properties=memory(record)))]
    else:
        found = importer.import_scene(path)
        meshes = [item for item in found if item.type == "MESH"]
        if not meshes:
            raise Problem("empty_model", "Its result has no meshes.", "Look at its log.")
        found = meshes if len(found) == 1 else found
    for item in found:
        for collection in item.users_collection:
            collection.objects.unlink(item)
    if len(found) == 1:
        return found[0]
    whole = bpy.data.collections.new(record["name"])
    for item in found:
        whole.objects.link(item)
    return whole


def memory(record):
    """What an object keeps of how it was made."""
    words = {"preset": record["preset"], "seed": str(record["seed"]), "prompt": record["prompt"]}
    return {f"dreamcraft_{name}": value for name, value in words.items() if value}


def describe(asset, record, catalog):
    """Everything that the Asset Browser shows and searches."""
    asset.asset_mark()
    data = asset.asset_data
    data.catalog_id = catalog
    data.license, data.author = record["license"], record["author"]
    data.description = record["prompt"] or record["name"]
    for tag in (*record["tags"], "DreamCraft"):
        data.tags.new(tag, skip_if_exists=True)


def show_preview(asset, folder):
    """A preview of its own: the first view of the turntable, else the thumbnail, else none."""
    with tempfile.TemporaryDirectory() as place:
        picture = Path(place) / "preview.png"
        if not first_view(folder / "turntable.png", picture):
            picture = folder / "thumbnail.webp"
        if picture.is_file():
            with bpy.context.temp_override(id=asset), contextlib.suppress(RuntimeError):
                bpy.ops.ed.lib_id_load_custom_preview(filepath=str(picture))


def first_view(turntable, target):
    """Cuts a turntable's first view out; says whether there was one."""
    if not turntable.is_file():
        return False
    image = bpy.data.images.load(str(turntable), check_existing=False)
    try:
        width, height = image.size
        side = width // VIEWS
        if not 0 < side <= height:
            return False
        pixels = np.empty(width * height * image.channels, np.float32)
        image.pixels.foreach_get(pixels)
        rows = pixels.reshape(height, width, image.channels)[::-1]
        target.write_bytes(encode_png(levels_of(rows[:side, :side, :3])))
        return True
    finally:
        bpy.data.images.remove(image)


def remove(block):
    """An old asset, with what was only its own."""
    if isinstance(block, bpy.types.Collection):
        parts = list(block.objects)
        bpy.data.collections.remove(block)
    else:
        parts = [block]
    for item in parts:
        mesh = item.data
        bpy.data.objects.remove(item)
        if isinstance(mesh, bpy.types.Mesh):
            importer.remove_mesh(mesh)


# --- files ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def opened(path):
    """The file, or an empty one where there is none yet."""
    try:
        if path.is_file():
            bpy.ops.wm.open_mainfile(filepath=str(path), load_ui=False, use_scripts=False)
        else:
            bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    except RuntimeError as error:
        text = f"Cannot open {path}: {error}."
        raise Problem("bad_library", text, "Move the file away; the next export makes it anew.") from error
    yield


def save(path):
    """Writes the open file; no backup beside it, which the Asset Browser would list a second time."""
    chosen = bpy.context.preferences.filepaths
    before, chosen.save_version = chosen.save_version, 0
    try:
        with contextlib.redirect_stdout(sys.stderr):
            bpy.ops.wm.save_as_mainfile(filepath=str(path), compress=True, relative_remap=False)
    except RuntimeError as error:
        raise Problem("read_only", f"Cannot write {path}: {error}.", "Choose another --library.") from error
    finally:
        chosen.save_version = before


def read_index(path):
    """{item: {file, stamp}}; empty if there is none that can be read: then the files themselves are looked into."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        entries = values["items"] if values["schema"] == INDEX_SCHEMA else {}
        return {str(item): {name: str(entry[name]) for name in ("file", "stamp")} for item, entry in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def write_index(path, index):
    """After each file, so that an export that was interrupted goes on."""
    text = json.dumps({"schema": INDEX_SCHEMA, "items": index}, indent=1)
    write_whole(path, text.encode("utf-8"), remedy="Choose another --library.")
