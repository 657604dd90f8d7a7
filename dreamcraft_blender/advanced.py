"""The advanced settings: real Blender properties, made from the service's schema when it is known.

Names, ranges, defaults and tooltips come over the wire (see `schema`). Only what the user changed is sent; what is
unchanged shows the chosen preset's own value.
"""

import json

import bpy
from bpy.props import BoolProperty, EnumProperty, FloatProperty, IntProperty, StringProperty

from .problems import Problem
from .schema import LARGEST, Field, fields_of, identifier

ELSEWHERE = (
    "seed",
    "prior",
    "oracle_size",
    "reference.elevation",
    "reference.mask",
    "reference.depth",
    "reference.normal",
    "shape.mesh",
    "shape.turn",
    "export.target_faces",
    "export.texture_size",
)
"""Settings that have a place of their own in the panel, or none here (paths of the backend's machine)."""

_fields: dict[str, Field] = {}
_key: object = None


def fields():
    """The settings that the panel offers, by key."""
    return _fields


def build(schema, values, key):
    """Makes the properties anew if `key`, which names schema and preset, has changed; returns whether it had."""
    global _key
    if key == _key:
        return False
    remove()
    found = [item for item in fields_of(schema) if item.key not in ELSEWHERE]
    annotations = {identifier(item.key): _property(item, values.get(item.key, item.default)) for item in found}
    group = type("DREAMCRAFT_PG_advanced", (bpy.types.PropertyGroup,), {"__annotations__": annotations})
    bpy.utils.register_class(group)
    bpy.types.Scene.dreamcraft_advanced = bpy.props.PointerProperty(type=group)
    _fields.update({item.key: item for item in found})
    _key = key
    return True


def remove():
    """Takes the properties away; what files hold stays in them."""
    global _key
    group = getattr(bpy.types, "DREAMCRAFT_PG_advanced", None)
    if hasattr(bpy.types.Scene, "dreamcraft_advanced"):
        del bpy.types.Scene.dreamcraft_advanced
    if group is not None:
        bpy.utils.unregister_class(group)
    _fields.clear()
    _key = None


def changed(scene):
    """What the user changed, by dotted key."""
    group = getattr(scene, "dreamcraft_advanced", None)
    if group is None:
        return {}
    keys = [key for key in _fields if group.is_property_set(identifier(key))]
    return {key: _value(_fields[key], getattr(group, identifier(key))) for key in keys}


def change(scene, settings):
    """Sets these, and only these."""
    group = getattr(scene, "dreamcraft_advanced", None)
    if group is None:
        return
    for key, item in _fields.items():
        if key in settings:
            value = settings[key]
            setattr(group, identifier(key), json.dumps(value) if item.kind == "json" else value)
        else:
            group.property_unset(identifier(key))


def _value(item, value):
    if item.kind != "json":
        return round(value, 7) if item.kind == "number" else value
    try:
        return json.loads(value)
    except ValueError as error:
        text = f"{item.label}: {value!r} is neither a number nor a list."
        raise Problem(
            "bad_setting", text, "Write a number, or points as [[0, 1], [1, 0.1]].", field=item.key
        ) from error


def _property(item, default):
    words = {"name": item.label, "description": item.description[:1].upper() + item.description[1:]}
    low, high = item.low, item.high
    if item.kind == "integer":
        bounds = {
            "min": int(max(low if low is not None else -LARGEST, -LARGEST)),
            "max": int(min(high or LARGEST, LARGEST)),
        }
        return IntProperty(default=int(default or 0), **bounds, **words)
    if item.kind == "number":
        bounds = {name: float(value) for name, value in (("min", low), ("max", high)) if value is not None}
        return FloatProperty(default=float(default or 0.0), precision=4, **bounds, **words)
    if item.kind == "boolean":
        return BoolProperty(default=bool(default), **words)
    if item.kind == "choice":
        first = default if default in item.choices else item.choices[0]
        return EnumProperty(items=[(word, word, "") for word in item.choices], default=first, **words)
    text = default if isinstance(default, str) else json.dumps(default)
    return StringProperty(default=text, **words)


def unregister():
    remove()
