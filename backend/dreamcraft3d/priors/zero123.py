"""Zero123, Zero123-XL and Stable-Zero123: the 3D-aware prior, told the reference picture and a relative camera.

Conditioning as the networks were trained (method section 6.4): one token for cross-attention, made of the picture's
CLIP embedding and the pose, and the picture's latent beside the noisy one, *without* the autoencoder's scale. Told
nothing, both are zero. The two families differ in the last number of the pose.
"""

import math
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from dreamcraft3d.errors import DreamCraftError, MissingDependencyError
from dreamcraft3d.priors.base import Content, ViewCondition, resize_area
from dreamcraft3d.priors.components import NoiseSchedule, load_network, precision, read_json, read_schedule
from dreamcraft3d.priors.models import Pose
from dreamcraft3d.priors.unet_prior import Branch, LatentPrior, over_white

__all__ = ["Zero123Prior", "pose_vector"]

PROJECTIONS = ("clip_camera_projection", "cc_projection")
"""Names under which public copies keep the projection of embedding and pose."""
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""CLIP's, for copies without feature_extractor."""


def pose_vector(condition: ViewCondition, pose: Pose) -> Float[Tensor, "B 4"]:
    """[e_ref - e, sin a, cos a, tau]: change of the polar angle, of the azimuth, and what the family asks for.

    tau: change of the distance, which is none here ("zero123"), or the reference camera's polar angle
    ("stable-zero123"). The reference view itself is [0, 0, 1, tau].
    """
    polar = condition.reference_elevation - condition.elevation
    tau = 0.0 if pose == "zero123" else 0.5 * math.pi - condition.reference_elevation
    return torch.stack([polar, condition.azimuth.sin(), condition.azimuth.cos(), torch.full_like(polar, tau)], dim=-1)


class Zero123Prior(LatentPrior):
    """A denoiser of latents of 256 x 256 pictures over white."""

    contents = frozenset[Content]({"rgba"})

    def __init__(
        self,
        name: str,
        unet: Any,
        vae: Any,
        image_encoder: Any,
        projection: nn.Linear,
        schedule: NoiseSchedule,
        *,
        pose: Pose,
        normalisation: tuple[tuple[float, ...], tuple[float, ...]] = (MEAN, STD),
        dtype: torch.dtype,
    ) -> None:
        super().__init__(name, unet, vae, schedule, dtype=dtype)
        self.image_encoder, self.projection, self.pose = image_encoder, projection, pose
        self._normalisation = normalisation
        self._remembered: tuple[Tensor, Tensor, Tensor] | None = None

    @classmethod
    def load(cls, folder: Path, *, pose: Pose, name: str = "") -> "Zero123Prior":
        """From a folder in diffusers layout, in main memory; no code of the repository is run.

        Raises:
            DreamCraftError: a part is missing or damaged. MissingDependencyError: transformers is not installed.
        """
        from diffusers import AutoencoderKL, UNet2DConditionModel

        try:
            from transformers import CLIPVisionModelWithProjection
        except ImportError as error:
            raise MissingDependencyError(
                "Zero123 needs the package transformers.", "Install it: `pip install 'dreamcraft3d[models]'`."
            ) from error
        dtype = precision()
        unet = load_network(UNet2DConditionModel, folder, "unet", dtype=dtype)
        vae = load_network(AutoencoderKL, folder, "vae", dtype=dtype)
        encoder = load_network(CLIPVisionModelWithProjection, folder, "image_encoder", dtype=dtype)
        return cls(
            name or folder.name,
            unet,
            vae,
            encoder,
            _load_projection(folder).to(dtype),
            read_schedule(folder),
            pose=pose,
            normalisation=_normalisation(folder),
            dtype=dtype,
        )

    def to(self, device: torch.device | str) -> "Zero123Prior":
        super().to(device)
        self._remembered = None
        return self

    def _networks(self) -> list[Any]:
        return [self.unet, self.vae, self.image_encoder, self.projection]

    def _unconditional(self, condition: ViewCondition) -> Branch:
        told = self._conditional(condition)
        assert told.beside is not None
        return Branch(torch.zeros_like(told.tokens), torch.zeros_like(told.beside))

    @torch.no_grad()
    def _conditional(self, condition: ViewCondition) -> Branch:
        embedding, latent = self._reference(condition.reference)
        pose = pose_vector(condition, self.pose).to(embedding)
        self._bring(self.projection)
        token = self.projection(torch.cat([embedding.expand(len(pose), -1), pose], dim=-1).to(self.dtype))
        return Branch(token[:, None], latent.expand(len(pose), -1, -1, -1))

    def _reference(self, picture: Float[Tensor, "1 H W 4"]) -> tuple[Float[Tensor, "1 E"], Float[Tensor, "1 C h w"]]:
        """(CLIP embedding, latent without scale) of the reference, kept while it stays the same tensor."""
        known = self._remembered
        if known is None or known[0] is not picture:
            rgba = picture.to(self.device)
            self._bring(self.image_encoder)
            embedding: Tensor = self.image_encoder(self._clip_pixels(rgba).to(self.dtype)).image_embeds.float()
            latent = self.encode(rgba) / float(self.vae.config.scaling_factor)
            self._remembered = known = (picture, embedding, latent)
        return known[1], known[2]

    def _clip_pixels(self, rgba: Float[Tensor, "1 H W 4"]) -> Float[Tensor, "1 3 S S"]:
        """The picture over white as CLIP takes it."""
        size = int(self.image_encoder.config.image_size)
        white = over_white(resize_area(rgba, self.image_size))
        picture = F.interpolate(white, (size, size), mode="bicubic", antialias=True, align_corners=False).clamp(
            0.0, 1.0
        )
        mean, std = (torch.tensor(values, device=rgba.device).reshape(1, 3, 1, 1) for values in self._normalisation)
        return (picture - mean) / std


def _load_projection(folder: Path) -> nn.Linear:
    """The linear layer from (CLIP embedding, pose) to the token: keys `proj.weight` and `proj.bias`."""
    for part in PROJECTIONS:
        for path in sorted((folder / part).glob("*.safetensors")):
            try:
                state = {key.removeprefix("proj."): tensor for key, tensor in load_file(path).items()}
                rows, columns = state["weight"].shape
                layer = nn.Linear(columns, rows)
                layer.load_state_dict(state)
            except (SafetensorError, KeyError, RuntimeError, ValueError) as error:
                raise DreamCraftError(
                    f"The camera projection in {path} cannot be used ({str(error).partition(chr(10))[0]}).",
                    "It must hold proj.weight and proj.bias; import or download the model again.",
                ) from error
            return layer.eval().requires_grad_(False)
    raise DreamCraftError(
        f"The model in {folder} has no camera projection ({' or '.join(PROJECTIONS)}) as safetensors.",
        "Choose a copy of Zero123 in diffusers layout; `dreamcraft3d models list` names some.",
    )


def _normalisation(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation from feature_extractor/preprocessor_config.json, or CLIP's."""
    path = folder / "feature_extractor" / "preprocessor_config.json"
    if not path.is_file():
        return MEAN, STD
    config = read_json(path)
    return tuple(config.get("image_mean", MEAN)), tuple(config.get("image_std", STD))
