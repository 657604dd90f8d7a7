"""A result at a glance: views all around in colour, and in clay, so that shape and texture can be told apart."""

import math
import os
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dreamcraft3d.evaluation.meshes import load_mesh, normalise
from dreamcraft3d.evaluation.render import clay, render_textured
from dreamcraft3d.export import TexturedMesh
from dreamcraft3d.functional.cameras import orbit

BACKGROUND = 0.96
COLUMNS = 4


def turntable(
    mesh_path: Path | str, out_png: Path | str, *, views: int = 8, size: int = 256, elevation: float = 15.0
) -> None:
    """Renders the turntable of a mesh file into a PNG file, which appears complete or not at all."""
    out = Path(out_png)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        image = turntable_image(load_mesh(mesh_path), views=views, size=size, elevation=elevation)
        partial.write_bytes(encode_png(image))
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)


def turntable_image(
    mesh: TexturedMesh, *, views: int = 8, size: int = 256, elevation: float = 15.0
) -> Float[Tensor, "H W 3"]:
    """`views` colour pictures in rows of four, the reference side first, and below them as many of clay.

    The object is centred and scaled to fill the pictures. Azimuth grows from picture to picture: the camera walks
    counter-clockwise seen from above.

    Args:
        size: pixels of one picture. elevation: degrees.
    """
    centred, _ = normalise(mesh)
    azimuth = torch.arange(views) * (2.0 * math.pi / views)
    cameras = orbit(math.radians(elevation), azimuth)
    render = render_textured(centred, cameras, size, supersample=3)
    shape = clay(render, cameras)
    pictures = torch.cat([_over(render.rgba), _over(shape)])
    return _grid(pictures, columns=min(COLUMNS, views))


def encode_png(image: Float[Tensor, "H W 3"]) -> bytes:
    """8-bit PNG."""
    levels = np.rint(image.clamp(0.0, 1.0).cpu().numpy() * 255.0).astype(np.uint8)
    done, encoded = cv2.imencode(".png", levels[..., ::-1])
    if not done:
        raise ValueError("the picture cannot be encoded as PNG")
    return bytes(encoded)


def _over(rgba: Float[Tensor, "B H W 4"]) -> Float[Tensor, "B H W 3"]:
    return rgba[..., :3] + (1.0 - rgba[..., 3:]) * BACKGROUND


def _grid(pictures: Float[Tensor, "B H W 3"], *, columns: int) -> Float[Tensor, "H W 3"]:
    """Rows of pictures; colour and clay each start a new row."""
    halves = []
    for half in pictures.chunk(2):
        missing = -len(half) % columns
        blank = half.new_full((missing, *half.shape[1:]), BACKGROUND)
        cells = torch.cat([half, blank])
        cells = cells.reshape(-1, columns, *cells.shape[1:])
        halves.append(cells.permute(0, 2, 1, 3, 4).flatten(0, 1).flatten(1, 2))
    return torch.cat(halves)
