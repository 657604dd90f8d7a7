"""The Warp source of the rasteriser: one text for CPU and CUDA. `rasterize.py` is its door to torch.

Letters: b view, f face, (x, y) pixel column and row; a screen point is in pixels with y down; an ndc point has y up.
A triangle's corners in clip space are p0, p1, p2; the perspective-correct barycentrics (u, v, 1 - u - v) of the ndc
point (X, Y) are the normalised cross products of q_i = (x_i - X w_i, y_i - Y w_i):

    u ~ q1 x q2,   v ~ q2 x q0,   1 - u - v ~ q0 x q1

Every kernel takes a band of image rows [row, row + launch rows), so that a CPU launch can be split over threads without
races.
"""

# mypy: disable-error-code="valid-type,no-untyped-def"
# ruff: noqa: UP018 - in a kernel float(0.0) makes a variable; a bare literal is a constant
from functools import cache
from types import SimpleNamespace

from dreamcraft3d.kernels.dispatch import warp

EMPTY = 0x7FFFFFFFFFFFFFFF  # z-buffer value of a pixel that no triangle covers


@cache
def raster_kernels() -> SimpleNamespace:
    """Compile (on first use; cached on disk) and return the kernels by name."""
    wp = warp()

    @wp.func
    def drawable(p: wp.vec4):
        """In front of the eye, and neither infinite nor NaN."""
        return wp.isfinite(p) and p[3] > 1.0e-6

    @wp.func
    def to_screen(p: wp.vec4, width: int, height: int):
        return wp.vec3((0.5 + 0.5 * p[0] / p[3]) * float(width), (0.5 - 0.5 * p[1] / p[3]) * float(height), p[2] / p[3])

    @wp.func
    def edge_side(ax: float, ay: float, bx: float, by: float, x: float, y: float):
        """Twice the signed area of (a, b, p), bitwise antisymmetric in a and b: neighbours leave no cracks."""
        if ax < bx or (ax == bx and ay < by):
            return (bx - ax) * (y - ay) - (by - ay) * (x - ax)
        return -((ax - bx) * (y - by) - (ay - by) * (x - bx))

    @wp.func
    def first_pixel(lowest: float, limit: int):
        return int(wp.ceil(wp.clamp(lowest - 0.5, 0.0, float(limit))))

    @wp.func
    def last_pixel(highest: float, limit: int):
        return int(wp.floor(wp.clamp(highest - 0.5, -1.0, float(limit - 1))))

    @wp.kernel(enable_backward=False)
    def draw(
        clip: wp.array2d(dtype=wp.vec4),
        faces: wp.array(dtype=wp.vec3i),
        row: int,
        rows: int,
        zbuffer: wp.array3d(dtype=wp.int64),
    ):
        """One thread per view and triangle: the smallest depth << 32 | face wins each covered pixel centre."""
        b, f = wp.tid()
        height = zbuffer.shape[1]
        width = zbuffer.shape[2]
        corner = faces[f]
        c0 = clip[b, corner[0]]
        c1 = clip[b, corner[1]]
        c2 = clip[b, corner[2]]
        if not (drawable(c0) and drawable(c1) and drawable(c2)):
            return
        p0 = to_screen(c0, width, height)
        p1 = to_screen(c1, width, height)
        p2 = to_screen(c2, width, height)
        y_first = wp.max(first_pixel(wp.min(p0[1], wp.min(p1[1], p2[1])), height), row)
        y_last = wp.min(last_pixel(wp.max(p0[1], wp.max(p1[1], p2[1])), height), row + rows - 1)
        x_first = first_pixel(wp.min(p0[0], wp.min(p1[0], p2[0])), width)
        x_last = last_pixel(wp.max(p0[0], wp.max(p1[0], p2[0])), width)
        if y_first > y_last or x_first > x_last:
            return
        area = edge_side(p0[0], p0[1], p1[0], p1[1], p2[0], p2[1])
        if area == 0.0 or not wp.isfinite(area):
            return
        side = wp.sign(area)
        nearest = wp.min(p0[2], wp.min(p1[2], p2[2]))
        farthest = wp.max(p0[2], wp.max(p1[2], p2[2]))
        for y in range(y_first, y_last + 1):
            py = float(y) + 0.5
            for x in range(x_first, x_last + 1):
                px = float(x) + 0.5
                e0 = side * edge_side(p1[0], p1[1], p2[0], p2[1], px, py)
                e1 = side * edge_side(p2[0], p2[1], p0[0], p0[1], px, py)
                e2 = side * edge_side(p0[0], p0[1], p1[0], p1[1], px, py)
                if e0 >= 0.0 and e1 >= 0.0 and e2 >= 0.0:
                    depth = p0[2] + (e1 * (p1[2] - p0[2]) + e2 * (p2[2] - p0[2])) / (side * area)
                    depth = wp.clamp(depth, nearest, farthest)  # slivers extrapolate
                    if depth >= -1.0 and depth <= 1.0:
                        key = wp.int64(wp.float64(depth + 1.0) * wp.float64(1.0e9))
                        wp.atomic_min(zbuffer, b, y, x, (key << wp.int64(32)) | wp.int64(f))

    @wp.func
    def ndc(x: int, y: int, width: int, height: int):
        return wp.vec2((2.0 * float(x) + 1.0) / float(width) - 1.0, 1.0 - (2.0 * float(y) + 1.0) / float(height))

    @wp.func
    def towards(p: wp.vec4, pixel: wp.vec2):
        return wp.vec2(p[0] - pixel[0] * p[3], p[1] - pixel[1] * p[3])

    @wp.func
    def cross2(a: wp.vec2, b: wp.vec2):
        return a[0] * b[1] - a[1] * b[0]

    @wp.kernel(enable_backward=False)
    def resolve(
        clip: wp.array2d(dtype=wp.vec4),
        faces: wp.array(dtype=wp.vec3i),
        row: int,
        zbuffer: wp.array3d(dtype=wp.int64),
        face_ids: wp.array3d(dtype=wp.int64),
        barycentrics: wp.array3d(dtype=wp.vec2),
    ):
        """Z-buffer -> face id (-1 = background) and perspective-correct (u, v) per pixel."""
        b, y, x = wp.tid()
        y += row
        key = zbuffer[b, y, x]
        if key == wp.int64(0x7FFFFFFFFFFFFFFF):
            face_ids[b, y, x] = wp.int64(-1)
            barycentrics[b, y, x] = wp.vec2(0.0, 0.0)
            return
        face = key & wp.int64(0xFFFFFFFF)
        face_ids[b, y, x] = face
        corner = faces[int(face)]
        pixel = ndc(x, y, zbuffer.shape[2], zbuffer.shape[1])
        q0 = towards(clip[b, corner[0]], pixel)
        q1 = towards(clip[b, corner[1]], pixel)
        q2 = towards(clip[b, corner[2]], pixel)
        a0 = cross2(q1, q2)
        a1 = cross2(q2, q0)
        total = a0 + a1 + cross2(q0, q1)
        uv = wp.vec2(1.0 / 3.0, 1.0 / 3.0)
        if total != 0.0:
            uv = wp.vec2(a0 / total, a1 / total)
        barycentrics[b, y, x] = uv

    @wp.kernel(enable_backward=False)
    def resolve_backward(
        clip: wp.array2d(dtype=wp.vec4),
        faces: wp.array(dtype=wp.vec3i),
        row: int,
        face_ids: wp.array3d(dtype=wp.int64),
        barycentrics: wp.array3d(dtype=wp.vec2),
        grad_barycentrics: wp.array3d(dtype=wp.vec2),
        grad_clip: wp.array2d(dtype=wp.vec4),
    ):
        """d(u, v)/d clip: through a_i = q_j x q_k and the normalisation by their sum."""
        b, y, x = wp.tid()
        y += row
        face = int(face_ids[b, y, x])
        if face < 0:
            return
        grad = grad_barycentrics[b, y, x]
        if grad[0] == 0.0 and grad[1] == 0.0:
            return
        corner = faces[face]
        pixel = ndc(x, y, face_ids.shape[2], face_ids.shape[1])
        q0 = towards(clip[b, corner[0]], pixel)
        q1 = towards(clip[b, corner[1]], pixel)
        q2 = towards(clip[b, corner[2]], pixel)
        total = cross2(q1, q2) + cross2(q2, q0) + cross2(q0, q1)
        if total == 0.0:
            return
        mean = wp.dot(grad, barycentrics[b, y, x])
        g0 = (grad[0] - mean) / total
        g1 = (grad[1] - mean) / total
        g2 = -mean / total
        d0 = wp.vec2(g2 * q1[1] - g1 * q2[1], g1 * q2[0] - g2 * q1[0])
        d1 = wp.vec2(g0 * q2[1] - g2 * q0[1], g2 * q0[0] - g0 * q2[0])
        d2 = wp.vec2(g1 * q0[1] - g0 * q1[1], g0 * q1[0] - g1 * q0[0])
        wp.atomic_add(grad_clip, b, corner[0], wp.vec4(d0[0], d0[1], 0.0, -wp.dot(pixel, d0)))
        wp.atomic_add(grad_clip, b, corner[1], wp.vec4(d1[0], d1[1], 0.0, -wp.dot(pixel, d1)))
        wp.atomic_add(grad_clip, b, corner[2], wp.vec4(d2[0], d2[1], 0.0, -wp.dot(pixel, d2)))

    @wp.kernel(enable_backward=False)
    def interpolate(
        attributes: wp.array3d(dtype=float),
        faces: wp.array(dtype=wp.vec3i),
        row: int,
        face_ids: wp.array3d(dtype=wp.int64),
        barycentrics: wp.array3d(dtype=wp.vec2),
        image: wp.array4d(dtype=float),
    ):
        """Corner attributes weighted by the barycentrics; background pixels keep the zeros they hold."""
        b, y, x = wp.tid()
        y += row
        face = int(face_ids[b, y, x])
        if face < 0:
            return
        corner = faces[face]
        uv = barycentrics[b, y, x]
        w = 1.0 - uv[0] - uv[1]
        a = wp.min(b, attributes.shape[0] - 1)  # one set of attributes may serve all views
        for c in range(attributes.shape[2]):
            first = uv[0] * attributes[a, corner[0], c]
            image[b, y, x, c] = first + uv[1] * attributes[a, corner[1], c] + w * attributes[a, corner[2], c]

    @wp.kernel(enable_backward=False)
    def interpolate_backward(
        attributes: wp.array3d(dtype=float),
        faces: wp.array(dtype=wp.vec3i),
        row: int,
        face_ids: wp.array3d(dtype=wp.int64),
        barycentrics: wp.array3d(dtype=wp.vec2),
        grad_image: wp.array4d(dtype=float),
        grad_attributes: wp.array3d(dtype=float),
        grad_barycentrics: wp.array3d(dtype=wp.vec2),
    ):
        """Scatter to the corner attributes, gather to the barycentrics."""
        b, y, x = wp.tid()
        y += row
        face = int(face_ids[b, y, x])
        if face < 0:
            return
        corner = faces[face]
        uv = barycentrics[b, y, x]
        w = 1.0 - uv[0] - uv[1]
        a = wp.min(b, attributes.shape[0] - 1)
        du = float(0.0)
        dv = float(0.0)
        for c in range(attributes.shape[2]):
            g = grad_image[b, y, x, c]
            if g != 0.0:
                wp.atomic_add(grad_attributes, a, corner[0], c, g * uv[0])
                wp.atomic_add(grad_attributes, a, corner[1], c, g * uv[1])
                wp.atomic_add(grad_attributes, a, corner[2], c, g * w)
                last = attributes[a, corner[2], c]
                du += g * (attributes[a, corner[0], c] - last)
                dv += g * (attributes[a, corner[1], c] - last)
        grad_barycentrics[b, y, x] = wp.vec2(du, dv)

    return SimpleNamespace(
        draw=draw,
        resolve=resolve,
        resolve_backward=resolve_backward,
        interpolate=interpolate,
        interpolate_backward=interpolate_backward,
    )
