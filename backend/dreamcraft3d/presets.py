"""Named sets of values: what to choose when a run starts. Each preset is a function that says only what it changes.

`preview` fits two CPU cores and the bundled prior; `oracle` is for the exact prior of `evaluate`, which never errs
and so needs no guidance scale; `paper` keeps the published schedule as the control of our changes (method sections
7-11), and `balanced` and `fast` shorten it for smaller cards (section 18). What those three need: `dreamcraft3d plan`.
"""

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from dreamcraft3d.config import GenerateConfig, Schedule, with_settings
from dreamcraft3d.errors import ConfigError

__all__ = ["PRESETS", "configure"]

STAGES = ("coarse_nerf", "neus", "geometry", "texture")


def preview() -> dict[str, Any]:
    """Two minutes on two CPU cores with the bundled prior, which sees 64 pixels and is sure of no detail.

    A weak prior believes what the render shows it, as soon as the noise lets it see the render: a NeRF that began too
    thick stayed too thick. So the noise stays high (measured in docs/evaluation.md), and there is no guidance scale.
    """
    return {
        **volume_stages(nerf_steps=220, neus_steps=80, size=64),
        **{f"{stage}.guidance.view_cfg": 1.0 for stage in STAGES},
        **{f"{stage}.guidance.timesteps": "random" for stage in STAGES},
        **{f"{stage}.guidance.t_low": 0.4 for stage in STAGES},
        **{f"{stage}.guidance.t_high": 0.7 for stage in STAGES},
        "coarse_nerf.guidance.t_low": ((0.0, 0.9), (0.5, 0.8), (1.0, 0.4)),
        "coarse_nerf.guidance.t_high": ((0.0, 0.99), (0.5, 0.95), (1.0, 0.6)),
        "neus.normal_epsilon": 0.02,
        "neus.normal_smooth": 0.05,
        "neus.orient": 0.05,
        "geometry.steps": 140,
        "geometry.cells": 36,
        "geometry.render_size": 128,
        "geometry.normal_consistency": 0.05,
        "texture.steps": 160,
        "texture.render_size": 128,
        "texture.smooth": 0.02,
        "export.target_faces": 8_000,
    }


def oracle() -> dict[str, Any]:
    """Against the exact prior, which needs no guidance scale and sees any size."""
    return {
        **volume_stages(nerf_steps=200, neus_steps=60, size=64),
        **{f"{stage}.guidance.view_cfg": 1.0 for stage in STAGES},
        "oracle_size": 128,
        "geometry.steps": 200,
        "geometry.cells": 48,
        "geometry.render_size": 128,
        "texture.steps": 160,
        "texture.render_size": 256,
        "refine.elevation": (-60.0, 75.0),
        "export.target_faces": 10_000,
    }


def volume_stages(*, nerf_steps: int, neus_steps: int, size: int) -> dict[str, Any]:
    """Small hash grids and renders: what the volume stages need when a prior sees 64 pixels."""
    grid = {"levels": 10, "growth": 1.4, "log2_table_size": 15, "hidden": 32}
    return {
        **{f"coarse_nerf.hash_grid.{key}": value for key, value in grid.items()},
        "coarse_nerf.steps": nerf_steps,
        "coarse_nerf.render_size": size,
        "coarse_nerf.step_size": 0.025,
        "coarse_nerf.active_levels": ((0.0, 4), (0.6, 10)),
        "neus.steps": neus_steps,
        "neus.render_size": size,
        "neus.guidance.progressive_until": 0.0,
        "geometry.guidance.progressive_until": 0.0,
        "texture.guidance.progressive_until": 0.0,
        "neus.step_size": 0.025,
        "texture.hash_grid.levels": 12,
        "texture.hash_grid.growth": 1.5,
        "texture.hash_grid.log2_table_size": 17,
        "texture.fit_steps": 60,
    }


def paper() -> dict[str, Any]:
    """The release's schedule: 5000 steps a stage, one random view a step, the SDS gradient, random noise levels.

    Its losses are sums over the prior's pixels, ours are means: its weights of 0.1 become 0.1 times 4096 (Zero123's
    latents) and 0.1 times 12288 (IF's pixels), its 0.01 of the texture stage 0.01 times 16384 (SD's latents).
    """
    guidance = {
        "batch": 1,
        "views": "random",
        "timesteps": "random",
        "form": "sds",
        "progressive_until": 0.0,
        "t_low": 0.2,
        "t_high": 0.5,
        "view_weight": 409.6,
        "view_cfg": 5.0,
        "image_weight": 1228.8,
        "image_cfg": 20.0,
    }
    reference = {"rgb": 1000.0, "mask": 100.0, "depth": 0.05, "normal": 0.0}
    switched: Schedule = ((0.0, 0.1), (0.4, 0.1), (0.4, 10.0))
    return {
        **{f"{stage}.guidance.{key}": value for stage in STAGES for key, value in guidance.items()},
        **{f"{stage}.reference.{key}": value for stage in STAGES[:3] for key, value in reference.items()},
        **{f"{stage}.steps": 5000 for stage in STAGES},
        "coarse_nerf.render_size": ((0.0, 128), (0.6, 128), (0.6, 384)),
        "coarse_nerf.active_levels": ((0.0, 8), (0.5, 8), (1.0, 13)),
        "coarse_nerf.guidance.progressive_until": 0.04,
        "coarse_nerf.guidance.t_low": ((0.0, 0.7), (0.04, 0.2)),
        "coarse_nerf.guidance.t_high": ((0.0, 0.85), (0.04, 0.5)),
        "coarse_nerf.normal_epsilon": 0.01,
        "coarse_nerf.normal_smooth": 1.0,
        "coarse_nerf.orient": 1.0,
        "coarse_nerf.sparsity": switched,
        "coarse_nerf.opaque": switched,
        "neus.render_size": 256,
        "neus.initial_sharpness": 20.1,
        "neus.normal_epsilon": 0.01,
        "neus.orient": 10.0,
        "neus.sparsity": 0.1,
        "neus.opaque": 0.1,
        "geometry.render_size": 1024,
        "geometry.lr_decay": 1.0,
        "geometry.reference.depth": 0.0,
        "geometry.normal_consistency": ((0.0, 10.0), (0.2, 10.0), (0.4, 1.0)),
        "texture.render_size": 512,
        "texture.reference_size": 1024,
        "texture.reference_weight": 1000.0,
        "texture.lr_grid": 0.01,
        "texture.lr_heads": 0.001,
        "texture.lr_decay": 1.0,
        "texture.epsilon": 1e-4,
        "texture.guidance.t_low": 0.05,
        "texture.guidance.t_high": ((0.0, 0.5), (1.0, 0.2)),
        "texture.guidance.view_weight": 0.0,
        "texture.guidance.image_weight": 163.84,
        "texture.guidance.image_cfg": 2.0,
        "texture.bootstrap.form": "bsd",
        "priors.view": "zero123-xl",
        "priors.image": "deepfloyd-if-xl",
        "priors.texture": "stable-diffusion-2-1-base",
        "reference.size": 1024,
        "export.target_faces": 50_000,
        "export.texture_size": 2048,
    }


def balanced() -> dict[str, Any]:
    """The paper's schedule at half its length and size, with the smaller 2D prior: cards of 12 to 16 GB."""
    return {
        **paper(),
        "priors.image": "deepfloyd-if-l",
        "coarse_nerf.steps": 2500,
        "coarse_nerf.render_size": ((0.0, 96), (0.6, 96), (0.6, 192)),
        "neus.steps": 1500,
        "neus.render_size": 192,
        "geometry.steps": 1500,
        "geometry.render_size": 512,
        "texture.steps": 3000,
        "texture.reference_size": 768,
        "reference.size": 768,
        "export.target_faces": 30_000,
    }


def fast() -> dict[str, Any]:
    """Shape from the 3D-aware prior alone, and short stages: cards of 8 to 10 GB, and commercial use."""
    return {
        **paper(),
        "priors.image": "none",
        "coarse_nerf.steps": 2000,
        "coarse_nerf.render_size": ((0.0, 64), (0.6, 64), (0.6, 128)),
        "neus.steps": 1000,
        "neus.render_size": 128,
        "geometry.steps": 500,
        "geometry.render_size": 512,
        "texture.steps": 2000,
        "texture.reference_size": 512,
        "reference.size": 512,
        "export.target_faces": 20_000,
    }


PRESETS: dict[str, Callable[[], dict[str, Any]]] = {
    "preview": preview,
    "fast": fast,
    "balanced": balanced,
    "paper": paper,
    "oracle": oracle,
}


def configure(preset: str = "preview", settings: Mapping[str, Any] | None = None) -> GenerateConfig:
    """The configuration of a preset with some values replaced, by dotted key.

    >>> configure("paper", {"coarse_nerf.steps": 10}).coarse_nerf.steps
    10

    Raises:
        ConfigError: an unknown preset or key, or a value of the wrong type or range.
    """
    if preset not in PRESETS:
        near = difflib.get_close_matches(preset, PRESETS, n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise ConfigError(f"There is no preset '{preset}'.", f"{hint}Presets: {', '.join(PRESETS)}.")
    return with_settings(GenerateConfig(preset=preset), {**PRESETS[preset](), **(settings or {})})
