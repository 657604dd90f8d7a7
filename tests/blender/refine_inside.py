"""Refining inside Blender: `python refine_inside.py CASE FOLDER`, each case in a process of its own with bpy.

The backend is a painter that answers a request with noise, except in the case with the real service.
"""

import hashlib
import io
import json
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
for place in (ROOT, ROOT / "tests", ROOT / "tests" / "extension"):
    sys.path.insert(0, str(place))

import numpy as np  # noqa: E402
import pytest  # noqa: E402

CASES: dict[str, Callable[[Path], None]] = {}


def case(function: Callable[[Path], None]) -> Callable[[Path], None]:
    CASES[function.__name__] = function
    return function


# --- scenes ---------------------------------------------------------------------------------------


def noise(size: int = 16, seed: int = 0) -> bytes:
    from dreamcraft_blender.pixels import encode_png

    return encode_png(np.random.default_rng(seed).integers(0, 256, (size, size, 4), np.uint8))


def textured(name: str, data: bytes):
    """A material that shows a packed image."""
    import bpy

    material = bpy.data.materials.new(name)
    material.use_nodes = True
    node = material.node_tree.nodes.new("ShaderNodeTexImage")
    node.image = bpy.data.images.new(name, 4, 4)
    node.image.pack(data=data, data_len=len(data))
    node.image.source = "FILE"
    shader = next(n for n in material.node_tree.nodes if n.type == "BSDF_PRINCIPLED")
    material.node_tree.links.new(node.outputs["Color"], shader.inputs["Base Color"])
    return material


def cube(name: str = "Cube"):
    """The cube with its UV map, and one textured material."""
    import bpy

    bpy.ops.mesh.primitive_cube_add()
    item = bpy.context.active_object
    item.name = name
    item.data.materials.append(textured("wood", noise()))
    return item


def laden():
    """A mesh with everything that could be lost: n-gon, six slots, keys, groups, colours, eight maps, modifiers."""
    import bpy

    bpy.ops.mesh.primitive_cylinder_add(vertices=7)  # its caps are n-gons
    item = bpy.context.active_object
    mesh = item.data
    wood = textured("wood", noise(seed=1))
    for material in (wood, textured("iron", noise(seed=2)), None, wood, textured("skin", noise(seed=3))):
        mesh.materials.append(material)
    for index, face in enumerate(mesh.polygons):
        face.material_index = index % 5
        face.use_smooth = index % 2 == 0
    mesh.polygons[0].material_index = 9  # a slot that does not exist
    for number in range(7):
        mesh.uv_layers.new(name=f"map {number}")
    mesh.normals_split_custom_set([(0.6, 0.0, 0.8)] * len(mesh.loops))
    for name, kind in (("bytes", "BYTE_COLOR"), ("floats", "FLOAT_COLOR")):
        mesh.color_attributes.new(name, kind, "CORNER").data[0].color = (0.1, 0.2, 0.3, 0.4)
    mesh.attributes.new("weight of faces", "FLOAT", "FACE").data[0].value = 0.7
    mesh.attributes.new("crease of edges", "INT", "EDGE").data[0].value = 7
    item.vertex_groups.new(name="top").add([0, 1, 2], 0.9, "REPLACE")
    item.shape_key_add(name="Basis")
    item.shape_key_add(name="Fat", from_mix=False).value = 0.3
    for kind in ("MIRROR", "SUBSURF", "ARMATURE"):
        item.modifiers.new(kind.title(), kind)
    item.matrix_world = ((-2, 0.3, 0, 1), (0, 1, 0, 2), (0, 0, 0.5, 3), (0, 0, 0, 1))
    bpy.context.view_layer.update()
    return item


# --- a painter in place of the backend ------------------------------------------------------------


def parts_of(packed: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def painted(packed: bytes, path: Path, *, seed: int = 50) -> dict[tuple[int, int], bytes]:
    """Answers a request with noise of the wanted sizes; the images by slot and tile."""
    from dreamcraft_blender.pixels import encode_png

    header, images, records = json.loads(parts_of(packed)["request.json"]), {}, []
    for target in header["targets"]:
        for tile in target["tiles"]:
            pixels = np.random.default_rng(seed + len(images)).integers(0, 256, (tile["height"], tile["width"], 4))
            data = encode_png(pixels.astype(np.uint8))
            images[target["slot"], tile["number"]] = data
            name = f"image_{target['slot']}_base_color_{tile['number']}.png"
            records.append({"name": name, "slot": target["slot"], "tile": tile["number"], "painted": 0.9,
                            "sha256": hashlib.sha256(data).hexdigest()})  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for record in records:
            archive.writestr(record["name"], images[record["slot"], record["tile"]])
        report = {"fingerprint": header["fingerprint"], "files": records, "strength": 1.0}
        archive.writestr("result.json", json.dumps(report))
    return images


def refined(item, folder: Path, *, mode: str = "material", stale: Callable[[], None] = lambda: None, **wish):
    """Sends, paints, applies: (request, images by slot, the painter's bytes)."""
    import bpy

    from dreamcraft_blender import refine_apply, refine_request

    request = refine_request.build(item, refine_request.Wish(**wish))
    made = painted(request.packed(), folder / "result.zip")
    stale()
    _, files = refine_apply.read_result(folder / "result.zip", folder / "images")
    maps = {target["slot"]: target["uv_map"] for target in request.header["targets"]}
    images = refine_apply.apply(
        bpy.context.scene, item, files, mode=mode, fingerprint=request.fingerprint, slots=request.slots, maps=maps
    )
    return request, images, made


def registered() -> None:
    import bpy

    import dreamcraft_blender

    dreamcraft_blender.register()
    for item in list(bpy.data.objects):
        bpy.data.objects.remove(item)


def refusal(action: Callable[[], object]) -> str:
    """The code of the problem that an action ends with."""
    from dreamcraft_blender.problems import Problem

    with pytest.raises(Problem) as caught:
        action()
    assert caught.value.message and caught.value.remedy, caught.value.code
    return str(caught.value.code)


def packed(image) -> bytes:
    return bytes(image.packed_file.data)


# --- cases ----------------------------------------------------------------------------------------


@case
def one_slot_changes_and_nothing_else(folder: Path) -> None:
    """Apply, save, reload, compare, revert: each time only the slot differs, in the end nothing."""
    import bpy

    registered()
    from dreamcraft_blender import refine_apply

    item = laden()
    before = refine_apply.snapshot(item)
    _, images, made = refined(item, folder, slots=(1,))
    assert refine_apply.changes(before, refine_apply.snapshot(item)) == {"slot 1", "materials of the mesh"}
    assert packed(images[1]) == made[1, 1001]
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "kept.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(folder / "kept.blend"))
    item = bpy.data.objects["Cylinder"]
    scene = bpy.context.scene
    (record,) = scene.dreamcraft.refined
    assert packed(record.image) == made[1, 1001] and refine_apply.is_shown(record)
    assert refine_apply.changes(before, refine_apply.snapshot(item)) == {"slot 1", "materials of the mesh"}
    assert not refine_apply.toggle(record) and item.material_slots[1].material.name == "iron"
    assert refine_apply.toggle(record) and item.material_slots[1].material == record.after
    names = {block.name for block in (*bpy.data.materials, *bpy.data.images)}
    refine_apply.revert_record(scene, record)
    assert refine_apply.changes(before, refine_apply.snapshot(item)) == set()
    assert {block.name for block in (*bpy.data.materials, *bpy.data.images)} == names - {
        "iron refined",
        "iron.001",
    }
    assert not scene.dreamcraft.refined


@case
def the_proof_sees_what_must_not_happen(folder: Path) -> None:
    """Each forbidden act makes a difference that is not allowed."""
    import bpy

    registered()
    from dreamcraft_blender import refine_apply

    def edit_mode(item) -> None:  # rewrites sharp edges of meshes with custom normals
        item.data.attributes["position"].data[0].vector.x += 1e-4

    acts: dict[str, Callable] = {
        "clear the materials": lambda item: item.data.materials.clear(),
        "another slot": lambda item: setattr(item.material_slots[0], "material", item.material_slots[1].material),
        "a new map": lambda item: item.data.uv_layers.remove(item.data.uv_layers[7]),
        "the rendering map": lambda item: setattr(item.data.uv_layers[3], "active_render", True),
        "a key": lambda item: setattr(item.data.shape_keys.key_blocks["Fat"], "value", 0.5),
        "a vertex": edit_mode,
        "a colour": lambda item: item.data.color_attributes["bytes"].data[3].color.__setitem__(0, 0.5),
        "a face's slot": lambda item: setattr(item.data.polygons[2], "material_index", 0),
        "a group": lambda item: item.vertex_groups.remove(item.vertex_groups[0]),
        "a modifier": lambda item: item.modifiers.remove(item.modifiers[0]),
        "the place": lambda item: setattr(item, "location", (9, 9, 9)),
        "an image": lambda item: setattr(
            refine_apply.refine_materials.source_or_none(item, 0).colorspace_settings, "name", "Non-Color"
        ),
        "custom normals": lambda item: item.data.normals_split_custom_set([(0, 0, 1)] * len(item.data.loops)),
    }
    for name, act in acts.items():
        for old in list(bpy.data.objects):
            bpy.data.objects.remove(old)
        item = laden()
        before = refine_apply.snapshot(item)
        act(item)
        bpy.context.view_layer.update()
        assert refine_apply.changes(before, refine_apply.snapshot(item)) - {"slot 1"}, name


@case
def others_who_share_the_mesh_see_nothing(folder: Path) -> None:
    import bpy

    registered()
    from dreamcraft_blender import refine_apply

    item = cube()
    twin = item.copy()
    bpy.context.scene.collection.objects.link(twin)
    before = refine_apply.snapshot(item), refine_apply.snapshot(twin)
    refined(item, folder)
    assert item.material_slots[0].link == "OBJECT" and item.material_slots[0].material.name != "wood"
    assert twin.material_slots[0].material.name == "wood"
    assert refine_apply.changes(before[1], refine_apply.snapshot(twin)) == set()
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "kept.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(folder / "kept.blend"))
    item = bpy.data.objects["Cube"]
    (record,) = bpy.context.scene.dreamcraft.refined
    assert item.material_slots[0].material == record.after
    refine_apply.revert_record(bpy.context.scene, record)
    assert refine_apply.changes(before[0], refine_apply.snapshot(item)) == set()
    # Replacing the image is asked for by name, and everybody sees it.
    refined(item, folder, mode="image")
    material = item.material_slots[0].material
    assert material.name == "wood" and refine_apply.refine_materials.source_or_none(item, 0).name != "wood"
    (record,) = bpy.context.scene.dreamcraft.refined
    refine_apply.revert_record(bpy.context.scene, record)
    assert refine_apply.refine_materials.source_or_none(item, 0).name == "wood"


@case
def linked_objects_keep_their_images_only(folder: Path) -> None:
    import bpy

    registered()
    from dreamcraft_blender import refine_apply

    cube()
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "library.blend"))
    bpy.ops.wm.read_homefile(use_empty=True)
    with bpy.data.libraries.load(str(folder / "library.blend"), link=True) as (_, wanted):
        wanted.objects = ["Cube"]
    item = bpy.data.objects["Cube"]
    bpy.context.scene.collection.objects.link(item)
    bpy.context.view_layer.update()
    before = refine_apply.snapshot(item)
    assert refusal(lambda: refined(item, folder)) == "E_LINKED"
    assert refine_apply.changes(before, refine_apply.snapshot(item)) == set()
    kept = [image for image in bpy.data.images if image.library is None and image.use_fake_user]
    assert len(kept) == 1 and kept[0].packed_file is not None
    _, images, made = refined(item, folder, mode="none")
    assert packed(images[0]) == made[0, 1001]
    # An override takes the material at its own level, and keeps it.
    override = item.override_create()
    bpy.context.scene.collection.objects.link(override)
    bpy.context.scene.collection.objects.unlink(item)
    name = override.name
    refined(override, folder)
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "kept.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(folder / "kept.blend"))
    override = next(o for o in bpy.data.objects if o.name == name and o.library is None)
    assert override.material_slots[0].material == bpy.context.scene.dreamcraft.refined[0].after


@case
def a_mesh_that_changed_meanwhile_is_left_alone(folder: Path) -> None:
    import bpy

    registered()
    from dreamcraft_blender import refine_apply

    item = cube()

    def edit() -> None:
        item.data.vertices[0].co.x += 0.5
        item.data.update()

    assert refusal(lambda: refined(item, folder, stale=edit)) == "E_STALE"
    assert item.material_slots[0].material.name == "wood" and not bpy.context.scene.dreamcraft.refined
    assert any(image.use_fake_user and image.name.startswith("wood refined") for image in bpy.data.images)

    def select_and_move() -> None:  # neither is a change of the mesh
        item.data.polygons[0].select = not item.data.polygons[0].select
        item.location.x += 3.0
        bpy.context.view_layer.update()

    before = refine_apply.snapshot(item)
    refined(item, folder, stale=select_and_move)
    assert {"slot 0"} <= refine_apply.changes(before, refine_apply.snapshot(item))


@case
def tiles_of_several_sizes(folder: Path) -> None:
    """UDIM 1001, 1002 and 1011: each gets its own file, and its bytes survive saving."""
    import bpy

    registered()
    item = cube()
    for number, size in ((1001, 16), (1002, 32), (1011, 8)):
        (folder / f"tiles.{number}.png").write_bytes(noise(size, number))
    image = bpy.data.images.load(str(folder / "tiles.1001.png"))
    image.source = "TILED"
    image.filepath = str(folder / "tiles.<UDIM>.png")
    for number in (1002, 1011):
        image.tiles.new(tile_number=number)
    node = next(n for n in item.active_material.node_tree.nodes if n.type == "TEX_IMAGE")
    node.image = image
    request, images, made = refined(item, folder / "out")
    tiles = request.header["targets"][0]["tiles"]
    assert [(t["number"], t["width"], t["height"]) for t in tiles] == [(1001, 16, 16), (1002, 32, 32), (1011, 8, 8)]
    assert all(
        t["sha256"] == hashlib.sha256((folder / f"tiles.{t['number']}.png").read_bytes()).hexdigest() for t in tiles
    )
    name = images[0].name
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "kept.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(folder / "kept.blend"))
    image = bpy.data.images[name]
    assert image.source == "TILED" and [tile.number for tile in image.tiles] == [1001, 1002, 1011]
    kept = {part.tile_number: bytes(part.packed_file.data) for part in image.packed_files}
    assert kept == {tile: data for (_, tile), data in made.items()}


@case
def images_are_sent_as_they_are(folder: Path) -> None:
    """Packed, on the disk, painted and not saved, lost; the artist's file is neither written nor touched."""
    import bpy

    registered()
    from dreamcraft_blender import refine_materials

    item = cube()
    node = next(n for n in item.active_material.node_tree.nodes if n.type == "TEX_IMAGE")
    assert refine_materials.files_of(node.image)[0].data == noise()
    path = folder / "artist.png"
    path.write_bytes(noise(16, 7))
    stamp = path.stat().st_mtime_ns
    node.image = bpy.data.images.load(str(path))
    _, images, made = refined(item, folder / "out", mode="image")
    assert packed(images[0]) == made[0, 1001]
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (noise(16, 7), stamp)
    node.image = bpy.data.images.load(str(path))
    node.image.pixels[0] = 0.5
    data = refine_materials.files_of(node.image)[0].data
    assert data != noise(16, 7) and data.startswith(b"\x89PNG")
    path.unlink()
    lost = bpy.data.images.new("lost", 4, 4)
    lost.source, lost.filepath = "FILE", str(path)
    node.image = lost
    assert refusal(lambda: refine_materials.files_of(lost)) == "no_image"
    node.image = bpy.data.images.new("fresh", 8, 8)
    assert refine_materials.files_of(node.image)[0].width == 8


@case
def what_is_sent_is_what_the_shader_samples(folder: Path) -> None:
    """Positions and coordinates belong together, also after modifiers; no name and no path travels."""
    import bpy

    registered()
    from dreamcraft3d.refining.folder import request_of
    from dreamcraft_blender import refine_request

    item = cube("a secret name")
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "private project.blend"))
    plain = refine_request.build(item, refine_request.Wish(prompt="a box", strength=0.5, seed=3))
    parts = parts_of(plain.packed())
    read = request_of(parts)
    assert (read.header.geometry, read.header.strength, read.header.seed) == ("original", 0.5, 3)
    everything = b"".join(parts.values()) + plain.packed()
    assert b"secret" not in everything and str(folder).encode() not in everything and b"private" not in everything
    mesh = item.data
    for triangle, row in zip(mesh.loop_triangles, range(len(read.soup.tri_vertex)), strict=True):
        for corner, loop in enumerate(triangle.loops):
            place = read.soup.position[read.soup.tri_vertex[row, corner]]
            assert tuple(place) == tuple(mesh.vertices[mesh.loops[loop].vertex_index].co)
            assert tuple(read.soup.tri_uv[row, corner]) == tuple(mesh.uv_layers[0].uv[loop].vector)
    item.modifiers.new("Fat", "SIMPLE_DEFORM")
    assert refine_request.build(item, refine_request.Wish()).header["geometry"] == "original"
    item.modifiers.new("Fine", "SUBSURF")
    fine = request_of(parts_of(refine_request.build(item, refine_request.Wish()).packed()))
    assert fine.header.geometry == "evaluated" and len(fine.soup.tri_vertex) == 4 * 12
    item.modifiers.clear()
    item.scale = (-1.0, 2.0, 1.0)
    bpy.context.view_layer.update()
    assert request_of(parts_of(refine_request.build(item, refine_request.Wish()).packed())).header.det_sign == -1
    for face in mesh.polygons:
        face.select = face.index == 2
    some = refine_request.build(item, refine_request.Wish(faces="SELECTED"))
    assert set(some.arrays["tri_face"][some.arrays["tri_paint"]]) == {2}
    item.vertex_groups.new(name="side").add(list(mesh.polygons[4].vertices), 1.0, "REPLACE")
    some = refine_request.build(item, refine_request.Wish(faces="GROUP:side"))
    assert set(some.arrays["tri_face"][some.arrays["tri_paint"]]) == {4}


@case
def refusals_say_what_to_do(folder: Path) -> None:
    import bpy

    registered()
    from dreamcraft_blender import refine_request

    def build(item):
        return refine_request.build(item, refine_request.Wish())

    item = cube()
    tree = item.active_material.node_tree
    node = next(n for n in tree.nodes if n.type == "TEX_IMAGE")
    mapping = tree.nodes.new("ShaderNodeMapping")
    link = tree.links.new(mapping.outputs[0], node.inputs["Vector"])
    assert refusal(lambda: build(item)) == "E_GRAPH"
    tree.links.remove(link)
    named = tree.nodes.new("ShaderNodeUVMap")
    named.uv_map = "second"
    tree.links.new(named.outputs[0], node.inputs["Vector"])
    assert refusal(lambda: build(item)) == "E_NO_UV"
    item.data.uv_layers.new(name="second")
    assert build(item).header["targets"][0]["uv_map"] == "second"
    node.image.colorspace_settings.name = "ACEScg"
    assert refusal(lambda: build(item)) == "E_COLORSPACE"
    bpy.ops.object.mode_set(mode="EDIT")
    assert refusal(lambda: build(item)) == "E_MODE"
    bpy.ops.object.mode_set(mode="OBJECT")
    while item.data.uv_layers:
        item.data.uv_layers.remove(item.data.uv_layers[0])
    assert refusal(lambda: build(item)) == "E_NO_UV"
    count = len(bpy.data.objects)
    assert bpy.ops.dreamcraft.unwrap_copy() == {"FINISHED"}
    copy = bpy.context.active_object
    assert copy != item and copy.data.uv_layers and not item.data.uv_layers and len(bpy.data.objects) == count + 1
    bpy.ops.object.empty_add()
    assert refusal(lambda: build(bpy.context.active_object)) == "E_REQUEST"


@case
def instances_are_not_faces(folder: Path) -> None:
    """A Geometry Nodes object that shows instances only; one that shows nothing; realised, it is refined."""
    import bpy

    registered()
    from dreamcraft_blender import refine_request

    item = cube()
    tree = bpy.data.node_groups.new("copies", "GeometryNodeTree")
    tree.interface.new_socket("Geometry", in_out="INPUT", socket_type="NodeSocketGeometry")
    tree.interface.new_socket("Geometry", in_out="OUTPUT", socket_type="NodeSocketGeometry")
    kinds = ("NodeGroupInput", "GeometryNodeGeometryToInstance", "GeometryNodeRealizeInstances", "NodeGroupOutput")
    start, instance, real, end = (tree.nodes.new(kind) for kind in kinds)
    tree.links.new(start.outputs[0], instance.inputs[0])
    tree.links.new(instance.outputs[0], end.inputs[0])
    item.modifiers.new("Nodes", "NODES").node_group = tree

    def build():
        return refine_request.build(item, refine_request.Wish())

    assert refusal(build) == "E_INSTANCE_ONLY"
    tree.links.new(instance.outputs[0], real.inputs[0])
    tree.links.new(real.outputs[0], end.inputs[0])
    assert len(build().arrays["tri_vertex"]) == 12
    tree.links.remove(end.inputs[0].links[0])
    assert refusal(build) == "empty_model"


@case
def a_bare_mesh_gets_its_first_material(folder: Path) -> None:
    import bpy

    registered()
    from dreamcraft_blender import refine_apply

    bpy.ops.mesh.primitive_cube_add()
    item = bpy.context.active_object
    before = refine_apply.snapshot(item)
    request, images, made = refined(item, folder, texture_size=32)
    assert request.header["targets"][0]["tiles"][0]["width"] == 32
    assert packed(images[0]) == made[0, 1001] and len(item.material_slots) == 1
    refine_apply.revert_record(bpy.context.scene, bpy.context.scene.dreamcraft.refined[0])
    assert refine_apply.changes(before, refine_apply.snapshot(item)) == set(), refine_apply.changes(
        before, refine_apply.snapshot(item)
    )
    assert not item.material_slots


@case
def any_mesh_keeps_everything_else(folder: Path) -> None:
    """Two hundred random meshes: n-gons, several slots, odd maps, odd places."""
    import bpy

    registered()
    from dreamcraft_blender import refine_apply

    chance = np.random.default_rng(5)
    for number in range(200):
        bpy.ops.mesh.primitive_cone_add(vertices=int(chance.integers(3, 9)), depth=float(chance.uniform(0.1, 3.0)))
        item = bpy.context.active_object
        mesh, slots = item.data, int(chance.integers(1, 4))
        for slot in range(slots):
            mesh.materials.append(textured(f"m{number}-{slot}", noise(8, number + slot)))
        for face in mesh.polygons:
            face.material_index = int(chance.integers(0, slots))
        layer = mesh.uv_layers[0].uv
        layer.foreach_set("vector", chance.normal(0.5, 0.4, 2 * len(layer)).astype(np.float32))
        item.scale = chance.choice([-1.0, 1.0], 3) * chance.uniform(0.01, 100.0, 3)
        bpy.context.view_layer.update()
        before, slot = refine_apply.snapshot(item), int(chance.integers(0, slots))
        _, images, made = refined(item, folder / str(number), slots=(slot,))
        assert refine_apply.changes(before, refine_apply.snapshot(item)) == {f"slot {slot}", "materials of the mesh"}
        assert packed(images[slot]) == made[slot, 1001]
        refine_apply.revert_record(bpy.context.scene, bpy.context.scene.dreamcraft.refined[0])
        assert refine_apply.changes(before, refine_apply.snapshot(item)) == set()


@case
def a_real_backend_refines(folder: Path) -> None:
    """The operator, the service, the worker and back; undo takes the material away, redo brings it back."""
    import bpy

    os.environ["DREAMCRAFT3D_HOME"] = str(folder / "home")
    registered()
    from dreamcraft_blender import api, session
    from dreamcraft_blender.launcher import Installation, Launcher
    from tiny import SETTINGS

    current = session.get()
    current.make_launcher = lambda: Launcher(
        Installation.of_python(Path(sys.executable)), log=folder / "backend.log", options=["--idle-minutes", "2"]
    )
    current.relaunch()
    quick = {key: value for key, value in SETTINGS.items() if key.startswith("texture.")}
    quick |= {"texture.steps": 4, "texture.fit_steps": 4, "reference.size": 64}
    try:
        item = cube()
        bpy.ops.ed.undo_push(message="before")
        seen = []
        found = api.refine(item, strength=0.8, settings=quick, seconds=300.0, on_progress=seen.append)
        assert found.images[0].packed_file is not None and packed(found.images[0]) != noise()
        assert item.material_slots[0].material.name != "wood" and found.report["fingerprint"]
        assert seen and seen[-1].kind == "refine"
        job = found.job
        assert len(bpy.context.scene.dreamcraft.refined) == 1
        assert bpy.ops.dreamcraft.toggle_refinement() == {"FINISHED"}
        assert item.material_slots[0].material.name == "wood"
        assert bpy.ops.dreamcraft.revert_refinement() == {"FINISHED"}
        assert not bpy.context.scene.dreamcraft.refined and item.material_slots[0].material.name == "wood"
        assert job in current.jobs
        # The button, with an odd wish that the backend refuses by name.
        form = bpy.context.scene.dreamcraft.refine
        form.faces, form.strength = "SELECTED", 0.5
        for face in item.data.polygons:
            face.select = False
        with pytest.raises(RuntimeError, match="nothing to paint"):
            bpy.ops.dreamcraft.refine(wait=True)
    finally:
        from dreamcraft_blender.client import Call

        current.wait(current.pump.run(shut_down(Call)), seconds=20.0)


def shut_down(call):
    yield call.sending("POST", "/v1/shutdown", {})


if __name__ == "__main__":
    os.environ.setdefault("BLENDER_USER_RESOURCES", str(Path(sys.argv[2]) / "blender"))

    CASES[sys.argv[1]](Path(sys.argv[2]))
    print("passed", flush=True)
    os._exit(0)
