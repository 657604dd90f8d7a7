"""A whole run that takes seconds: the pipeline's settings for tests.

It runs against the exact prior of a small coloured object.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import trimesh

from dreamcraft3d.config import GenerateConfig
from dreamcraft3d.evaluation.oracle import TrueView, reference_of
from dreamcraft3d.export import TexturedMesh
from dreamcraft3d.presets import configure
from dreamcraft3d.priors.oracle import OraclePrior
from dreamcraft3d.progress import Progress
from dreamcraft3d.stages.run import StageRun
from dreamcraft3d.stages.supervision import Supervision
from patience import PATIENCE
from shapes import lopsided, lopsided_colour

SETTINGS: dict[str, Any] = {
    "oracle_size": 32,
    "coarse_nerf.start": "ball",
    "coarse_nerf.steps": 60,
    "coarse_nerf.render_size": 24,
    "coarse_nerf.step_size": 0.05,
    "coarse_nerf.occupancy_resolution": 24,
    "coarse_nerf.hash_grid.levels": 5,
    "coarse_nerf.active_levels": 5,
    "coarse_nerf.hash_grid.log2_table_size": 12,
    "coarse_nerf.hash_grid.hidden": 16,
    "neus.steps": 20,
    "neus.render_size": 24,
    "neus.step_size": 0.05,
    "neus.extraction_cells": 16,
    "neus.fit_steps": 60,
    "neus.fit_points": 3000,
    "neus.fit_batch": 2048,
    "neus.eikonal_points": 256,
    "geometry.steps": 40,
    "geometry.cells": 16,
    "geometry.render_size": 48,
    "texture.steps": 60,
    "texture.render_size": 48,
    "texture.reference_size": 64,
    "texture.fit_steps": 40,
    "texture.fit_batch": 2048,
    "texture.hash_grid.levels": 6,
    "texture.hash_grid.log2_table_size": 12,
    "export.target_faces": 800,
    "export.texture_size": 128,
    "export.unwrap_seconds": PATIENCE,  # a layout that is made in time on a busy machine too
}

LEARNING: dict[str, Any] = {
    "texture.bootstrap.form": "bsd",
    "texture.bootstrap.rounds": 1,
    "texture.bootstrap.round_steps": 2,
    "texture.bootstrap.round_views": 2,
    "texture.bootstrap.sampling_steps": 2,
    "texture.bootstrap.personal_rank": 2,
    "texture.bootstrap.variational_rank": 2,
}
"""The prior learns the object, as briefly as it goes."""


def tiny_config(settings: Mapping[str, Any] | None = None) -> GenerateConfig:
    """The oracle preset, cut down to seconds."""
    return configure("oracle", {**SETTINGS, **(settings or {})})


def lopsided_textured() -> TexturedMesh:
    """The lopsided object with the colours of its sides at its vertices."""
    bare = lopsided()
    fine = trimesh.Trimesh(bare.vertices.numpy(), bare.faces.numpy(), process=False).subdivide_to_size(0.12)
    vertices = torch.tensor(np.array(fine.vertices)).float()
    return TexturedMesh(vertices, torch.tensor(np.array(fine.faces)), vertex_colours=lopsided_colour(vertices))


def tiny_supervision(mesh: TexturedMesh | None = None, *, size: int = 32) -> Supervision:
    """The lopsided object's front view and its exact prior."""
    mesh = lopsided_textured() if mesh is None else mesh
    return Supervision(reference_of(mesh, size=128), OraclePrior(TrueView(mesh), image_size=size), None)


def tiny_run(name: str, seed: int = 0) -> StageRun:
    """A stage's run that keeps no files."""
    return StageRun(name, seed, Progress())
