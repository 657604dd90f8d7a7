"""The whole way from a picture to a mesh: the stages in order, each resumed or skipped when its saved result fits.

    ReferenceView -> CoarseNerf -> Neus -> Geometry -> UnwrappedMesh -> Texture -> result.glb

A stage's result lies in `stages/NAME/result.safetensors` beside a fingerprint of its configuration, the seed, and
everything upstream; the same command goes on where the last one stopped.
"""

import hashlib
import logging
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import psutil
import torch
from jaxtyping import Float
from pydantic import BaseModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreamcraft3d import __version__, export
from dreamcraft3d.config import GenerateConfig, fingerprint
from dreamcraft3d.evaluation.metrics import psnr
from dreamcraft3d.evaluation.previews import preview_png
from dreamcraft3d.evaluation.render import render_textured
from dreamcraft3d.evaluation.turntable import turntable
from dreamcraft3d.functional.cameras import Cameras
from dreamcraft3d.functional.mesh import Mesh
from dreamcraft3d.priors.base import DiffusionPrior, SurfaceEstimator
from dreamcraft3d.progress import Progress
from dreamcraft3d.rendering import Render, render_density, render_mesh, render_sdf
from dreamcraft3d.stages.coarse_nerf import new_coarse_nerf, train_coarse_nerf
from dreamcraft3d.stages.geometry import new_geometry, sculpt_geometry
from dreamcraft3d.stages.neus import new_neus, train_neus
from dreamcraft3d.stages.reference import ReferenceView, load_reference, save_reference
from dreamcraft3d.stages.run import StageRun, State, Stateful, flatten, unflatten
from dreamcraft3d.stages.supervision import Supervision
from dreamcraft3d.stages.texture import Texture, new_colour, paint_texture
from dreamcraft3d.workspace import Workspace, atomic_path

logger = logging.getLogger(__name__)
T = TypeVar("T")

PREVIEW_SIZE = 128
REPORT_SIZE = 256
"""Size at which the reference view is compared with the picture, pixels."""


@dataclass(frozen=True)
class Result:
    """What a run leaves behind.

    Attributes:
        glb, turntable: files. textured: the mesh as loaded. report: what report.json says.
    """

    glb: Path
    turntable: Path
    textured: export.TexturedMesh
    report: dict[str, Any]


def generate(picture: Path, config: GenerateConfig, workspace: Workspace, progress: Progress) -> Result:
    """One picture to `result.glb`, `turntable.png` and `report.json` in the workspace.

    Raises:
        InputError, ConfigError, OutputError: the user can do something about it. ObjectLost: no object was found.
        Cancelled: the user stopped; the same call resumes.
    """
    with workspace:
        reference = load_reference(picture, config.reference)
        save_reference(reference, workspace)
        priors = load_priors(config)
        return run_stages(with_estimates(reference, priors[0], config), priors, config, workspace, progress)


def with_estimates(reference: ReferenceView, prior: DiffusionPrior | None, config: GenerateConfig) -> ReferenceView:
    """The reference with the depth and normals that it lacks, as far as the prior can estimate them."""
    estimator: object = prior
    if not config.reference.estimate or not isinstance(estimator, SurfaceEstimator):
        return reference
    estimate = estimator.estimate(reference.rgba[None], reference.elevation)
    size, inside = reference.rgba.shape[0], reference.mask[..., None]
    depth, normal = (
        torch.nn.functional.interpolate(image, (size, size), mode="bilinear")[0].permute(1, 2, 0).cpu() * inside
        for image in (estimate.depth, estimate.normal)
    )
    return replace(
        reference,
        depth=depth[..., 0] if reference.depth is None else reference.depth,
        normal=torch.nn.functional.normalize(normal, dim=-1, eps=1e-6)
        if reference.normal is None
        else reference.normal,
    )


def load_priors(config: GenerateConfig) -> tuple[DiffusionPrior | None, DiffusionPrior | None]:
    """(view-conditioned prior, picture prior) that the configuration names."""
    from dreamcraft3d.priors.bundled import BundledPrior

    return BundledPrior.load(), None


def run_stages(
    reference: ReferenceView,
    priors: tuple[DiffusionPrior | None, DiffusionPrior | None],
    config: GenerateConfig,
    workspace: Workspace,
    progress: Progress,
) -> Result:
    """All stages after the reference picture. The workspace must be open."""
    supervision = Supervision(reference, *priors)
    stages = Stages(config.seed, workspace, progress, supervision, upstream=reference_digest(reference))
    nerf = stages.run(
        "coarse_nerf",
        config.coarse_nerf,
        lambda run: new_coarse_nerf(config.coarse_nerf, run.generator()),
        lambda run: train_coarse_nerf(supervision, config.coarse_nerf, run),
        lambda nerf, cameras: render_density(
            nerf.field, nerf.grid, cameras, PREVIEW_SIZE, step_size=config.coarse_nerf.step_size, normal_epsilon=0.02
        ),
    )
    neus = stages.run(
        "neus",
        config.neus,
        lambda run: new_neus(nerf, config.neus, run.generator()),
        lambda run: train_neus(supervision, nerf, config.neus, run),
        lambda neus, cameras: render_sdf(
            neus.field, neus.grid, cameras, PREVIEW_SIZE, step_size=config.neus.step_size, normal_epsilon=0.01
        ),
    )
    geometry = stages.run(
        "geometry",
        config.geometry,
        lambda run: new_geometry(neus, config.geometry, run.generator()),
        lambda run: sculpt_geometry(supervision, neus, config.geometry, run),
        lambda geometry, cameras: render_mesh(geometry.mesh(), geometry.colour, cameras, PREVIEW_SIZE),
    )
    unwrapped = stages.prepare(geometry.mesh, config)
    surface = Mesh(unwrapped.vertices, unwrapped.faces)
    texture = stages.run(
        "texture",
        config.texture,
        lambda run: Texture(new_colour(config.texture, run.generator())),
        lambda run: paint_texture(supervision, surface, geometry.colour, config.texture, run),
        lambda texture, cameras: render_mesh(surface, texture.colour, cameras, PREVIEW_SIZE),
    )
    return stages.finish(unwrapped, texture, config)


@dataclass
class Stages:
    """Runs, saves and skips stages, and keeps the book for the report."""

    seed: int
    workspace: Workspace
    progress: Progress
    supervision: Supervision
    upstream: str
    records: dict[str, dict[str, Any]] = field(default_factory=dict)

    def run(
        self,
        name: str,
        config: BaseModel,
        fresh: Callable[[StageRun], T],
        train: Callable[[StageRun], T],
        render: Callable[[T, Cameras], Render],
    ) -> T:
        """The stage's result: loaded into what `fresh` makes if it was finished by the same work, else from `train`.

        A stage that has run leaves `stages/NAME/preview.png`, drawn by `render`.
        """
        self.upstream = fingerprint(config, name, str(self.seed), self.upstream)
        run = StageRun(name, self.seed, self.progress, None, self._evaluations)
        saved = self.workspace.file("stages", name, "result.safetensors")
        if self.workspace.finished(name, self.upstream) and (state := read_state(saved)) is not None:
            result = fresh(run)
            for key, part in parts_of(result).items():
                part.load_state_dict(unflatten(state, key, part.state_dict()))
            self.records[name] = self.workspace.record(name) or {}
            self.progress.note(f"{name}: already done, using the saved result.")
            return result
        self.workspace.begin(name, self.upstream)
        run.checkpoint = self.workspace.checkpoint(name)
        result = train(run)
        tensors = {f"{k}/{path}": t for k, part in parts_of(result).items() for path, t in flatten(part.state_dict())}
        write_state(saved, tensors)
        preview = self.workspace.write_bytes(f"stages/{name}/preview.png", preview_png(lambda c: render(result, c)))
        self.progress.artifact(f"{name} preview", preview)
        self._finish(name, {"seconds": round(run.seconds, 2), "prior_evaluations": run.evaluations})
        return result

    def prepare(self, mesh_of: Callable[[], Mesh], config: GenerateConfig) -> export.UnwrappedMesh:
        """Clean-up, decimation and unwrapping, as a stage of its own: it takes time and the texture depends on it."""
        name = "mesh"
        self.upstream = fingerprint(config.export, name, self.upstream)
        saved = self.workspace.file("stages", name, "result.safetensors")
        if self.workspace.finished(name, self.upstream) and (state := read_state(saved)) is not None:
            record = self.records[name] = self.workspace.record(name) or {}
            saved_mesh: dict[str, Any] = {**state, **record["unwrap"]}
            return export.UnwrappedMesh(**saved_mesh, report=export.CleanReport(**record["clean_up"]))
        self.workspace.begin(name, self.upstream)
        start = time.perf_counter()
        self.progress.note("mesh: cleaning, decimating and unwrapping.")
        settings = config.export
        unwrapped = export.prepare(
            mesh_of(),
            target_faces=settings.target_faces,
            seconds=settings.unwrap_seconds,
            texture_size=settings.texture_size,
        )
        self.progress.check()  # Ctrl-C also ends the unwrapping child, and the fallback would pass for the result
        write_state(saved, {key: value for key, value in vars(unwrapped).items() if isinstance(value, Tensor)})
        plain = {key: getattr(unwrapped, key) for key in ("texture_size", "method", "overlap")}
        record = {"seconds": round(time.perf_counter() - start, 2), "unwrap": plain}
        self._finish(name, {**record, "clean_up": vars(unwrapped.report)})
        return unwrapped

    def finish(self, unwrapped: export.UnwrappedMesh, texture: Texture, config: GenerateConfig) -> Result:
        """Bakes, writes the GLB, the turntable and the report (which needs the others, so it comes last)."""
        start = time.perf_counter()
        self.progress.note("export: baking the texture and writing the files.")
        textured = unwrapped.with_texture(export.bake(unwrapped, texture.at))
        glb = self.workspace.write_bytes("result.glb", export.write_glb(textured))
        self.progress.artifact("result.glb", glb)
        picture = self.workspace.file("turntable.png")
        turntable(glb, picture)
        self.progress.artifact("turntable.png", picture)
        self.records["export"] = {
            "seconds": round(time.perf_counter() - start, 2),
            "peak_memory_mib": peak_memory_mib(),
        }
        report = self._report(textured, config)
        self.progress.artifact("report.json", self.workspace.write_json("report.json", report))
        return Result(glb, picture, textured, report)

    def _report(self, textured: export.TexturedMesh, config: GenerateConfig) -> dict[str, Any]:
        reference = self.supervision.targets(REPORT_SIZE).rgba
        with torch.no_grad():
            render = render_textured(textured, self.supervision.camera, REPORT_SIZE).rgba
        priors = (self.supervision.view_prior, self.supervision.image_prior)
        stages = self.records.values()
        return {
            "settings": config.model_dump(mode="json"),
            "seed": self.seed,
            "priors": [prior.name for prior in priors if prior is not None],
            "matting": self.supervision.reference.matting,
            "versions": versions(),
            "stages": self.records,
            "seconds": round(sum(record["seconds"] for record in stages), 2),
            "prior_evaluations": sum(record.get("prior_evaluations", 0) for record in stages),
            "peak_memory_mib": max(record["peak_memory_mib"] for record in stages),
            "metrics": {"reference_psnr": round(float(psnr(on_white(render), on_white(reference))), 3)},
            "faces": len(textured.faces),
        }

    def _finish(self, name: str, record: dict[str, Any]) -> None:
        self.records[name] = {**record, "peak_memory_mib": peak_memory_mib()}
        self.workspace.mark_finished(name, self.upstream, self.records[name])

    def _evaluations(self) -> int:
        priors = (self.supervision.view_prior, self.supervision.image_prior)
        return sum(prior.evaluations for prior in priors if prior is not None)


def parts_of(result: object) -> dict[str, Stateful]:
    """The modules and grids of a stage's result record, by field name."""
    return dict(vars(result))


def read_state(path: Path) -> State | None:
    """A saved result, or None if it is missing or broken (the stage then runs again)."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        logger.warning("cannot read %s: %s", path, error)
        return None


def write_state(path: Path, tensors: State) -> None:
    """Saves tensors atomically."""
    with atomic_path(path) as temporary:
        save_file({key: t.detach().cpu().contiguous() for key, t in tensors.items()}, temporary)


def reference_digest(reference: ReferenceView) -> str:
    """A name for what the user gave: the picture after stage 0, its maps and its elevation."""
    digest = hashlib.sha256(f"{reference.elevation:.6f}".encode())
    for image in (reference.rgba, reference.depth, reference.normal):
        digest.update(b"none" if image is None else image.contiguous().numpy().tobytes())
    return digest.hexdigest()


def on_white(rgba: Float[Tensor, "B H W 4"]) -> Float[Tensor, "B H W 3"]:
    """A premultiplied picture over white."""
    return rgba[..., :3] + 1.0 - rgba[..., 3:]


def peak_memory_mib() -> int:
    """Peak resident memory of this process so far."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset) >> 20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak >> 20 if sys.platform == "darwin" else peak >> 10)


def versions() -> dict[str, str]:
    """What made the result, for the report and for bug reports."""
    packages = {name: metadata.version(name) for name in ("torch", "warp-lang", "diffusers", "xatlas")}
    return {"dreamcraft3d": __version__, "python": platform.python_version(), **packages}
