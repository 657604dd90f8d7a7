"""The extension's words in other languages."""

import bpy

from .languages import TABLES


def register():
    bpy.app.translations.register(__package__, tables())


def unregister():
    bpy.app.translations.unregister(__package__)


def tables():
    """What Blender wants: by language, then by context and English words (buttons have a context of their own)."""
    return {
        language: {(context, english): other for english, other in table.items() for context in ("*", "Operator")}
        for language, table in TABLES.items()
    }
