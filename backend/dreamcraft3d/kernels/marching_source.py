"""The Warp source of ray marching: one text for CPU and CUDA. `marching.py` is its door to torch.

Letters: r ray with origin o and unit direction d, Delta step, t_k = near + (jitter_r + k) Delta, m_k = t_k + Delta/2, R half
extent of the box, n cells per side.
"""

from functools import cache
from types import SimpleNamespace

from dreamcraft3d.kernels.dispatch import warp


@cache
def marching_kernels() -> SimpleNamespace:
    """Kernels that count and write the samples of rays; both walk along the ray in the same way."""
    wp = warp()

    @wp.func
    def slab(o: float, d: float, R: float):
        """The t at which one coordinate enters and leaves [-R, R]."""
        if wp.abs(d) < 1.0e-12:
            if wp.abs(o) > R:
                return wp.vec2(1.0e30, -1.0e30)
            return wp.vec2(-1.0e30, 1.0e30)
        a = (-R - o) / d
        b = (R - o) / d
        return wp.vec2(wp.min(a, b), wp.max(a, b))

    @wp.func
    def span(o: wp.vec3, d: wp.vec3, R: float, near: float):
        """The part of a ray inside the box and beyond `near`; empty if its end is not after its start."""
        x = slab(o[0], d[0], R)
        y = slab(o[1], d[1], R)
        z = slab(o[2], d[2], R)
        return wp.vec2(
            wp.max(wp.max(x[0], y[0]), wp.max(z[0], near)),
            wp.min(x[1], wp.min(y[1], z[1])),
        )

    @wp.func
    def cell_of(p: float, R: float, n: int):
        return wp.clamp(int(wp.floor((p + R) / (2.0 * R) * float(n))), 0, n - 1)

    @wp.func
    def leave(o: float, d: float, i: int, R: float, n: int):
        """The t at which one coordinate leaves cell i."""
        if wp.abs(d) < 1.0e-12:
            return float(1.0e30)
        side = float(i)
        if d > 0.0:
            side = float(i + 1)
        return (side * 2.0 * R / float(n) - R - o) / d

    @wp.func
    def walk(
        o: wp.vec3, d: wp.vec3, start: float, near: float, step: float, R: float, occupied: wp.array3d(dtype=wp.uint8),
        limit: int, position: int, t_starts: wp.array(dtype=wp.float32),
    ):  # fmt: skip
        """Visits the samples whose midpoints lie in occupied cells; writes t_k from `position` on unless it is negative.

        An empty cell is left in one stride. The stride stops a little short, so that rounding never skips a sample: which
        samples there are depends on the cell of each midpoint alone.
        """
        n = occupied.shape[0]
        reach = span(o, d, R, near)
        k = wp.max(int(wp.ceil(wp.clamp((reach[0] - start) / step - 0.5, -1.0, 1.0e9) - 1.0e-3)), 0)
        found = int(0)
        while found < limit:
            t = start + float(k) * step
            middle = t + 0.5 * step
            if middle >= reach[1]:
                break
            x = cell_of(o[0] + middle * d[0], R, n)
            y = cell_of(o[1] + middle * d[1], R, n)
            z = cell_of(o[2] + middle * d[2], R, n)
            if occupied[x, y, z] != wp.uint8(0):
                if middle >= reach[0]:
                    if position >= 0:
                        t_starts[position + found] = t
                    found += 1
                k += 1
            else:
                out = wp.min(leave(o[0], d[0], x, R, n), wp.min(leave(o[1], d[1], y, R, n), leave(o[2], d[2], z, R, n)))
                k = wp.max(k + 1, int(wp.ceil(wp.min(out - start, reach[1] + step - start) / step - 0.501)))
        return found

    @wp.kernel(enable_backward=False, module="unique")
    def count(
        origins: wp.array(dtype=wp.vec3), directions: wp.array(dtype=wp.vec3), starts: wp.array(dtype=wp.float32),
        near: float, step: float, R: float, occupied: wp.array3d(dtype=wp.uint8), limit: int, first: int,
        counts: wp.array(dtype=wp.int64), nothing: wp.array(dtype=wp.float32),
    ):  # fmt: skip
        """counts[r] = number of samples of the ray."""
        r = first + wp.tid()
        counts[r] = wp.int64(walk(origins[r], directions[r], starts[r], near, step, R, occupied, limit, -1, nothing))

    @wp.kernel(enable_backward=False, module="unique")
    def write(
        origins: wp.array(dtype=wp.vec3), directions: wp.array(dtype=wp.vec3), starts: wp.array(dtype=wp.float32),
        near: float, step: float, R: float, occupied: wp.array3d(dtype=wp.uint8), first: int,
        offsets: wp.array(dtype=wp.int64), t_starts: wp.array(dtype=wp.float32), ray_indices: wp.array(dtype=wp.int64),
    ):  # fmt: skip
        """The ray's samples from its offset on."""
        r = first + wp.tid()
        position = int(offsets[r])
        total = int(offsets[r + 1]) - position
        if total > 0:
            walk(origins[r], directions[r], starts[r], near, step, R, occupied, total, position, t_starts)
            for k in range(total):
                ray_indices[position + k] = wp.int64(r)

    return SimpleNamespace(count=count, write=write)
