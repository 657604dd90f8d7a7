"""Images of materials: read, reduced, and told apart into opaque and cut-out ones."""

import io
import logging
from dataclasses import dataclass

import numpy as np
from PIL import Image

logger = logging.getLogger(__name__)

LARGEST = 512
"""Pixels of a side while objects are filtered; the pack holds smaller ones."""

TRANSPARENT = 128
"""Alpha below it is a hole in a cut-out texture."""

LEAST_HOLES = 0.005
"""Share of transparent pixels above which a texture is a cut-out; less is noise at the border of its islands."""

PLAYER = np.array([150.0, 30.0, 30.0])
"""The colour of the player, 0..255: red, as the first player of MegaGlest and 0 A.D."""


@dataclass(frozen=True)
class Texture:
    """An image of a material: RGB, or RGBA where it is cut out."""

    image: Image.Image

    @property
    def cutout(self) -> bool:
        """Whether the texture has holes."""
        return self.image.mode == "RGBA"


def read_texture(data: bytes, *, player_colour: bool = False) -> Texture | None:
    """Decode an image file and prepare it; None where it cannot be read.

    Args:
        data: PNG, JPEG, TGA, DDS, SGI or whatever else Pillow reads.
        player_colour: alpha blends from the player's colour (0) to the image (255).
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return prepare(image, player_colour=player_colour)
    except (OSError, ValueError, SyntaxError, NotImplementedError, Image.DecompressionBombError) as error:
        logger.debug("unreadable image: %s", error)
        return None


def prepare(image: Image.Image, *, player_colour: bool = False) -> Texture:
    """Reduce an image to at most `LARGEST` pixels a side, and drop an alpha channel that cuts nothing out."""
    opacity = image.mode in ("P", "PA", "LA", "RGBA") or "transparency" in image.info
    wanted = "RGBA" if opacity else "RGB"
    image = image.convert(wanted)
    scale = LARGEST / max(image.size)
    if scale < 1.0:
        size = max(1, int(image.width * scale)), max(1, int(image.height * scale))
        # Lanczos would let the colour behind transparent pixels ring into the visible ones
        image = image.resize(size, Image.Resampling.LANCZOS if wanted == "RGB" else Image.Resampling.BOX)
    if wanted == "RGB":
        return Texture(image)
    if player_colour:
        return Texture(_with_player(image))
    holes = float((np.asarray(image)[..., 3] < TRANSPARENT).mean())
    return Texture(image if holes > LEAST_HOLES else image.convert("RGB"))


def _with_player(image: Image.Image) -> Image.Image:
    """Blend to the player's colour where alpha is low, darker where the image is dark."""
    pixels = np.asarray(image).astype(np.float32)
    opacity, brightness = pixels[..., 3:] / 255.0, pixels[..., :3].mean(-1, keepdims=True) / 255.0
    paint = PLAYER * np.clip(0.4 + 0.96 * brightness, 0.0, 1.0)
    blended = pixels[..., :3] * opacity + paint * (1.0 - opacity)
    return Image.fromarray(blended.clip(0.0, 255.0).astype(np.uint8), "RGB")
