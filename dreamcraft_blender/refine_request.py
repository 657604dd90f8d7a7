"""A refine request from an object of the scene: arrays, image files as they are, and what is wanted of them.

What is sent is what the shader samples: the evaluated mesh, unless its modifiers leave topology alone; then it is the
original in rest pose. Triangles are Blender's own. The request holds no path and no name but those of UV maps.
The folder's format is that of the backend's documentation ("Refining", "The request, for other programs").
"""

import hashlib
import io
import json
import zipfile
from dataclasses import dataclass, field, replace

import bpy
import numpy as np

from . import refine_materials
from .problems import Problem
from .submission import Picture

SCHEMA = "refine/1"
SPACES = ("sRGB", "Non-Color", "Linear Rec.709")
ALPHA = {"STRAIGHT", "PREMUL", "CHANNEL_PACKED", "NONE"}


@dataclass(frozen=True)
class Wish:
    """What the user wants repainted, and how.

    Attributes:
        slots: indices; empty = the active one. uv_map: empty = what the material names, else the one that renders.
        faces: ALL, SELECTED, or the name of a vertex group after "GROUP:". reference: a picture, or None for the
        present look. view: world-to-clip matrix of the camera that sees the whole picture (rows), or None.
    """

    slots: tuple[int, ...] = ()
    uv_map: str = ""
    faces: str = "ALL"
    reference: Picture | None = None
    view: tuple[tuple[float, ...], ...] | None = None
    elevation: float | None = None
    strength: float = 1.0
    prompt: str = ""
    seed: int = 0
    texture_size: int = 1024
    overlap: str | None = None


@dataclass(frozen=True)
class Request:
    """What is sent, and what applying the answer needs. `files`: image bytes by their SHA-256."""

    header: dict
    arrays: dict = field(repr=False)
    files: dict = field(repr=False)
    fingerprint: str = ""
    slots: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()

    def packed(self) -> bytes:
        """The ZIP file that the service takes; images are not packed a second time."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for name, data in self.files.items():
                archive.writestr(f"files/{name}", data)
            for name, array in self.arrays.items():
                part = io.BytesIO()
                np.save(part, np.ascontiguousarray(array), allow_pickle=False)
                archive.writestr(f"{name}.npy", part.getvalue(), zipfile.ZIP_DEFLATED, 1)
            archive.writestr("request.json", json.dumps(self.header))
        return buffer.getvalue()


def build(item, wish: Wish, *, preset: str = "preview") -> Request:
    """Reads the object; changes nothing. Raises `Problem`."""
    check_object(item)
    wish = replace(wish, slots=wish.slots or (item.active_material_index,))
    sources = {slot: refine_materials.source_of(material_in(item, slot), slot) for slot in wish.slots}
    files: dict[str, bytes] = {}
    targets = [target_of(slot, source, wish, files) for slot, source in sources.items()]
    with Evaluated(item) as (mesh, geometry):
        names = {target["slot"]: target["uv_map"] or default_map(mesh, item) for target in targets}
        arrays = arrays_of(mesh, item, names, wish)
    for target in targets:
        target["uv_map"] = names[target["slot"]]
    reference = None
    if wish.reference is not None:
        files[digest(wish.reference.data)] = wish.reference.data
        reference = {"sha256": digest(wish.reference.data), "world_to_clip": wish.view}
    mark = fingerprint(arrays, wish.slots)
    matrix = item.matrix_world
    header = {
        "schema": SCHEMA,
        "matrix_world": [list(row) for row in matrix],
        "det_sign": -1 if matrix.determinant() < 0.0 else 1,
        "pose": "base" if geometry == "original" else "current",
        "geometry": geometry,
        "fingerprint": mark,
        "targets": targets,
        "prompt": wish.prompt,
        "reference": reference,
        "elevation": wish.elevation,
        "strength": wish.strength,
        "seed": wish.seed,
        "preset": preset,
        "policies": {"overlap": wish.overlap},
    }
    return Request(header, arrays, files, mark, wish.slots, tuple(warnings_of(item, arrays)))


def check_object(item):
    """Raises `Problem` for what cannot be refined at all."""
    if item is None or item.type != "MESH":
        raise Problem("E_REQUEST", "There is no mesh to refine.", "Make a mesh object the active one.")
    if item.mode != "OBJECT":
        raise Problem("E_MODE", "The object is being edited.", "Go to Object Mode first (Tab).")
    if not len(item.data.polygons):
        raise Problem("empty_model", f"{item.name} has no faces.", "Choose an object with faces.")
    if not item.data.uv_layers:
        text = f"{item.name} has no UV map: there is nothing to paint into."
        raise Problem("E_NO_UV", text, "Unwrap it (U in Edit Mode), or let a copy be unwrapped.")


def material_in(item, slot):
    """The material of a slot; None if it is empty, or the object has no slots at all (then there is only slot 0)."""
    if slot < len(item.material_slots):
        return item.material_slots[slot].material
    if slot == 0 and not item.material_slots:
        return None
    raise Problem("E_REQUEST", f"{item.name} has no material slot {slot + 1}.", "Choose another slot.")


def target_of(slot, source, wish, files):
    """The record of one slot; puts its image files into `files`."""
    image = source.image
    if image is None:
        data = refine_materials.plain_picture(source.colour, wish.texture_size)
        tiles = [refine_materials.TileFile(refine_materials.FIRST_TILE, wish.texture_size, wish.texture_size, data)]
        space, alpha, udim = "sRGB", "NONE", False
    else:
        tiles = refine_materials.files_of(image)
        space, udim = image.colorspace_settings.name, image.source == "TILED"
        alpha = image.alpha_mode if image.alpha_mode in ALPHA else "STRAIGHT"
    if space not in SPACES:
        text = f"The image of slot {slot + 1} has the colour space '{space}'."
        raise Problem("E_COLORSPACE", text, f"Set it to one of: {', '.join(SPACES)}.")
    records = []
    for tile in tiles:
        files[digest(tile.data)] = tile.data
        records.append({"number": tile.number, "width": tile.width, "height": tile.height, "sha256": digest(tile.data)})
    return {"slot": slot, "uv_map": wish.uv_map or source.uv_map, "colourspace": space, "alpha_mode": alpha,
            "udim": udim, "tiles": records}  # fmt: skip


# --- the mesh -------------------------------------------------------------------------------------


class Evaluated:
    """(mesh, "original" or "evaluated"): the mesh that is painted, for the block."""

    def __init__(self, item):
        self.item = item

    def __enter__(self):
        graph = bpy.context.evaluated_depsgraph_get()
        self.final = self.item.evaluated_get(graph)
        mesh = self.final.to_mesh(preserve_all_data_layers=True, depsgraph=graph)
        if not len(mesh.polygons):
            self.final.to_mesh_clear()
            raise nothing_left(self.item, graph)
        if topology(mesh) == topology(self.item.data) and same_maps(mesh, self.item.data):
            return self.item.data, "original"
        return mesh, "evaluated"

    def __exit__(self, *_):
        self.final.to_mesh_clear()


def nothing_left(item, graph):
    """Why an object whose own mesh has faces shows none of them."""
    if any(found.is_instance and found.parent and found.parent.original == item for found in graph.object_instances):
        text = f"{item.name} shows instances only: it has no faces of its own."
        remedy = "Refine the object that is instanced, or add Realize Instances to its Geometry Nodes."
        return Problem("E_INSTANCE_ONLY", text, remedy)
    return Problem("empty_model", f"{item.name} has no faces after its modifiers.", "Check its modifiers.")


def topology(mesh):
    """A name for the faces and what they are made of, whatever modifiers are called."""
    total = hashlib.sha256()
    for rows, name, kind in ((mesh.loops, "vertex_index", np.int32), (mesh.polygons, "loop_start", np.int32)):
        total.update(values(rows, name, kind, 1).tobytes())
    return total.digest(), len(mesh.vertices)


def same_maps(mesh, original):
    """Whether the UV maps are as they were (UV Warp and its like move them)."""
    if [layer.name for layer in mesh.uv_layers] != [layer.name for layer in original.uv_layers]:
        return False
    return all(
        np.array_equal(values(a.uv, "vector", np.float32, 2), values(b.uv, "vector", np.float32, 2))
        for a, b in zip(mesh.uv_layers, original.uv_layers, strict=True)
    )


def values(rows, name, kind, width):
    """One property of all rows as an array."""
    found = np.empty(len(rows) * width, kind)
    rows.foreach_get(name, found)
    return found.reshape(-1, width) if width > 1 else found


def default_map(mesh, item):
    """The map that renders."""
    found = next((layer.name for layer in mesh.uv_layers if layer.active_render), None)
    if found is None:
        text = f"{item.name} has no UV map after its modifiers."
        raise Problem("E_NO_UV", text, "Unwrap it (U in Edit Mode), or let a copy be unwrapped.")
    return found


def arrays_of(mesh, item, names, wish):
    """The arrays of the request. names: UV map by slot."""
    mesh.calc_loop_triangles()
    corners = values(mesh.loop_triangles, "loops", np.int32, 3)
    face = values(mesh.loop_triangles, "polygon_index", np.int32, 1)
    slot = values(mesh.polygons, "material_index", np.int32, 1)[face]
    count = max(1, len(item.material_slots))
    uv = np.zeros((len(corners), 3, 2), np.float32)
    for number, name in names.items():
        layer = mesh.uv_layers.get(name)
        if layer is None:
            text = f"{item.name} has no UV map '{name}'."
            raise Problem("E_NO_UV", text, "Choose another map, or unwrap it.")
        mine = slot == number
        uv[mine] = values(layer.uv, "vector", np.float32, 2)[corners[mine]]
    return {
        "position": values(mesh.vertices, "co", np.float32, 3),
        "tri_vertex": values(mesh.loops, "vertex_index", np.int32, 1)[corners],
        "tri_uv": uv,
        "tri_normal": values(mesh.corner_normals, "vector", np.float32, 3)[corners],
        "tri_face": face,
        "tri_slot": np.where(slot < count, slot, np.iinfo(np.int16).max).astype(np.int16),
        "tri_paint": chosen_faces(mesh, item, wish.faces)[face],
    }


def chosen_faces(mesh, item, faces):
    """Bool for each face."""
    if faces == "ALL":
        return np.ones(len(mesh.polygons), bool)
    if faces == "SELECTED":
        return values(mesh.polygons, "select", bool, 1)
    name = faces.removeprefix("GROUP:")
    group = item.vertex_groups.get(name)
    if group is None:
        raise Problem("E_EMPTY_MASK", f"There is no vertex group '{name}'.", "Choose another group.")
    inside = np.zeros(len(mesh.vertices), bool)
    for vertex in mesh.vertices:
        inside[vertex.index] = any(part.group == group.index and part.weight > 0.5 for part in vertex.groups)
    starts = values(mesh.polygons, "loop_start", np.int32, 1)
    return np.logical_and.reduceat(inside[values(mesh.loops, "vertex_index", np.int32, 1)], starts)


def fingerprint(arrays, slots):
    """A name for what an answer fits: shape, coordinates, slots. Selection and place do not count."""
    total = hashlib.sha256(repr(sorted(slots)).encode())
    for name in ("position", "tri_vertex", "tri_uv", "tri_slot"):
        total.update(np.ascontiguousarray(arrays[name]).tobytes())
    return total.hexdigest()


def fingerprint_now(item, slots, maps):
    """The same of the object as it is now. maps: UV map by slot. Raises `Problem`."""
    check_object(item)
    with Evaluated(item) as (mesh, _):
        return fingerprint(arrays_of(mesh, item, maps, Wish()), slots)


def warnings_of(item, arrays):
    lost = int((arrays["tri_slot"] == np.iinfo(np.int16).max).sum())
    if lost:
        yield f"{lost} triangles name a material slot that does not exist; they are not painted."


def digest(data):
    return hashlib.sha256(data).hexdigest()


# --- views ----------------------------------------------------------------------------------------


def view_through(camera, width, height):
    """World-to-clip matrix of a camera for a picture of this size."""
    graph = bpy.context.evaluated_depsgraph_get()
    projection = camera.calc_matrix_camera(graph, x=max(1, width), y=max(1, height))
    return rows_of(projection @ camera.matrix_world.inverted())


def view_of_region(region, space, width, height):
    """World-to-clip matrix of a 3D view: the picture's height is the view's height."""
    matrix = space.region_3d.perspective_matrix.copy()
    matrix[0] = matrix[0] * ((region.width / region.height) / (max(1, width) / max(1, height)))
    return rows_of(matrix)


def rows_of(matrix):
    return tuple(tuple(float(value) for value in row) for row in matrix)
