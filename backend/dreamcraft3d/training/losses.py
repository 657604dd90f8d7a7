"""What the bundled prior is trained to get right.

For each example: the first wanted view as the denoiser predicts it, the loss of v-prediction written on the clean
picture, |x0_hat - x0|^2 min(1 / sigma_t^2, 5); all wanted views as the lifted volume alone shows them, in picture and
depth (of all but the first a quarter of the pixels); the occupancy of the volume's cells (binary cross-entropy); depth
and normals of the reference; and its camera. Where the reference is dropped (for guidance) only denoising counts.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from dreamcraft3d.functional.cameras import Cameras
from dreamcraft3d.functional.diffusion import add_noise
from dreamcraft3d.kernels.frustum import pixel_centres
from dreamcraft3d.priors.base import Estimate
from dreamcraft3d.priors.lifting import Look, ReferenceCode, framing_cameras, look
from dreamcraft3d.priors.network import SIZE, BundledNetwork, pose_vector
from dreamcraft3d.training.dataset import Batch


@dataclass(frozen=True)
class Weights:
    """How much each loss counts."""

    denoising: float = 0.5
    lifted: float = 1.0
    occupancy: float = 0.5
    surface: float = 0.1
    camera: float = 0.02


@dataclass(frozen=True)
class Share:
    """One worker's part of a batch: B examples, of which some references are `dropped`, with timesteps and noise for
    their first views; `offset` (row, column) of the pixels that are rendered of the other ones."""

    batch: Batch
    dropped: Bool[Tensor, " B"]
    t: Int[Tensor, " B"]
    noise: Float[Tensor, "B 4 H W"]
    offset: tuple[int, int]


def training_loss(
    network: BundledNetwork, share: Share, weights: Weights, *, narrow: bool = False
) -> Float[Tensor, ""]:
    """The mean loss of a share's examples; `narrow`: convolutions in bfloat16."""
    batch, kept = share.batch, (~share.dropped).to(share.noise)
    reference = torch.where(share.dropped[:, None, None, None], -1.0, 2.0 * batch.reference - 1.0)
    device = reference.device.type
    with torch.autocast(device, torch.bfloat16, enabled=narrow):
        code, estimate = network.encode(reference, batch.camera[:, 0], batch.camera[:, 1])
        guessed = network.camera(reference)
    whole, wanted = _whole_view(network, code, batch)
    x = 2.0 * batch.target[:, 0] - 1.0
    x_t = add_noise(x, share.noise, network.alphas_cumprod, share.t)
    with torch.autocast(device, torch.bfloat16, enabled=narrow):
        x0 = network(x_t, share.t, whole, code.tokens, pose_vector(wanted, code.cameras))
    error = (x0 - x).square().mean((1, 2, 3)) * (1.0 / (1.0 - network.alphas_cumprod[share.t])).clamp(max=5.0)
    lifted = view_loss(whole, batch.target[:, 0], batch.depth[:, 0]) + _thin_views_loss(code, batch, share.offset)
    lifted = lifted / batch.pose.shape[1]
    cells = functional.binary_cross_entropy_with_logits(
        code.occupancy, batch.occupancy.to(code.occupancy), reduction="none"
    ).mean((1, 2, 3))
    surface = estimate_loss(estimate, batch)
    known = weights.lifted * lifted + weights.occupancy * cells + weights.surface * surface
    known = known + weights.camera * camera_loss(guessed, batch)
    total: Tensor = weights.denoising * error.mean() + (known * kept).mean()
    return total


def _whole_view(network: BundledNetwork, code: ReferenceCode, batch: Batch) -> tuple[Look, Cameras]:
    """The first wanted view of each example, all pixels."""
    wanted = framing_cameras(*batch.pose[:, 0].unbind(1))
    return network.look(code, wanted), wanted


def _thin_views_loss(code: ReferenceCode, batch: Batch, offset: tuple[int, int]) -> Float[Tensor, " B"]:
    """The sum of `view_loss` over the other wanted views, of which a quarter of the pixels is rendered."""
    targets = batch.pose.shape[1] - 1
    if not targets:
        return torch.zeros_like(batch.pose[:, 0, 0])
    row, column = offset
    pose, half = batch.pose[:, 1:].flatten(0, 1), SIZE // 2
    grid = pixel_centres(SIZE, pose.device).reshape(SIZE, SIZE, 2)[row::2, column::2].reshape(-1, 2)
    view = look(code, framing_cameras(*pose.unbind(1)), size=half, pixels=grid.expand(len(pose), -1, -1))
    target = batch.target[:, 1:, :, row::2, column::2].flatten(0, 1)
    depth = batch.depth[:, 1:, :, row::2, column::2].flatten(0, 1)
    total: Float[Tensor, " B"] = view_loss(view, target, depth).unflatten(0, (-1, targets)).sum(1)
    return total


def view_loss(view: Look, target: Float[Tensor, "N 4 h w"], depth: Float[Tensor, "N 1 h w"]) -> Float[Tensor, " N"]:
    """What lifted views get wrong: squared error of x = 2 rgba - 1, opacity twice, and of depth (world units) times
    opacity."""
    weights = target.new_tensor([1.0, 1.0, 1.0, 2.0])[:, None, None]
    colour = 4.0 * ((view.rgba - target).square() * weights).mean((1, 2, 3))
    off = (view.depth - depth * view.rgba[:, 3:]).square() * (target[:, 3:] > 0.5)
    total: Float[Tensor, " N"] = colour + 4.0 * off.mean((1, 2, 3))
    return total


def camera_loss(guessed: tuple[Tensor, Tensor], batch: Batch) -> Float[Tensor, " B"]:
    """Absolute errors of the elevation (in tenths of a radian) and of the logarithm of the field of view."""
    elevation, fovy = guessed
    tilt = (elevation - batch.camera[:, 0]).abs() / 0.1
    total: Float[Tensor, " B"] = tilt + 2.0 * (fovy / batch.camera[:, 1]).log().abs()
    return total


def estimate_loss(estimate: Estimate, batch: Batch) -> Float[Tensor, " B"]:
    """Mean over the object of |depth error| (world units) and of 1 - cosine of the normals."""
    inside = (batch.reference_depth > 0.0).to(estimate.depth)
    depth = (estimate.depth - batch.reference_depth).abs()
    angle = 1.0 - (estimate.normal * batch.normal).sum(1, keepdim=True)
    mean: Float[Tensor, " B"] = ((4.0 * depth + angle) * inside).sum((1, 2, 3)) / inside.sum((1, 2, 3)).clamp_min(1.0)
    return mean
