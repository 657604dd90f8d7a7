"""The geometry that all readers return: an object is a list of parts, each with one material."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from dreamcraft3d.training.collect.arrays import Array
from dreamcraft3d.training.collect.textures import Texture

GREY = (0.7, 0.7, 0.7)
WHITE = (1.0, 1.0, 1.0)


class FormatError(ValueError):
    """A file is damaged, or of another format than its name promises."""


@dataclass(frozen=True)
class Part:
    """Triangles with one material.

    Attributes:
        vertices: positions in the file's own units and axes.
        faces: corner indices; either orientation.
        uv: texture coordinates, (0, 0) = bottom left of the image; they repeat outside [0, 1].
        colour: RGB in [0, 1]; multiplies the texture where there is one. None: grey without a texture, white with one.
        images: names of image files that may hold the texture, best first. Found later, by `texture_finder`.
        player_colour: alpha of the image is no opacity but blends to the colour of a player.
        texture: the image itself, once it is found.
        name: what the file calls the part or its material.
    """

    vertices: Float[Array, "V 3"]
    faces: Int[Array, "F 3"]
    uv: Float[Array, "V 2"] | None = None
    colour: tuple[float, float, float] | None = None
    images: tuple[str, ...] = ()
    player_colour: bool = False
    texture: Texture | None = None
    name: str = ""

    def __post_init__(self) -> None:
        """Refuse what no renderer could draw.

        Raises:
            FormatError: faces that name no vertex, positions or coordinates that are not finite.
        """
        if self.faces.shape[1:] != (3,) or self.vertices.shape[1:] != (3,):
            raise FormatError(f"not triangles: arrays of {self.vertices.shape} and {self.faces.shape}")
        if len(self.faces) and not 0 <= self.faces.min() <= self.faces.max() < len(self.vertices):
            raise FormatError(f"a face names a vertex that is not there (of {len(self.vertices)})")
        if not np.isfinite(self.vertices).all():
            raise FormatError("a position is not finite")
        if self.uv is not None and (len(self.uv) != len(self.vertices) or not np.isfinite(self.uv).all()):
            raise FormatError("texture coordinates are missing or not finite")

    @property
    def shown_colour(self) -> tuple[float, float, float]:
        """The colour that is drawn, or multiplies the texture."""
        return self.colour or (GREY if self.shown_texture is None else WHITE)

    @property
    def shown_texture(self) -> Texture | None:
        """The texture, where there are coordinates for it, too."""
        return None if self.uv is None else self.texture

    def moved(self, matrix: Float[Array, "4 4"]) -> "Part":
        """The part under an affine map of column vectors."""
        return replace(self, vertices=self.vertices @ matrix[:3, :3].T + matrix[:3, 3])


def fan(corners: int, first: int = 0) -> list[tuple[int, int, int]]:
    """Triangulate a polygon whose corners are numbered from `first` on, as a fan around the first one."""
    return [(first, first + k, first + k + 1) for k in range(1, corners - 1)]
