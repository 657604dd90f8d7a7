"""Jobs of the kind refine, as the worker does them: a mesh file, a request, or an object of a Blender file."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreamcraft3d.executors.blender import BlenderObject
from dreamcraft3d.progress import Progress

if TYPE_CHECKING:
    from dreamcraft3d.refining.request import RefineRequest

__all__ = ["blender_object", "received", "refine_images", "refine_mesh", "refine_request", "sent"]


def refine_request(order: Mapping[str, Any]) -> "RefineRequest | None":
    """What a job of the kind refine asks for, if its mesh is a request and not a mesh file."""
    if order["request"].get("kind") != "refine":
        return None
    from dreamcraft3d.refining.archive import is_archive, read_archive

    mesh = Path(order["files"]["mesh"])
    return read_archive(mesh) if is_archive(mesh) else None


def refine_images(
    asked: "RefineRequest", config: Any, workspace: Any, progress: Progress, shelf: Any
) -> dict[str, Any]:
    """The images that a request asks for, as `result.zip`. Returns the report."""
    from dreamcraft3d.refining.archive import pack_result
    from dreamcraft3d.refining.run import refine

    result = refine(asked, config, workspace, progress, shelf=shelf)
    progress.artifact("result.zip", pack_result(result, workspace))
    return result.report


def refine_mesh(
    order: Mapping[str, Any], config: Any, workspace: Any, progress: Progress, shelf: Any
) -> dict[str, Any]:
    """A mesh file with other images, under its own name; of an upload, which has none, as `result.glb`."""
    from dreamcraft3d.refining.files import refine_file
    from dreamcraft3d.workspace import atomic_path

    mesh, picture = Path(order["files"]["mesh"]), order["files"].get("picture")
    upload = not mesh.suffix  # named by its hash
    if upload:
        mesh = workspace.write_bytes("mesh.glb", mesh.read_bytes())
    done = refine_file(
        mesh, config, workspace, progress,
        picture=None if picture is None else Path(picture).read_bytes(),
        slots=order["request"].get("slots") or None, prompt=config.prompt, shelf=shelf,
    )  # fmt: skip
    if upload:
        with atomic_path(workspace.file("result.glb")) as temporary:
            temporary.write_bytes(done.mesh.read_bytes())
        progress.artifact("result.glb", workspace.file("result.glb"))
    return done.result.report


# --- objects of Blender files ---------------------------------------------------------------------


def blender_object(order: Mapping[str, Any]) -> BlenderObject | None:
    """The object of a Blender file that a job of a batch is about, if it is about one."""
    request, files = order["request"], order["files"]
    if "blend" not in files:
        return None
    return BlenderObject(
        Path(request["blender"]), Path(files["blend"]), request["object"], tuple(request.get("slots", ()))
    )


def sent(source: BlenderObject, order: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    """The order with what Blender reads from the file as its mesh. An interrupted job has that already."""
    picture = order["files"].get("picture")
    request = folder / "stages" / f"request-{marks(source, picture)}.zip"
    if not request.is_file():
        request.parent.mkdir(parents=True, exist_ok=True)
        source.send(request, None if picture is None else Path(picture))
    return {**order, "files": {**order["files"], "mesh": str(request)}}


def received(source: BlenderObject, order: Mapping[str, Any], folder: Path) -> None:
    """`NAME.blend`: a copy of the file with the new images on the object."""
    source.receive(Path(order["files"]["mesh"]), folder / "result.zip", folder / source.file.name)
    (folder / "result.zip").unlink()  # its images lie beside it


def marks(source: BlenderObject, picture: str | None) -> str:
    """A name for what a request is made from."""
    digest = hashlib.sha256(json.dumps([source.name, source.slots]).encode())
    for path in [source.file] if picture is None else [source.file, Path(picture)]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
