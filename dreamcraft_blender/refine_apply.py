"""The answer to a refine request, applied: new images, a new material in one slot of one object, and nothing else.

    material   a single-user local mesh gets the new material in its slot; a shared or linked mesh keeps its own, and
               the object's slot is linked to the object
    image      the image node of the slot's material shows the new image (every user of the material sees it)
    none       images only, kept by a fake user (linked objects cannot be changed)

A snapshot before and after proves that nothing else has changed; if something has, everything is put back. What was
there before is remembered in the scene, through pointers, so that saving keeps it and reverting restores it.
"""

import hashlib
import json
import zipfile
from pathlib import Path

import bpy
import numpy as np

from . import refine_materials, refine_request
from .problems import Problem

STALE = "The mesh has changed since it was sent; the images are kept, and nothing was applied."


def read_result(path: Path, folder: Path):
    """(report, files by (slot, tile)) of a result.zip, unpacked into `folder`. Names are fixed, never paths."""
    try:
        with zipfile.ZipFile(path) as archive:
            report = json.loads(archive.read("result.json"))
            files = {}
            for record in report["files"]:
                if record["painted"] <= 0.0 and record.get("filled", 0.0) <= 0.0 and report["strength"] > 0.0:
                    continue
                name = Path(str(record["name"])).name
                data = archive.read(name)
                if hashlib.sha256(data).hexdigest() != record["sha256"]:
                    raise Problem("garbled", f"The image {name} was damaged on the way.", "Fetch the result again.")
                folder.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(data)
                files[int(record["slot"]), int(record["tile"])] = folder / name
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, TypeError) as error:
        raise Problem("bad_model", f"The result cannot be read ({error}).", "Fetch the result again.") from error
    return report, files


def apply(scene, item, files, *, mode="material", fingerprint="", slots=(), maps=None, name=""):
    """Applies the files of one result to an object. Returns the new images by slot.

    Args:
        mode: material, image or none. fingerprint, slots, maps: of the request; another mesh is stale.

    Raises:
        Problem: E_STALE and E_LINKED after the images were kept; nothing else has changed then.
    """
    images = {slot: new_image(item, slot, files, name) for slot in sorted({slot for slot, _ in files})}
    refusal = None if mode == "none" else obstacle(item, fingerprint, slots, maps or {})
    if mode == "none" or refusal is not None:
        for image in images.values():
            image.use_fake_user = True
        if refusal is not None:
            raise refusal
        return images
    before = snapshot(item)
    records = [put(scene, item, slot, image, mode) for slot, image in images.items()]
    allowed = {f"slot {slot}" for slot in images} | ({"materials of the mesh"} if mode == "material" else set())
    if mode == "image":
        allowed = set()
    wrong = changes(before, snapshot(item)) - allowed
    if wrong:  # never seen; the guarantee is checked all the same
        for record in reversed(records):
            revert_record(scene, record)
        raise Problem("bug", f"Applying would have changed more: {', '.join(sorted(wrong))}.", "Please report it.")
    return images


def obstacle(item, fingerprint, slots, maps):
    """Why nothing may be applied; None if it may."""
    if item is None:
        return Problem("E_STALE", "The object is gone; the images are kept.", "Use them by hand.")
    if item.library is not None:
        text = f"{item.name} is linked from another file; the images are kept, and nothing was applied."
        return Problem("E_LINKED", text, "Make it local or an override (Object, Relations), then apply again.")
    if item.mode != "OBJECT":
        return Problem("E_MODE", "The object is being edited; the images are kept.", "Go to Object Mode, apply again.")
    try:
        now = refine_request.fingerprint_now(item, slots, maps)
    except Problem:
        now = ""
    if fingerprint and now != fingerprint:
        return Problem("E_STALE", STALE, "Refine it again, or use the images by hand.")
    return None


# --- images ---------------------------------------------------------------------------------------


def new_image(item, slot, files, name):
    """The image of a slot, packed byte for byte; UDIM tiles stay tiles."""
    mine = {tile: path for (number, tile), path in files.items() if number == slot}
    old = None if item is None else refine_materials.source_or_none(item, slot)
    title = f"{old.name if old is not None else name or 'DreamCraft'} refined"
    if list(mine) == [refine_materials.FIRST_TILE] and (old is None or old.source != "TILED"):
        image = bpy.data.images.new(title, 8, 8)
        data = mine[refine_materials.FIRST_TILE].read_bytes()
        image.pack(data=data, data_len=len(data))
        image.source = "FILE"
    else:
        image = tiled_image(title, old, mine)
    if old is not None:
        image.colorspace_settings.name = old.colorspace_settings.name
        image.alpha_mode = old.alpha_mode
    return image


def tiled_image(title, old, mine):
    """Tiles that were not painted are the old image's."""
    folder = next(iter(mine.values())).parent
    stem = "tiles"
    files = {} if old is None else {file.number: file.data for file in refine_materials.files_of(old)}
    files |= {number: path.read_bytes() for number, path in mine.items()}
    for number, data in files.items():
        (folder / f"{stem}.{number}.png").write_bytes(data)
    first = min(files)
    image = bpy.data.images.load(str(folder / f"{stem}.{first}.png"))
    image.name = title
    image.source = "TILED"
    image.filepath = str(folder / f"{stem}.<UDIM>.png")
    for number in sorted(files):
        if image.tiles.get(number) is None:
            image.tiles.new(tile_number=number)
    image.pack()
    image.filepath = f"//{stem}.<UDIM>.png"
    return image


# --- slots ----------------------------------------------------------------------------------------


def put(scene, item, slot, image, mode):
    """Puts the image into a slot; returns the record that reverting needs."""
    record = scene.dreamcraft.refined.add()
    record.item, record.slot, record.mode, record.image = item, slot, mode, image
    if mode == "image":
        source = refine_materials.source_of(refine_request.material_in(item, slot), slot)
        if source.node is None:
            scene.dreamcraft.refined.remove(len(scene.dreamcraft.refined) - 1)
            raise Problem("E_GRAPH", f"Slot {slot + 1} has no image to replace.", "Apply it as a new material.")
        record.before, record.old_image, source.node.image = source.material, source.image, image
        return record
    record.added_slot = not item.material_slots
    if record.added_slot:
        item.data.materials.append(None)
    place = item.material_slots[slot]
    record.link_before, record.before = place.link, place.material
    record.after = repainted(place.material, slot, image)
    own = item.data.library is None and item.data.users == 1 and item.override_library is None
    if place.link == "DATA" and not own:
        place.link = "OBJECT"
    place.material = record.after
    return record


def repainted(material, slot, image):
    """A copy of the material that shows the image; a new one where there was none."""
    found = bpy.data.materials.new(image.name) if material is None else material.copy()
    found.use_nodes = True
    source = refine_materials.source_of(found, slot)
    node = source.node
    if node is None:
        shader = refine_materials.shader_of(found)
        node = found.node_tree.nodes.new("ShaderNodeTexImage")
        node.location = (shader.location.x - 320, shader.location.y)
        found.node_tree.links.new(node.outputs["Color"], shader.inputs["Base Color"])
    node.image = image
    return found


def toggle(record):
    """Shows what was there before, or the refined look again; returns whether the refined look is shown."""
    show = not is_shown(record)
    if record.mode == "image":
        node_of(record).image = record.image if show else record.old_image
    elif show:
        place = record.item.material_slots[record.slot]
        if place.link != record.link_after:
            place.link = record.link_after
        place.material = record.after
    else:
        back(record)
    return show


def is_shown(record):
    if record.mode == "image":
        node = node_of(record)
        return node is not None and node.image == record.image
    slots = record.item.material_slots
    return record.slot < len(slots) and slots[record.slot].material == record.after


def back(record):
    """The slot as it was."""
    place = record.item.material_slots[record.slot]
    record.link_after = place.link
    if place.link == "OBJECT" and record.link_before == "DATA":
        place.material = None
        place.link = "DATA"
    else:
        place.material = record.before


def node_of(record):
    """The image node that shows one of the record's two images."""
    tree = record.before.node_tree if record.before is not None else None
    nodes = [] if tree is None else tree.nodes
    return next((n for n in nodes if n.type == "TEX_IMAGE" and n.image in (record.image, record.old_image)), None)


def revert_record(scene, record):
    """Restores the slot exactly, and removes what was made for it."""
    item, image, after, mode = record.item, record.image, record.after, record.mode
    if item is not None:
        if mode == "image" and node_of(record) is not None:
            node_of(record).image = record.old_image
        elif mode == "material" and is_shown(record):
            back(record)
        if record.added_slot and len(item.material_slots) == 1 and item.material_slots[0].material is None:
            item.data.materials.clear()  # `pop` forgets the slot of the object
    kept = scene.dreamcraft.refined
    kept.remove(next(index for index, other in enumerate(kept) if other == record))
    if after is not None and not after.users:
        bpy.data.materials.remove(after)
    if image is not None and not image.users:
        bpy.data.images.remove(image)


# --- the proof ------------------------------------------------------------------------------------


def snapshot(item):
    """Names of everything that may not change, with a hash of each."""
    mesh, found = item.data, {}
    for layer in mesh.attributes:
        if not layer.name.startswith((".select", ".hide", ".uv_select", ".vs.", ".es.", ".pn.")):
            found[f"attribute {layer.name}"] = attribute_hash(layer)
    for rows, name, kind, width in (
        (mesh.loops, "vertex_index", np.int32, 1),
        (mesh.polygons, "loop_start", np.int32, 1),
        (mesh.polygons, "material_index", np.int32, 1),
        (mesh.corner_normals, "vector", np.float32, 3),
    ):
        found[f"{name} of {len(rows)}"] = hashed(refine_request.values(rows, name, kind, width).tobytes())
    found["vertex groups"] = hashed(repr([(g.name, g.lock_weight) for g in item.vertex_groups]).encode())
    keys = mesh.shape_keys.key_blocks if mesh.shape_keys is not None else ()
    for key in keys:
        found[f"shape key {key.name}"] = (
            key.value,
            hashed(refine_request.values(key.data, "co", np.float32, 3).tobytes()),
        )
    found["modifiers"] = repr([(m.name, m.type, m.show_viewport, m.show_render) for m in item.modifiers])
    found["place"] = repr([tuple(row) for row in (*item.matrix_basis, *item.matrix_parent_inverse)])
    found["maps"] = repr([(u.name, u.active, u.active_render) for u in mesh.uv_layers])
    found["mode"] = (item.mode, bpy.context.scene.view_settings.view_transform)
    found["materials of the mesh"] = tuple(name_of(material) for material in mesh.materials)
    for index, place in enumerate(item.material_slots):
        found[f"slot {index}"] = (place.link, name_of(place.material))
        image = refine_materials.source_or_none(item, index)
        if image is not None:
            found[f"image {image.name_full}"] = image_hash(image)
    return found


def changes(before, after):
    """Names of what differs; what is new belongs to the slot that shows it."""
    return {
        key for key, value in before.items() if after.get(key, value if key.startswith("image ") else None) != value
    }


def attribute_hash(layer):
    sizes = {"FLOAT": 1, "INT": 1, "BOOLEAN": 1, "INT8": 1, "FLOAT_VECTOR": 3, "FLOAT2": 2, "FLOAT_COLOR": 4,
             "BYTE_COLOR": 4, "INT32_2D": 2, "INT16_2D": 2, "QUATERNION": 4}  # fmt: skip
    if layer.data_type not in sizes:
        return layer.data_type, len(layer.data)
    name = {"FLOAT_VECTOR": "vector", "FLOAT2": "vector", "FLOAT_COLOR": "color", "BYTE_COLOR": "color"}.get(
        layer.data_type, "value"
    )
    kind = {"INT": np.int32, "INT8": np.int32, "BOOLEAN": bool, "INT32_2D": np.int32, "INT16_2D": np.int32}.get(
        layer.data_type, np.float32
    )
    return layer.domain, hashed(refine_request.values(layer.data, name, kind, sizes[layer.data_type]).tobytes())


def image_hash(image):
    """What an artist would miss: the packed bytes, where the file is, and how it is read."""
    packed = [hashed(bytes(part.packed_file.data)) for part in image.packed_files]
    return image.filepath_raw, packed, image.colorspace_settings.name, image.alpha_mode, image.source


def name_of(block):
    return None if block is None else block.name_full


def hashed(data):
    return hashlib.sha256(data).hexdigest()
