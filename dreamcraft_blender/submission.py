"""Settings to a checked request, or a `Problem` that says what to do. Plain Python; the panel, the scripts and the
command line all come through here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .launcher import new_key
from .problems import Problem
from .schema import Field, check, fields_of

__all__ = ["MAX_PIXELS", "Picture", "Submission", "build", "check_picture"]

MAX_PIXELS = 64_000_000
MIN_SIDE = 16

SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF", b"II*\x00", b"MM\x00*", b"BM")
"""First bytes of what the backend reads: PNG, JPEG, WebP, TIFF, BMP."""


@dataclass(frozen=True)
class Picture:
    """The bytes of a picture file, and what it is called and how large it is."""

    data: bytes = field(repr=False)
    name: str = "picture"
    width: int = 0
    height: int = 0


@dataclass(frozen=True)
class Submission:
    """A request and the files that go with it, by the field that will hold their ids."""

    request: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict, repr=False)


def check_picture(picture: Picture | None) -> Picture:
    """The picture, if it can be used."""
    if picture is None or not picture.data:
        raise Problem("no_image", "There is no picture yet.", "Open one, paste one, or drop one into the 3D view.")
    if not picture.data.startswith(SIGNATURES):
        text = f"{picture.name} is not a picture that the backend reads."
        raise Problem("bad_image", text, "Use a PNG, JPEG, WebP, TIFF or BMP file.")
    if picture.width and picture.height:
        if min(picture.width, picture.height) < MIN_SIDE:
            text = f"{picture.name} is only {picture.width} x {picture.height} pixels large."
            raise Problem("bad_image", text, f"Use a picture of at least {MIN_SIDE} pixels, better 512.")
        if picture.width * picture.height > MAX_PIXELS:
            text = f"{picture.name} has more than {MAX_PIXELS // 1_000_000} million pixels."
            raise Problem("bad_image", text, "Make it smaller: nothing beyond 1024 pixels is used.")
    return picture


def build(
    picture: Picture | None,
    *,
    server: Mapping[str, Any],
    preset: str = "preview",
    prompt: str = "",
    name: str = "",
    settings: Mapping[str, Any] | None = None,
    mask: bytes | None = None,
    shape: bytes | None = None,
    priority: int = 0,
) -> Submission:
    """A "generate" job: the picture, the mask if one was made by hand, the mesh to start from (GLB or OBJ) if there is
    one, and the settings by dotted key.

    `server` is the service's description of itself; presets and settings are checked against it.
    """
    picture = check_picture(picture)
    check_preset(server, preset)
    values = dict(settings or {})
    known = {item.key: item for item in fields_of(server.get("schema") or {})}
    if prompt:
        values.update(prompt_setting(known, prompt))
    if known and shape is not None and "shape.turn" not in known:
        raise Problem("wrong_version", "This backend cannot start from a shape yet.", "Update the backend.")
    if known:
        check(known, values)
    request = {
        "kind": "generate",
        "name": (name or picture.name)[:120],
        "preset": preset,
        "settings": values,
        "priority": priority,
        "client_key": new_key(),
    }
    files = {"picture": picture.data} | ({"mask": mask} if mask else {}) | ({"shape": shape} if shape else {})
    return Submission(request, files)


def check_preset(server: Mapping[str, Any], preset: str) -> None:
    """Raises `Problem` for a preset that the service does not have, or cannot run on its machine."""
    presets = {str(item["name"]): item for item in server.get("presets") or ()}
    if not presets:
        return
    if preset not in presets:
        text = f"There is no preset '{preset}'."
        raise Problem("bad_setting", text, f"Choose one of {', '.join(presets)}.", field="preset")
    if presets[preset].get("available") is False:
        reason = str(presets[preset].get("reason") or "it does not run on this machine")
        raise Problem(
            "bad_setting", f"The preset '{preset}' cannot be used: {reason}.", "Choose another.", field="preset"
        )


def prompt_setting(known: Mapping[str, Field], prompt: str) -> dict[str, str]:
    """Where the backend wants the words; nowhere if it has no use for them (the bundled prior reads only pictures)."""
    for key in ("prompt", "priors.prompt", "guidance.prompt"):
        if key in known:
            return {key: prompt}
    return {}
