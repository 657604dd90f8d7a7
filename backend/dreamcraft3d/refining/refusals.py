"""Why a mesh is not refined, each with a name for programs (`reason`) and a remedy for people.

The reasons E_LINKED, E_INSTANCE_ONLY, E_STALE and E_MODE belong to the side that applies results; they are not here.
"""

from typing import ClassVar

from dreamcraft3d.errors import InputError

__all__ = [
    "EmptyMask",
    "MaterialNotUnderstood",
    "MeshTooDense",
    "NoTextureCoordinates",
    "OverlappingTexels",
    "RefineRefused",
    "RequestBroken",
    "TilingTexture",
    "UnknownColourspace",
]


class RefineRefused(InputError):  # noqa: N818 - the name says what happened
    """Base of the refusals: nothing was painted, nothing was written."""

    reason: ClassVar[str] = "E_REQUEST"


class RequestBroken(RefineRefused):
    """The request contradicts itself or lacks something."""

    def __init__(
        self, message: str, remedy: str = "Send the request again; this is a fault of the program that sent it."
    ) -> None:
        super().__init__(message, remedy)


class NoTextureCoordinates(RefineRefused):
    """There is nothing to bake into."""

    reason = "E_NO_UV"

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} has no texture coordinates.", "Unwrap it first (in Blender: U in Edit Mode).")


class TilingTexture(RefineRefused):
    """The same texels are meant to be seen in many places."""

    reason = "E_TILING_UV"

    def __init__(self, slot: int, share: float) -> None:
        super().__init__(
            f"The texture of slot {slot} repeats: {share:.0%} of its faces reach outside the image.",
            "Give the object a second, non-repeating UV map and refine that one, or mark the image as UDIM.",
        )


class OverlappingTexels(RefineRefused):
    """Different places of the surface share texels, so that they cannot have different colours."""

    reason = "E_OVERLAP"

    def __init__(self, slot: int, share: float) -> None:
        super().__init__(
            f"In slot {slot} {share:.1%} of the texels belong to several faces.",
            "Separate the islands, or choose overlap 'owner' (the first face paints) or 'average'.",
        )


class UnknownColourspace(RefineRefused):
    """Numbers whose meaning is unknown cannot be painted into."""

    reason = "E_COLORSPACE"

    def __init__(self, slot: int, name: str, known: str) -> None:
        super().__init__(f"The image of slot {slot} has the colour space '{name}'.", f"Set it to one of: {known}.")


class MeshTooDense(RefineRefused):
    """More triangles or texels than this run may use."""

    reason = "E_TOO_DENSE"

    def __init__(self, what: str, limit: str, setting: str) -> None:
        super().__init__(f"The mesh has {what}; the limit is {limit}.", f"Use fewer, or raise --set {setting}.")


class EmptyMask(RefineRefused):
    """Nothing is left to paint."""

    reason = "E_EMPTY_MASK"

    def __init__(self, why: str) -> None:
        super().__init__(f"There is nothing to paint: {why}.", "Choose another slot or other faces.")


class MaterialNotUnderstood(RefineRefused):
    """The base colour comes from something else than an image."""

    reason = "E_GRAPH"
