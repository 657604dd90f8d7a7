"""What is drawn: the tab "DreamCraft" in the 3D view's sidebar. Panels only read; nothing here changes or waits."""

import textwrap

import bpy

from . import advanced, session
from .jobs import STAGES
from .link import LinkState
from .operators import chosen
from .properties import ICONS
from .schema import identifier

STAGE_NAMES = {
    "coarse_nerf": "Rough Shape",
    "neus": "Surface",
    "geometry": "Fine Shape",
    "mesh": "Mesh",
    "texture": "Texture",
    "export": "Writing Files",
}

STATE_NAMES = {
    "queued": "Waiting",
    "running": "Running",
    "paused": "Paused",
    "finished": "Finished",
    "failed": "Failed",
    "cancelled": "Cancelled",
}

LINK_NAMES = {
    LinkState.IDLE: ("Not Running", "RADIOBUT_OFF"),
    LinkState.CONNECTING: ("Starting", "SORTTIME"),
    LinkState.READY: ("Ready", "RADIOBUT_ON"),
    LinkState.STOPPED: ("Stopped", "CANCEL"),
    LinkState.FAILED: ("Not Answering", "ERROR"),
}


def words(text):
    """Fixed words in the user's language."""
    return bpy.app.translations.pgettext_iface(text)


def wrapped(layout, text, context, *, icon="NONE"):
    """A text over as many lines as the sidebar's width needs."""
    scale = context.preferences.system.ui_scale or 1.0
    width = max(16, int((context.region.width / scale - 60) / 6.2)) if context.region else 40
    column = layout.column(align=True)
    column.scale_y = 0.8
    for index, line in enumerate(textwrap.wrap(text, width) or [""]):
        column.label(text=line, icon=icon if index == 0 else ("BLANK1" if icon != "NONE" else "NONE"), translate=False)


def draw_problem(layout, problem, context, *, dismiss=False):
    """What is wrong, what to do, and the button that does it."""
    box = layout.box()
    row = box.row()
    wrapped(row, words(problem.message), context, icon="ERROR")
    if dismiss:
        row.operator("dreamcraft.dismiss", text="", icon="X", emboss=False)
    if problem.remedy:
        wrapped(box, words(problem.remedy), context, icon="BLANK1")
    row = box.row()
    if problem.button is not None and hasattr(bpy.types, rna_name(problem.button.operator)):
        row.operator(problem.button.operator, text=words(problem.button.label), translate=False)
    if problem.log and (problem.button is None or problem.button.operator != "dreamcraft.open_log"):
        row.operator("dreamcraft.open_log")


def rna_name(operator):
    group, _, name = operator.partition(".")
    return f"{group.upper()}_OT_{name}"


def duration(seconds):
    """A few words for a time."""
    if seconds is None:
        return ""
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60}:{seconds % 60:02d} min"
    return f"{seconds // 3600}:{seconds % 3600 // 60:02d} h"


class DreamCraftPanel:
    """Base: where the panels are."""

    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "DreamCraft"


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
    icon = current.mask_icon() if current is not None else 0
    if icon:
        right.template_icon(icon, scale=5.5)
    elif current is not None and current.mask_pending:
        right.label(text="Looking for the Object", icon="SORTTIME")
    elif current is not None and current.mask_problem is not None:
        wrapped(right, words(current.mask_problem.message), context, icon="ERROR")
    else:
        right.label(text="No Mask Yet", icon="MOD_MASK")
    row = layout.row(align=True)
    row.prop(form, "mask_source", expand=True)
    row.operator("dreamcraft.edit_mask", text="", icon="GREASEPENCIL")
    if form.mask_source == "IMAGE":
        layout.template_ID(form, "mask_image", open="image.open")


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


class DREAMCRAFT_PT_progress(DreamCraftPanel, bpy.types.Panel):
    """The job that runs"""

    bl_label = "Progress"

    @classmethod
    def poll(cls, context):
        current = session.peek()
        return current is not None and current.active_job() is not None

    def draw(self, context):
        layout, current = self.layout, session.peek()
        job = current.active_job()
        row = layout.row()
        row.label(text=job.name or job.id[:8], icon=ICONS.get(job.state, "DOT"), translate=False)
        if job.state == "running":
            layout.progress(factor=job.overall, text=f"{job.overall:.0%}")
            self.draw_stage(layout, job)
        else:
            name = words(STATE_NAMES.get(job.state, job.state))
            ahead = f" ({job.position})" if job.position else ""
            layout.label(text=name + ahead, translate=False)
        icon = current.preview_icon(job.id)
        if icon:
            layout.template_icon(icon, scale=9.0)
        if current.notes.get(job.id):
            wrapped(layout, current.notes[job.id], context, icon="INFO")
        row = layout.row(align=True)
        action = "pause" if job.state in ("running", "queued") else "resume"
        label, icon = ("Pause", "PAUSE") if action == "pause" else ("Resume", "PLAY")
        button = row.operator("dreamcraft.job_action", text=label, icon=icon)
        button.job, button.action = job.id, action
        button = row.operator("dreamcraft.job_action", text="Cancel", icon="CANCEL")
        button.job, button.action = job.id, "cancel"

    def draw_stage(self, layout, job):
        """Which stage of how many, its bar, and how long it still takes."""
        if not job.stage:
            layout.label(text="Loading", icon="SORTTIME")
            return
        name = words(STAGE_NAMES.get(job.stage, job.stage.replace("_", " ").title()))
        number = f"{STAGES.index(job.stage) + 1}/{len(STAGES)} " if job.stage in STAGES else ""
        step = f"  {job.step}/{job.total}" if job.total else ""
        layout.progress(factor=job.fraction, text=f"{number}{name}{step}")
        if job.eta is not None:
            row = layout.row()
            row.alignment = "RIGHT"
            row.active = False
            row.label(text=words("{time} left in this stage").format(time=duration(job.eta)), translate=False)


class DREAMCRAFT_UL_jobs(bpy.types.UIList):
    """Queue and history, the newest first."""

    def draw_item(self, context, layout, data, item, icon, active_data, active_propname, index):
        current = session.peek()
        job = current.jobs.get(item.job) if current is not None else None
        row = layout.row(align=True)
        picture = current.preview_icon(item.job) if job is not None else 0
        if picture:
            row.label(text="", icon_value=picture)
        row.label(text=item.name or item.job[:8], icon=ICONS.get(item.state, "DOT"), translate=False)
        side = row.row()
        side.alignment = "RIGHT"
        side.active = False
        running = job is not None and job.state == "running"
        state = STATE_NAMES.get(item.state, item.state)
        side.label(text=f"{job.overall:.0%}" if running else words(state), translate=False)


class DREAMCRAFT_PT_jobs(DreamCraftPanel, bpy.types.Panel):
    """All jobs of this backend"""

    bl_label = "Jobs"
    bl_options = {"DEFAULT_CLOSED"}

    @classmethod
    def poll(cls, context):
        current = session.peek()
        return current is not None and bool(current.jobs)

    def draw(self, context):
        layout, state, current = self.layout, context.window_manager.dreamcraft, session.peek()
        row = layout.row()
        row.template_list("DREAMCRAFT_UL_jobs", "", state, "jobs", state, "active", rows=4)
        column = row.column(align=True)
        column.operator("dreamcraft.move_job", text="", icon="TRIA_UP").direction = "UP"
        column.operator("dreamcraft.move_job", text="", icon="TRIA_DOWN").direction = "DOWN"
        column.separator()
        column.operator("dreamcraft.delete_job", text="", icon="TRASH")
        job = chosen(context)
        if job is None:
            return
        if job.state == "failed":
            draw_problem(layout, job.failure(), context)
        row = layout.row(align=True)
        if job.state == "finished":
            row.operator("dreamcraft.import_result", icon="IMPORT").job = job.id
        elif job.state in ("failed", "cancelled"):
            again = row.operator("dreamcraft.job_action", text="Retry", icon="FILE_REFRESH")
            again.job, again.action = job.id, "retry"
        elif job.state == "paused":
            again = row.operator("dreamcraft.job_action", text="Resume", icon="PLAY")
            again.job, again.action = job.id, "resume"
        row.operator("dreamcraft.reuse_settings", text="Reuse", icon="COPYDOWN")
        row.operator("dreamcraft.reveal_files", text="", icon="FILE_FOLDER")
        stages = [name for name in STAGES if f"stage-{name}.glb" in job.artifacts]
        if stages:
            column = layout.column(align=True)
            column.label(text="Import a Stage")
            for name in stages:
                button = column.operator("dreamcraft.import_result", text=STAGE_NAMES[name], icon="MESH_DATA")
                button.job, button.stage = job.id, name


class DREAMCRAFT_PT_backend(DreamCraftPanel, bpy.types.Panel):
    """The program that does the work"""

    bl_label = "Backend"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context):
        layout, current = self.layout, session.peek()
        if current is None:
            layout.label(text="Not Running", icon="RADIOBUT_OFF")
            return
        text, icon = LINK_NAMES[current.link.state]
        layout.label(text=text, icon=icon)
        server = current.link.server
        if current.link.ready:
            device = server.get("device") or {}
            column = layout.column(align=True)
            column.active = False
            column.label(text=f"DreamCraft3D {server.get('version', '')}", translate=False)
            column.label(text=str(device.get("name") or device.get("kind") or ""), translate=False)
            if device.get("memory_free"):
                free = words("{size:.1f} GB of memory free").format(size=device["memory_free"] / 2**30)
                column.label(text=free, translate=False)
        row = layout.row(align=True)
        row.operator("dreamcraft.start_backend", text="Start", icon="PLAY")
        row.operator("dreamcraft.stop_backend", text="Stop", icon="SNAP_FACE")
        row.operator("dreamcraft.restart_backend", text="", icon="FILE_REFRESH")
        row = layout.row(align=True)
        row.operator("dreamcraft.open_log", icon="TEXT")
        row.operator("dreamcraft.copy_diagnostics", text="", icon="COPYDOWN")
        row.operator("dreamcraft.open_preferences", text="", icon="PREFERENCES")
        if current.link.launcher.installation is not None:
            row = layout.row(align=True)
            row.operator("dreamcraft.install_backend", text="Repair", icon="TOOL_SETTINGS").fresh = True
            row.operator("dreamcraft.remove_backend", text="Remove", icon="TRASH")


CLASSES = (
    DREAMCRAFT_PT_main,
    DREAMCRAFT_PT_object,
    DREAMCRAFT_PT_advanced,
    DREAMCRAFT_PT_progress,
    DREAMCRAFT_UL_jobs,
    DREAMCRAFT_PT_jobs,
    DREAMCRAFT_PT_backend,
)


def register():
    for item in CLASSES:
        bpy.utils.register_class(item)


def unregister():
    for item in reversed(CLASSES):
        bpy.utils.unregister_class(item)
