"""Refining against a prior that knows the answer: does a mesh get a known texture back, and only where it should?

The mesh's own images are the truth. They are replaced by grey ones, and the texture stage must find them again through
the exact prior, the reference picture and the mesh's own texture coordinates.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from dreamcraft3d.config import GenerateConfig
from dreamcraft3d.functional.cameras import Cameras, orbit, project
from dreamcraft3d.kernels.rasterize import rasterize
from dreamcraft3d.pipeline import scene_device
from dreamcraft3d.priors.base import Content
from dreamcraft3d.priors.oracle import OraclePrior
from dreamcraft3d.priors.residency import FixedPriors
from dreamcraft3d.progress import Progress
from dreamcraft3d.refining.baking import FILLED, OVERLAP
from dreamcraft3d.refining.coverage import plain_coordinates
from dreamcraft3d.refining.present import PresentColours, open_tiles
from dreamcraft3d.refining.request import RefineRequest, digest
from dreamcraft3d.refining.run import RefineResult, refine
from dreamcraft3d.refining.surface import Surface, surface_of
from dreamcraft3d.refining.tiles import Picture, decode, encode
from dreamcraft3d.stages.reference import ReferenceView
from dreamcraft3d.workspace import Workspace

GREY = 128


@dataclass(frozen=True)
class RefineScore:
    """How well one image came back.

    Attributes:
        psnr: over painted texels, dB. painted: their share of the image. changed: bytes that differ from the input
        outside painted texels and their gutter, alpha included.
    """

    slot: int
    tile: int
    psnr: float
    painted: float
    changed: int


class TrueLook:
    """The renderer that an oracle asks: any view of a mesh with its own images, in the frame of its `Surface`."""

    def __init__(self, request: RefineRequest, surface: Surface, *, supersample: int = 2) -> None:
        uvs = {target.slot: plain_coordinates(request.soup, target)[0] for target in request.header.targets}
        self._colours = PresentColours(request, surface, open_tiles(request), uvs)
        self._surface, self._supersample = surface, supersample
        self._flip = request.header.det_sign < 0

    def __call__(
        self, elevation: Float[Tensor, " B"], azimuth: Float[Tensor, " B"], content: Content, size: int
    ) -> Float[Tensor, "B H W 4"]:
        cameras = orbit(elevation.cpu(), azimuth.cpu())
        views = [self._view(cameras[b : b + 1], size * self._supersample) for b in range(len(cameras))]
        pooled = torch.nn.functional.avg_pool2d(torch.stack(views).permute(0, 3, 1, 2), self._supersample)
        return pooled.permute(0, 2, 3, 1)

    def _view(self, camera: Cameras, size: int) -> Float[Tensor, "S S 4"]:
        mesh = self._surface.mesh
        raster = rasterize(project(mesh.vertices, camera), mesh.faces, size)
        covered = raster.face_ids[0] >= 0
        weights = raster.barycentrics[0][covered]
        weights = torch.cat([weights, 1.0 - weights.sum(-1, keepdim=True)], dim=-1)
        weights = weights.flip(1) if self._flip else weights
        triangle = self._surface.source[raster.face_ids[0][covered].numpy()]
        image = torch.zeros(size, size, 4)
        colours = self._colours.of(triangle, weights.double().numpy())
        image[covered] = torch.cat([colours, torch.ones_like(colours[:, :1])], dim=-1)
        return image


def evaluate_refine(
    truth: RefineRequest, config: GenerateConfig, workspace: Workspace, progress: Progress
) -> tuple[RefineResult, list[RefineScore]]:
    """Refines the mesh with grey images towards its own, with the exact prior, and scores each image."""
    surface = surface_of(truth, two_sided=config.refine.two_sided)
    look = TrueLook(truth, surface)
    elevation = math.radians(config.reference.elevation_or_level)
    rgba = look(torch.tensor([elevation]), torch.zeros(1), "rgba", config.reference.size)[0]
    reference = ReferenceView(rgba=rgba, mask=rgba[..., 3] > 0.5, elevation=elevation, matting="rendered")
    start = greyed(truth)
    shelf = FixedPriors(OraclePrior(look, image_size=config.oracle_size).to(scene_device(config, progress)))
    result = refine(start, config, workspace, progress, shelf=shelf, reference=reference)
    return result, _scores(result, start, truth)


def greyed(request: RefineRequest) -> RefineRequest:
    """The request with all colours of its images grey, alpha as it is."""
    files, names = dict(request.files), {}
    for target in request.header.targets:
        for tile in target.tiles:
            if tile.sha256 is not None:
                picture = decode(request.files[tile.sha256])
                pixels = picture.pixels.copy()
                pixels[..., :3] = GREY if pixels.dtype == np.uint8 else pixels.dtype.type(0.5 * _largest(pixels))
                data, _ = encode(Picture(pixels, picture.half))
                names[tile.sha256] = digest(data)
                files[digest(data)] = data
    targets = tuple(
        target.model_copy(
            update={
                "tiles": tuple(
                    tile.model_copy(update={"sha256": names.get(tile.sha256 or "", tile.sha256)})
                    for tile in target.tiles
                )
            }
        )
        for target in request.header.targets
    )
    return replace(request, header=request.header.model_copy(update={"targets": targets}), files=files)


def _largest(pixels: NDArray[Any]) -> float:
    return float(np.iinfo(pixels.dtype).max) if pixels.dtype.kind == "u" else 1.0


def _scores(result: RefineResult, start: RefineRequest, truth: RefineRequest) -> list[RefineScore]:
    before, wanted = open_tiles(start), open_tiles(truth)
    scores = []
    for image in result.images:
        key = image.slot, image.tile
        pixels, mask = decode(image.path.read_bytes()).pixels, decode(image.mask.read_bytes()).pixels[..., 0]
        painted, touched = mask >= OVERLAP, mask >= FILLED
        error = (pixels[painted][:, :3].astype(np.float64) - wanted[key].pixels[painted][:, :3]) / _largest(pixels)
        old = before[key].pixels
        changed = int(np.count_nonzero(pixels[~touched] != old[~touched]))
        changed += int(np.count_nonzero(pixels[..., 3:] != old[..., 3:]))
        squared = float(np.square(error).mean()) if painted.any() else 1.0
        psnr = -10.0 * math.log10(max(squared, 1e-12))
        scores.append(RefineScore(*key, psnr, float(painted.mean()), changed * pixels.dtype.itemsize))
    return scores
