"""The NeuS field: signed distance and colour (stage 1b, method section 5.4), started from the NeRF's shape."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dreamcraft3d.fields.density_field import DensityField
from dreamcraft3d.fields.encoding import HashEncoding, Head
from dreamcraft3d.kernels.hash_grid import HashGridLayout

INITIAL_RADIUS = 0.5


class SDFField(nn.Module):
    """f(x) = MLP_s(enc(x)) + |x| - 0.5 (positive outside), colour(x) = sigmoid(MLP_c(enc(x))).

    `inverse_deviation` s = exp(10 v) is the sharpness of NeuS's logistic, v learnable, v_0 = 0.3.
    """

    def __init__(self, layout: HashGridLayout, *, hidden: int = 64, generator: torch.Generator) -> None:
        super().__init__()
        self.encoding = HashEncoding(layout, generator)
        self.sdf_head = Head(self.encoding.width, 1, hidden=hidden, generator=generator)
        self.colour_head = Head(self.encoding.width, 3, hidden=hidden, generator=generator)
        self.variance = nn.Parameter(torch.tensor(0.3))

    @classmethod
    def from_density(cls, source: DensityField, *, generator: torch.Generator) -> "SDFField":
        """A field with the NeRF's features and colours; its shape still has to be fitted (stages.neus.fit_shape).

        The release stops here, so the NeRF's shape is lost (issue I3).
        """
        hidden = source.colour_head.hidden.shape[0]
        field = cls(source.encoding.layout, hidden=hidden, generator=generator).to(source.encoding.table.device)
        field.encoding.load_state_dict(source.encoding.state_dict())
        field.colour_head.load_state_dict(source.colour_head.state_dict())
        return field

    @property
    def inverse_deviation(self) -> Float[Tensor, ""]:
        """s = exp(10 v), clamped to [1e-6, 1e6]."""
        return torch.exp(10.0 * self.variance).clamp(1e-6, 1e6)

    def sdf(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, " N"]:
        """Signed distance, positive outside."""
        return self._sdf(x, self.encoding(x))

    def sdf_and_colour(self, x: Float[Tensor, "N 3"]) -> tuple[Float[Tensor, " N"], Float[Tensor, "N 3"]]:
        """Both outputs from one encoding."""
        features = self.encoding(x)
        return self._sdf(x, features), torch.sigmoid(self.colour_head(features))

    def colour(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """Colour alone."""
        return torch.sigmoid(self.colour_head(self.encoding(x)))

    def gradient(self, x: Float[Tensor, "N 3"], epsilon: float) -> Float[Tensor, "N 3"]:
        """Forward differences of f by `epsilon` world units; its length is 1 where f is a distance."""
        steps = epsilon * torch.eye(3, device=x.device, dtype=x.dtype)
        points = torch.cat([x[None], x[None] + steps[:, None]]).reshape(-1, 3)
        f = self.sdf(points).reshape(4, -1)
        return ((f[1:] - f[:1]) / epsilon).T

    def _sdf(self, x: Float[Tensor, "N 3"], features: Float[Tensor, "N C"]) -> Float[Tensor, " N"]:
        f: Tensor = self.sdf_head(features)[:, 0] + x.norm(dim=-1) - INITIAL_RADIUS
        return f
