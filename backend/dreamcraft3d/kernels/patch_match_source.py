"""The Warp source of the patch search: one text for CPU and CUDA. `patch_match.py` is its binding to torch.

Notation: (y, x) centre of a query patch, (s, v, u) centre of a source patch in image s, r radius of both; a source
patch has the number (s h + v) w + u.
"""

# mypy: disable-error-code="valid-type,no-untyped-def,attr-defined"
# ruff: noqa: UP018, RUF046 - in a kernel float(0.0) makes a variable; a bare literal is a constant

from functools import cache
from types import SimpleNamespace

from dreamcraft3d.kernels.dispatch import warp


@cache
def patch_types() -> SimpleNamespace:
    """The records that the kernels read: where patches are looked for, and what is looked for."""
    wp = warp()

    @wp.struct
    class Source:
        images: wp.array3d(dtype=wp.vec3)
        guide: wp.array4d(dtype=float)
        penalty: wp.array3d(dtype=float)

    @wp.struct
    class Query:
        image: wp.array2d(dtype=wp.vec3)
        weight: wp.array2d(dtype=float)
        scale: wp.array2d(dtype=float)
        guide: wp.array3d(dtype=float)

    return SimpleNamespace(Source=Source, Query=Query)


@cache
def patch_kernels() -> SimpleNamespace:
    """Compile (on first use; cached on disk) and return the kernels by name."""
    wp = warp()
    types = patch_types()
    Source, Query = types.Source, types.Query

    @wp.func
    def cost(query: Query, source: Source, y: int, x: int, s: int, v: int, u: int, radius: int, bound: float):
        """penalty + guide + weighted mean square; a number >= bound as soon as it is clear that it is no less."""
        total = float(source.penalty[s, v, u])
        for c in range(source.guide.shape[3]):
            d = query.guide[y, x, c] - source.guide[s, v, u, c]
            total += d * d
        if total >= bound:
            return total
        scale = query.scale[y, x]
        for dy in range(-radius, radius + 1):
            row = y + dy
            if row >= 0 and row < query.image.shape[0]:
                part = float(0.0)
                for dx in range(-radius, radius + 1):
                    column = x + dx
                    if column >= 0 and column < query.image.shape[1]:
                        e = query.image[row, column] - source.images[s, v + dy, u + dx]
                        part += query.weight[row, column] * wp.dot(e, e)
                total += scale * part
            if total >= bound:
                return total
        return total

    @wp.kernel(enable_backward=False)
    def search(
        centres: wp.array(dtype=int),
        query: Query,
        source: Source,
        radius: int,
        index: wp.array(dtype=int),
        costs: wp.array(dtype=float),
    ):
        """Try every source patch; of equal ones the lowest number wins."""
        i = wp.tid()
        y = centres[i] // query.image.shape[1]
        x = centres[i] % query.image.shape[1]
        best = float(wp.inf)
        number = int(0)
        found = int(-1)
        for s in range(source.penalty.shape[0]):
            for v in range(source.penalty.shape[1]):
                for u in range(source.penalty.shape[2]):
                    c = cost(query, source, y, x, s, v, u, radius, best)
                    if c < best:
                        best = c
                        found = number
                    number += 1
        index[i] = found
        costs[i] = best

    @wp.func
    def shifted(query: Query, source: Source, y: int, x: int, dy: int, dx: int, before: wp.array2d(dtype=int)):
        """The source patch that continues the neighbour's match at this place, or -1."""
        row = y + dy
        column = x + dx
        if row < 0 or row >= query.image.shape[0] or column < 0 or column >= query.image.shape[1]:
            return -1
        m = before[row, column]
        if m < 0:
            return -1
        u = m % source.penalty.shape[2] - dx
        v = (m // source.penalty.shape[2]) % source.penalty.shape[1] - dy
        if v < 0 or v >= source.penalty.shape[1] or u < 0 or u >= source.penalty.shape[2]:
            return -1
        return m - dy * source.penalty.shape[2] - dx

    @wp.func
    def cost_of(query: Query, source: Source, y: int, x: int, m: int, radius: int, bound: float):
        w = source.penalty.shape[2]
        h = source.penalty.shape[1]
        return cost(query, source, y, x, m // (h * w), (m // w) % h, m % w, radius, bound)

    @wp.kernel(enable_backward=False)
    def improve(
        centres: wp.array(dtype=int),
        query: Query,
        source: Source,
        radius: int,
        jump: int,
        reach: int,
        seed: int,
        before: wp.array2d(dtype=int),
        index: wp.array(dtype=int),
        costs: wp.array(dtype=float),
    ):
        """One pass of PatchMatch: what the neighbours found, then random trials ever closer to the best."""
        i = wp.tid()
        y = centres[i] // query.image.shape[1]
        x = centres[i] % query.image.shape[1]
        h = source.penalty.shape[1]
        w = source.penalty.shape[2]
        best = float(wp.inf)
        found = int(before[y, x])
        if found >= 0:
            best = cost_of(query, source, y, x, found, radius, best)
        for k in range(4):
            step = jump * (2 * (k % 2) - 1)
            m = shifted(query, source, y, x, step * (k // 2), step * (1 - k // 2), before)
            if m >= 0 and m != found:
                c = cost_of(query, source, y, x, m, radius, best)
                if c < best:
                    best = c
                    found = m
        state = wp.rand_init(seed, centres[i])
        span = int(reach)
        if span == 0 or found < 0:
            m = wp.randi(state, 0, source.penalty.shape[0] * h * w)
            c = cost_of(query, source, y, x, m, radius, best)
            if c < best:
                best = c
                found = m
            span = wp.max(h, w) // 2
        while span >= 1 and found >= 0:
            u = found % w + wp.randi(state, -span, span + 1)
            v = (found // w) % h + wp.randi(state, -span, span + 1)
            if u >= 0 and u < w and v >= 0 and v < h:
                m = (found // (h * w) * h + v) * w + u
                c = cost_of(query, source, y, x, m, radius, best)
                if c < best:
                    best = c
                    found = m
            span = span // 2
        index[i] = found
        costs[i] = best

    @wp.kernel(enable_backward=False)
    def vote(
        targets: wp.array(dtype=int),
        index: wp.array2d(dtype=int),
        trust: wp.array2d(dtype=float),
        images: wp.array3d(dtype=wp.vec3),
        window: wp.array2d(dtype=float),
        colour: wp.array(dtype=wp.vec3),
        total: wp.array(dtype=float),
    ):
        """What the patches over a pixel say of it, weighted by the window and by each patch's trust."""
        i = wp.tid()
        y = targets[i] // index.shape[1]
        x = targets[i] % index.shape[1]
        h = images.shape[1]
        w = images.shape[2]
        size = window.shape[0]
        radius = size // 2
        mean = wp.vec3(0.0, 0.0, 0.0)
        share = float(0.0)
        for a in range(size):
            for b in range(size):
                row = y - (a - radius)
                column = x - (b - radius)
                if row >= 0 and row < index.shape[0] and column >= 0 and column < index.shape[1]:
                    m = index[row, column]
                    if m >= 0:
                        v = (m // w) % h + a - radius
                        u = m % w + b - radius
                        weight = window[a, b] * trust[row, column]
                        mean += weight * images[m // (h * w), v, u]
                        share += weight
        total[i] = share
        colour[i] = mean / wp.max(share, 1.0e-20)

    return SimpleNamespace(search=search, improve=improve, vote=vote)
