"""Coloured surfaces to draw training pictures of, and how light falls on them.

A surface is a triangle mesh with colours per vertex (procedural objects) or with image textures (real ones); both are
drawn by `training.render`. Colours are display-referred and carry no light of their own.

Letters: V vertices, F faces, M materials, P points on faces with barycentric weights.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import normalize

from dreamcraft3d.training.primitives import Array
from dreamcraft3d.training.sculptor import Solid, vertex_normals


class Paint(Protocol):
    """What colour a surface has."""

    def at(self, face: Int[Tensor, " P"], weights: Float[Tensor, "P 3"]) -> Float[Tensor, "P 3"]:
        """Albedo at points of faces, in [0,1]."""
        ...


@dataclass(frozen=True)
class VertexPaint:
    """Colours of the corners, interpolated."""

    faces: Int[Tensor, "F 3"]
    colours: Float[Tensor, "V 3"]

    def at(self, face: Int[Tensor, " P"], weights: Float[Tensor, "P 3"]) -> Float[Tensor, "P 3"]:
        """See `Paint`."""
        return (weights[..., None] * self.colours[self.faces[face]]).sum(1)


@dataclass(frozen=True)
class TexturePaint:
    """Images that repeat over the unit square of texture coordinates (v upwards), one for each material.

    Attributes:
        texels: of all images, row by row. layout: first texel, width and height of each material's image.
    """

    faces: Int[Tensor, "F 3"]
    uv: Float[Tensor, "V 2"]
    material: Int[Tensor, " F"]
    texels: UInt8[Tensor, "N 3"]
    layout: Int[Tensor, "M 3"]

    def at(self, face: Int[Tensor, " P"], weights: Float[Tensor, "P 3"]) -> Float[Tensor, "P 3"]:
        """See `Paint`; bilinear."""
        uv = (weights[..., None] * self.uv[self.faces[face]]).sum(1)
        first, width, height = self.layout[self.material[face]].unbind(1)
        x, y = uv[:, 0] * width - 0.5, (1.0 - uv[:, 1]) * height - 0.5
        left, top = x.floor(), y.floor()
        total = torch.zeros(len(face), 3)
        for dx in (0, 1):
            for dy in (0, 1):
                column, row = (left.long() + dx) % width, (top.long() + dy) % height
                amount = (1.0 - (x - left - dx).abs()) * (1.0 - (y - top - dy).abs())
                total += amount[:, None] * self.texels[first + row * width + column].float()
        return total / 255.0


@dataclass(frozen=True)
class Surface:
    """A mesh and its paint; both sides are seen."""

    vertices: Float[Tensor, "V 3"]
    faces: Int[Tensor, "F 3"]
    paint: Paint

    def moved(self, vertices: Array) -> "Surface":
        """The same surface with its vertices elsewhere."""
        return Surface(torch.as_tensor(vertices, dtype=torch.float32), self.faces, self.paint)

    def normals_at(self, face: Int[Tensor, " P"], weights: Float[Tensor, "P 3"]) -> Float[Tensor, "P 3"]:
        """Unit normals: smooth, but those of the face where a crease is sharper than about fifty degrees."""
        vertices = self.vertices.numpy().astype(np.float64)
        smooth = torch.as_tensor(vertex_normals(vertices, self.faces.numpy()), dtype=torch.float32)
        mixed = normalize((weights[..., None] * smooth[self.faces[face]]).sum(1), dim=-1, eps=1e-6)
        flat = self.face_normals()[face]
        return torch.where((mixed * flat).sum(-1, keepdim=True) < 0.64, flat, mixed)

    def face_normals(self) -> Float[Tensor, "F 3"]:
        """Unit normals of the faces (0 where a face has no area)."""
        a, b, c = self.vertices[self.faces].unbind(1)
        return normalize(torch.linalg.cross(b - a, c - a), dim=-1, eps=1e-12)


def surface_of(solid: Solid) -> Surface:
    """A procedural object as a surface."""
    faces = torch.as_tensor(solid.faces)
    paint = VertexPaint(faces, torch.as_tensor(solid.colours, dtype=torch.float32))
    return Surface(torch.as_tensor(solid.vertices, dtype=torch.float32), faces, paint)


@dataclass(frozen=True)
class Lighting:
    """Ambient light, a few far lamps, and a little gloss.

    colour = gain albedo (ambient + sum_l s_l (1/4 + 3/4 n . l)+) + gloss sum_l s_l (n . h_l)+^shininess, with h_l
    halfway between lamp and viewer (Blinn and Phong).
    """

    towards: Float[Tensor, "L 3"]
    strength: Float[Tensor, " L"]
    ambient: float
    gain: float = 1.0
    gloss: float = 0.0
    shininess: float = 20.0

    def on(
        self, albedo: Float[Tensor, "P 3"], normals: Float[Tensor, "P 3"], to_viewer: Float[Tensor, "P 3"]
    ) -> Float[Tensor, "P 3"]:
        """Colours in [0,1] of points with unit normals, seen from unit directions."""
        lambert = (0.25 + 0.75 * normals @ self.towards.T).clamp(0.0, 1.0)
        colour = self.gain * albedo * (self.ambient + lambert @ self.strength)[:, None]
        if self.gloss > 0.0:
            half = normalize(self.towards + to_viewer[:, None], dim=-1)
            shine = (half * normals[:, None]).sum(-1).clamp_min(0.0) ** self.shininess
            colour = colour + self.gloss * (shine @ self.strength)[:, None]
        return colour.clamp(0.0, 1.0)


def random_lighting(rng: np.random.Generator) -> Lighting:
    """One to three lamps around the front half of the upper hemisphere; a quarter of the objects shine."""
    count = int(rng.choice([1, 1, 2, 3]))
    azimuth = np.radians(rng.uniform(-100.0, 100.0, count))
    elevation = np.radians(rng.uniform(0.0, 88.0, count))
    flat = np.cos(elevation)
    towards = np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)], axis=1)
    strength = rng.uniform(0.3, 1.0, count)
    ambient = float(rng.uniform(0.4, 0.95))
    strength *= (1.0 - ambient) * rng.uniform(0.9, 1.4) / strength.sum()
    gloss = float(rng.uniform(0.1, 1.2)) if rng.random() < 0.25 else 0.0
    return Lighting(
        torch.as_tensor(towards, dtype=torch.float32),
        torch.as_tensor(strength, dtype=torch.float32),
        ambient,
        gain=float(rng.uniform(0.85, 1.3)),
        gloss=gloss,
        shininess=float(rng.uniform(8.0, 60.0)),
    )
