"""The Warp source of frustum volumes: one text for CPU and CUDA, one thread per ray. `frustum.py` binds it to torch.

Letters: volume cell [opacity logit, rgb logits, features]; alpha opacity of a sample, T transmittance in front of it,
w = T alpha its weight; d depth of a sample along the wanted camera's axis.
"""

# mypy: disable-error-code="valid-type,no-untyped-def,name-defined"
# ruff: noqa: UP018, SIM108 - in a kernel float(0.0) makes a variable, a bare literal is a constant; branches are plain

from functools import cache
from types import SimpleNamespace
from typing import Any

from dreamcraft3d.kernels.dispatch import warp

FAINT = 1e-4
"""A weight below which a sample's colour is not looked up: it changes no pixel by half a level of 255."""


@cache
def frustum_kernels(channels: int) -> SimpleNamespace:
    """Build the kernels for volumes with so many channels; each compiles on its first launch and is cached on disk.

    `cameras` of each view: 12 numbers of the 3 x 4 matrix from the wanted camera to the reference camera, then the
    tangent of half the field of view and the distance of the wanted and of the reference camera.
    """
    wp = warp()
    vector: Any = wp.types.vector(length=channels, dtype=wp.float32)

    @wp.func
    def cell_coordinates(
        cameras: wp.array2d(dtype=wp.float32), n: int, pixel: wp.vec2, d: float, reach: float, shape: wp.vec3i
    ):
        """Place of the sample at depth d in cells (column, row, plane), and whether it lies inside (1 or 0)."""
        x = pixel[0] * cameras[n, 12] * d
        y = pixel[1] * cameras[n, 12] * d
        p = cameras[n, 0] * x + cameras[n, 1] * y - cameras[n, 2] * d + cameras[n, 3]
        q = cameras[n, 4] * x + cameras[n, 5] * y - cameras[n, 6] * d + cameras[n, 7]
        z = d * cameras[n, 10] - cameras[n, 8] * x - cameras[n, 9] * y - cameras[n, 11]
        wide = cameras[n, 14] * wp.max(z, 1.0e-6)
        u = p / wide
        v = q / wide
        w = (z - cameras[n, 15]) / reach
        inside = float(0.0)
        if wp.abs(u) <= 1.0 and wp.abs(v) <= 1.0 and wp.abs(w) <= 1.0:
            inside = 1.0
        column = wp.clamp(0.5 * (u + 1.0) * float(shape[0]) - 0.5, 0.0, float(shape[0] - 1))
        row = wp.clamp(0.5 * (1.0 - v) * float(shape[1]) - 0.5, 0.0, float(shape[1] - 1))
        plane = wp.clamp(0.5 * (w + 1.0) * float(shape[2]) - 0.5, 0.0, float(shape[2] - 1))
        return wp.vec4(column, row, plane, inside)

    @wp.func
    def share(place: wp.vec4, lower: wp.vec3i, corner: int):
        """Trilinear weight of one of the eight cells around a place."""
        result = float(1.0)
        for axis in range(3):
            fraction = place[axis] - float(lower[axis])
            if (corner >> axis) & 1 == 1:
                result = result * fraction
            else:
                result = result * (1.0 - fraction)
        return result

    @wp.func
    def cell(first: int, lower: wp.vec3i, corner: int, shape: wp.vec3i):
        """Number of one of the eight cells around a place; those beyond the border are the border's."""
        column = wp.min(lower[0] + (corner & 1), shape[0] - 1)
        row = wp.min(lower[1] + ((corner >> 1) & 1), shape[1] - 1)
        plane = wp.min(lower[2] + ((corner >> 2) & 1), shape[2] - 1)
        return first + (row * shape[0] + column) * shape[2] + plane

    @wp.func
    def lower_cell(place: wp.vec4):
        return wp.vec3i(int(place[0]), int(place[1]), int(place[2]))

    @wp.func
    def opacity_logit(logits: wp.array(dtype=wp.float32), first: int, place: wp.vec4, lower: wp.vec3i, shape: wp.vec3i):
        total = float(0.0)
        for corner in range(8):
            total += share(place, lower, corner) * logits[cell(first, lower, corner, shape) * channels]
        return total

    @wp.func
    def cell_values(values: wp.array(dtype=vector), first: int, place: wp.vec4, lower: wp.vec3i, shape: wp.vec3i):
        """Interpolated channels, colours through the logistic function; channel 0 becomes 1."""
        total = vector()
        for corner in range(8):
            total += share(place, lower, corner) * values[cell(first, lower, corner, shape)]
        for c in range(1, 4):
            total[c] = 1.0 / (1.0 + wp.exp(-total[c]))
        total[0] = 1.0
        return total

    @wp.kernel(enable_backward=False, module="unique")
    def render(
        logits: wp.array(dtype=wp.float32), values: wp.array(dtype=vector), cameras: wp.array2d(dtype=wp.float32),
        pixels: wp.array2d(dtype=wp.vec2), shape: wp.vec3i, view: int, volume: int, samples: int, reach: float,
        bias: float, output: wp.array2d(dtype=vector), depth: wp.array2d(dtype=wp.float32),
    ):  # fmt: skip
        """output = sum_k w_k [1, colour, features], depth = sum_k w_k d_k; nearest samples first."""
        r = wp.tid()
        first = volume * shape[0] * shape[1] * shape[2]
        total = vector()
        away = float(0.0)
        T = float(1.0)
        for k in range(samples):
            d = cameras[view, 13] + reach * ((float(k) + 0.5) / float(samples) * 2.0 - 1.0)
            place = cell_coordinates(cameras, view, pixels[view, r], d, reach, shape)
            if place[3] > 0.0 and T > FAINT:
                lower = lower_cell(place)
                alpha = 1.0 / (1.0 + wp.exp(-bias - opacity_logit(logits, first, place, lower, shape)))
                w = T * alpha
                if w > FAINT:
                    total += w * cell_values(values, first, place, lower, shape)
                else:
                    total[0] = total[0] + w
                away += w * d
                T = T * (1.0 - alpha)
        output[view, r] = total
        depth[view, r] = away

    @wp.kernel(enable_backward=False, module="unique")
    def render_backward(
        logits: wp.array(dtype=wp.float32), values: wp.array(dtype=vector), cameras: wp.array2d(dtype=wp.float32),
        pixels: wp.array2d(dtype=wp.vec2), shape: wp.vec3i, view: int, volume: int, samples: int, reach: float,
        bias: float, output: wp.array2d(dtype=vector), depth: wp.array2d(dtype=wp.float32),
        grad_output: wp.array2d(dtype=vector), grad_depth: wp.array2d(dtype=wp.float32),
        grad_logits: wp.array(dtype=wp.float32), grad_values: wp.array(dtype=vector),
    ):  # fmt: skip
        """Add d loss / d volume: with g_k the loss per unit of weight of sample k and B what lies behind it,
        d loss / d logit_k = alpha_k (T_k (1 - alpha_k) g_k - B), B = sum_{j > k} w_j g_j; nothing is divided."""
        r = wp.tid()
        first = volume * shape[0] * shape[1] * shape[2]
        g = grad_output[view, r]
        away = grad_depth[view, r]
        behind = wp.dot(g, output[view, r]) + away * depth[view, r]
        T = float(1.0)
        for k in range(samples):
            d = cameras[view, 13] + reach * ((float(k) + 0.5) / float(samples) * 2.0 - 1.0)
            place = cell_coordinates(cameras, view, pixels[view, r], d, reach, shape)
            if place[3] > 0.0 and T > FAINT:
                lower = lower_cell(place)
                alpha = 1.0 / (1.0 + wp.exp(-bias - opacity_logit(logits, first, place, lower, shape)))
                w = T * alpha
                here = g[0] + away * d
                slope = vector()
                if w > FAINT:
                    found = cell_values(values, first, place, lower, shape)
                    here = wp.dot(g, found) + away * d
                    slope = w * g
                    for c in range(1, 4):
                        slope[c] = slope[c] * found[c] * (1.0 - found[c])
                behind -= w * here
                slope[0] = alpha * (T * (1.0 - alpha) * here - behind)
                if w > FAINT:
                    for corner in range(8):
                        amount = share(place, lower, corner) * slope
                        wp.atomic_add(grad_values, cell(first, lower, corner, shape), amount)
                else:
                    for corner in range(8):
                        at = cell(first, lower, corner, shape) * channels
                        wp.atomic_add(grad_logits, at, share(place, lower, corner) * slope[0])
                T = T * (1.0 - alpha)

    return SimpleNamespace(render=render, render_backward=render_backward, vector=vector)
