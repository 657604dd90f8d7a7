"""The whole way from a picture to a mesh: the stages in order, each resumed or skipped when its saved result fits.

    ReferenceView -> CoarseNerf -> Neus -> Geometry -> UnwrappedMesh -> Texture -> result.glb
    ReferenceView -> SurfaceStart      -> Geometry -> ...   (`coarse_nerf.start=lifted`)
    ReferenceView -> a given mesh, aligned -> Geometry -> ...

A stage's result lies in `stages/NAME/result.safetensors` beside a fingerprint of its configuration, the seed, and
everything upstream; the same command goes on where the last one stopped.
"""

import hashlib
import logging
import math
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import psutil
import torch
from jaxtyping import Float
from pydantic import BaseModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreamcraft3d import __version__, export
from dreamcraft3d.config import GenerateConfig, GeometryConfig, fingerprint
from dreamcraft3d.errors import ConfigError
from dreamcraft3d.evaluation.metrics import psnr
from dreamcraft3d.evaluation.previews import preview_png
from dreamcraft3d.evaluation.render import render_textured
from dreamcraft3d.evaluation.turntable import turntable
from dreamcraft3d.fields.tet_mesh import TetMesh
from dreamcraft3d.functional.cameras import Cameras
from dreamcraft3d.functional.mesh import Mesh
from dreamcraft3d.kernels.dispatch import default_device
from dreamcraft3d.kernels.selfcheck import card_trouble
from dreamcraft3d.priors.loading import check_present, check_words, load_prior
from dreamcraft3d.priors.models import folder_of
from dreamcraft3d.priors.perception import choose_estimator
from dreamcraft3d.priors.residency import LoadedPriors, Shelf
from dreamcraft3d.progress import Progress
from dreamcraft3d.rendering import Render, render_density, render_mesh, render_sdf
from dreamcraft3d.shape_start import GivenShape, fit_shape, placed_shape, read_shape
from dreamcraft3d.stages.alignment import Similarity
from dreamcraft3d.stages.candidates import candidates_for, chosen
from dreamcraft3d.stages.coarse_nerf import CoarseNerf, new_coarse_nerf, train_coarse_nerf
from dreamcraft3d.stages.delight import delit
from dreamcraft3d.stages.exemplar import paint_unseen_sides
from dreamcraft3d.stages.geometry import Geometry, geometry_from_mesh, new_geometry, sculpt_geometry
from dreamcraft3d.stages.lifted_start import SurfaceStart, try_lifted_start
from dreamcraft3d.stages.memory import within_memory
from dreamcraft3d.stages.neus import Neus, extract_surface, new_neus, train_neus
from dreamcraft3d.stages.reference import ReferenceView, load_reference, save_reference
from dreamcraft3d.stages.run import StageRun, State, Stateful, flatten, unflatten
from dreamcraft3d.stages.supervision import Supervision
from dreamcraft3d.stages.texture import Texture, new_colour, paint_texture
from dreamcraft3d.workspace import Workspace, atomic_path

logger = logging.getLogger(__name__)
T = TypeVar("T")
C = TypeVar("C", bound=BaseModel)
GuidedStage = Literal["coarse_nerf", "neus", "geometry", "texture"]

PREVIEW_SIZE = 128
DRAFT_CELLS = 36
DRAFT_FACES = 20_000
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


def generate(
    picture: Path, config: GenerateConfig, workspace: Workspace, progress: Progress, *, shelf: Shelf | None = None
) -> Result:
    """One picture to `result.glb`, `turntable.png` and `report.json` in the workspace.

    `shelf`: priors that are kept from an earlier run; by default those that the configuration names are loaded.

    Raises:
        InputError, ConfigError, OutputError: the user can do something about it. ObjectLost: no object was found.
        Cancelled: the user stopped; the same call resumes.
    """
    with workspace:
        shelf = shelf or load_priors(config)
        reference = load_reference(picture, config.reference)
        reference = with_camera(reference, shelf, config, progress)
        save_reference(reference, workspace)
        return run_stages(with_estimates(reference, shelf, config), shelf, config, workspace, progress)


def picture_from_words(config: GenerateConfig, workspace: Workspace, progress: Progress) -> Path:
    """A reference picture for `config.prompt`: drawn by the text-to-picture model, and chosen (`config.picture`).

    Raises:
        MissingDependencyError, ConfigError: the model is not on this machine, or there is none of that name.
    """
    from dreamcraft3d.priors.text_to_picture import draw_pictures

    if not config.prompt.strip():
        raise ConfigError("There is neither a picture nor words.", 'Give a picture, or --prompt "a red bird".')
    settings, folder = config.picture, folder_of(config.picture.model)
    draw = partial(
        draw_pictures, folder, config.prompt, steps=settings.steps, cfg_scale=settings.cfg, device=priors_device(config)
    )
    with workspace:
        found = candidates_for(
            config.prompt, settings, config.seed, workspace, progress, lambda seeds: draw(seeds=seeds)
        )
        taken = chosen(found, settings.choice)
        progress.note(f"pictures: taking {taken.file.name} (score {taken.score:.2f}); --choose N takes another one.")
        return taken.file


def with_camera(reference: ReferenceView, shelf: Shelf, config: GenerateConfig, progress: Progress) -> ReferenceView:
    """The reference with the camera as the 3D-aware prior guesses it, as far as the user did not say it."""
    given = config.reference
    prior = shelf.pair(config.priors_of(config.guided_stages()[0]))[0]
    guess = getattr(prior, "guess_camera", None)  # a CameraEstimator
    if guess is None or (given.elevation is not None and given.fov is not None):
        return reference
    elevation, fovy = guess(reference.rgba[None])
    seen = replace(
        reference,
        elevation=elevation if given.elevation is None else reference.elevation,
        fovy=fovy if given.fov is None else reference.fovy,
    )
    progress.note(
        f"camera: elevation {math.degrees(seen.elevation):.0f} degrees, field of view {math.degrees(seen.fovy):.0f} "
        "(guessed where not given; --elevation, --fov)."
    )
    return seen


def with_estimates(reference: ReferenceView, shelf: Shelf, config: GenerateConfig) -> ReferenceView:
    """The reference with the depth and normals that it lacks, as far as somebody can estimate them."""
    if not config.reference.estimate or (reference.depth is not None and reference.normal is not None):
        return reference
    prior = shelf.pair(config.priors_of(config.guided_stages()[0]))[0]
    estimator = choose_estimator(config.reference.estimator, prior, priors_device(config))
    if estimator is None:
        return reference
    estimate = estimator.estimate(reference.rgba[None], reference.elevation, reference.fovy)
    size, inside = reference.rgba.shape[0], reference.mask[..., None]
    depth, normal = (
        torch.nn.functional.interpolate(image.cpu(), (size, size), mode="bilinear")[0].permute(1, 2, 0) * inside
        for image in (estimate.depth, estimate.normal)
    )
    return replace(
        reference,
        depth=depth[..., 0] if reference.depth is None else reference.depth,
        normal=torch.nn.functional.normalize(normal, dim=-1, eps=1e-6)
        if reference.normal is None
        else reference.normal,
    )


def load_priors(config: GenerateConfig) -> Shelf:
    """The priors that the configuration names, each loaded when a stage first needs it.

    Raises:
        MissingDependencyError, ConfigError: one of them is not on this machine.
    """
    check_present(config.prior_names())
    check_words(config.prior_names(), config.prompt)
    return LoadedPriors(partial(load_prior, prompt=config.prompt), priors_device(config), frugal=config.priors.offload)


def priors_device(config: GenerateConfig) -> torch.device:
    """Where the priors work: on the card if there is one and the configuration does not forbid it."""
    return torch.device("cpu") if config.device == "cpu" else default_device()


def scene_device(config: GenerateConfig, progress: Progress) -> torch.device:
    """Where the scene is: beside the priors, unless our kernels fail there (and then this is said)."""
    device = priors_device(config)
    trouble = card_trouble(device)
    if trouble is None:
        return device
    progress.warn(f"The graphics card cannot hold the scene ({trouble}); the processor does, which takes longer.")
    return torch.device("cpu")


def run_stages(
    reference: ReferenceView, shelf: Shelf, config: GenerateConfig, workspace: Workspace, progress: Progress
) -> Result:
    """All stages after the reference picture. The workspace must be open."""
    device, upstream = scene_device(config, progress), reference_digest(reference)
    stages = Stages(config, workspace, progress, reference.to(device), shelf, upstream)
    geometry = run_geometry(stages, geometry_start(stages))
    unwrapped = stages.prepare(geometry.mesh).to(device)
    return stages.finish(unwrapped, run_texture(stages, unwrapped.mesh, geometry))


GeometryStart = Callable[[GeometryConfig, StageRun, bool], Geometry]
"""(settings, run, whether a saved state will replace everything that is learnt) -> where the geometry stage starts."""


def geometry_start(stages: "Stages") -> GeometryStart:
    """A given mesh, or the surface of a prior's volume, or what the volume stages make of the picture."""
    config = stages.config
    if config.shape.mesh is not None:
        return shape_start(stages)
    surface = stages.lifted_start() if config.coarse_nerf.start == "lifted" else None
    return run_volumes(stages) if surface is None else from_surface(surface, config)


def shape_start(stages: "Stages") -> GeometryStart:
    """Take the shape from a mesh file, aligned to the picture. Raises InputError: as `read_shape` and `fit_shape`."""
    config = stages.config
    assert config.shape.mesh is not None
    given = read_shape(config.shape.mesh, max_triangles=config.shape.max_triangles)
    shape = placed_shape(given, stages.align(given), stages.reference)
    return lambda settings, run, restored: shape.geometry(
        settings, config.coarse_nerf.hash_grid, run.generator(), painted=not restored
    )


def from_surface(surface: SurfaceStart, config: GenerateConfig) -> GeometryStart:
    """Start the geometry stage from a coloured surface; its colours are fitted only where nothing is restored."""
    hash_grid = config.coarse_nerf.hash_grid

    def start(settings: GeometryConfig, run: StageRun, restored: bool) -> Geometry:
        colour = None if restored else surface.colour()
        return geometry_from_mesh(surface.mesh, colour, settings, hash_grid, run.generator())

    return start


def run_volumes(stages: "Stages") -> GeometryStart:
    """Run the stages from a soft ball to a NeuS surface: the way of the paper."""
    config, device = stages.config, stages.reference.rgba.device
    nerf = stages.run(
        "coarse_nerf",
        config.coarse_nerf,
        lambda run: new_coarse_nerf(config.coarse_nerf, run.generator(), device),
        train_coarse_nerf,
        lambda nerf, cameras: render_density(
            nerf.field, nerf.grid, cameras, PREVIEW_SIZE, step_size=config.coarse_nerf.step_size, normal_epsilon=0.02
        ),
        Draft(
            CoarseNerf,
            lambda nerf: extract_surface(nerf, config.neus),
            lambda nerf: lambda points: nerf.field.density_and_colour(points)[1],
        ),
    )
    neus = stages.run(
        "neus",
        config.neus,
        lambda run: new_neus(nerf, config.neus, run.generator()),
        lambda supervision, config, run: train_neus(supervision, nerf, config, run),
        lambda neus, cameras: render_sdf(
            neus.field, neus.grid, cameras, PREVIEW_SIZE, step_size=config.neus.step_size, normal_epsilon=0.01
        ),
        Draft(Neus, lambda neus: TetMesh.from_sdf(neus.field, cells=DRAFT_CELLS).extract(), lambda n: n.field.colour),
    )
    return lambda settings, run, restored: new_geometry(neus, settings, run.generator())


def run_geometry(stages: "Stages", start: GeometryStart) -> Geometry:
    """Sculpt the mesh."""
    return stages.run(
        "geometry",
        stages.config.geometry,
        lambda run: start(stages.config.geometry, run, True),
        lambda supervision, config, run: sculpt_geometry(supervision, start(config, run, run.resumes()), config, run),
        lambda geometry, cameras: render_mesh(geometry.mesh(), geometry.colour, cameras, PREVIEW_SIZE),
        Draft(Geometry, lambda geometry: geometry.mesh(), lambda geometry: geometry.colour),
    )


def run_texture(stages: "Stages", surface: Mesh, geometry: Geometry) -> Texture:
    """Paint the finished mesh, from the colours of the geometry stage."""
    config = stages.config
    stages.delight()
    return stages.run(
        "texture",
        config.texture,
        lambda run: Texture(new_colour(config.texture, run.generator(), surface.vertices.device)),
        lambda supervision, config, run: paint_texture(supervision, surface, geometry.colour, config, run),
        lambda texture, cameras: render_mesh(surface, texture.colour, cameras, PREVIEW_SIZE),
        Draft(Texture, lambda _: surface, lambda texture: texture.at),
    )


@dataclass(frozen=True)
class Draft(Generic[T]):
    """How a stage's state becomes something to look at while the run goes on.

    Attributes:
        record: makes the stage's result from its parts. mesh: its surface so far. colour: of points on it.
    """

    record: type[T]
    mesh: Callable[[T], Mesh]
    colour: Callable[[T], Callable[[Tensor], Tensor]]

    def of(self, parts: Mapping[str, Any]) -> T:
        """The result that a stage would return now."""
        record: Any = self.record
        wanted = {member.name for member in fields(record)}
        return self.record(**{name: part for name, part in parts.items() if name in wanted})

    @torch.no_grad()
    def glb(self, result: T) -> bytes:
        """A light mesh with a colour per vertex."""
        mesh = export.lighten(self.mesh(result), DRAFT_FACES)
        colours = torch.cat([self.colour(result)(chunk) for chunk in mesh.vertices.split(1 << 17)])
        return export.write_glb(export.TexturedMesh(mesh.vertices, mesh.faces, vertex_colours=colours))


@dataclass
class Stages:
    """Runs, saves and skips stages, and keeps the book for the report."""

    config: GenerateConfig
    workspace: Workspace
    progress: Progress
    reference: ReferenceView
    shelf: Shelf
    upstream: str
    records: dict[str, dict[str, Any]] = field(default_factory=dict)

    def run(
        self,
        name: GuidedStage,
        config: C,
        fresh: Callable[[StageRun], T],
        train: Callable[[Supervision, C, StageRun], T],
        render: Callable[[T, Cameras], Render],
        draft: Draft[T],
    ) -> T:
        """The stage's result: loaded into what `fresh` makes if it was finished by the same work, else from `train`.

        A stage that has run leaves `stages/NAME/preview.png`, drawn by `render`; for somebody who watches the run
        (`Progress.preview`) also `stage-NAME.glb`. When memory runs out it is called again with a smaller need
        (`stages.memory`), and goes on from its checkpoint.
        """
        self.upstream = fingerprint(config, name, str(self.config.seed), *self._priors_of(name), self.upstream)
        run = self._new_run(name)
        saved = self.workspace.file("stages", name, "result.safetensors")
        if self.workspace.finished(name, self.upstream) and (state := read_state(saved)) is not None:
            result = fresh(run)
            for key, part in parts_of(result).items():
                part.load_state_dict(unflatten(state, key, part.state_dict()))
            self.records[name] = self.workspace.record(name) or {}
            self.progress.note(f"{name}: already done, using the saved result.")
            return result
        self.workspace.begin(name, self.upstream)

        def attempt(config: C) -> T:
            nonlocal run
            run = self._new_run(name)
            run.checkpoint = self.workspace.checkpoint(name)
            run.draw = lambda parts: self._preview(partial(render, draft.of(parts)))
            return train(self._supervision(name), config, run)

        names = self.config.priors_of(name)
        save_memory = lambda: self.shelf.save_memory(names)  # noqa: E731
        result, measures = within_memory(attempt, config, save_memory, stage=name, progress=self.progress)
        tensors = {f"{k}/{path}": t for k, part in parts_of(result).items() for path, t in flatten(part.state_dict())}
        write_state(saved, tensors)
        preview = self.workspace.write_bytes(f"stages/{name}/preview.png", self._preview(partial(render, result)))
        self.progress.artifact(f"{name} preview", preview)
        if self.progress.preview is not None:
            light = self.workspace.write_bytes(f"stage-{name}.glb", draft.glb(result))
            self.progress.artifact(light.name, light)
        record = {"seconds": round(run.seconds, 2), "prior_evaluations": run.evaluations}
        self._finish(name, {**record, "stepped_down": measures} if measures else record)
        return result

    def _preview(self, render: Callable[[Cameras], Render]) -> bytes:
        device = self.reference.rgba.device
        return preview_png(lambda cameras: render(cameras.to(device)))

    def _new_run(self, name: str) -> StageRun:
        return StageRun(name, self.config.seed, self.progress, None, self._evaluations)

    def _supervision(self, name: str) -> Supervision:
        """The reference, and the priors of the stage, ready for work."""
        return Supervision(self.reference, *self.shelf.pair(self.config.priors_of(name)))

    def _priors_of(self, name: str) -> list[str]:
        """What the fingerprint says of the priors (nothing for those that come with the program)."""
        named = [str(prior) for prior in self.config.priors_of(name)]
        return [] if set(named) <= {"bundled", "None"} else [*named, self.config.prompt]

    def lifted_start(self) -> SurfaceStart | None:
        """The surface of the 3D-aware prior's volume (`stages.lifted_start`), saved like a stage's result.

        None, with the reason as a note and in the report (`stages.start`), where the prior makes no volume, or the
        silhouette of its surface disagrees with the picture: then the volume stages do the work.
        """
        name, settings = "start", self.config.coarse_nerf.lifted
        names = self.config.priors_of("coarse_nerf")
        grid = fingerprint(self.config.coarse_nerf.hash_grid)  # of the colours that the geometry stage starts from
        self.upstream = fingerprint(settings, name, grid, *self._priors_of("coarse_nerf"), str(names[0]), self.upstream)
        saved = self.workspace.file("stages", name, "result.safetensors")
        if self.workspace.finished(name, self.upstream) and (state := read_state(saved)) is not None:
            record = self.records[name] = self.workspace.record(name) or {}
            self.progress.note(f"{name}: already done, using the saved result.")
            return SurfaceStart.load(state).to(self.reference.rgba.device) if record["used"] else None
        self.workspace.begin(name, self.upstream)
        began, view = time.perf_counter(), self.shelf.pair(names)[0]
        surface, reason = try_lifted_start(view, self._supervision("coarse_nerf"), settings)
        write_state(saved, {} if surface is None else surface.state())
        if reason is None and surface is not None:
            self._show_start(surface)
        else:
            self.progress.note(f"{name}: {reason}; the object is found from a soft ball instead, which takes longer.")
        record = {"seconds": round(time.perf_counter() - began, 2), "used": reason is None}
        record |= {} if surface is None else {"agreement": round(surface.agreement, 4)}
        self._finish(name, record | ({} if reason is None else {"reason": reason}))
        return surface if reason is None else None

    def _show_start(self, surface: SurfaceStart) -> None:
        """Leave the same previews as a stage."""
        render = partial(render_mesh, surface.mesh, surface.colour(), size=PREVIEW_SIZE)
        preview = self.workspace.write_bytes("stages/start/preview.png", self._preview(lambda c: render(cameras=c)))
        self.progress.artifact("start preview", preview)
        if self.progress.preview is not None:
            draft = Draft(SurfaceStart, lambda start: start.mesh, lambda start: start.colour())
            light = self.workspace.write_bytes("stage-start.glb", draft.glb(surface))
            self.progress.artifact(light.name, light)

    def align(self, given: GivenShape) -> Similarity:
        """Where a given mesh belongs, as a stage of its own: the search takes seconds, and the report tells of it."""
        name, settings = "shape", self.config.shape.model_copy(update={"mesh": None})
        self.upstream = fingerprint(settings, name, given.digest, self.upstream)
        if self.workspace.finished(name, self.upstream) and (record := self.workspace.record(name)) is not None:
            self.records[name] = record
            return Similarity.from_record(record["transform"])
        self.workspace.begin(name, self.upstream)
        start = time.perf_counter()
        found = fit_shape(given, self.reference.to("cpu"), self.config.shape, self.progress)
        record = {"seconds": round(time.perf_counter() - start, 2), "overlap": round(found.iou, 4)}
        self._finish(name, {**record, "transform": found.transform.as_record()})
        return found.transform

    def prepare(self, mesh_of: Callable[[], Mesh]) -> export.UnwrappedMesh:
        """Clean-up, decimation and unwrapping, as a stage of its own: it takes time and the texture depends on it."""
        name = "mesh"
        settings = self.config.export
        self.upstream = fingerprint(settings, name, self.upstream)
        saved = self.workspace.file("stages", name, "result.safetensors")
        if self.workspace.finished(name, self.upstream) and (state := read_state(saved)) is not None:
            record = self.records[name] = self.workspace.record(name) or {}
            saved_mesh: dict[str, Any] = {**state, **record["unwrap"]}
            return export.UnwrappedMesh(**saved_mesh, report=export.CleanReport(**record["clean_up"]))
        self.workspace.begin(name, self.upstream)
        start = time.perf_counter()
        self.progress.note("mesh: cleaning, decimating and unwrapping.")
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

    def delight(self) -> None:
        """Go on with a reference image without shading, if the configuration says so (`reference.delight`)."""
        if not self.config.reference.delight:
            return
        if self.reference.normal is None:
            self.progress.warn("The shading stays in the image: no normals of it are known.")
        self.reference = delit(self.reference)
        self.upstream = f"{self.upstream} {reference_digest(self.reference)}"

    def finish(self, unwrapped: export.UnwrappedMesh, texture: Texture) -> Result:
        """Bakes, writes the GLB, the turntable and the report (which needs the others, so it comes last)."""
        start = time.perf_counter()
        self.progress.note("export: baking the texture and writing the files.")
        view, baked = self.reference, export.bake(unwrapped, texture.at)
        projected = export.project_image(unwrapped, view.rgba, view.camera, baked, self.config.projection)
        textured = unwrapped.with_texture(projected.texture).to("cpu")
        known = projected.weight if self.config.projection.enabled else None
        textured = paint_unseen_sides(textured, view, self.config, weight=known)
        glb = self.workspace.write_bytes("result.glb", export.write_glb(textured))
        self.progress.artifact("result.glb", glb)
        picture = self.workspace.file("turntable.png")
        turntable(glb, picture)
        self.progress.artifact("turntable.png", picture)
        self.records["export"] = {
            "seconds": round(time.perf_counter() - start, 2),
            "from_image": round(float((projected.weight >= 1.0).float().mean()), 4),
            **peaks(self.reference.rgba.device),
        }
        report = self._report(textured)
        self.progress.artifact("report.json", self.workspace.write_json("report.json", report))
        return Result(glb, picture, textured, report)

    def _report(self, textured: export.TexturedMesh) -> dict[str, Any]:
        supervision = Supervision(self.reference, None, None)
        reference = supervision.targets(REPORT_SIZE).rgba.cpu()
        with torch.no_grad():
            render = render_textured(textured, supervision.camera, REPORT_SIZE).rgba
        stages = self.records.values()
        return {
            "settings": self.config.model_dump(mode="json"),
            "seed": self.config.seed,
            "priors": self.shelf.titles(self.config.prior_names()),
            "matting": self.reference.matting,
            "device": device_name(self.reference.rgba.device),
            "versions": versions(),
            "stages": self.records,
            "seconds": round(sum(record["seconds"] for record in stages), 2),
            "prior_evaluations": sum(record.get("prior_evaluations", 0) for record in stages),
            "peak_memory_mib": max(record["peak_memory_mib"] for record in stages),
            "metrics": {"reference_psnr": round(float(psnr(on_white(render), on_white(reference))), 3)},
            "faces": len(textured.faces),
        }

    def _finish(self, name: str, record: dict[str, Any]) -> None:
        self.records[name] = {**record, **peaks(self.reference.rgba.device)}
        self.workspace.mark_finished(name, self.upstream, self.records[name])

    def _evaluations(self) -> int:
        return sum(prior.evaluations for prior in self.shelf.all())


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
    """A name for what the user gave: the picture after stage 0, its maps and its camera."""
    digest = hashlib.sha256(f"{reference.elevation:.6f} {reference.fovy:.6f}".encode())
    for image in (reference.rgba, reference.depth, reference.normal):
        digest.update(b"none" if image is None else image.cpu().contiguous().numpy().tobytes())
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


def peaks(device: torch.device) -> dict[str, int]:
    """Peak memory in MiB: of this process so far, and of the card since the last call."""
    record = {"peak_memory_mib": peak_memory_mib()}
    if device.type != "cpu":
        record["peak_card_memory_mib"] = torch.cuda.max_memory_allocated(device) >> 20
        torch.cuda.reset_peak_memory_stats(device)
    return record


def device_name(device: torch.device) -> str:
    """What the report calls the place where the work was done."""
    return "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device)


def versions() -> dict[str, str]:
    """What made the result, for the report and for bug reports."""
    packages = {name: metadata.version(name) for name in ("torch", "warp-lang", "diffusers", "xatlas")}
    return {"dreamcraft3d": __version__, "python": platform.python_version(), **packages}
