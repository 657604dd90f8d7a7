"""The Warp source of the mesh queries: one text for CPU and CUDA. `mesh_query.py` is its door to torch."""

# mypy: disable-error-code="valid-type,no-untyped-def"
from functools import cache
from types import SimpleNamespace

from dreamcraft3d.kernels.dispatch import warp


@cache
def query_kernels() -> SimpleNamespace:
    """Compile (on first use; cached on disk) and return the kernels by name."""
    wp = warp()

    @wp.kernel(enable_backward=False)
    def signed_distance(points: wp.array(dtype=wp.vec3), mesh: wp.uint64, far: float, distance: wp.array(dtype=float)):
        i = wp.tid()
        point = points[i]
        distance[i] = wp.inf
        if wp.isfinite(point):
            query = wp.mesh_query_point_sign_winding_number(mesh, point, far)
            if query.result:
                nearest = wp.mesh_eval_position(mesh, query.face, query.u, query.v)
                distance[i] = query.sign * wp.length(nearest - point)

    @wp.kernel(enable_backward=False)
    def closest_points(
        points: wp.array(dtype=wp.vec3),
        mesh: wp.uint64,
        far: float,
        nearest: wp.array(dtype=wp.vec3),
        face: wp.array(dtype=int),
        weights: wp.array(dtype=wp.vec3),
    ):
        i = wp.tid()
        point = points[i]
        nearest[i] = wp.vec3(wp.nan, wp.nan, wp.nan)
        weights[i] = wp.vec3(wp.nan, wp.nan, wp.nan)
        face[i] = -1
        if wp.isfinite(point):
            query = wp.mesh_query_point_no_sign(mesh, point, far)
            if query.result:
                nearest[i] = wp.mesh_eval_position(mesh, query.face, query.u, query.v)
                weights[i] = wp.vec3(query.u, query.v, 1.0 - query.u - query.v)
                face[i] = query.face

    @wp.kernel(enable_backward=False)
    def cast_rays(
        origins: wp.array(dtype=wp.vec3),
        directions: wp.array(dtype=wp.vec3),
        mesh: wp.uint64,
        far: float,
        t: wp.array(dtype=float),
        face: wp.array(dtype=int),
    ):
        i = wp.tid()
        t[i] = wp.inf
        face[i] = -1
        if wp.isfinite(origins[i]) and wp.isfinite(directions[i]):
            query = wp.mesh_query_ray(mesh, origins[i], directions[i], far)
            if query.result:
                t[i] = query.t
                face[i] = query.face

    return SimpleNamespace(signed_distance=signed_distance, closest_points=closest_points, cast_rays=cast_rays)
