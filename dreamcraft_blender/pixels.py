"""Pixels to PNG bytes, with numpy and the standard library: for masks and pictures that are not files. No bpy."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np

__all__ = ["encode_png", "grey_of", "levels_of"]

COLOUR_TYPES = {1: 0, 3: 2, 4: 6}


def encode_png(pixels: Any) -> bytes:
    """PNG of an array of bytes, height x width (x 1, 3 or 4), the top row first."""
    array = np.ascontiguousarray(pixels, dtype=np.uint8)
    height, width = array.shape[:2]
    channels = 1 if array.ndim == 2 else array.shape[2]
    rows = np.zeros((height, 1 + width * channels), np.uint8)  # each row begins with its filter: 0, none
    rows[:, 1:] = array.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, COLOUR_TYPES[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def levels_of(values: Any) -> Any:
    """Numbers between 0 and 1 as bytes, rounded."""
    return np.clip(np.rint(np.asarray(values, np.float32) * 255.0), 0, 255).astype(np.uint8)


def grey_of(rgba: Any) -> Any:
    """Height x width x 4 numbers to grey levels; what is transparent counts as black."""
    return levels_of((rgba[..., :3] @ np.array([0.2126, 0.7152, 0.0722], np.float32)) * rgba[..., 3])


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
