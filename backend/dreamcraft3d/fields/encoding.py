"""Hash-grid encoding of the scene box and the small bias-free MLPs that read it (method section 5.1, 5.2).

Letters: x world position in [-1,1]^3, u = (x + 1) / 2 in [0,1]^3.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dreamcraft3d.config import HashGridConfig
from dreamcraft3d.kernels.hash_grid import HashGridLayout, hash_encode

HALF_EXTENT = 1.0
"""The scene box is [-R, R]^3 with R = 1: the release's R = 2 left 26/27 of the table unused (issue B16)."""


def layout_of(config: HashGridConfig) -> HashGridLayout:
    """The table layout that a configuration asks for."""
    return HashGridLayout(
        levels=config.levels,
        base_resolution=config.base_resolution,
        growth=config.growth,
        log2_table_size=config.log2_table_size,
    )


class HashEncoding(nn.Module):
    """Multiresolution hash grid over the scene box; features are level-major, inactive levels read zero."""

    def __init__(self, layout: HashGridLayout, generator: torch.Generator) -> None:
        super().__init__()
        self.layout = layout
        initial = torch.rand(layout.entries, layout.features, generator=generator)
        self.table = nn.Parameter((2.0 * initial - 1.0) * 1e-4)

    @property
    def width(self) -> int:
        """Number of features per point."""
        return self.layout.levels * self.layout.features

    def forward(self, x: Float[Tensor, "N 3"], active_levels: int | None = None) -> Float[Tensor, "N C"]:
        u = ((x + HALF_EXTENT) / (2.0 * HALF_EXTENT)).clamp(0.0, 1.0)
        return hash_encode(u, self.table, self.layout, active_levels=active_levels)


class Head(nn.Module):
    """Linear(width -> hidden), ReLU, Linear(hidden -> outputs).

    Both are without bias, with torch's default initialisation.
    """

    def __init__(self, width: int, outputs: int, *, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.hidden = nn.Parameter(_uniform(hidden, width, generator))
        self.output = nn.Parameter(_uniform(outputs, hidden, generator))

    def forward(self, features: Float[Tensor, "N C"]) -> Float[Tensor, "N O"]:
        return torch.relu(features @ self.hidden.T) @ self.output.T


def _uniform(rows: int, columns: int, generator: torch.Generator) -> Float[Tensor, "R C"]:
    bound = 1.0 / math.sqrt(columns)
    return (2.0 * torch.rand(rows, columns, generator=generator) - 1.0) * bound
