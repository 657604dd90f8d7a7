"""`blender --command dreamcraft ...`: the extension without a window, for scripts and render farms.

Exit codes: 0 done; 2 the user can fix it (one line that says what and how); 3 the job failed; 130 cancelled; 1 a bug.
Those of `batch` are the backend's own, see `batch_command`.
"""

import argparse
import contextlib
import json
import sys
import traceback
from pathlib import Path

import bpy

from . import api, batch_command
from .problems import Problem

NAME = "dreamcraft"
_handle = None


def run(words):
    """One command line; returns the exit code. A bug of ours is 1, never 0."""
    try:
        return dispatched(words)
    except Exception:
        traceback.print_exc()
        return 1


def dispatched(words):
    """The command that the words name."""
    if words[:1] == ["batch"]:
        return batch_command.run(words[1:])
    parser = argparse.ArgumentParser(
        prog=f"blender --command {NAME}", description="One picture in, one textured object out."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    generate = commands.add_parser("generate", help="turn a picture into an object and save it")
    generate.add_argument("picture", help="PNG, JPEG, WebP, TIFF or BMP of one object")
    generate.add_argument("--out", help="what to write: .blend, or .glb for the model alone (default: PICTURE.blend)")
    generate.add_argument("--into", help="add the object to this .blend instead of an empty one")
    generate.add_argument("--preset", default="preview")
    generate.add_argument("--prompt", default="", help="what it is, in a few words")
    generate.add_argument("--mask", help="white where the object is")
    generate.add_argument("--shape", help="start from this shape: GLB, OBJ, or an object's name in the file of --into")
    generate.add_argument("--seed", type=int, default=0)
    generate.add_argument("--height", type=float, default=1.0, help="of the object, in scene units")
    generate.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings")
    generate.add_argument("--mark-asset", action="store_true")
    refine = commands.add_parser("refine", help="give a mesh of a file a new texture in its own UV map")
    refine.add_argument("file", help=".blend file")
    refine.add_argument("object", help="name of the mesh object")
    refine.add_argument("--reference", help="picture of how it should look (default: its present look)")
    refine.add_argument("--camera", help="name of the camera object that took the picture (default: from the front)")
    refine.add_argument("--slot", type=int, action="append", default=[], help="material slot, from 0; repeatable")
    refine.add_argument("--uv-map", default="")
    refine.add_argument("--faces", default="ALL", help="ALL, SELECTED, or GROUP:NAME")
    refine.add_argument("--strength", type=float, default=1.0)
    refine.add_argument("--mode", default="material", choices=("material", "image", "none"))
    refine.add_argument("--prompt", default="")
    refine.add_argument("--preset", default="preview")
    refine.add_argument("--seed", type=int, default=0)
    refine.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings")
    refine.add_argument("--out", help=".blend to write (default: the file, with -refined in its name)")
    listing = commands.add_parser("jobs", help="list the newest jobs")
    commands.add_parser("batch", help="make many objects from a manifest, and an asset library of them")
    for command in (generate, refine, listing):
        command.add_argument("--json", action="store_true", help="one JSON object on the standard output")
    try:
        given = parser.parse_args(words)
    except SystemExit as end:
        return int(end.code or 0)
    try:
        return {"generate": make, "refine": repaint, "jobs": show_jobs}[given.command](given)
    except Problem as problem:
        return failed(problem, as_json=given.json)
    except KeyboardInterrupt:
        return failed(Problem("cancelled", "Stopped. The job goes on in the backend."), as_json=given.json)


def make(given):
    """Generates and writes the file."""
    picture = Path(given.picture)
    out = Path(given.out) if given.out else picture.with_suffix(".blend")
    if out.suffix.lower() not in (".blend", ".glb"):
        raise Problem("bad_setting", f"{out.name} is neither a .blend nor a .glb.", "Name one of these with --out.")
    open_scene(given.into)
    result = api.generate(
        picture,
        preset=given.preset,
        prompt=given.prompt,
        seed=given.seed,
        settings=dict(map(setting, given.settings)),
        mask=given.mask,
        shape=bpy.data.objects.get(given.shape or "") or given.shape,
        height=given.height,
        location=(0.0, 0.0, 0.0),
        mark_asset=given.mark_asset,
        link=out.suffix.lower() == ".blend",
        on_progress=quiet if given.json else Reporter(),
    )
    save(result, out)
    faces = len(result.object.data.polygons) if result.object is not None else result.report.get("faces")
    name = result.object.name if result.object is not None else ""
    record = {"ok": True, "out": str(out), "job": result.job, "object": name, "faces": faces}
    say(json.dumps(record) if given.json else str(out))
    return 0


def repaint(given):
    """Refines one object of a file and writes a copy of it."""
    source = Path(given.file)
    out = Path(given.out) if given.out else source.with_name(f"{source.stem}-refined.blend")
    if out.suffix.lower() != ".blend":
        raise Problem("bad_setting", f"{out.name} is not a .blend.", "Name one with --out.")
    open_scene(given.file)
    item, camera = (bpy.data.objects.get(name or "") for name in (given.object, given.camera))
    for name, found in ((given.object, item), (given.camera, camera)):
        if name and found is None:
            raise Problem("E_REQUEST", f"There is no object {name} in {source.name}.", "Check the name.")
    result = api.refine(
        item, given.reference, slots=tuple(given.slot), uv_map=given.uv_map, faces=given.faces, camera=camera,
        strength=given.strength, prompt=given.prompt, preset=given.preset, seed=given.seed, mode=given.mode,
        settings=dict(map(setting, given.settings)), on_progress=quiet if given.json else Reporter(),
    )  # fmt: skip
    save(result, out)
    names = {slot: image.name for slot, image in result.images.items()}
    record = {"ok": True, "out": str(out), "job": result.job, "object": item.name, "images": names}
    say(json.dumps(record) if given.json else str(out))
    return 0


def open_scene(path):
    """The file that the object is added to, or an empty one."""
    if not path:
        clear_scene()
        return
    if not Path(path).is_file():
        raise Problem("no_file", f"There is no file {path}.", "Check the path.")
    bpy.ops.wm.open_mainfile(filepath=str(Path(path).absolute()))


def clear_scene():
    """No cube, no camera: only what was asked for."""
    for item in list(bpy.context.scene.objects):
        bpy.data.objects.remove(item)


def save(result, out):
    """Writes the .blend, or the model's file."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix.lower() == ".glb":
            out.write_bytes(result.glb.read_bytes())
        else:
            with contextlib.redirect_stdout(
                sys.stderr
            ):  # Blender says that it saved; our standard output is the result's
                bpy.ops.wm.save_as_mainfile(filepath=str(out.absolute()), compress=True)
    except (OSError, RuntimeError) as error:
        raise Problem("read_only", f"Cannot write {out}: {error}.", "Choose another --out.") from error


def setting(text):
    """KEY=VALUE; the value is JSON, and anything else is taken as a word."""
    key, equals, value = text.partition("=")
    if not equals:
        raise Problem("bad_setting", f"'{text}' is not a setting.", "Write --set coarse_nerf.steps=400.")
    try:
        return key.strip(), json.loads(value)
    except ValueError:
        return key.strip(), value.strip()


def show_jobs(given):
    found = list(api.known_jobs())
    if given.json:
        records = [{"id": job.id, "name": job.name, "state": job.state, "progress": job.overall} for job in found]
        say(json.dumps({"ok": True, "jobs": records}))
    else:
        for job in found:
            say(f"{job.id}  {job.state:9}  {job.overall:4.0%}  {job.name}")
    return 0


def failed(problem, *, as_json):
    """One readable line, and the exit code that fits."""
    fixable = 130 if problem.code == "cancelled" else 2
    code = 3 if problem.code in FAILED else fixable
    if as_json:
        say(json.dumps({"ok": False, "code": problem.code, "error": problem.message, "remedy": problem.remedy}))
    else:
        sys.stderr.write(f"{problem}\n")
    return code


FAILED = {"failed", "object_lost", "crashed", "out_of_memory", "bug", "bad_model", "empty_model"}
"""Codes of jobs that went wrong by themselves, not by what was asked."""


def quiet(_):
    """No progress for programs: they read the one JSON object."""


class Reporter:
    """Progress for people: a line whenever a stage has made ten more percent."""

    def __init__(self):
        self.last = ()

    def __call__(self, job):
        line = (job.state, job.stage, int(job.fraction * 10))
        if line != self.last:
            self.last = line
            sys.stderr.write(f"{job.state} {job.stage or ''} {job.overall:4.0%}\n")
            sys.stderr.flush()


def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def register():
    global _handle
    _handle = bpy.utils.register_cli_command(NAME, run)


def unregister():
    global _handle
    if _handle is not None:
        bpy.utils.unregister_cli_command(_handle)
        _handle = None
