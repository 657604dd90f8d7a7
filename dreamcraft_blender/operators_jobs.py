"""The buttons about a job that exists: pause, move, delete, import, reuse. Each says what is wrong."""

import bpy
from bpy.props import BoolProperty, EnumProperty, StringProperty

from . import advanced, importer, jobs, preferences, session
from .drawing import tip_of
from .operators import await_object
from .pictures import Reporting
from .problems import Problem


class JobOperator(Reporting):
    """Base of what is done to one job; without `job` it is the chosen one of the list."""

    job: StringProperty(name="Job", options={"SKIP_SAVE", "HIDDEN"})
    states: tuple[str, ...] = ()
    refusal = "Choose a job from the list"

    @classmethod
    def poll(cls, context):
        current = session.peek()
        if current is None or not current.jobs:
            cls.poll_message_set("There are no jobs yet")
            return False
        return True

    def target(self, context):
        """The job; raises `Problem` if there is none, or its state does not allow it."""
        found = session.get().jobs.get(self.job) or chosen(context)
        if found is None:
            raise Problem("no_job", "There is no such job.", "Choose one from the list.")
        if self.states and found.state not in self.states:
            raise Problem("bad_state", f"This job is {found.state}.", self.refusal + ".")
        return found


def chosen(context):
    """The job that is active in the list."""
    state = context.window_manager.dreamcraft
    lines = state.jobs
    current = session.peek()
    if current is None or state.active >= len(lines):
        return None
    return current.jobs.get(lines[state.active].job)


class DREAMCRAFT_OT_job_action(JobOperator, bpy.types.Operator):
    """Tell the backend what to do with a job"""

    bl_idname = "dreamcraft.job_action"
    bl_label = "Job"
    bl_options = {"REGISTER"}

    action: EnumProperty(
        name="Action",
        items=[
            ("cancel", "Cancel", "Stop the job; it can be taken up again later"),
            ("pause", "Pause", "Free the machine; resume goes on from the last checkpoint"),
            ("resume", "Resume", "Go on where it stopped"),
            ("retry", "Retry", "Queue the job again; finished stages are not repeated"),
        ],
        options={"SKIP_SAVE"},
    )

    @classmethod
    def description(cls, context, properties):
        return tip_of(properties, "action")

    def execute(self, context):
        try:
            job = self.target(context)
        except Problem as problem:
            return self.fail(problem)
        current = session.get()
        task = current.run(jobs.act(job.id, self.action), done=lambda found: current.know([found]))
        if bpy.app.background:
            current.wait(task)
        if self.action in ("retry", "resume"):
            wait_again(context.scene, job.id)
        return {"FINISHED"}


def wait_again(scene, job):
    """A job that was cancelled and goes on brings its object after all."""
    for pending in scene.dreamcraft.pending:
        if pending.job == job:
            pending.imported = False
            return
    await_object(scene, job)


class DREAMCRAFT_OT_move_job(JobOperator, bpy.types.Operator):
    """Let a waiting job come earlier or later"""

    bl_idname = "dreamcraft.move_job"
    bl_label = "Move Job"
    bl_options = {"REGISTER"}

    states = ("queued",)
    refusal = "Only waiting jobs can be moved"
    direction: EnumProperty(
        name="Direction", items=[("UP", "Earlier", ""), ("DOWN", "Later", "")], options={"SKIP_SAVE"}
    )

    def execute(self, context):
        current = session.get()
        try:
            job = self.target(context)
        except Problem as problem:
            return self.fail(problem)
        queue = sorted(
            (other for other in current.jobs.values() if other.state == "queued"), key=lambda j: j.position or 0
        )
        place = next(index for index, other in enumerate(queue) if other.id == job.id)
        if self.direction == "UP":
            before = queue[place - 1].id if place else job.id
        else:
            before = queue[place + 2].id if place + 2 < len(queue) else None
        if before != job.id:
            current.run(jobs.reorder(job.id, before), done=lambda found: current.know([found]))
        return {"FINISHED"}


class DREAMCRAFT_OT_delete_job(JobOperator, bpy.types.Operator):
    """Remove the job and its files from the backend; imported objects stay"""

    bl_idname = "dreamcraft.delete_job"
    bl_label = "Delete Job"
    bl_options = {"REGISTER"}

    def invoke(self, context, event):
        return context.window_manager.invoke_confirm(self, event)

    def execute(self, context):
        current = session.get()
        try:
            job = self.target(context)
        except Problem as problem:
            return self.fail(problem)

        def gone(_):
            current.jobs.pop(job.id, None)
            current.order = [name for name in current.order if name != job.id]

        task = current.run(deleting(job), done=gone)
        if bpy.app.background:
            current.wait(task)
        return {"FINISHED"}


def deleting(job):
    """Flow: an active job is cancelled first."""
    if job.active:
        yield from jobs.act(job.id, "cancel")
    yield from jobs.delete(job.id)


class DREAMCRAFT_OT_import_result(JobOperator, bpy.types.Operator):
    """Put the job's object into the scene, at the 3D cursor"""

    bl_idname = "dreamcraft.import_result"
    bl_label = "Import"
    bl_options = {"REGISTER", "UNDO"}

    pending: BoolProperty(options={"SKIP_SAVE", "HIDDEN"})
    stage: StringProperty(
        name="Stage", description="Import a stage's shape instead of the result", options={"SKIP_SAVE"}
    )

    def execute(self, context):
        current = session.get()
        try:
            job = self.target(context)
            name = f"stage-{self.stage}.glb" if self.stage else "result.glb"
            if name not in job.artifacts:
                raise Problem("no_result", "This job has no result yet.", "Wait until it is finished, or retry it.")
            path = current.folder_of(job.id) / name
            if not path.is_file():
                if not bpy.app.background:
                    return self.later(current, job, name)
                current.wait(current.pump.run(current.arrivals.fetch_result(job, name)), seconds=120)
            waiting = self.waiting(context, job)
            for scene, pending in waiting:
                place(current, job, path, scene, pending)
            if not waiting:
                place(current, job, path, context.scene, None)
        except Problem as problem:
            return self.fail(problem)
        return {"FINISHED"}

    def later(self, current, job, name):
        """Fetches the file first; the import follows by itself."""
        if not self.stage:
            wait_again(bpy.context.scene, job.id)
            current.arrivals.expect(job)
        else:
            current.arrivals.again(job, name)
        return {"FINISHED"}

    def waiting(self, context, job):
        """Who waits for it: (scene, pending) pairs; none if the user asked by hand."""
        if not self.pending:
            return []
        return [(s, p) for s in bpy.data.scenes for p in s.dreamcraft.pending if p.job == job.id and not p.imported]


def place(current, job, path, scene, pending):
    """The object itself: where the scene wanted it, or at the cursor."""
    form = scene.dreamcraft
    folder = current.folder_of(job.id)
    report = importer.read_report(folder / "report.json")
    prompt = pending.prompt if pending is not None else ""
    target = importer.Placement(
        name=prompt or session.title_of(job.id),
        location=tuple(pending.location if pending is not None else scene.cursor.location),
        height=pending.height if pending is not None else form.height,
        properties=importer.remembered(job, report, prompt),
    )
    live = pending.live_object if pending is not None else ""
    item = importer.import_model(path, scene, target, replacing=live)
    item.name = item.data.name = target.name
    if pending is not None:
        pending.imported, pending.live_object = True, ""
    importer.select(item)
    if pending.mark_asset if pending is not None else form.mark_asset:
        importer.mark_asset(item, folder / "preview.webp", prompt or job.name)
    return item


class DREAMCRAFT_OT_reuse_settings(JobOperator, bpy.types.Operator):
    """Set the panel to what made this job"""

    bl_idname = "dreamcraft.reuse_settings"
    bl_label = "Reuse Settings"
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context):
        try:
            job = self.target(context)
        except Problem as problem:
            return self.fail(problem)
        form, request = context.scene.dreamcraft, job.request or {}
        values = dict(request.get("settings") or {})
        names = {str(item["name"]) for item in session.presets()}
        if request.get("preset") in names:
            form.preset = request["preset"]
        form.seed = int(values.pop("seed", 0)) & 0x7FFFFFFF
        form.elevation = float(values.pop("reference.elevation", 0.0))
        form.target_faces = int(values.pop("export.target_faces", 0))
        form.shape_turn = bool(values.pop("shape.turn", True))
        size = str(values.pop("export.texture_size", "PRESET"))
        form.texture_size = size if size in ("512", "1024", "2048", "4096") else "PRESET"
        advanced.change(context.scene, values)
        return {"FINISHED"}


class DREAMCRAFT_OT_reveal_files(JobOperator, bpy.types.Operator):
    """Open the folder with the downloaded files of this job"""

    bl_idname = "dreamcraft.reveal_files"
    bl_label = "Show Files"

    def execute(self, context):
        try:
            folder = session.get().folder_of(self.target(context).id)
        except Problem as problem:
            return self.fail(problem)
        if not folder.is_dir():
            folder = preferences.results_folder()
        bpy.ops.wm.path_open(filepath=str(folder))
        return {"FINISHED"}


CLASSES = (
    DREAMCRAFT_OT_job_action,
    DREAMCRAFT_OT_move_job,
    DREAMCRAFT_OT_delete_job,
    DREAMCRAFT_OT_import_result,
    DREAMCRAFT_OT_reuse_settings,
    DREAMCRAFT_OT_reveal_files,
)
