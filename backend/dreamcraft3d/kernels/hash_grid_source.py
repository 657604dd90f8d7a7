"""The Warp source of the hash grid: one text for CPU and CUDA. `hash_grid.py` is its door to torch.

Letters: i point, k level, u position in [0,1]^3, p = u scale + 1/2, w = frac(p), N resolution, n entries of the level.
The corner (x, y, z) has the index  x + N y + N^2 z mod n  on a dense level and, in 32 bits,
x ^ 2654435761 y ^ 805459861 z mod n  on a hashed one: `stride_y` and `stride_z` are those factors.
"""

# mypy: disable-error-code="valid-type,no-untyped-def,attr-defined"
# ruff: noqa: UP018 - in a kernel float(0.0) makes a variable; a bare literal is a constant

from functools import cache
from types import SimpleNamespace
from typing import Any

from dreamcraft3d.kernels.dispatch import warp

WIDE = {"cpu_compiler_flags": "-march=native"}
"""LLVM's own limits for packing scalars into vectors, which Warp lowers: the forward kernel gains a quarter."""


@cache
def hash_grid_types() -> SimpleNamespace:
    """The `Level` record that the kernels read."""
    wp = warp()

    @wp.struct
    class Level:
        scale: wp.float32
        hashed: wp.int32
        first: wp.uint32
        entries: wp.uint32
        stride_y: wp.uint32
        stride_z: wp.uint32

    return SimpleNamespace(Level=Level)


@cache
def hash_grid_kernels(features: int) -> SimpleNamespace:
    """The kernels for entries of so many features; each compiles on its first launch and is then cached on disk."""
    wp = warp()
    Level = hash_grid_types().Level
    vector: Any = wp.types.vector(length=features, dtype=wp.float32)

    @wp.func
    def cell(u: wp.vec3, scale: float):
        """Lowest corner of the cell of u, clamped into the box: no index may leave the table, not even a NaN's."""
        return wp.vec3(
            wp.floor(wp.min(wp.max(u[0], 0.0), 1.0) * scale + 0.5),
            wp.floor(wp.min(wp.max(u[1], 0.0), 1.0) * scale + 0.5),
            wp.floor(wp.min(wp.max(u[2], 0.0), 1.0) * scale + 0.5),
        )

    @wp.func
    def fraction(u: wp.vec3, scale: float, corner: wp.vec3):
        """w in [0,1]^3; u - u turns a coordinate that is not finite into NaN features instead of plausible ones."""
        return wp.vec3(
            wp.min(wp.max(u[0], 0.0), 1.0) * scale + 0.5 - corner[0] + (u[0] - u[0]),
            wp.min(wp.max(u[1], 0.0), 1.0) * scale + 0.5 - corner[1] + (u[1] - u[1]),
            wp.min(wp.max(u[2], 0.0), 1.0) * scale + 0.5 - corner[2] + (u[2] - u[2]),
        )

    @wp.func
    def entry(level: Level, x: wp.uint32, y: wp.uint32, z: wp.uint32):
        """Row of the table: hashed levels have 2^k entries; a dense index exceeds its level by less than one turn."""
        if level.hashed != 0:
            return wp.int32(level.first + ((x ^ y ^ z) & (level.entries - wp.uint32(1))))
        index = x + y + z
        if index >= level.entries:
            index = index - level.entries
        return wp.int32(level.first + index)

    @wp.kernel(enable_backward=False, module="unique", module_options=WIDE)
    def encode(
        points: wp.array(dtype=wp.vec3), table: wp.array(dtype=vector), levels: wp.array(dtype=Level), first: int,
        output: wp.array2d(dtype=vector),
    ):  # fmt: skip
        """output[i, k] = sum over corners of weight * entry; level after level, so that one level fills the cache."""
        k, n = wp.tid()
        i = first + n
        level = levels[k]
        u = points[i]
        corner = cell(u, level.scale)
        w = fraction(u, level.scale, corner)
        x0 = wp.uint32(corner[0])
        y0 = wp.uint32(corner[1]) * level.stride_y
        z0 = wp.uint32(corner[2]) * level.stride_z
        x1 = x0 + wp.uint32(1)
        y1 = y0 + level.stride_y
        z1 = z0 + level.stride_z
        v00 = table[entry(level, x0, y0, z0)] * (1.0 - w[0]) + table[entry(level, x1, y0, z0)] * w[0]
        v10 = table[entry(level, x0, y1, z0)] * (1.0 - w[0]) + table[entry(level, x1, y1, z0)] * w[0]
        v01 = table[entry(level, x0, y0, z1)] * (1.0 - w[0]) + table[entry(level, x1, y0, z1)] * w[0]
        v11 = table[entry(level, x0, y1, z1)] * (1.0 - w[0]) + table[entry(level, x1, y1, z1)] * w[0]
        v0 = v00 * (1.0 - w[1]) + v10 * w[1]
        v1 = v01 * (1.0 - w[1]) + v11 * w[1]
        output[i, k] = v0 * (1.0 - w[2]) + v1 * w[2]

    @wp.kernel(enable_backward=False, module="unique")
    def scatter(
        points: wp.array(dtype=wp.vec3), grad: wp.array2d(dtype=vector), levels: wp.array(dtype=Level), first: int,
        grad_table: wp.array(dtype=vector),
    ):  # fmt: skip
        """Gradient of the table: each corner receives weight * grad. Each level has rows of its own."""
        n, i = wp.tid()
        k = first + n
        g = grad[i, k]
        level = levels[k]
        u = points[i]
        corner = cell(u, level.scale)
        w = fraction(u, level.scale, corner)
        x0 = wp.uint32(corner[0])
        y0 = wp.uint32(corner[1]) * level.stride_y
        z0 = wp.uint32(corner[2]) * level.stride_z
        x1 = x0 + wp.uint32(1)
        y1 = y0 + level.stride_y
        z1 = z0 + level.stride_z
        g0 = g * (1.0 - w[2])
        g1 = g * w[2]
        g00 = g0 * (1.0 - w[1])
        g10 = g0 * w[1]
        g01 = g1 * (1.0 - w[1])
        g11 = g1 * w[1]
        wp.atomic_add(grad_table, entry(level, x0, y0, z0), g00 * (1.0 - w[0]))
        wp.atomic_add(grad_table, entry(level, x1, y0, z0), g00 * w[0])
        wp.atomic_add(grad_table, entry(level, x0, y1, z0), g10 * (1.0 - w[0]))
        wp.atomic_add(grad_table, entry(level, x1, y1, z0), g10 * w[0])
        wp.atomic_add(grad_table, entry(level, x0, y0, z1), g01 * (1.0 - w[0]))
        wp.atomic_add(grad_table, entry(level, x1, y0, z1), g01 * w[0])
        wp.atomic_add(grad_table, entry(level, x0, y1, z1), g11 * (1.0 - w[0]))
        wp.atomic_add(grad_table, entry(level, x1, y1, z1), g11 * w[0])

    @wp.func
    def inside(u: float, slope: float):
        """A clamped coordinate has no slope."""
        if u < 0.0 or u > 1.0:
            return float(0.0)
        return slope

    @wp.kernel(enable_backward=False, module="unique")
    def slope(
        points: wp.array(dtype=wp.vec3), table: wp.array(dtype=vector), levels: wp.array(dtype=Level), low: int,
        high: int, grad: wp.array2d(dtype=vector), first: int, grad_points: wp.array(dtype=wp.vec3),
    ):  # fmt: skip
        """Gradient of the points, d output / d u = scale * d interpolation / d w: levels low..high are added to it."""
        i = first + wp.tid()
        u = points[i]
        total = grad_points[i]
        for k in range(low, high):
            level = levels[k]
            g = grad[i, k]
            corner = cell(u, level.scale)
            w = fraction(u, level.scale, corner)
            x0 = wp.uint32(corner[0])
            y0 = wp.uint32(corner[1]) * level.stride_y
            z0 = wp.uint32(corner[2]) * level.stride_z
            x1 = x0 + wp.uint32(1)
            y1 = y0 + level.stride_y
            z1 = z0 + level.stride_z
            s000 = wp.dot(g, table[entry(level, x0, y0, z0)])
            s100 = wp.dot(g, table[entry(level, x1, y0, z0)])
            s010 = wp.dot(g, table[entry(level, x0, y1, z0)])
            s110 = wp.dot(g, table[entry(level, x1, y1, z0)])
            s001 = wp.dot(g, table[entry(level, x0, y0, z1)])
            s101 = wp.dot(g, table[entry(level, x1, y0, z1)])
            s011 = wp.dot(g, table[entry(level, x0, y1, z1)])
            s111 = wp.dot(g, table[entry(level, x1, y1, z1)])
            s00 = wp.lerp(s000, s100, w[0])
            s10 = wp.lerp(s010, s110, w[0])
            s01 = wp.lerp(s001, s101, w[0])
            s11 = wp.lerp(s011, s111, w[0])
            dx = wp.lerp(wp.lerp(s100 - s000, s110 - s010, w[1]), wp.lerp(s101 - s001, s111 - s011, w[1]), w[2])
            dy = wp.lerp(s10 - s00, s11 - s01, w[2])
            dz = wp.lerp(s01, s11, w[1]) - wp.lerp(s00, s10, w[1])
            total += wp.vec3(inside(u[0], dx), inside(u[1], dy), inside(u[2], dz)) * level.scale
        grad_points[i] = total

    return SimpleNamespace(encode=encode, scatter=scatter, slope=slope, vector=vector)
