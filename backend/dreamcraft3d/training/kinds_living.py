"""Procedural creatures, plants and abstract forms (see `kinds_things`)."""

import numpy as np

from dreamcraft3d.training.kinds_things import random_profile
from dreamcraft3d.training.primitives import Array, Part, circle, dome, lathe, superellipse
from dreamcraft3d.training.sculptor import Paint, Sculptor


def face(s: Sculptor, *, at: tuple[float, float, float], r: float, snout: Paint | None = None) -> None:
    """Eyes, a nose or snout and often a mouth on the front of a head of radius r."""
    x, y, z = at
    eye = s.u(0.09, 0.2) * r
    gap = s.u(0.3, 0.45) * r
    depth = x + np.sqrt(max(r * r * 0.9 - gap * gap, 0.0))
    if s.chance(0.4):
        s.ball(s.grey(0.95), at=(depth - 0.2 * eye, y + gap, z + 0.2 * r), size=1.6 * eye, mirror=True)
    s.ball(s.grey(0.1), at=(depth + (0.7 * eye), y + gap, z + 0.2 * r), size=eye, mirror=True)
    if snout is not None:
        s.ball(snout, at=(x + 0.85 * r, y, z - 0.25 * r), size=(0.35 * r, 0.42 * r, 0.32 * r))
        s.ball(s.grey(0.1), at=(x + 1.18 * r, y, z - 0.15 * r), size=0.12 * r)
    elif s.chance(0.6):
        s.ball(s.any_colour(), at=(x + r, y, z - 0.1 * r), size=(0.25 * r, 0.12 * r, 0.12 * r))
    if s.chance(0.3):
        s.box(s.hue(0.0, value=0.4), at=(x + 0.9 * r, y, z - 0.45 * r), size=(0.1 * r, 0.3 * r, 0.06 * r))


def mushroom(s: Sculptor) -> None:
    """A cap on a stalk, often spotted."""
    stalk, r = s.u(0.15, 0.35), s.u(0.6, 0.95)
    stem = s.hue(0.12, saturation=0.15, value=0.9)
    s.turned(stem, np.array([[stalk * 1.3, -0.9], [stalk, -0.5], [stalk * 0.9, 0.25]]))
    cap = s.hue(0.0)
    rise, base = s.u(0.4, 0.85), s.u(0.0, 0.25)
    s.ball(
        cap if s.chance(0.6) else s.fancy(cap, chance=0.8), bottom=s.u(-0.25, 0.0), at=(0, 0, base), size=(r, r, rise)
    )
    if s.chance(0.6):
        spot = s.grey(0.95)
        for _ in range(int(s.rng.integers(5, 12))):
            a, e = s.u(0, 2 * np.pi), s.u(0.15, 1.4)
            where = (r * np.cos(e) * np.cos(a), r * np.cos(e) * np.sin(a), base + rise * np.sin(e))
            s.ball(spot, at=where, size=s.u(0.06, 0.14))
    if s.chance(0.25):
        s.ball(s.hue(0.3, value=0.5), at=(0, 0, -0.95), size=(0.5, 0.5, 0.12))


def tree(s: Sculptor) -> None:
    """A pine of stacked cones, a round crown, or a palm-like tuft."""
    trunk = s.u(0.07, 0.14)
    s.rod(s.wood(), taper=0.7, at=(0, 0, -0.55), size=(trunk, trunk, 0.5))
    leaf, kind = s.hue(0.3, value=0.5), int(s.rng.integers(3))
    if kind == 0:
        z, r = -0.25, s.u(0.45, 0.7)
        for _ in range(int(s.pick(2, 3, 4))):
            s.rod(leaf, taper=0.05, at=(0, 0, z + 0.3), size=(r, r, 0.38))
            z, r = z + 0.35, r * 0.78
    elif kind == 1:
        for _ in range(int(s.pick(1, 3, 5))):
            r = s.u(0.3, 0.5)
            s.ball(s.fancy(leaf, chance=0.2), at=(s.u(-0.3, 0.3), s.u(-0.3, 0.3), s.u(0.15, 0.6)), size=r)
        s.ball(leaf, at=(0, 0, 0.3), size=(0.5, 0.5, 0.5))
    else:
        s.ball(s.fancy(leaf, chance=0.3), at=(0, 0, 0.4), size=(s.u(0.35, 0.6), s.u(0.35, 0.6), s.u(0.5, 0.8)))


def potted_plant(s: Sculptor) -> None:
    """A cactus, a flower or a bush in a pot."""
    pot, r = s.fancy(s.hue(0.05), chance=0.3), s.u(0.3, 0.5)
    s.rod(pot, taper=s.u(1.1, 1.5), at=(0, 0, -0.6), size=(r, r, 0.4))
    s.rod(Paint(pot.colour), at=(0, 0, -0.2), size=(r * 1.5, r * 1.5, 0.09))
    green, kind = s.hue(0.33, value=0.5), int(s.rng.integers(3))
    if kind == 0:
        w, h = s.u(0.17, 0.3), s.u(0.4, 0.7)
        ribs = circle(32) * (1.0 + 0.12 * np.cos(8 * np.arange(32) * 2 * np.pi / 32))[:, None]
        s.place(lathe(dome(10, exponent=2.6), ribs), green, at=(0, 0, h - 0.2), size=(w, w, h))
        if s.chance(0.5):
            s.limb(green, [(0, w * 0.7, 0.1), (0, w + 0.25, 0.12), (0, w + 0.28, 0.45)], w * 0.45, mirror=s.chance(0.5))
    elif kind == 1:
        h = s.u(0.6, 0.9)
        s.limb(green, [(0, 0, -0.2), (0, s.u(-0.05, 0.05), 0.2), (0, 0, h)], 0.05)
        petal = s.any_colour()
        for k in range(7):
            a = 2 * np.pi * k / 7
            s.ball(petal, at=(0.02, 0.2 * np.cos(a), h + 0.2 * np.sin(a)), size=(0.05, 0.13, 0.13))
        s.ball(s.hue(0.14, value=0.9), at=(0.06, 0, h), size=(0.08, 0.13, 0.13))
    else:
        for _ in range(6):
            s.ball(green, at=(s.u(-0.2, 0.2), s.u(-0.3, 0.3), s.u(0.0, 0.5)), size=s.u(0.2, 0.33))


def fruit(s: Sculptor) -> None:
    """An apple, pear, pumpkin or carrot, with stalk and leaf."""
    skin = s.fancy(s.hue(s.pick(0.0, 0.1, 0.25)), chance=0.25)
    kind = int(s.rng.integers(4))
    if kind == 0:
        s.ball(skin, size=(0.8, 0.8, s.u(0.65, 0.85)))
    elif kind == 1:
        s.turned(
            skin, np.array([[0.3, -1], [0.62, -0.8], [0.72, -0.5], [0.6, -0.1], [0.38, 0.35], [0.3, 0.7], [0.15, 0.85]])
        )
    elif kind == 2:
        for k in range(8):
            a = np.pi * k / 4
            s.ball(skin, at=(0.35 * np.cos(a), 0.35 * np.sin(a), 0), size=(0.4, 0.4, s.u(0.6, 0.65)))
    else:
        s.rod(skin, taper=s.u(3, 6), at=(0, 0, -0.2), size=(0.08, 0.08, 0.8))
        for _ in range(4):
            s.ball(
                s.hue(0.33), at=(s.u(-0.1, 0.1), s.u(-0.2, 0.2), 0.85), size=(0.1, 0.1, 0.3), turn=(s.u(-25, 25), 0, 0)
            )
        return
    s.limb(s.wood(), [(0, 0, 0.55), (0, 0.02, 0.75), (0, 0.08, 0.95)], 0.05)
    if s.chance(0.5):
        s.ball(s.hue(0.33), at=(0, 0.25, 0.85), size=(0.08, 0.2, 0.05))


def robot(s: Sculptor) -> None:
    """Blocks for head, body, arms and legs; lamps and an antenna."""
    metal, accent = s.fancy(chance=0.2), s.any_colour()
    round_ = s.pick(3, 6, 12)
    w, d = s.u(0.35, 0.5), s.u(0.2, 0.38)
    s.ball(metal, around=round_, along=round_, size=(d, w, 0.42))
    h, hw = s.u(0.2, 0.3), s.u(0.22, 0.38)
    s.ball(
        accent if s.chance(0.4) else Paint(metal.colour),
        around=round_,
        along=round_,
        at=(0, 0, 0.45 + h),
        size=(min(hw, d * 1.1), hw, h),
    )
    s.rod(Paint((0.3, 0.3, 0.32)), sides=10, at=(0, 0, 0.44), size=(0.4 * d, 0.4 * d, 0.08))
    front = min(hw, d * 1.1)
    s.ball(s.any_colour(), at=(front, 0.45 * hw, 0.5 + h), size=0.07, mirror=True)
    s.box(s.grey(0.2), at=(front, 0, 0.4 + 0.6 * h), size=(0.03, 0.5 * hw, 0.03))
    if s.chance(0.6):
        s.box(s.fancy(), at=(d, 0, 0.05), size=(0.03, w * 0.55, 0.2))
    if s.chance(0.5):
        s.rod(s.grey(0.6), sides=10, at=(0, 0, 0.5 + 2 * h), size=(0.025, 0.025, 0.15))
        s.ball(s.hue(0.0), at=(0, 0, 0.68 + 2 * h), size=0.06)
    arm = s.u(0.07, 0.12)
    s.limb(accent, [(0, w, 0.25), (0, w + 0.2, 0.1), (s.u(0, 0.25), w + s.u(0.15, 0.3), -0.3)], arm, mirror=True)
    leg = s.u(0.09, 0.15)
    s.box(Paint(metal.colour), at=(0, 0.22, -0.65), size=(leg, leg, 0.27), mirror=True)
    s.box(accent, at=(0.07, 0.22, -0.93), size=(leg * 1.5, leg * 1.2, 0.07), mirror=True)


def snowman(s: Sculptor) -> None:
    """Balls on balls, carrot, hat, buttons."""
    snow, z, r = s.grey(0.95), -0.6, s.u(0.4, 0.55)
    for k in range(int(s.pick(2, 3))):
        s.ball(snow, at=(0, 0, z), size=r)
        if k:
            s.ball(s.grey(0.15), at=(r, 0, z + 0.1), size=0.045)
        z, r = z + r * 1.35, r * s.u(0.7, 0.8)
    r /= 0.75
    z -= r
    s.ball(s.grey(0.1), at=(r * 0.85, 0.35 * r, z + 0.3 * r), size=0.05, mirror=True)
    s.rod(s.hue(0.07, value=0.95), taper=0.05, at=(r + 0.12, 0, z), size=(0.06, 0.06, 0.2), turn=(0, 90, 0))
    if s.chance(0.7):
        hat = s.any_colour()
        s.rod(hat, at=(0, 0, z + r * 0.75), size=(r * 1.05, r * 1.05, 0.03))
        s.rod(hat, at=(0, 0, z + r * 0.75 + 0.2), size=(r * 0.7, r * 0.7, 0.2))
    if s.chance(0.5):
        s.ring(s.any_colour(), thickness=0.2, at=(0, 0, z - r * 0.8), size=(r * 0.8, r * 0.8, r * 0.5))
    s.limb(s.wood(), [(0, 0.35, -0.05), (0, 0.65, 0.15), (0, 0.85, 0.3)], 0.03, mirror=True)


def teddy(s: Sculptor) -> None:
    """A sitting or standing toy animal: round ears, snout, belly."""
    fur = s.fancy(s.hue(0.08, saturation=0.5, value=0.55), chance=0.1)
    light = s.hue(0.1, saturation=0.3, value=0.85)
    r, b = s.u(0.32, 0.42), s.u(0.38, 0.5)
    head = b + r * 0.7
    s.ball(fur, size=(b * s.u(0.75, 0.95), b, b * s.u(1.0, 1.15)))
    s.ball(light, at=(b * 0.45, 0, -0.02), size=(b * 0.5, b * 0.65, b * 0.7))
    s.ball(fur, at=(0, 0, head), size=(r * 0.92, r, r * 0.95))
    face(s, at=(0, 0, head), r=r * 0.92, snout=light)
    kind = int(s.rng.integers(3))
    if kind == 0:
        s.ball(fur, at=(0, r * 0.75, head + r * 0.7), size=(0.08, 0.15, 0.15), mirror=True)
        s.ball(light, at=(0.05, r * 0.75, head + r * 0.7), size=(0.06, 0.09, 0.09), mirror=True)
    elif kind == 1:
        s.ball(fur, at=(0, r * 0.4, head + r * 1.3), size=(0.08, 0.1, 0.33), turn=(s.u(-20, 0), 0, 0), mirror=True)
    else:
        s.rod(fur, taper=0.1, sides=12, at=(0, r * 0.6, head + r), size=(0.07, 0.14, 0.16), mirror=True)
    limb = s.u(0.12, 0.17)
    s.limb(
        fur,
        [(0.05, b * 0.75, b * 0.5), (0.15, b + 0.15, 0.1), (s.u(0.1, 0.35), b + s.u(0.05, 0.25), -0.15)],
        limb,
        mirror=True,
    )
    if s.chance(0.6):
        s.limb(fur, [(0.1, b * 0.5, -b * 0.8), (0.35, b * 0.8, -b), (0.55, b * 0.95, -b)], limb * 1.15, mirror=True)
        s.ball(light, at=(0.66, b * 0.97, -b), size=(0.06, limb * 0.85, limb * 0.85), mirror=True)
    else:
        s.limb(fur, [(0, b * 0.5, -b * 0.7), (0, b * 0.55, -b - 0.3)], limb * 1.15, mirror=True)
        s.ball(light, at=(0.08, b * 0.55, -b - 0.38), size=(limb * 1.7, limb * 1.2, limb * 0.8), mirror=True)
    if s.chance(0.4):
        s.ball(s.fancy(), at=(b * 0.75, 0.09, b * 0.85), size=(0.06, 0.11, 0.08), mirror=True)


def person(s: Sculptor) -> None:
    """A doll: head, hair or hat, shirt, trousers or dress."""
    skin, shirt, legs = s.hue(0.07, saturation=0.4, value=0.8), s.fancy(), s.any_colour()
    r, w = s.u(0.2, 0.34), s.u(0.22, 0.33)
    s.ball(skin, at=(0, 0, 0.45 + r), size=(r, r, r * 1.08))
    face(s, at=(0, 0, 0.45 + r), r=r)
    hair = s.any_colour()
    s.ball(hair, bottom=-0.1, at=(-0.06, 0, 0.5 + r * 1.15), size=(r * 1.05, r * 1.08, r))
    if s.chance(0.3):
        s.ball(hair, at=(-r * 0.7, 0, 0.35 + r * 0.6), size=(r * 0.5, r * 0.9, r * 1.2))
    if s.chance(0.3):
        s.rod(shirt, taper=0.45, at=(0, 0, 0), size=(w * 1.3, w * 1.6, 0.5))
    else:
        s.ball(shirt, around=3, along=4, at=(0, 0, 0.12), size=(w * 0.7, w, 0.38))
    s.limb(
        Paint(shirt.colour),
        [(0, w * 0.9, 0.35), (0, w + 0.15, 0.15), (s.u(-0.1, 0.25), w + s.u(0.1, 0.35), s.u(-0.2, 0.4))],
        0.08,
        mirror=s.chance(0.7),
    )
    if s.chance(0.7):
        s.limb(skin, [(0, -w * 0.9, 0.35), (0, -w - 0.12, 0.1), (0.1, -w - 0.15, -0.15)], 0.075)
    s.limb(legs, [(0, w * 0.5, -0.15), (0.02, w * 0.55, -0.5), (0, w * 0.55, -0.9)], 0.1, mirror=True)
    s.ball(s.any_colour(), at=(0.07, w * 0.55, -0.95), size=(0.17, 0.11, 0.08), mirror=True)


def bird(s: Sculptor) -> None:
    """Ducks, chicks, owls, penguins: body, head, beak, wings, feet."""
    coat, beak = s.fancy(s.hue(0.14, value=0.85), chance=0.2), s.hue(0.08, value=0.95)
    tall = s.u(0.45, 0.75)
    length = s.u(0.4, 0.75)
    s.ball(coat, size=(length, 0.42, tall), turn=(0, s.u(-25, 5), 0))
    r = s.u(0.22, 0.36)
    hx, hz = length * s.u(0.1, 0.6), tall + r * 0.5
    s.ball(Paint(coat.colour) if s.chance(0.6) else s.any_colour(), at=(hx, 0, hz), size=r)
    s.rod(beak, taper=0.1, at=(hx + r + 0.08, 0, hz - 0.03), size=(0.07, s.u(0.07, 0.14), 0.17), turn=(0, 90, 0))
    s.ball(s.grey(0.08), at=(hx + 0.7 * r, 0.6 * r, hz + 0.25 * r), size=0.055, mirror=True)
    if s.chance(0.6):
        s.ball(
            s.hue(0.1, saturation=0.2, value=0.9), at=(length * 0.5, 0, -0.05), size=(length * 0.55, 0.33, tall * 0.75)
        )
    wing = s.any_colour() if s.chance(0.5) else Paint(coat.colour)
    s.ball(
        wing,
        at=(-0.08, 0.42, 0.05),
        size=(s.u(0.25, 0.45), 0.09, s.u(0.2, 0.45)),
        turn=(s.u(0, 30), s.u(-30, 10), 0),
        mirror=True,
    )
    s.ball(wing, at=(-length - 0.05, 0, s.u(-0.1, 0.2)), size=(0.25, 0.16, 0.07), turn=(0, 30, 0))
    s.rod(beak, sides=10, at=(0.03, 0.17, -tall - 0.05), size=(0.035, 0.035, 0.17), mirror=True)
    s.ball(beak, at=(0.12, 0.17, -tall - 0.22), size=(0.17, 0.11, 0.04), mirror=True)


def quadruped(s: Sculptor) -> None:
    """Dogs, cows, pigs, sheep, horses, elephants and giraffes, more or less."""
    coat = s.fancy(s.hue(0.08, saturation=0.4, value=0.6), chance=0.35)
    plain = Paint(coat.colour)
    long, fat, leg = s.u(0.5, 0.75), s.u(0.25, 0.4), s.u(0.25, 0.55)
    s.ball(coat, along=2.6, size=(long, fat, fat * s.u(0.9, 1.15)))
    thick = s.u(0.07, 0.13)
    for x in (-0.65, 0.65):
        s.rod(
            plain if s.chance(0.8) else s.any_colour(),
            at=(x * long, fat * 0.55, -fat * 0.5 - 0.5 * leg),
            size=(thick, thick, 0.5 * leg + 0.15),
            mirror=True,
        )
        s.rod(
            s.grey(0.2),
            at=(x * long, fat * 0.55, -fat * 0.5 - leg - 0.12),
            size=(thick * 1.1, thick * 1.1, 0.05),
            mirror=True,
        )
    neck, r = s.pick(0.05, 0.2, 0.5), s.u(0.2, 0.3)
    hx, hz = long + 0.12, fat * 0.6 + neck + r * 0.4
    s.limb(
        plain,
        [(long * 0.7, 0, fat * 0.3), (long * 0.95, 0, fat * 0.5 + 0.5 * neck), (hx, 0, hz)],
        [fat * 0.6, r * 0.75, r * 0.7],
    )
    s.ball(plain, at=(hx, 0, hz), size=(r * 1.15, r * 0.9, r))
    face(s, at=(hx, 0, hz), r=r, snout=s.any_colour() if s.chance(0.5) else plain)
    ear = s.u(0.1, 0.2)
    s.ball(
        plain,
        at=(hx - 0.05, r * 0.9, hz + r * s.u(0.2, 0.8)),
        size=(0.05, ear, ear * 0.7),
        turn=(s.u(-40, 40), 0, 0),
        mirror=True,
    )
    if s.chance(0.3):
        s.rod(
            s.grey(0.9),
            taper=0.1,
            at=(hx, r * 0.5, hz + r * 1.1),
            size=(0.045, 0.045, 0.16),
            turn=(s.u(-30, 0), 0, 0),
            mirror=True,
        )
    s.limb(plain, [(-long * 0.95, 0, fat * 0.3), (-long - 0.15, 0, fat * 0.3), (-long - 0.25, 0, s.u(-0.2, 0.6))], 0.05)


def fish(s: Sculptor) -> None:
    """A flat body with fins and tail, nose to the right."""
    scales, fin = s.fancy(chance=0.6), s.any_colour()
    thin, tall = s.u(0.2, 0.4), s.u(0.35, 0.6)
    s.ball(scales, size=(thin, 0.75, tall))
    tail = np.array([[0.1, 0.15], [-0.35, 0.5], [-0.2, 0.0], [-0.35, -0.5], [0.1, -0.15]])
    s.cut_out(fin, tail, size=(0.05, 1, s.u(0.7, 1.1)), at=(0, -0.75, 0))
    s.ball(fin, at=(0, -0.05, tall * 0.9), size=(0.05, 0.35, 0.22))
    for x in (-1, 1):
        s.ball(s.grey(0.95), at=(x * thin * 0.75, 0.4, 0.1), size=0.11)
        s.ball(s.grey(0.1), at=(x * thin * 0.95, 0.43, 0.1), size=0.06)
        s.ball(fin, at=(x * thin, 0.05, -0.1), size=(0.06, 0.2, 0.1), turn=(0, 0, x * 30))


def stack(s: Sculptor) -> None:
    """A column of random solids with symmetric pairs of limbs: nothing in particular, like the study's objects."""
    z = 0.0
    for _ in range(int(s.pick(1, 2, 3, 3, 4))):
        h, w = s.u(0.12, 0.45), s.u(0.2, 0.8)
        d = w if s.chance(0.45) else w * float(np.exp(s.rng.normal(-0.15, 0.35)))
        any_part(s, s.fancy(), at=(0.0, 0.0, z + h), size=(d, w, h))
        if s.chance(0.3):
            r = s.u(0.08, 0.25)
            any_part(
                s,
                s.fancy(chance=0.2),
                at=(s.u(-0.2, 0.2), w, z + h),
                size=(s.u(0.08, 0.3), r, s.u(0.08, 0.3)),
                mirror=s.chance(0.85),
            )
        if s.chance(0.25):
            any_part(
                s, s.any_colour(), at=(d, s.pick(0, 0, 0.3) * w, z + h), size=(0.15, s.u(0.06, 0.25), s.u(0.06, 0.25))
            )
        z += h * s.u(1.6, 2.0)


def any_part(
    s: Sculptor, paint: Paint, *, at: tuple[float, float, float], size: tuple[float, float, float], mirror: bool = False
) -> None:
    """One random solid inside the box `at` +- `size`."""
    kind = int(s.rng.integers(7))
    if kind < 2:
        s.ball(paint, at=at, size=size, mirror=mirror)
    elif kind == 2:
        s.ball(paint, around=s.pick(2, 4, 8), along=s.u(2.5, 8), at=at, size=size, mirror=mirror)
    elif kind == 3:
        s.box(paint, taper=s.pick(1, 1, 0.6, 1.3), at=at, size=size, mirror=mirror)
    elif kind == 4:
        s.rod(paint, taper=s.pick(1, 1, 0.6, 0.05), at=at, size=size, mirror=mirror)
    elif kind == 5:
        s.rod(paint, taper=s.pick(1, 0.7), sides=int(s.pick(3, 5, 6, 8)), at=at, size=size, mirror=mirror)
    else:
        s.turned(paint, random_profile(s), at=at, size=size, mirror=mirror)


def silhouette(s: Sculptor) -> Array:
    """A random star-shaped outline, mirror symmetric more often than not; stars and hearts among them."""
    angle = np.arange(48) * (2 * np.pi / 48)
    kind = int(s.rng.integers(3))
    if kind == 0:
        points = int(s.rng.integers(3, 9))
        wave = np.abs((angle * points / (2 * np.pi) + 0.25 * points) % 1.0 - 0.5) * 2.0
        radius = 1.0 - s.u(0.2, 0.6) * (wave if s.chance(0.5) else 0.5 - 0.5 * np.cos(np.pi * wave))
    else:
        radius = np.full(48, 1.0)
        for k in range(1, 6):
            shift = np.pi / 2 if kind == 1 else s.u(0, 2 * np.pi)
            radius = radius + s.rng.normal() * 0.35 / k * np.cos(k * (angle - shift))
        radius = np.clip(radius / radius.max(), 0.25, 1.0)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def cut_shape(s: Sculptor) -> None:
    """An extruded or inflated silhouette, sometimes on a foot or with a smaller one in front."""
    depth = s.u(0.08, 0.5)
    s.cut_out(s.fancy(), silhouette(s), puffed=s.chance(0.5), size=(depth, s.u(0.6, 1.0), 1.0))
    if s.chance(0.4):
        s.cut_out(s.any_colour(), silhouette(s), size=(depth * 1.25, 0.4, 0.4))
    if s.chance(0.3):
        s.rod(s.any_colour(), at=(0, 0, -1.0), size=(max(depth, 0.25) * 1.2, 0.5, 0.12))


def blob(s: Sculptor) -> None:
    """A few overlapping round forms, or one bumpy ball."""
    if s.chance(0.5):
        ball = lathe(dome(18), superellipse(32, 2.0))
        turn = s.rng.normal(size=(3, 5)) * s.u(1.0, 2.5)
        bump = 1.0 + s.u(0.1, 0.4) * np.sin(ball.vertices @ turn + s.rng.uniform(0, 6, 5)).mean(1, keepdims=True)
        s.place(
            Part(ball.vertices * bump, ball.uv, ball.faces), s.fancy(), size=(s.u(0.5, 1), s.u(0.6, 1), s.u(0.5, 1))
        )
        return
    for _ in range(int(s.rng.integers(2, 6))):
        r = s.u(0.25, 0.5)
        s.ball(
            s.fancy(chance=0.25),
            at=(s.u(-0.4, 0.4), s.u(-0.5, 0.5), s.u(-0.5, 0.5)),
            size=(r, r * s.u(0.7, 1.3), r * s.u(0.7, 1.3)),
            mirror=s.chance(0.6),
        )
