"""The procedural world: one integer seed, one coloured object, for ever.

A seed fixes kind, proportions, colours, light and pose through its own numpy generator. Any change to `sculptor`,
`primitives` or the kinds changes the world: raise WORLD_VERSION then, so that cached pictures and old figures are not
mixed with new ones (2: robots have necks; every other object is what it was). Seeds below HELD_OUT are never trained
on; evaluation and the example pictures use them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from dreamcraft3d.training import kinds_living as living
from dreamcraft3d.training import kinds_things as things
from dreamcraft3d.training.primitives import Array
from dreamcraft3d.training.sculptor import Light, Sculptor, Solid

WORLD_VERSION = 2
STREAM = 1  # what seeds are combined with; the same since the first version
HELD_OUT = 1000

FOVY = float(np.radians(20.0))
HALF_WIDTH = 3.8 * float(np.tan(0.5 * FOVY))  # half the width that any camera sees at the origin, world units
WIDEST = 0.66  # reach from the vertical axis that every camera of the default field of view sees
FILL = 0.9  # of the picture's side that the object spans in the reference view

Make = Callable[[Sculptor], None]
# Long towards the camera: often shown from the side.
SIDEWAYS: tuple[Make, ...] = (living.quadruped, living.bird, things.plane)

KINDS: tuple[tuple[Make, float], ...] = (
    (living.stack, 5.0), (living.cut_shape, 2.0), (living.blob, 2.0), (things.vase, 3.0), (things.bottle, 1.0),
    (things.mug, 1.5), (things.teapot, 0.7), (things.goblet, 0.7), (things.chair, 1.5), (things.table, 1.0),
    (things.lamp, 1.0), (things.house, 1.5), (things.tower, 1.0), (things.car, 1.5), (things.ship, 1.0),
    (things.rocket, 1.0), (things.plane, 0.8), (things.tool, 1.5), (things.cake, 0.8), (things.burger, 0.8),
    (things.ice_cream, 0.7), (things.crate, 1.5), (things.hat, 0.8), (living.mushroom, 1.2), (living.tree, 1.2),
    (living.potted_plant, 1.2), (living.fruit, 1.0), (living.robot, 1.5), (living.snowman, 0.7), (living.teddy, 2.0),
    (living.person, 1.5), (living.bird, 1.5), (living.quadruped, 2.0), (living.fish, 0.8),
)  # fmt: skip


@dataclass(frozen=True)
class WorldObject:
    """A framed object and the elevation (radians) of its reference camera; the reference azimuth is 0."""

    solid: Solid
    elevation: float


def make_object(seed: int, *, kind: str | None = None, detail: int = 1, lit: bool = True) -> WorldObject:
    """The object of a seed.

    `kind` (a function name such as "mug") overrides the drawn kind, for pictures and tests; `detail` refines round
    surfaces; unless `lit`, its colours have no light in them.
    """
    rng = np.random.default_rng([STREAM, seed])
    weights = np.array([weight for _, weight in KINDS])
    make = KINDS[int(rng.choice(len(KINDS), p=weights / weights.sum()))][0]
    if kind is not None:
        make = next(maker for maker, _ in KINDS if maker.__name__ == kind)
    s = Sculptor(rng, detail)
    light = _light(s)
    turn = _turn(s, make)
    elevation = float(np.radians(rng.uniform(0.0, 20.0))) if s.chance(0.3) else 0.0
    make(s)
    solid = s.finish(light if lit else Light((0.0, 0.0, 1.0), ambient=1.0, sky=0.0), turn=turn, kind=make.__name__)
    return WorldObject(replace(solid, vertices=framed(solid.vertices, elevation)), elevation)


def framed(vertices: Array, elevation: float, *, fovy: float = FOVY, fill: float = FILL, rounds: int = 4) -> Array:
    """Scaled and moved so that it spans `fill` of the reference picture, or less where other views would cut it off.

    The picture's bounding box is centred as input pictures are; in depth the object's middle is on the axis. Angles in
    radians. Four `rounds` of centring and scaling suffice for the default lens near the horizon.
    """
    centred = vertices - 0.5 * (vertices.max(0) + vertices.min(0))
    radius = float(np.linalg.norm(centred[:, :2], axis=1).max())
    scale = 0.6 / max(radius, float(np.abs(centred[:, 2]).max()))
    # What turns about the vertical and stays in the picture.
    widest = WIDEST * np.cos(0.5 * fovy) / np.cos(0.5 * FOVY)
    for _ in range(rounds):
        placed = centred * scale
        low, high = _bounds(placed, elevation, fovy)
        spans, middle = high - low, 0.5 * (high + low)
        grow = 2.0 * fill / float(spans.max())
        centred[:, 1] -= middle[0] * HALF_WIDTH / scale
        centred[:, 2] -= middle[1] * HALF_WIDTH / scale / np.cos(elevation)
        radius = float(np.linalg.norm(centred[:, :2], axis=1).max()) * scale
        scale *= min(grow, widest / max(radius, 1e-9))
    fitted: Array = centred * scale
    return fitted


def _bounds(vertices: Array, elevation: float, fovy: float) -> tuple[Array, Array]:
    """Lower and upper corner in the reference picture, in units of half its side."""
    c, e, half = np.cos(elevation), np.sin(elevation), np.tan(0.5 * fovy)
    depth = HALF_WIDTH / half - (vertices[:, 0] * c + vertices[:, 2] * e)
    picture = np.stack([vertices[:, 1], vertices[:, 2] * c - vertices[:, 0] * e], axis=1) / (depth * half)[:, None]
    return picture.min(0), picture.max(0)


def _turn(s: Sculptor, make: Make) -> float:
    """Most objects face the reference camera; long ones stand sideways, a quarter is seen from an odd angle."""
    if make in SIDEWAYS:
        return s.pick(90.0, -90.0, 90.0, -90.0, 60.0, -60.0, 45.0, -45.0, 0.0, 20.0, -20.0)
    if s.chance(0.72):
        return 0.0
    return s.u(-60.0, 60.0) if s.chance(0.8) else s.u(-180.0, 180.0)


def _light(s: Sculptor) -> Light:
    """A soft lamp above and in front, sometimes none to speak of."""
    azimuth, elevation = np.radians(s.u(-80.0, 80.0)), np.radians(s.u(15.0, 85.0))
    towards = (np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation))
    return Light((float(towards[0]), float(towards[1]), float(towards[2])), s.u(0.4, 0.95), s.u(0.0, 0.35))
