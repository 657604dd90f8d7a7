"""Small pictures for the contact sheet: the first view of the turntable, which is the side of the reference."""

import io
from pathlib import Path

from PIL import Image

from dreamcraft3d.workspace import atomic_path

__all__ = ["SIZE", "picture_thumbnail", "write_thumbnail"]

NAME = "thumbnail.webp"
COLUMNS = 4
"""Views side by side in a turntable (`evaluation.turntable`, which would bring torch along)."""
SIZE = 160
"""Longest side, pixels."""
BROKEN = (OSError, SyntaxError, ValueError, EOFError)
"""What Pillow raises on damaged files."""


def write_thumbnail(folder: Path) -> None:
    """Writes ``thumbnail.webp``: a view of the turntable, or a painted texture; without either nothing.

    Raises ``OutputError``.
    """
    textures = sorted((folder / "refined").glob("image_*_base_color_*"))
    try:
        with Image.open(textures[0] if textures else folder / "turntable.png") as picture:
            side = picture.width if textures else picture.width // COLUMNS
            data = _small(picture.crop((0, 0, side, picture.height if textures else side)).convert("RGB"))
    except BROKEN:
        return
    with atomic_path(folder / NAME) as temporary:
        temporary.write_bytes(data)


def picture_thumbnail(path: Path) -> bytes | None:
    """A picture of the user as WebP; None if it cannot be read."""
    try:
        with Image.open(path) as picture:
            picture.draft("RGB", (2 * SIZE, 2 * SIZE))  # JPEG: decodes a small version only
            return _small(picture.convert("RGBA"))
    except BROKEN:
        return None


def _small(picture: Image.Image) -> bytes:
    picture.thumbnail((SIZE, SIZE))
    data = io.BytesIO()
    picture.save(data, "WEBP", quality=80)
    return data.getvalue()
