"""Volume rendering: from densities and signed distances to the opacity of a ray's segments (method section 5.6).

Letters: sigma density (1/length), delta segment length, alpha opacity of a segment, f signed distance (positive
outside), s inverse deviation of the NeuS logistic.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def density_to_alpha(density: Float[Tensor, " M"], delta: Float[Tensor, " M"]) -> Float[Tensor, " M"]:
    """alpha = 1 - exp(-sigma delta)."""
    return -torch.expm1(-density * delta)


def neus_alpha(
    before: Float[Tensor, " M"], after: Float[Tensor, " M"], inverse_deviation: Float[Tensor, ""]
) -> Float[Tensor, " M"]:
    """NeuS opacity of a segment from the signed distances at its two ends (NeuS eq. 13).

    alpha = clip((Phi(f_before) - Phi(f_after)) / Phi(f_before), 0, 1) with Phi(f) = sigmoid(s f), and 1e-5 against 0/0.
    The release takes f at the middle and a slope from finite-difference normals instead: four evaluations of the field
    per segment where the ends, shared by neighbouring segments, need one.

    >>> neus_alpha(torch.tensor([0.1, -0.1]), torch.tensor([-0.1, -0.2]), torch.tensor(1000.0))
    tensor([1.0000, 0.0000])
    """
    previous = torch.sigmoid(inverse_deviation * before)
    following = torch.sigmoid(inverse_deviation * after)
    return ((previous - following) / (previous + 1e-5)).clamp(0.0, 1.0)


def blob_bias(positions: Float[Tensor, "M 3"], *, scale: float = 10.0, radius: float = 0.5) -> Float[Tensor, " M"]:
    """scale (1 - ||x|| / radius): the initial density is a soft ball (Magic3D; method section 5.3)."""
    norm: Tensor = positions.norm(dim=-1)
    return scale * (1.0 - norm / radius)
