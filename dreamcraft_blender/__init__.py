"""DreamCraft: one picture in, one textured mesh out, from the sidebar of the 3D view.

`register` and `unregister` go through one ordered list of modules. bpy is imported inside of them, so that the plain
modules (client, launcher, link, jobs, submission, schema, installer, glb, pixels) can be used without Blender.
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
    "upkeep",
    "panels",
    "panels_jobs",
    "session",
    "commands",
)
"""In the order of registration; each has register() and unregister()."""


def modules() -> list[ModuleType]:
    return [importlib.import_module(f".{name}", __package__) for name in MODULES]


def register() -> None:
    """Called by Blender when the extension is enabled."""
    for module in modules():
        module.register()


def unregister() -> None:
    """Called by Blender when the extension is disabled; leaves nothing behind."""
    for module in reversed(modules()):
        module.unregister()
