"""What a run will need before it starts: memory of the card per stage, evaluations of the priors, downloads.

Weights are counted in the real configurations of the networks, activations in runs of these networks without data
(`priors.footprint`) and of the scene at small sizes (`evaluation.scene_footprint`). Not measured are what the card's
libraries take and what the allocator wastes; `CONTEXT` and `WASTE` stand for them.
"""

from dataclasses import dataclass, field
from functools import cache

import torch

from dreamcraft3d.config import GenerateConfig, WeakViewsConfig
from dreamcraft3d.evaluation.scene_footprint import SceneBytes, scene_bytes
from dreamcraft3d.functional.schedules import piecewise_linear
from dreamcraft3d.priors import footprint
from dreamcraft3d.priors.base import ViewCondition
from dreamcraft3d.priors.bundled import BundledPrior
from dreamcraft3d.priors.models import Entry, catalogue, installed

__all__ = ["Plan", "StagePlan", "TextureMemory", "make_plan", "texture_memory"]

CONTEXT = 600_000_000
"""Assumed bytes of the CUDA context and its libraries."""
WASTE = 1.15
"""Assumed factor of the allocator's rounding, on everything that comes and goes."""
ADAM = 4 * 4
"""Bytes per trained parameter: itself, its gradient and two moments in fp32."""
CAMERA_EMBEDDING = 16 * 1280 + 1280 + 1280 * 1280 + 1280
"""Parameters of an adapter's camera embedding (16 -> 1280 -> 1280)."""
VOLUME_STAGES = ("coarse_nerf", "neus")
FULL_COPIES = 4
"""U-Nets that the released code holds in its texture stage."""


@dataclass(frozen=True)
class StagePlan:
    """Bytes on the card in one stage, and images sent through the priors' networks.

    `weights`: of the priors of this stage (the others are in main memory). `training`: adapters with their optimiser.
    `priors`: activations of the priors. `scene`: fields, optimiser and renders.
    """

    stage: str
    models: tuple[str, ...]
    weights: int
    training: int
    priors: int
    scene: int
    evaluations: int

    @property
    def peak(self) -> int:
        """Everything together, with the assumed context and waste."""
        return round(CONTEXT + self.weights + self.training + WASTE * (self.priors + self.scene))


@dataclass(frozen=True)
class Plan:
    """All stages; `encoders`: bytes of the largest text encoder (used once, then freed); `download`: bytes to come."""

    preset: str
    stages: tuple[StagePlan, ...]
    encoders: int
    download: int
    missing: tuple[str, ...]
    unknown: tuple[str, ...] = field(default=())

    @property
    def peak(self) -> int:
        return max(stage.peak for stage in self.stages)

    @property
    def evaluations(self) -> int:
        return sum(stage.evaluations for stage in self.stages)


@dataclass(frozen=True)
class TextureMemory:
    """Bytes of parameters and optimiser state in the texture stage: ours, and with `FULL_COPIES` trained fully."""

    ours: int
    full_copies: int


def make_plan(config: GenerateConfig) -> Plan:
    """The plan of a configuration; takes a few seconds."""
    scene = scene_bytes(config)
    stages = tuple(_stage(config, stage, scene[stage]) for stage in config.guided_stages())
    names = config.prior_names()
    entries = [catalogue()[name] for name in names if name in catalogue()]
    missing = [model for model in entries if installed(model.name) is None]
    return Plan(
        config.preset,
        stages,
        encoders=max((_text_encoder(model) for model in entries), default=0),
        download=sum(model.size for model in missing),
        missing=tuple(model.name for model in missing),
        unknown=tuple(name for name in names if name not in ("bundled", "exemplar") and name not in catalogue()),
    )


def texture_memory(config: GenerateConfig) -> TextureMemory:
    """Parameters and optimiser state of the texture stage's 2D prior, without activations and scene."""
    model = catalogue()[config.priors.texture]
    unet = footprint.weights(model.networks["unet"])
    vae = footprint.weights(model.networks["vae"])
    half_adam = 3 * unet  # gradient and two moments, in half precision like its weights
    return TextureMemory(unet + vae + _training(model, _ranks(config)), FULL_COPIES * unet + 2 * half_adam + vae)


def _stage(config: GenerateConfig, stage: str, scene: SceneBytes) -> StagePlan:
    view, image = config.priors_of(stage)
    known = [catalogue()[name] for name in (view, image) if name is not None and name in catalogue()]
    student = catalogue().get(image or "") if stage == "texture" else None
    ranks = _ranks(config) if student is not None else ()
    batch = getattr(config, stage).guidance.batch
    encoders = sum(_encoding(model, batch) for model in known)
    thinking = [footprint.noise_peak(model.networks["unet"], batch=_branches(model) * batch) for model in known]
    if student is not None and ranks:
        thinking.append(_learning(student, config, ranks))
    return StagePlan(
        stage,
        tuple(name for name in (view, image) if name is not None),
        weights=_resident(known, offload=config.priors.offload),
        training=_training(student, ranks) if student is not None else 0,
        priors=encoders + max(thinking, default=0) + (_bundled(batch) if "bundled" in (view, image) else 0),
        scene=scene.state + scene.render,
        evaluations=_evaluations(config, stage),
    )


def _ranks(config: GenerateConfig) -> tuple[int, ...]:
    """Ranks of the adapters that the texture stage trains: of the personal adapter and of the variational one."""
    bootstrap = config.texture.bootstrap
    ranks = {"none": (), "vsd": (bootstrap.variational_rank,)}
    return ranks.get(bootstrap.form, (bootstrap.personal_rank, bootstrap.variational_rank))


def _resident(models: list[Entry], *, offload: bool) -> int:
    """Weights on the card: of all networks of the stage's priors but text encoders; offloaded, of the largest one."""
    sizes = [
        footprint.weights(kind)
        for model in models
        for part, kind in model.networks.items()
        if not part.startswith("text_encoder")
    ]
    return max(sizes, default=0) if offload else sum(sizes)


@cache
def _bundled(batch: int) -> int:
    """The bundled prior with what it makes on the way, measured by asking it."""
    prior = BundledPrior.load()
    size = prior.image_size
    x, t = torch.zeros(batch, 4, size, size), torch.full((batch,), 500)
    views = ViewCondition(torch.zeros(1, size, size, 4), 0.0, torch.zeros(batch), torch.zeros(batch))
    with footprint.LiveBytes() as live:
        prior.predict_noise(x, t, views, cfg_scale=2.0)
    peak: int = live.peak
    return footprint.bytes_of(prior.network) + peak


def _encoding(model: Entry, batch: int) -> int:
    """What the encoder keeps of the render until the backward pass (nothing in pixel models)."""
    if "vae" not in model.networks:
        return 0
    return footprint.encode_peak(model.networks["vae"], size=_picture_size(model), batch=batch)


def _learning(model: Entry, config: GenerateConfig, ranks: tuple[int, ...]) -> int:
    """A training step of an adapter; it keeps all activations unless every measure that saves memory is taken."""
    batch = max(config.texture.bootstrap.batch, config.texture.guidance.batch)
    frugal = config.priors.offload
    return footprint.train_peak(model.networks["unet"], batch=batch, ranks=ranks, checkpointing=frugal)


def _training(model: Entry, ranks: tuple[int, ...]) -> int:
    """Adapters and their camera embeddings with their optimiser state."""
    if not ranks:
        return 0
    adapters = footprint.add_adapters(footprint.skeleton(model.networks["unet"]), ranks)
    return ADAM * (adapters + len(ranks) * CAMERA_EMBEDDING)


def _text_encoder(model: Entry) -> int:
    kinds = [kind for part, kind in model.networks.items() if part.startswith("text_encoder")]
    return sum(footprint.weights(kind) for kind in kinds)


def _picture_size(model: Entry) -> int:
    """Side of the pictures that the model sees: eight times its latents."""
    return 8 * footprint.sample_size(model.networks["unet"])


def _branches(model: Entry) -> int:
    """Images per evaluation: conditional and unconditional, and two negative prompts for pixel models (perp-neg)."""
    return 2 if "vae" in model.networks else 4


def _evaluations(config: GenerateConfig, stage: str) -> int:
    """Images through the networks: every step in the geometry stage, every second one in the others.

    None in volume stages that a lifted start is expected to replace; their memory counts all the same.
    """
    if stage in VOLUME_STAGES and config.skips_volumes:
        return 0
    settings = getattr(config, stage)
    view, image = config.priors_of(stage)
    guidance = settings.guidance
    steps = settings.steps if stage == "geometry" else settings.steps // 2
    weak = settings.weak_views if stage in VOLUME_STAGES and view is not None else WeakViewsConfig()
    looks, total = steps - _weak_looks(steps, weak), 0
    if view is not None:
        branches = 1 if view == "bundled" and guidance.view_cfg == 1.0 else 2
        total += (looks * guidance.batch + weak.count * weak.steps) * branches
    if image is not None:
        branches = _branches(catalogue()[image]) if image in catalogue() else 2
        pictures = 2 if stage == "geometry" and settings.normal_guidance > 0.0 else 1  # colours and normals
        total += looks * guidance.batch * branches * pictures
    return total + (_bootstrap_evaluations(config) if stage == "texture" else 0)


def _weak_looks(looks: int, weak: WeakViewsConfig) -> int:
    """How many of a volume stage's looks at novel views are at weak ones, of which nobody is asked."""
    if weak.count == 0:
        return 0
    return sum(k % weak.every == 0 and piecewise_linear((k + 0.5) / looks, weak.weight) > 0.0 for k in range(looks))


def _bootstrap_evaluations(config: GenerateConfig) -> int:
    """Images that the adapters cost: the render's own score and its training, and the rounds of the personal one."""
    texture, settings = config.texture, config.texture.bootstrap
    if settings.form == "none":
        return 0
    total = 2 * (texture.steps // 2) * texture.guidance.batch
    if settings.form == "vsd":
        return total
    for index in range(settings.rounds):
        strength = piecewise_linear(index / max(settings.rounds - 1, 1), settings.strength)
        improving = settings.round_views * max(int(settings.sampling_steps * strength), 1) * 2
        total += settings.round_steps * settings.batch + improving
    return total
