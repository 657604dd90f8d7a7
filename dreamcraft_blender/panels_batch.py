"""The batch: the whole, each item, what failed and why, and the buttons. Reads only."""

from pathlib import Path

import bpy

from . import session
from .batch_watch import EXPORT
from .drawing import STAGE_NAMES, DreamCraftPanel, draw_problem, duration, words, wrapped
from .operators_batch import chosen

ITEM_STATES = {
    "done": ("Done", "CHECKMARK"),
    "stale": ("Changed Since", "FILE_REFRESH"),
    "damaged": ("Damaged", "ERROR"),
    "failed": ("Failed", "ERROR"),
    "started": ("Interrupted", "PAUSE"),
    "running": ("Running", "RENDER_ANIMATION"),
    "pending": ("Waiting", "TIME"),
}
BUSY_NAMES = {"validate": "Checking", EXPORT: "Exporting"}
MISTAKES = 6
"""Mistakes of a manifest that are shown; the log has all."""


class DREAMCRAFT_UL_batch(bpy.types.UIList):
    """The items, with their pictures."""

    def draw_item(self, context, layout, data, item, icon, active_data, active_propname, index):
        current = session.peek()
        line = current.batch.view.items.get(item.item) if current is not None else None
        if line is None:
            layout.label(text=item.name, translate=False)
            return
        text, symbol = ITEM_STATES.get(line.state, (line.state, "DOT"))
        picture = current.batch.icon(line)
        row = layout.row(align=True)
        if picture:
            row.label(text="", icon_value=picture)
        row.label(text=line.name, icon=symbol, translate=False)
        side = row.row()
        side.alignment = "RIGHT"
        side.active = line.state == "failed"
        side.label(text=f"{line.overall:.0%}" if line.state == "running" else words(text), translate=False)


class DREAMCRAFT_PT_batch(DreamCraftPanel, bpy.types.Panel):
    """Many objects at once"""

    bl_label = "Batch"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context):
        layout, form, current = self.layout, context.scene.dreamcraft, session.peek()
        row = layout.row(align=True)
        row.prop(form, "batch", text="", placeholder="Manifest or folder of pictures")
        row.operator("dreamcraft.choose_batch", text="", icon="FILE_FOLDER").kind = "FOLDER"
        row.operator("dreamcraft.choose_batch", text="", icon="FILE_TEXT").kind = "MANIFEST"
        if current is None or current.batch.source is None:
            return
        batch = current.batch
        if not form.batch:  # one that goes on from before
            layout.label(text=batch.source.name, icon="FILE_TEXT", translate=False)
        draw_buttons(layout, batch, form)
        draw_messages(layout, batch, context)
        if batch.view.items:
            draw_whole(layout, batch)
            state = context.window_manager.dreamcraft
            layout.template_list("DREAMCRAFT_UL_batch", "", state, "batch", state, "batch_active", rows=4)
            line = chosen(context)
            if line is not None:
                draw_item(layout, line, context)
            row = layout.row(align=True)
            row.operator("dreamcraft.open_sheet", icon="WORLD")
            row.operator("dreamcraft.export_library", icon="ASSET_MANAGER")


def draw_buttons(layout, batch, form):
    """What can be done now."""
    row = layout.row(align=True)
    row.scale_y = 1.3
    if batch.running:
        row.enabled = "cancel" not in batch.runs
        row.operator("dreamcraft.batch_action", text="Cancel", icon="CANCEL").action = "cancel"
        return
    row.operator("dreamcraft.batch_action", text="Validate", icon="VIEWZOOM").action = "validate"
    row.operator("dreamcraft.batch_action", text="Run", icon="PLAY").action = "run"
    failed = batch.view.counts.get("failed", 0)
    if failed:
        text = words("Retry Failed ({count})").format(count=failed)
        again = layout.operator("dreamcraft.batch_action", text=text, icon="FILE_REFRESH", translate=False)
        again.action = "retry"
    layout.prop(form, "batch_jobs")


def draw_messages(layout, batch, context):
    """How the last command ended, and what is being done."""
    for name, text in BUSY_NAMES.items():
        if name in batch.runs:
            layout.label(text=words(text), icon="SORTTIME", translate=False)
    if batch.problem is not None and batch.problem.code == "bad_manifest":
        draw_mistakes(layout, batch.problem, context)
    elif batch.problem is not None:
        draw_problem(layout, batch.problem, context, dismiss=True)
    if batch.note is not None:
        row = layout.row()
        wrapped(row, told(*batch.note), context, icon="CHECKMARK")
        row.operator("dreamcraft.dismiss", text="", icon="X", emboss=False)


def told(name, record):
    """A good end in words."""
    if name == "validate":
        warnings = " ".join(record.get("warnings") or ())
        return f"{words('{count} items are fine.').format(count=record.get('items', 0))} {warnings}".strip()
    counts = {key: len(record.get(key) or ()) for key in ("added", "updated", "unchanged", "failed")}
    text = words("{added} added, {updated} updated, {unchanged} unchanged, {failed} failed").format(**counts)
    return f"{text}: {Path(str(record.get('library', ''))).name}"


def draw_mistakes(layout, problem, context):
    """The mistakes of a manifest, each with its line."""
    box = layout.box()
    row = box.row()
    row.label(text="The Manifest Has Mistakes", icon="ERROR")
    row.operator("dreamcraft.dismiss", text="", icon="X", emboss=False)
    mistakes = problem.log.splitlines()
    for text in mistakes[:MISTAKES]:
        wrapped(box, text, context, icon="DOT")
    if len(mistakes) > MISTAKES:
        box.label(text=words("and {count} more").format(count=len(mistakes) - MISTAKES), translate=False)


def draw_whole(layout, batch):
    """The bar of the whole, and who is at work."""
    view = batch.view
    counts = view.counts
    done, failed = counts.get("done", 0), counts.get("failed", 0)
    text = words("{done} of {total} done").format(done=done, total=len(view.items))
    if failed:
        text += ", " + words("{count} failed").format(count=failed)
    layout.progress(factor=view.overall, text=text, translate=False)
    row = layout.row()
    row.alignment = "RIGHT"
    row.active = False
    if batch.holder is not None and "run" not in batch.runs:
        host, pid = batch.holder
        row.label(text=words("Process {pid} on {host} is at work").format(pid=pid, host=host), translate=False)
    elif batch.running and view.eta:
        row.label(text=words("{time} left").format(time=duration(view.eta)), translate=False)


def draw_item(layout, line, context):
    """The chosen item: how far it is, why it failed, and its buttons."""
    if line.state == "running":
        name = words(STAGE_NAMES.get(line.stage, line.stage.replace("_", " ").title())) if line.stage else ""
        layout.progress(factor=line.fraction, text=f"{line.id}  {name} {line.fraction:.0%}", translate=False)
    if line.state == "failed":
        problem = line.problem
        box = layout.box()
        wrapped(box, problem.message, context, icon="ERROR")
        if problem.remedy:
            wrapped(box, problem.remedy, context, icon="BLANK1")
    row = layout.row(align=True)
    if line.state in ("done", "stale"):
        row.operator("dreamcraft.import_item", icon="IMPORT").item = line.id
    row.operator("dreamcraft.show_item", text="" if line.state in ("done", "stale") else "Show Item Files",
                 icon="FILE_FOLDER").item = line.id  # fmt: skip


CLASSES = (DREAMCRAFT_UL_batch, DREAMCRAFT_PT_batch)
