"""The backend's JSON schema of its settings, flattened into fields that a panel can draw and a request can check.

Plain Python. Nothing about single settings is written down here: their names, ranges, meanings and defaults come from
the service, so a setting that the backend gains appears in the panel by itself.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .problems import Problem

__all__ = ["Field", "check", "fields_of", "identifier"]

LARGEST = 2**31 - 1
"""Blender's integers end here."""

HIDDEN = ("preset",)
"""Settings that are chosen elsewhere."""


@dataclass(frozen=True)
class Field:
    """One setting. `kind`: integer, number, boolean, choice, text, or json (what no widget fits: lists, null)."""

    key: str
    kind: str
    default: Any = None
    description: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """The first word, under which the panel shows it."""
        return self.key.partition(".")[0] if "." in self.key else "general"

    @property
    def label(self) -> str:
        """What the panel writes beside it."""
        words = self.key.split(".")[1:] or [self.key]
        return ": ".join(word.replace("_", " ").capitalize() for word in words)


def identifier(key: str) -> str:
    """A name that Python and Blender take for a dotted key, and that can be turned back."""
    return key.replace(".", "__")


def fields_of(schema: Mapping[str, Any]) -> list[Field]:
    """All settings of a JSON schema (with `$defs`), in its order."""
    definitions = schema.get("$defs") or {}
    return [item for item in _walk(schema, definitions, "") if item.key not in HIDDEN]


def check(fields: Mapping[str, Field], settings: Mapping[str, Any]) -> None:
    """Raises `Problem` for the first setting that is unknown, of the wrong type, or out of range."""
    for key, value in settings.items():
        found = fields.get(key)
        if found is None:
            near = difflib.get_close_matches(key, list(fields), n=2)
            hint = f"Did you mean {' or '.join(near)}?" if near else "The advanced settings list all."
            raise Problem("bad_setting", f"There is no setting '{key}'.", hint, field=key)
        complaint = _complaint(found, value)
        if complaint:
            raise Problem("bad_setting", f"{found.label}: {complaint}.", "Change it, or reset it.", field=key)


def _complaint(item: Field, value: Any) -> str:
    """What is wrong with a value; empty if nothing is."""
    if item.kind == "choice" and value not in item.choices:
        return f"choose one of {', '.join(item.choices)}"
    if item.kind == "boolean" and not isinstance(value, bool):
        return "it is either true or false"
    if item.kind == "text" and not isinstance(value, str):
        return "it is a text"
    if item.kind in ("integer", "number"):
        kinds = (int,) if item.kind == "integer" else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds):
            return "it is a whole number" if item.kind == "integer" else "it is a number"
        if item.low is not None and value < item.low:
            return f"it is at least {item.low:g}"
        if item.high is not None and value > item.high:
            return f"it is at most {item.high:g}"
    return ""


def _walk(node: Mapping[str, Any], definitions: Mapping[str, Any], prefix: str) -> Iterator[Field]:
    for name, raw in (node.get("properties") or {}).items():
        inside = _resolved(raw, definitions)
        if "properties" in inside:
            yield from _walk(inside, definitions, f"{prefix}{name}.")
        else:
            yield _field(f"{prefix}{name}", inside, raw.get("description") or inside.get("description") or "")


def _resolved(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    """The node with its `$ref` (alone, or within a single `allOf`) replaced; what stands beside the reference wins."""
    reference = node.get("$ref")
    if reference is None and len(node.get("allOf") or ()) == 1:
        reference = node["allOf"][0].get("$ref")
    if reference is None:
        return node
    return {**definitions.get(str(reference).rpartition("/")[2], {}), **node}


def _limits(node: Mapping[str, Any], *, whole: bool) -> tuple[Any, Any]:
    """The smallest and the largest number that a node allows (None: no limit)."""
    high = node.get("maximum", node.get("exclusiveMaximum"))
    if high is not None and whole and "exclusiveMaximum" in node:
        high -= 1
    return node.get("minimum", node.get("exclusiveMinimum")), high


def _field(key: str, node: Mapping[str, Any], description: str) -> Field:
    default, kind = node.get("default"), node.get("type")
    if "enum" in node and all(isinstance(choice, str) for choice in node["enum"]):
        return Field(key, "choice", default, description, choices=tuple(node["enum"]))
    if "const" in node and isinstance(node["const"], str):
        return Field(key, "choice", default, description, choices=(node["const"],))
    if kind in ("integer", "number"):
        return Field(key, kind, default, description, *_limits(node, whole=kind == "integer"))
    if kind == "boolean":
        return Field(key, "boolean", default, description)
    if kind == "string":
        return Field(key, "text", default, description)
    numbers = [one for one in node.get("anyOf") or () if one.get("type") in ("integer", "number")]
    if len(numbers) == 1 and len(node["anyOf"]) == 2:  # a number, or null
        limits = _limits(numbers[0], whole=numbers[0]["type"] == "integer")
        return Field(key, "json", json.dumps(default), description, *limits)
    return Field(key, "json", json.dumps(default), description)
