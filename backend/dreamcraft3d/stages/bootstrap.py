"""The prior learns the object while the texture learns from the prior (bootstrapped score distillation).

A round begins with the texture as it is: renders are noised and denoised by the prior, which improves them, and the
personal adapter learns these pictures, each with its own camera, and the reference picture. Then the texture is painted
on, guided by that adapter against the variational one, which learns the renders after every step. The next round starts
from a better texture and adds less noise (method sections 6.6 and 6.7).

Everything that learns is part of the stage's checkpoint. The adapters are taken off the prior in the end.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreamcraft3d.config import GuidanceConfig, TextureConfig
from dreamcraft3d.errors import ConfigError
from dreamcraft3d.functional.cameras import Cameras, orbit
from dreamcraft3d.functional.diffusion import add_noise
from dreamcraft3d.functional.schedules import piecewise_linear
from dreamcraft3d.guidance import Distillation, distill_variationally, learn
from dreamcraft3d.priors.adapters import Adapter, AdapterName, Adapters, attached, camera_vector
from dreamcraft3d.priors.base import Personalisable
from dreamcraft3d.priors.sampling import denoise
from dreamcraft3d.stages.run import Stateful
from dreamcraft3d.stages.supervision import Supervision, timesteps

__all__ = ["Bootstrap", "Moment", "bootstrapping", "moments", "stage_steps"]

RenderViews = Callable[[Cameras], Float[Tensor, "B H W 4"]]


@dataclass(frozen=True)
class Moment:
    """What a step of the stage is for.

    Attributes:
        painted: painting steps done before. round: index. learning: step within the round's learning, None to paint.
    """

    painted: int
    round: int
    learning: int | None


def stage_steps(config: TextureConfig) -> int:
    """Painting steps, and before each round's share of them its learning steps."""
    settings = config.bootstrap
    return config.steps + (settings.rounds * settings.round_steps if settings.form == "bsd" else 0)


def moments(config: TextureConfig, step: int) -> Moment:
    """What step `step` of `stage_steps` is for: learn, paint, learn, paint, ...

    >>> config = TextureConfig(steps=4, bootstrap=BootstrapConfig(form="bsd", rounds=2, round_steps=3))
    >>> [moments(config, step).learning for step in range(stage_steps(config))]
    [0, 1, 2, None, None, 0, 1, 2, None, None]
    """
    settings = config.bootstrap
    if settings.form != "bsd":
        return Moment(step, 0, None)
    for index in range(settings.rounds):
        begin, end = (config.steps * k // settings.rounds for k in (index, index + 1))
        length = settings.round_steps + end - begin
        if step < length:
            learning = step if step < settings.round_steps else None
            return Moment(begin + max(step - settings.round_steps, 0), index, learning)
        step -= length
    return Moment(config.steps, settings.rounds - 1, None)


class Bootstrap:
    """The adapters of the prior, their optimisers, and the pictures that the personal adapter learns.

    Attributes:
        weight: of this prior's opinion. others: the supervision without this prior.
    """

    def __init__(
        self, supervision: Supervision, prior: Personalisable, adapters: Adapters, config: TextureConfig
    ) -> None:
        self._supervision, self._prior, self._adapters = supervision, prior, adapters
        self._settings, self._guidance = config.bootstrap, config.guidance
        two_d = prior is supervision.image_prior
        self._cfg = config.guidance.image_cfg if two_d else config.guidance.view_cfg
        self.weight = config.guidance.image_weight if two_d else config.guidance.view_weight
        self.others = replace(supervision, image_prior=None) if two_d else replace(supervision, view_prior=None)
        rates = {"personal": self._settings.lr_personal, "variational": self._settings.lr_variational}
        self._optimisers = {name: _adam(adapter, rates[name]) for name, adapter in adapters.by_name.items()}
        self._album = Album(prior.encode(supervision.picture), self._settings.round_views)

    @property
    def parts(self) -> dict[str, Stateful]:
        """Everything that a checkpoint must hold; the reference picture heads the album and is saved with it."""
        adapters = {f"{name}_adapter": adapter for name, adapter in self._adapters.by_name.items()}
        optimisers = {f"{name}_optimiser": optimiser for name, optimiser in self._optimisers.items()}
        return {**adapters, **optimisers, **({"album": self._album} if "personal" in self._adapters.by_name else {})}

    def study(self, moment: Moment, render: RenderViews, generator: torch.Generator) -> float:
        """One learning step of the personal adapter; now and then, one of the round's pictures is made first."""
        assert moment.learning is not None
        settings = self._settings
        due = moment.learning * settings.round_views // settings.round_steps
        made = (moment.learning - 1) * settings.round_views // settings.round_steps if moment.learning else -1
        for slot in range(made + 1, due + 1):
            self._improve(slot, moment.round, render, generator)
        chosen = torch.randint(0, self._album.count, (settings.batch,), generator=generator)
        x, cameras = self._album.pages(chosen, self._supervision.camera)
        return self._learn("personal", x, cameras, generator)

    def opinion(
        self, rgba: Float[Tensor, "B H W 4"], cameras: Cameras, fraction: float, generator: torch.Generator
    ) -> Distillation:
        """The prior's opinion of renders, against their own score; to be weighted."""
        t = timesteps(self._guidance, self._prior, len(rgba), fraction, generator)
        condition, personal = self._supervision.condition(cameras), "personal" in self._adapters.by_name
        return distill_variationally(
            self._prior, self._adapters, rgba, condition, t, cfg_scale=self._cfg, personal=personal, generator=generator
        )

    def follow(self, opinion: Distillation, cameras: Cameras, generator: torch.Generator) -> float:
        """One learning step of the variational adapter, on the renders that were just judged."""
        return self._learn("variational", opinion.x, cameras, generator)

    @torch.no_grad()
    def _improve(self, slot: int, round_index: int, render: RenderViews, generator: torch.Generator) -> None:
        """A render of an evenly spread view, noised to the round's level and denoised, goes into the album."""
        settings, prior = self._settings, self._prior
        cameras = _spread_view(slot, settings.round_views, self._guidance, generator).to(self._supervision.device)
        strength = piecewise_linear(round_index / max(settings.rounds - 1, 1), settings.strength)
        total = len(prior.alphas_cumprod)
        start = min(max(int(strength * total), 1), total - 1)
        x = prior.encode(render(cameras))
        noise = torch.randn(x.shape, generator=generator).to(x)
        x_t = add_noise(x, noise, prior.alphas_cumprod, torch.tensor([start], device=x.device))
        condition = self._supervision.condition(cameras)
        adapter: AdapterName | None = "personal" if settings.sampler == "personal" and round_index else None
        steps = max(int(settings.sampling_steps * strength), 1)
        with self._adapters.using(adapter, camera_vector(condition)):
            better = denoise(prior, x_t, condition, start=start, steps=steps, cfg_scale=settings.sampling_cfg)
        self._album.put(slot + 1, torch.where(torch.isfinite(better), better, x), cameras)

    def _learn(self, adapter: AdapterName, x: Tensor, cameras: Cameras, generator: torch.Generator) -> float:
        """A clipped step of AdamW; a loss that is not finite teaches nothing. Returns the loss."""
        optimiser, parameters = self._optimisers[adapter], self._adapters.by_name[adapter].parameters()
        optimiser.zero_grad(set_to_none=True)
        loss = learn(
            self._prior,
            self._adapters,
            adapter,
            x,
            self._supervision.condition(cameras),
            dropout=self._settings.dropout,
            generator=generator,
        )
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        if bool(torch.isfinite(loss)) and bool(torch.isfinite(norm)):
            optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return float(loss)


class Album:
    """The reference picture, and improved renders with their cameras, as the prior takes them."""

    def __init__(self, reference: Float[Tensor, "1 C h w"], views: int) -> None:
        self._x = reference.detach().repeat(views + 1, 1, 1, 1)
        self._angles = torch.zeros(views + 1, 2)
        self._count = torch.ones((), dtype=torch.int64)

    @property
    def count(self) -> int:
        """Pages that are filled."""
        return int(self._count)

    def put(self, page: int, x: Float[Tensor, "1 C h w"], cameras: Cameras) -> None:
        """Fills a page, or replaces what an earlier round left there."""
        self._x[page] = x[0].to(self._x)
        self._angles[page] = torch.stack([cameras.elevation[0], cameras.azimuth[0]]).to(self._angles)
        self._count.clamp_(min=page + 1)

    def pages(self, chosen: Int[Tensor, " B"], reference: Cameras) -> tuple[Float[Tensor, "B C h w"], Cameras]:
        """Pictures and their cameras; page 0 is the reference picture."""
        first = torch.stack([reference.elevation[0], reference.azimuth[0]]).to(self._angles)
        angles = torch.where((chosen == 0)[:, None], first, self._angles[chosen])
        cameras = orbit(angles[:, 0], angles[:, 1]).to(reference.c2w.device)
        return self._x[chosen.to(self._x.device)], cameras

    def state_dict(self) -> dict[str, Any]:
        return {"x": self._x, "angles": self._angles, "count": self._count}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._x.copy_(state["x"])
        self._angles.copy_(state["angles"])
        self._count.copy_(state["count"])


@contextmanager
def bootstrapping(
    supervision: Supervision, config: TextureConfig, generator: torch.Generator
) -> Iterator[Bootstrap | None]:
    """The adapters of the stage's prior for the time of a block; None where the stage has none.

    Raises:
        ConfigError: the prior cannot learn. MissingDependencyError: peft is not installed.
    """
    settings, guidance = config.bootstrap, config.guidance
    two_d = supervision.image_prior is not None and guidance.image_weight > 0.0
    prior: object = supervision.image_prior if two_d else supervision.view_prior
    weight = guidance.image_weight if two_d else guidance.view_weight
    if settings.form == "none" or prior is None or weight <= 0.0:
        yield None
        return
    if not isinstance(prior, Personalisable):
        raise ConfigError(
            f"The prior {getattr(prior, 'name', prior)} cannot learn an object.",
            "Set texture.bootstrap.form to none, or choose another prior for the texture.",
        )
    ranks: dict[AdapterName, int] = {"variational": settings.variational_rank}
    if settings.form == "bsd":
        ranks = {"personal": settings.personal_rank, **ranks}
    with attached(prior, ranks, generator) as adapters:
        yield Bootstrap(supervision, prior, adapters, config)


def _spread_view(slot: int, views: int, guidance: GuidanceConfig, generator: torch.Generator) -> Cameras:
    """One of `views` azimuths around the circle, turned a little; any elevation of the stage."""
    turn = (slot + float(torch.rand((), generator=generator)) - 0.5) / views
    low, high = guidance.elevation
    tilt = low + (high - low) * float(torch.rand((), generator=generator))
    azimuth = torch.remainder(torch.tensor(turn + 0.5), 1.0) - 0.5
    return orbit(torch.deg2rad(torch.tensor(tilt)), 2.0 * torch.pi * azimuth)


def _adam(adapter: Adapter, lr: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(adapter.parameters(), lr=lr, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.01)
