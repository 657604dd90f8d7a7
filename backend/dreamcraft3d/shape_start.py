"""Start from a mesh: any file's shape, aligned to the reference view, takes the place of NeRF and NeuS.

    file -> GivenShape (read, faces outward, light) -> Fit (aligned to the picture) -> Geometry of the DMTet stage

The mesh is known by its content: neither its path nor its name has any influence on the result.
"""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dreamcraft3d import export
from dreamcraft3d.config import GeometryConfig, HashGridConfig, ShapeConfig
from dreamcraft3d.errors import InputError
from dreamcraft3d.evaluation.meshes import load_mesh, parse_mesh
from dreamcraft3d.evaluation.render import sample_texture
from dreamcraft3d.export import TexturedMesh, topology
from dreamcraft3d.export.cleaning import face_outward
from dreamcraft3d.functional.mesh import Mesh
from dreamcraft3d.kernels.mesh_query import MeshQuery
from dreamcraft3d.progress import Progress
from dreamcraft3d.refining.glb import GlbFile
from dreamcraft3d.refining.refusals import MeshTooDense
from dreamcraft3d.stages.alignment import Alignment, Similarity, align, silhouette_overlap
from dreamcraft3d.stages.colour_fit import ColourOf
from dreamcraft3d.stages.geometry import Geometry, geometry_from_mesh
from dreamcraft3d.stages.reference import ReferenceView

__all__ = ["GivenShape", "ShapeStart", "fit_shape", "placed_shape", "read_shape"]

GLB_MAGIC = b"glTF"
MOST_FACES = 30_000
"""Faces that alignment and tetrahedral grid work with; denser meshes are decimated first."""

DOUBTFUL = 0.8
"""Overlap of the silhouettes below which the user is warned that this may be another object."""

SCENE, SEEN = 1.0, 0.66
"""Distances from the middle: where the scene ends, and what every camera sees."""


@dataclass(frozen=True)
class GivenShape:
    """A mesh file as read.

    Attributes:
        mesh: in the file's frame (z up, front +x), faces outward, at most about `MOST_FACES`. colour: of points on it;
        None where the file has none. digest: SHA-256 of the file.
    """

    mesh: Mesh
    colour: ColourOf | None
    digest: str


@dataclass(frozen=True)
class ShapeStart:
    """A shape in the scene. colour: of points on it."""

    mesh: Mesh
    colour: ColourOf

    def geometry(
        self, config: GeometryConfig, hash_grid: HashGridConfig, generator: torch.Generator, *, painted: bool
    ) -> Geometry:
        """The start of the geometry stage; without colours (`painted`) where a saved state follows."""
        colour = self.colour if painted else None
        return geometry_from_mesh(self.mesh, colour, config, hash_grid, generator, thicken=True)


def read_shape(path: Path, *, max_triangles: int) -> GivenShape:
    """Read a mesh file; what kind it is, its bytes say where its name does not.

    Raises:
        InputError: no such file, no mesh, compressed, too dense, or without any extent.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror or error}.", "Check the path.") from error
    if data.startswith(GLB_MAGIC):
        GlbFile(data)  # refuses what is damaged or compressed, with its remedy
        textured = parse_mesh(data, ".glb", "The shape")
    elif path.suffix:
        textured = load_mesh(path)
    else:
        textured = parse_mesh(data, ".obj", "The shape")
    if len(textured.faces) > max_triangles:
        raise MeshTooDense(f"{len(textured.faces)} triangles", str(max_triangles), "shape.max_triangles")
    textured = _usable(textured)
    return GivenShape(_light(textured.mesh), surface_colours(textured), hashlib.sha256(data).hexdigest())


def fit_shape(given: GivenShape, reference: ReferenceView, config: ShapeConfig, progress: Progress) -> Alignment:
    """Where the shape belongs in the scene.

    Raises:
        InputError: its silhouette says that it is another object, or it does not fit into the scene.
    """
    if config.aligned:
        found = _as_it_lies(given.mesh, reference)
    else:
        most_pitch = math.radians(config.pitch)
        found = align(given.mesh, reference, colour=given.colour, turn=config.turn, most_pitch=most_pitch)
        if found.iou < config.least_overlap:
            raise InputError(
                f"The shape looks like another object: its silhouette agrees with the picture's by {found.iou:.0%} "
                "at best.",
                "It must stand upright (y up in the file), and the picture's --elevation must be right; "
                "--set shape.least_overlap lowers the bound.",
            )
    _tell(found, given, config, progress)
    return found


def _as_it_lies(mesh: Mesh, reference: ReferenceView) -> Alignment:
    """The identity. Raises InputError for a mesh that reaches out of the scene."""
    reach = float(mesh.vertices.abs().max())
    if reach > SCENE:
        message = f"The shape is not aligned: it reaches {reach:.3g} units from the middle, and the scene ends at 1."
        raise InputError(message, "Leave out --shape-aligned.")
    identity = Similarity(1.0, torch.eye(3), torch.zeros(3))
    return Alignment(identity, silhouette_overlap(mesh, None, reference))


def placed_shape(given: GivenShape, transform: Similarity, reference: ReferenceView) -> ShapeStart:
    """The shape in the scene, on the device of the reference; without colours of its own it has the picture's mean."""
    device = reference.rgba.device
    mesh = Mesh(transform(given.mesh.vertices).to(device), given.mesh.faces.to(device))
    mean = reference.rgba[reference.mask][:, :3].mean(dim=0)
    own = given.colour

    def colour(x: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        return mean.expand_as(x) if own is None else own(transform.inverse(x).cpu()).to(x)

    return ShapeStart(mesh, colour)


def surface_colours(textured: TexturedMesh) -> ColourOf | None:
    """Colours of points by the nearest point of a mesh; None for one that is the same all over, as blockouts are."""
    if textured.texture is None and bool((textured.colours() - textured.colours()[0]).abs().max() < 1e-3):
        return None
    query = MeshQuery(textured.vertices, textured.faces)

    def colour(x: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        _, face, weights = query.closest_points(x)
        if textured.texture is not None and textured.uvs is not None:
            return sample_texture(textured.texture, (weights[..., None] * textured.uvs[face]).sum(dim=1))
        return (weights[..., None] * textured.colours()[textured.faces[face]]).sum(dim=1)

    return colour


def _tell(found: Alignment, given: GivenShape, config: ShapeConfig, progress: Progress) -> None:
    turned = "" if config.aligned else f", turned by {math.degrees(found.transform.yaw):.0f} degrees"
    progress.note(f"shape: its silhouette agrees with the picture's by {found.iou:.1%}{turned}.")
    if found.iou < DOUBTFUL:
        progress.warn(f"The silhouettes of shape and picture agree by {found.iou:.0%} only: is it the same object?")
    if found.rivals:
        others = ", ".join(f"{math.degrees(yaw):.0f}" for yaw in found.rivals)
        progress.note(f"shape: by its silhouette it could also be turned by {others} degrees.")
    if float(found.transform(given.mesh.vertices).norm(dim=-1).max()) > SEEN:
        progress.warn("The shape is deeper than it is wide: other views will not see all of it.")


def _usable(mesh: TexturedMesh) -> TexturedMesh:
    """Without faces that are not finite. Raises InputError if nothing with an extent is left."""
    keep = torch.isfinite(mesh.vertices).all(dim=-1)[mesh.faces].all(dim=-1)
    if not bool(keep.all()):
        used, faces = torch.unique(mesh.faces[keep], return_inverse=True)
        uvs = None if mesh.uvs is None else mesh.uvs[keep]
        colours = None if mesh.vertex_colours is None else mesh.vertex_colours[used]
        mesh = TexturedMesh(mesh.vertices[used], faces, uvs, mesh.texture, colours)
    extent = (mesh.vertices.amax(dim=0) - mesh.vertices.amin(dim=0)) if len(mesh.faces) else torch.zeros(3)
    if not bool(torch.isfinite(extent).all()) or float(extent.sort().values[1]) <= 0.0:
        raise InputError("The shape has no extent: all its points lie in one line.", "Export the mesh again, as GLB.")
    return mesh


def _light(mesh: Mesh) -> Mesh:
    """Faces that agree which side is out, and not more of them than are of use."""
    mesh = export.lighten(mesh, MOST_FACES)
    vertices, faces = mesh.vertices.double().numpy(), mesh.faces.numpy().astype(np.int64)
    vertices, faces = topology.compact(vertices, face_outward(vertices, topology.orient(faces)))
    if len(faces) == 0:
        raise InputError("The shape has no extent: its faces are points and lines.", "Export the mesh again, as GLB.")
    return Mesh(torch.from_numpy(vertices).float(), torch.from_numpy(faces.copy()))
