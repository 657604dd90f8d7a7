"""Procedural things that people make: vessels, furniture, vehicles, buildings, tools.

Each function adds one object, of any size and place, to a sculptor; `shapes.make_object` frames it afterwards.
"""

import numpy as np

from dreamcraft3d.training.primitives import Array, superellipse
from dreamcraft3d.training.sculptor import Paint, Sculptor


def random_profile(s: Sculptor, *, points: int = 5, low: float = 0.2, high: float = 1.0) -> Array:
    """A wavy outline (K x 2) from height -1 to 1."""
    knots = s.rng.uniform(low, high, points)
    if s.chance(0.5):
        knots = np.sort(knots)[:: int(s.pick(-1, 1))]
    height = np.linspace(-1.0, 1.0, 17)
    x = np.linspace(-1.0, 1.0, points)
    smooth = (
        np.polyval(np.polyfit(x, knots, min(points - 1, 4)), height) if s.chance(0.7) else np.interp(height, x, knots)
    )
    return np.stack([np.clip(smooth, 0.08, 1.1), height], axis=1)


def vase(s: Sculptor) -> None:
    """A surface of revolution, sometimes with a lid, a foot or two handles."""
    wide, paint = s.u(0.35, 1.0), s.fancy()
    profile = random_profile(s)
    s.turned(paint, profile, size=(wide, wide, 1.0))
    if s.chance(0.3):
        s.ball(s.any_colour(), at=(0, 0, 1.05), size=s.u(0.1, 0.3))
    if s.chance(0.3):
        s.rod(s.any_colour(), at=(0, 0, -1.05), size=(wide * profile[0, 0] * 1.15, wide * profile[0, 0] * 1.15, 0.1))
    if s.chance(0.35):
        y = wide * float(profile[8, 0])
        handle = [(0.0, y * 0.9, 0.4), (0.0, y + 0.35, 0.45), (0.0, y + 0.3, -0.1), (0.0, y * 0.9, -0.2)]
        s.limb(s.fancy(paint, chance=0), handle, s.u(0.05, 0.09), mirror=True)


def bottle(s: Sculptor) -> None:
    """A bottle with a neck, a cap and often a label."""
    body, neck, shoulder = s.u(0.25, 0.5), s.u(0.08, 0.17), s.u(0.0, 0.5)
    paint = s.any_colour()
    outline = np.array([[body * 0.9, -1.0], [body, -0.93], [body, shoulder - 0.2], [body * 0.85, shoulder],
                        [neck, shoulder + 0.3], [neck, 0.95]])  # fmt: skip
    s.turned(paint, outline)
    s.rod(s.any_colour(), at=(0, 0, 1.0), size=(neck * 1.2, neck * 1.2, s.u(0.05, 0.14)))
    if s.chance(0.7):
        s.rod(s.fancy(), at=(0, 0, s.u(-0.6, -0.3)), size=(body * 1.02, body * 1.02, s.u(0.1, 0.3)))


def mug(s: Sculptor) -> None:
    """A hollow cup with a handle at the side (or turned away)."""
    r, h, t = s.u(0.5, 0.8), s.u(0.5, 0.9), 0.07
    paint = s.fancy()
    base = r * s.u(0.75, 1.0)
    s.turned(paint, np.array([[base, -h], [r, h], [r - t, h], [base - t, -h + 0.15]]))
    s.rod(s.hue(0.07, saturation=0.7, value=0.3), at=(0, 0, h * s.u(0.5, 0.85)), size=(r - t, r - t, 0.02))
    reach, angle = s.u(0.3, 0.5), s.pick(0, 0, 25, -25, 90, 180, 155)
    middle = 0.5 * (base + r)
    path = [
        (0.0, middle - 0.03, 0.55 * h),
        (0.0, r + reach, 0.5 * h),
        (0.0, r + reach, -0.3 * h),
        (0.0, middle - 0.06, -0.5 * h),
    ]
    c, d = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    handle = paint if s.chance(0.6) else s.any_colour()
    s.limb(Paint(handle.colour), [(-y * d, y * c, z) for _, y, z in path], s.u(0.06, 0.11))


def teapot(s: Sculptor) -> None:
    """A round pot with spout, handle and lid."""
    paint, flat = s.fancy(), s.u(0.65, 1.0)
    plain = Paint(paint.colour)
    s.ball(paint, bottom=-0.85, size=(0.75, 0.75, 0.75 * flat))
    s.limb(plain, [(0, 0.55, -0.2 * flat), (0, 0.95, 0.0), (0, 1.15, 0.45 * flat)], [0.19, 0.13, 0.09])
    s.limb(plain, [(0, -0.6, 0.35 * flat), (0, -1.1, 0.35 * flat), (0, -1.1, -0.25), (0, -0.6, -0.3 * flat)], 0.08)
    s.ball(s.any_colour(), bottom=0.0, at=(0, 0, 0.65 * flat), size=(0.35, 0.35, 0.17))
    s.ball(s.any_colour(), at=(0, 0, 0.65 * flat + 0.22), size=0.1)


def goblet(s: Sculptor) -> None:
    """A cup on a stem."""
    r, stem = s.u(0.4, 0.65), s.u(0.06, 0.12)
    outline = np.array(
        [
            [s.u(0.3, 0.55), -1.0],
            [stem, -0.85],
            [stem, s.u(-0.4, 0.1)],
            [r * 0.8, 0.3],
            [r, 0.95],
            [r - 0.06, 0.95],
            [r * 0.7, 0.4],
        ]
    )
    s.turned(s.fancy(), outline)


def chair(s: Sculptor) -> None:
    """Seat, legs, back; arms sometimes."""
    w, d, seat, back = s.u(0.4, 0.55), s.u(0.4, 0.55), s.u(-0.25, 0.05), s.u(0.7, 1.1)
    wood, cloth = s.wood(), s.fancy(chance=0.3)
    leg = s.u(0.04, 0.08)
    for x in (-1, 1):
        s.rod(
            wood,
            sides=int(s.pick(4, 12)),
            at=(x * (d - leg), w - leg, 0.5 * (seat - 1)),
            size=(leg, leg, 0.5 * (seat + 1)),
            mirror=True,
        )
    s.box(cloth, at=(0, 0, seat), size=(d, w, s.u(0.05, 0.12)))
    if s.chance(0.6):
        s.box(
            cloth if s.chance(0.5) else wood,
            at=(-d + 0.05, 0, seat + 0.5 * back),
            size=(0.06, w, 0.5 * back),
            turn=(0, s.u(-8, 0), 0),
        )
    else:
        s.box(wood, at=(-d + 0.05, w - leg, seat + 0.5 * back), size=(leg, leg, 0.5 * back), mirror=True)
        for k in range(3):
            s.box(wood, at=(-d + 0.05, 0, seat + back * (0.35 + 0.28 * k)), size=(leg * 0.7, w, 0.07))
    if s.chance(0.3):
        s.box(wood, at=(0, w, seat + 0.35), size=(d, 0.06, 0.05), mirror=True)
        s.box(wood, at=(d - 0.06, w, seat + 0.17), size=(0.05, 0.05, 0.18), mirror=True)


def table(s: Sculptor) -> None:
    """A round or square top on four legs or one foot; something may stand on it."""
    w, h = s.u(0.7, 1.0), s.u(0.4, 0.7)
    d = w * s.u(0.6, 1.0)
    top, wood = s.fancy(s.wood(), chance=0.3), s.wood()
    if s.chance(0.5):
        s.box(top, at=(0, 0, h), size=(d, w, 0.06))
    else:
        s.rod(top, at=(0, 0, h), size=(d, w, 0.06))
    if s.chance(0.65):
        leg, inset = s.u(0.04, 0.09), s.u(0.6, 0.66)
        for x in (-1, 1):
            s.rod(wood, sides=int(s.pick(4, 12)), at=(x * d * inset, w * inset, 0), size=(leg, leg, h), mirror=True)
    else:
        s.rod(wood, size=(0.1, 0.1, h))
        s.rod(wood, taper=0.4, at=(0, 0, -h), size=(0.4, 0.4, 0.1))
    if s.chance(0.3):
        s.ball(s.fancy(), at=(0, 0, h + 0.25), size=s.u(0.15, 0.25))


def lamp(s: Sculptor) -> None:
    """A shade on a stem on a foot."""
    h, r = s.u(0.6, 0.9), s.u(0.35, 0.6)
    metal = s.any_colour()
    s.rod(s.fancy(s.hue(0.13, value=0.9)), taper=s.u(0.4, 0.95), at=(0, 0, h), size=(r, r, s.u(0.25, 0.4)))
    if s.chance(0.5):
        s.rod(metal, size=(0.05, 0.05, h))
    else:
        profile = random_profile(s, low=0.3)
        s.turned(s.fancy(metal), profile, size=(0.28, 0.28, h * 0.9))
    s.rod(metal, taper=0.7, at=(0, 0, -h), size=(r * 0.7, r * 0.7, 0.07))


def house(s: Sculptor) -> None:
    """Walls, gable or pyramid roof, door and windows, a chimney."""
    w, d, h = s.u(0.5, 0.8), s.u(0.45, 0.8), s.u(0.35, 0.7)
    wall, roof, hole = (
        s.fancy(s.hue(0.1, saturation=0.3, value=0.85), chance=0.15),
        s.fancy(s.hue(0.02), chance=0.3),
        s.any_colour(),
    )
    s.box(wall, size=(d, w, h))
    rise = s.u(0.25, 0.6)
    if s.chance(0.65):
        triangle = np.array([[1.12, 0.0], [0.0, 1.0], [-1.12, 0.0]])
        across = s.chance(0.5)
        size = (d * 1.08, w, 1.0) if across else (w * 1.08, d, 1.0)
        s.cut_out(roof, triangle * (1.0, rise * 1.4), at=(0, 0, h), size=size, turn=(0, 0, 0 if across else 90))
    else:
        s.rod(
            roof,
            taper=0.0,
            sides=4,
            at=(0, 0, h + rise),
            size=(d * 1.6, w * 1.6, rise),
            turn=(0, 0, 45) if abs(d - w) < 0.05 else (0, 0, 0),
        )
    s.box(hole, at=(d, s.pick(0, 0, 0.3 * w), -h + 0.22), size=(0.03, 0.12, 0.22))
    for y in (-1, 1):
        s.box(s.hue(0.55, saturation=0.4, value=0.9), at=(d, y * w * 0.6, 0.25 * h), size=(0.02, 0.12, 0.12))
        s.box(s.hue(0.55, saturation=0.4, value=0.9), at=(s.pick(0, 0.2), y * w, 0.1), size=(0.15, 0.02, 0.13))
    if s.chance(0.5):
        s.box(s.hue(0.02, value=0.5), at=(-0.4 * d, s.pick(-0.5, 0.5) * w, h + rise), size=(0.1, 0.1, 0.35))


def tower(s: Sculptor) -> None:
    """A round or square tower with a roof or battlements; lighthouses too."""
    r, sides = s.u(0.3, 0.5), int(s.pick(4, 6, 8, 24, 24))
    s.rod(s.fancy(chance=0.5), taper=s.u(0.6, 1.0), sides=sides, size=(r, r, 0.9))
    s.rod(s.any_colour(), sides=sides, at=(0, 0, 0.95), size=(r * 1.15, r * 1.15, 0.1))
    if s.chance(0.6):
        s.rod(s.fancy(chance=0.2), taper=0.0, sides=sides, at=(0, 0, 1.35), size=(r * 1.2, r * 1.2, s.u(0.25, 0.4)))
    else:
        paint = s.any_colour()
        for k in range(6):
            a = k * np.pi / 3
            s.box(paint, at=(r * np.cos(a), r * np.sin(a), 1.12), size=0.09)
    s.box(s.any_colour(), at=(r * 0.93, 0, -0.6), size=(0.06, 0.14, 0.3))
    if s.chance(0.4):
        for k in range(2):
            s.box(s.any_colour(), at=(r * 0.85, 0, 0.0 + 0.4 * k), size=(0.08, 0.07, 0.1))


def car(s: Sculptor) -> None:
    """A car, van or lorry, seen from the side or the front."""
    body, glass, tyre = s.fancy(chance=0.15), s.hue(0.55, saturation=0.3, value=0.8), s.grey(0.15)
    long, wide, low = 1.0, s.u(0.38, 0.5), s.u(0.16, 0.3)
    s.ball(body, around=6, along=6, size=(wide, long, low))
    start = s.u(-0.5, 0.1)
    cabin = s.u(0.2, 0.38)
    s.box(
        body if s.chance(0.5) else s.any_colour(),
        taper=s.u(0.7, 0.95),
        at=(0, start, low + cabin * 0.9),
        size=(wide * 0.9, s.u(0.35, 0.55), cabin),
    )
    s.box(glass, taper=0.85, at=(0, start, low + cabin), size=(wide * 0.92, 0.3, cabin * 0.55))
    if s.chance(0.3):
        s.box(s.fancy(), at=(0, -0.3, low + 0.35), size=(wide, 0.65, 0.38))
    wheel, hub = s.u(0.18, 0.27), s.grey(0.75)
    for y in (-0.6, 0.6):
        for x in (-wide, wide):
            s.rod(tyre, at=(x, y, -low), size=(wheel, wheel, 0.09), turn=(0, 90, 0))
            s.rod(hub, at=(x * 1.05, y, -low), size=(wheel * 0.5, wheel * 0.5, 0.09), turn=(0, 90, 0))
    s.ball(s.hue(0.15, value=0.95), at=(wide * 0.6, long, 0), size=0.08)
    s.ball(s.hue(0.15, value=0.95), at=(-wide * 0.6, long, 0), size=0.08)


def ship(s: Sculptor) -> None:
    """A hull with a cabin and funnels, or with a mast and a sail."""
    hull, depth = s.fancy(chance=0.25), s.u(0.25, 0.4)
    outline = np.array([[-0.75, -1], [0.75, -1], [1.05, 1], [-1.0, 1]]) * (1.0, depth)
    s.cut_out(hull, outline, size=(s.u(0.25, 0.4), 1.0, 1.0))
    deck = depth
    if s.chance(0.5):
        s.box(s.any_colour(), at=(0, s.u(-0.3, 0.1), deck + 0.18), size=(0.2, s.u(0.3, 0.5), 0.18))
        for k in range(int(s.pick(1, 2, 3))):
            s.rod(s.fancy(), at=(0, -0.3 + 0.3 * k, deck + 0.5), size=(0.09, 0.09, s.u(0.15, 0.3)))
    else:
        mast = s.u(0.6, 0.8)
        s.rod(s.wood(), at=(0, 0, deck + mast), size=(0.035, 0.035, mast))
        sail = (
            np.array([[0.75, -0.8], [0.0, 0.9], [-0.65, -0.8]]) if s.chance(0.6) else superellipse(16, 6) * (0.6, 0.65)
        )
        s.cut_out(s.fancy(s.grey(0.95)), sail, size=(0.03, 0.9, mast), at=(0.05, 0, deck + mast + 0.08))


def rocket(s: Sculptor) -> None:
    """Body of revolution, nose, fins, a window."""
    r, body, accent = s.u(0.2, 0.4), s.fancy(s.grey(0.85), chance=0.3), s.any_colour()
    s.turned(body, np.array([[r * 0.7, -0.8], [r, -0.4], [r, 0.2], [r * 0.85, 0.5]]))
    s.turned(accent, np.array([[r * 0.85, 0.5], [r * 0.6, 0.75], [r * 0.25, 0.95], [0.0, 1.02]]))
    fin = np.array([[0.05, -0.35], [s.u(0.25, 0.45), -0.6], [s.u(0.25, 0.4), -0.3], [0.0, 0.3]])
    count, start = int(s.pick(3, 4, 4)), s.pick(0, 45)
    for k in range(count):
        angle = start + 360.0 * k / count
        c, d = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        s.cut_out(accent, fin, size=(0.04, 1.0, 1.0), at=(-d * r * 0.8, c * r * 0.8, -0.5), turn=(0, 0, angle))
    if s.chance(0.75):
        s.ball(s.hue(0.55, value=0.9), at=(r * 0.95, 0, s.u(0.0, 0.25)), size=(0.06, r * 0.45, r * 0.45))
    if s.chance(0.4):
        s.rod(s.hue(0.07, value=0.95), taper=2.0, at=(0, 0, -0.95), size=(r * 0.25, r * 0.25, 0.15))


def plane(s: Sculptor) -> None:
    """Fuselage, wings, tail; nose towards the camera or the side (framing turns it)."""
    body, wing = s.fancy(chance=0.3), s.any_colour()
    s.ball(body, size=(1.0, 0.18, 0.19))
    s.box(wing, taper=0.8, at=(s.u(-0.1, 0.2), 0, s.pick(-0.05, 0.12)), size=(s.u(0.15, 0.28), s.u(0.8, 1.05), 0.03))
    s.box(wing, at=(-0.85, 0, 0.08), size=(0.12, 0.35, 0.025))
    s.box(wing, taper=0.6, at=(-0.88, 0, 0.28), size=(0.13, 0.025, 0.2))
    s.ball(s.hue(0.55, value=0.9), at=(0.5, 0, 0.12), size=(0.2, 0.1, 0.11))


def tool(s: Sculptor) -> None:
    """Swords, hammers, axes, maces, umbrellas and spoons: a head on a stick."""
    grip, metal = s.wood(), s.grey(0.7)
    kind = int(s.rng.integers(5))
    if kind == 0:
        w = s.u(0.09, 0.17)
        blade = np.array([[1, -0.7], [1, 0.75], [0, 1], [-1, 0.75], [-1, -0.7]])
        s.cut_out(metal, blade * (w, 1.0), size=(0.03, 1, 0.8), at=(0, 0, 0.35))
        s.box(s.any_colour(), at=(0, 0, -0.25), size=(0.07, s.u(0.25, 0.4), 0.05))
        s.rod(grip, at=(0, 0, -0.5), size=(0.06, 0.06, 0.25))
        s.ball(s.any_colour(), at=(0, 0, -0.8), size=0.1)
        return
    s.rod(grip, sides=12, size=(s.u(0.05, 0.08), s.u(0.05, 0.08), 1.0), at=(0, 0, -0.1))
    if kind == 1:
        s.ball(
            s.fancy(metal, chance=0.3),
            around=s.u(4, 10),
            along=s.u(4, 10),
            at=(0, 0, 0.8),
            size=(s.u(0.22, 0.35), s.u(0.35, 0.6), s.u(0.2, 0.35)),
        )
    elif kind == 2:
        s.ball(metal, bottom=-0.7, top=0.7, at=(0, 0.2, 0.65), size=(0.06, 0.4, 0.4))
    elif kind == 3:
        s.ball(s.fancy(metal), at=(0, 0, 0.85), size=s.u(0.25, 0.4))
    else:
        s.ball(s.fancy(), bottom=0.0, at=(0, 0, 0.5), size=(0.75, 0.75, s.u(0.35, 0.6)))


def cake(s: Sculptor) -> None:
    """Tiers with icing, cherries or candles."""
    r, z = s.u(0.7, 1.0), -0.6
    for _ in range(int(s.pick(1, 2, 2, 3))):
        h = s.u(0.15, 0.3)
        s.rod(s.fancy(s.hue(0.08, value=0.8)), at=(0, 0, z + h), size=(r, r, h))
        z += 2 * h
        s.ball(s.any_colour(), along=4, at=(0, 0, z), size=(r * 1.03, r * 1.03, 0.06))
        r *= s.u(0.6, 0.8)
    if s.chance(0.5):
        s.ball(s.hue(0.0), at=(0, 0, z + 0.12), size=0.14)
    else:
        for k in range(5):
            a = 2 * np.pi * k / 5
            s.rod(
                s.any_colour(),
                sides=10,
                at=(r * 0.6 * np.cos(a), r * 0.6 * np.sin(a), z + 0.15),
                size=(0.04, 0.04, 0.16),
            )


def burger(s: Sculptor) -> None:
    """Layers between two halves of a bun."""
    bun, r, z = s.hue(0.09, saturation=0.65, value=0.8), s.u(0.8, 1.0), -0.4
    s.ball(bun, along=3.5, at=(0, 0, z), size=(r, r, 0.2))
    z += 0.2
    for _ in range(int(s.pick(2, 3, 4))):
        h = s.u(0.06, 0.13)
        s.ball(
            s.hue(s.pick(0.0, 0.3, 0.05, 0.14)),
            along=4,
            around=s.pick(2, 2, 4),
            at=(0, 0, z + h),
            size=(r * s.u(0.93, 1.1), r * s.u(0.93, 1.1), h),
        )
        z += 1.7 * h
    top = s.fancy(bun, chance=0.3)
    s.ball(top, bottom=0.0, at=(0, 0, z), size=(r, r, s.u(0.4, 0.6)))


def ice_cream(s: Sculptor) -> None:
    """A cone or cup with scoops."""
    s.rod(s.fancy(s.hue(0.09, value=0.75)), taper=s.u(3, 8), at=(0, 0, -0.4), size=(0.06, 0.06, 0.6))
    z, r = 0.3, s.u(0.38, 0.5)
    for _ in range(int(s.pick(1, 2, 3))):
        s.ball(s.fancy(chance=0.3), at=(0, 0, z), size=(r, r, r * 0.9))
        z, r = z + r * 1.0, r * 0.88
    if s.chance(0.5):
        s.ball(s.hue(0.0), at=(0, 0, z), size=0.12)


def crate(s: Sculptor) -> None:
    """Boxes, gifts, books, barrels, cabinets and screens."""
    paint, kind = s.fancy(), int(s.rng.integers(4))
    w, d, h = s.u(0.4, 1.0), s.u(0.25, 0.9), s.u(0.4, 1.0)
    if kind == 0:
        s.box(paint, size=(d, w, h))
        band = s.any_colour()
        s.box(band, size=(d * 1.02, w * 0.15, h * 1.02))
        s.box(band, size=(d * 0.15, w * 1.02, h * 1.02))
        s.ball(band, at=(0, 0.18, h + 0.08), size=(0.1, 0.18, 0.1), mirror=True)
    elif kind == 1:
        s.turned(paint, np.array([[0.75, -1], [0.95, -0.5], [1, 0], [0.95, 0.5], [0.75, 1]]), size=(0.65, 0.65, 0.85))
        for z in (-0.5, 0.5):
            s.rod(s.grey(0.35), at=(0, 0, 0.85 * z), size=(0.635, 0.635, 0.05))
    elif kind == 2:
        s.box(s.grey(0.3), size=(0.06, 0.9, 0.55), at=(0, 0, 0.3))
        s.box(s.fancy(), size=(0.02, 0.82, 0.47), at=(0.06, 0, 0.3))
        s.box(s.grey(0.35), size=(0.05, 0.1, 0.25), at=(-0.04, 0, -0.4))
        s.box(s.grey(0.35), size=(0.25, 0.4, 0.03), at=(0, 0, -0.62))
    else:
        s.box(paint, size=(d * 0.6, w, h))
        for k in range(3):
            s.box(
                s.fancy(paint, chance=0.0) if s.chance(0.5) else s.any_colour(),
                at=(d * 0.6, 0, h * (0.6 * k - 0.6)),
                size=(0.03, w * 0.85, h * 0.24),
            )
            s.ball(s.grey(0.8), at=(d * 0.6 + 0.05, 0, h * (0.6 * k - 0.6)), size=0.05)


def hat(s: Sculptor) -> None:
    """Brim and crown: top hat, cap, sombrero, wizard's hat."""
    paint, r = s.fancy(chance=0.3), s.u(0.4, 0.6)
    s.rod(Paint(paint.colour), at=(0, 0, -0.3), size=(s.u(0.75, 1.0), s.u(0.75, 1.0), 0.04))
    if s.chance(0.4):
        s.rod(paint, taper=s.u(0.0, 0.1), at=(0, 0, 0.3), size=(r, r, 0.6))
    elif s.chance(0.5):
        s.rod(paint, taper=s.u(0.8, 1.15), at=(0, 0, 0.1), size=(r, r, 0.42))
    else:
        s.ball(paint, bottom=0.0, at=(0, 0, -0.28), size=(r, r, s.u(0.5, 0.7)))
    s.rod(s.any_colour(), at=(0, 0, -0.2), size=(r * 1.03, r * 1.03, 0.07))
