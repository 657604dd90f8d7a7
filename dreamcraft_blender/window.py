"""What the session does to the open window and file: lists, redraws, live shapes; and when it must not disturb."""

import bpy

from . import advanced, importer

_filled = None
"""Which list of items the window has."""


def sync_window(current):
    """Brings the list and the advanced settings up to date and redraws the sidebars."""
    server = current.link.server
    if server.get("schema"):
        scene = bpy.context.scene
        name = scene.dreamcraft.preset if scene is not None else "preview"
        key = (server.get("boot_id"), name)
        advanced.build(server["schema"], current.preset(name).get("values") or {}, key)
    for manager in bpy.data.window_managers:
        fill_list(manager.dreamcraft, current)
        fill_batch(manager.dreamcraft, current.batch.view)
        for window in manager.windows:
            for area in window.screen.areas:
                for region in area.regions:
                    if area.type == "VIEW_3D" and region.type == "UI":  # the view itself has not changed
                        region.tag_redraw()


def fill_list(state, current):
    """The list's lines; untouched where they are right."""
    wanted = [(name, current.jobs[name].state, current.jobs[name].name) for name in current.order]
    if [(line.job, line.state, line.name) for line in state.jobs] == wanted:
        return
    chosen = state.jobs[state.active].job if state.active < len(state.jobs) else ""
    if current.newest in current.jobs:  # what was just sent is what the buttons are about
        chosen, current.newest = current.newest, ""
    state.jobs.clear()
    for name, phase, title in wanted:
        line = state.jobs.add()
        line.job, line.state, line.name = name, phase, title
    state.active = next((i for i, line in enumerate(state.jobs) if line.job == chosen), 0)


def fill_batch(state, view):
    """The items of the batch; what they show is looked up by id. Thousands are not compared at every turn."""
    global _filled
    if _filled == (view.listed, state.as_pointer()) and len(state.batch) == len(view.items):
        return
    _filled = view.listed, state.as_pointer()
    chosen = state.batch[state.batch_active].item if state.batch_active < len(state.batch) else ""
    state.batch.clear()
    for item in view.items.values():
        line = state.batch.add()
        line.item, line.name = item.id, item.name
    state.batch_active = next((i for i, line in enumerate(state.batch) if line.item == chosen), 0)


def waiting_in_files():
    """What the open file's scenes wait for."""
    return [pending for scene in bpy.data.scenes for pending in scene.dreamcraft.pending if not pending.imported]


def waiting_for_images():
    """Refine jobs whose images the open file's scenes wait for."""
    return [pending for scene in bpy.data.scenes for pending in scene.dreamcraft.refining if not pending.applied]


def at_rest():
    """Whether an object may appear now: Object Mode, no render, nothing in the user's hand."""
    if bpy.app.background:
        return True
    if bpy.app.is_job_running("RENDER"):
        return False
    item = bpy.context.view_layer.objects.active
    if item is not None and item.mode != "OBJECT":
        return False
    windows = bpy.context.window_manager.windows
    held = ("TRANSFORM_OT", "VIEW3D_OT")
    return not any(op.bl_idname.startswith(held) for window in windows for op in window.modal_operators)


def show_live(job, path, title):
    """The shape so far, in the scene that waits for the job; it makes no undo step, the final object does."""
    for scene in bpy.data.scenes:
        for pending in scene.dreamcraft.pending:
            if pending.job == job and not pending.imported:
                place = importer.Placement(
                    name=f"{title} (live)",
                    location=tuple(pending.location),
                    height=pending.height,
                    properties={importer.MARK: job},
                )
                item = importer.import_model(path, scene, place, replacing=pending.live_object)
                pending.live_object = item.name
