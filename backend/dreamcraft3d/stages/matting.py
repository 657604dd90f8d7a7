"""Where is the object in an opaque picture? Three ways to find out, none of which downloads anything.

* rembg: a segmentation network, if the package and one of its model files are already on this machine.
* plain background: everything that hangs together with the border and has its colour is background.
* GrabCut: colour models of object and background, started from what differs from the border and lies near the middle.

Conventions: pictures are uint8 H x W x 3 RGB; opacities float32 H x W in [0,1].
"""

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from dreamcraft3d.errors import InputError, MissingDependencyError

__all__ = ["Method", "find_object", "is_noise", "rembg_model"]

Method = Literal["auto", "rembg", "grabcut"]
Picture = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Opacity = NDArray[np.float32]

REMBG_MODELS = ("birefnet-general", "birefnet-general-lite", "isnet-general-use", "u2net", "silueta", "u2netp")
"""Best first."""

COARSE, FINE = 320, 640
"""Longest side of the picture in the first and in the refining GrabCut."""

PLAIN = 8.0
"""Distance in CIE Lab below which a border counts as one colour (2 is just visible)."""

DEFINITE, LIKELY_BACKGROUND, LIKELY = cv2.GC_FGD, cv2.GC_PR_BGD, cv2.GC_PR_FGD


def find_object(rgb: Picture, method: Method = "auto") -> tuple[Opacity, str]:
    """(opacity, name of the way it was found) of the object in an opaque picture.

    Raises:
        InputError: there is no object to be found. MissingDependencyError: rembg was asked for and is not there.
    """
    if method != "grabcut":
        model = rembg_model()
        if model is not None:
            return _rembg(rgb, model), f"rembg ({model})"
        if method == "rembg":
            raise MissingDependencyError(
                "rembg, or a model file of it, is not on this machine.",
                "Install dreamcraft3d[matting] and run `rembg d u2net` once, or use --set reference.matting=grabcut.",
            )
    if is_noise(rgb):
        raise InputError("The picture is noise: there is no object in it.", "Choose a picture of one object.")
    opacity = plain_background(rgb)
    if opacity is not None:
        return opacity, "plain background"
    return grabcut(rgb), "GrabCut"


def is_noise(rgb: Picture) -> bool:
    """Whether neighbouring pixels have nothing to do with each other; even a grainy photograph is far from that."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float64)
    pairs = ((grey[:, 1:], grey[:, :-1]), (grey[1:], grey[:-1]))
    return grey.std() > 2.0 and all(np.corrcoef(a.ravel(), b.ravel())[0, 1] < 0.2 for a, b in pairs)


# --- a network ------------------------------------------------------------------------------------


def rembg_model() -> str | None:
    """The best of rembg's models whose file is on this machine; None if there is none, or no rembg."""
    if importlib.util.find_spec("rembg") is None or importlib.util.find_spec("onnxruntime") is None:
        return None
    home = Path(os.environ.get("U2NET_HOME") or Path(os.environ.get("XDG_DATA_HOME") or Path.home()) / ".u2net")
    return next((name for name in REMBG_MODELS if (home.expanduser() / f"{name}.onnx").is_file()), None)


def _rembg(rgb: Picture, model: str) -> Opacity:
    import rembg

    with _existing_model_only():
        mask = rembg.remove(rgb, session=rembg.new_session(model), only_mask=True)
    return np.asarray(mask, dtype=np.float32) / np.float32(255.0)


@contextlib.contextmanager
def _existing_model_only() -> Iterator[None]:
    """Without this rembg replaces a file whose checksum it does not know by a download."""
    key = "MODEL_CHECKSUM_DISABLED"
    before = os.environ.get(key)
    os.environ[key] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[key]
        else:
            os.environ[key] = before


# --- a plain background ---------------------------------------------------------------------------


def plain_background(rgb: Picture) -> Opacity | None:
    """The object on a background of one colour or two; None if the border shows more than that."""
    lab = cv2.cvtColor(rgb.astype(np.float32) / 255.0, cv2.COLOR_RGB2Lab)
    border = _border(lab.shape[:2], 0.02)
    distance = _distance(lab, _colours(lab[border], 4))
    threshold = max(4.0, 2.0 * float(np.percentile(distance[border], 95)))
    if threshold > PLAIN:
        return None
    _, labels = cv2.connectedComponents((distance < threshold).astype(np.uint8), connectivity=4)
    outside = np.unique(labels[border & (distance < threshold)])
    return _soft(~np.isin(labels, outside[outside > 0]), shrink=1)


# --- GrabCut --------------------------------------------------------------------------------------


def grabcut(rgb: Picture) -> Opacity:
    """The object in front of any background.

    A coarse cut starts from the pixels that differ from the border's colours and lie near the middle. Two finer cuts
    see only the neighbourhood of its convex hull: a background far away that looks like the object no longer
    disturbs.

    Raises:
        InputError: nothing differs from the border.
    """
    coarse = _shrunk(rgb, COARSE)
    likely = _salient(coarse)
    start = np.where(likely, LIKELY, LIKELY_BACKGROUND).astype(np.uint8)
    start[_border(likely.shape, 0.05)] = cv2.GC_BGD
    mask = _cut(coarse, start, 8)
    fine = _shrunk(rgb, FINE)
    mask = cv2.resize(mask.astype(np.uint8), fine.shape[1::-1], interpolation=cv2.INTER_NEAREST) > 0
    for _ in range(2):
        mask = _refined(fine, mask)
    soft = cv2.resize(mask.astype(np.float32), rgb.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return _soft(soft > 0.5, shrink=0)


def _salient(rgb: Picture) -> Mask:
    """Pixels unlike the border's colours, near the middle: Otsu's threshold of the product of both."""
    height, width = rgb.shape[:2]
    lab = cv2.cvtColor(rgb.astype(np.float32) / 255.0, cv2.COLOR_RGB2Lab)
    distance = _distance(lab, _colours(lab[_border((height, width), 0.05)], 8))
    unlike = np.clip(distance / (np.percentile(distance, 99) + 1e-6), 0.0, 1.0)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    radius = ((x / max(width - 1, 1) - 0.5) ** 2 + (y / max(height - 1, 1) - 0.5) ** 2) / 0.3**2
    score = cv2.GaussianBlur((unlike * (0.3 + 0.7 * np.exp(-0.5 * radius))).astype(np.float32), (0, 0), 4.0)
    levels = (255.0 * score / max(float(score.max()), 1e-6)).astype(np.uint8)
    threshold, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_OTSU)
    return np.asarray(levels > threshold)


def _refined(rgb: Picture, mask: Mask) -> Mask:
    """One more cut, in the neighbourhood of the mask's hull; well inside the mask nothing changes any more."""
    reach = max(3, round(0.02 * max(mask.shape))) | 1
    kernel = np.ones((reach, reach), np.uint8)
    main = _largest(cv2.dilate(mask.astype(np.uint8), kernel) > 0) & mask
    points = cv2.findNonZero(main.astype(np.uint8))
    hull = np.zeros(mask.shape, np.uint8)
    cv2.fillConvexPoly(hull, cv2.convexHull(points), 1)
    x, y, width, height = cv2.boundingRect(points)
    margin = round(0.12 * max(width, height))
    window = (slice(max(0, y - margin), y + height + margin), slice(max(0, x - margin), x + width + margin))
    start = np.where(hull > 0, LIKELY, cv2.GC_BGD).astype(np.uint8)
    start[(cv2.dilate(hull, kernel) > 0) & (hull == 0)] = LIKELY_BACKGROUND
    start[cv2.erode(main.astype(np.uint8), kernel) > 0] = DEFINITE
    refined = np.zeros_like(mask)
    refined[window] = _cut(np.ascontiguousarray(rgb[window]), np.ascontiguousarray(start[window]), 5)
    return refined


def _cut(rgb: Picture, start: NDArray[np.uint8], rounds: int) -> Mask:
    inside = np.isin(start, (LIKELY, DEFINITE))
    if not inside.any() or inside.all():
        raise InputError("No object stands out in the picture.", "Give a picture with transparency, or a --mask.")
    cv2.setRNGSeed(0)
    cut = cv2.grabCut(rgb, start, None, np.zeros((1, 65)), np.zeros((1, 65)), rounds, cv2.GC_INIT_WITH_MASK)[0]
    found = np.isin(cut, (LIKELY, DEFINITE))
    if not found.any():
        raise InputError("No object stands out in the picture.", "Give a picture with transparency, or a --mask.")
    return np.asarray(found)


# --- small parts ----------------------------------------------------------------------------------


def _border(shape: tuple[int, ...], share: float) -> Mask:
    """A frame along the edges, `share` of the shorter side wide."""
    width = max(2, round(share * min(shape)))
    border = np.ones(shape, dtype=bool)
    border[width:-width, width:-width] = False
    return border


def _colours(samples: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """The main colours of some pixels (k-means, always the same ones)."""
    cv2.setRNGSeed(0)
    samples = np.ascontiguousarray(samples[:: max(1, len(samples) // 20_000)], dtype=np.float32)
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 20, 0.5)
    no_labels: Any = None
    return np.asarray(cv2.kmeans(samples, min(count, len(samples)), no_labels, stop, 2, cv2.KMEANS_PP_CENTERS)[2])


def _distance(lab: NDArray[np.float32], colours: NDArray[np.float32]) -> NDArray[np.float32]:
    """Distance of each pixel to the nearest of some colours."""
    nearest = np.full(lab.shape[:2], np.inf, dtype=np.float32)
    for colour in colours:
        np.minimum(nearest, np.linalg.norm(lab - colour, axis=-1), out=nearest)
    return nearest


def _shrunk(rgb: Picture, side: int) -> Picture:
    scale = side / max(rgb.shape[:2])
    if scale >= 1.0:
        return rgb
    return np.asarray(cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _largest(mask: Mask) -> Mask:
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return np.asarray(labels == 1 + int(np.argmax(statistics[1:, cv2.CC_STAT_AREA])))


def _soft(mask: Mask, *, shrink: int) -> Opacity:
    """The mask with an edge that is two pixels wide, moved inwards by `shrink` pixels (they show background too)."""
    hard = mask.astype(np.uint8)
    if shrink:
        hard = cv2.erode(hard, np.ones((2 * shrink + 1, 2 * shrink + 1), np.uint8))
    return np.asarray(cv2.GaussianBlur(hard.astype(np.float32), (0, 0), 0.7), dtype=np.float32)
