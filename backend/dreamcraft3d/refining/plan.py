"""Everything about a request that is known before a prior is asked: refused now, or ready to be painted."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamcraft3d.config import GenerateConfig
from dreamcraft3d.refining.coverage import Coverage, check_overlaps, coverage_of, plain_coordinates
from dreamcraft3d.refining.present import Pictures, open_tiles
from dreamcraft3d.refining.refusals import EmptyMask, MeshTooDense
from dreamcraft3d.refining.request import RefineRequest, Target
from dreamcraft3d.refining.surface import Surface, with_area
from dreamcraft3d.refining.tiles import check_colourspace

__all__ = ["Plan", "figures_of", "plan_of"]


@dataclass(frozen=True)
class Plan:
    """A request that can be painted.

    Attributes:
        uvs: plain coordinates by slot. coverages: one per tile. warnings: what the user should know.
    """

    request: RefineRequest
    config: GenerateConfig
    pictures: Pictures
    uvs: dict[int, NDArray[np.float64]]
    coverages: tuple[Coverage, ...]
    warnings: tuple[str, ...]


def plan_of(request: RefineRequest, config: GenerateConfig) -> Plan:
    """Checks the request, decodes its images, and finds out which face owns which texel.

    Raises:
        RefineRefused: see `refusals`.
    """
    _check_size(request, config)
    for target in request.header.targets:
        check_colourspace(target)
    pictures = open_tiles(request)
    usable = with_area(request) & np.isfinite(request.soup.tri_uv).all(axis=(1, 2))
    uvs: dict[int, NDArray[np.float64]] = {}
    coverages: list[Coverage] = []
    warnings = _slot_warnings(request, usable)
    for target in request.header.targets:
        target = _with_true_sizes(target, pictures)
        uvs[target.slot], folded = plain_coordinates(request.soup, target)
        tiles = list(coverage_of(request.soup, target, uvs[target.slot], usable))
        check_overlaps(tiles, config.refine.overlap, folded)
        coverages += tiles
        warnings += _tile_warnings(request, target, uvs[target.slot], tiles)
    if not any((coverage.owner >= 0).any() for coverage in coverages):
        raise EmptyMask("the chosen faces of the chosen slots cover no texel")
    return Plan(request, config, pictures, uvs, tuple(coverages), tuple(warnings))


def _density(plan: Plan, surface: Surface) -> dict[str, float]:
    """Texels per metre (world unit) along a side: smallest, middle and largest 5 %, of the painted triangles."""
    values = [_densities(coverage, surface) for coverage in plan.coverages]
    found = np.concatenate(values) if values else np.zeros(0)
    if not len(found):
        return {"min": 0.0, "median": 0.0, "max": 0.0}
    low, middle, high = np.percentile(found, [5.0, 50.0, 95.0])
    return {"min": round(float(low), 3), "median": round(float(middle), 3), "max": round(float(high), 3)}


def _densities(coverage: Coverage, surface: Surface) -> NDArray[np.float64]:
    painted = np.unique(coverage.owner[coverage.owner >= 0])
    a, b = (coverage.corners[painted, k] - coverage.corners[painted, 0] for k in (1, 2))
    texels = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])
    corners = surface.corners[painted] / surface.scale
    metres = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    return np.asarray(np.sqrt(texels / np.maximum(metres, 1e-30)))


def _check_size(request: RefineRequest, config: GenerateConfig) -> None:
    count, most = len(request.soup.tri_vertex), config.refine.max_triangles
    if count > most:
        raise MeshTooDense(f"{count:,} triangles", f"{most:,}", "refine.max_triangles")
    texels = sum(tile.width * tile.height for target in request.header.targets for tile in target.tiles) / 1e6
    if texels > config.refine.max_megatexels:
        limit = f"{config.refine.max_megatexels:g} million"
        raise MeshTooDense(f"textures of {texels:.0f} million texels", limit, "refine.max_megatexels")


def _with_true_sizes(target: Target, pictures: Pictures) -> Target:
    """The target with the sizes that its files really have."""
    tiles = []
    for tile in target.tiles:
        height, width = pictures[target.slot, tile.number].pixels.shape[:2]
        tiles.append(tile.model_copy(update={"width": width, "height": height}))
    return target.model_copy(update={"tiles": tuple(tiles)})


def _slot_warnings(request: RefineRequest, usable: NDArray[np.bool_]) -> list[str]:
    broken = int(np.count_nonzero(~usable))
    return (
        [f"{broken} triangles have no area, or coordinates that are not numbers; they are left out."] if broken else []
    )


def _tile_warnings(request: RefineRequest, target: Target, uv: NDArray[np.float64], tiles: list[Coverage]) -> list[str]:
    name, warnings = f"Slot {target.slot}", []
    share = max(tile.overlap for tile in tiles)
    if share > 0.0:
        warnings.append(f"{name}: {share:.1%} of the painted texels belong to several faces (see the mask).")
    if target.udim:
        warnings += _udim_warnings(request, target, uv)
    painted: set[int] = set().union(*(set(np.unique(tile.owner)) | set(tile.pairs[1].tolist()) for tile in tiles)) - {
        -1
    }
    own = int(np.count_nonzero((request.soup.tri_slot == target.slot) & request.soup.tri_paint))
    if own > len(painted):
        warnings.append(
            f"{name}: {own - len(painted)} of {own} faces hold no texel of their own: too small, or outside."
        )
    return warnings


def _udim_warnings(request: RefineRequest, target: Target, uv: NDArray[np.float64]) -> list[str]:
    mine = (request.soup.tri_slot == target.slot) & request.soup.tri_paint & np.isfinite(uv).all(axis=(1, 2))
    centre = np.floor(uv[mine].mean(axis=1)).astype(np.int64)
    low, high = np.floor(uv[mine].min(axis=1) + 1e-6), np.ceil(uv[mine].max(axis=1) - 1e-6) - 1.0
    crossing = (high > low).any(axis=1)
    used = set((1001 + centre[:, 0] + 10 * centre[:, 1]).tolist())
    missing = sorted(used - {tile.number for tile in target.tiles})
    warnings = []
    if crossing.any():
        warnings.append(f"Slot {target.slot}: {int(crossing.sum())} faces cross the border of a UDIM tile.")
    if missing:
        warnings.append(f"Slot {target.slot}: there is no image for the tiles {missing}; their faces are not painted.")
    return warnings


def figures_of(plan: Plan, surface: Surface) -> dict[str, Any]:
    """What result.json says about the mesh."""
    return {
        "triangles": len(plan.request.soup.tri_vertex),
        "degenerate": int(np.count_nonzero(~surface.usable)),
        "thin": surface.thin,
        "texels_per_metre": _density(plan, surface),
    }
