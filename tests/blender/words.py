"""All words that the extension shows, as JSON: `python words.py`, in a process of its own with bpy.

Names, tooltips and menu entries come from Blender's registered types; fixed texts of panels from the source.
"""

import ast
import json
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "dreamcraft_blender"


def main() -> None:
    """Registers, collects, writes."""
    with tempfile.TemporaryDirectory() as empty:
        os.environ["BLENDER_USER_RESOURCES"] = empty
        sys.path.insert(0, str(ROOT))
        sys.stdout.write(json.dumps({"words": sorted(registered() | written()), "tables": tables()}))


def tables() -> dict[str, dict[str, str]]:
    from dreamcraft_blender.languages import TABLES

    return TABLES


def registered() -> set[str]:
    import bpy

    import dreamcraft_blender

    dreamcraft_blender.register()
    found: set[str] = set()
    for module in dreamcraft_blender.modules():
        for item in getattr(module, "CLASSES", ()):
            found.add(getattr(item, "bl_label", ""))
            if issubclass(item, bpy.types.Operator):
                found.add(item.__doc__ or "")
            rna = item.bl_rna
            if issubclass(item, bpy.types.Operator):
                rna = getattr(bpy.ops.dreamcraft, item.bl_idname.partition(".")[2]).get_rna_type()
            for prop in rna.properties:
                if prop.identifier in item.__annotations__:
                    hidden = getattr(prop, "is_hidden", False)
                    found |= set() if hidden else {prop.name, prop.description}
                    found |= {word for entry in getattr(prop, "enum_items_static", ()) for word in entry_words(entry)}
    from dreamcraft_blender.preferences import DREAMCRAFT_AP_preferences as preferences

    for prop in preferences.bl_rna.properties:
        if prop.identifier in preferences.__annotations__:
            found |= {prop.name, prop.description}
    dreamcraft_blender.unregister()
    # what was given no name is called like its identifier; plain numbers are the same everywhere
    return {word for word in found if word and not word.isdigit() and not word.islower() and "_" not in word}


def entry_words(entry) -> set[str]:
    return {entry.name, entry.description}


def written() -> set[str]:
    """Texts in the code that draws: text="...", heading="...", words("..."), poll messages, and buttons of problems."""
    found: set[str] = set()
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            values = [word.value for word in node.keywords if word.arg in ("text", "heading", "placeholder")]
            values += node.args[:1] if name in ("words", "poll_message_set") else []
            values += node.args[1:2] if name == "Remedy" else []
            found |= {v.value for v in values if isinstance(v, ast.Constant) and isinstance(v.value, str) and v.value}
    from dreamcraft_blender import drawing, panels_batch

    found |= set(drawing.STAGE_NAMES.values()) | set(drawing.STATE_NAMES.values())
    found |= {text for text, _ in (*drawing.LINK_NAMES.values(), *panels_batch.ITEM_STATES.values())}
    found |= set(panels_batch.BUSY_NAMES.values())
    return {word for word in found if any(letter.isalpha() for letter in word)}


if __name__ == "__main__":
    main()
