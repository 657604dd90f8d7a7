"""Stage 0: from a picture file to the reference view (method section 4).

The object's opacity is kept when the picture has one, else found; the object is moved to the middle of a square
canvas, its longest side filling 0.9 of it, which is how the reference camera of method section 1.1 sees an object of
+-0.6. Maps that the user gives travel through the same steps.

Letters: S side of the canvas. Colours are premultiplied unless said otherwise.
"""

import io
import math
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import Tensor

from dreamcraft3d.config import ReferenceConfig
from dreamcraft3d.errors import InputError
from dreamcraft3d.functional.cameras import FOVY, Cameras, framing_cameras
from dreamcraft3d.stages.matting import find_object
from dreamcraft3d.stages.pictures import read_map, read_picture
from dreamcraft3d.workspace import Workspace

__all__ = ["ReferenceView", "load_reference", "save_reference"]

Array = NDArray[np.float32]

SPECK = 0.01
"""Parts smaller than this share of the largest one are dirt, not object."""

SMALLEST = 64
"""Object pixels below which there is nothing to work with."""

NORMAL_AXES = {
    "opengl": ([0, 1, 2], (1.0, 1.0, 1.0)),
    "directx": ([0, 1, 2], (1.0, -1.0, 1.0)),
    "omnidata": ([2, 1, 0], (1.0, -1.0, -1.0)),
}
"""Which channel of a normal map is x, y, z, and its sign (the official script writes omnidata's in reverse order)."""


@dataclass(frozen=True)
class ReferenceView:
    """The picture as the reference camera sees it.

    Attributes:
        rgba: premultiplied, soft opacity. mask: opacity above one half. elevation, fovy: of the camera, radians.
        matting: how the object was found: "alpha channel", "given mask", "rembg (model)", "plain background",
        "GrabCut".
        depth: larger is farther, no unit, 0 outside the mask. normal: unit, view space (x right, y up, z to the
        viewer). frame: left, top and side of the square that was cut out, as parts of the picture's width.
    """

    rgba: Float[Tensor, "S S 4"]
    mask: Bool[Tensor, "S S"]
    elevation: float
    matting: str
    depth: Float[Tensor, "S S"] | None = None
    normal: Float[Tensor, "S S 3"] | None = None
    frame: tuple[float, float, float] | None = None
    fovy: float = FOVY

    @property
    def camera(self) -> Cameras:
        """Where the picture was taken from: azimuth 0, on +x, at the distance that suits the field of view."""
        elevation, azimuth, fovy = (torch.tensor([angle]) for angle in (self.elevation, 0.0, self.fovy))
        return framing_cameras(elevation, azimuth, fovy).to(self.rgba.device)

    @property
    def colour(self) -> Float[Tensor, "S S 3"]:
        """Straight colour; where the object is not, the colour of its nearest point (so that nothing bleeds in)."""
        return torch.from_numpy(_bled(self.rgba.cpu().numpy())).to(self.rgba)

    def to(self, device: torch.device | str) -> "ReferenceView":
        """The same view on another device."""
        depth, normal = (None if plane is None else plane.to(device) for plane in (self.depth, self.normal))
        return replace(self, rgba=self.rgba.to(device), mask=self.mask.to(device), depth=depth, normal=normal)


def load_reference(
    path: Path,
    config: ReferenceConfig,
    *,
    mask: Path | None = None,
    depth: Path | None = None,
    normal: Path | None = None,
) -> ReferenceView:
    """Reads a picture and prepares it. Map paths given here go before those in the configuration.

    Raises:
        InputError: a file cannot be used, or there is no object in the picture.
        MissingDependencyError: a way of background removal was asked for that this machine does not have.
    """
    picture = read_picture(path, max_megapixels=config.max_megapixels)
    opacity, matting = _opacity(picture, config, mask or config.mask)
    opacity = _without_specks(opacity)
    if np.count_nonzero(opacity > 0.5) < SMALLEST:
        raise InputError(f"There is hardly any object in {path}.", "Use a picture in which it is larger, or a --mask.")
    premultiplied = np.dstack([_clean_colours(picture[..., :3], opacity, matting) * opacity[..., None], opacity])
    frame = Frame.around(opacity > 0.5, size=config.size, coverage=config.coverage)
    rgba = frame.resample(premultiplied).clip(0.0, 1.0)
    rgba[..., :3] = np.minimum(rgba[..., :3], rgba[..., 3:])
    inside = rgba[..., 3] > 0.5
    weights = (opacity > 0.5).astype(np.float32)
    depth, normal = depth or config.depth, normal or config.normal
    depth_map = None if depth is None else _map_like(depth, 1, picture, config)
    normal_map = None if normal is None else _map_like(normal, 3, picture, config)
    return ReferenceView(
        rgba=torch.from_numpy(rgba),
        mask=torch.from_numpy(inside),
        elevation=math.radians(config.elevation_or_level),
        fovy=FOVY if config.fov is None else math.radians(config.fov),
        matting=matting,
        depth=None if depth_map is None else _depth(depth_map, weights, frame, inside, config),
        normal=None if normal_map is None else _normal(normal_map, weights, frame, inside, config),
        frame=(frame.left / picture.shape[1], frame.top / picture.shape[1], frame.side / picture.shape[1]),
    )


def save_reference(view: ReferenceView, workspace: Workspace) -> None:
    """Writes `reference.png` (what the stages are shown) and `mask.png` (the object outlined on grey)."""
    straight = torch.cat([view.colour, view.rgba[..., 3:]], dim=-1)
    over_grey = view.rgba[..., :3] + 0.25 * (1.0 - view.rgba[..., 3:])
    edge = view.mask ^ torch.from_numpy(ndimage.binary_erosion(view.mask.numpy(), iterations=2))
    outlined = torch.where(edge[..., None], torch.tensor([1.0, 0.2, 0.6]), over_grey)
    for name, image in (("reference.png", straight), ("mask.png", outlined)):
        levels = (image.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).numpy()
        buffer = io.BytesIO()
        Image.fromarray(levels).save(buffer, "PNG")
        workspace.write_bytes(name, buffer.getvalue())


@dataclass(frozen=True)
class Frame:
    """A square cut out of a picture: top-left corner and side in pixels (it may reach outside), and the new size."""

    left: float
    top: float
    side: float
    size: int

    @staticmethod
    def around(mask: NDArray[np.bool_], *, size: int, coverage: float) -> "Frame":
        """The object's tight box in the middle, its longest side `coverage` of the frame."""
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
        side = max(bottom - top, right - left) / coverage
        return Frame(float((left + right) / 2 - side / 2), float((top + bottom) / 2 - side / 2), float(side), size)

    def resample(self, image: Array) -> Array:
        """The cut-out at its new size: anti-aliased where it shrinks, smooth where it grows, zero outside."""
        height, width = image.shape[:2]
        pad = [max(0, math.ceil(-self.top)), max(0, math.ceil(self.top + self.side - height))]
        pad += [max(0, math.ceil(-self.left)), max(0, math.ceil(self.left + self.side - width))]
        padded = np.pad(image, ((pad[0] + 1, pad[1] + 1), (pad[2] + 1, pad[3] + 1), (0, 0)))
        left, top = self.left + pad[2] + 1, self.top + pad[0] + 1
        box = (left, top, left + self.side, top + self.side)
        kind = Image.Resampling.HAMMING if self.side > self.size else Image.Resampling.BICUBIC
        planes = [
            np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize((self.size, self.size), kind, box=box))
            for plane in np.moveaxis(padded, -1, 0)
        ]
        return np.asarray(np.stack(planes, axis=-1), dtype=np.float32)


# --- opacity --------------------------------------------------------------------------------------


def _opacity(picture: Array, config: ReferenceConfig, mask: Path | None) -> tuple[Array, str]:
    """The object's opacity in the picture, and how it was found."""
    if mask is not None:
        return _map_like(mask, 1, picture, config)[..., 0], "given mask"
    own = picture[..., 3]
    if not (own > 0.02).any():
        raise InputError("The picture is completely transparent.", "Choose a picture with an object in it.")
    if np.mean(own < 0.5) > 0.002:
        return own, "alpha channel"
    levels = np.rint(picture[..., :3] * 255.0).astype(np.uint8)
    opacity, matting = find_object(levels, config.matting)
    covered = float(np.mean(opacity > 0.5))
    if covered < 0.002 or covered > 0.98:
        raise InputError(
            "The object cannot be told from its background.", "Give a picture with transparency, or a --mask."
        )
    return opacity, matting


def _without_specks(opacity: Array) -> Array:
    """Opacity with the small parts removed that hang together with no large one."""
    _, labels, statistics, _ = cv2.connectedComponentsWithStats((opacity > 0.05).astype(np.uint8), connectivity=8)
    solid = np.bincount(labels[opacity > 0.5], minlength=len(statistics))
    solid[0] = 0
    return np.where((solid >= SPECK * solid.max())[labels] & (labels > 0), opacity, np.float32(0.0))


def _clean_colours(colours: Array, opacity: Array, matting: str) -> Array:
    """Straight colours; where the background was cut away, the rim takes the colour from further inside."""
    if matting == "alpha channel":
        return colours
    sure = cv2.erode((opacity > 0.9).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    if not sure.any():
        return colours
    return np.where((sure | (opacity < 0.01))[..., None], colours, _nearest(colours, sure))


def _nearest(values: Array, known: NDArray[np.bool_]) -> Array:
    """At each pixel the value of the nearest known one."""
    rows, columns = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    return np.asarray(values[rows, columns])


def _bled(rgba: Array) -> Array:
    opacity = rgba[..., 3:]
    straight = np.where(opacity > 1e-3, rgba[..., :3] / np.maximum(opacity, 1e-3), 0.0).clip(0.0, 1.0)
    known = rgba[..., 3] > 0.5
    return np.where(known[..., None], straight, _nearest(straight, known)).astype(np.float32)


# --- maps -----------------------------------------------------------------------------------------


def _map_like(path: Path, channels: int, picture: Array, config: ReferenceConfig) -> Array:
    """A map in the picture's pixels. It may have another resolution, but not another shape."""
    values = read_map(path, channels, max_megapixels=config.max_megapixels)
    height, width = picture.shape[:2]
    if abs(values.shape[1] / values.shape[0] - width / height) > 0.01 * width / height + 1.0 / height:
        raise InputError(
            f"{path} has another shape ({values.shape[1]} x {values.shape[0]}) than the picture ({width} x {height}).",
            "Give a map of the whole picture.",
        )
    if values.shape[:2] != (height, width):
        kind = cv2.INTER_AREA if values.shape[0] > height else cv2.INTER_LINEAR
        values = cv2.resize(values, (width, height), interpolation=kind).reshape(height, width, channels)
    return np.asarray(values, dtype=np.float32)


def _averaged(values: Array, weights: Array, frame: Frame, inside: NDArray[np.bool_]) -> Array:
    """Means over object pixels only; the rim inside the mask takes its neighbours' values; zero outside."""
    resampled = frame.resample(np.dstack([values * weights[..., None], weights]))
    known = inside & (resampled[..., -1] > 0.25)
    mean = resampled[..., :-1] / np.maximum(resampled[..., -1:], 0.25)
    return np.where(inside[..., None], _nearest(mean, known), 0.0).astype(np.float32)


def _depth(
    values: Array, weights: Array, frame: Frame, inside: NDArray[np.bool_], config: ReferenceConfig
) -> Float[Tensor, "S S"]:
    """Stretched to [0,1] inside the mask (only its shape counts; outliers at the rim do not), larger = farther."""
    depth = _averaged(values, weights, frame, inside)[..., 0]
    low, high = np.percentile(depth[inside], [1.0, 99.0])
    depth = np.clip((depth - low) / max(float(high - low), 1e-6), 0.0, 1.0)
    depth = 1.0 - depth if config.depth_larger == "nearer" else depth
    return torch.from_numpy(np.where(inside, depth, 0.0).astype(np.float32))


def _normal(
    values: Array, weights: Array, frame: Frame, inside: NDArray[np.bool_], config: ReferenceConfig
) -> Float[Tensor, "S S 3"]:
    """Decoded from [0,1] to unit vectors in the view's OpenGL axes."""
    order, signs = NORMAL_AXES[config.normal_axes]
    vectors = (2.0 * values[..., order] - 1.0) * np.array(signs, dtype=np.float32)
    mean = torch.from_numpy(_averaged(vectors, weights, frame, inside))
    return torch.nn.functional.normalize(mean, dim=-1, eps=1e-6)
