"""The form for refining the texture of a mesh that is there already."""

import bpy

from . import session
from .drawing import DreamCraftPanel, words, wrapped
from .operators_refine import records_of
from .refine_apply import is_shown


class DREAMCRAFT_PT_refine(DreamCraftPanel, bpy.types.Panel):
    """A new texture for the active mesh"""

    bl_label = "Refine Texture"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context):
        layout, form, item = self.layout, context.scene.dreamcraft, context.active_object
        layout.use_property_split = True
        layout.use_property_decorate = False
        if item is None or item.type != "MESH":
            wrapped(layout, words("Make a mesh object the active one."), context, icon="INFO")
            return
        if not item.data.uv_layers:
            wrapped(layout, words("This mesh has no UV map: there is nothing to paint into."), context, icon="ERROR")
            layout.operator("dreamcraft.unwrap_copy", icon="UV")
            return
        draw_form(layout, form.refine, form, item)
        row = layout.row()
        row.scale_y = 1.4
        row.operator("dreamcraft.refine", icon="BRUSH_DATA")
        draw_waiting(layout, form, item, context)
        for record in records_of(context):
            draw_record(layout, record)


def draw_form(layout, refine, form, item):
    layout.prop(refine, "reference")
    if refine.reference == "PICTURE":
        layout.template_ID(form, "picture", open="dreamcraft.open_picture")
        layout.prop(refine, "view")
    layout.prop(refine, "slots")
    if refine.slots == "ACTIVE" and item.material_slots:
        layout.template_list(
            "MATERIAL_UL_matslots", "dreamcraft", item, "material_slots", item, "active_material_index", rows=2
        )
    layout.prop_search(refine, "uv_map", item.data, "uv_layers")
    layout.prop(refine, "faces")
    layout.prop(refine, "strength", slider=True)
    layout.prop(refine, "mode")


def draw_waiting(layout, form, item, context):
    """Jobs that will bring images for this object."""
    current = session.peek()
    for pending in form.refining:
        job = current.jobs.get(pending.job) if current is not None else None
        if pending.item == item and not pending.applied and job is not None and job.active:
            layout.progress(factor=job.fraction, text=f"{job.name}  {job.fraction:.0%}")


def draw_record(layout, record):
    row = layout.row(align=True)
    shown = is_shown(record)
    icon = "HIDE_OFF" if shown else "HIDE_ON"
    row.label(text=words("Slot {number}").format(number=record.slot + 1), translate=False, icon="MATERIAL")
    row.operator("dreamcraft.toggle_refinement", icon=icon, depress=shown).slot = record.slot
    row.operator("dreamcraft.revert_refinement", text="", icon="LOOP_BACK").slot = record.slot


CLASSES = (DREAMCRAFT_PT_refine,)
