"""Objects from one picture each, scored against the object that the picture shows: what is a prior worth in 3D?

The same stages run with the prior and without it (its weight set to zero, everything else equal). Nothing but the
picture is given: no depth, no normals of the truth.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median

import numpy as np
import torch

from dreamcraft3d.config import GenerateConfig, with_settings
from dreamcraft3d.errors import ObjectLost
from dreamcraft3d.evaluation.meshes import load_mesh, normalise
from dreamcraft3d.evaluation.oracle import reference_of, score
from dreamcraft3d.export import TexturedMesh, write_glb
from dreamcraft3d.pipeline import load_priors, run_stages, with_estimates
from dreamcraft3d.presets import STAGES
from dreamcraft3d.progress import Progress
from dreamcraft3d.training.drawing import held_out_surface
from dreamcraft3d.training.objects import ObjectPack, split_faces
from dreamcraft3d.training.shapes import HELD_OUT, framed, make_object
from dreamcraft3d.training.surfaces import Lighting, Surface, random_lighting
from dreamcraft3d.workspace import Workspace

WITH, WITHOUT = "with prior", "without"


@dataclass(frozen=True)
class ReconstructionRow:
    """One run on one object. Scores over 24 unseen views (of their patches: see `patch_statistics`); `depth_error` =
    |ratio / true ratio - 1| of depth to width of the bounding box. A run that lost the object scores zero, and its
    errors and distances are one."""

    object: str
    variant: str
    unseen_iou: float = 0.0
    unseen_psnr: float = 0.0
    reference_iou: float = 0.0
    reference_psnr: float = 0.0
    f_score: float = 0.0
    depth_error: float = 1.0
    seconds: float = 0.0
    unseen_sharpness: float = 0.0
    unseen_patch_distance: float = 1.0


def objects_from(meshes: Iterable[Path], held_out: Iterable[int]) -> Iterator[tuple[str, TexturedMesh, float]]:
    """(name, object in the reference frame, elevation of its picture in radians) of files and of held-out seeds."""
    for seed in held_out:
        if seed >= HELD_OUT:
            raise ValueError(f"seed {seed} is trained on; held-out seeds are below {HELD_OUT}")
        thing = make_object(seed, detail=2)
        vertices, faces, colours = (
            torch.from_numpy(a) for a in (thing.solid.vertices, thing.solid.faces, thing.solid.colours)
        )
        mesh = TexturedMesh(vertices.float(), faces.long(), vertex_colours=colours.float())
        yield f"{thing.solid.kind}-{seed}", mesh, thing.elevation
    for path in meshes:
        yield path.stem, normalise(load_mesh(path))[0], 0.0


def packed_objects(path: Path, *, per_class: int) -> Iterator[tuple[str, TexturedMesh, float]]:
    """(name, object in the reference frame, elevation) of the first held-out objects of each class of a pack.

    Their textures become colours of vertices, on faces cut into small ones, with the light of a training picture.

    Raises:
        InputError: the file is no pack.
    """
    pack, taken = ObjectPack(path), Counter[str]()
    for thing in pack.chosen(held_out=True):
        if taken[thing.kind] < per_class:
            taken[thing.kind] += 1
            surface, elevation, rng = held_out_surface(pack, thing)
            placed = surface.moved(framed(surface.vertices.numpy().astype(np.float64), elevation))
            yield thing.id.replace("/", "-"), lit_mesh(placed, random_lighting(rng)), elevation


def lit_mesh(surface: Surface, lighting: Lighting, *, faces: int = 60_000) -> TexturedMesh:
    """A surface as a mesh with the colours that it has in a light (without gloss), at up to so many faces."""
    corners = torch.cat([surface.vertices[surface.faces], torch.eye(3).expand(len(surface.faces), 3, 3)], dim=2)
    face = torch.arange(len(corners))
    while 4 * len(corners) <= faces:
        corners, face = torch.from_numpy(split_faces(corners.numpy())), face.repeat(4)
    places, weights, of = corners[..., :3].reshape(-1, 3), corners[..., 3:].reshape(-1, 3), face.repeat_interleave(3)
    normals = surface.normals_at(of, weights)
    colours = replace(lighting, gloss=0.0).on(surface.paint.at(of, weights), normals, normals)
    return TexturedMesh(places, torch.arange(len(places)).reshape(-1, 3), vertex_colours=colours)


def variants(config: GenerateConfig, *, without: bool, with_prior: bool = True) -> dict[str, GenerateConfig]:
    """The configurations to compare."""
    blind = {f"{stage}.guidance.{weight}": 0.0 for stage in STAGES for weight in ("view_weight", "image_weight")}
    wanted = {WITH: config} if with_prior else {}
    return {**wanted, **({WITHOUT: with_settings(config, blind)} if without else {})}


def reconstruct(
    objects: Iterable[tuple[str, TexturedMesh, float]],
    configs: Mapping[str, GenerateConfig],
    out: Path,
    progress: Progress,
) -> Iterator[ReconstructionRow]:
    """Runs every configuration on every object; results stay in `out`/OBJECT/VARIANT, beside the truth."""
    for name, truth, elevation in objects:
        for variant, config in configs.items():
            tilted = with_settings(config, {"reference.elevation": math.degrees(elevation)})
            yield _row(name, truth, variant, tilted, out / name / variant.replace(" ", "-"), progress)


def _row(
    name: str, truth: TexturedMesh, variant: str, config: GenerateConfig, folder: Path, progress: Progress
) -> ReconstructionRow:
    elevation = math.radians(config.reference.elevation_or_level)
    picture = dataclasses.replace(reference_of(truth, elevation), depth=None, normal=None)
    with Workspace(folder) as workspace:
        workspace.write_bytes("ground_truth.glb", write_glb(truth))
        priors = load_priors(config)
        reference = with_estimates(picture, priors, config) if variant == WITH else picture
        try:
            result = run_stages(reference, priors, config, workspace, progress)
        except ObjectLost:
            return ReconstructionRow(name, variant)
    scores = score(result.textured, truth, elevation)
    kept = (
        "unseen_iou", "unseen_psnr", "reference_iou", "reference_psnr", "f_score", "unseen_sharpness",
        "unseen_patch_distance",
    )  # fmt: skip
    error = abs(depth_to_width(result.textured) / depth_to_width(truth) - 1.0)
    seconds = result.report["seconds"]
    return ReconstructionRow(name, variant, **{k: scores[k] for k in kept}, depth_error=error, seconds=seconds)


def depth_to_width(mesh: TexturedMesh) -> float:
    """Extent along the viewing direction over that across it, of the bounding box."""
    extent = mesh.vertices.max(0).values - mesh.vertices.min(0).values
    return float(extent[0] / extent[1].clamp_min(1e-6))


def reconstruction_table(rows: list[ReconstructionRow]) -> str:
    """Every run and the means (medians for the depth error and the sharpness), as Markdown."""
    head = "| object | variant | unseen IoU | unseen PSNR | front IoU | front PSNR | F-score | depth error | "
    head += "seconds | sharpness | patch distance |"
    lines = [head, "|---|---|---|---|---|---|---|---|---|---|---|", *(_line(row.object, row) for row in rows)]
    for variant in (WITH, WITHOUT):
        mine = [row for row in rows if row.variant == variant]
        if mine:
            fields = {f.name: mean(getattr(r, f.name) for r in mine) for f in dataclasses.fields(mine[0])[2:]}
            fields |= {name: median(getattr(row, name) for row in mine) for name in ("depth_error", "unseen_sharpness")}
            lines.append(_line(f"**{len(mine)} objects**", ReconstructionRow("", variant, **fields)))
    return "\n".join(lines)


def _line(name: str, row: ReconstructionRow) -> str:
    return (
        f"| {name} | {row.variant} | {row.unseen_iou:.3f} | {row.unseen_psnr:.2f} | {row.reference_iou:.3f} | "
        f"{row.reference_psnr:.2f} | {row.f_score:.3f} | {row.depth_error:.0%} | {row.seconds:.0f} | "
        f"{row.unseen_sharpness:.2f} | {row.unseen_patch_distance:.4f} |"
    )
