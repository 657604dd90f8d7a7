"""Colour as a function of surface position: what stages 2 and 3 paint with (method section 11)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dreamcraft3d.fields.encoding import HashEncoding, Head
from dreamcraft3d.fields.sdf_field import SDFField
from dreamcraft3d.kernels.hash_grid import HashGridLayout


class ColourField(nn.Module):
    """colour(x) = sigmoid(MLP_c(enc(x))); light- and view-independent."""

    def __init__(self, layout: HashGridLayout, *, hidden: int = 64, generator: torch.Generator) -> None:
        super().__init__()
        self.encoding = HashEncoding(layout, generator)
        self.colour_head = Head(self.encoding.width, 3, hidden=hidden, generator=generator)

    @classmethod
    def from_sdf(cls, source: SDFField, *, generator: torch.Generator) -> "ColourField":
        """The NeuS field's features and colours, copied."""
        hidden = source.colour_head.hidden.shape[0]
        field = cls(source.encoding.layout, hidden=hidden, generator=generator).to(source.encoding.table.device)
        field.encoding.load_state_dict(source.encoding.state_dict())
        field.colour_head.load_state_dict(source.colour_head.state_dict())
        return field

    def forward(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        return torch.sigmoid(self.colour_head(self.encoding(x)))
