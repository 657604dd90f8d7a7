"""Refining a mesh file: GLB or OBJ in, the same file with other images out."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dreamcraft3d.config import GenerateConfig
from dreamcraft3d.errors import InputError
from dreamcraft3d.priors.residency import Shelf
from dreamcraft3d.progress import Progress
from dreamcraft3d.refining.glb import GlbFile, read_glb
from dreamcraft3d.refining.glb_images import with_images
from dreamcraft3d.refining.obj import ObjFile, read_obj
from dreamcraft3d.refining.request import ReferencePicture, RefineRequest, digest
from dreamcraft3d.refining.run import RefineResult, refine
from dreamcraft3d.workspace import Workspace, atomic_path

__all__ = ["RefinedFile", "open_mesh", "refine_file", "request_for"]

READERS: dict[str, Callable[[Path], GlbFile | ObjFile]] = {".glb": read_glb, ".obj": read_obj}


@dataclass(frozen=True)
class RefinedFile:
    """`mesh`: the new file; its images and material library lie beside it, or inside."""

    mesh: Path
    result: RefineResult


def open_mesh(path: Path) -> GlbFile | ObjFile:
    """Reads a mesh file whose bytes can be kept.

    Raises:
        InputError: another kind of file. RefineRefused: damaged or compressed.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path.name} cannot be refined in place.", "Give a GLB or OBJ file.")
    return reader(path)


def request_for(
    mesh: GlbFile | ObjFile, config: GenerateConfig, *, picture: bytes | None, slots: list[int] | None, prompt: str = ""
) -> RefineRequest:
    """The request that a configuration means for a mesh file."""
    return mesh.request(
        slots,
        texture_size=config.refine.texture_size,
        files=[] if picture is None else [picture],
        reference=None if picture is None else ReferencePicture(sha256=digest(picture)),
        prompt=prompt,
        strength=config.refine.strength,
        seed=config.seed,
    )


def refine_file(
    path: Path,
    config: GenerateConfig,
    workspace: Workspace,
    progress: Progress,
    *,
    picture: bytes | None = None,
    slots: list[int] | None = None,
    prompt: str = "",
    shelf: Shelf | None = None,
) -> RefinedFile:
    """Repaints the images of a mesh file into a copy of it in the workspace.

    Args:
        picture: the reference picture's file. slots: material numbers; default all with texture coordinates.

    Raises:
        as `refine`.
    """
    mesh, folder = open_mesh(path), workspace.file("mesh")
    if (folder / path.name).resolve() == path.resolve():
        raise InputError(f"The result would overwrite {path}.", "Choose another --out folder.")
    request = request_for(mesh, config, picture=picture, slots=slots, prompt=prompt)
    painted = [target.slot for target in request.header.targets]
    for note in mesh.notes(painted) if isinstance(mesh, GlbFile) else []:
        progress.warn(note)
    result = refine(request, config, workspace, progress, shelf=shelf)
    changed = {file["slot"] for file in result.report["files"] if file["painted"] > 0.0}
    images = {image.slot: image.path.read_bytes() for image in result.images if image.slot in changed}
    files = {path.name: with_images(mesh, images)} if isinstance(mesh, GlbFile) else mesh.with_images(images)
    for name, data in files.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_bytes(data)
    progress.artifact(path.name, folder / path.name)
    return RefinedFile(folder / path.name, result)
