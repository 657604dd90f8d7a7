"""Objects of Blender files in a batch: what there is to refine is written as a request; the answer makes a new file.

`dreamcraft batch export-request` and `apply-result` are for the backend, which asks a Blender of its own for them.
"""

import argparse
import contextlib
import json
import sys
import zipfile
from pathlib import Path

import bpy

from . import refine_apply, refine_request
from .problems import Problem
from .submission import Picture
from .whole_file import write_whole

REMEDY = "Make room, or choose another --out."


def with_blender(action, words=()):
    """The words of the backend's command, and this Blender's name for items that need one."""
    named = action in ("validate", "run", "retry") and "--blender" not in words and bpy.app.binary_path
    return [*words, "--blender", bpy.app.binary_path] if named else [*words]


def run(words):
    """One of the two commands; prints one JSON object and returns the exit code."""
    parser = argparse.ArgumentParser(prog="blender --command dreamcraft batch")
    commands = parser.add_subparsers(dest="command", required=True)
    exporting = commands.add_parser("export-request", help="write an object of a .blend as a request to refine it")
    exporting.add_argument("--slot", action="append", default=[], help="of its materials, by number or name")
    exporting.add_argument("--reference", help="picture of the object's front; none = its present look")
    applying = commands.add_parser("apply-result", help="write a .blend whose object has the result's images")
    applying.add_argument("--request", required=True)
    applying.add_argument("--result", required=True)
    for command in (exporting, applying):
        command.add_argument("file", help="the .blend")
        command.add_argument("--object", required=True)
        command.add_argument("--to", required=True, help="file to write")
        command.add_argument("--json", action="store_true", help="as it does anyway")
    try:
        given = parser.parse_args(words)
    except SystemExit as end:
        return int(end.code or 0)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Blender tells what it reads and writes
            {"export-request": export_request, "apply-result": apply_result}[given.command](given)
    except Problem as problem:
        answer = {"ok": False, "error": problem.message, "remedy": problem.remedy, "reason": problem.code}
        sys.stdout.write(json.dumps(answer) + "\n")
        return 2
    sys.stdout.write(json.dumps({"ok": True, "to": given.to}) + "\n")
    return 0


def export_request(given):
    """Raises `Problem`."""
    item = object_of(given)
    slots = tuple(slot_of(item, name) for name in given.slot) or tuple(range(len(item.material_slots)))
    picture = None
    if given.reference:
        path = Path(given.reference)
        picture = Picture(path.read_bytes(), path.name)
    request = refine_request.build(item, refine_request.Wish(slots=slots, reference=picture))
    write_whole(Path(given.to), request.packed(), remedy=REMEDY)


def apply_result(given):
    """Raises `Problem`, E_STALE among them."""
    item, target = object_of(given), Path(given.to).absolute()
    with zipfile.ZipFile(given.request) as archive:
        header = json.loads(archive.read("request.json"))
    _, files = refine_apply.read_result(Path(given.result), Path(bpy.app.tempdir) / "images")
    maps = {int(wanted["slot"]): wanted["uv_map"] for wanted in header["targets"]}
    refine_apply.apply(
        bpy.context.scene, item, files,
        fingerprint=header["fingerprint"], slots=tuple(maps), maps=maps, name=item.name,
    )  # fmt: skip
    partial = target.with_name(f".partial-{target.name}")
    try:
        bpy.ops.wm.save_as_mainfile(filepath=str(partial), copy=True, compress=True, relative_remap=True)
        partial.replace(target)
    except (OSError, RuntimeError) as error:
        raise Problem("read_only", f"Cannot write {target.name}: {error}.", REMEDY) from error


def object_of(given):
    """The object in its file, which is opened without running its scripts. Raises `Problem`."""
    path = Path(given.file).absolute()
    try:
        bpy.ops.wm.open_mainfile(filepath=str(path), load_ui=False, use_scripts=False)
    except RuntimeError as error:
        raise Problem("E_REQUEST", f"Blender cannot read {path.name}: {error}", "Save it again in Blender.") from error
    item = bpy.data.objects.get(given.object)
    if item is None:
        names = ", ".join(found.name for found in bpy.data.objects if found.type == "MESH") or "none"
        text = f"There is no object {given.object} in {path.name}."
        raise Problem("E_REQUEST", text, f"Its meshes: {names[:300]}.")
    return item


def slot_of(item, name):
    """The number of a material slot. Raises `Problem`."""
    names = [slot.material.name if slot.material is not None else "" for slot in item.material_slots]
    if name in names:
        return names.index(name)
    if name.isdecimal() and int(name) < max(1, len(names)):
        return int(name)
    text = f"{item.name} has no material slot {name}."
    raise Problem("E_REQUEST", text, f"Its materials: {', '.join(names)[:300] or 'none'}.")
