"""A model to a finished object: upright, of the wanted height, its origin at its base, with its texture packed.

Everything here goes through bpy.data, needs no mode, selection or window, and does not touch the undo stack: the
operator that calls it is one undo step.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import bpy
import numpy as np

from . import glb
from .problems import Problem

MARK = "dreamcraft_job"
"""The custom property by which an object knows its job."""


@dataclass(frozen=True)
class Placement:
    """Where the object goes and what it remembers. `properties`: plain values for its custom properties."""

    name: str = "DreamCraft"
    location: tuple[float, float, float] = (0.0, 0.0, 0.0)
    height: float = 1.0
    properties: dict[str, object] = field(default_factory=dict)


def import_model(path: Path, scene, placement: Placement, *, replacing: str = ""):
    """The object made from a GLB file, linked to the scene; takes the place of the object named `replacing`.

    An object that is replaced keeps its transform, collections and name: only its mesh changes.
    """
    model = glb.read(path)
    mesh = build_mesh(model, placement.name, placement.height)
    mesh.materials.append(build_material(model, placement.name))
    item = scene.objects.get(replacing) if replacing else None
    if item is not None and item.type == "MESH":
        old = item.data
        item.data = mesh
        remove_mesh(old)
    else:
        item = bpy.data.objects.new(placement.name, mesh)
        item.location = placement.location
        collection_of(scene).objects.link(item)
    for name, value in placement.properties.items():
        item[name] = value
    return item


def import_scene(path: Path):
    """The objects of any GLB or OBJ file, with packed images, in the active collection; slower than `import_model`."""
    before = set(bpy.data.objects), set(bpy.data.images)
    try:
        if path.suffix.lower() == ".obj":
            bpy.ops.wm.obj_import(filepath=str(path))
        else:
            bpy.ops.import_scene.gltf(filepath=str(path))
    except (RuntimeError, AttributeError) as error:  # the importer is an extension that can be disabled
        raise Problem("bad_model", f"Blender cannot read {path.name}: {error}.", "Enable its importer.") from error
    for image in bpy.data.images:
        if image not in before[1] and image.packed_file is None and image.has_data:
            image.pack()
    return [item for item in bpy.data.objects if item not in before[0]]


def append_object(path: Path, name: str):
    """An object of a Blender file with all that belongs to it, in no collection yet. Raises `Problem`."""
    try:
        with bpy.data.libraries.load(str(path), link=False) as (there, mine):
            mine.objects = [name] if name in there.objects else []
    except OSError as error:
        raise Problem("bad_model", f"Blender cannot read {path.name}: {error}.", "Run the batch again.") from error
    if not mine.objects:
        raise Problem("bad_model", f"There is no object {name} in {path.name}.", "Run the batch again.")
    return mine.objects[0]


def build_mesh(model, name, height):
    """A mesh of `height`, its origin in the middle of its base."""
    points = np.asarray(model.vertices, np.float64)
    low, high = points.min(axis=0), points.max(axis=0)
    size = high[2] - low[2]
    if size <= 0.0:
        raise Problem("bad_model", "The model is flat.", "Check the mask, or try another seed.")
    base = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]])
    points = ((points - base) * (height / size)).astype(np.float32)
    mesh = bpy.data.meshes.new(name)
    count = len(model.faces)
    mesh.vertices.add(len(points))
    mesh.vertices.foreach_set("co", points.ravel())
    mesh.loops.add(count * 3)
    mesh.loops.foreach_set("vertex_index", model.faces.astype(np.int32).ravel())
    mesh.polygons.add(count)
    mesh.polygons.foreach_set("loop_start", np.arange(0, count * 3, 3, dtype=np.int32))
    if model.uvs is not None:
        layer = mesh.uv_layers.new(name="UVMap", do_init=False)
        layer.data.foreach_set("uv", model.uvs.reshape(-1).astype(np.float32))
    if model.colours is not None:
        colours = mesh.color_attributes.new("Color", "FLOAT_COLOR", "POINT")
        colours.data.foreach_set("color", np.ascontiguousarray(model.colours, np.float32).ravel())
    mesh.update(calc_edges=True)
    mesh.validate()
    mesh.shade_smooth()
    return mesh


def build_material(model, name):
    """A Principled material with the picture, or the mesh's colours, as its base colour."""
    material = bpy.data.materials.new(name)
    material.use_nodes = True
    nodes, links = material.node_tree.nodes, material.node_tree.links
    shader = next(node for node in nodes if node.type == "BSDF_PRINCIPLED")
    shader.inputs["Metallic"].default_value = model.metallic
    shader.inputs["Roughness"].default_value = model.roughness
    shader.inputs["Specular IOR Level"].default_value = model.specular
    if model.picture is not None:
        node = nodes.new("ShaderNodeTexImage")
        node.image = packed_image(model.picture, name)
    elif model.colours is not None:
        node = nodes.new("ShaderNodeVertexColor")
        node.layer_name = "Color"
    else:
        return material
    node.location = (shader.location.x - 320, shader.location.y)
    links.new(node.outputs["Color"], shader.inputs["Base Color"])
    return material


def packed_image(data, name):
    """An image that lives inside the .blend."""
    image = bpy.data.images.new(name, 8, 8)
    image.pack(data=data, data_len=len(data))
    image.source = "FILE"
    return image


def remove_mesh(mesh):
    """Removes a mesh that nobody uses any more, with the materials and images that were only its own."""
    materials = [material for material in mesh.materials if material is not None]
    if mesh.users:
        return
    bpy.data.meshes.remove(mesh)
    for material in materials:
        if material.users:
            continue
        images = [node.image for node in material.node_tree.nodes if node.type == "TEX_IMAGE" and node.image]
        bpy.data.materials.remove(material)
        for image in images:
            if not image.users:
                bpy.data.images.remove(image)


def collection_of(scene):
    """Where new objects of this scene go: the active collection if it can be seen, else the scene's own."""
    layer = bpy.context.view_layer if bpy.context.scene == scene else None
    active = layer.active_layer_collection if layer is not None else None
    if active is None or active.exclude or active.hide_viewport or active.collection.library is not None:
        return scene.collection
    return active.collection


def select(item):
    """Makes the object the only selected and the active one, where the window shows its scene."""
    layer = bpy.context.view_layer
    layer.update()  # so that it knows the new object
    if item.name not in layer.objects:
        return
    for other in layer.objects:
        if other.select_get():
            other.select_set(False)
    item.select_set(True)
    layer.objects.active = item


def mark_asset(item, picture: Path | None, description: str):
    """An entry in the Asset Browser; its preview is the picture, or is rendered by Blender."""
    item.asset_mark()
    item.asset_data.description = description
    item.asset_data.tags.new("DreamCraft", skip_if_exists=True)
    if picture is not None and picture.is_file():
        with bpy.context.temp_override(id=item):
            bpy.ops.ed.lib_id_load_custom_preview(filepath=str(picture))
    elif not bpy.app.background:
        item.asset_generate_preview()


def remembered(job, report, prompt=""):
    """What an object keeps of how it was made."""
    request = job.request or {}
    settings = request.get("settings") or {}
    found = {
        MARK: job.id,
        "dreamcraft_preset": str(request.get("preset") or ""),
        "dreamcraft_seed": str(report.get("seed", settings.get("seed", 0))),
        "dreamcraft_prompt": prompt,
        "dreamcraft_priors": ", ".join(map(str, report.get("priors") or ())),
        "dreamcraft_licences": json.dumps(report.get("licences") or {}),
        "dreamcraft_versions": json.dumps(report.get("versions") or {}),
        "dreamcraft_settings": json.dumps(settings),
    }
    return {name: value for name, value in found.items() if value not in ("", "{}")}


def read_report(path: Path):
    """The job's report.json; empty if there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
