"""DreamCraft: one picture in, one textured mesh out, from the sidebar of the 3D view.

`register` and `unregister` go through one ordered list of modules. bpy is imported inside of them, so that the plain
modules (client, launcher, link, jobs, batch_runs, submission, schema, installer, ...) can be used without Blender.
"""

from __future__ import annotations

import importlib
from types import ModuleType

MODULES = (
    "translations",
    "properties",
    "advanced",
    "preferences",
    "pictures",
    "operators",
    "operators_jobs",
    "operators_refine",
    "operators_batch",
    "upkeep",
    "panels",
    "panels_refine",
    "panels_batch",
    "panels_jobs",
    "session",
    "commands",
)
"""In the order of registration. Each may have CLASSES, and register() and unregister() for whatever else it adds."""


def modules() -> list[ModuleType]:
    return [importlib.import_module(f".{name}", __package__) for name in MODULES]


def register() -> None:
    """Called by Blender when the extension is enabled."""
    import bpy

    for module in modules():
        for item in getattr(module, "CLASSES", ()):
            bpy.utils.register_class(item)
        getattr(module, "register", _nothing)()


def unregister() -> None:
    """Called by Blender when the extension is disabled; leaves nothing behind."""
    import bpy

    for module in reversed(modules()):
        getattr(module, "unregister", _nothing)()
        for item in reversed(getattr(module, "CLASSES", ())):
            bpy.utils.unregister_class(item)


def _nothing() -> None:
    """For modules that add nothing but classes."""
