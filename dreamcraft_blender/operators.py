"""The Generate button, and how the form becomes a request. What is done to jobs afterwards is in `operators_jobs`."""

from pathlib import Path

import bpy
from bpy.props import BoolProperty

from . import advanced, jobs, pictures, session, shape_file
from .pictures import Reporting
from .problems import Problem
from .submission import build, check_picture


def settings_of(scene):
    """The form as settings by dotted key: what the panel has a place for, and the advanced ones that were changed."""
    form = scene.dreamcraft
    found = advanced.changed(scene)
    if form.seed:  # what is as the preset says is not sent: the service learns from such jobs how long a preset takes
        found["seed"] = form.seed
    if form.elevation:
        found["reference.elevation"] = round(form.elevation, 3)
    if form.target_faces:
        found["export.target_faces"] = max(100, form.target_faces)
    if form.texture_size != "PRESET":
        found["export.texture_size"] = int(form.texture_size)
    return found


def submission_of(scene, server):
    """The form as a checked request. Raises `Problem`."""
    form = scene.dreamcraft
    picture = check_picture(pictures.picture_of(form.picture, scene))
    return build(
        picture,
        server=server,
        preset=form.preset or "preview",
        prompt=form.prompt,
        name=form.prompt or Path(picture.name).stem,
        settings=settings_of(scene) | ({"shape.turn": False} if form.use_shape and not form.shape_turn else {}),
        mask=pictures.mask_of(form, picture),
        shape=shape_file.file_of(form.shape or active_object()) if form.use_shape else None,
    )


def active_object():
    """The active one of the window; scripts without a window have one, too."""
    return getattr(bpy.context, "active_object", None) or bpy.context.view_layer.objects.active


def await_object(scene, job, **more):
    """Notes in the scene that it waits for this job's object."""
    form = scene.dreamcraft
    pending = form.pending.add()
    pending.job = job
    pending.location = more.get("location") or scene.cursor.location
    pending.height = more.get("height") or form.height
    pending.mark_asset = form.mark_asset if more.get("mark_asset") is None else more["mark_asset"]
    pending.live = form.live if more.get("live") is None else more["live"]
    pending.prompt = more.get("prompt", form.prompt)
    return pending


class DREAMCRAFT_OT_generate(Reporting, bpy.types.Operator):
    """Turn the picture into a textured object, in the background; Blender stays free"""

    bl_idname = "dreamcraft.generate"
    bl_label = "Generate"
    bl_options = {"REGISTER"}

    wait: BoolProperty(
        name="Wait", description="For scripts: return when the object is there", default=False, options={"SKIP_SAVE"}
    )

    @classmethod
    def poll(cls, context):
        if context.scene is None or context.scene.dreamcraft.picture is None:
            cls.poll_message_set("Choose a picture first: open, paste, or drop one into the 3D view")
            return False
        current = session.peek()
        if current is not None and current.installer is not None and not current.installer.done:
            cls.poll_message_set("The backend is being installed")
            return False
        return True

    def execute(self, context):
        current, scene = session.get(), context.scene
        current.link.launcher.breaker.reset()
        try:
            submission = submission_of(scene, current.link.server)
            name = scene.name
            task = current.run(current.submit(submission), done=lambda job: sent(name, job))
            if self.wait or bpy.app.background:
                return self.until_it_is_there(current, task)
        except Problem as problem:
            return self.fail(problem)
        self.report({"INFO"}, "Sent to the backend")
        return {"FINISHED"}

    def until_it_is_there(self, current, task):
        """For scripts: follows, fetches, imports (one undo step)."""
        job = current.wait(task)
        job = current.wait(current.run(jobs.follow(job.id)))
        current.know([job])
        current.wait(current.run(current.arrivals.fetch_result(job)))
        try:
            return bpy.ops.dreamcraft.import_result("EXEC_DEFAULT", True, job=job.id, pending=True)
        except RuntimeError as error:  # how Blender hands on what an operator reported
            return self.fail(current.problem or Problem("bad_model", str(error), "Import it from the list of jobs."))


def sent(scene, job):
    """The service has taken the job: the scene that asked waits for it."""
    found = bpy.data.scenes.get(scene)
    if found is not None:
        await_object(found, job.id)


CLASSES = (DREAMCRAFT_OT_generate,)
