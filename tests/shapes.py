"""Meshes with known answers, for the tests of the export and of the evaluation."""

import numpy as np
import torch
import trimesh

from dreamcraft3d.export import TexturedMesh
from dreamcraft3d.functional.mesh import Mesh

LOPSIDED = {
    "front": (0.9, 0.8, 0.1),
    "back": (0.15, 0.15, 0.15),
    "right": (0.1, 0.7, 0.2),
    "left": (0.8, 0.1, 0.1),
    "top": (0.2, 0.3, 0.9),
    "bottom": (0.6, 0.6, 0.6),
}
"""Colours of the lopsided object as the reference camera sees it: `right` is image-right."""


def mesh_of(shape: trimesh.Trimesh) -> Mesh:
    """From trimesh."""
    return Mesh(torch.tensor(np.array(shape.vertices)).float(), torch.tensor(np.array(shape.faces)).long())


def sphere(radius: float = 0.5, centre: tuple[float, float, float] = (0.0, 0.0, 0.0), subdivisions: int = 3) -> Mesh:
    """An icosphere."""
    mesh = mesh_of(trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius))
    return Mesh(mesh.vertices + torch.tensor(centre), mesh.faces)


def torus(subdivisions: int = 48) -> Mesh:
    """A ring around z: not a sphere, so charts must cut it open."""
    shape = trimesh.creation.torus(0.4, 0.15, major_sections=subdivisions, minor_sections=subdivisions // 2)
    return mesh_of(shape)


def union(*meshes: Mesh) -> Mesh:
    """Side by side in one mesh, not merged."""
    vertices, faces, count = [], [], 0
    for mesh in meshes:
        vertices.append(mesh.vertices)
        faces.append(mesh.faces + count)
        count += len(mesh.vertices)
    return Mesh(torch.cat(vertices), torch.cat(faces))


def flipped(mesh: Mesh) -> Mesh:
    """Inside out."""
    return Mesh(mesh.vertices, mesh.faces.flip(1))


def box(low: tuple[float, float, float], high: tuple[float, float, float]) -> Mesh:
    """An axis-aligned box."""
    return mesh_of(trimesh.creation.box(bounds=[low, high]))


def lopsided() -> Mesh:
    """A body with a nose on its front (+x), a long right arm (+y), a short left one and a hat: no two sides agree."""
    return union(
        box((-0.15, -0.2, -0.5), (0.15, 0.2, 0.3)),
        box((0.17, -0.06, 0.0), (0.4, 0.06, 0.12)),
        box((-0.1, 0.22, -0.1), (0.1, 0.6, 0.1)),
        box((-0.1, -0.35, -0.1), (0.1, -0.22, 0.1)),
        box((-0.12, -0.12, 0.32), (0.05, 0.12, 0.6)),
    )


def lopsided_colour(points: torch.Tensor) -> torch.Tensor:
    """By the side of the object (the largest coordinate), so that a texture can be read back face by face."""
    names = ["front", "back", "right", "left", "top", "bottom"]
    table = torch.tensor([LOPSIDED[name] for name in names])
    x, y, z = points.unbind(-1)
    reach = torch.stack([x / 0.15, -x / 0.15, y / 0.2, -y / 0.2, z / 0.3, -z / 0.5], dim=-1)
    return table[reach.argmax(-1)]


def textured_quad() -> TexturedMesh:
    """A unit square facing +x with a 2 x 2 texture: red and green above, blue and white below (image-right is +y)."""
    vertices = torch.tensor([[0.0, -0.5, -0.5], [0.0, 0.5, -0.5], [0.0, 0.5, 0.5], [0.0, -0.5, 0.5]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    corner = torch.tensor([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    texture = torch.tensor([[[1.0, 0, 0], [0, 1.0, 0]], [[0, 0, 1.0], [1.0, 1.0, 1.0]]])
    return TexturedMesh(vertices, faces, corner[faces], texture)
