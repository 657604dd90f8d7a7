"""The form: the tab "DreamCraft" in the 3D view's sidebar. Panels only read; nothing here changes or waits."""

import bpy

from . import advanced, session
from .drawing import STAGE_NAMES, DreamCraftPanel, draw_problem, duration, words, wrapped
from .link import LinkState
from .schema import identifier


class DREAMCRAFT_PT_main(DreamCraftPanel, bpy.types.Panel):
    """The form and its button"""

    bl_label = "Picture to Object"

    def draw(self, context):
        layout, form, current = self.layout, context.scene.dreamcraft, session.peek()
        if current is not None:
            draw_installation(layout, current, context)
            for problem in {id(p): p for p in (current.link.problem, current.problem) if p is not None}.values():
                draw_problem(layout, problem, context, dismiss=problem is current.problem)
        draw_picture(layout, form, current, context)
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.prop(form, "prompt", placeholder="What is it?")
        layout.prop(form, "preset")
        draw_estimate(layout, form, context)
        layout.prop(form, "seed")
        draw_shape(layout, form, context)
        row = layout.row()
        row.scale_y = 1.6
        row.operator("dreamcraft.generate", icon="SHADERFX")


def draw_installation(layout, current, context):
    """The installation's bar, or the offer to install, where there is no backend at all."""
    installer = current.installer
    if installer is not None and not installer.done:
        box = layout.box()
        box.label(text="Installing the Backend", icon="IMPORT")
        box.progress(factor=installer.fraction, text=installer.text)
        box.operator("dreamcraft.cancel_install", icon="CANCEL")
    elif (
        current.link.launcher.installation is None and current.link.state is LinkState.IDLE and current.problem is None
    ):
        box = layout.box()
        box.label(text="One Step Before the First Object", icon="INFO")
        text = words("The backend does the computing. It is installed beside Blender, once (about 1 GB).")
        wrapped(box, text, context, icon="BLANK1")
        row = box.row(align=True)
        row.scale_y = 1.3
        row.operator("dreamcraft.install_backend", icon="IMPORT")
        row.operator("dreamcraft.open_preferences", text="", icon="PREFERENCES")


def draw_picture(layout, form, current, context):
    """The picture and, beside it, what is taken for the object."""
    row = layout.row(align=True)
    row.template_ID(form, "picture", open="dreamcraft.open_picture")
    row.operator("dreamcraft.paste_picture", text="", icon="PASTEDOWN")
    row.operator("dreamcraft.use_render", text="", icon="RENDER_RESULT")
    if form.picture is None:
        wrapped(
            layout, words("Open, paste, or drop a picture of one object into the view."), context, icon="IMAGE_DATA"
        )
        return
    row = layout.row()
    left, right = row.column(), row.column()
    left.label(text="Picture")
    right.label(text="Taken for the Object")
    if form.picture.preview is not None:
        left.template_icon(form.picture.preview.icon_id, scale=5.5)
    icon = current.mask.icon() if current is not None else 0
    if icon:
        right.template_icon(icon, scale=5.5)
    elif current is not None and current.mask.pending:
        right.label(text="Looking for the Object", icon="SORTTIME")
    elif current is not None and current.mask.problem is not None:
        wrapped(right, words(current.mask.problem.message), context, icon="ERROR")
    else:
        right.label(text="No Mask Yet", icon="MOD_MASK")
    row = layout.row(align=True)
    row.prop(form, "mask_source", expand=True)
    row.operator("dreamcraft.edit_mask", text="", icon="GREASEPENCIL")
    if form.mask_source == "IMAGE":
        layout.template_ID(form, "mask_image", open="image.open")


def draw_shape(layout, form, context):
    """Which object the shape is taken from, if one is."""
    layout.prop(form, "use_shape")
    if not form.use_shape:
        return
    active = context.active_object
    hint = active.name if form.shape is None and active is not None and active.type == "MESH" else ""
    layout.prop(form, "shape", placeholder=hint)
    layout.prop(form, "shape_turn")


def draw_estimate(layout, form, context):
    """Minutes and memory of the chosen preset, where the service knows them; why it cannot be used, if so."""
    preset = session.preset_named(form.preset)
    if preset.get("available") is False:
        wrapped(layout, str(preset.get("reason") or ""), context, icon="ERROR")
        return
    parts = [] if preset.get("minutes") is not None or not preset else [words("not timed on this machine yet")]
    if preset.get("minutes") is not None:
        parts.append(words("about {time}").format(time=duration(60 * float(preset["minutes"]))))
    if preset.get("memory_gib") is not None:
        parts.append(words("{size:.1f} GB of memory").format(size=float(preset["memory_gib"])))
    if parts:
        row = layout.row()
        row.alignment = "RIGHT"
        row.active = False
        row.label(text=", ".join(parts), translate=False)


class DREAMCRAFT_PT_object(DreamCraftPanel, bpy.types.Panel):
    """How the object comes"""

    bl_label = "Object"
    bl_parent_id = "DREAMCRAFT_PT_main"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context):
        layout, form = self.layout, context.scene.dreamcraft
        layout.use_property_split = True
        layout.use_property_decorate = False
        for name in ("height", "elevation", "target_faces", "texture_size", "live", "mark_asset"):
            layout.prop(form, name)


class DREAMCRAFT_PT_advanced(DreamCraftPanel, bpy.types.Panel):
    """Everything that the backend can be told"""

    bl_label = "Advanced"
    bl_parent_id = "DREAMCRAFT_PT_main"
    bl_options = {"DEFAULT_CLOSED"}

    @classmethod
    def poll(cls, context):
        return bool(advanced.fields()) and hasattr(context.scene, "dreamcraft_advanced")

    def draw(self, context):
        group = context.scene.dreamcraft_advanced
        by_group = {}
        for item in advanced.fields().values():
            by_group.setdefault(item.group, []).append(item)
        for name, items in by_group.items():
            header, body = self.layout.panel(f"DREAMCRAFT_PT_advanced_{name}", default_closed=True)
            count = sum(group.is_property_set(identifier(item.key)) for item in items)
            title = words(STAGE_NAMES.get(name, name.replace("_", " ").title()))
            header.label(text=f"{title} ({count})" if count else title, translate=False)
            if body is not None:
                body.use_property_split = True
                body.use_property_decorate = False
                for item in items:
                    body.prop(group, identifier(item.key))


CLASSES = (DREAMCRAFT_PT_main, DREAMCRAFT_PT_object, DREAMCRAFT_PT_advanced)
