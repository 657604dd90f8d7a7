"""DreamCraft for scripts: in the window, in `--background`, and under `blender --command dreamcraft`.

    from bl_ext.user_default.dreamcraft import api

    item = api.generate("mug.png", preset="preview", seed=7).object        # waits
    api.generate("mug.png", wait=False, on_done=lambda result: print(result.object))   # does not

    api.refine(bpy.data.objects["Chair"], "oak.png", strength=0.7)         # a new texture in its own UV map

    api.batch("chairs.jsonl")                                              # hundreds of objects, see "Batches"

A picture is a path, bytes, or one of Blender's images. Everything that can go wrong is a `Problem` with a `message`,
a `remedy` and a `code`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy

from . import (
    batch_objects,
    batch_runs,
    importer,
    jobs,
    operators_refine,
    pictures,
    preferences,
    refine_apply,
    refine_request,
    session,
    shape_file,
)
from .client import Flow
from .problems import Problem
from .submission import Picture, Submission, build

__all__ = ["Handle", "Problem", "Refined", "Result", "batch", "generate", "refine"]


@dataclass(frozen=True)
class Result:
    """What became of a job: the object in the scene (None if none was wanted), its files, the service's report."""

    job: str
    object: Any
    glb: Path
    report: Mapping[str, Any]


@dataclass(frozen=True)
class Refined:
    """What became of a refinement: the new images by slot (packed into the file), and the backend's report."""

    job: str
    images: Mapping[int, Any]
    report: Mapping[str, Any]


@dataclass
class Handle:
    """A job on its way. Blender's timer moves it on; `wait` does so where no timer runs."""

    task: Any

    @property
    def done(self) -> bool:
        return self.task.done

    def wait(self, seconds: float | None = None) -> Any:
        """The result; raises the `Problem` of a job that failed."""
        return session.get().wait(self.task, seconds=seconds)

    def cancel(self) -> None:
        """Stops following. The job itself goes on; `bpy.ops.dreamcraft.job_action(action="cancel")` stops it."""
        self.task.cancel()


def generate(
    image: "bpy.types.Image | Path | str | bytes",
    *,
    preset: str = "preview",
    prompt: str = "",
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    mask: "Path | str | bytes | None" = None,
    shape: "bpy.types.Object | Path | str | bytes | None" = None,
    shape_turn: bool = True,
    name: str = "",
    scene: "bpy.types.Scene | None" = None,
    location: tuple[float, float, float] | None = None,
    height: float = 1.0,
    mark_asset: bool = False,
    link: bool = True,
    wait: bool = True,
    seconds: float | None = None,
    on_progress: Callable[[jobs.Job], None] = lambda job: None,
    on_done: Callable[[Result], None] = lambda result: None,
    on_problem: Callable[[Problem], None] = lambda problem: None,
) -> "Result | Handle":
    """One picture to one object.

    Args:
        settings: any setting of the backend by dotted key, as {"coarse_nerf.steps": 400}. height: in scene units.
        shape: a mesh object, or a GLB or OBJ file, to start from instead of making a shape from the picture.
        shape_turn: look for its side that the picture shows; False: it shows its front.
        location: of the object's base; the 3D cursor if None. link: False only fetches the files.
        wait: True blocks and returns a `Result`; False returns a `Handle` and calls back.
    Raises:
        Problem: with its remedy (also as `on_problem`, when nothing waits).
    """
    current, scene = session.get(), scene or bpy.context.scene
    picture, start = picture_from(image), shape_from(shape)
    placement = importer.Placement(
        name=prompt or name or Path(picture.name).stem,
        location=tuple(location if location is not None else scene.cursor.location),
        height=height,
    )

    def made(server: Mapping[str, Any]) -> Submission:
        values = ({"seed": seed} if seed else {}) | ({} if shape_turn else {"shape.turn": False}) | dict(settings or {})
        return build(
            picture, server=server, preset=preset, prompt=prompt, name=placement.name, settings=values,
            mask=read(mask), shape=start,
        )  # fmt: skip

    task = current.pump.run(
        run(current, made, scene.name if link else "", placement, mark_asset, on_progress, on_done, on_problem)
    )
    handle = Handle(task)
    return handle.wait(seconds) if wait else handle


def run(current, made, scene, placement, mark, on_progress, on_done, on_problem) -> Flow[Result]:
    """Flow: connects, sends what `made` makes for this service, follows, fetches, imports."""
    try:
        server = yield from current.link.connected()
        job = yield from current.submit(made(server))
        job = yield from jobs.follow(job.id, seen=lambda found: (current.know([found]), on_progress(found)))
        path = yield from current.arrivals.fetch_result(job)
        report = importer.read_report(path.with_name("report.json"))
        item = None
        if scene:
            if scene not in bpy.data.scenes:
                text = f"The scene {scene} is gone."
                raise Problem("no_scene", text, "Import the result from the list of jobs.")
            remembered = importer.remembered(job, report, placement.name)
            place = importer.Placement(placement.name, placement.location, placement.height, remembered)
            item = importer.import_model(path, bpy.data.scenes[scene], place)
            if mark:
                importer.mark_asset(item, path.with_name("preview.webp"), placement.name)
        result = Result(job.id, item, path, report)
    except Problem as problem:
        on_problem(problem)
        raise
    on_done(result)
    return result


def refine(
    item: "bpy.types.Object",
    reference: "bpy.types.Image | Path | str | bytes | None" = None,
    *,
    slots: "tuple[int, ...] | None" = None,
    uv_map: str = "",
    faces: str = "ALL",
    camera: "bpy.types.Object | None" = None,
    elevation: float | None = None,
    strength: float = 1.0,
    prompt: str = "",
    preset: str = "preview",
    seed: int = 0,
    texture_size: int = 1024,
    overlap: str | None = None,
    settings: Mapping[str, Any] | None = None,
    mode: str = "material",
    wait: bool = True,
    seconds: float | None = None,
    on_progress: Callable[[jobs.Job], None] = lambda job: None,
    on_done: Callable[[Refined], None] = lambda result: None,
    on_problem: Callable[[Problem], None] = lambda problem: None,
) -> "Refined | Handle":
    """A new texture for a mesh, in its own UV map; nothing else of the object changes.

    Args:
        reference: how it should look; None = its present look. camera: the one that took the picture; None = the
        object's front. slots: indices, None = the active one. faces: ALL, SELECTED or "GROUP:name".
        mode: material (a new one in the slot), image (the material's image is replaced), none (images only).
        The rest is as for `generate`.
    Raises:
        Problem: with its remedy (also as `on_problem`, when nothing waits).
    """
    current, scene = session.get(), bpy.context.scene.name
    picture = None if reference is None else picture_from(reference)
    view = None
    if camera is not None and picture is not None:
        view = refine_request.view_through(camera, picture.width or 1, picture.height or 1)
    wish = refine_request.Wish(
        slots or (), uv_map, faces, picture, view, elevation, strength, prompt, seed, texture_size, overlap
    )
    request = refine_request.build(item, wish, preset=preset)
    flow = refining(current, request, preset, settings or {}, item.name, scene, mode, on_progress)
    handle = Handle(current.pump.run(telling(flow, on_done, on_problem)))
    return handle.wait(seconds) if wait else handle


def refining(current, request, preset, settings, name, scene, mode, on_progress) -> Flow[Refined]:
    """Flow: sends the request, follows, fetches the images and applies them."""
    server = yield from current.link.connected()
    title = f"{name} (refined)"
    job = yield from current.submit(operators_refine.submission_of(request, server, preset, settings, title))
    job = yield from jobs.follow(job.id, seen=lambda found: (current.know([found]), on_progress(found)))
    path = yield from current.arrivals.fetch_result(job, "result.zip")
    report, files = refine_apply.read_result(path, path.with_name("images"))
    maps = {target["slot"]: target["uv_map"] for target in request.header["targets"]}
    images = refine_apply.apply(
        bpy.data.scenes[scene], bpy.data.objects.get(name), files, mode=mode, fingerprint=request.fingerprint,
        slots=request.slots, maps=maps, name=name,
    )  # fmt: skip
    return Refined(job.id, images, report)


def batch(
    source: "Path | str",
    action: str = "run",
    *,
    out: "Path | str | None" = None,
    only: "tuple[str, ...]" = (),
    limit: int | None = None,
    jobs: int | None = None,
    retry_failed: bool = False,
    wait: bool = True,
    seconds: float | None = None,
    on_progress: Callable[[Mapping[str, Any]], None] = lambda line: None,
    on_done: Callable[[batch_runs.Outcome], None] = lambda outcome: None,
    on_problem: Callable[[Problem], None] = lambda problem: None,
) -> "batch_runs.Outcome | Handle":
    """A manifest or a folder of pictures: validate, run, status, cancel or retry, by a process of the backend's own.

    Args:
        on_progress: gets each line of JSON that the command writes (see "Batches, for programs").
        wait: True blocks and returns an `Outcome`; Ctrl-C then stops the batch at its next checkpoints. False returns
        a `Handle` and calls back; the batch goes on when Blender ends. The rest is as on the command line.
    Raises:
        Problem: bad_manifest (its `log` has every mistake), busy, cancelled ... Items that failed are no problem but
        an `Outcome` of code 3.
    """
    current, path = session.get(), Path(bpy.path.abspath(str(source))).absolute()
    given = {"out": out, "only": only, "limit": limit, "jobs": jobs, "retry_failed": retry_failed}
    options = batch_runs.options_of(**{name: value for name, value in given.items() if value})
    options = batch_objects.with_blender(action, options)
    folder = batch_runs.folder_for(preferences.results_folder(), path)
    run = batch_runs.BatchRun(current.link.launcher.installation, action, path, options, folder=folder)
    handle = Handle(current.pump.run(telling(batch_runs.following(run, on_progress), on_done, on_problem)))
    try:
        return handle.wait(seconds) if wait else handle
    except KeyboardInterrupt:
        run.stop()
        raise


def telling(flow, on_done, on_problem) -> Flow[Any]:
    """Flow: calls back with what a flow ends with."""
    try:
        result = yield from flow
    except Problem as problem:
        on_problem(problem)
        raise
    on_done(result)
    return result


def picture_from(image) -> Picture:
    """Whatever names a picture, as bytes."""
    if isinstance(image, bpy.types.Image):
        return pictures.picture_of(image)
    if isinstance(image, bytes):
        return Picture(image)
    path = Path(bpy.path.abspath(str(image)))
    return Picture(read(path) or b"", path.name)


def shape_from(shape) -> bytes | None:
    """A mesh file's bytes of whatever names a shape."""
    return shape_file.file_of(shape) if isinstance(shape, bpy.types.Object) else read(shape)


def read(file) -> bytes | None:
    """The bytes of a file that the caller named."""
    if file is None or isinstance(file, bytes):
        return file
    try:
        return Path(file).read_bytes()
    except OSError as error:
        text = f"Cannot read {file}: {error.strerror or error}."
        raise Problem("no_image", text, "Check the path.") from error


def known_jobs(seconds: float = 20.0) -> Iterator[jobs.Job]:
    """The newest jobs of the backend (which is started if need be), the newest first."""
    current = session.get()
    current.wait(current.pump.run(current.link.connected()), seconds=seconds)
    found = current.wait(current.pump.run(jobs.listed()), seconds=seconds)
    current.know(found, all_of_them=True)
    return iter(found)
