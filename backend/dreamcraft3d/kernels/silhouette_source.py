"""The Warp source of antialiasing: edge adjacency, and the silhouette edge between two neighbouring pixels.

A *half-edge* 3 f + k is the edge of face f opposite its corner k. Between the centres of two neighbouring pixels, P
(nearer surface) and Q, screen points have coordinates in pixels (along, across): P = (0, 0), Q = (1, 0). A silhouette
edge is one at a hole, or one where the next face folds back to the same side of it.

Triangles may be much smaller than a pixel, so the nearer triangle seldom owns the silhouette edge itself: the search
starts in it and walks along the segment from face to face across shared edges, until it meets a silhouette edge or
passes Q.
"""

# mypy: disable-error-code="valid-type,no-untyped-def"
# ruff: noqa: UP018, RUF046 - in a kernel int(0) and float(0.0) make variables; a bare literal is a constant
from functools import cache
from types import SimpleNamespace

from dreamcraft3d.kernels.dispatch import warp

MAX_STEPS = 200  # faces between two neighbouring pixel centres; reached only by meshes far finer than the image


@cache
def silhouette_kernels() -> SimpleNamespace:
    """Compile (on first use; cached on disk) and return the kernels by name."""
    wp = warp()

    @wp.func
    def owner(a: int, b: int, valence: wp.array(dtype=int)):
        """The end of an edge that lists it: the one with fewer edges, so that fans stay cheap."""
        if valence[a] < valence[b] or (valence[a] == valence[b] and a < b):
            return a
        return b

    @wp.kernel(enable_backward=False)
    def count(faces: wp.array(dtype=wp.vec3i), valence: wp.array(dtype=int)):
        f = wp.tid()
        for k in range(3):
            wp.atomic_add(valence, faces[f][k], 1)

    @wp.kernel(enable_backward=False)
    def link(
        faces: wp.array(dtype=wp.vec3i),
        valence: wp.array(dtype=int),
        head: wp.array(dtype=int),
        following: wp.array(dtype=int),
    ):
        """Push each half-edge on its owner's linked list."""
        f = wp.tid()
        for k in range(3):
            a = faces[f][(k + 1) % 3]
            b = faces[f][(k + 2) % 3]
            following[3 * f + k] = wp.atomic_exch(head, owner(a, b, valence), 3 * f + k)

    @wp.kernel(enable_backward=False)
    def match(
        faces: wp.array(dtype=wp.vec3i),
        valence: wp.array(dtype=int),
        head: wp.array(dtype=int),
        following: wp.array(dtype=int),
        neighbours: wp.array2d(dtype=int),
    ):
        """The one other half-edge on the same two vertices; -1 if there is none, or more than one."""
        f = wp.tid()
        for k in range(3):
            a = faces[f][(k + 1) % 3]
            b = faces[f][(k + 2) % 3]
            found = int(-1)
            others = int(0)
            h = head[owner(a, b, valence)]
            while h >= 0:
                c = faces[h / 3][(h % 3 + 1) % 3]
                d = faces[h / 3][(h % 3 + 2) % 3]
                if h != 3 * f + k and ((c == a and d == b) or (c == b and d == a)):
                    found = h
                    others += 1
                h = following[h]
            if others != 1:
                found = -1
            neighbours[f, k] = found

    @wp.func
    def drawable(p: wp.vec4):
        return wp.isfinite(p) and p[3] > 1.0e-6

    @wp.func
    def depth_at(clip: wp.array2d(dtype=wp.vec4), corner: wp.vec3i, uv: wp.vec2, b: int):
        p = uv[0] * clip[b, corner[0]] + uv[1] * clip[b, corner[1]] + (1.0 - uv[0] - uv[1]) * clip[b, corner[2]]
        return p[2] / p[3]

    @wp.func
    def local(p: wp.vec4, x: int, y: int, direction: int, sign: float, width: int, height: int):
        """Screen point as (along, across) seen from pixel (x, y); direction 0: to the right, 1: downwards; sign -1
        reverses."""
        right = (0.5 + 0.5 * p[0] / p[3]) * float(width) - (float(x) + 0.5)
        down = (0.5 - 0.5 * p[1] / p[3]) * float(height) - (float(y) + 0.5)
        if direction == 0:
            return wp.vec2(sign * right, down)
        return wp.vec2(sign * down, right)

    @wp.func
    def side(a: wp.vec2, b: wp.vec2, p: wp.vec2):
        return (b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0])

    @wp.func
    def crossing(a: wp.vec2, b: wp.vec2):
        """Where the edge (a, b), with ends on both sides of the line across = 0, meets it."""
        return (a[0] * b[1] - b[0] * a[1]) / (b[1] - a[1])

    @wp.func
    def is_below(p: wp.vec2):
        return p[1] < 0.0

    @wp.func
    def walk(
        clip: wp.array2d(dtype=wp.vec4),
        faces: wp.array(dtype=wp.vec3i),
        neighbours: wp.array2d(dtype=int),
        b: int,
        start: int,
        goal: int,
        x: int,
        y: int,
        direction: int,
        sign: float,
        width: int,
        height: int,
    ):
        """The silhouette half-edge between P = (x, y) and Q on the surface of face `start`; -1 if none."""
        # The exit: of the two edges that cross the line, the one further along.
        h = int(-1)
        best = float(-1.0e30)
        for k in range(3):
            a = local(clip[b, faces[start][(k + 1) % 3]], x, y, direction, sign, width, height)
            e = local(clip[b, faces[start][(k + 2) % 3]], x, y, direction, sign, width, height)
            if is_below(a) != is_below(e):
                tau = crossing(a, e)
                if tau > best:
                    best = tau
                    h = 3 * start + k
        steps = int(0)
        while h >= 0 and steps < MAX_STEPS:
            steps += 1
            corner = faces[h / 3]
            i = corner[(h % 3 + 1) % 3]
            j = corner[(h % 3 + 2) % 3]
            a = local(clip[b, i], x, y, direction, sign, width, height)
            e = local(clip[b, j], x, y, direction, sign, width, height)
            if crossing(a, e) > 1.0:
                return -1
            g = neighbours[h / 3, h % 3]
            if g < 0:
                return h
            beyond = clip[b, faces[g / 3][g % 3]]
            if not drawable(beyond):
                return h
            c = local(clip[b, corner[h % 3]], x, y, direction, sign, width, height)
            d = local(beyond, x, y, direction, sign, width, height)
            if side(a, e, c) * side(a, e, d) > 0.0:
                return h
            if g / 3 == goal:
                return -1
            # Leave the next face by the edge between d and the end on its other side: opposite the end on d's own side.
            left = i
            if is_below(d) == is_below(e):
                left = j
            following = g / 3
            h = -1
            for k in range(3):
                if faces[following][k] == left and k != g % 3:
                    h = 3 * following + k
        return -1

    @wp.kernel(enable_backward=False)
    def find_silhouettes(
        clip: wp.array2d(dtype=wp.vec4),
        faces: wp.array(dtype=wp.vec3i),
        row: int,
        neighbours: wp.array2d(dtype=int),
        face_ids: wp.array3d(dtype=wp.int64),
        barycentrics: wp.array3d(dtype=wp.vec2),
        found: wp.array4d(dtype=int),
    ):
        """found[direction, b, y, x] = 2 half_edge + (1 if the second pixel is the nearer one), or -1."""
        b, y, x = wp.tid()
        y += row
        height = face_ids.shape[1]
        width = face_ids.shape[2]
        here = int(face_ids[b, y, x])
        for direction in range(2):
            x2 = x + 1 - direction
            y2 = y + direction
            code = int(-1)
            if x2 < width and y2 < height:
                there = int(face_ids[b, y2, x2])
                if here != there:
                    second = here < 0
                    if here >= 0 and there >= 0:
                        z1 = depth_at(clip, faces[here], barycentrics[b, y, x], b)
                        z2 = depth_at(clip, faces[there], barycentrics[b, y2, x2], b)
                        second = z2 < z1
                    h = int(-1)
                    if second:
                        h = walk(clip, faces, neighbours, b, there, here, x2, y2, direction, -1.0, width, height)
                    else:
                        h = walk(clip, faces, neighbours, b, here, there, x, y, direction, 1.0, width, height)
                    if h >= 0:
                        code = 2 * h
                        if second:
                            code += 1
            found[direction, b, y, x] = code

    return SimpleNamespace(count=count, link=link, match=match, find_silhouettes=find_silhouettes)
