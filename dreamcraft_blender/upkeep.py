"""The buttons about the backend itself: install, start, stop, its log, and what a bug report needs."""

import platform
from pathlib import Path

import bpy
from bpy.props import BoolProperty

from . import preferences, session
from .client import Call
from .installer import Installer, packed_wheel, removal
from .launcher import PROTOCOL, tail
from .pictures import Reporting
from .problems import Problem


class DREAMCRAFT_OT_install_backend(Reporting, bpy.types.Operator):
    """Install the backend beside Blender, in an environment of its own; Blender's Python stays untouched"""

    bl_idname = "dreamcraft.install_backend"
    bl_label = "Install Backend"
    bl_options = {"REGISTER"}

    fresh: BoolProperty(
        name="From Scratch", description="Repair: forget what is already installed", options={"SKIP_SAVE"}
    )

    @classmethod
    def poll(cls, context):
        current = session.peek()
        if current is not None and current.installer is not None and not current.installer.done:
            cls.poll_message_set("It is being installed")
            return False
        return True

    def execute(self, context):
        current = session.get()
        try:
            installer = make_installer(fresh=self.fresh)
        except Problem as problem:
            return self.fail(problem)
        current.problem = None
        current.installer = installer
        current.touch()
        return {"FINISHED"}


def make_installer(*, fresh=False) -> Installer:
    """An installation that is ready to begin. Raises `Problem` where it must not or cannot."""
    if not bpy.app.online_access:
        how = "allow it in Preferences > System > Network"
        if bpy.app.online_access_override:  # set by the command line, so the preferences cannot change it
            how = "start Blender without --offline-mode"
        text = "Blender may not go online, and the installation downloads packages (about 1 GB)."
        raise Problem("offline", text, f"To install, {how}.")
    wheel = packed_wheel(Path(__file__).parent)
    if wheel is None:
        text = "This copy of the extension has no backend packed in it."
        raise Problem(
            "no_wheel", text, "Install the extension's zip, or choose an existing backend in the preferences."
        )
    folder = preferences.installation_folder()
    if fresh:
        for name in ("installed.json", "installing.json"):
            (folder / name).unlink(missing_ok=True)
    return Installer(folder, wheel, chosen=bpy.path.abspath(preferences.current().python_path))


class DREAMCRAFT_OT_cancel_install(bpy.types.Operator):
    """Stop the installation; what is there is kept for the next time"""

    bl_idname = "dreamcraft.cancel_install"
    bl_label = "Stop Installing"

    def execute(self, context):
        installer = session.get().installer
        if installer is not None and not installer.done:
            installer.cancel()
        return {"FINISHED"}


class DREAMCRAFT_OT_remove_backend(Reporting, bpy.types.Operator):
    """Delete the backend that was installed here; results and jobs stay"""

    bl_idname = "dreamcraft.remove_backend"
    bl_label = "Remove Backend"

    @classmethod
    def poll(cls, context):
        if not (preferences.installation_folder() / "pyvenv.cfg").is_file():
            cls.poll_message_set("No backend was installed from here")
            return False
        return True

    def invoke(self, context, event):
        return context.window_manager.invoke_confirm(self, event)

    def execute(self, context):
        current = session.get()
        try:
            current.link.launcher.terminate()
            removal(preferences.installation_folder())
        except Problem as problem:
            return self.fail(problem)
        current.installer = None
        current.relaunch()
        return {"FINISHED"}


class DREAMCRAFT_OT_start_backend(Reporting, bpy.types.Operator):
    """Start the backend, or connect to the one that is running"""

    bl_idname = "dreamcraft.start_backend"
    bl_label = "Start Backend"

    @classmethod
    def poll(cls, context):
        current = session.peek()
        if current is not None and current.link.ready:
            cls.poll_message_set("It is running")
            return False
        return True

    def execute(self, context):
        current = session.get()
        current.relaunch()
        current.link.launcher.breaker.reset()
        task = current.run(current.link.connected())
        if bpy.app.background:
            try:
                current.wait(task)
            except Problem as problem:
                return self.fail(problem)
        return {"FINISHED"}


class DREAMCRAFT_OT_stop_backend(bpy.types.Operator):
    """Stop the backend; a running job is kept and goes on at the next start"""

    bl_idname = "dreamcraft.stop_backend"
    bl_label = "Stop Backend"

    @classmethod
    def poll(cls, context):
        current = session.peek()
        if current is None or not current.link.ready:
            cls.poll_message_set("It is not running")
            return False
        return True

    def execute(self, context):
        current = session.get()

        def stopping():
            yield Call("POST", "/v1/shutdown")

        current.link.rest()
        current.run(stopping())
        return {"FINISHED"}


class DREAMCRAFT_OT_restart_backend(Reporting, bpy.types.Operator):
    """End the backend, even if it does not answer, and start it again; its jobs go on"""

    bl_idname = "dreamcraft.restart_backend"
    bl_label = "Restart Backend"

    def execute(self, context):
        current = session.get()
        try:
            current.link.launcher.kill()
        except Problem as problem:
            return self.fail(problem)
        current.link.launcher.breaker.reset()
        current.run(current.link.reconnected())
        return {"FINISHED"}


class DREAMCRAFT_OT_open_log(bpy.types.Operator):
    """Open the backend's log in Blender's text editor"""

    bl_idname = "dreamcraft.open_log"
    bl_label = "Show Log"

    def execute(self, context):
        text = bpy.data.texts.get("DreamCraft Log") or bpy.data.texts.new("DreamCraft Log")
        text.clear()
        text.write(log_of(session.get()))
        bpy.ops.wm.window_new()
        area = context.window_manager.windows[-1].screen.areas[0]
        area.type = "TEXT_EDITOR"
        area.spaces.active.text = text
        return {"FINISHED"}


def log_of(current) -> str:
    """The ends of the logs that say why: the service's, its start's, the installation's, and the last problem's own."""
    launcher = current.link.launcher
    parts = [("Start", launcher.log), ("Installation", preferences.installation_folder().parent / "install.log")]
    if current.link.server.get("log"):
        parts.insert(0, ("Service", Path(str(current.link.server["log"]))))
    found = [f"--- {name}: {path}\n{tail(path, 200, 65536)}\n" for name, path in parts]
    problem = current.problem or current.link.problem
    if problem is not None and problem.log:
        found.insert(0, f"--- {problem.message}\n{problem.log}\n")
    return "\n".join(found)


class DREAMCRAFT_OT_copy_diagnostics(bpy.types.Operator):
    """Copy versions, states and the end of the log, for a bug report; no pictures, no token"""

    bl_idname = "dreamcraft.copy_diagnostics"
    bl_label = "Copy Diagnostics"

    def execute(self, context):
        context.window_manager.clipboard = diagnostics(session.get())
        self.report({"INFO"}, "Copied")
        return {"FINISHED"}


def diagnostics(current) -> str:
    """What a bug report needs."""
    server, launcher = current.link.server, current.link.launcher
    problem = current.problem or current.link.problem
    installed = launcher.installation.where if launcher.installation else "none"
    lines = [
        f"Blender {bpy.app.version_string}, Python {platform.python_version()}, {platform.platform()}",
        f"Extension protocol {PROTOCOL}; backend {server.get('version', '?')}, protocol {server.get('protocol', '?')}",
        f"Link: {current.link.state.value}; installation: {installed}",
        f"Device: {(server.get('device') or {}).get('name', '?')}; online access: {bpy.app.online_access}",
        f"Problem: {problem.code + ': ' + str(problem) if problem else 'none'}",
        f"Jobs: {', '.join(f'{job.id[:6]} {job.state}' for job in list(current.jobs.values())[:10]) or 'none'}",
    ]
    secret = launcher.state.token if launcher.state else preferences.current().token
    text = "\n".join(lines) + "\n\n" + log_of(current)
    return text.replace(secret, "(token)") if secret else text


class DREAMCRAFT_OT_open_preferences(bpy.types.Operator):
    """Open this extension's preferences"""

    bl_idname = "dreamcraft.open_preferences"
    bl_label = "Open Preferences"

    def execute(self, context):
        if __package__ in context.preferences.addons:
            bpy.ops.preferences.addon_show(module=__package__)
        else:
            bpy.ops.screen.userpref_show()
        return {"FINISHED"}


class DREAMCRAFT_OT_dismiss(bpy.types.Operator):
    """Take note of the message and hide it"""

    bl_idname = "dreamcraft.dismiss"
    bl_label = "Dismiss"

    def execute(self, context):
        current = session.get()
        current.problem = current.batch.problem = current.batch.note = None
        current.touch()
        return {"FINISHED"}


CLASSES = (
    DREAMCRAFT_OT_install_backend,
    DREAMCRAFT_OT_cancel_install,
    DREAMCRAFT_OT_remove_backend,
    DREAMCRAFT_OT_start_backend,
    DREAMCRAFT_OT_stop_backend,
    DREAMCRAFT_OT_restart_backend,
    DREAMCRAFT_OT_open_log,
    DREAMCRAFT_OT_copy_diagnostics,
    DREAMCRAFT_OT_open_preferences,
    DREAMCRAFT_OT_dismiss,
)
