"""Finding, starting and stopping the backend: its installation, its state file, its process.

Plain Python. The backend is a program of its own that outlives Blender; it announces itself in a *state file* that only
the user can read. `attach_or_start` is a flow (see `client`): it takes the service that is already running, or starts
one and waits for it, without ever blocking.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .answers import garbled
from .client import Call, Endpoint, Flow, Pause
from .problems import Problem

__all__ = [
    "PROTOCOL",
    "Breaker",
    "Installation",
    "Launcher",
    "State",
    "alive",
    "clean_environment",
    "default_folder",
    "find_installation",
    "read_state",
    "state_files",
]

PROTOCOL = 1
"""The version of the wire that this extension speaks."""

START_SECONDS = 30.0
"""How long a service may take to answer for the first time (usually less than one; slow disks, virus scanners)."""

HOME_VARIABLE = "DREAMCRAFT3D_HOME"
MODULE = "dreamcraft3d"


# --- the state file -------------------------------------------------------------------------------


@dataclass(frozen=True)
class State:
    """What a running service says about itself."""

    pid: int
    boot_id: str
    host: str
    port: int
    protocol: int
    version: str
    token: str = field(repr=False, default="")

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.host, self.port, self.token)


def state_files(environment: Mapping[str, str] = os.environ) -> list[Path]:
    """Where the state file may lie, the likeliest first: where the backend's `platformdirs` puts it, by system."""
    if home := environment.get(HOME_VARIABLE):
        return [Path(home).expanduser() / "run" / "service.json"]
    folders: list[Path] = []
    if sys.platform == "win32":
        local = Path(environment.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        folders = [local / "Temp" / MODULE, local / "Temp" / MODULE / MODULE, local / MODULE, local / MODULE / MODULE]
    elif sys.platform == "darwin":
        library = Path.home() / "Library"
        folders = [library / "Caches" / "TemporaryItems" / MODULE, library / "Application Support" / MODULE]
    else:
        runtime = environment.get("XDG_RUNTIME_DIR")
        state = environment.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        folders = [Path(runtime) / MODULE] if runtime else []
        user = os.getuid()
        folders += [Path(f"/run/user/{user}") / MODULE, Path(tempfile.gettempdir()) / f"runtime-{user}" / MODULE]
        folders.append(Path(state) / MODULE)
    return [folder / "service.json" for folder in folders]


def read_state(path: Path) -> State | None:
    """The state in a file; None if there is none, it is half a state, or it belongs to somebody else."""
    try:
        if hasattr(os, "getuid") and path.stat().st_uid != os.getuid():
            return None
        values = json.loads(path.read_text(encoding="utf-8"))
        return State(
            pid=int(values["pid"]),
            boot_id=str(values["boot_id"]),
            host=str(values["host"]),
            port=int(values["port"]),
            protocol=int(values["protocol"]),
            version=str(values.get("version", "")),
            token=str(values["token"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def alive(pid: int) -> bool:
    """Whether a process exists. One that has ended but was not yet waited for counts as dead."""
    if sys.platform == "win32":
        import ctypes

        kernel = ctypes.windll.kernel32
        handle = kernel.OpenProcess(0x1000, False, pid)  # PROCESS_QUERY_LIMITED_INFORMATION
        if not handle:
            return False
        code = ctypes.c_ulong()
        kernel.GetExitCodeProcess(handle, ctypes.byref(code))
        kernel.CloseHandle(handle)
        return code.value == 259  # STILL_ACTIVE
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return True


# --- the installation -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Installation:
    """How to run the backend: a command that `serve` and its options are added to."""

    command: tuple[str, ...]
    where: str

    @staticmethod
    def of_python(python: Path) -> Installation:
        return Installation((str(python), "-I", "-m", MODULE), str(python))


def environment_python(folder: Path) -> Path:
    """The Python inside an environment."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def default_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Where "Install Backend" puts the environment unless another folder is chosen: outside of Blender, short."""
    if sys.platform == "win32":
        return Path(environment.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "DreamCraft" / "backend"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "DreamCraft" / "backend"
    data = environment.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "dreamcraft" / "backend"


def find_installation(chosen: str = "", folder: Path | None = None) -> Installation | None:
    """The backend that was chosen (a Python, an environment, the program), else the installed one, else on the PATH."""
    if chosen:
        path = Path(chosen).expanduser()
        if path.is_dir():
            path = environment_python(path)
        if not path.is_file():
            return None
        is_program = path.stem.lower() == MODULE
        return Installation((str(path),), str(path)) if is_program else Installation.of_python(path)
    environment = folder or default_folder()
    if (environment / "installed.json").is_file() and environment_python(environment).is_file():
        return Installation.of_python(environment_python(environment))
    program = shutil.which(MODULE)
    return Installation((program,), program) if program else None


def clean_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Blender's environment without what would make another Python load Blender's or the user's own packages."""
    dropped = ("PYTHON", "BLENDER_", "VIRTUAL_ENV", "__PYVENV", "CONDA_PREFIX", "LD_PRELOAD")
    kept = {name: value for name, value in environment.items() if not name.startswith(dropped)}
    return {**kept, "PYTHONNOUSERSITE": "1", "PYTHONUTF8": "1"}


# --- starting -------------------------------------------------------------------------------------


class Breaker:
    """Stops starting what keeps dying: at most `limit` starts in `seconds`."""

    def __init__(self, limit: int = 3, seconds: float = 60.0) -> None:
        self.limit, self.seconds = limit, seconds
        self._starts: deque[float] = deque(maxlen=limit)

    def allow(self, now: float) -> bool:
        """Whether one more start is allowed; it counts."""
        if len(self._starts) == self.limit and now - self._starts[0] < self.seconds:
            return False
        self._starts.append(now)
        return True

    def reset(self) -> None:
        """The user wants to try again."""
        self._starts.clear()


class Launcher:
    """One Blender's way to the backend. `log`: where the output of a service that it starts goes."""

    def __init__(
        self,
        installation: Installation | None,
        *,
        log: Path,
        options: Sequence[str] = (),
        environment: Mapping[str, str] = os.environ,
        fixed: Endpoint | None = None,
    ) -> None:
        self.installation = installation
        self.log = log
        self.options = tuple(options)
        self.environment = environment
        self.fixed = fixed
        self.breaker = Breaker()
        self.state: State | None = None
        self.child: subprocess.Popen[bytes] | None = None

    def attach(self) -> Flow[dict[str, Any]]:
        """Flow: the running service's description. Raises `Problem` "stopped" (or what else is the matter)."""
        if self.fixed is not None:
            reply = yield Call("GET", "/v1/server", endpoint=self.fixed)
            return checked(reply.json())
        failure: Problem | None = None
        for path in state_files(self.environment):
            state = read_state(path)
            if state is None or not alive(state.pid):
                continue
            try:
                reply = yield Call("GET", "/v1/server", endpoint=state.endpoint)
                described = checked(reply.json())
            except Problem as problem:
                failure = failure or problem
                if problem.code == "wrong_version":
                    self.state = state  # so that it can be stopped
                continue
            self.state = state
            return described
        raise failure or Problem("stopped", "The backend is not running.", "It starts with your first job.")

    def attach_or_start(self) -> Flow[dict[str, Any]]:
        """Flow: the description of the running service, or of one that was started now."""
        try:
            return (yield from self.attach())
        except Problem as problem:
            if problem.code != "stopped" or self.fixed is not None:
                raise
        self.start()
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            yield Pause(0.1)
            try:
                return (yield from self.attach())
            except Problem as problem:
                if problem.code not in ("stopped", "silent"):
                    raise
            ended = self.child.poll() if self.child is not None else None
            if ended is not None and ended != 0:  # 0: it found another service and left that one to us
                text = f"The backend ended while starting (code {ended})."
                raise Problem("did_not_start", text, "Its log says why.", log=tail(self.log))
        text = f"The backend did not answer within {START_SECONDS:.0f} s."
        raise Problem("did_not_start", text, "Its log says why.", log=tail(self.log))

    def start(self) -> None:
        """Starts a service in a session of its own; it goes on when Blender ends."""
        if self.installation is None:
            text = "The backend is not installed."
            raise Problem("not_installed", text, "Install it, or choose an installed one in the preferences.")
        if not self.breaker.allow(time.monotonic()):
            text = "The backend keeps stopping right after its start."
            raise Problem("keeps_stopping", text, "Its log says why. Then try again.", log=tail(self.log))
        command = [*self.installation.command, "serve", *self.options]
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("ab") as log:
                self.child = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=clean_environment(self.environment),
                    cwd=self.log.parent,
                    **detached(),
                )
        except OSError as error:
            text = f"The backend cannot be started: {error.strerror or error}."
            raise Problem("broken_installation", text, "Repair the installation.") from error

    def kill(self) -> None:
        """Ends a service that no longer listens to words. Its worker notices and its jobs go on at the next start."""
        state = self.state
        if state is not None and self.fixed is None and alive(state.pid):
            try:
                os.kill(state.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
            except OSError as error:
                text = f"The backend cannot be ended: {error.strerror}."
                raise Problem("silent", text, "End the process dreamcraft3d by hand.") from error
        self.reap()

    def terminate(self) -> None:
        """Asks a service of this machine to end; it keeps what its running job has done."""
        if self.state is not None and self.fixed is None and alive(self.state.pid):
            with contextlib.suppress(OSError):
                os.kill(self.state.pid, signal.SIGTERM)

    def reap(self) -> None:
        """Takes note of a child that has ended, so that it does not stay as a zombie."""
        if self.child is not None:
            self.child.poll()


def detached() -> dict[str, Any]:
    """Options of Popen that cut a child loose from Blender's console and signals."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def checked(server: Any) -> dict[str, Any]:
    """The service's description, if it is one that we can talk to."""
    if not isinstance(server, dict) or not isinstance(server.get("protocol"), int):
        raise garbled("it does not describe itself")
    newest = int(server["protocol"])
    oldest = int(server.get("protocol_min") or newest)
    if not oldest <= PROTOCOL <= newest:
        which = "older" if newest < PROTOCOL else "newer"
        text = f"The backend is {which} than this extension (it speaks version {newest}, the extension {PROTOCOL})."
        cure = "Update the backend." if newest < PROTOCOL else "Update the extension."
        raise Problem("wrong_version", text, cure)
    return server


def tail(log: Path, lines: int = 12, size: int = 8192) -> str:
    """The last lines of a log; empty if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - size))
            return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-lines:])
    except OSError:
        return ""


def new_key() -> str:
    """A name for a submission, so that sending it twice makes one job."""
    return secrets.token_hex(16)
