"""The extension's preferences: all optional. Defaults are for somebody who never opens them."""

from pathlib import Path
from types import SimpleNamespace

import bpy
from bpy.props import BoolProperty, IntProperty, StringProperty

from .client import Endpoint
from .launcher import default_folder
from .problems import Problem


def path_changed(self, context):
    from . import session

    session.restart()


class DREAMCRAFT_AP_preferences(bpy.types.AddonPreferences):
    """Where things are, and what happens by itself."""

    bl_idname = __package__

    backend_path: StringProperty(
        name="Existing Backend",
        description="A backend that is already installed: its Python, its environment's folder, or dreamcraft3d itself",
        subtype="FILE_PATH",
        update=path_changed,
    )
    backend_folder: StringProperty(
        name="Installation Folder",
        description="Where Install Backend puts it; empty is the usual place",
        subtype="DIR_PATH",
        update=path_changed,
    )
    python_path: StringProperty(
        name="Python",
        description="Python 3.11 to 3.14 that the installation is made with; empty looks for one",
        subtype="FILE_PATH",
    )
    files_folder: StringProperty(
        name="Results Folder",
        description="Where downloaded results are kept; empty is the extension's own folder",
        subtype="DIR_PATH",
    )
    address: StringProperty(
        name="Address",
        description="A backend on another machine, as the near end of an SSH tunnel: 127.0.0.1:PORT",
        update=path_changed,
    )
    token: StringProperty(
        name="Token", description="What that backend's state file says", subtype="PASSWORD", update=path_changed
    )
    start_automatically: BoolProperty(
        name="Start the Backend When Needed", description="Otherwise only the Start button starts it", default=True
    )
    stop_with_blender: BoolProperty(
        name="Stop the Backend With Blender",
        description="Otherwise it finishes its jobs, and ends when it has been idle for a while",
    )
    idle_minutes: IntProperty(
        name="Idle Minutes", description="An idle backend ends after so many minutes", default=30, min=1, max=1440
    )

    def draw(self, context):
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        column = layout.column()
        column.prop(self, "start_automatically")
        column.prop(self, "stop_with_blender")
        column.prop(self, "idle_minutes")
        column = layout.column(heading="Installation")
        for name in ("backend_path", "backend_folder", "python_path", "files_folder"):
            column.prop(self, name)
        column = layout.column(heading="Another Machine")
        column.prop(self, "address")
        column.prop(self, "token")


DEFAULTS = SimpleNamespace(
    backend_path="",
    backend_folder="",
    python_path="",
    files_folder="",
    address="",
    token="",
    start_automatically=True,
    stop_with_blender=False,
    idle_minutes=30,
)


def current():
    """The preferences; their defaults where the package runs without being enabled (in scripts and tests)."""
    addon = bpy.context.preferences.addons.get(__package__)
    return addon.preferences if addon is not None and addon.preferences is not None else DEFAULTS


def installation_folder() -> Path:
    """Where the backend is, or will be, installed."""
    chosen = current().backend_folder
    return Path(bpy.path.abspath(chosen)) / "dreamcraft-backend" if chosen else default_folder()


def results_folder() -> Path:
    """Where this Blender may write; made if it is missing. Never the extension's own code."""
    chosen = current().files_folder
    try:
        if chosen:
            folder = Path(bpy.path.abspath(chosen))
        elif __package__.startswith("bl_ext."):
            folder = Path(bpy.utils.extension_path_user(__package__, path="", create=True))
        else:
            folder = Path(bpy.app.tempdir) / "dreamcraft"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        text = f"Blender's folder for extension files cannot be written: {error}."
        raise Problem("read_only", text, "Choose a Results Folder in the preferences.") from error
    return folder


def fixed_endpoint() -> Endpoint | None:
    """The service that the user named, if one."""
    words = current().address.strip().removeprefix("http://").rstrip("/")
    if not words:
        return None
    host, colon, port = words.rpartition(":")
    if not colon or not port.isdigit():
        raise Problem("bad_address", f"'{words}' is not an address.", "Write it as 127.0.0.1:PORT in the preferences.")
    if host not in ("localhost", "127.0.0.1", "::1", "[::1]") and not bpy.app.online_access:
        text = "Blender may not go online, and this backend is on another machine."
        raise Problem("offline", text, "Allow online access in Preferences > System, or use an SSH tunnel.")
    return Endpoint(host.strip("[]"), int(port), current().token)


CLASSES = (DREAMCRAFT_AP_preferences,)
