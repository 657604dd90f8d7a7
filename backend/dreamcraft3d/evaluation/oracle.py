"""The pipeline against a prior that knows the answer: how well does it find a given mesh?

Writes `result.glb` and `ground_truth.glb` in one frame, so that anybody can compare them with a tool of their own.
"""

import math
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dreamcraft3d import export
from dreamcraft3d.config import GenerateConfig
from dreamcraft3d.evaluation.meshes import load_mesh, normalise
from dreamcraft3d.evaluation.metrics import f_score, multi_view_report
from dreamcraft3d.evaluation.patch_statistics import unseen_statistics
from dreamcraft3d.evaluation.render import MeshRender, render_textured, sample_texture
from dreamcraft3d.export import TexturedMesh
from dreamcraft3d.functional.cameras import Cameras, orbit
from dreamcraft3d.kernels.mesh_query import MeshQuery
from dreamcraft3d.pipeline import Result, run_stages, scene_device
from dreamcraft3d.priors.base import Content
from dreamcraft3d.priors.oracle import OraclePrior
from dreamcraft3d.priors.residency import FixedPriors
from dreamcraft3d.progress import Progress
from dreamcraft3d.stages.reference import ReferenceView
from dreamcraft3d.workspace import Workspace

REFERENCE_SIZE = 512


class TrueView:
    """The renderer that an oracle asks: colours, or world-space normals as colours, of any view of a mesh.

    The last batch of views is kept, because the geometry stage asks for the colours and the normals of the same ones.
    """

    def __init__(self, mesh: TexturedMesh) -> None:
        self._mesh = mesh
        self._asked: tuple[Float[Tensor, "2 B"], int] | None = None
        self._render: MeshRender | None = None

    def __call__(
        self, elevation: Float[Tensor, " B"], azimuth: Float[Tensor, " B"], content: Content, size: int
    ) -> Float[Tensor, "B H W 4"]:
        views = torch.stack([elevation, azimuth])
        asked = self._asked
        if self._render is None or asked is None or asked[1] != size or not torch.equal(asked[0], views):
            self._render = render_textured(self._mesh, orbit(elevation, azimuth), size)
            self._asked = (views, size)
        if content == "rgba":
            return self._render.rgba
        opacity = self._render.rgba[..., 3:]
        return torch.cat([0.5 * (self._render.normals + opacity), opacity], dim=-1)


class MeshVolume:
    """The exact volume of a mesh (`priors.base.LiftedVolume`).

    Density falls linearly from 2 `SOLID` inside to 0 outside, over `EDGE` to each side of the surface, where it is
    `SOLID`; colours are those of the nearest surface point.
    """

    SOLID, EDGE = 12.0, 0.04

    def __init__(self, mesh: TexturedMesh) -> None:
        self._mesh, self._query = mesh, MeshQuery(mesh.vertices, mesh.faces)

    def density_and_colour(self, x: Float[Tensor, "N 3"]) -> tuple[Float[Tensor, " N"], Float[Tensor, "N 3"]]:
        """Density and colour of world points."""
        mesh, distance = self._mesh, self._query.signed_distance(x)
        density = (self.SOLID * (1.0 - distance / self.EDGE)).clamp(0.0, 2.0 * self.SOLID)
        _, face, weights = self._query.closest_points(x)
        weights = weights[..., None]
        if mesh.texture is not None and mesh.uvs is not None:
            return density, sample_texture(mesh.texture, (weights * mesh.uvs[face]).sum(1))
        return density, (weights * mesh.colours()[mesh.faces[face]]).sum(1)


class LiftingOracle(OraclePrior):
    """The exact prior of a mesh that offers the mesh itself as a volume (`coarse_nerf.start=lifted`)."""

    def __init__(self, mesh: TexturedMesh, *, image_size: int) -> None:
        super().__init__(TrueView(mesh), image_size=image_size)
        self._mesh = mesh

    def lifted_volume(self, reference: Float[Tensor, "1 H W 4"], camera: Cameras) -> MeshVolume:
        """The mesh, whatever the picture: they lie in one frame."""
        return MeshVolume(self._mesh)


def reference_of(mesh: TexturedMesh, elevation: float = 0.0, size: int = REFERENCE_SIZE) -> ReferenceView:
    """The mesh's front view with its true depth and normals, as stage 0 would hand them on."""
    cameras = orbit(elevation, 0.0)
    render = render_textured(mesh, cameras, size)
    mask = render.rgba[0, ..., 3] > 0.5
    depth = torch.where(torch.isfinite(render.depth[0]), render.depth[0], 0.0)
    mask_with_depth = mask & (depth > 0.0)
    normal = torch.nn.functional.normalize(render.normals[0] @ cameras.c2w[0, :3, :3], dim=-1, eps=1e-6)
    return ReferenceView(
        rgba=render.rgba[0], mask=mask_with_depth, depth=depth, normal=normal, elevation=elevation, matting="rendered"
    )


def score(result: TexturedMesh, truth: TexturedMesh, reference_elevation: float) -> dict[str, Any]:
    """F-score of the visible surface at 2 % of the diagonal, silhouettes and pictures of 24 unseen views, and
    the statistics of their patches."""
    views = multi_view_report(result, truth, reference=orbit(reference_elevation, 0.0))
    surface, patches = f_score(result, truth), unseen_statistics(result, truth, orbit(reference_elevation, 0.0))
    return {
        "f_score": surface.f_score,
        "precision": surface.precision,
        "recall": surface.recall,
        "unseen_iou": views.silhouette_iou,
        "worst_unseen_iou": views.worst_iou,
        "unseen_psnr": views.psnr,
        "worst_unseen_psnr": views.worst_psnr,
        "reference_psnr": views.reference_psnr,
        "reference_iou": views.reference_iou,
        "unseen_sharpness": patches.sharpness,
        "unseen_patch_distance": patches.distance,
    }


def evaluate_oracle(mesh_path: Path, out: Path, config: GenerateConfig, progress: Progress) -> dict[str, Any]:
    """Runs all stages against the exact prior of a mesh, and scores the result against the mesh.

    Returns:
        the report of the run with `scores` added; also written to `scores.json`.
    """
    truth, _ = normalise(load_mesh(mesh_path))
    with Workspace(out) as workspace:
        workspace.write_bytes("ground_truth.glb", export.write_glb(truth))
        elevation = math.radians(config.reference.elevation_or_level)
        device = scene_device(config, progress)
        prior = LiftingOracle(truth.to(device), image_size=config.oracle_size).to(device)
        result: Result = run_stages(reference_of(truth, elevation), FixedPriors(prior), config, workspace, progress)
        scores = score(result.textured, truth, elevation)
        report = {**result.report, "scores": scores}
        workspace.write_json("scores.json", scores)
        workspace.write_json("report.json", report)
        return report
