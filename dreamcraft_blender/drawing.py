"""Words and small pieces that several panels draw with. Nothing here changes anything."""

import textwrap

import bpy

from .link import LinkState

STAGE_NAMES = {
    "start": "Rough Shape",
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


def tip_of(properties, name):
    """The tooltip of what an operator's button has chosen, in the user's language."""
    found = properties.bl_rna.properties[name].enum_items[getattr(properties, name)]
    return bpy.app.translations.pgettext_tip(found.description)


def wrapped(layout, text, context, *, icon="NONE"):
    """A text over as many lines as the sidebar's width needs."""
    scale = context.preferences.system.ui_scale or 1.0
    width = max(16, int((context.region.width / scale - 95) / 6.6)) if context.region else 40
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
