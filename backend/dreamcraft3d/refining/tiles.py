"""Image files to arrays and back, without losing a bit: what is not painted must come back integer-equal.

Arrays are H x W x 3 or 4, row 0 = top, red first, of the file's own type (uint8, uint16, float32). Grey files become
three equal channels. *Display* values are what a screen shows (sRGB), straight; that is what fields and priors use.
"""

import io
import os
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("OPENCV_IO_ENABLE_OPENEXR", "1")  # off unless asked for before its first use

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dreamcraft3d.export.gltf import linear_to_srgb, srgb_to_linear
from dreamcraft3d.refining.refusals import RequestBroken, UnknownColourspace
from dreamcraft3d.refining.request import Target

__all__ = ["Picture", "check_colourspace", "decode", "display_of", "encode", "stored_of"]

DISPLAY_SPACES = ("sRGB", "sRGB OETF")
LINEAR_SPACES = ("Non-Color", "Linear Rec.709", "Linear", "Raw", "Data")
PNG, EXR, TIFF = b"\x89PNG\r\n\x1a\n", b"\x76\x2f\x31\x01", (b"II*\0", b"MM\0*")
BROKEN = (OSError, SyntaxError, ValueError, EOFError, KeyError, TypeError, IndexError, Image.DecompressionBombError)
DTYPES: dict[int, Any] = {8: np.uint8, 16: np.uint16, 32: np.float32}

Array = NDArray[Any]


@dataclass(frozen=True)
class Picture:
    """An image as its file stores it. `half`: an EXR of 16-bit floats."""

    pixels: Array
    half: bool = False

    @property
    def depth(self) -> int:
        """Bits per channel in the file."""
        return 16 if self.half else 8 * self.pixels.dtype.itemsize


def decode(data: bytes) -> Picture:
    """The stored values of a PNG, JPEG, TGA, BMP, WebP, TIFF or EXR file; profiles and gamma marks are not applied.

    Raises:
        RequestBroken: damaged, or another kind of file.
    """
    deep = (data.startswith(PNG) and data[24:25] == b"\x10") or data.startswith((EXR, *TIFF))
    pixels = _with_opencv(data) if deep else _with_pillow(data)
    return Picture(np.ascontiguousarray(pixels), half=data.startswith(EXR) and _is_half(data))


def encode(picture: Picture) -> tuple[bytes, str]:
    """(file, its suffix): PNG of the same depth, or EXR for floats."""
    pixels = picture.pixels
    order = [2, 1, 0, 3][: pixels.shape[-1]]
    if pixels.dtype == np.float32:
        kind = cv2.IMWRITE_EXR_TYPE_HALF if picture.half else cv2.IMWRITE_EXR_TYPE_FLOAT
        done, encoded = cv2.imencode(".exr", pixels[..., order], [cv2.IMWRITE_EXR_TYPE, kind])
        suffix = ".exr"
    else:
        done, encoded = cv2.imencode(".png", pixels[..., order])
        suffix = ".png"
    if not done:
        raise ValueError("the image cannot be encoded")
    return bytes(encoded), suffix


def blank(width: int, height: int, bit_depth: int, display: float) -> Picture:
    """A new grey image without alpha, in sRGB."""
    kind = DTYPES[bit_depth]
    value = display if bit_depth == 32 else round(display * np.iinfo(kind).max)
    return Picture(np.full((height, width, 3), value, dtype=kind))


def check_colourspace(target: Target) -> None:
    """Raises UnknownColourspace for a space in which it is unknown what a colour's numbers are."""
    if target.colourspace not in (*DISPLAY_SPACES, *LINEAR_SPACES):
        raise UnknownColourspace(target.slot, target.colourspace, ", ".join((*DISPLAY_SPACES, *LINEAR_SPACES)))


def display_of(picture: Picture, target: Target) -> NDArray[np.float32]:
    """H x W x 3 straight display-referred colours in [0, 1]."""
    colours = picture.pixels[..., :3].astype(np.float32)
    if picture.pixels.dtype.kind == "u":
        colours /= np.float32(np.iinfo(picture.pixels.dtype).max)
    colours = np.nan_to_num(colours)
    if target.alpha_mode == "PREMUL" and picture.pixels.shape[-1] == 4:
        colours = colours / np.maximum(opacity_of(picture, target)[..., None], 1e-4)
    if target.colourspace in LINEAR_SPACES:
        colours = linear_to_srgb(colours)
    return np.clip(colours, 0.0, 1.0).astype(np.float32)


def stored_of(display: NDArray[np.float32], opacity: NDArray[np.float32], picture: Picture, target: Target) -> Array:
    """N x 3 values as the file stores them, of N display-referred colours and the opacities of their texels."""
    colours = np.clip(display, 0.0, 1.0).astype(np.float64)
    if target.colourspace in LINEAR_SPACES:
        colours = srgb_to_linear(colours)
    if target.alpha_mode == "PREMUL":
        colours = colours * opacity[:, None]
    kind = picture.pixels.dtype
    if kind.kind == "u":
        return np.asarray(np.rint(colours * np.iinfo(kind).max).astype(kind))
    return np.asarray(colours.astype(np.float16 if picture.half else kind).astype(kind))


def opacity_of(picture: Picture, target: Target) -> NDArray[np.float32]:
    """H x W in [0, 1]; 1 where the image has no alpha, or one that does not mean opacity."""
    pixels = picture.pixels
    if pixels.shape[-1] == 3 or target.alpha_mode in ("NONE", "CHANNEL_PACKED"):
        return np.ones(pixels.shape[:2], dtype=np.float32)
    alpha = pixels[..., 3].astype(np.float32)
    return np.asarray(alpha / np.float32(np.iinfo(pixels.dtype).max) if pixels.dtype.kind == "u" else alpha)


def _with_opencv(data: bytes) -> Array:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16, np.float32):
        raise RequestBroken("An image cannot be read.", "Save it again, as PNG or OpenEXR.")
    if pixels.ndim == 2:
        return np.repeat(pixels[..., None], 3, axis=-1)
    return np.asarray(pixels[..., [2, 1, 0, 3][: pixels.shape[-1]]])


def _with_pillow(data: bytes) -> Array:
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "TGA", "BMP", "WEBP")) as image:
            clear = "A" in image.getbands() or "transparency" in image.info
            return np.asarray(image.convert("RGBA" if clear else "RGB"))
    except BROKEN as error:
        raise RequestBroken(f"An image cannot be read: {error}.", "Save it again, as PNG or OpenEXR.") from error


def _is_half(data: bytes) -> bool:
    """Whether the first channel of an EXR header has the pixel type 1 (half)."""
    at = data.find(b"channels\0chlist\0")
    if at < 0:
        return False
    name = data.index(b"\0", at + 20)  # two names, a size of four bytes, then the first channel's name
    return data[name + 1 : name + 5] == b"\x01\0\0\0"
