"""One life of the service: claim the data folder or leave it to whoever has it, answer, stop cleanly.

    claim (locks) -> listen -> state file -> answer ... -> stop listening -> release jobs -> forget the state file

Two locks, on the runtime folder and on the data folder, make sure that there is one service per user and one per
database; they are the operating system's and die with the process. Who comes second finds the first through the state
file and leaves.
"""

import asyncio
import contextlib
import errno
import logging
import os
import secrets
import shutil
import signal
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Literal

import uvicorn
from filelock import FileLock, Timeout
from starlette.types import ASGIApp

from dreamcraft3d import __version__
from dreamcraft3d.errors import ConfigError, OutputError
from dreamcraft3d.executors.local import LocalExecutor
from dreamcraft3d.server.admission import checked_config
from dreamcraft3d.server.app import create_app
from dreamcraft3d.server.hosting import Service
from dreamcraft3d.server.jobs import State
from dreamcraft3d.server.logs import close_log, open_log
from dreamcraft3d.server.paths import ServicePaths, service_paths
from dreamcraft3d.server.patient_protocol import PatientProtocol
from dreamcraft3d.server.protocol import PROTOCOL
from dreamcraft3d.server.routes_jobs import CONDEMNED
from dreamcraft3d.server.security import HostRule, new_token
from dreamcraft3d.server.state_file import ServiceState, answers, forget_state, read_state, write_state
from dreamcraft3d.server.store import Store
from dreamcraft3d.server.uploads import Uploads
from dreamcraft3d.workspace import output_error

__all__ = ["Announcement", "ServeOptions", "serve"]

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
CLAIM_SECONDS = 30.0
"""How long to wait for a service that is just starting or stopping."""

SWITCH_SECONDS = 0.001
"""How long a thread of ours may keep the interpreter while another one waits: less than the usual 5 ms, because
answers wait, and what threads do here is short."""

DRAIN_SECONDS = 3
"""How long answers that are under way may take when the service stops."""


@dataclass(frozen=True)
class ServeOptions:
    """`host`: another than the loopback lets other machines in. `port`: 0 = the system chooses. `idle_minutes`: ends
    after that long without a request or a job; None = never. `started_by`: who started it, for the log.
    """

    host: str = LOOPBACK
    port: int = 0
    data: Path | None = None
    idle_minutes: float | None = None
    started_by: str = "a terminal"


@dataclass(frozen=True)
class Announcement:
    """Where the service is: a new one (`ready`), or one that was already there (`attached`)."""

    event: Literal["ready", "attached"]
    state: ServiceState
    state_file: Path


Announce = Callable[[Announcement], None]


def serve(options: ServeOptions, announce: Announce) -> None:
    """Serves until it is told to stop, or announces the service that is already there and returns.

    Raises:
        ConfigError: the running service uses another data folder. OutputError: a folder or the port cannot be used.
    """
    paths = service_paths(options.data)
    try:
        paths.prepare()
    except OSError as error:
        raise output_error(error, paths.data) from error
    deadline = time.monotonic() + CLAIM_SECONDS
    while True:
        with claimed(paths) as ours:
            if ours:
                run(options, paths, announce)
                return
        running = read_state(paths.state_file)
        if running is not None and answers(running):
            check_same_data(running, paths)
            announce(Announcement("attached", running, paths.state_file))
            return
        if time.monotonic() > deadline:
            whose = f" (process {running.pid})" if running is not None else ""
            message = f"Another service holds {paths.data} and does not answer{whose}."
            raise OutputError(message, "End that process, or choose another --data folder.")
        time.sleep(0.1)


@contextlib.contextmanager
def claimed(paths: ServicePaths) -> Iterator[bool]:
    """Holds both locks for the block; false if somebody else has one of them."""
    with contextlib.ExitStack() as stack:
        try:
            for folder in (paths.runtime, paths.data):
                stack.enter_context(FileLock(folder / "service.lock", timeout=0.0, mode=0o600))
        except Timeout:
            yield False
            return
        yield True


def check_same_data(running: ServiceState, paths: ServicePaths) -> None:
    if Path(running.data) != paths.data:
        message = f"A service with another data folder is running: {running.data}."
        raise ConfigError(message, "Stop it first, or set DREAMCRAFT3D_HOME to run a second one.")


def run(options: ServeOptions, paths: ServicePaths, announce: Announce) -> None:
    """The life of a service that has its folders for itself."""
    sys.setswitchinterval(SWITCH_SECONDS)
    listener = listening_socket(options)
    host, port = listener.getsockname()[:2]
    token, boot_id = new_token(), secrets.token_hex(8)
    state = ServiceState(os.getpid(), boot_id, host, port, token, PROTOCOL, __version__, time.time(), str(paths.data))
    with contextlib.ExitStack() as stack:
        stack.callback(close_log, open_log(paths.log, secrets=[token]))
        store = opened_store(paths)
        stack.callback(store.close)
        executor = LocalExecutor(store, paths)
        stack.callback(executor.stop)
        stack.callback(forget_state, paths.state_file, boot_id)
        stopping = threading.Event()
        service = Service(store, executor, paths, Uploads(paths.uploads), boot_id, stopping)

        def ready() -> None:
            write_state(paths.state_file, state)
            announce(Announcement("ready", state, paths.state_file))
            logger.info("version %s listens on %s, started by %s", __version__, state.address, options.started_by)
            executor.start()
            threading.Thread(target=settle_in, args=(service,), name="settling in", daemon=True).start()

        app = create_app(service, token=token, hosts=host_rule(options))
        Server(app, service, ready, idle_minutes=options.idle_minutes).run(sockets=[listener])
        logger.info("stopping")


def opened_store(paths: ServicePaths) -> Store:
    """Raises ``OutputError`` for a database that cannot be read or written."""
    try:
        return Store(paths.database)
    except (sqlite3.Error, OSError) as error:
        message = f"The database of jobs, {paths.database}, cannot be used ({error})."
        raise OutputError(message, "Move it away, or choose another --data folder.") from error


def listening_socket(options: ServeOptions) -> socket.socket:
    """Raises ``OutputError`` for a port or an address that cannot be had."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere the option means that two programs may share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((options.host, options.port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        taken = isinstance(error, OSError) and error.errno in (errno.EADDRINUSE, errno.EACCES)
        what = f"Port {options.port} is taken" if taken else f"Cannot listen on {options.host}:{options.port} ({error})"
        raise OutputError(f"{what}.", "Leave out --port: the system then chooses a free one.") from error
    return listener


def host_rule(options: ServeOptions) -> HostRule:
    """Only the loopback's names, unless other machines may connect: then numbers and this machine's own name, too."""
    if options.host in (LOOPBACK, "::1", "localhost"):
        return HostRule()
    return HostRule((socket.gethostname().lower(), socket.getfqdn().lower(), options.host.lower()), addresses=True)


class Server(uvicorn.Server):
    """uvicorn, which says when it is ready, ends when it is idle, and leaves the end of the process to us."""

    def __init__(
        self, app: ASGIApp, service: Service, ready: Callable[[], None], *, idle_minutes: float | None
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=PatientProtocol,
                loop="asyncio",
                lifespan="off",
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=DRAIN_SECONDS,
            )
        )
        self._service, self._ready, self._idle_minutes = service, ready, idle_minutes

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        await asyncio.to_thread(self._ready)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal: uvicorn would end the process by it afterwards, before jobs are released."""
        if self._service.stopping.is_set() and sig == signal.SIGINT:
            self.force_exit = True
        self._service.stopping.set()

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0 and self._idle_minutes is not None and await asyncio.to_thread(self._idle):
            logger.info("idle for %g minutes: the service ends", self._idle_minutes)
            self._service.stopping.set()
        self.should_exit = self.should_exit or self._service.stopping.is_set()
        return await super().on_tick(counter)

    def _idle(self) -> bool:
        assert self._idle_minutes is not None
        if self._service.activity.idle < 60.0 * self._idle_minutes or self._service.executor.busy:
            return False
        store = self._service.store
        return store.count(State.RUNNING) == 0 and store.count(State.QUEUED) == 0


def settle_in(service: Service) -> None:
    """What can wait until the service has answered for the first time, so that it is ready sooner."""
    warm_up()
    tidy(service)


def warm_up() -> None:
    """The first job would wait for the import of the picture library and the first use of the configuration."""
    import PIL.Image

    import dreamcraft3d.stages.pictures  # noqa: F401 - the import is the purpose

    PIL.Image.init()
    checked_config("preview", {})


def tidy(service: Service) -> None:
    """Removes what deleted jobs and killed services left: condemned folders, uploads that no job names."""
    try:
        for folder in (service.paths.data / "jobs").glob(f"{CONDEMNED}*"):
            shutil.rmtree(folder, ignore_errors=True)
        for folder in service.paths.uploads.glob(".look-*"):
            shutil.rmtree(folder, ignore_errors=True)
        gone = service.uploads.sweep(wanted_uploads(service.store))
        if gone:
            logger.info("removed %d uploads that no job needs", gone)
    except OSError as error:
        logger.warning("cannot tidy the data folder: %s", error)


def wanted_uploads(store: Store) -> set[str]:
    """The uploads that some job names."""
    wanted: set[str] = set()
    before: float | None = None
    while page := store.page(limit=200, before=before):
        for job in page:
            wanted.update(job.request.get("files", {}).values())
        before = page[-1].rank
    return wanted
