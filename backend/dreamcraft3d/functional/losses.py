"""The loss catalogue (method section 7), one named function per term.

Letters: P prediction; m the reference mask; n normals; w volume rendering weights. Means run over all elements unless
said.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

Image = Float[Tensor, "B H W C"]
Plane = Float[Tensor, "B H W"]
Mask = Bool[Tensor, "B H W"]


def rgb_loss(predicted: Image, target: Image) -> Float[Tensor, ""]:
    """MSE over the whole picture, background included (stages 1 and 2)."""
    return F.mse_loss(predicted, target)


def masked_l1(predicted: Image, target: Image, mask: Mask) -> Float[Tensor, ""]:
    """mean |P m - target m|: the texture stage's reference loss inside an eroded mask."""
    return ((predicted - target).abs() * mask[..., None]).mean()


def mask_loss(opacity: Plane, mask: Plane) -> Float[Tensor, ""]:
    """MSE(opacity, m); a soft mask is allowed."""
    return F.mse_loss(opacity, mask)


def depth_correlation_loss(predicted: Plane, target: Plane, mask: Mask) -> Float[Tensor, ""]:
    """1 - Pearson(P[m], target[m]): the release's `depth_rel`. Larger is farther in both.

    Zero when the mask has fewer than 64 pixels or either side is constant: there is no correlation to speak of
    (issue B25).
    """
    p, q = predicted[mask], target[mask]
    if p.numel() < 64:
        return predicted.sum() * 0.0
    p, q = p - p.mean(), q - q.mean()
    if float(q.detach().square().mean()) < 1e-8 or float(p.detach().square().mean()) < 1e-10:
        return predicted.sum() * 0.0
    return 1.0 - (p * q).sum() / (p.square().sum() * q.square().sum()).clamp_min(1e-12).sqrt()


def depth_affine_loss(predicted: Plane, target: Plane, mask: Mask) -> Float[Tensor, ""]:
    """MSE after the least-squares scale and shift of the target onto the prediction (the release's `depth`)."""
    p, q = predicted[mask], target[mask]
    if p.numel() < 64:
        return predicted.sum() * 0.0
    with torch.no_grad():
        design = torch.stack([q, torch.ones_like(q)], dim=-1)
        fit = torch.linalg.lstsq(design, p.detach()[:, None]).solution[:, 0]
    return F.mse_loss(p, fit[0] * q + fit[1])


def normal_loss(predicted: Image, target: Image, mask: Mask) -> Float[Tensor, ""]:
    """1 - mean cos(n_P, n_target) on m; both unit or zero vectors in the same space."""
    if not bool(mask.any()):
        return predicted.sum() * 0.0
    return 1.0 - F.cosine_similarity(predicted[mask], target[mask], dim=-1).mean()


def orientation_loss(
    weights: Float[Tensor, " M"], normals: Float[Tensor, "M 3"], directions: Float[Tensor, "M 3"], rays: int
) -> Float[Tensor, ""]:
    """sum sg(w) relu(n . d)^2 / rays: visible surfaces must not face away (Ref-NeRF)."""
    facing_away = torch.relu((normals * directions).sum(dim=-1))
    return (weights.detach() * facing_away.square()).sum() / max(rays, 1)


def sparsity_loss(opacity: Plane) -> Float[Tensor, ""]:
    """mean sqrt(opacity^2 + 0.01): empty space is cheap."""
    return (opacity.square() + 0.01).sqrt().mean()


def opaque_loss(opacity: Plane) -> Float[Tensor, ""]:
    """Entropy of the opacity, BCE(o, o) with o in [1e-3, 1 - 1e-3]: a ray hits or it does not."""
    o = opacity.clamp(1e-3, 1.0 - 1e-3)
    return -(o * o.log() + (1.0 - o) * (1.0 - o).log()).mean()


def smoothness_loss(image: Image) -> Float[Tensor, ""]:
    """Mean squared differences between neighbouring pixels along rows plus along columns (`normal_smooth`)."""
    rows = (image[:, 1:] - image[:, :-1]).square().mean()
    columns = (image[:, :, 1:] - image[:, :, :-1]).square().mean()
    return rows + columns


def eikonal_loss(gradient: Float[Tensor, "M 3"]) -> Float[Tensor, ""]:
    """mean (||grad f|| - 1)^2: f stays a distance, which NeuS's opacity takes for granted (issue B15)."""
    norm: Tensor = gradient.norm(dim=-1)
    return (norm - 1.0).square().mean()


def erode(mask: Mask, size: int = 9) -> Mask:
    """Minimum filter of `size` x `size` pixels, stride 1; pixels outside the picture do not count as background."""
    background = (~mask).float()[:, None]
    return F.max_pool2d(background, size, stride=1, padding=size // 2)[:, 0] < 0.5
