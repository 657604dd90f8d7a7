"""refine(): a request to images, masks and `result.json`; the mesh is read, never written.

The texture stage of the paper optimises a colour field on the mesh as it is, from the reference picture and the priors;
the field is then baked into the mesh's own images. Files in the workspace::

    image_<slot>_<channel>_<tile>.png     as deep as the input (.exr for floats)
    mask_<slot>_<tile>.png                255 painted, 192 painted and shared, 128 gutter, 64 seen by no view, 0 kept
    reference.png, mask.png               what the reference camera was told to see
    result.json                           written last: a folder with it is complete
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from dreamcraft3d.config import GenerateConfig, Schedule, TextureConfig, fingerprint
from dreamcraft3d.functional.cameras import orbit
from dreamcraft3d.functional.mesh import Mesh
from dreamcraft3d.pipeline import PREVIEW_SIZE, Draft, Stages, load_priors, reference_digest, scene_device, versions
from dreamcraft3d.priors.residency import Shelf
from dreamcraft3d.progress import Progress
from dreamcraft3d.refining.alignment import laid_over_outline, mixed, present_view, projected, viewer_of
from dreamcraft3d.refining.baking import BakedTile, Painter, bake_tile, unpainted
from dreamcraft3d.refining.folder import members
from dreamcraft3d.refining.plan import Plan, figures_of, plan_of
from dreamcraft3d.refining.present import PresentColours
from dreamcraft3d.refining.request import RefineRequest, digest
from dreamcraft3d.refining.surface import Surface, surface_of
from dreamcraft3d.refining.tiles import encode
from dreamcraft3d.refining.visibility import looks, outward_normals
from dreamcraft3d.rendering import render_mesh
from dreamcraft3d.stages.colour_fit import fit_colours
from dreamcraft3d.stages.reference import ReferenceView, save_reference
from dreamcraft3d.stages.run import StageRun
from dreamcraft3d.stages.texture import Texture, new_colour, paint_texture
from dreamcraft3d.workspace import Workspace

__all__ = ["RefineResult", "RefinedImage", "refine"]

OTHER_SHAPE = 1.15
"""Ratio of the aspect ratios of picture and mesh above which the user is warned."""

BEFORE = -2
"""The number under which the texture stage draws the points of its first fit."""


@dataclass(frozen=True)
class RefinedImage:
    """One file of the result and what it belongs to."""

    slot: int
    channel: str
    tile: int
    path: Path
    mask: Path


@dataclass(frozen=True)
class RefineResult:
    """What a run leaves behind. `report`: what result.json says."""

    images: tuple[RefinedImage, ...]
    report: dict[str, Any]


def refine(
    request: RefineRequest,
    config: GenerateConfig,
    workspace: Workspace,
    progress: Progress,
    *,
    shelf: Shelf | None = None,
    reference: ReferenceView | None = None,
) -> RefineResult:
    """Repaints the textures that a request names.

    Args:
        config: see `request.configured_by`. shelf: priors kept from an earlier run.
        reference: what the reference camera should see, already in our frame; by default made from the request.

    Raises:
        RefineRefused, InputError, ConfigError, OutputError: the user can do something about it.
        Cancelled: the user stopped; the same call resumes.
    """
    plan = plan_of(request, config)
    with workspace:
        for text in plan.warnings:
            progress.warn(text)
        if config.refine.strength == 0.0:
            return _unchanged(plan, workspace, progress)
        shelf = shelf or load_priors(config)
        surface, elevation = _placed(plan)
        present = PresentColours(request, surface, plan.pictures, plan.uvs)
        warnings = list(plan.warnings)
        if reference is None:
            reference = _reference(plan, surface, present, elevation, workspace, warnings)
        for text in warnings[len(plan.warnings) :]:
            progress.warn(text)
        save_reference(reference, workspace)
        painter, records = _paint(plan, surface, present, reference, shelf, workspace, progress, warnings)
        start = time.perf_counter()
        tiles = []
        for coverage in plan.coverages:
            progress.check()
            tiles.append(bake_tile(coverage, plan.pictures[coverage.target.slot, coverage.number], painter))
        records["baking"] = {"seconds": round(time.perf_counter() - start, 2)}
        extra = {"mesh": figures_of(plan, surface), "stages": records, "priors": shelf.titles(config.prior_names())}
        return _finish(plan, [(tile, None) for tile in tiles], warnings, extra, workspace, progress)


def _placed(plan: Plan) -> tuple[Surface, float]:
    """The mesh turned so that the reference picture is taken from +x, and that camera's elevation (radians)."""
    header, two_sided = plan.request.header, plan.config.refine.two_sided
    surface = surface_of(plan.request, two_sided=two_sided)
    elevation = float(np.radians(plan.config.reference.elevation))
    if header.reference is None or header.reference.world_to_clip is None:
        return surface, elevation
    viewer = viewer_of(header.reference.world_to_clip, header.matrix_world)
    elevation, azimuth = viewer.angles(surface.matrix)
    return surface_of(plan.request, two_sided=two_sided, azimuth=azimuth), elevation


def _reference(
    plan: Plan, surface: Surface, present: PresentColours, elevation: float, workspace: Workspace, warnings: list[str]
) -> ReferenceView:
    wanted, size = plan.request.header.reference, plan.config.reference.size
    now = present_view(surface, present, elevation, size)
    if wanted is None:
        return now
    picture = workspace.write_bytes("picture", plan.request.files[wanted.sha256])
    if wanted.world_to_clip is not None:
        viewer = viewer_of(wanted.world_to_clip, plan.request.header.matrix_world)
        view = projected(picture, viewer, surface, now, plan.config)
    else:
        view, ratio = laid_over_outline(picture, surface, plan.config)
        if ratio > OTHER_SHAPE:
            warnings.append(
                f"The picture's outline and the mesh's differ in shape by {ratio - 1.0:.0%}: "
                "give the picture's --elevation, or the camera it was taken with."
            )
    return mixed(view, now, plan.config.refine.strength)


def _paint(
    plan: Plan,
    surface: Surface,
    present: PresentColours,
    reference: ReferenceView,
    shelf: Shelf,
    workspace: Workspace,
    progress: Progress,
    warnings: list[str],
) -> tuple[Painter, dict[str, Any]]:
    """The texture stage on this mesh, and what the views show of it."""
    config, strength = plan.config, plan.config.refine.strength
    upstream = fingerprint(config.refine, request_digest(plan.request), reference_digest(reference))
    device = scene_device(config, progress)
    stages = Stages(config, workspace, progress, reference.to(device), shelf, upstream=upstream)
    settings, mesh = texture_settings(config), surface.mesh.to(device)
    texture = stages.run(
        "texture",
        settings,
        lambda run: Texture(new_colour(settings, run.generator(), device)),
        lambda supervision, settings, run: paint_texture(supervision, mesh, present, settings, run),
        lambda texture, cameras: render_mesh(mesh, texture.colour, cameras, PREVIEW_SIZE),
        Draft(Texture, lambda _: mesh, lambda texture: texture.at),
    )
    if plan.request.header.prompt and config.priors_of("texture")[1] is None:
        warnings.append("The prompt is not used: no prior of this preset reads text.")
        progress.warn(warnings[-1])
    before = _fitted(mesh, present, settings, config.seed) if strength < 1.0 else None
    views = looks(surface, settings.guidance.elevation, orbit(reference.elevation, 0.0))
    if views.inside_out:
        warnings.append(f"{views.inside_out} triangles look inward; they were painted as if they looked outward.")
        progress.warn(warnings[-1])
    normals = outward_normals(surface, views)

    def seen(triangle: NDArray[np.integer[Any]], x: Float[Tensor, "N 3"]) -> NDArray[np.bool_]:
        return np.asarray(views.show(x, torch.from_numpy(normals[triangle]).float()).numpy())

    keep, average = config.refine.unseen == "keep", config.refine.overlap == "average"
    padding = config.refine.padding
    return Painter(surface, texture.at, before, strength, seen if keep else None, padding, average), stages.records


def _fitted(
    mesh: Mesh, present: PresentColours, settings: TextureConfig, seed: int
) -> Callable[[Float[Tensor, "N 3"]], Float[Tensor, "N 3"]]:
    """The field as the texture stage had it before its first step."""
    run = StageRun("texture", seed, Progress())
    colour = new_colour(settings, run.generator(), mesh.vertices.device)
    fit_colours(colour, mesh, present, run.generator(BEFORE), steps=settings.fit_steps, batch=settings.fit_batch)
    return Texture(colour).at


def texture_settings(config: GenerateConfig) -> TextureConfig:
    """The texture stage of a refinement: its own camera heights, and its noise levels times the strength.

    >>> texture_settings(GenerateConfig(refine=RefineConfig(strength=0.5))).guidance.t_high
    0.425
    """
    guidance, strength = config.texture.guidance, config.refine.strength
    changed = {
        "t_low": _scaled(guidance.t_low, strength),
        "t_high": _scaled(guidance.t_high, strength),
        "elevation": config.refine.elevation or guidance.elevation,
    }
    return config.texture.model_copy(update={"guidance": guidance.model_copy(update=changed)})


def _scaled(schedule: Schedule, factor: float) -> Schedule:
    if isinstance(schedule, tuple):
        return tuple((fraction, factor * value) for fraction, value in schedule)
    return factor * schedule


def request_digest(request: RefineRequest) -> str:
    """A name for all of a request."""
    total = hashlib.sha256()
    for name, data in members(request).items():
        total.update(f"{name}:{len(data)}:{digest(data)}\n".encode())
    return total.hexdigest()


def _unchanged(plan: Plan, workspace: Workspace, progress: Progress) -> RefineResult:
    """Strength 0: the images come back as the very bytes that came (or as they were decoded, if not PNG or EXR)."""
    tiles: list[tuple[BakedTile, bytes | None]] = []
    for coverage in plan.coverages:
        tile = next(t for t in coverage.target.tiles if t.number == coverage.number)
        data = None if tile.sha256 is None else plan.request.files[tile.sha256]
        same = data if data is not None and data.startswith((b"\x89PNG", b"\x76\x2f\x31\x01")) else None
        tiles.append((unpainted(coverage, plan.pictures[coverage.target.slot, coverage.number]), same))
    return _finish(plan, tiles, list(plan.warnings), {}, workspace, progress)


def _finish(
    plan: Plan,
    tiles: list[tuple[BakedTile, bytes | None]],
    warnings: list[str],
    extra: dict[str, Any],
    workspace: Workspace,
    progress: Progress,
) -> RefineResult:
    """Writes the images, the masks and, last, result.json."""
    images, files = [], []
    spaces = {target.slot: target.colourspace for target in plan.request.header.targets}
    workspace.file("result.json").unlink(missing_ok=True)
    for tile, same in tiles:
        data, suffix = encode(tile.picture) if same is None else (same, ".png" if same[:1] == b"\x89" else ".exr")
        path = workspace.write_bytes(f"image_{tile.slot}_{tile.channel}_{tile.number}{suffix}", data)
        mask = workspace.write_bytes(f"mask_{tile.slot}_{tile.number}.png", bytes(cv2.imencode(".png", tile.mask)[1]))
        progress.artifact(path.name, path)
        images.append(RefinedImage(tile.slot, tile.channel, tile.number, path, mask))
        height, width = tile.picture.pixels.shape[:2]
        files.append(
            {
                "name": path.name,
                "mask": mask.name,
                "slot": tile.slot,
                "channel": tile.channel,
                "tile": tile.number,
                "width": width,
                "height": height,
                "bit_depth": tile.picture.depth,
                "colourspace": spaces[tile.slot],
                "sha256": digest(data),
                **asdict(tile.figures),
            }
        )
    report = {
        "schema": "refine/1",
        "fingerprint": plan.request.header.fingerprint,
        "files": files,
        "warnings": warnings,
        "strength": plan.config.refine.strength,
        "seed": plan.config.seed,
        "settings": plan.config.model_dump(mode="json"),
        "versions": versions(),
        **extra,
    }
    progress.artifact("result.json", workspace.write_json("result.json", report))
    return RefineResult(tuple(images), report)
