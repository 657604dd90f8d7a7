"""What a stage is shown at each step: the reference picture in its own view, and the prior's opinion of novel views."""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dreamcraft3d.config import CoarseNerfConfig, GuidanceConfig, NeusConfig, ReferenceWeights
from dreamcraft3d.functional import losses
from dreamcraft3d.functional.cameras import Cameras, orbit
from dreamcraft3d.functional.schedules import (
    monotone_timesteps,
    piecewise_linear,
    progressive_spread,
    random_timesteps,
    random_views,
    stratified_views,
)
from dreamcraft3d.guidance import Distillation, distill
from dreamcraft3d.priors.base import Content, DiffusionPrior, ViewCondition, resize_area
from dreamcraft3d.rendering import Render
from dreamcraft3d.stages.reference import ReferenceView
from dreamcraft3d.stages.weak_views import WeakViews, draw_weak_views

VolumeConfig = CoarseNerfConfig | NeusConfig


@dataclass(frozen=True)
class ReferenceTargets:
    """The reference picture at one render size.

    Attributes:
        rgba: premultiplied. mask: opacity above one half. inside: mask without its rim, where depth and normals are
        trusted. depth: larger is farther, any unit. normal: unit, in the view's OpenGL axes. None where not given.
    """

    rgba: Float[Tensor, "1 S S 4"]
    mask: Bool[Tensor, "1 S S"]
    inside: Bool[Tensor, "1 S S"]
    depth: Float[Tensor, "1 S S"] | None
    normal: Float[Tensor, "1 S S 3"] | None


@dataclass(frozen=True)
class Supervision:
    """The reference view and the priors that judge all others.

    Attributes:
        view_prior: knows the object's view from a relative camera (the paper's 3D-aware prior).
        image_prior: knows pictures without a camera (the paper's 2D prior).
        weak: what the view prior drew of other sides; see `with_weak_views`.
    """

    reference: ReferenceView
    view_prior: DiffusionPrior | None
    image_prior: DiffusionPrior | None
    weak: WeakViews | None = None

    @property
    def camera(self) -> Cameras:
        """The reference camera: azimuth 0, on +x."""
        return self.reference.camera

    @property
    def device(self) -> torch.device:
        """Where the scene is: beside the reference picture."""
        return self.reference.rgba.device

    @cached_property
    def picture(self) -> Float[Tensor, "1 S S 4"]:
        """The reference picture as a condition; always the same tensor, so that a prior encodes it once."""
        return self.reference.rgba[None]

    def alternating_cameras(
        self, config: VolumeConfig, step: int, fraction: float, generator: torch.Generator
    ) -> Cameras:
        """The reference camera in even steps, novel views in odd ones (method section 2.2), some of these weak."""
        if step % 2 == 0:
            return self.camera
        shown = self._weakly_shown(config, step // 2, fraction)
        return self.novel_views(config.guidance, step // 2, fraction, generator) if shown is None else shown.cameras

    def alternating_loss(
        self,
        render: Render,
        cameras: Cameras,
        config: VolumeConfig,
        step: int,
        fraction: float,
        generator: torch.Generator,
    ) -> Float[Tensor, ""]:
        """What the picture says of the reference view in even steps, and the priors of novel views in odd ones (drawn
        before in the case of weak views)."""
        if step % 2 == 0:
            return self.reference_loss(render, self.targets(render.opacity.shape[-1]), config.reference, generator)
        shown = self._weakly_shown(config, step // 2, fraction)
        if shown is not None:
            share = piecewise_linear(fraction, config.weak_views.weight)
            return share * self._weak_loss(render, shown, config.reference, generator)
        return self.guidance_loss(render.rgba, cameras, config.guidance, fraction, generator)[0]

    def with_weak_views(self, config: VolumeConfig, generator: torch.Generator) -> "Supervision":
        """The same with the weak views that a stage asks for, drawn now; without a 3D-aware prior there are none."""
        wanted, prior = config.weak_views, self.view_prior
        if wanted.count == 0 or prior is None or config.guidance.view_weight <= 0.0 or "rgba" not in prior.contents:
            return self
        scale = config.guidance.view_cfg
        drawn = draw_weak_views(prior, self.picture, self.camera, wanted, cfg_scale=scale, generator=generator)
        return replace(self, weak=drawn)

    def _weakly_shown(self, config: VolumeConfig, look: int, fraction: float) -> WeakViews | None:
        """The weak views of this look at novel views, if it is their turn."""
        wanted = config.weak_views
        if self.weak is None or look % wanted.every or piecewise_linear(fraction, wanted.weight) <= 0.0:
            return None
        chosen = self.weak.turn(look // wanted.every, config.guidance.batch).to(self.device)
        return WeakViews(self.weak.rgba[chosen], self.weak.cameras[chosen])

    def _weak_loss(
        self, render: Render, shown: WeakViews, weights: ReferenceWeights, generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """Colour and opacity, as of the reference view."""
        grey, size = float(torch.rand((), generator=generator)), render.opacity.shape[-1]
        rgba = resize_area(shown.rgba, size).permute(0, 2, 3, 1)
        loss = weights.rgb * losses.rgb_loss(render.over(grey), rgba[..., :3] + grey * (1.0 - rgba[..., 3:]))
        return loss + weights.mask * losses.mask_loss(render.opacity, rgba[..., 3])

    @cached_property
    def _targets(self) -> dict[int, ReferenceTargets]:
        return {}

    def targets(self, size: int) -> ReferenceTargets:
        """The reference picture and its maps, area-averaged to `size`."""
        if size not in self._targets:
            self._targets[size] = self._resized(size)
        return self._targets[size]

    def _resized(self, size: int) -> ReferenceTargets:
        view = self.reference
        rgba = resize_area(view.rgba[None], size).permute(0, 2, 3, 1)
        mask = rgba[..., 3] > 0.5
        return ReferenceTargets(
            rgba, mask, losses.erode(mask, 3), _resize_masked(view.depth, view.mask, size), self._normals(size)
        )

    def reference_loss(
        self, render: Render, targets: ReferenceTargets, weights: ReferenceWeights, generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """Weighted rgb, mask, depth and normal losses of the reference view (method section 7).

        Colours are compared over a random grey: over white, a light object may hide in the background (issue B14).
        """
        grey = float(torch.rand((), generator=generator))
        target = targets.rgba[..., :3] + grey * (1.0 - targets.rgba[..., 3:])
        loss = weights.rgb * losses.rgb_loss(render.over(grey), target)
        if weights.mask > 0.0:
            loss = loss + weights.mask * losses.mask_loss(render.opacity, targets.rgba[..., 3])
        if weights.depth > 0.0 and targets.depth is not None:
            # Of the surface, not of the ray: undivided, the nearest parts would look nearer by fading away.
            depth = render.depth / render.opacity.clamp_min(0.1)
            loss = loss + weights.depth * losses.depth_correlation_loss(depth, targets.depth, targets.inside)
        if weights.normal > 0.0 and targets.normal is not None:
            normal = render.normal @ self.camera.c2w[0, :3, :3]
            loss = loss + weights.normal * losses.normal_loss(normal, targets.normal, targets.inside)
        return loss

    def novel_views(self, config: GuidanceConfig, step: int, fraction: float, generator: torch.Generator) -> Cameras:
        """The cameras of one guidance step: paired and stratified, or the paper's independent ones.

        They are progressive early on.
        """
        elevation = (math.radians(config.elevation[0]), math.radians(config.elevation[1]))
        spread = progressive_spread(fraction, config.progressive_until)
        reference = self.reference.elevation
        if config.views == "stratified":
            angles = stratified_views(
                config.batch,
                step,
                elevation=elevation,
                spread=spread,
                reference_elevation=reference,
                generator=generator,
            )
        else:
            angles = random_views(
                config.batch, elevation=elevation, spread=spread, reference_elevation=reference, generator=generator
            )
        return orbit(*angles).to(self.device)

    def condition(self, cameras: Cameras, content: Content = "rgba") -> ViewCondition:
        """What the priors are told about novel views."""
        view = self.reference
        angles = cameras.elevation, cameras.azimuth
        return ViewCondition(self.picture, view.elevation, *angles, content, reference_fovy=view.fovy)

    def guidance_loss(
        self,
        rgba: Float[Tensor, "B H W 4"],
        cameras: Cameras,
        config: GuidanceConfig,
        fraction: float,
        generator: torch.Generator,
        *,
        content: Content = "rgba",
    ) -> tuple[Float[Tensor, ""], Distillation | None]:
        """lambda_3d L_3d + lambda_2d L_2d on rendered novel views; also the last opinion, for previews."""
        condition = self.condition(cameras, content)
        loss, opinion = rgba.sum() * 0.0, None
        for prior, weight, cfg_scale in (
            (self.image_prior, config.image_weight, config.image_cfg),
            (self.view_prior, config.view_weight, config.view_cfg),
        ):
            if prior is None or weight <= 0.0 or content not in prior.contents:
                continue
            t = timesteps(config, prior, len(rgba), fraction, generator)
            opinion = distill(prior, rgba, condition, t, cfg_scale=cfg_scale, form=config.form, generator=generator)
            loss = loss + weight * opinion.loss
        return loss, opinion

    def _normals(self, size: int) -> Float[Tensor, "1 S S 3"] | None:
        normal = _resize_masked(self.reference.normal, self.reference.mask, size)
        return None if normal is None else torch.nn.functional.normalize(normal, dim=-1, eps=1e-6)


def timesteps(
    config: GuidanceConfig, prior: DiffusionPrior, count: int, fraction: float, generator: torch.Generator
) -> Int[Tensor, " B"]:
    """Noise levels of one step: only falling, or random in the annealed range of the paper."""
    total = len(prior.alphas_cumprod)
    low, high = piecewise_linear(fraction, config.t_low), piecewise_linear(fraction, config.t_high)
    if config.timesteps == "monotone":
        return monotone_timesteps(count, fraction, low=low, high=high, total=total, generator=generator)
    return random_timesteps(count, low, high, total=total, generator=generator)


def _resize_masked(
    image: Float[Tensor, "H W"] | Float[Tensor, "H W C"] | None, mask: Bool[Tensor, "H W"], size: int
) -> Tensor | None:
    """Area average over the pixels inside the mask only, so that the background does not bleed into the rim."""
    if image is None:
        return None
    plane = image if image.ndim == 3 else image[..., None]
    weight = mask[..., None].to(plane)
    stacked = resize_area(torch.cat([plane * weight, weight], dim=-1)[None], size)
    mean = stacked[:, :-1] / stacked[:, -1:].clamp_min(1e-6)
    mean = mean.permute(0, 2, 3, 1)
    return mean if image.ndim == 3 else mean[..., 0]
