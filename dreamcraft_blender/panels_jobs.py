"""What runs, what waits, what was: the panels about jobs and about the program that does them."""

import bpy

from . import session
from .drawing import LINK_NAMES, STAGE_NAMES, STATE_NAMES, DreamCraftPanel, draw_problem, duration, words, wrapped
from .jobs import SHAPED, STAGES
from .operators_jobs import chosen
from .properties import ICONS


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
        row = layout.row(align=True)
        action = "pause" if job.state in ("running", "queued") else "resume"
        label, icon = ("Pause", "PAUSE") if action == "pause" else ("Resume", "PLAY")
        button = row.operator("dreamcraft.job_action", text=label, icon=icon)
        button.job, button.action = job.id, action
        button = row.operator("dreamcraft.job_action", text="Cancel", icon="CANCEL")
        button.job, button.action = job.id, "cancel"
        icon = current.preview_icon(job.id)
        if icon:
            layout.template_icon(icon, scale=9.0)
        if current.notes.get(job.id):
            wrapped(layout, current.notes[job.id], context, icon="INFO")

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
        layout, state = self.layout, context.window_manager.dreamcraft
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
        stages = [name for name in SHAPED if f"stage-{name}.glb" in job.artifacts]
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


CLASSES = (DREAMCRAFT_PT_progress, DREAMCRAFT_UL_jobs, DREAMCRAFT_PT_jobs, DREAMCRAFT_PT_backend)
