"""Puts primitives together into a coloured object, and paints and lights it.

The frame is the world's (method section 1): +x towards the reference camera, +y right in its picture, +z up. Colours
are display-referred; the light is baked into the vertex colours, because the fields of this project are view-
independent.
"""

import colorsys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, TypedDict, Unpack

import numpy as np

from dreamcraft3d.training import primitives
from dreamcraft3d.training.primitives import Array, Indices, Part

Pattern = Literal["plain", "rings", "sectors", "dots", "checks", "marble", "gradient", "halves"]
Triple = tuple[float, float, float]


class Placement(TypedDict, total=False):
    """Where a part goes: see `Sculptor.place`."""

    at: Triple
    size: Triple | float
    turn: Triple
    mirror: bool


@dataclass(frozen=True)
class Paint:
    """One or two colours and how they are laid out on a part; `count` repeats of the pattern."""

    colour: Triple
    second: Triple = (1.0, 1.0, 1.0)
    pattern: Pattern = "plain"
    count: int = 4
    phase: float = 0.0

    @property
    def grain(self) -> float:
        """How fine a surface has to be for the pattern to show."""
        return 0.5 if self.pattern == "plain" else 0.16 if self.pattern in ("gradient", "halves") else 0.09

    def at(self, uv: Array, local: Array) -> Array:
        """V x 3 colours at pattern coordinates (u around, v along) and positions inside the part's unit box."""
        u, v = uv[:, 0], uv[:, 1]
        shares: dict[Pattern, Callable[[], Array]] = {
            "plain": lambda: np.zeros_like(u),
            "rings": lambda: np.floor(v * 2 * self.count + self.phase) % 2,
            "sectors": lambda: np.floor(u * 2 * self.count) % 2,
            "checks": lambda: (np.floor(u * 2 * self.count) + np.floor(v * 2 * self.count)) % 2,
            "dots": lambda: self._dots(u, v),
            "marble": lambda: self._marble(local),
            "gradient": lambda: np.clip(0.5 + 0.5 * local[:, 2], 0.0, 1.0),
            "halves": lambda: (v > 0.3 + 0.4 * self.phase).astype(np.float64),
        }
        share = shares[self.pattern]()[:, None]
        mixed: Array = np.asarray(self.colour) * (1.0 - share) + np.asarray(self.second) * share
        return mixed

    def _dots(self, u: Array, v: Array) -> Array:
        row = np.floor(v * self.count)
        across = (u * 2 * self.count + 0.5 * (row % 2)) % 1.0 - 0.5
        along = (v * self.count) % 1.0 - 0.5
        inside: Array = (across**2 + along**2 < 0.09).astype(np.float64)
        return inside

    def _marble(self, local: Array) -> Array:
        turn = np.random.default_rng(int(self.phase * 1e6)).normal(size=(3, 6)) * (1.5 + self.count)
        waves = np.sin(local @ turn + np.arange(6) * (1.0 + self.phase)).mean(1)
        share: Array = np.clip(0.5 + 1.2 * waves, 0.0, 1.0)
        return share


@dataclass(frozen=True)
class Light:
    """A soft lamp far away: share = ambient + (1 - ambient) max(0, n . towards), plus a little sky from above."""

    towards: Triple
    ambient: float
    sky: float

    def on(self, normals: Array) -> Array:
        """V x 1 brightness in [0, 1]."""
        lambert = np.clip(0.25 + 0.75 * (normals @ np.asarray(self.towards)), 0.0, 1.0)
        share = self.ambient + (1.0 - self.ambient) * lambert
        bright: Array = np.clip(share * (1.0 + self.sky * (normals[:, 2] - 1.0) * 0.5), 0.0, 1.0)
        return bright[:, None]


@dataclass(frozen=True)
class Solid:
    """A finished object: `vertices` V x 3, `faces` F x 3, `colours` V x 3 in [0,1] with the light in them."""

    vertices: Array
    faces: Indices
    colours: Array
    kind: str = ""


def rotation(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Array:
    """R_z R_y R_x from degrees."""
    result = np.eye(3)
    for axis, degrees in ((0, x), (1, y), (2, z)):
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        turn = np.eye(3)
        i, j = [k for k in range(3) if k != axis]
        sign = -1.0 if axis == 1 else 1.0
        turn[i, i] = turn[j, j] = c
        turn[i, j], turn[j, i] = -sign * s, sign * s
        result = turn @ result
    return result


@dataclass
class Sculptor:
    """Collects placed parts. Sizes are half extents; `mirror` adds the left-right twin (y -> -y).

    `detail` multiplies the number of facets of round things and changes nothing else: 1 for 64-pixel pictures, more
    for large.
    """

    rng: np.random.Generator
    detail: int = 1
    vertices: list[Array] = field(default_factory=list)
    colours: list[Array] = field(default_factory=list)
    normals: list[Array] = field(default_factory=list)
    faces: list[Indices] = field(default_factory=list)

    def u(self, low: float, high: float) -> float:
        """A uniform number."""
        return float(self.rng.uniform(low, high))

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return bool(self.rng.random() < probability)

    def pick(self, *options: float) -> float:
        """One of the numbers."""
        return float(options[self.rng.integers(len(options))])

    # colours

    def hue(self, hue: float, *, spread: float = 0.04, saturation: float = 0.7, value: float = 0.75) -> Paint:
        """A plain colour near a hue (0 red, 1/3 green, 2/3 blue); any colour at all in a fifth of the cases."""
        if self.chance(0.2):
            return self.any_colour()
        jitter = self.rng.uniform(-1.0, 1.0, 3) * (spread, 0.2, 0.2)
        h, s, v = (hue + jitter[0]) % 1.0, saturation + jitter[1], value + jitter[2]
        return Paint(colorsys.hsv_to_rgb(h, float(np.clip(s, 0.0, 1.0)), float(np.clip(v, 0.08, 1.0))))

    def any_colour(self) -> Paint:
        """Any plain colour, greys and dark ones included."""
        saturation = self.u(0.0, 0.25) if self.chance(0.25) else self.u(0.3, 1.0)
        return Paint(colorsys.hsv_to_rgb(self.u(0.0, 1.0), saturation, self.u(0.15, 1.0) ** 0.7))

    def grey(self, value: float) -> Paint:
        """A grey near `value`."""
        return self.hue(self.u(0.0, 1.0), saturation=0.05, value=value)

    def wood(self) -> Paint:
        """A brown."""
        return self.hue(0.08, saturation=0.6, value=0.5)

    def fancy(self, paint: Paint | None = None, *, chance: float = 0.4) -> Paint:
        """The paint with a random pattern laid over it, some of the time."""
        paint = paint or self.any_colour()
        if not self.chance(chance):
            return paint
        patterns: list[Pattern] = ["rings", "sectors", "dots", "checks", "marble", "gradient", "halves"]
        red, green, blue = paint.colour
        darker = (0.55 * red, 0.55 * green, 0.55 * blue)
        second = self.any_colour().colour if self.chance(0.6) else darker
        pattern = patterns[self.rng.integers(len(patterns))]
        return replace(
            paint,
            second=second,
            pattern=pattern,
            count=int(self.rng.integers(2, 6)),
            phase=self.u(0.0, 1.0),
        )

    # parts

    def place(
        self,
        part: Part,
        paint: Paint,
        *,
        at: tuple[float, float, float] = (0.0, 0.0, 0.0),
        size: tuple[float, float, float] | float = 1.0,
        turn: tuple[float, float, float] = (0.0, 0.0, 0.0),
        mirror: bool = False,
    ) -> None:
        """Scales, turns (degrees about x, y, z) and moves a part, then adds it (and its mirror twin)."""
        colours = paint.at(part.uv, part.vertices)
        vertices = (part.vertices * np.asarray(size)) @ rotation(*turn).T + np.asarray(at)
        for side in (1.0, -1.0) if mirror else (1.0,):
            placed = vertices * (1.0, side, 1.0)
            faces = part.faces if side > 0 else part.faces[:, ::-1]
            self.faces.append(faces + sum(len(v) for v in self.vertices))
            self.vertices.append(placed)
            self.normals.append(vertex_normals(placed, faces))
            self.colours.append(colours)

    def ball(self, paint: Paint, *, bottom: float = -1.0, top: float = 1.0, around: float = 2.0, along: float = 2.0,
             **where: Unpack[Placement]) -> None:  # fmt: skip
        """A (cut, squarish) ellipsoid."""
        fine = paint.pattern != "plain"
        rows = (14 if fine else 9) * self.detail
        profile = primitives.dome(rows, bottom=bottom, top=top, exponent=along)
        section = primitives.superellipse((44 if fine else 20) * self.detail, around)
        self.place(primitives.lathe(profile, section, grain=paint.grain / self.detail), paint, **where)

    def box(self, paint: Paint, *, taper: float = 1.0, **where: Unpack[Placement]) -> None:
        """A box, or a frustum whose top is `taper` times as wide."""
        profile = primitives.close(np.array([[1.0, -1.0], [max(taper, 1e-3), 1.0]]))
        self.place(primitives.lathe(profile, primitives.square(), grain=2 * paint.grain / self.detail), paint, **where)

    def rod(self, paint: Paint, *, taper: float = 1.0, sides: int | None = None, **where: Unpack[Placement]) -> None:
        """A cylinder (prism if fewer than nine sides), cone or frustum along z."""
        sides = sides or (44 if paint.pattern != "plain" else 20) * self.detail
        profile = primitives.close(np.array([[1.0, -1.0], [max(taper, 1e-3), 1.0]]))
        self.place(primitives.lathe(profile, primitives.circle(sides), grain=paint.grain / self.detail), paint, **where)

    def turned(self, paint: Paint, profile: Array, **where: Unpack[Placement]) -> None:
        """A surface of revolution around z."""
        sides = (44 if paint.pattern != "plain" else 24) * self.detail
        part = primitives.lathe(primitives.close(profile), primitives.circle(sides), grain=paint.grain / self.detail)
        self.place(part, paint, **where)

    def cut_out(self, paint: Paint, outline: Array, *, puffed: bool = False, **where: Unpack[Placement]) -> None:
        """A star-shaped outline (S x 2: y right, z up, counter-clockwise) extruded or inflated along x."""
        profile = primitives.dome(9, exponent=2.4) if puffed else primitives.close(np.array([[1.0, -1.0], [1.0, 1.0]]))
        part = primitives.lathe(profile, outline, grain=max(paint.grain, 0.2) / self.detail)
        forward = part.vertices[:, [2, 0, 1]]  # (y, z, x) -> (x, y, z): a rotation, so faces stay outward
        self.place(Part(forward, part.uv, part.faces), paint, **where)

    def limb(self, paint: Paint, path: list[Triple], radii: float | list[float], *, mirror: bool = False) -> None:
        """A tube through the points (smoothed), ends rounded by balls."""
        knots = np.asarray(path)
        radius = np.broadcast_to(np.asarray(radii, dtype=np.float64), (len(knots),))
        dense = np.linspace(0.0, len(knots) - 1.0, 6 * self.detail * (len(knots) - 1) + 1)
        curve, width = _smooth(knots, dense), np.interp(dense, np.arange(len(knots)), radius)
        self.place(primitives.tube(curve, width, sides=10 * self.detail), paint, mirror=mirror)
        for end in (0, -1):
            r = float(width[end])
            self.ball(replace(paint, pattern="plain"), at=tuple(curve[end]), size=(r, r, r), mirror=mirror)

    def ring(self, paint: Paint, *, thickness: float, **where: Unpack[Placement]) -> None:
        """A torus in the xy plane with unit radius before scaling."""
        path = np.concatenate([primitives.circle(24), np.zeros((24, 1))], axis=1)
        part = primitives.tube(path, thickness, sides=10 * self.detail, closed=True)
        self.place(part, paint, **where)

    # the whole

    def finish(self, light: Light, *, turn: float = 0.0, kind: str = "") -> Solid:
        """Joins the parts, turns the object about z (degrees) and lights it."""
        spin = rotation(z=turn)
        vertices, normals = np.concatenate(self.vertices) @ spin.T, np.concatenate(self.normals) @ spin.T
        colours = np.clip(np.concatenate(self.colours) * light.on(normals), 0.0, 1.0)
        return Solid(vertices, np.concatenate(self.faces), colours, kind)


def vertex_normals(vertices: Array, faces: Indices) -> Array:
    """Area-weighted unit normals."""
    corners = vertices[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = np.stack([np.bincount(faces.ravel(), np.repeat(normal[:, k], 3), len(vertices)) for k in range(3)], axis=1)
    unit: Array = total / np.linalg.norm(total, axis=1, keepdims=True).clip(1e-12)
    return unit


def _smooth(knots: Array, dense: Array) -> Array:
    """Catmull-Rom through the knots."""
    padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    index = np.minimum(dense.astype(int), len(knots) - 2)
    s = (dense - index)[:, None]
    a, b, c, d = (padded[index + k] for k in range(4))
    curve: Array = 0.5 * (2 * b + (c - a) * s + (2 * a - 5 * b + 4 * c - d) * s**2 + (3 * b - a - 3 * c + d) * s**3)
    return curve
