"""The Warp source of ray marching: one text for CPU and CUDA. `marching.py` is its door to torch.

Letters: r ray with origin o and unit direction d, t_k = start_r + k step the lattice of its samples, R half extent of
the box, n cells per side.
"""

# mypy: disable-error-code="valid-type,no-untyped-def"
# ruff: noqa: UP018, RUF046 - in a kernel float(0.0) makes a variable; a bare literal is a constant

from functools import cache
from types import SimpleNamespace

from dreamcraft3d.kernels.dispatch import warp


@cache
def marching_kernels() -> SimpleNamespace:
    """Kernels that count and write the samples of rays; both walk along the ray in the same way."""
    wp = warp()

    @wp.func
    def slab(o: float, inverse: float, low: float, high: float):
        """The t at which one coordinate enters and leaves [low, high]."""
        if inverse == 0.0:
            if o < low or o > high:
                return wp.vec2(1.0e30, -1.0e30)
            return wp.vec2(-1.0e30, 1.0e30)
        a = (low - o) * inverse
        b = (high - o) * inverse
        return wp.vec2(wp.min(a, b), wp.max(a, b))

    @wp.func
    def inverse_of(d: float):
        """1 / d; 0 stands for a coordinate that does not move."""
        if wp.abs(d) < 1.0e-12:
            return float(0.0)
        return 1.0 / d

    @wp.func
    def leave(o: float, inverse: float, i: int):
        """The t at which one coordinate leaves cell i."""
        if inverse == 0.0:
            return float(1.0e30)
        return wp.where(inverse > 0.0, float(i + 1) - o, float(i) - o) * inverse

    @wp.func
    def walk(
        origin: wp.vec3, direction: wp.vec3, start: float, near: float, step: float, R: float,
        occupied: wp.array3d(dtype=wp.uint8), low: wp.vec3, high: wp.vec3, limit: int, position: int,
        t_starts: wp.array(dtype=wp.float32),
    ):  # fmt: skip
        """Visits samples whose midpoints lie in occupied cells; writes t_k from `position` on if that is not negative.

        Works in units of cells; `low` and `high` bound the occupied ones. An empty cell is left in one stride, which
        stops a little short so that rounding never skips a sample: whether there is one depends on its midpoint's
        cell alone.
        """
        n = occupied.shape[0]
        unit = 0.5 * float(n) / R
        o = (origin + wp.vec3(R, R, R)) * unit
        d = direction * unit
        inverse = wp.vec3(inverse_of(d[0]), inverse_of(d[1]), inverse_of(d[2]))
        x_span = slab(o[0], inverse[0], low[0], high[0])
        y_span = slab(o[1], inverse[1], low[1], high[1])
        z_span = slab(o[2], inverse[2], low[2], high[2])
        enter = wp.max(wp.max(x_span[0], y_span[0]), wp.max(z_span[0], near))
        exit = wp.min(x_span[1], wp.min(y_span[1], z_span[1]))
        found = int(0)
        if enter >= exit:
            return found
        per_step = 1.0 / step
        k = wp.max(int(wp.ceil((enter - start) * per_step - 0.501)), 0)
        while found < limit:
            t = start + float(k) * step
            middle = t + 0.5 * step
            if middle >= exit:
                break
            x = wp.clamp(int(wp.floor(o[0] + middle * d[0])), 0, n - 1)
            y = wp.clamp(int(wp.floor(o[1] + middle * d[1])), 0, n - 1)
            z = wp.clamp(int(wp.floor(o[2] + middle * d[2])), 0, n - 1)
            if occupied[x, y, z] != wp.uint8(0):
                if middle >= enter:
                    if position >= 0:
                        t_starts[position + found] = t
                    found += 1
                k += 1
            else:
                out = wp.min(leave(o[0], inverse[0], x), wp.min(leave(o[1], inverse[1], y), leave(o[2], inverse[2], z)))
                k = wp.max(k + 1, int(wp.ceil((wp.min(out, exit + step) - start) * per_step - 0.501)))
        return found

    @wp.kernel(enable_backward=False, module="unique")
    def count(
        origins: wp.array(dtype=wp.vec3), directions: wp.array(dtype=wp.vec3), starts: wp.array(dtype=wp.float32),
        near: float, step: float, R: float, occupied: wp.array3d(dtype=wp.uint8), low: wp.vec3,
        high: wp.vec3, limit: int, first: int,
        counts: wp.array(dtype=wp.int64), nothing: wp.array(dtype=wp.float32),
    ):  # fmt: skip
        """counts[r] = number of samples of the ray."""
        r = first + wp.tid()
        total = walk(
            origins[r], directions[r], starts[r], near, step, R, occupied, low, high, limit, -1, nothing
        )  # fmt: skip
        counts[r] = wp.int64(total)

    @wp.kernel(enable_backward=False, module="unique")
    def write(
        origins: wp.array(dtype=wp.vec3), directions: wp.array(dtype=wp.vec3), starts: wp.array(dtype=wp.float32),
        near: float, step: float, R: float, occupied: wp.array3d(dtype=wp.uint8), low: wp.vec3,
        high: wp.vec3, first: int,
        offsets: wp.array(dtype=wp.int64), t_starts: wp.array(dtype=wp.float32), ray_indices: wp.array(dtype=wp.int64),
    ):  # fmt: skip
        """The ray's samples from its offset on."""
        r = first + wp.tid()
        position = int(offsets[r])
        total = int(offsets[r + 1]) - position
        if total > 0:
            walk(
                origins[r], directions[r], starts[r], near, step, R, occupied, low, high, total, position, t_starts
            )  # fmt: skip
            for k in range(total):
                ray_indices[position + k] = wp.int64(r)

    return SimpleNamespace(count=count, write=write)
