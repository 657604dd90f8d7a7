"""Picture files as arrays: any usual format and pixel type, refused politely when they cannot be used.

Conventions: float32 in [0,1], row 0 = top, already turned upright (EXIF) and in sRGB.
"""

import contextlib
import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from dreamcraft3d.errors import InputError

__all__ = ["check_picture", "read_map", "read_picture"]

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")
SMALLEST = 16
"""A picture with a shorter side is not worth trying."""

LONGEST = 2048
"""Larger pictures are reduced to this right after decoding: the canvas is smaller anyway, and memory is not endless."""

BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, IndexError, KeyError, TypeError)
"""What Pillow raises on damaged files."""


def check_picture(path: Path, *, max_megapixels: float = 64.0) -> None:
    """Looks at the header only.

    Raises:
        InputError: missing, empty, not a picture, too small or too large.
    """
    with _opened(path, max_megapixels):
        pass


def read_picture(path: Path, *, max_megapixels: float = 64.0) -> NDArray[np.float32]:
    """H x W x 4, straight (not premultiplied) colour and opacity; opacity is 1 where the file has none.

    Raises:
        InputError: as `check_picture`, or the file is damaged.
    """
    with _opened(path, max_megapixels) as image:
        upright = ImageOps.exif_transpose(_decoded(image, path))
        rgba = _reduced(_to_rgba(upright))
    return np.asarray(rgba, dtype=np.float32) / np.float32(255.0)


def read_map(path: Path, channels: int, *, max_megapixels: float = 64.0) -> NDArray[np.float32]:
    """H x W x channels of a mask, depth or normal map; 16-bit and float files keep their precision.

    Raises:
        InputError: as `check_picture`, or the file is damaged.
    """
    with _opened(path, max_megapixels) as image:
        upright = ImageOps.exif_transpose(_decoded(image, path))
        if channels == 1 and upright.mode not in _DEEP and "A" in upright.getbands() and _has_holes(upright):
            upright = upright.getchannel("A")  # a mask drawn as transparency
        if upright.mode in _DEEP:
            values = _deep_grey(upright)[..., None].repeat(channels, axis=-1)
        else:
            grey = upright.convert("L" if channels == 1 else "RGB")
            values = np.asarray(grey, dtype=np.float32) / np.float32(255.0)
    return values.reshape(*values.shape[:2], channels)


_DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")


@contextlib.contextmanager
def _opened(path: Path, max_megapixels: float) -> Iterator[Image.Image]:
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder.", "Give the path of a picture.")
        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty.", "Choose another file, or copy it again.")
    except FileNotFoundError as error:
        raise InputError(f"There is no file {path}.", "Check the path.") from error
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror or error}.", "Check its permissions.") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about sizes, which are judged here, and about odd metadata
        try:
            image = Image.open(path, formats=FORMATS)
        except Image.DecompressionBombError as error:
            raise _too_large(path, None, max_megapixels) from error
        except BROKEN as error:
            raise InputError(
                f"{path} is not a picture that can be read.", "Use a PNG, JPEG, WebP, TIFF or BMP file."
            ) from error
        with image:
            width, height = image.size
            if width * height > max_megapixels * 1e6:
                raise _too_large(path, (width, height), max_megapixels)
            if min(width, height) < SMALLEST:
                raise InputError(
                    f"{path} has only {width} x {height} pixels.", f"Use a picture of at least {SMALLEST} x {SMALLEST}."
                )
            yield image


def _too_large(path: Path, size: tuple[int, int] | None, max_megapixels: float) -> InputError:
    pixels = f"has {size[0]} x {size[1]} pixels, which is" if size else "is far"
    return InputError(
        f"{path} {pixels} more than the {max_megapixels:g} megapixels that are allowed.",
        "Make it smaller, or raise --set reference.max_megapixels.",
    )


def _decoded(image: Image.Image, path: Path) -> Image.Image:
    try:
        image.load()
    except BROKEN as error:
        raise InputError(f"{path} is damaged: {error}.", "Export or copy the picture again.") from error
    return image


def _to_rgba(image: Image.Image) -> Image.Image:
    """8-bit RGBA in sRGB."""
    if image.mode in _DEEP:
        grey = np.rint(_deep_grey(image) * 255.0).astype(np.uint8)
        return Image.fromarray(grey).convert("RGBA")
    opacity = None
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        opacity = image.convert("RGBA").getchannel("A")
    rgba = _to_srgb(image).convert("RGBA")
    if opacity is not None:
        rgba.putalpha(opacity)
    return rgba


def _to_srgb(image: Image.Image) -> Image.Image:
    """Colours by the picture's own profile, if it has a usable one."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "RGBA", "CMYK"):
        return image
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        colours = image if image.mode == "CMYK" else image.convert("RGB")
        srgb = ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(colours, own, srgb, outputMode="RGB") or image
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image


def _deep_grey(image: Image.Image) -> NDArray[np.float32]:
    """16-bit, 32-bit and float grey to [0,1]: by the type's range if it has one, else by the largest value."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    values = np.maximum(values, 0.0)
    largest = float(values.max())
    if image.mode.startswith("I") and largest <= 65535.0:
        return values / np.float32(65535.0)
    return values / np.float32(max(largest, 1.0))


def _has_holes(image: Image.Image) -> bool:
    return bool(np.asarray(image.getchannel("A")).min() < 128)


def _reduced(image: Image.Image) -> Image.Image:
    if max(image.size) > LONGEST:
        image.thumbnail((LONGEST, LONGEST), Image.Resampling.BOX, reducing_gap=None)
    return image
