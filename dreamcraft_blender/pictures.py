"""Pictures and masks: from Blender's images to the bytes that are sent, and the buttons that bring pictures in."""

import tempfile
from pathlib import Path

import bpy
import numpy as np
from bpy.props import StringProperty
from bpy_extras.io_utils import ImportHelper

from . import session
from .pixels import encode_png, grey_of, levels_of
from .problems import Problem
from .submission import SIGNATURES, Picture, Submission, check_picture

EXTENSIONS = ".png;.jpg;.jpeg;.webp;.tif;.tiff;.bmp"


def picture_of(image, scene=None) -> Picture:
    """The bytes of an image: its file's own where the backend reads that kind, else a PNG of what Blender shows."""
    if image is None:
        return check_picture(None)
    name = image.name
    if image.type in ("RENDER_RESULT", "COMPOSITING"):
        return Picture(rendered(image, scene or bpy.context.scene), name)
    width, height = image.size
    if not width or not height:
        path = bpy.path.abspath(image.filepath)
        text = f"The picture {name} has no pixels: its file {path or '(none)'} is missing."
        raise Problem("no_image", text, "Open it again.")
    data = b"" if image.is_dirty else file_bytes(image)
    if not data.startswith(SIGNATURES):
        data = drawn(image, scene or bpy.context.scene)
    return Picture(data, name, width, height)


def file_bytes(image) -> bytes:
    """The packed or the linked file of an image; empty if there is none."""
    if image.packed_file is not None:
        return bytes(image.packed_file.data)
    if image.source != "FILE" or not image.filepath:
        return b""
    try:
        return Path(bpy.path.abspath(image.filepath, library=image.library)).read_bytes()
    except OSError:
        return b""


def drawn(image, scene) -> bytes:
    """PNG of the pixels; an image of light (floats) goes through the scene's view transform first."""
    if image.is_float:
        return rendered(image, scene)
    return encode_png(levels_of(pixels_of(image)))


def pixels_of(image):
    """Height x width x 4 numbers, the top row first."""
    width, height = image.size
    values = np.empty(width * height * image.channels, np.float32)
    image.pixels.foreach_get(values)
    values = values.reshape(height, width, image.channels)[::-1]
    if image.channels == 4:
        return values
    grey = np.repeat(values[..., :1], 3, axis=2) if image.channels < 3 else values
    return np.concatenate([grey, np.ones((height, width, 1), np.float32)], axis=2)


def rendered(image, scene) -> bytes:
    """PNG as "Save As Render" would write it. The scene's own output settings are put back."""
    settings = scene.render.image_settings
    kept = {
        name: getattr(settings, name)
        for name in ("media_type", "file_format", "color_mode", "color_depth")
        if hasattr(settings, name)
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        try:
            if "media_type" in kept:
                settings.media_type = "IMAGE"
            settings.file_format, settings.color_mode, settings.color_depth = "PNG", "RGBA", "8"
            image.save_render(str(path), scene=scene)
            return path.read_bytes()
        except (RuntimeError, OSError) as error:
            raise Problem("no_image", "There is no render yet.", "Render the scene first (F12).") from error
        finally:
            for name, value in kept.items():
                setattr(settings, name, value)


def mask_of(settings, picture) -> bytes | None:
    """The PNG of the mask that the user chose; None leaves it to the backend."""
    if settings.mask_source == "ALPHA":
        alpha = pixels_of(settings.picture)[..., 3]
        if alpha.min() > 0.99:
            text = f"{settings.picture.name} has no transparency."
            raise Problem("bad_mask", text, "Choose the automatic mask, or paint one.")
        return encode_png(levels_of(alpha))
    if settings.mask_source == "IMAGE":
        image = settings.mask_image
        if image is None:
            raise Problem("bad_mask", "There is no mask image yet.", "Choose one, or press Paint Mask.")
        if tuple(image.size) != tuple(settings.picture.size):
            mine, other = ("{} x {}".format(*item.size) for item in (image, settings.picture))
            raise Problem(
                "bad_mask",
                f"The mask is {mine}, the picture {other}.",
                "Both must be of the same size: press Paint Mask.",
            )
        levels = grey_of(pixels_of(image))
        if levels.max() < 128:
            raise Problem("bad_mask", "The mask is black: there is no object in it.", "Paint the object white.")
        return encode_png(levels)
    return None


def reference_request(settings):
    """(submission, key) of the question what is taken for the object. Raises `Problem` if it cannot be asked."""
    picture = check_picture(picture_of(settings.picture, settings.id_data))
    mask = mask_of(settings, picture)
    files = {"picture": picture.data} | ({"mask": mask} if mask else {})
    request = {"preset": "preview", "settings": {}}
    return Submission(request, files), (hash(picture.data), hash(mask), settings.mask_source)


class Reporting:
    """Operators that say what is wrong in Blender's own way: a report, and the panel keeps it."""

    def fail(self, problem):
        session.get().problem = problem
        session.get().touch()
        self.report({"ERROR"}, str(problem))
        return {"CANCELLED"}


def opened(path):
    """The image in a file; None if it is none (Blender makes an empty image of anything)."""
    if not path.is_file():
        return None
    try:
        image = bpy.data.images.load(str(path), check_existing=True)
    except RuntimeError:
        return None
    if not image.size[0]:
        bpy.data.images.remove(image)
        return None
    return image


def take(operator, context, path):
    """The file becomes the form's picture, or the operator says why not."""
    image = opened(path)
    if image is None:
        text = f"{path.name or path} is not a picture that Blender reads."
        return operator.fail(Problem("bad_image", text, "Use a PNG, JPEG, WebP, TIFF or BMP file."))
    context.scene.dreamcraft.picture = image
    return {"FINISHED"}


class DREAMCRAFT_OT_open_picture(Reporting, bpy.types.Operator, ImportHelper):
    """Open a picture of the object"""

    bl_idname = "dreamcraft.open_picture"
    bl_label = "Open Picture"
    bl_options = {"REGISTER", "UNDO"}

    filter_glob: StringProperty(default=";".join(f"*{end}" for end in EXTENSIONS.split(";")), options={"HIDDEN"})
    filepath: StringProperty(subtype="FILE_PATH", options={"SKIP_SAVE"})

    def invoke(self, context, event):
        return self.execute(context) if self.filepath else ImportHelper.invoke(self, context, event)

    def execute(self, context):
        return take(self, context, Path(self.filepath))


class DREAMCRAFT_OT_drop_picture(Reporting, bpy.types.Operator):
    """Take the picture that was dropped into the view"""

    bl_idname = "dreamcraft.drop_picture"
    bl_label = "Picture for DreamCraft"  # an entry in the menu that Blender shows after the drop
    bl_options = {"REGISTER", "UNDO"}

    filepath: StringProperty(subtype="FILE_PATH", options={"SKIP_SAVE", "HIDDEN"})

    def execute(self, context):
        return take(self, context, Path(self.filepath))


class DREAMCRAFT_OT_paste_picture(Reporting, bpy.types.Operator):
    """Take the picture from the clipboard"""

    bl_idname = "dreamcraft.paste_picture"
    bl_label = "Paste Picture"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context):
        if not hasattr(bpy.ops.image, "clipboard_paste") or not bpy.ops.image.clipboard_paste.poll():
            cls.poll_message_set("There is no picture on the clipboard")
            return False
        return True

    def execute(self, context):
        known = set(bpy.data.images)
        try:
            bpy.ops.image.clipboard_paste()
        except RuntimeError as error:
            return self.fail(Problem("no_image", f"Pasting failed: {error}.", "Copy a picture first."))
        new = [image for image in bpy.data.images if image not in known]
        if not new:
            return self.fail(Problem("no_image", "There is no picture on the clipboard.", "Copy a picture first."))
        new[0].pack()
        context.scene.dreamcraft.picture = new[0]
        return {"FINISHED"}


class DREAMCRAFT_OT_use_render(Reporting, bpy.types.Operator):
    """Take the last render as the picture"""

    bl_idname = "dreamcraft.use_render"
    bl_label = "Use Render"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context):
        if not any(image.type == "RENDER_RESULT" for image in bpy.data.images):
            cls.poll_message_set("Nothing has been rendered yet")
            return False
        return True

    def execute(self, context):
        result = next(image for image in bpy.data.images if image.type == "RENDER_RESULT")
        try:
            data = rendered(result, context.scene)
        except Problem as problem:
            return self.fail(problem)
        image = bpy.data.images.new("Render", 8, 8)
        image.pack(data=data, data_len=len(data))
        image.source = "FILE"
        context.scene.dreamcraft.picture = image
        return {"FINISHED"}


class DREAMCRAFT_OT_edit_mask(Reporting, bpy.types.Operator):
    """Make a mask image for this picture and open it in an Image Editor, ready for painting"""

    bl_idname = "dreamcraft.edit_mask"
    bl_label = "Paint Mask"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context):
        settings = context.scene.dreamcraft
        if settings.picture is None or not settings.picture.size[0]:
            cls.poll_message_set("Choose a picture first")
            return False
        return True

    def execute(self, context):
        settings = context.scene.dreamcraft
        mask = settings.mask_image
        if mask is None or tuple(mask.size) != tuple(settings.picture.size):
            mask = new_mask(settings)
        settings.mask_image = mask
        settings.mask_source = "IMAGE"
        if not bpy.app.background:
            show_for_painting(context, mask)
        return {"FINISHED"}


def new_mask(settings):
    """A grey image of the picture's size: the automatic mask where it is known, else white where it is opaque."""
    picture, current = settings.picture, session.peek()
    width, height = picture.size
    known = current.mask.opacity(width, height) if current is not None and settings.mask_source == "AUTO" else None
    mask = bpy.data.images.new(f"{picture.name} mask", width, height)
    values = np.ones((height, width, 4), np.float32)
    values[..., :3] = known[..., None] if known is not None else pixels_of(picture)[..., 3:]
    mask.pixels.foreach_set(np.ascontiguousarray(values[::-1]).ravel())
    mask.pack()
    return mask


def show_for_painting(context, image):
    """The image in an Image Editor of this window, in paint mode; a new window if there is none."""
    area = next((area for area in context.screen.areas if area.type == "IMAGE_EDITOR"), None)
    if area is None:
        bpy.ops.screen.area_dupli("INVOKE_DEFAULT")
        area = context.window_manager.windows[-1].screen.areas[0]
        area.type = "IMAGE_EDITOR"
    space = area.spaces.active
    space.image = image
    space.ui_mode = "PAINT"


class DREAMCRAFT_FH_picture(bpy.types.FileHandler):
    """A picture dropped into the 3D view."""

    bl_idname = "DREAMCRAFT_FH_picture"
    bl_label = "DreamCraft Picture"
    bl_import_operator = "dreamcraft.drop_picture"
    bl_file_extensions = EXTENSIONS

    @classmethod
    def poll_drop(cls, context):
        area = context.area
        return area is not None and area.type == "VIEW_3D"


CLASSES = (
    DREAMCRAFT_OT_open_picture,
    DREAMCRAFT_OT_drop_picture,
    DREAMCRAFT_OT_paste_picture,
    DREAMCRAFT_OT_use_render,
    DREAMCRAFT_OT_edit_mask,
    DREAMCRAFT_FH_picture,
)
