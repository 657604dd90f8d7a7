"""What the extension does inside Blender: `python inside.py CASE FOLDER`, each case in a process of its own with bpy.

A case is a function; what it finds wrong it asserts. The service is the double of tests/extension, a real process on a
real socket.
"""

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MUG = ROOT / "examples" / "mug.png"
CASES: dict[str, Callable[[Path], None]] = {}


def case(function: Callable[[Path], None]) -> Callable[[Path], None]:
    CASES[function.__name__] = function
    return function


def enabled(folder: Path, **manners):
    """The extension registered, and a home for its double: (session module, session, home)."""
    from service import Home

    import dreamcraft_blender
    from dreamcraft_blender import session

    home = Home(folder / "home", **manners)
    os.environ["DREAMCRAFT3D_HOME"] = str(home.folder)
    dreamcraft_blender.register()
    current = session.get()
    current.make_launcher = home.launcher
    current.relaunch()
    return session, current, home


def until(current, condition, seconds=120.0):
    """Ticks as the timer would."""
    import time

    end = time.monotonic() + seconds
    while not condition():
        current.tick()
        current.arrivals.import_due()
        time.sleep(0.01)
        assert time.monotonic() < end, (current.link.state, current.problem, list(current.jobs.values()))


@case
def leaves_nothing_behind(folder: Path) -> None:
    """Twenty times on and off: no class, property, handler, timer, command or thread is left."""
    import bpy

    import dreamcraft_blender

    def inventory() -> dict[str, object]:
        return {
            "classes": {name for name in dir(bpy.types) if "DREAMCRAFT" in name.upper()},
            "scene": set(bpy.types.Scene.bl_rna.properties.keys()),
            "window manager": set(bpy.types.WindowManager.bl_rna.properties.keys()),
            "operators": set(dir(bpy.ops.dreamcraft)) if "dreamcraft" in dir(bpy.ops) else set(),
            "handlers": {
                name: len(h) for name in dir(bpy.app.handlers) if isinstance(h := getattr(bpy.app.handlers, name), list)
            },
            "threads": threading.active_count(),
        }

    before = inventory()
    for turn in range(20):
        dreamcraft_blender.register()
        if turn % 5 == 0:  # also after it was used
            from double import SCHEMA

            from dreamcraft_blender import advanced, session

            session.get()
            advanced.build(SCHEMA, {"coarse_nerf.steps": turn + 1}, turn)
            assert bpy.context.scene.dreamcraft_advanced.coarse_nerf__steps == turn + 1
        dreamcraft_blender.unregister()
    assert inventory() == before, (before, inventory())


@case
def a_script_gets_its_object(folder: Path) -> None:
    """The blocking form: the object stands on the cursor, as high as wanted, and remembers how it was made."""
    import bpy

    _, _, home = enabled(folder)
    from dreamcraft_blender import api

    bpy.context.scene.cursor.location = (1.0, 2.0, 3.0)
    seen = []
    found = api.generate(MUG, prompt="a mug", seed=7, height=0.5, mark_asset=True, on_progress=seen.append)
    item = found.object
    home.close()
    assert item.name == "a mug"
    assert abs(item.dimensions.z - 0.5) < 1e-5
    corners = [item.matrix_world @ vertex.co for vertex in item.data.vertices]
    assert abs(min(corner.z for corner in corners) - 3.0) < 1e-5  # it stands on the cursor
    assert abs(sum(corner.x for corner in corners) / len(corners) - 1.0) < 1e-5
    assert tuple(item.scale) == (1.0, 1.0, 1.0)
    assert all(polygon.use_smooth for polygon in item.data.polygons)
    assert item["dreamcraft_seed"] == "7"
    assert item["dreamcraft_prompt"] == "a mug"
    assert "dreamcraft3d" in item["dreamcraft_versions"]
    assert item.asset_data is not None
    (material,) = item.data.materials
    node = next(node for node in material.node_tree.nodes if node.type == "TEX_IMAGE")
    assert node.image.packed_file is not None
    assert tuple(node.image.size) == (4, 4)
    assert node.image.colorspace_settings.name == "sRGB"
    assert seen[-1].state == "finished"
    assert threading.active_count() == 1


@case
def the_button_makes_what_the_script_makes(folder: Path) -> None:
    """bpy.ops.dreamcraft.generate(wait=True) against api.generate."""
    import bpy

    _, current, home = enabled(folder)
    from dreamcraft_blender import api

    form = bpy.context.scene.dreamcraft
    form.picture = bpy.data.images.load(str(MUG))
    form.seed, form.height, form.prompt = 7, 0.5, "a mug"
    assert bpy.ops.dreamcraft.generate(wait=True) == {"FINISHED"}
    button = bpy.context.view_layer.objects.active
    script = api.generate(
        form.picture,
        seed=7,
        height=0.5,
        prompt="a mug",
    ).object
    home.close()
    assert button["dreamcraft_job"] != script["dreamcraft_job"]
    for name in ("dreamcraft_seed", "dreamcraft_settings", "dreamcraft_preset", "dreamcraft_prompt"):
        assert button[name] == script[name], name
    assert [v.co[:] for v in button.data.vertices] == [v.co[:] for v in script.data.vertices]
    assert all(pending.imported for pending in form.pending)
    until(current, lambda: len(bpy.context.window_manager.dreamcraft.jobs) == 2)


@case
def the_timer_brings_it_and_follows_it_live(folder: Path) -> None:
    """Not waiting: ticks bring a live shape first, and the final object takes its place, with its transform."""
    import bpy

    _, current, home = enabled(folder, seconds=2.0)
    from dreamcraft_blender import jobs
    from dreamcraft_blender.operators import sent, submission_of

    form = bpy.context.scene.dreamcraft
    form.picture = bpy.data.images.load(str(MUG))
    task = current.run(current.submit(submission_of(bpy.context.scene, {})), done=lambda job: sent("Scene", job))
    until(current, lambda: "mug (live)" in bpy.data.objects)
    assert task.done
    bpy.data.objects["mug (live)"].location.x = 5.0  # the user moves it
    until(current, lambda: form.pending[0].imported)
    home.close()
    assert "mug (live)" not in bpy.data.objects
    assert bpy.data.objects["mug"].location.x == 5.0
    assert len(bpy.data.meshes) == len({item.data for item in bpy.data.objects if item.type == "MESH"})
    assert len(bpy.data.images) == 2  # the picture, the texture: no leftovers of the live shapes
    assert jobs.ACTIVE


@case
def a_saved_file_finds_its_job(folder: Path) -> None:
    """Saved in the middle, Blender closed (another session), opened again: the object comes."""
    import bpy

    session, current, home = enabled(folder, seconds=3.0)
    from dreamcraft_blender.operators import sent, submission_of

    form = bpy.context.scene.dreamcraft
    form.picture = bpy.data.images.load(str(MUG))
    form.live = False
    task = current.run(current.submit(submission_of(bpy.context.scene, {})), done=lambda job: sent("Scene", job))
    until(current, lambda: task.done)
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "middle.blend"))
    session.unregister()
    session.register()
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.wm.open_mainfile(filepath=str(folder / "middle.blend"))
    again = session.get()
    again.make_launcher = home.launcher
    again.relaunch()
    until(again, lambda: "mug" in bpy.data.objects)
    home.close()
    assert bpy.context.scene.dreamcraft.pending[0].imported
    assert "token" not in (folder / "middle.blend").read_bytes().decode("latin-1").lower() or not secret_in(
        folder, home
    )


def secret_in(folder: Path, home) -> bool:
    return home.state is not None and home.state.token.encode() in (folder / "middle.blend").read_bytes()


@case
def one_undo_step(folder: Path) -> None:
    """The import can be undone and redone, and undo does not forget what the scene waits for."""
    import bpy

    _, current, home = enabled(folder)
    bpy.context.preferences.edit.use_global_undo = True
    bpy.ops.ed.undo_push(message="start")
    form = bpy.context.scene.dreamcraft
    form.picture = bpy.data.images.load(str(MUG))
    form.live = False
    bpy.ops.ed.undo_push(message="picture")
    from dreamcraft_blender.operators import sent, submission_of

    current.run(current.submit(submission_of(bpy.context.scene, {})), done=lambda job: sent("Scene", job))
    until(current, lambda: "mug" in bpy.data.objects)
    bpy.ops.ed.undo()
    assert "mug" not in bpy.data.objects
    bpy.ops.ed.redo()
    assert "mug" in bpy.data.objects
    home.close()


@case
def every_refusal_has_a_remedy(folder: Path) -> None:
    """No picture, no mask, no backend, offline, read-only: each as a report with its cure, never a traceback."""
    import bpy

    _, current, home = enabled(folder)
    from dreamcraft_blender import pictures, upkeep
    from dreamcraft_blender.problems import Problem

    form = bpy.context.scene.dreamcraft
    assert not bpy.ops.dreamcraft.generate.poll()

    def refused(code: str, action: Callable[[], object]) -> None:
        try:
            action()
        except Problem as problem:
            found = problem
        except RuntimeError as error:  # an operator's report of an error
            found = current.problem
            assert found is not None, error  # noqa: PT017
            assert found.remedy in str(error), error  # noqa: PT017
        assert found.code == code, (found.code, str(found))
        assert found.remedy, code

    form.picture = bpy.data.images.load(str(MUG))
    form.mask_source = "IMAGE"
    refused("bad_mask", lambda: bpy.ops.dreamcraft.generate(wait=True))
    form.mask_image = bpy.data.images.new("small", 8, 8)
    refused("bad_mask", lambda: bpy.ops.dreamcraft.generate(wait=True))
    form.mask_image = None
    bpy.ops.dreamcraft.edit_mask()
    assert tuple(form.mask_image.size) == tuple(form.picture.size)
    assert pictures.mask_of(form, pictures.picture_of(form.picture)).startswith(b"\x89PNG")
    form.mask_source = "AUTO"
    gone = bpy.data.images.load(str(MUG), check_existing=False)
    gone.filepath = str(folder / "gone.png")
    gone.reload()
    form.picture = gone
    refused("no_image", lambda: bpy.ops.dreamcraft.generate(wait=True))
    form.picture = bpy.data.images.load(str(MUG), check_existing=True)
    assert not bpy.app.online_access
    refused("offline", lambda: bpy.ops.dreamcraft.install_backend())
    assert upkeep.diagnostics(current)
    nowhere = home.launcher()
    nowhere.installation = None
    current.link.launcher = nowhere
    refused("not_installed", lambda: bpy.ops.dreamcraft.generate(wait=True))
    home.manners = "old"
    current.relaunch()
    refused("wrong_version", lambda: bpy.ops.dreamcraft.generate(wait=True))
    assert current.problem.button.label == "Update Backend"
    home.close()


@case
def painting_starts_from_the_automatic_mask(folder: Path) -> None:
    """What the service takes for the object is laid where it is in the picture; an answer without frame is not used."""
    import bpy
    import numpy as np

    _, current, home = enabled(folder)
    from dreamcraft_blender import pictures

    form = bpy.context.scene.dreamcraft
    form.picture = bpy.data.images.new("wide", 80, 60)
    form.picture.pack()
    current.mask.ask(form, start=True)
    until(current, lambda: current.mask.path is not None)
    assert bpy.ops.dreamcraft.edit_mask() == {"FINISHED"}
    assert form.mask_source == "IMAGE"
    white = pictures.pixels_of(form.mask_image)[..., 0] > 0.5
    expected = np.zeros((60, 80), bool)
    expected[:40, 20:60] = True  # the double's square: a quarter from the left, at the top, half as wide
    assert (white == expected).all()
    form.mask_source, form.mask_image, current.mask.frame = "AUTO", None, None
    bpy.ops.dreamcraft.edit_mask()
    assert pictures.pixels_of(form.mask_image)[..., 0].min() > 0.99
    home.close()


@case
def a_failed_job_says_why(folder: Path) -> None:
    import bpy

    _, current, home = enabled(folder, manners="fails")
    bpy.context.scene.dreamcraft.picture = bpy.data.images.load(str(MUG))
    try:
        bpy.ops.dreamcraft.generate(wait=True)
    except RuntimeError as error:
        assert "The object was lost in stage neus. Check the mask." in str(error)  # noqa: PT017
    else:
        raise AssertionError("it did not fail")
    home.close()
    assert "empty level set" in current.problem.log


@case
def pictures_of_all_kinds(folder: Path) -> None:
    """Files, packed files, painted and generated images, floats: what is sent is what Blender shows."""
    import bpy
    import numpy as np

    enabled(folder)[2].close()
    from dreamcraft_blender import pictures

    loaded = bpy.data.images.load(str(MUG))
    assert pictures.picture_of(loaded).data == MUG.read_bytes()
    loaded.pack()
    assert pictures.picture_of(loaded).data == MUG.read_bytes()
    made = bpy.data.images.new("made", 32, 16, alpha=True)
    values = np.zeros((16, 32, 4), np.float32)
    values[:8] = (1.0, 0.0, 0.0, 1.0)  # Blender's first row is the bottom
    values[8:] = (0.0, 0.0, 1.0, 0.5)
    made.pixels.foreach_set(values.ravel())
    (folder / "made.png").write_bytes(pictures.picture_of(made).data)
    again = bpy.data.images.load(str(folder / "made.png"))
    assert tuple(again.size) == (32, 16)
    np.testing.assert_allclose(np.array(again.pixels[:]).reshape(16, 32, 4)[0, 0], (1, 0, 0, 1), atol=0.01)
    np.testing.assert_allclose(np.array(again.pixels[:]).reshape(16, 32, 4)[15, 0, 3], 0.5, atol=0.01)
    bright = bpy.data.images.new("bright", 16, 16, float_buffer=True)
    assert pictures.picture_of(bright).data.startswith(b"\x89PNG")
    (folder / "not.png").write_bytes(b"nothing")
    for name in ("drop_picture", "open_picture"):  # both by the file's path, as Blender calls them
        form = bpy.context.scene.dreamcraft
        form.picture = None
        getattr(bpy.ops.dreamcraft, name)(filepath=str(folder / "made.png"))
        assert form.picture is not None, name
        with pytest.raises(RuntimeError, match="not a picture that Blender reads"):
            getattr(bpy.ops.dreamcraft, name)(filepath=str(folder / "not.png"))
    handler = bpy.types.DREAMCRAFT_FH_picture
    assert handler.bl_import_operator == "dreamcraft.drop_picture" and ".png" in handler.bl_file_extensions


@case
def a_shape_is_what_the_object_shows(folder: Path) -> None:
    """The GLB to start from: evaluated, placed, in glTF's frame, colours and pictures with it; the backend reads it."""
    import bpy
    import numpy as np

    enabled(folder)[2].close()
    import torch

    from dreamcraft3d.shape_start import read_shape
    from dreamcraft_blender import shape_file
    from dreamcraft_blender.problems import Problem

    bpy.ops.mesh.primitive_cube_add(size=2.0)
    item = bpy.context.object
    item.scale, item.location, item.rotation_euler = (1.0, 2.0, -3.0), (0.0, 0.0, 5.0), (0.0, 0.0, np.pi / 2)
    item.modifiers.new("twice", "ARRAY").relative_offset_displace = (2.0, 0.0, 0.0)
    red = bpy.data.materials.new("red")
    red.use_nodes = True
    red.node_tree.nodes["Principled BSDF"].inputs["Base Color"].default_value = (1.0, 0.0, 0.0, 1.0)
    painted = bpy.data.materials.new("painted")
    painted.use_nodes = True
    node = painted.node_tree.nodes.new("ShaderNodeTexImage")
    node.image = bpy.data.images.load(str(MUG))
    painted.node_tree.links.new(node.outputs["Color"], painted.node_tree.nodes["Principled BSDF"].inputs["Base Color"])
    item.data.materials.append(red)
    item.data.materials.append(painted)
    item.data.polygons[0].material_index = 1
    bpy.context.view_layer.update()
    file = folder / "shape"  # no suffix: as the service keeps it
    file.write_bytes(shape_file.file_of(item))
    shape = read_shape(file, max_triangles=100)
    assert len(shape.mesh.faces) == 24
    # Blender's (-y, x, z) is ours: a row along world y, as the turn about z says
    low, high = shape.mesh.vertices.amin(dim=0).numpy(), shape.mesh.vertices.amax(dim=0).numpy()
    world = np.array([item.matrix_world @ v.co for v in item.data.vertices])
    world = np.concatenate([world, world + np.array([0.0, 4.0, 0.0])])
    ours = np.stack([-world[:, 1], world[:, 0], world[:, 2]], axis=1)
    np.testing.assert_allclose(np.stack([low, high]), np.stack([ours.min(axis=0), ours.max(axis=0)]), atol=1e-5)
    corners = shape.mesh.vertices[shape.mesh.faces].double()
    volume = (corners[:, 0] * corners[:, 1].cross(corners[:, 2], dim=-1)).sum() / 6.0
    assert abs(float(volume) - 2 * 8 * 6) < 1e-3, volume  # faces outward in spite of the mirrored scale
    assert shape.colour is not None
    top = torch.tensor([[0.0, 0.0, 8.0]])
    assert float((shape.colour(top) - torch.tensor([1.0, 0.0, 0.0])).abs().max()) < 0.02
    bpy.ops.object.empty_add()
    for wrong in (None, bpy.context.object, bpy.data.objects.new("nothing", bpy.data.meshes.new("nothing"))):
        with pytest.raises(Problem) as caught:
            shape_file.file_of(wrong)
        assert caught.value.code == "no_shape" and caught.value.remedy


@case
def a_shape_goes_along(folder: Path) -> None:
    """The checkbox and the script send the same file: of the chosen object, else of the active one."""
    import bpy

    _, current, home = enabled(folder)
    from dreamcraft_blender import api, shape_file
    from dreamcraft_blender.operators import submission_of

    form = bpy.context.scene.dreamcraft
    form.picture = bpy.data.images.load(str(MUG))
    bpy.ops.mesh.primitive_cone_add()
    cone = bpy.context.object
    bpy.ops.mesh.primitive_cube_add()
    assert "shape" not in submission_of(bpy.context.scene, {}).files
    form.use_shape = True
    assert submission_of(bpy.context.scene, {}).files["shape"] == shape_file.file_of(bpy.context.object)
    form.shape, form.shape_turn = cone, False
    made = submission_of(bpy.context.scene, {})
    assert made.files["shape"] == shape_file.file_of(cone)
    assert made.request["settings"] == {"shape.turn": False}
    found = api.generate(MUG, shape=cone, shape_turn=False)
    assert bpy.ops.dreamcraft.generate(wait=True) == {"FINISHED"}
    requests = [job.request for job in current.jobs.values()]
    home.close()
    assert len(requests) == 2 and requests[0]["shape"] == requests[1]["shape"] != ""
    assert found.object is not None


@case
def commands_have_exit_codes(folder: Path) -> None:
    """`blender --command dreamcraft`: a file and 0; a failing job and 3; a wrong word and 2; JSON for programs."""
    import contextlib
    import io
    import json

    import bpy

    _, current, home = enabled(folder)
    from dreamcraft_blender import commands

    def ran(*words: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = commands.run(list(words))
        return code, out.getvalue(), err.getvalue()

    target = folder / "scene.blend"
    code, out, _ = ran("generate", str(MUG), "--out", str(target), "--seed", "3", "--json")
    assert code == 0
    assert json.loads(out)["faces"] == 12
    assert target.is_file()
    assert [item.name for item in bpy.data.objects] == ["mug"]
    code, out, _ = ran("generate", str(MUG), "--out", str(folder / "mug.glb"))
    assert code == 0
    assert (folder / "mug.glb").read_bytes()[:4] == b"glTF"
    assert ran("jobs")[1].count("finished") == 2
    for words, complaint in (
        (("generate", str(folder / "none.png")), "Cannot read"),
        (("generate", str(MUG), "--out", "x.docx"), ".blend"),
        (("generate", str(MUG), "--set", "coarse_nerf.stepps=3"), "coarse_nerf.steps"),
        (("generate", str(MUG), "--preset", "paper"), "needs a GPU"),
    ):
        code, _, err = ran(*words)
        assert code == 2, words
        assert complaint in err, err
        assert len(err.strip().splitlines()) == 1, err
    home.close()
    home.manners = "fails"
    current.relaunch()
    until(current, lambda: not current.link.ready)
    code, out, err = ran("generate", str(MUG), "--out", str(target), "--json")
    home.close()
    assert code == 3, (out, err)
    assert json.loads(out)["remedy"] == "Check the mask."


@case
def two_blenders_share_one_backend(folder: Path) -> None:
    """A second session sees the first one's job, and only the scene that asked gets the object."""
    import bpy

    _, current, home = enabled(folder, seconds=1.0)
    from dreamcraft_blender import session as module
    from dreamcraft_blender.operators import sent, submission_of

    other = module.Session()
    other.make_launcher = home.launcher
    other.relaunch()
    bpy.context.scene.dreamcraft.picture = bpy.data.images.load(str(MUG))
    current.run(current.submit(submission_of(bpy.context.scene, {})), done=lambda job: sent("Scene", job))
    until(current, lambda: current.jobs)
    name = next(iter(current.jobs))
    until(other, lambda: name in other.jobs)
    until(current, lambda: "mug" in bpy.data.objects)
    until(other, lambda: other.jobs[name].state == "finished")
    assert len(home.starts) == 1
    assert len([item for item in bpy.data.objects if item.name.startswith("mug")]) == 1
    other.close()
    home.close()


def main() -> None:
    """One case."""
    folder = Path(sys.argv[2])
    os.environ["BLENDER_USER_RESOURCES"] = str(folder / "blender")
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "extension")]
    import bpy

    bpy.ops.wm.read_factory_settings(use_empty=True)
    CASES[sys.argv[1]](folder)
    sys.stdout.write("passed\n")
    sys.stdout.flush()
    os._exit(0)  # Blender's own end is not what is tested, and some builds crash in it


if __name__ == "__main__":
    main()
