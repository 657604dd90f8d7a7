"""The colours that a mesh shows now: where the field starts from, and what stays where nothing is painted."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from dreamcraft3d.evaluation.render import sample_texture
from dreamcraft3d.export import GREY
from dreamcraft3d.kernels.mesh_query import MeshQuery
from dreamcraft3d.refining.request import RefineRequest, Target
from dreamcraft3d.refining.surface import Surface
from dreamcraft3d.refining.tiles import Picture, blank, decode, display_of

__all__ = ["PresentColours", "open_tiles"]

Pictures = dict[tuple[int, int], Picture]
"""Decoded images by (slot, tile)."""


def open_tiles(request: RefineRequest) -> Pictures:
    """All images of a request, decoded; new grey ones where there is none.

    Raises:
        RequestBroken: a damaged file.
    """
    return {
        (target.slot, tile.number): blank(tile.width, tile.height, target.bit_depth, GREY)
        if tile.sha256 is None
        else decode(request.files[tile.sha256])
        for target in request.header.targets
        for tile in target.tiles
    }


@dataclass(frozen=True)
class _Sheet:
    """One image as it is shown, and the coordinates that address it: T x 3 x 2, v up."""

    target: Target
    number: int
    uv: NDArray[np.float64]
    image: Float[Tensor, "H W 3"]


class PresentColours:
    """Display-referred colours of surface points; grey where the request holds no image.

    Args:
        uvs: plain coordinates by slot (`coverage.plain_coordinates`).
    """

    def __init__(
        self, request: RefineRequest, surface: Surface, pictures: Pictures, uvs: dict[int, NDArray[np.float64]]
    ) -> None:
        self._surface = surface
        self._slots = request.soup.tri_slot
        self._flip = request.header.det_sign < 0
        self._query = MeshQuery(surface.mesh.vertices, surface.mesh.faces)
        self._sheets = [
            _Sheet(t, number, uvs[t.slot], torch.from_numpy(display_of(pictures[t.slot, number], t)))
            for t in request.header.targets
            for number in (tile.number for tile in t.tiles)
        ]

    def __call__(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """The colour of the surface point nearest to each x."""
        _, face, weights = self._query.closest_points(x.cpu())
        triangle = self._surface.source[face.cpu().numpy()]
        weights = weights.flip(1) if self._flip else weights
        return self.of(triangle, weights.double().cpu().numpy()).to(x)

    def of(self, triangle: NDArray[np.integer[Any]], weights: NDArray[np.float64]) -> Float[Tensor, "N 3"]:
        """Colours by triangle of the request (-1: an occluder) and barycentric weights in its order."""
        colours = torch.full((len(triangle), 3), GREY)
        slot = np.where(triangle >= 0, self._slots[triangle], -1)
        for sheet in self._sheets:
            here = np.flatnonzero(slot == sheet.target.slot)
            uv = (weights[here, :, None] * sheet.uv[triangle[here]]).sum(axis=1)
            uv = uv - [(sheet.number - 1001) % 10, (sheet.number - 1001) // 10]
            if sheet.target.udim:
                inside = ((uv >= 0.0) & (uv < 1.0)).all(axis=1)
                here, uv = here[inside], uv[inside]
            uv[:, 1] = 1.0 - uv[:, 1]
            colours[torch.from_numpy(here)] = sample_texture(sheet.image, torch.from_numpy(uv.clip(0, 1)).float())
        return colours
