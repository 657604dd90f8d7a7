"""The prior that ships with the package: a small view-conditioned denoiser of 64 x 64 RGBA pictures of objects.

It is trained by `dreamcraft3d.training` on real and procedural objects (model card: docs/bundled-prior.md; network:
`priors.network`). The network predicts the clean picture x0; noise predictions follow from it. The reference is encoded
once and rendered from every wanted camera; the reference of the unconditional branch is the empty
picture. The U-Net is diffusers' own class, so that PEFT adapters attach to `network.unet`.

Letters: x = 2 rgba - 1 (premultiplied, B 4 64 64), x_t the noisy view, t timestep.
"""

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dreamcraft3d.errors import DreamCraftError
from dreamcraft3d.functional.cameras import FOVY, Cameras, framing_cameras
from dreamcraft3d.functional.diffusion import add_noise, classifier_free_guidance, x0_to_noise
from dreamcraft3d.priors.base import Content, Estimate, ViewCondition, resize_area
from dreamcraft3d.priors.frustum_volume import FrustumVolume
from dreamcraft3d.priors.lifting import CAMERA_SIZE, REACH, Look, Picture, ReferenceCode
from dreamcraft3d.priors.network import SIZE, BundledNetwork, channels_last, network_of, pose_vector

WEIGHTS = "bundled.safetensors"
IMAGES_PER_STEP = 24  # of the runs that did not count images yet


class Trained(NamedTuple):
    """How long weights were trained for: steps, seconds of work, and images (wanted views) in all."""

    step: int = 0
    seconds: float = 0.0
    images: int = 0

    @classmethod
    def of(cls, record: dict[str, Any]) -> "Trained":
        """From the metadata of a weights file, or from a checkpoint."""
        step = record.get("step", 0)
        return cls(step, record.get("seconds", 0.0), record.get("images", IMAGES_PER_STEP * step))


@dataclass(frozen=True)
class _Views:
    """The wanted views (after their unconditional copies, where guidance needs them) as the network takes them."""

    look: Look
    tokens: Float[Tensor, "N L E"]
    pose: Float[Tensor, "N P"]

    def chosen(self, conditional: Bool[Tensor, " B"]) -> "_Views":
        """One of each pair: the conditional one where it is wanted."""
        rows = torch.arange(len(conditional), device=self.pose.device)
        rows = rows + len(conditional) * conditional.to(rows)
        return _Views(self.look[rows], self.tokens[rows], self.pose[rows])


class BundledPrior:
    """The bundled network as a `DiffusionPrior`.

    `trained`: how long, where its file knows.
    """

    trained = Trained()
    name = "bundled"
    image_size = SIZE
    contents = frozenset[Content]({"rgba"})

    def __init__(self, network: BundledNetwork) -> None:
        self.network = channels_last(network.eval().requires_grad_(False))
        self.alphas_cumprod = network.alphas_cumprod
        self.evaluations = 0
        self._remembered: tuple[Tensor, float, float, ReferenceCode] | None = None

    @classmethod
    def load(cls, path: Path | None = None, *, device: torch.device | str = "cpu") -> "BundledPrior":
        """The prior with the package's weights, or with those of `path` (see `training.train.write_weights`).

        Raises:
            DreamCraftError: the weights are missing, or not those of this network.
        """
        from safetensors import SafetensorError, safe_open

        file = path or Path(str(resources.files("dreamcraft3d.priors") / "weights" / WEIGHTS))
        if not file.is_file():
            raise DreamCraftError(
                f"the weights of the bundled prior are missing: {file.name}",
                remedy="reinstall the package, or train them with `dreamcraft3d train-prior`",
            )
        try:
            with safe_open(str(file), framework="pt") as archive:
                record = json.loads(archive.metadata()["network"])
                trained = record.pop("trained", {})
                network = network_of(record)
                names = archive.keys()
                network.load_state_dict({name: archive.get_tensor(name).float() for name in names})
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise DreamCraftError(
                f"these are not weights of the bundled prior: {file.name}",
                remedy="use a file written by this version's `dreamcraft3d train-prior`, or reinstall the package",
            ) from error
        prior = cls(network).to(device)
        prior.trained = Trained.of(trained)
        return prior

    def to(self, device: torch.device | str) -> "BundledPrior":
        """Moves the network; returns itself."""
        self.network.to(device)
        self.alphas_cumprod = self.network.alphas_cumprod
        self._remembered = None
        return self

    def encode(self, rgba: Float[Tensor, "B H W 4"]) -> Picture:
        """x = 2 rgba - 1 at 64 x 64; differentiable."""
        return 2.0 * resize_area(rgba, self.image_size) - 1.0

    def decode(self, x: Picture) -> Float[Tensor, "B h w 4"]:
        """The picture of x."""
        return (0.5 * (x.permute(0, 2, 3, 1) + 1.0)).clamp(0.0, 1.0)

    def predict_noise(
        self, x_t: Picture, t: Int[Tensor, " B"], condition: ViewCondition, *, cfg_scale: float
    ) -> Picture:
        """eps_uncond + s (eps_cond - eps_uncond) in one forward of 2B pictures (of B at s = 1)."""
        return x0_to_noise(x_t, self.predict_x0(x_t, t, condition, cfg_scale=cfg_scale), self.alphas_cumprod, t)

    @torch.no_grad()
    def predict_x0(self, x_t: Picture, t: Int[Tensor, " B"], condition: ViewCondition, *, cfg_scale: float) -> Picture:
        """The guided clean picture; guidance commutes with the affine map between x0 and noise."""
        views = self._views(condition, guided=cfg_scale != 1.0)
        batch, count = len(x_t), len(views.pose)
        self.evaluations += count
        repeats = count // batch
        x0: Tensor = self.network(x_t.repeat(repeats, 1, 1, 1), t.repeat(repeats), views.look, views.tokens, views.pose)
        return x0 if repeats == 1 else classifier_free_guidance(x0[:batch], x0[batch:], cfg_scale)

    @property
    def unet(self) -> Any:
        """What adapters attach to."""
        return self.network.unet

    @property
    def adapted(self) -> tuple[str, ...]:
        """So small a network has little attention: its convolutions adapt too."""
        return ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "conv1", "conv2", "conv_out")

    def denoising_loss(
        self, x: Picture, noise: Picture, t: Int[Tensor, " B"], condition: ViewCondition, *, dropped: Bool[Tensor, " B"]
    ) -> Float[Tensor, ""]:
        """|x0_hat - x|^2 min(1 / sigma_t^2, 5), as in `training.train`."""
        with torch.no_grad():
            views = self._views(condition, guided=True).chosen(~dropped)
            x_t = add_noise(x, noise, self.alphas_cumprod, t)
        self.evaluations += len(x)
        x0: Tensor = self.network(x_t, t, views.look, views.tokens, views.pose)
        weight = (1.0 / (1.0 - self.alphas_cumprod[t])).clamp(max=5.0)
        return ((x0 - x).square().mean(dim=(1, 2, 3)) * weight).mean()

    @torch.no_grad()
    def lifted(self, condition: ViewCondition) -> Float[Tensor, "B h w 4"]:
        """Render the lifted reference from the wanted cameras, without any denoising: the network's first guess."""
        return self._views(condition, guided=False).look.rgba.permute(0, 2, 3, 1)

    @torch.no_grad()
    def lifted_volume(self, reference: Float[Tensor, "1 H W 4"], camera: Cameras) -> FrustumVolume:
        """Encode the reference; its cells' occupancy and colours as a field (see `priors.base.VolumePrior`)."""
        camera = camera.to(self.alphas_cumprod.device)
        code, _ = self.network.encode(self._reference(reference), camera.elevation, camera.fovy)
        logits = torch.cat([code.occupancy[..., None], code.volume[..., 1:4]], dim=-1)[0].permute(3, 2, 0, 1)
        distance = float(camera.distance[0])
        return FrustumVolume(logits.contiguous(), camera, distance - REACH, distance + REACH)

    @torch.no_grad()
    def estimate(self, rgba: Float[Tensor, "1 H W 4"], elevation: float, fovy: float = FOVY) -> Estimate:
        """Guess depth and normals of the surface that a reference picture shows, 64 x 64 (see `Estimate`)."""
        return self._encoded(self._reference(rgba), elevation, fovy)[1]

    @torch.no_grad()
    def guess_camera(self, rgba: Float[Tensor, "1 H W 4"]) -> tuple[float, float]:
        """Guess elevation and field of view (radians) that a reference picture was taken with."""
        elevation, fovy = self.network.camera(self._reference(rgba, CAMERA_SIZE))
        return float(elevation), float(fovy)

    def _reference(self, rgba: Float[Tensor, "1 H W 4"], size: int | None = None) -> Picture:
        return 2.0 * resize_area(rgba.to(self.alphas_cumprod.device), size or self.network.reference_size) - 1.0

    def _encoded(self, reference: Picture, elevation: float, fovy: float) -> tuple[ReferenceCode, Estimate]:
        angles = (torch.full((len(reference),), angle, device=reference.device) for angle in (elevation, fovy))
        return self.network.encode(reference, *angles)

    def _views(self, condition: ViewCondition, *, guided: bool) -> _Views:
        both = self._code(condition)
        code = both if guided else both[1:]
        device, repeats = code.elevation.device, len(code.elevation)
        elevation, azimuth = condition.elevation.to(device), condition.azimuth.to(device)
        fovy = torch.full_like(elevation, condition.fovy)
        wanted = framing_cameras(*(angle.repeat(repeats) for angle in (elevation, azimuth, fovy)))
        rows = torch.arange(repeats, device=device).repeat_interleave(len(elevation))
        pose = pose_vector(wanted, code.cameras[rows])
        return _Views(self.network.look(code, wanted), code.tokens[rows], pose)

    def _code(self, condition: ViewCondition) -> ReferenceCode:
        """Codes of (the empty picture, the reference), kept while the reference stays the same tensor."""
        known, tilt, lens = self._remembered, condition.reference_elevation, condition.reference_fovy
        if known is None or known[0] is not condition.reference or known[1:3] != (tilt, lens):
            reference = self._reference(condition.reference)
            pair = torch.cat([-torch.ones_like(reference), reference])
            self._remembered = known = (condition.reference, tilt, lens, self._encoded(pair, tilt, lens)[0])
        return known[3]
