"""The buttons about refining: send a mesh, apply what comes back, compare, revert; unwrap a copy."""

import json

import bpy
from bpy.props import BoolProperty, IntProperty, StringProperty

from . import jobs, pictures, refine_apply, refine_request, session
from .launcher import new_key
from .operators import settings_of
from .pictures import Reporting
from .problems import Problem
from .submission import Submission, check_picture, check_preset

DROPPED = ("reference.elevation", "export.")
"""Settings of the form for generating that mean nothing here, or that the request says itself."""


def wish_of(context):
    """The form as a wish. Raises `Problem`."""
    scene, item, form = context.scene, context.active_object, context.scene.dreamcraft.refine
    picture = view = None
    if form.reference == "PICTURE":
        picture = check_picture(pictures.picture_of(scene.dreamcraft.picture, scene))
        view = view_of(context, form.view, picture)
    faces = form.faces
    if faces == "GROUP":
        group = item.vertex_groups.active if item is not None else None
        if group is None:
            raise Problem("E_EMPTY_MASK", "The object has no active vertex group.", "Choose one, or paint all faces.")
        faces = f"GROUP:{group.name}"
    count = len(item.material_slots) if item is not None else 0
    size = scene.dreamcraft.texture_size
    return refine_request.Wish(
        slots=tuple(range(count)) if form.slots == "ALL" and count else (),
        uv_map=form.uv_map,
        faces=faces,
        reference=picture,
        view=view,
        elevation=round(scene.dreamcraft.elevation, 3) if scene.dreamcraft.elevation else None,
        strength=form.strength,
        prompt=scene.dreamcraft.prompt,
        seed=scene.dreamcraft.seed,
        texture_size=1024 if size == "PRESET" else int(size),
    )


def view_of(context, kind, picture):
    """World-to-clip matrix of the picture's camera; None for the front."""
    if kind == "CAMERA":
        if context.scene.camera is None:
            raise Problem("no_camera", "The scene has no camera.", "Add one, or choose another view.")
        return refine_request.view_through(context.scene.camera, picture.width, picture.height)
    if kind == "VIEW":
        space = context.space_data
        region = next((r for r in context.area.regions if r.type == "WINDOW"), None) if context.area else None
        if region is None or space is None or space.type != "VIEW_3D":
            raise Problem("no_view", "This is no 3D view.", "Press the button in a 3D view's sidebar.")
        return refine_request.view_of_region(region, space, picture.width, picture.height)
    return None


def submission_of(request, server, preset, settings, name):
    """The request as a job. Raises `Problem`."""
    check_preset(server, preset)
    if server and "refine" not in (server.get("capabilities") or ()):
        raise Problem("wrong_version", "This backend cannot refine yet.", "Update the backend.")
    kept = {key: value for key, value in settings.items() if not key.startswith(DROPPED)}
    body = {"kind": "refine", "name": name[:120], "preset": preset, "settings": kept, "client_key": new_key()}
    return Submission(body, {"mesh": request.packed()})


def await_images(scene, job, item, request, mode):
    """Notes in the scene that it waits for this job's images."""
    pending = scene.dreamcraft.refining.add()
    pending.job, pending.item, pending.mode = job, item, mode
    pending.fingerprint = request.fingerprint
    pending.maps = json.dumps({target["slot"]: target["uv_map"] for target in request.header["targets"]})
    return pending


def apply_pending(scene, pending, path):
    """Applies a result that was fetched. Returns the images by slot."""
    _, files = refine_apply.read_result(path, path.with_name("images"))
    maps = {int(slot): name for slot, name in json.loads(pending.maps or "{}").items()}
    pending.applied = True
    return refine_apply.apply(
        scene, pending.item, files, mode=pending.mode or "material", fingerprint=pending.fingerprint,
        slots=tuple(maps), maps=maps, name=pending.item.name if pending.item is not None else "",
    )  # fmt: skip


class DREAMCRAFT_OT_refine(Reporting, bpy.types.Operator):
    """Give the active mesh a new texture in its own UV map; its shape stays as it is, and Blender stays free"""

    bl_idname = "dreamcraft.refine"
    bl_label = "Refine Texture"
    bl_options = {"REGISTER"}

    wait: BoolProperty(
        name="Wait", description="For scripts: return when the texture is there", default=False, options={"SKIP_SAVE"}
    )

    @classmethod
    def poll(cls, context):
        item = context.active_object
        if item is None or item.type != "MESH":
            cls.poll_message_set("Make a mesh object the active one")
            return False
        if item.mode != "OBJECT":
            cls.poll_message_set("Go to Object Mode first (Tab)")
            return False
        return True

    def execute(self, context):
        current, scene, item = session.get(), context.scene, context.active_object
        form = scene.dreamcraft
        try:
            request = refine_request.build(item, wish_of(context), preset=form.preset or "preview")
            submission = submission_of(
                request, current.link.server, form.preset or "preview", settings_of(scene), f"{item.name} (refined)"
            )
            name, mode, item_name = scene.name, form.refine.mode, item.name

            def sent(job):
                if name in bpy.data.scenes:
                    await_images(bpy.data.scenes[name], job.id, bpy.data.objects.get(item_name), request, mode)

            task = current.run(current.submit(submission), done=sent)
            if self.wait or bpy.app.background:
                return self.until_it_is_there(current, task)
        except Problem as problem:
            return self.fail(problem)
        for text in request.warnings:
            self.report({"WARNING"}, text)
        self.report({"INFO"}, "Sent to the backend")
        return {"FINISHED"}

    def until_it_is_there(self, current, task):
        job = current.wait(task)
        job = current.wait(current.run(jobs.follow(job.id)))
        current.know([job])
        current.wait(current.run(current.arrivals.fetch_result(job, "result.zip")))
        try:
            return bpy.ops.dreamcraft.apply_refinement("EXEC_DEFAULT", True, job=job.id)
        except RuntimeError as error:
            return self.fail(current.problem or Problem("bad_model", str(error)))


class DREAMCRAFT_OT_apply_refinement(Reporting, bpy.types.Operator):
    """Put the new images of a refine job onto its object"""

    bl_idname = "dreamcraft.apply_refinement"
    bl_label = "Apply Refinement"
    bl_options = {"REGISTER", "UNDO"}

    job: StringProperty(options={"SKIP_SAVE", "HIDDEN"})

    def execute(self, context):
        current = session.get()
        path = current.folder_of(self.job) / "result.zip"
        for scene in bpy.data.scenes:
            for pending in scene.dreamcraft.refining:
                if pending.job == self.job and not pending.applied:
                    try:
                        apply_pending(scene, pending, path)
                    except Problem as problem:
                        self.fail(problem)
                        return {"FINISHED"}  # the images are kept: that is a step that can be undone
        return {"FINISHED"}


def records_of(context):
    """The refined slots of the active object, the newest first."""
    item = context.active_object
    return [record for record in reversed(context.scene.dreamcraft.refined) if record.item == item and item is not None]


class RefinedSlot(Reporting):
    """Base of what is done to a refined slot; `slot` -1 is the newest one."""

    slot: IntProperty(default=-1, options={"SKIP_SAVE", "HIDDEN"})

    @classmethod
    def poll(cls, context):
        if not records_of(context):
            cls.poll_message_set("This object has not been refined")
            return False
        if context.active_object.mode != "OBJECT":
            cls.poll_message_set("Go to Object Mode first (Tab)")
            return False
        return True

    def chosen(self, context):
        found = records_of(context)
        return next((record for record in found if record.slot == self.slot), found[0])


class DREAMCRAFT_OT_toggle_refinement(RefinedSlot, bpy.types.Operator):
    """Show the object as it was before, or as it is now"""

    bl_idname = "dreamcraft.toggle_refinement"
    bl_label = "Before / After"
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context):
        refine_apply.toggle(self.chosen(context))
        return {"FINISHED"}


class DREAMCRAFT_OT_revert_refinement(RefinedSlot, bpy.types.Operator):
    """Put back what was there before, and remove what was made"""

    bl_idname = "dreamcraft.revert_refinement"
    bl_label = "Revert"
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context):
        refine_apply.revert_record(context.scene, self.chosen(context))
        return {"FINISHED"}


class DREAMCRAFT_OT_unwrap_copy(Reporting, bpy.types.Operator):
    """Make a copy of the object and unwrap it, so that there is something to paint into; the original stays"""

    bl_idname = "dreamcraft.unwrap_copy"
    bl_label = "Unwrap a Copy"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context):
        item = context.active_object
        if item is None or item.type != "MESH" or item.mode != "OBJECT":
            cls.poll_message_set("Make a mesh object the active one, in Object Mode")
            return False
        return True

    def execute(self, context):
        original = context.active_object
        copy = original.copy()
        copy.data = original.data.copy()
        for collection in original.users_collection or (context.scene.collection,):
            collection.objects.link(copy)
        for item in context.selected_objects:
            item.select_set(False)
        copy.select_set(True)
        context.view_layer.objects.active = copy
        bpy.ops.object.mode_set(mode="EDIT")
        bpy.ops.mesh.reveal(select=False)
        bpy.ops.mesh.select_all(action="SELECT")
        bpy.ops.uv.smart_project(island_margin=0.01)
        bpy.ops.object.mode_set(mode="OBJECT")
        return {"FINISHED"}


CLASSES = (
    DREAMCRAFT_OT_refine,
    DREAMCRAFT_OT_apply_refinement,
    DREAMCRAFT_OT_toggle_refinement,
    DREAMCRAFT_OT_revert_refinement,
    DREAMCRAFT_OT_unwrap_copy,
)
