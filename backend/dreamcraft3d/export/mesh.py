"""The two records of the export: a mesh that has colours, and a mesh that has room for them.

Conventions: our frame (z up, reference camera on +x), faces counter-clockwise seen from outside. Texture coordinates
are glTF's: u to the right, v *down*, so that texel (column i, row j) of an H x W image has its centre at
((i + 1/2) / W, (j + 1/2) / H) and row 0 is the top. Coordinates belong to corners of faces, not to vertices: a vertex
on a seam is one vertex, with one normal, however many charts meet there. Colours are display-referred, in [0, 1].
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreamcraft3d.functional.mesh import Mesh

GREY = 0.72
"""The colour of a surface about which nothing is known."""


@dataclass(frozen=True)
class TexturedMesh:
    """A mesh with a texture, or with a colour per vertex, or (neither) all grey.

    Attributes:
        vertices, faces: as in `Mesh`. uvs: per corner. texture: H x W x 3. vertex_colours: V x 3.
    """

    vertices: Float[Tensor, "V 3"]
    faces: Int[Tensor, "F 3"]
    uvs: Float[Tensor, "F 3 2"] | None = None
    texture: Float[Tensor, "H W 3"] | None = None
    vertex_colours: Float[Tensor, "V 3"] | None = None

    def __post_init__(self) -> None:
        if (self.texture is None) != (self.uvs is None):
            raise ValueError("a texture needs uvs, and uvs a texture")

    @property
    def mesh(self) -> Mesh:
        """The bare surface."""
        return Mesh(self.vertices, self.faces)

    def to(self, device: torch.device | str) -> "TexturedMesh":
        """The same mesh on another device."""
        return TexturedMesh(**_moved(self, device))

    def colours(self) -> Float[Tensor, "V 3"]:
        """Colours per vertex of a mesh without texture (grey where there are none)."""
        return torch.full_like(self.vertices, GREY) if self.vertex_colours is None else self.vertex_colours


@dataclass(frozen=True)
class CleanReport:
    """What the clean-up did.

    Attributes:
        dropped_floaters, dropped_hidden: connected components removed for being tiny, or for lying inside another one.
        parts: components that stay. filled_holes: boundary loops closed.
        faces_before, faces_after: triangles that came in and that went out. closed: see `topology`.
    """

    dropped_floaters: int
    dropped_hidden: int
    parts: int
    filled_holes: int
    faces_before: int
    faces_after: int
    closed: bool


@dataclass(frozen=True)
class UnwrappedMesh:
    """A closed mesh within its face budget, with a place for every face in the texture.

    Attributes:
        uvs: per corner, inside [0, 1]. charts: the chart of each face. texture_size: texels that the padding is for.
        method: "xatlas" or "box". overlap: share of covered texels that two faces claim. report: see `CleanReport`.
    """

    vertices: Float[Tensor, "V 3"]
    faces: Int[Tensor, "F 3"]
    uvs: Float[Tensor, "F 3 2"]
    charts: Int[Tensor, " F"]
    texture_size: int
    method: str
    overlap: float
    report: CleanReport

    @property
    def mesh(self) -> Mesh:
        """The bare surface."""
        return Mesh(self.vertices, self.faces)

    def to(self, device: torch.device | str) -> "UnwrappedMesh":
        """The same mesh on another device."""
        return UnwrappedMesh(**_moved(self, device))

    def with_texture(self, texture: Float[Tensor, "H W 3"]) -> TexturedMesh:
        """The finished object."""
        return TexturedMesh(self.vertices, self.faces, self.uvs, texture)


def _moved(record: object, device: torch.device | str) -> dict[str, Any]:
    """The fields of a record, its tensors on another device."""
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in vars(record).items()}
