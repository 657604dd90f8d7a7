"""Distances to a triangle mesh, its nearest points, and rays cast at it: Warp's bounding volume hierarchy behind torch.

Inside is where the generalised winding number exceeds 1/2, so open, overlapping or slightly broken meshes still get a
sensible sign: negative inside, positive outside. Nothing here is differentiable. Faces with a corner that is not finite
are ignored. One hierarchy serves many queries: keep a `MeshQuery` where the mesh stays; the functions build one for a
single use.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreamcraft3d.kernels.bands import as_warp, loaded
from dreamcraft3d.kernels.dispatch import in_ranges, launch, settle, warp
from dreamcraft3d.kernels.mesh_query_source import query_kernels

FAR = 1.0e6  # largest distance that a query looks at


class MeshQuery:
    """A mesh prepared for queries.

    Raises:
        ValueError: the mesh has no (finite) face.
    """

    def __init__(self, vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"]) -> None:
        points = vertices.detach().float().contiguous()
        usable = torch.isfinite(points).all(-1)[faces].all(-1)
        if not bool(usable.any()):
            raise ValueError("a mesh without faces has no distances")
        self._numbers = torch.nonzero(usable).squeeze(1)
        self._points = torch.nan_to_num(points, nan=0.0, posinf=0.0, neginf=0.0)
        self._indices = faces[usable].int().reshape(-1).contiguous()
        arrays = as_warp(self._points), as_warp(self._indices, 1)
        settle(points.device)
        self._mesh = warp().Mesh(*arrays, support_winding_number=True, bvh_leaf_size=4)
        settle(points.device)

    def signed_distance(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, " N"]:
        """Distance to the surface, negative inside; inf for points that are not finite."""
        query, result = points.detach().float().contiguous(), points.new_empty(len(points), dtype=torch.float32)
        kernels = loaded(query_kernels(), self._points.device)

        def part(first: int, count: int) -> None:
            span = slice(first, first + count)
            inputs = [as_warp(query[span]), self._mesh.id, FAR, as_warp(result[span], 1)]
            launch(kernels.signed_distance, (count,), inputs)

        self._run(len(query), part)
        return result

    def closest_points(
        self, points: Float[Tensor, "N 3"]
    ) -> tuple[Float[Tensor, "N 3"], Int[Tensor, " N"], Float[Tensor, "N 3"]]:
        """The nearest surface point, its face (-1 where the query is not finite) and its barycentrics there."""
        query = points.detach().float().contiguous()
        nearest, weights = torch.empty_like(query), torch.empty_like(query)
        found = torch.empty(len(query), dtype=torch.int32, device=query.device)
        kernels = loaded(query_kernels(), self._points.device)

        def part(first: int, count: int) -> None:
            span = slice(first, first + count)
            outputs = [as_warp(nearest[span]), as_warp(found[span], 1), as_warp(weights[span])]
            launch(kernels.closest_points, (count,), [as_warp(query[span]), self._mesh.id, FAR, *outputs])

        self._run(len(query), part)
        return nearest, self._face_numbers(found), weights

    def cast_rays(
        self, origins: Float[Tensor, "N 3"], directions: Float[Tensor, "N 3"]
    ) -> tuple[Float[Tensor, " N"], Int[Tensor, " N"]]:
        """First hit origin + t direction, t >= 0, from either side, and its face; t = inf and face -1 where nothing is
        hit."""
        starts, along = origins.detach().float().contiguous(), directions.detach().float().contiguous()
        t = torch.empty(len(starts), device=starts.device)
        found = torch.empty(len(starts), dtype=torch.int32, device=starts.device)
        kernels = loaded(query_kernels(), self._points.device)

        def part(first: int, count: int) -> None:
            span = slice(first, first + count)
            inputs = [as_warp(starts[span]), as_warp(along[span]), self._mesh.id, FAR]
            launch(kernels.cast_rays, (count,), [*inputs, as_warp(t[span], 1), as_warp(found[span], 1)])

        self._run(len(starts), part)
        return t, self._face_numbers(found)

    def _run(self, count: int, part: Callable[[int, int], None]) -> None:
        """All queries, to the end: the hierarchy may be gone a moment later."""
        in_ranges(self._points.device, count, part)
        settle(self._points.device)

    def _face_numbers(self, found: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
        """Numbers among the usable faces -> numbers among all; -1 stays."""
        return torch.where(found >= 0, self._numbers[found.clamp_min(0).long()], -1)


def signed_distance(
    points: Float[Tensor, "N 3"], vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"]
) -> Float[Tensor, " N"]:
    """Distances of points to a mesh, negative inside (see `MeshQuery`)."""
    return MeshQuery(vertices, faces).signed_distance(points)


def closest_points(
    points: Float[Tensor, "N 3"], vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"]
) -> tuple[Float[Tensor, "N 3"], Int[Tensor, " N"], Float[Tensor, "N 3"]]:
    """Nearest surface points, their faces and barycentrics (see `MeshQuery`)."""
    return MeshQuery(vertices, faces).closest_points(points)


def cast_rays(
    origins: Float[Tensor, "N 3"],
    directions: Float[Tensor, "N 3"],
    vertices: Float[Tensor, "V 3"],
    faces: Int[Tensor, "F 3"],
) -> tuple[Float[Tensor, " N"], Int[Tensor, " N"]]:
    """First hits t (inf = miss) and faces (-1 = miss) of rays (see `MeshQuery`)."""
    return MeshQuery(vertices, faces).cast_rays(origins, directions)
