"""The coarse NeRF's field: density and colour from one hash grid (stage 1a, method section 5.3)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dreamcraft3d.fields.encoding import HashEncoding, Head
from dreamcraft3d.functional.volume import blob_bias
from dreamcraft3d.kernels.hash_grid import HashGridLayout


class DensityField(nn.Module):
    """sigma(x) = softplus(MLP_sigma(enc(x)) + 10 (1 - |x| / 0.5)), colour(x) = sigmoid(MLP_c(enc(x))).

    `active_levels` opens the hash grid from coarse to fine during training; None means all levels.
    """

    def __init__(self, layout: HashGridLayout, *, hidden: int = 64, generator: torch.Generator) -> None:
        super().__init__()
        self.encoding = HashEncoding(layout, generator)
        self.density_head = Head(self.encoding.width, 1, hidden=hidden, generator=generator)
        self.colour_head = Head(self.encoding.width, 3, hidden=hidden, generator=generator)
        self.active_levels: int | None = None

    def density(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, " N"]:
        """Density per unit length."""
        return self._density(x, self.encoding(x, self.active_levels))

    def density_and_colour(self, x: Float[Tensor, "N 3"]) -> tuple[Float[Tensor, " N"], Float[Tensor, "N 3"]]:
        """Both outputs from one encoding."""
        features = self.encoding(x, self.active_levels)
        return self._density(x, features), torch.sigmoid(self.colour_head(features))

    def normals(self, x: Float[Tensor, "N 3"], epsilon: float) -> Float[Tensor, "N 3"]:
        """Unit vectors against the density's growth, by forward differences of `epsilon` world units."""
        steps = epsilon * torch.eye(3, device=x.device, dtype=x.dtype)
        points = torch.cat([x[None], x[None] + steps[:, None]]).reshape(-1, 3)
        density = self.density(points).reshape(4, -1)
        return F.normalize(-(density[1:] - density[:1]).T, dim=-1, eps=1e-6)

    def _density(self, x: Float[Tensor, "N 3"], features: Float[Tensor, "N C"]) -> Float[Tensor, " N"]:
        return F.softplus(self.density_head(features)[:, 0] + blob_bias(x))
