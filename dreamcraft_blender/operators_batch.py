"""The buttons about a batch: choose, check, run, cancel, retry, look at, import, export. The work is the backend's."""

import contextlib
from pathlib import Path

import bpy
from bpy.props import EnumProperty, StringProperty
from bpy_extras.io_utils import ImportHelper

from . import importer, session
from .batch_watch import EXPORT
from .drawing import tip_of
from .pictures import Reporting
from .problems import Problem

ENDINGS = "*.jsonl;*.csv;*.tsv"


class DREAMCRAFT_OT_choose_batch(Reporting, ImportHelper, bpy.types.Operator):
    """Choose what to make many objects from"""

    bl_idname = "dreamcraft.choose_batch"
    bl_label = "Choose Batch"
    bl_options = {"REGISTER"}

    filter_glob: StringProperty(default=ENDINGS, options={"HIDDEN"})
    directory: StringProperty(subtype="DIR_PATH", options={"HIDDEN", "SKIP_SAVE"})
    kind: EnumProperty(
        name="Kind",
        items=[
            ("FOLDER", "Folder", "A folder of pictures: each is an item"),
            ("MANIFEST", "Manifest", "A JSONL file or a CSV table with an item per line"),
        ],
        options={"SKIP_SAVE", "HIDDEN"},
    )

    @classmethod
    def description(cls, context, properties):
        return tip_of(properties, "kind")

    def invoke(self, context, event):
        self.filter_glob = ENDINGS if self.kind == "MANIFEST" else "*.png;*.jpg;*.jpeg;*.webp;*.tif;*.tiff;*.bmp"
        return ImportHelper.invoke(self, context, event)

    def execute(self, context):
        folder = self.directory or str(Path(self.filepath).parent)
        path = Path(self.filepath if self.kind == "MANIFEST" else folder)
        if not (path.is_file() if self.kind == "MANIFEST" else path.is_dir()):
            return self.fail(Problem("no_file", f"There is no {path}.", "Choose another one."))
        context.scene.dreamcraft.batch = str(path)
        return {"FINISHED"}


class BatchOperator(Reporting):
    """Base of what is done to the batch that is shown."""

    @classmethod
    def poll(cls, context):
        current = session.peek()
        if current is None or current.batch.source is None:
            cls.poll_message_set("Choose a manifest or a folder of pictures first")
            return False
        return True

    def begin(self, action, **options):
        """Starts a command; without a window it is waited for."""
        current = session.get()
        try:
            task = current.batch.start(action, **options)
            if bpy.app.background:
                current.wait(task)
                if current.batch.problem is not None:
                    raise current.batch.problem
        except Problem as problem:
            return self.fail(problem)
        current.touch()
        return {"FINISHED"}


class DREAMCRAFT_OT_batch_action(BatchOperator, bpy.types.Operator):
    """Tell the backend what to do with the batch"""

    bl_idname = "dreamcraft.batch_action"
    bl_label = "Batch"
    bl_options = {"REGISTER"}

    action: EnumProperty(
        name="Action",
        items=[
            ("validate", "Validate", "Check the manifest, every setting and every picture; nothing is made"),
            ("run", "Run", "Make everything that is not done yet; goes on when Blender is closed"),
            ("cancel", "Cancel", "Stop at the next step of each item; running it again goes on from there"),
            ("retry", "Retry Failed", "Make the items again that failed, and no others"),
        ],
        options={"SKIP_SAVE"},
    )

    @classmethod
    def description(cls, context, properties):
        return tip_of(properties, "action")

    def execute(self, context):
        jobs = context.scene.dreamcraft.batch_jobs
        options = {"jobs": jobs} if jobs and self.action in ("run", "retry") else {}
        return self.begin(self.action, **options)


class DREAMCRAFT_OT_export_library(BatchOperator, bpy.types.Operator):
    """Put the results into an asset library beside them, by a Blender without a window; again adds only what is new"""

    bl_idname = "dreamcraft.export_library"
    bl_label = "Export Library"
    bl_options = {"REGISTER"}

    def execute(self, context):
        return self.begin(EXPORT)


class DREAMCRAFT_OT_open_sheet(BatchOperator, bpy.types.Operator):
    """Open the page with every picture and its result, failures first, in the web browser"""

    bl_idname = "dreamcraft.open_sheet"
    bl_label = "Contact Sheet"

    def execute(self, context):
        out = session.get().batch.view.out
        page = out / "index.html" if out is not None else None
        if page is None or not page.is_file():
            return self.fail(Problem("no_result", "There is no contact sheet yet.", "It is written when a run ends."))
        bpy.ops.wm.url_open(url=page.as_uri())
        return {"FINISHED"}


class ItemOperator(BatchOperator):
    """Base of what is done to one item; without `item` it is the chosen one of the list."""

    item: StringProperty(name="Item", options={"SKIP_SAVE", "HIDDEN"})

    def target(self, context):
        """The item; raises `Problem` if there is none."""
        found = session.get().batch.view.items.get(self.item) or chosen(context)
        if found is None:
            raise Problem("no_item", "There is no such item.", "Choose one from the list.")
        return found


def chosen(context):
    """The item that is active in the list."""
    state, current = context.window_manager.dreamcraft, session.peek()
    if current is None or state.batch_active >= len(state.batch):
        return None
    return current.batch.view.items.get(state.batch[state.batch_active].item)


class DREAMCRAFT_OT_import_item(ItemOperator, bpy.types.Operator):
    """Put the item's object into the scene, at the 3D cursor"""

    bl_idname = "dreamcraft.import_item"
    bl_label = "Import Item"
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context):
        try:
            line = self.target(context)
            mesh = line.record.get("mesh") if line.state in ("done", "stale") else None
            if mesh is None:
                raise Problem("no_result", "This item has no result yet.", "Run the batch, or retry it.")
            place(session.get().batch.view.out / mesh, line, context.scene)
        except Problem as problem:
            return self.fail(problem)
        return {"FINISHED"}


def place(path, line, scene):
    """The object itself, at the cursor and as high as the form says; what was refined comes as its file has it."""
    if path.suffix == ".blend":
        found = importer.append_object(path, line.record["object"])
        scene.collection.objects.link(found)
        importer.select(found)
        return
    if line.record.get("kind") == "refine":
        found = importer.import_scene(path)
        for item in found:
            if item.parent is None:
                item.location += scene.cursor.location
        return
    memory = {importer.MARK: line.id, "dreamcraft_seed": str(line.record.get("seed", ""))}
    target = importer.Placement(line.name, tuple(scene.cursor.location), scene.dreamcraft.height, memory)
    importer.select(importer.import_model(path, scene, target))


class DREAMCRAFT_OT_show_item(ItemOperator, bpy.types.Operator):
    """Open the folder with the item's files and its log"""

    bl_idname = "dreamcraft.show_item"
    bl_label = "Show Item Files"

    def execute(self, context):
        try:
            line = self.target(context)
        except Problem as problem:
            return self.fail(problem)
        folder = session.get().batch.view.out / "items" / line.id
        if not folder.is_dir():
            return self.fail(Problem("no_result", "This item has no files yet.", "Run the batch."))
        with contextlib.suppress(RuntimeError):
            bpy.ops.wm.path_open(filepath=str(folder))
        return {"FINISHED"}


CLASSES = (
    DREAMCRAFT_OT_choose_batch,
    DREAMCRAFT_OT_batch_action,
    DREAMCRAFT_OT_export_library,
    DREAMCRAFT_OT_open_sheet,
    DREAMCRAFT_OT_import_item,
    DREAMCRAFT_OT_show_item,
)
