"""What every prior offers: a denoiser of pictures of one object, and the condition that names the picture.

Letters: x what the prior denoises (pixels or latents, B C h w), t timestep (0 = clean), alphabar_t = alphas_cumprod[t],
x_t = sqrt(alphabar_t) x + sqrt(1 - alphabar_t) eps (method section 6).
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dreamcraft3d.functional.cameras import FOVY, Cameras

Content = Literal["rgba", "normal"]
Wording = Literal["view", "personal", "plain"]
"""How a text prior names the object: with the direction it is seen from ("..., back view"), with the rare word that a
personalised prior learns and the direction, or by the user's words alone. Priors without words do not care."""


@dataclass(frozen=True)
class ViewCondition:
    """Which view of which object is wanted.

    Attributes:
        reference: the reference picture, premultiplied RGBA.
        reference_elevation: elevation of the reference camera, radians.
        elevation, azimuth: of the wanted views, radians; azimuth is relative to the reference view.
        content: "rgba" for coloured renders, "normal" for world-space normal maps (DMTet stage).
        wording: how a text prior is told what it sees.
        reference_fovy, fovy: fields of view of the reference and of the wanted views, radians.
    """

    reference: Float[Tensor, "1 H W 4"]
    reference_elevation: float
    elevation: Float[Tensor, " B"]
    azimuth: Float[Tensor, " B"]
    content: Content = "rgba"
    wording: Wording = "view"
    reference_fovy: float = FOVY
    fovy: float = FOVY


class DiffusionPrior(Protocol):
    """A pretrained denoiser that score distillation can ask.

    Attributes:
        name: shown to the user and written into reports.
        image_size: side of the pictures that the network sees, pixels.
        alphas_cumprod: alphabar_t of its T training timesteps.
        evaluations: images sent through the network so far (a guidance pair counts two, a batch of six counts six).
        contents: what kinds of pictures it knows.
    """

    name: str
    image_size: int
    contents: frozenset[Content]
    alphas_cumprod: Float[Tensor, " T"]
    evaluations: int

    def encode(self, rgba: Float[Tensor, "B H W 4"]) -> Float[Tensor, "B C h w"]:
        """Renders (premultiplied RGBA in [0,1], any size) to x; differentiable."""
        ...

    def decode(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B h w 4"]:
        """x to premultiplied RGBA in [0,1]: for previews and pixel targets."""
        ...

    def predict_noise(
        self, x_t: Float[Tensor, "B C h w"], t: Int[Tensor, " B"], condition: ViewCondition, *, cfg_scale: float
    ) -> Float[Tensor, "B C h w"]:
        """eps_hat = eps_uncond + cfg_scale (eps_cond - eps_uncond), without gradient."""
        ...


@runtime_checkable
class Personalisable(DiffusionPrior, Protocol):
    """A prior whose U-Net can carry adapters (`priors.adapters`) and be taught pictures.

    Attributes:
        unet: diffusers' U-Net. adapted: names of the layers that adapters change.
    """

    @property
    def unet(self) -> Any: ...

    @property
    def adapted(self) -> tuple[str, ...]: ...

    def denoising_loss(
        self,
        x: Float[Tensor, "B C h w"],
        noise: Float[Tensor, "B C h w"],
        t: Int[Tensor, " B"],
        condition: ViewCondition,
        *,
        dropped: Bool[Tensor, " B"],
    ) -> Float[Tensor, ""]:
        """The loss that the network was trained with, on known pictures; its gradient reaches the adapters.

        Where `dropped`, the network is told nothing, as in the unconditional branch of guidance.
        """
        ...


@dataclass(frozen=True)
class Estimate:
    """Depth along the camera axis and unit view-space normals (x right, y up, z to the viewer) of pictures."""

    depth: Float[Tensor, "B 1 H W"]
    normal: Float[Tensor, "B 3 H W"]


@runtime_checkable
class SurfaceEstimator(Protocol):
    """What guesses the visible surface of a picture, for the depth and normal losses of the reference view."""

    def estimate(self, rgba: Float[Tensor, "1 H W 4"], elevation: float, fovy: float = FOVY) -> Estimate:
        """Depth and normals of a premultiplied picture whose camera is known (radians), at any resolution; without
        gradient, and without meaning where the picture is transparent."""
        ...


@runtime_checkable
class CameraEstimator(Protocol):
    """What guesses the camera that took a picture."""

    def guess_camera(self, rgba: Float[Tensor, "1 H W 4"], /) -> tuple[float, float]:
        """Elevation and field of view, radians, of a premultiplied picture whose object fills the square."""
        ...


class LiftedVolume(Protocol):
    """A soft 3D guess of the whole object, as a radiance field without view dependence, in the scene frame."""

    def density_and_colour(self, x: Float[Tensor, "N 3"]) -> tuple[Float[Tensor, " N"], Float[Tensor, "N 3"]]:
        """Return density per unit length (>= 0) and colour in [0,1] at world points; without gradient.

        An occupancy or a signed distance serves too, as a density that is large inside and zero outside.
        """
        ...


@runtime_checkable
class VolumePrior(Protocol):
    """A prior that makes a volume of the object in one forward pass: any feed-forward reconstruction network."""

    def lifted_volume(self, reference: Float[Tensor, "1 H W 4"], camera: Cameras) -> LiftedVolume:
        """Reconstruct the object that a picture shows.

        Args:
            reference: premultiplied RGBA in [0,1], at any resolution.
            camera: the one view it was taken from: pose, distance and field of view, in the scene frame.
        """
        ...


def resize_area(rgba: Float[Tensor, "B H W 4"], size: int) -> Float[Tensor, "B 4 h w"]:
    """Anti-aliased resize to `size` x `size`, channels first; exact box average when the ratio is whole (issue B21)."""
    image = rgba.permute(0, 3, 1, 2)
    height = image.shape[-1]
    if height == size:
        return image
    if height % size == 0:
        return torch.nn.functional.avg_pool2d(image, height // size)
    return torch.nn.functional.interpolate(image, (size, size), mode="bilinear", antialias=True, align_corners=False)
