"""Fit a colour field to colours that are known on a surface: how a stage takes over the colours of the one before."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dreamcraft3d.fields.texture import ColourField
from dreamcraft3d.functional.mesh import Mesh, face_areas
from dreamcraft3d.stages.run import descend

__all__ = ["ColourOf", "SurfaceSampler", "fit_colours"]

ColourOf = Callable[[Float[Tensor, "N 3"]], Float[Tensor, "N 3"]]
"""Colours in [0,1] of world points on a surface."""


class SurfaceSampler:
    """Random points of a mesh's faces, evenly by area; `faces` chooses among them."""

    def __init__(self, mesh: Mesh, faces: Bool[Tensor, " F"] | None = None) -> None:
        chosen = mesh.faces if faces is None or not bool(faces.any()) else mesh.faces[faces]
        self._corners = mesh.vertices[chosen]
        self._areas = face_areas(mesh.vertices, chosen).cpu()  # where the random numbers are drawn

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "N 3"]:
        """`count` points."""
        chosen = torch.multinomial(self._areas, count, replacement=True, generator=generator)
        share = torch.rand(count, 2, generator=generator)
        share = torch.where(share.sum(1, keepdim=True) > 1.0, 1.0 - share, share)
        weights = torch.cat([share, 1.0 - share.sum(1, keepdim=True)], dim=1).to(self._corners)
        return (weights[..., None] * self._corners[chosen.to(weights.device)]).sum(dim=1)


def fit_colours(
    colour: ColourField, mesh: Mesh, known: ColourOf, generator: torch.Generator, *, steps: int, batch: int
) -> None:
    """Minimise the mean squared error to `known` by Adam, on `batch` random surface points in each of `steps` steps."""
    optimiser = torch.optim.Adam(colour.parameters(), lr=1e-2, betas=(0.9, 0.99))
    surface = SurfaceSampler(mesh)
    for _ in range(steps):
        x = surface.sample(batch, generator)
        with torch.no_grad():
            target = known(x)
        loss = torch.nn.functional.mse_loss(colour(x), target)
        descend(loss, optimiser)
