"""What the panel edits: settings in the scene (saved in the .blend), and the list of jobs in the window manager (not).

No secret is ever a scene property. Jobs that this file still waits for are kept in the scene too (`pending`), so that a
file saved in the middle finds its job again.
"""

import bpy
from bpy.props import (
    BoolProperty,
    CollectionProperty,
    EnumProperty,
    FloatProperty,
    FloatVectorProperty,
    IntProperty,
    PointerProperty,
    StringProperty,
)

NUMBERS = {"preview": 0, "fast": 1, "balanced": 2, "paper": 3}
"""Fixed numbers of known presets: Blender saves an enum as its number."""

ICONS = {
    "queued": "TIME",
    "running": "RENDER_ANIMATION",
    "paused": "PAUSE",
    "finished": "CHECKMARK",
    "failed": "ERROR",
    "cancelled": "X",
}

_items: list[tuple[str, str, str, int]] = []
"""The preset menu's words; Blender does not keep them alive itself."""


def preset_items(self, context):
    """The service's presets; before it is known, the one that it surely has."""
    from . import session

    found = session.presets()
    rows = []
    for index, preset in enumerate(found or [{"name": "preview"}]):
        name = str(preset["name"])
        title = str(preset.get("title") or name.capitalize())
        rows.append((name, title, str(preset.get("description") or ""), NUMBERS.get(name, 10 + index)))
    if rows != _items:
        _items[:] = rows
    return _items


def picture_changed(self, context):
    if self.picture is not None:
        self.picture.preview_ensure()
    mask_changed(self, context)


def mask_changed(self, context):
    from . import session

    session.look_at_picture(self)


def preset_changed(self, context):
    from . import session

    session.preset_changed(self.preset)


def is_mesh(self, item):
    return item.type == "MESH"


def batch_changed(self, context):
    from . import session

    session.get().batch.sync()


class DREAMCRAFT_PG_pending(bpy.types.PropertyGroup):
    """A job whose object this scene waits for, and where it goes."""

    job: StringProperty()
    location: FloatVectorProperty(subtype="XYZ")
    height: FloatProperty(default=1.0)
    mark_asset: BoolProperty()
    live: BoolProperty()
    live_object: StringProperty()
    prompt: StringProperty()
    imported: BoolProperty()


class DREAMCRAFT_PG_refining(bpy.types.PropertyGroup):
    """A refine job whose images this scene waits for, and what they fit."""

    job: StringProperty()
    item: PointerProperty(type=bpy.types.Object)
    mode: StringProperty()
    fingerprint: StringProperty()
    maps: StringProperty()  # UV map by slot, as JSON
    applied: BoolProperty()


class DREAMCRAFT_PG_refined(bpy.types.PropertyGroup):
    """A slot that shows a refined look, and what reverting needs. Pointers, so that saving keeps what was there."""

    item: PointerProperty(type=bpy.types.Object)
    slot: IntProperty()
    mode: StringProperty()
    before: PointerProperty(type=bpy.types.Material)
    after: PointerProperty(type=bpy.types.Material)
    image: PointerProperty(type=bpy.types.Image)
    old_image: PointerProperty(type=bpy.types.Image)
    link_before: StringProperty()
    link_after: StringProperty()
    added_slot: BoolProperty()


class DREAMCRAFT_PG_refine(bpy.types.PropertyGroup):
    """The form for refining."""

    reference: EnumProperty(
        name="Reference",
        description="What the object should look like",
        items=[
            ("LOOK", "Present Look", "Only improve what is there"),
            ("PICTURE", "Picture", "The picture of the form above"),
        ],
    )
    view: EnumProperty(
        name="Seen From",
        description="From where the picture shows the object",
        items=[
            ("FRONT", "Front", "From the object's front; it is laid over the outline"),
            ("VIEW", "This View", "As this 3D view shows the object now"),
            ("CAMERA", "Scene Camera", "Through the scene's camera"),
        ],
    )
    slots: EnumProperty(
        name="Materials",
        description="Which material slots are repainted",
        items=[("ACTIVE", "Active Slot", "The object's active material slot"), ("ALL", "All Slots", "Every slot")],
    )
    uv_map: StringProperty(name="UV Map", description="Empty: the one that the material uses")
    faces: EnumProperty(
        name="Faces",
        description="Which faces are repainted",
        items=[
            ("ALL", "All", "Every face of the slots"),
            ("SELECTED", "Selected", "Faces that are selected in Edit Mode"),
            ("GROUP", "Vertex Group", "Faces whose vertices are in the active vertex group"),
        ],
    )
    strength: FloatProperty(
        name="Strength", description="How much may change: 0 is nothing, 1 is everything", default=1.0, min=0.0, max=1.0
    )
    mode: EnumProperty(
        name="Apply As",
        description="What happens with the new images",
        items=[
            ("material", "New Material", "A copy of the material in this slot of this object; reversible"),
            ("image", "Replace Image", "The material shows the new image, wherever it is used; reversible"),
            ("none", "Images Only", "The images are kept in the file, nothing else changes"),
        ],
    )


class DREAMCRAFT_PG_settings(bpy.types.PropertyGroup):
    """The form."""

    picture: PointerProperty(
        type=bpy.types.Image,
        name="Picture",
        description="The object, seen from its front; anything that Blender can show",
        update=picture_changed,
    )
    prompt: StringProperty(name="Prompt", description="What the picture shows, in a few words; names the object")
    preset: EnumProperty(
        name="Preset", description="How much time the result may take", items=preset_items, update=preset_changed
    )
    seed: IntProperty(name="Seed", description="Same seed, same result; another seed, another guess of the back", min=0)
    elevation: FloatProperty(
        name="Picture Elevation",
        description="Height of the camera that took the picture in degrees, 20 is from above; 0 lets the program guess",
        min=-80.0,
        max=80.0,
        precision=1,
        step=100,
        update=mask_changed,
    )
    target_faces: IntProperty(
        name="Target Faces",
        description="Largest number of triangles; 0 leaves it to the preset",
        min=0,
        max=500_000,
        step=1000,
    )
    texture_size: EnumProperty(
        name="Texture Size",
        description="Side of the texture in pixels",
        items=[
            ("PRESET", "As Preset", "What the preset says"),
            ("512", "512", ""),
            ("1024", "1024", ""),
            ("2048", "2048", ""),
            ("4096", "4096", ""),
        ],
    )
    use_shape: BoolProperty(
        name="Start from a Shape",
        description="Start from an object's shape instead of making one from the picture: a blockout, a scan, any mesh",
    )
    shape: PointerProperty(
        type=bpy.types.Object,
        name="Shape",
        description="The mesh to start from; empty: the active object",
        poll=is_mesh,
    )
    shape_turn: BoolProperty(
        name="Turn to Fit",
        description="Look for the side of the object that the picture shows; off: the picture shows its front",
        default=True,
    )
    mask_source: EnumProperty(
        name="Mask",
        description="How the object is told from its background",
        items=[
            (
                "AUTO",
                "Auto",
                "Take the picture's transparency; if it has none, remove the background",
                "SHADERFX",
                0,
            ),
            ("ALPHA", "Alpha", "Take the picture's alpha channel as it is", "IMAGE_RGB_ALPHA", 1),
            ("IMAGE", "Painted", "Take another image: white is the object", "BRUSH_DATA", 2),
        ],
        update=mask_changed,
    )
    mask_image: PointerProperty(
        type=bpy.types.Image,
        name="Mask Image",
        description="White where the object is, as large as the picture",
        update=mask_changed,
    )
    height: FloatProperty(
        name="Height",
        description="Height of the imported object",
        default=1.0,
        min=0.001,
        soft_max=10.0,
        subtype="DISTANCE",
    )
    mark_asset: BoolProperty(
        name="Mark as Asset", description="Put the object into the Asset Browser, with its picture"
    )
    live: BoolProperty(
        name="Live Object",
        description="Show the shape so far in the scene while the job runs; the final object replaces it",
        default=True,
    )
    pending: CollectionProperty(type=DREAMCRAFT_PG_pending)
    refine: PointerProperty(type=DREAMCRAFT_PG_refine)
    refining: CollectionProperty(type=DREAMCRAFT_PG_refining)
    refined: CollectionProperty(type=DREAMCRAFT_PG_refined)
    batch: StringProperty(
        name="Batch",
        description="A manifest (JSONL, CSV) or a folder of pictures",
        update=batch_changed,
    )
    batch_jobs: IntProperty(
        name="At a Time", description="Items that are made at the same time; 0 is as batch.json says", min=0, max=64
    )


class DREAMCRAFT_PG_job(bpy.types.PropertyGroup):
    """One line of the list; what it shows is looked up by id. Its `name` is the job's."""

    job: StringProperty()
    state: StringProperty()


class DREAMCRAFT_PG_batch_item(bpy.types.PropertyGroup):
    """One item of the batch; its `name` is for the list's filter."""

    item: StringProperty()


class DREAMCRAFT_PG_session(bpy.types.PropertyGroup):
    """What lives as long as the window."""

    jobs: CollectionProperty(type=DREAMCRAFT_PG_job)
    active: IntProperty(name="Job", description="The job that the buttons are about")
    batch: CollectionProperty(type=DREAMCRAFT_PG_batch_item)
    batch_active: IntProperty(name="Item", description="The item that the buttons are about")


CLASSES = (
    DREAMCRAFT_PG_pending,
    DREAMCRAFT_PG_refining,
    DREAMCRAFT_PG_refined,
    DREAMCRAFT_PG_refine,
    DREAMCRAFT_PG_settings,
    DREAMCRAFT_PG_job,
    DREAMCRAFT_PG_batch_item,
    DREAMCRAFT_PG_session,
)


def register():
    bpy.types.Scene.dreamcraft = PointerProperty(type=DREAMCRAFT_PG_settings)
    bpy.types.WindowManager.dreamcraft = PointerProperty(type=DREAMCRAFT_PG_session)


def unregister():
    del bpy.types.WindowManager.dreamcraft
    del bpy.types.Scene.dreamcraft
    _items.clear()
