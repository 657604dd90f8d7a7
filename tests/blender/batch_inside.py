"""Batches inside Blender: `python batch_inside.py CASE FOLDER`, each case in a process of its own with bpy.

The backend is the real program with a quick worker (tests/batch/quick.py), a process of its own as always.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
for place in (ROOT, ROOT / "tests", ROOT / "tests" / "extension"):
    sys.path.insert(0, str(place))

import pytest  # noqa: E402

from batches import items, write  # noqa: E402

CASES: dict[str, Callable[[Path], None]] = {}


def case(function: Callable[[Path], None]) -> Callable[[Path], None]:
    CASES[function.__name__] = function
    return function


def enabled(folder: Path):
    """The extension registered, with the quick backend named in its preferences: the session."""
    import dreamcraft_blender
    from dreamcraft_blender import preferences, session

    program = folder / "bin" / "dreamcraft3d"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{ROOT / "tests" / "batch" / "quick.py"}" "$@"\n')
    program.chmod(0o755)
    preferences.DEFAULTS.backend_path = str(program)
    os.environ["DREAMCRAFT3D_HOME"] = str(folder / "home")
    dreamcraft_blender.register()
    return session.get()


def alone() -> None:
    """No thread and no child of ours is left."""
    import psutil

    assert threading.active_count() == 1
    end = time.monotonic() + 120.0
    while any(child.status() != psutil.STATUS_ZOMBIE for child in psutil.Process().children(recursive=True)):
        assert time.monotonic() < end, psutil.Process().children(recursive=True)
        time.sleep(0.05)


def until(current, condition, seconds: float = 120.0) -> None:
    """Ticks as the timer would."""
    end = time.monotonic() + seconds
    while not condition():
        current.tick()
        time.sleep(0.01)
        assert time.monotonic() < end, (current.problem, current.batch.view.items)


def ran(folder: Path, *words: object) -> tuple[int, str, str]:
    """`blender --command dreamcraft WORDS`: exit code and both streams, those of children included."""
    from dreamcraft_blender import commands

    kept = os.dup(1), os.dup(2)
    for number, name in ((1, "out"), (2, "err")):
        handle = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, number)
        os.close(handle)
    try:
        code = commands.run([str(word) for word in words])
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        for number, handle in zip((1, 2), kept, strict=True):
            os.dup2(handle, number)
            os.close(handle)
    return code, (folder / "out").read_text(), (folder / "err").read_text()


# --- the command ----------------------------------------------------------------------------------


@case
def the_command_is_the_backends_own(folder: Path) -> None:
    """Output, exit codes, JSON lines: as `dreamcraft3d batch` has them; nothing is left behind."""
    enabled(folder)
    manifest = write(folder, items("a", "poison"))
    assert ran(folder, "batch", "validate", manifest)[:2] == (0, f"2 items are fine. Results would go to "
                                                              f"{folder / 'things-out'}.\n")  # fmt: skip
    code, out, err = ran(folder, "batch", "run", manifest, "--json")
    assert code == 3, err
    assert [json.loads(line)["event"] for line in out.splitlines()] == ["committed", "failed", "summary"]
    assert {json.loads(line)["event"] for line in err.splitlines()} >= {"plan", "started", "end"}
    alone()
    code, out, _ = ran(folder, "batch", "status", manifest)
    assert code == 3 and "1 done, 1 failed" in out
    assert ran(folder, "batch", "retry", manifest)[0] == 3
    assert "No runner" in ran(folder, "batch", "cancel", manifest)[1]
    (folder / "a.png").unlink()
    code, _, err = ran(folder, "batch", "run", manifest)
    assert code == 2 and "no file a.png" in err
    assert ran(folder, "batch", "dance", manifest)[0] == 2
    assert ran(folder, "batch", "--help")[0] == 0
    alone()


@case
def being_ended_ends_the_child(folder: Path) -> None:
    """SIGTERM to Blender: the runner stops at a checkpoint, the code is 5, nobody is left."""
    enabled(folder)
    manifest = write(folder, items("slow", params={"coarse_nerf.steps": 100}))
    checkpoint = folder / "things-out" / "items" / "slow" / "stages" / "coarse_nerf"

    def look(*_: object) -> None:
        if checkpoint.exists():
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            signal.setitimer(signal.ITIMER_REAL, 0.05)

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    code, _, err = ran(folder, "batch", "run", manifest)
    assert code == 5, err
    assert "goes on where it stopped" in err
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    alone()


@case
def a_bug_is_never_a_zero(folder: Path) -> None:
    enabled(folder)
    from dreamcraft_blender import batch_command, commands

    batch_command.passed_through = lambda command: 1 / 0
    code, _, err = ran(folder, "batch", "run", "x.jsonl")
    assert code == 1 and "ZeroDivisionError" in err
    commands.show_jobs = lambda given: 1 / 0
    assert ran(folder, "jobs")[0] == 1


@case
def no_backend_is_told_with_a_way_out(folder: Path) -> None:
    enabled(folder)
    from dreamcraft_blender import api, preferences, session

    preferences.DEFAULTS.backend_path = str(folder / "nowhere")
    session.get().relaunch()
    code, out, err = ran(folder, "batch", "run", "x.jsonl")
    assert (code, out) == (4, "") and "Install it" in err
    code, out, _ = ran(folder, "batch", "export-assets", "x.jsonl", "--json")
    assert code == 4 and json.loads(out)["remedy"]
    with pytest.raises(api.Problem) as caught:
        api.batch("x.jsonl")
    assert caught.value.code == "not_installed"


# --- scripts --------------------------------------------------------------------------------------


@case
def a_script_runs_a_batch(folder: Path) -> None:
    """Waiting and calling back; what failed, what is wrong, and that it can be stopped from elsewhere."""
    current = enabled(folder)
    from dreamcraft_blender import api

    manifest = write(folder, items("a", "b", "poison"))
    seen: list[str] = []
    outcome = api.batch(manifest, only=("[ab]",), on_progress=lambda line: seen.append(line["event"]))
    assert (outcome.code, outcome.counts, outcome.out) == (0, {"done": 2}, folder / "things-out")
    assert seen.count("committed") == 2 and "progress" in seen and seen[0] in ("plan", "started")
    done: list[api.batch_runs.Outcome] = []
    handle = api.batch(manifest, wait=False, on_done=done.append)
    assert not handle.done
    until(current, lambda: handle.done)
    assert done[0].code == 3 and done[0].counts == {"done": 2, "failed": 1}
    status = api.batch(manifest, "status").record
    assert [item["state"] for item in status["items"]] == ["done", "done", "failed"]
    write(folder, [{"id": "a"}, {"id": "a", "image": "a.png"}, {"id": "x", "image": "a.png", "preset": "none"}])
    problems: list[api.Problem] = []
    with pytest.raises(api.Problem) as caught:
        api.batch(manifest, "validate", on_problem=problems.append)
    assert problems == [caught.value]
    assert caught.value.code == "bad_manifest" and len(caught.value.log.splitlines()) == 3 and caught.value.remedy
    write(folder, items("slow", params={"coarse_nerf.steps": 100}))
    handle = api.batch(manifest, wait=False, on_problem=problems.append)
    until(current, lambda: (folder / "things-out" / "items" / "slow" / "stages").exists())
    assert api.batch(manifest, "cancel").record["stopped"]
    until(current, lambda: handle.done)
    assert problems[-1].code == "cancelled"
    alone()


# --- the panel ------------------------------------------------------------------------------------


def shown(current) -> dict[str, str]:
    return {name: line.state for name, line in current.batch.view.items.items()}


@case
def the_panel_follows_a_batch(folder: Path) -> None:
    """From choosing to importing: each item's state, the failed one's reason, the bars; without waiting anywhere."""
    import bpy

    current = enabled(folder)
    ops, watch = bpy.ops.dreamcraft, current.batch
    assert not ops.batch_action.poll()
    rows = [*items("a", "poison"), *items("slow", params={"coarse_nerf.steps": 4})]
    manifest = write(folder, rows)
    assert ops.choose_batch(kind="MANIFEST", filepath=str(manifest)) == {"FINISHED"}
    assert bpy.context.scene.dreamcraft.batch == str(manifest)
    until(current, lambda: shown(current) == {"a": "pending", "poison": "pending", "slow": "pending"})
    state = bpy.context.window_manager.dreamcraft
    until(current, lambda: [line.item for line in state.batch] == ["a", "poison", "slow"])
    assert ops.batch_action(action="validate") == {"FINISHED"}  # waits, because there is no window
    assert watch.note[0] == "validate" and watch.note[1]["items"] == 3
    task = watch.start("run")
    fractions = set()

    def look() -> bool:
        fractions.add((shown(current).get("slow"), watch.view.items["slow"].fraction))
        return bool(task.done and "status" not in watch.runs)

    assert watch.running
    until(current, look)
    assert len({fraction for state, fraction in fractions if state == "running"}) > 2, fractions
    assert shown(current) == {"a": "done", "poison": "failed", "slow": "done"} and not watch.running
    assert watch.view.overall == 1.0 and watch.view.counts == {"done": 2, "failed": 1}
    failure = watch.view.items["poison"].problem
    assert (failure.message, failure.remedy) == ("The picture shows nothing.", "Choose another one.")
    assert watch.picture_of("a", "True").name == "thumbnail.webp"
    assert watch.picture_of("poison", "False").name == "poison.png"
    bpy.context.scene.cursor.location = (1.0, 2.0, 3.0)
    assert ops.import_item(item="a") == {"FINISHED"}
    assert tuple(bpy.data.objects["a"].location) == (1.0, 2.0, 3.0)
    with pytest.raises(RuntimeError, match="no result yet"):
        ops.import_item(item="poison")
    (folder / "poison.png").write_bytes((folder / "a.png").read_bytes())  # the name still asks for trouble
    assert ops.batch_action(action="retry") == {"FINISHED"}
    until(current, lambda: not watch.busy)
    assert shown(current)["poison"] in ("pending", "failed")
    alone()


@case
def a_batch_is_found_again(folder: Path) -> None:
    """Blender ends while a batch runs (another session here): the list, the bars and Cancel work as before."""
    import bpy

    current = enabled(folder)
    from dreamcraft_blender import session

    manifest = write(folder, items("a", "slow", params={"coarse_nerf.steps": 60}))
    bpy.context.scene.dreamcraft.batch = str(manifest)
    current.batch.start("run")
    until(current, lambda: shown(current).get("slow") == "running")
    runner = current.batch.runs["run"].child.pid
    session.unregister()
    session.register()
    bpy.ops.wm.read_homefile(use_empty=True)
    assert bpy.context.scene.dreamcraft.batch == ""  # the file was not saved
    again = session.get()
    assert again is not current
    until(again, lambda: shown(again) == {"a": "done", "slow": "running"} and again.batch.holder is not None)
    assert again.batch.source == manifest and again.batch.holder[1] == runner
    before = again.batch.view.items["slow"].fraction
    until(again, lambda: again.batch.view.items["slow"].fraction > before)
    task = again.batch.start("cancel")
    until(again, lambda: task.done and not again.batch.busy)
    assert shown(again) == {"a": "done", "slow": "started"}
    alone()


@case
def mistakes_of_a_manifest_are_shown(folder: Path) -> None:
    import bpy

    current = enabled(folder)
    manifest = write(folder, [{"id": "a"}, {"id": "b", "image": "b.png", "preset": "none"}])
    bpy.context.scene.dreamcraft.batch = str(manifest)
    until(current, lambda: current.batch.problem is not None)
    problem = current.batch.problem
    assert problem.code == "bad_manifest" and problem.log.splitlines()[0].startswith("line 1: a: ")
    bpy.ops.dreamcraft.dismiss()
    assert current.batch.problem is None
    with pytest.raises(RuntimeError, match="And 1 more"):
        bpy.ops.dreamcraft.batch_action(action="run")
    assert current.batch.problem is not None and not (folder / "things-out").exists()
    with pytest.raises(RuntimeError, match="contact sheet"):
        bpy.ops.dreamcraft.open_sheet()
    bpy.context.scene.dreamcraft.batch = ""
    assert not bpy.ops.dreamcraft.batch_action.poll()


@case
def the_library_is_written_by_another_blender(folder: Path) -> None:
    """The button: the open file stays as it is."""
    import bpy

    current = enabled(folder)
    from dreamcraft_blender import batch_watch
    from dreamcraft_blender.launcher import Installation

    headless = str(ROOT / "tests" / "blender" / "headless.py")
    command = (sys.executable, headless, "--background", "--command", "dreamcraft")
    batch_watch.blender = lambda: Installation(command, "bpy")
    bpy.context.scene.dreamcraft.batch = str(made(folder))
    mine = bpy.data.objects.new("mine", None)
    until(current, lambda: len(shown(current)) == 4)
    assert bpy.ops.dreamcraft.export_library() == {"FINISHED"}
    assert current.batch.note[1]["added"] == ["chair-1", "chair-2", "lamp"]
    assert (folder / "things-out" / "library" / "things-001.blend").is_file()
    assert mine.name == "mine" and len(bpy.data.objects) == 1
    batch_watch.blender = lambda: Installation(("/bin/false",), "none")
    with pytest.raises(RuntimeError, match="Save the preferences"):
        bpy.ops.dreamcraft.export_library()
    alone()


# --- the library ----------------------------------------------------------------------------------

FURNITURE = {"catalog": "furniture/chairs", "license": "CC0", "author": "Ada", "tags": ["wood", "brown"]}


def made(folder: Path) -> Path:
    """A batch of three that is done, with one that failed: its manifest."""
    rows = [{**items("chair-1")[0], **FURNITURE, "name": "Grüner Stuhl"}, *items("chair-2", catalog="furniture/chairs"),
            *items("poison"), *items("lamp", prompt="a lamp")]  # fmt: skip
    manifest = write(folder, rows)
    assert ran(folder, "batch", "run", manifest)[0] == 3
    return manifest


def exported(folder: Path, manifest: Path, *words: object) -> dict:
    code, out, err = ran(folder, "batch", "export-assets", manifest, "--json", *words)
    assert code == 0, (out, err)
    return json.loads(out.splitlines()[-1])


def states(library: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in library.iterdir()}


def appended(library: Path) -> dict:
    """Every asset of a library in an empty file."""
    import bpy

    bpy.ops.wm.read_homefile(use_empty=True)
    for file in sorted(library.glob("*.blend")):
        with bpy.data.libraries.load(str(file), link=False, assets_only=True) as (there, wanted):
            wanted.objects = there.objects
            wanted.collections = there.collections
    return {item.name: item for item in (*bpy.data.objects, *bpy.data.collections) if item.asset_data is not None}


@case
def results_become_assets(folder: Path) -> None:
    """Each with its words, picture and packed images; the user's catalogues stay; the second time nothing happens."""
    enabled(folder)
    manifest, library = made(folder), folder / "things-out" / "library"
    library.mkdir()
    mine = "3f2504e0-4f89-41d3-9a0c-0305e82c3301:furniture/chairs:My Chairs"
    theirs = f"# mine\r\nVERSION 1\r\n\r\n{mine}\r\n00000000-0000-4000-8000-000000000001:Rocks:Rocks"
    (library / "blender_assets.cats.txt").write_bytes(theirs.encode())
    report = exported(folder, manifest, "--shard", 2)
    assert report["added"] == ["chair-1", "chair-2", "lamp"] and report["missing"] == ["poison"]
    assert report["files"] == ["things-001.blend", "things-002.blend"]
    text = (library / "blender_assets.cats.txt").read_bytes().decode()
    assert text.startswith(theirs + "\r\n") and text.count("DreamCraft:DreamCraft\r\n") == 1 and text.endswith("\r\n")
    before = states(library)
    assert set(before) == {"things-001.blend", "things-002.blend", "blender_assets.cats.txt", ".things.json"}
    again = exported(folder, manifest, "--shard", 2)
    assert (again["added"], again["updated"], again["files"]) == ([], [], [])
    assert states(library) == before
    found = appended(library)
    assert set(found) == {"Grüner Stuhl", "chair-2", "lamp"}
    chair = found["Grüner Stuhl"].asset_data
    assert (chair.license, chair.author, chair.catalog_id) == ("CC0", "Ada", mine.partition(":")[0])
    assert [tag.name for tag in chair.tags] == ["wood", "brown", "DreamCraft"]
    assert found["lamp"].asset_data.description == "a lamp" and found["lamp"].asset_data.catalog_id in text
    for item in found.values():
        assert item.type == "MESH" and len(item.data.polygons) == 12 and abs(item.dimensions.z - 1.0) < 1e-5
        (node,) = [n for n in item.data.materials[0].node_tree.nodes if n.type == "TEX_IMAGE"]
        assert node.image.packed_file is not None
        assert item.preview is not None and item.preview.is_image_custom and min(item.preview.image_size) >= 16
    alone()


@case
def only_what_changed_is_made_anew(folder: Path) -> None:
    """Another result, other words, a lost index, a damaged result; what the user did to other assets stays."""
    import bpy

    enabled(folder)
    manifest, library = made(folder), folder / "shelf"
    exported(folder, manifest, "--library", library)
    bpy.ops.wm.open_mainfile(filepath=str(library / "things-001.blend"))
    mine = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
    bpy.data.objects["lamp"].asset_data.catalog_id = mine
    bpy.data.objects["chair-2"].asset_data.catalog_id = mine
    bpy.data.objects["chair-2"].asset_data.author = "me"
    bpy.data.objects.new("my own", bpy.data.meshes.new("my own")).asset_mark()
    bpy.context.preferences.filepaths.save_version = 0
    bpy.ops.wm.save_mainfile()
    rows = [*items("chair-1", name="Stool"), *items("chair-2", catalog="furniture/chairs"), *items("lamp", seed=9),
            *items("table")]  # fmt: skip
    write(folder, rows)
    assert ran(folder, "batch", "run", manifest)[0] == 0
    report = exported(folder, manifest, "--library", library)
    assert (report["updated"], report["added"], report["unchanged"]) == (["chair-1", "lamp"], ["table"], ["chair-2"])
    found = appended(library)
    assert set(found) == {"Stool", "chair-2", "lamp", "table", "my own"}
    assert found["chair-2"].asset_data.author == "me"
    assert found["lamp"].asset_data.catalog_id == mine  # where the user has put it
    assert len(bpy.data.meshes) == 5 and not bpy.data.objects.get("Grüner Stuhl")
    # the index is a help, not the truth
    (library / ".things.json").unlink()
    report = exported(folder, manifest, "--library", library)
    assert (report["added"], report["updated"], len(report["unchanged"])) == ([], [], 4)
    # a damaged result is no asset, and stops nobody
    (library / "things-001.blend").unlink()
    glb = folder / "things-out" / "items" / "lamp" / "result.glb"
    glb.write_bytes(glb.read_bytes() + b"x")
    code, out, err = ran(folder, "batch", "export-assets", manifest, "--library", library, "--json")
    assert (code, list(json.loads(out.splitlines()[-1])["failed"])) == (3, ["lamp"]), (out, err)
    assert set(appended(library)) == {"Stool", "chair-2", "table"}
    (library / "blender_assets.cats.txt").write_text("VERSION 2\n")
    code, _, err = ran(folder, "batch", "export-assets", manifest, "--library", library)
    assert code == 2 and "another version" in err
    assert (library / "blender_assets.cats.txt").read_text() == "VERSION 2\n"


def main() -> None:
    """One case."""
    folder = Path(sys.argv[2])
    os.environ["BLENDER_USER_RESOURCES"] = str(folder / "blender")
    import bpy

    bpy.ops.wm.read_factory_settings(use_empty=True)
    CASES[sys.argv[1]](folder)
    sys.stdout.write("passed\n")
    sys.stdout.flush()
    os._exit(0)  # Blender's own end is not what is tested, and some builds crash in it


if __name__ == "__main__":
    main()
