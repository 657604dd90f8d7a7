"""Draws one training example: an object as a reference camera sees it, and as other cameras do.

The world is made like that of photographs: reference pictures are taken from the front or from above and below, with
lenses of 10 to 50 degrees, and fill the picture more or less; some objects reach over its border; one to three lamps.
Half of the examples keep the plain set-up that the program works with when nothing else is known (20 degrees, filling
nine tenths).
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from dreamcraft3d.functional.cameras import framing_cameras, framing_distance
from dreamcraft3d.priors.network import SIZE
from dreamcraft3d.training.objects import ObjectPack, PackedObject
from dreamcraft3d.training.occupancy import carved_occupancy
from dreamcraft3d.training.primitives import Array
from dreamcraft3d.training.render import Views, render_surface
from dreamcraft3d.training.sculptor import rotation
from dreamcraft3d.training.shapes import FILL, FOVY, HALF_WIDTH, framed, make_object
from dreamcraft3d.training.surfaces import Lighting, Surface, random_lighting, surface_of

DRAWING_VERSION = 2  # of what is stored: raised when the same numbers draw other examples (2: sheets are occupied)
REFERENCE_SIZE = 128  # pixels of reference pictures
VIEWS = 8  # wanted views of an example
DEPTH_RANGE = 1.0  # what the 255 levels of stored depth stand for, before and behind the origin
REAL_STREAM, PROCEDURAL_STREAM = 11, 12  # what numbers of examples are combined with


@dataclass(frozen=True)
class Shot:
    """How an example is taken; angles in radians.

    Attributes:
        elevation, fovy: of the reference camera. fill: share of the picture's side that the object spans.
        shift: of the object in the picture, in half sides (only of objects that reach over the border).
        views: elevation, azimuth and field of view of the wanted views.
    """

    elevation: float
    fovy: float
    fill: float
    shift: tuple[float, float]
    views: Float[Tensor, "V 3"]


@dataclass(frozen=True)
class Drawn:
    """One example as it is stored.

    Attributes:
        reference: its picture. views, depth, normals: 64 pixels a side; of `depth` the first is the reference's, and
            its levels count from the camera's distance (0 on the background); `normals` are the reference's, in view
            space. occupancy: bits of the frustum's cells (h, w, D). cameras: elevation, azimuth, fovy, the reference
            first.
    """

    reference: UInt8[Tensor, "H W 4"]
    views: UInt8[Tensor, "V h w 4"]
    depth: UInt8[Tensor, "V+1 h w"]
    normals: UInt8[Tensor, "h w 3"]
    occupancy: UInt8[Tensor, " bytes"]
    cameras: Float[Tensor, "V+1 3"]


def plain_shot(rng: np.random.Generator, elevation: float, views: int = VIEWS) -> Shot:
    """The set-up of figures: default lens and filling, views from -10 to 45 degrees."""
    return Shot(elevation, FOVY, FILL, (0.0, 0.0), _around(rng, views, -10.0, 45.0, FOVY))


def random_shot(rng: np.random.Generator, *, elevation: float | None = None, views: int = VIEWS) -> Shot:
    """A set-up of the training world; `elevation` is that of the reference where it is known already."""
    start = elevation if elevation is not None else _elevation(rng)
    fovy = FOVY if rng.random() < 0.5 else float(np.radians(np.exp(rng.uniform(np.log(10.0), np.log(50.0)))))
    fill = FILL if rng.random() < 0.5 else float(rng.uniform(0.6, 0.95))
    shift = (0.0, 0.0)
    if rng.random() < 0.05:
        fill, shift = float(rng.uniform(0.95, 1.2)), (float(rng.uniform(-0.3, 0.3)), float(rng.uniform(-0.3, 0.3)))
    wide = rng.random() < 0.3
    low, high = (-30.0, 80.0) if wide else (-10.0, 45.0)
    lens = fovy if rng.random() < 0.5 else FOVY
    return Shot(start, fovy, fill, shift, _around(rng, views, low, high, lens))


def _around(rng: np.random.Generator, views: int, low: float, high: float, fovy: float) -> Float[Tensor, "V 3"]:
    """Views from all sides (one in each of V equal sectors), at elevations between `low` and `high` degrees."""
    azimuth = (np.arange(views) + rng.uniform(0.0, 1.0, views)) * (2.0 * np.pi / views) - np.pi
    elevation = np.radians(rng.uniform(low, high, views))
    return torch.as_tensor(np.stack([elevation, azimuth, np.full(views, fovy)], axis=1), dtype=torch.float32)


def _elevation(rng: np.random.Generator) -> float:
    """Level in two fifths of the pictures, a little from above in as many, from anywhere in the rest."""
    draw = rng.random()
    degrees = 0.0 if draw < 0.4 else rng.uniform(0.0, 30.0) if draw < 0.8 else rng.uniform(-20.0, 60.0)
    return float(np.radians(degrees))


def random_turn(rng: np.random.Generator) -> Array:
    """A rotation of a real object, whose front is unknown: often one of its four sides, sometimes not upright."""
    sides = float(rng.choice([0.0, 90.0, 180.0, 270.0]) + rng.normal() * 15.0)
    turn = sides if rng.random() < 0.6 else float(rng.uniform(0.0, 360.0))
    tilt = rng.normal(size=2) * 8.0 if rng.random() < 0.15 else np.zeros(2)
    return rotation(x=float(tilt[0]), y=float(tilt[1])) @ rotation(z=turn)


def real_example(pack: ObjectPack, thing: PackedObject, number: int, *, views: int = VIEWS) -> Drawn:
    """A real object; `number` fixes turn, shot and light."""
    rng = np.random.default_rng([REAL_STREAM, number])
    surface = pack.load(thing)
    turned = surface.vertices.numpy().astype(np.float64) @ random_turn(rng).T
    return take(surface, turned, random_shot(rng, views=views), random_lighting(rng))


def held_out_example(pack: ObjectPack, thing: PackedObject, *, wide: bool = False, views: int = VIEWS) -> Drawn:
    """A held-out object as figures want it, for ever the same: the default lens, level or up to 30 degrees from above,
    views from -10 to 45 degrees. `wide`: lenses and elevations of the whole training world."""
    surface, level, rng = held_out_surface(pack, thing)
    shot = random_shot(rng, views=views) if wide else plain_shot(rng, level, views)
    vertices = surface.vertices.numpy().astype(np.float64)
    return take(surface, vertices, shot, random_lighting(rng), supersampling=3)


def held_out_surface(pack: ObjectPack, thing: PackedObject) -> tuple[Surface, float, np.random.Generator]:
    """A held-out object turned as it is always shown, the elevation (radians) that it is shown from, and the generator
    of whatever else is random about it."""
    rng = np.random.default_rng([REAL_STREAM, *thing.id.encode()])
    surface = pack.load(thing)
    turned = surface.vertices.numpy().astype(np.float64) @ random_turn(rng).T
    level = float(np.radians(rng.uniform(0.0, 30.0))) if rng.random() < 0.55 else 0.0
    return surface.moved(turned), level, rng


def procedural_example(seed: int, *, plain: bool = False, views: int = VIEWS) -> Drawn:
    """The object of a seed; in half of the examples from its own elevation. `plain`: the set-up of figures."""
    rng = np.random.default_rng([PROCEDURAL_STREAM, seed])
    lit = plain or bool(rng.random() < 0.4)  # with the soft light that procedural objects are made with
    thing = make_object(seed, lit=lit)
    lighting = LIT if lit else random_lighting(rng)
    if plain:
        shot = plain_shot(rng, thing.elevation, views)
    else:
        shot = random_shot(rng, elevation=thing.elevation if rng.random() < 0.5 else None, views=views)
    return take(surface_of(thing.solid), thing.solid.vertices, shot, lighting, supersampling=3 if plain else 2)


LIT = Lighting(torch.tensor([[0.0, 0.0, 1.0]]), torch.zeros(1), ambient=1.0)
"""For colours that have light in them already."""


def take(surface: Surface, vertices: Array, shot: Shot, lighting: Lighting, *, supersampling: int = 2) -> Drawn:
    """Frame a surface (with its `vertices` turned) and draw it.

    `supersampling`: an odd one covers no pixel by just one half, where silhouettes are cut; for figures.
    """
    plain = shot.fovy == FOVY and abs(shot.elevation) < 0.55
    fill, rounds = min(shot.fill, 0.95), 4 if plain else 24
    placed = framed(vertices, shot.elevation, fovy=shot.fovy, fill=fill, rounds=rounds)
    placed = placed * (max(shot.fill, 0.95) / 0.95) + _shift(shot)
    surface = surface.moved(placed)
    start = torch.tensor([[shot.elevation, 0.0, shot.fovy]])
    reference = framing_cameras(*start.unbind(1))
    wanted = framing_cameras(*shot.views.unbind(1))
    front = render_surface(surface, reference, lighting, size=REFERENCE_SIZE, supersampling=supersampling)
    views = render_surface(surface, wanted, lighting, size=SIZE, supersampling=supersampling)
    small = _halved(front)
    depth = torch.cat([_levels(small, start), _levels(views, shot.views)])
    normals = small.normals[0] @ reference.c2w[0, :3, :3]
    occupancy = np.packbits(carved_occupancy(surface, reference).numpy())
    return Drawn(
        _bytes(front.rgba[0]), _bytes(views.rgba), depth, _bytes(0.5 * normals + 0.5), torch.from_numpy(occupancy),
        torch.cat([start, shot.views]),
    )  # fmt: skip


def _shift(shot: Shot) -> Array:
    """World shift of an object that reaches over the picture's border."""
    right, up = HALF_WIDTH * shot.shift[0], HALF_WIDTH * shot.shift[1]
    return np.array([-up * np.sin(shot.elevation), right, up * np.cos(shot.elevation)])


def _halved(views: Views) -> Views:
    """Views of half the size; depth and normals are means over what is covered."""
    covered = views.rgba[..., 3:]
    stacked = torch.cat([views.rgba, views.depth * covered, views.normals * covered], dim=-1)
    small = avg_pool2d(stacked.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    rgba, depth = small[..., :4], small[..., 4:5] / small[..., 3:4].clamp_min(1e-6)
    return Views(rgba, depth, normalize(small[..., 5:], dim=-1, eps=1e-6))


def _levels(views: Views, cameras: Float[Tensor, "V 3"]) -> UInt8[Tensor, "V h w"]:
    """Depth from the cameras' distances in 255 levels; 0 is the background."""
    nearer = views.depth[..., 0] - framing_distance(cameras[:, 2])[:, None, None]
    levels = ((nearer / DEPTH_RANGE + 1.0) * 127.0 + 1.5).clamp(1.0, 255.0)
    return torch.where(views.rgba[..., 3] > 0.0, levels, 0.0).to(torch.uint8)


def depth_of(levels: Tensor) -> Tensor:
    """Depth minus the camera's distance, world units, of stored levels."""
    return ((levels.float() - 1.0) / 127.0 - 1.0) * DEPTH_RANGE


def occupancy_of(packed: UInt8[Tensor, "B bytes"], side: int, planes: int) -> Bool[Tensor, "B h w D"]:
    """Bits (the highest of each byte first, as numpy packs them) to cells, where the bits lie."""
    places = torch.arange(7, -1, -1, device=packed.device, dtype=torch.uint8)
    return (packed[:, :, None] >> places & 1).bool().reshape(-1, side, side, planes)


def _bytes(shares: Tensor) -> Tensor:
    return (shares * 255.0 + 0.5).clamp(0.0, 255.0).to(torch.uint8)
