"""From a surface and a colour field to a file: clean up, decimate, unwrap, bake, write.

    unwrapped = prepare(mesh, target_faces=10_000, seconds=60.0, texture_size=1024)
    textured = unwrapped.with_texture(bake(unwrapped, colour_fn))
    workspace.write_bytes("result.glb", write_glb(textured))

The face budget comes before the unwrap, because the time xatlas needs grows faster than the number of faces; the
unwrap runs in a child process against the clock, and a box projection steps in when the clock wins. Everything is
deterministic, except that a slow machine may run out of time where a fast one does not.
"""

import logging
import time

import numpy as np
import torch

from dreamcraft3d.export.baking import bake, dilate
from dreamcraft3d.export.cleaning import clean, decimate_roughly
from dreamcraft3d.export.gltf import write_glb
from dreamcraft3d.export.mesh import GREY, CleanReport, TexturedMesh, UnwrappedMesh
from dreamcraft3d.export.projection import Projection, project_image
from dreamcraft3d.export.unwrapping import PADDING, overlap, unwrap
from dreamcraft3d.functional.mesh import Mesh

__all__ = [
    "GREY",
    "PADDING",
    "CleanReport",
    "Projection",
    "TexturedMesh",
    "UnwrappedMesh",
    "bake",
    "dilate",
    "lighten",
    "prepare",
    "project_image",
    "write_glb",
]

log = logging.getLogger(__name__)


def lighten(mesh: Mesh, target_faces: int) -> Mesh:
    """At most about `target_faces`, for a look only: nothing is repaired or promised."""
    if len(mesh.faces) <= target_faces:
        return mesh
    vertices, faces = decimate_roughly(mesh.vertices.detach().cpu().numpy(), mesh.faces.cpu().numpy(), target_faces)
    return Mesh(torch.from_numpy(vertices).to(mesh.vertices), torch.from_numpy(faces).to(mesh.faces))


def prepare(mesh: Mesh, *, target_faces: int, seconds: float = 60.0, texture_size: int = 1024) -> UnwrappedMesh:
    """The real object of `mesh`, closed and outward, decimated to about `target_faces` and then unwrapped.

    Args:
        target_faces: face budget. seconds: time limit of xatlas. texture_size: texels of the layout.

    Raises:
        ObjectLost: the mesh holds no surface at all.
    """
    start = time.monotonic()
    vertices = mesh.vertices.detach().cpu().numpy().astype(np.float64)
    faces = mesh.faces.detach().cpu().numpy().astype(np.int64)
    vertices, faces, report = clean(vertices, faces, target_faces=target_faces)
    cleaned = time.monotonic()
    uvs, charts, method = unwrap(vertices, faces, texture_size=texture_size, seconds=seconds)
    log.info("clean-up %.1f s, unwrap (%s) %.1f s", cleaned - start, method, time.monotonic() - cleaned)
    device = mesh.vertices.device
    return UnwrappedMesh(
        vertices=torch.from_numpy(vertices).float().to(device),
        faces=torch.from_numpy(faces).to(device),
        uvs=torch.from_numpy(uvs).float().to(device),
        charts=torch.from_numpy(charts).to(device),
        texture_size=texture_size,
        method=method,
        overlap=overlap(uvs, texture_size),
        report=report,
    )
