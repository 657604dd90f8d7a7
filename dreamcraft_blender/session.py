"""One Blender's session with the backend: the pump, and what it has brought.

One timer calls `tick`; each tick moves the wire on for at most `BUDGET` seconds and then, if something has changed,
tells the window. In the background no timer runs: scripts call `Session.wait`. Nothing is started by registering; a
running backend is found by the first tick, and one that is not running is started by the first wish.
"""

import logging
import time
from pathlib import Path

import bpy
import bpy.utils.previews
from bpy.app.handlers import persistent

from . import batch_watch, jobs, preferences
from .arrivals import Arrivals
from .client import Pause, Pump
from .launcher import Launcher, find_installation
from .link import Link, LinkState
from .mask_look import MaskLook
from .problems import Problem
from .window import sync_window

logger = logging.getLogger(__name__)

BUDGET = 0.0005
"""Seconds of a tick that the wire may take; drawing the list and Python's own needs come on top (2 ms together)."""

BUSY, LIVELY, IDLE = 0.02, 0.1, 0.5
"""Seconds until the next tick: while something is on the wire, while there is something to watch, otherwise."""

POLL_ACTIVE, POLL_IDLE = 0.5, 1.0

_current = None
measuring = False
ticks: list[tuple[float, float]] = []
"""What the ticks took while somebody measures: seconds on the clock, and seconds of this thread's own work."""


class Session:
    """Everything that is known about the backend and its jobs. The panels read it; the operators ask it."""

    def __init__(self):
        self.pump = Pump()
        self.problem = None  # of the last wish, until the next one
        self.jobs = {}
        self.order = []
        self.notes = {}
        self.newest = ""
        self.wanted = {}
        self.installer = None
        self.previews = bpy.utils.previews.new() if not bpy.app.background else None
        self._seen = {}
        self._preview_key = {}
        self._revision = 0
        self._shown = None
        self.arrivals = Arrivals(self)
        self.link = Link(self.pump, self.make_launcher(), needed=self.is_needed)
        self._poll = self.pump.run(self._polling())
        self.mask = MaskLook(self)
        self.batch = batch_watch.Watch(self)

    # --- the link ---------------------------------------------------------------------------------

    def make_launcher(self):
        chosen = preferences.current()
        installation = find_installation(bpy.path.abspath(chosen.backend_path), preferences.installation_folder())
        options = ["--started-by", "blender", "--idle-minutes", str(chosen.idle_minutes)]
        try:
            log, fixed = preferences.results_folder() / "backend.log", preferences.fixed_endpoint()
        except Problem as problem:
            self.problem = problem
            log, fixed = Path(bpy.app.tempdir) / "dreamcraft-backend.log", None
        return Launcher(installation, log=log, options=options, fixed=fixed)

    def is_needed(self):
        """Whether a backend that died should be started again: there is work left, and the user lets us."""
        return preferences.current().start_automatically and any(job.active for job in self.jobs.values())

    def relaunch(self):
        """Takes changed preferences into account."""
        self.link.launcher = self.make_launcher()

    def run(self, flow, done=None):
        """Runs a flow whose problem, if it has one, is shown; `done` gets its result."""
        self.problem = None

        def shown():
            try:
                result = yield from flow
            except Problem as problem:
                self.problem = problem
                self.touch()
                raise
            if done is not None:
                done(result)
            self.touch()
            return result

        return self.pump.run(shown())

    def wait(self, task, *, seconds=None):
        """For scripts and the background: the result of a task; Blender waits so long."""
        end = None if seconds is None else time.monotonic() + seconds
        while not task.done:
            self.pump.step(time.monotonic() + 0.05)
            if end is not None and time.monotonic() > end:
                task.cancel()
                raise Problem("too_slow", f"This took longer than {seconds:.0f} s.", "Look at the backend's log.")
            time.sleep(0.01)
        return task.outcome()

    def preset(self, name):
        """What the service says about a preset; empty if it does not know it."""
        return next((item for item in self.link.server.get("presets") or () if item.get("name") == name), {})

    # --- jobs -------------------------------------------------------------------------------------

    def submit(self, submission):
        """Flow: starts the backend if need be, sends the job, and knows it."""
        yield from self.link.connected()
        job = yield from jobs.submit(submission.request, submission.files)
        self.newest = job.id
        self.know([job])
        return job

    def know(self, found, *, all_of_them=False):
        """Takes in what the service says about jobs."""
        before = dict(self.jobs)
        if all_of_them:
            self.jobs = {job.id: job for job in found}
            self.order = [job.id for job in found]
        else:
            for job in found:
                if job.id not in self.jobs:
                    self.order.insert(0, job.id)
                self.jobs[job.id] = job
        if self.jobs != before:
            self.touch()

    def active_job(self):
        """The job that the progress is about: the running one, else the first that waits."""
        active = [self.jobs[name] for name in reversed(self.order) if self.jobs[name].active]
        return next((job for job in active if job.state == "running"), active[0] if active else None)

    def folder_of(self, job):
        return preferences.results_folder() / "results" / job

    def touch(self):
        """Something that is shown has changed."""
        self._revision += 1

    def _polling(self):
        """Flow without end: the list, and what happened to the job that runs."""
        while True:
            if self.link.ready:
                try:
                    found = yield from jobs.listed()
                    self.know(found, all_of_them=True)
                    yield from self._events()
                    yield from self.arrivals.fetching()
                except Problem as problem:
                    logger.debug("poll: %s", problem)  # the link's own watch tells the user
            active = self.link.ready and self.active_job() is not None
            yield Pause(POLL_ACTIVE if active or not self.link.ready else POLL_IDLE)

    def _events(self):
        job = self.active_job()
        if job is None or job.state != "running" or job.last_event <= self._seen.get(job.id, -1):
            return
        since = self._seen.get(job.id, max(0, job.last_event - 20))
        for event in (yield from jobs.events(job.id, since)):
            self._seen[job.id] = max(self._seen.get(job.id, 0), int(event.get("number", 0)))
            data = event.get("data") or {}
            if event.get("type") in ("warning", "note"):
                self.notes[job.id] = str(data.get("text", ""))
            elif event.get("type") == "preview":
                self._preview_key[job.id] = self._seen[job.id]
        if self.previews is not None and "preview.webp" in job.artifacts:
            yield from self._fetch_preview(job)

    def _fetch_preview(self, job):
        key = f"{job.id}-{self._preview_key.get(job.id, 0)}"
        if key in self.previews:
            return
        path = yield from jobs.fetch(job.id, "preview.webp", self.folder_of(job.id) / "preview.webp")
        for old in [name for name in self.previews if name.startswith(job.id)]:
            del self.previews[old]
        self.previews.load(key, str(path), "IMAGE", force_reload=True)
        self._shown_preview = key
        self.touch()

    def preview_icon(self, job):
        """Icon of the newest picture of a job; 0 if there is none."""
        if self.previews is None:
            return 0
        return next((self.previews[name].icon_id for name in self.previews if name.startswith(job)), 0)

    # --- ticking ----------------------------------------------------------------------------------

    def tick(self):
        """One turn; returns the seconds until the next one."""
        busy = self.pump.step(time.monotonic() + BUDGET)
        if self.installer is not None and not self.installer.done:
            self.installer.poll()
            self.touch()
            if self.installer.done:
                self.installed()
        shown = (self._revision, self.link.state, self.link.problem)
        if shown != self._shown:
            self._shown = shown
            sync_window(self)
        if self.arrivals.due and not bpy.app.timers.is_registered(_import_due):
            bpy.app.timers.register(_import_due, first_interval=0.0)
        lively = self.link.state is LinkState.CONNECTING or self.active_job() is not None or self.mask.pending
        lively = lively or self.batch.busy
        return BUSY if busy else LIVELY if lively or self.installer is not None else IDLE

    def installed(self):
        """The installer has ended, well or not."""
        if self.installer.problem is not None:
            self.problem = self.installer.problem
        else:
            self.relaunch()
            self.link.ensure()

    def close(self):
        self.pump.close()
        self.batch.close()
        self.link.launcher.reap()
        if self.previews is not None:
            bpy.utils.previews.remove(self.previews)
            self.previews = None


# --- the one session ------------------------------------------------------------------------------


def get() -> Session:
    """The session; made when it is first needed."""
    global _current
    if _current is None:
        _current = Session()
    return _current


def peek():
    """The session, if there is one: for drawing, which must not make anything."""
    return _current


def presets():
    """The service's presets; empty until it is known."""
    return _current.link.server.get("presets") or [] if _current is not None else []


def preset_named(name):
    return _current.preset(name) if _current is not None else {}


def restart():
    """Preferences have changed."""
    if _current is not None:
        _current.relaunch()


def preset_changed(name):
    """The advanced settings show another preset's values; their properties are made anew outside of this update."""
    if _current is not None:
        _current.touch()


def look_at_picture(settings):
    """The picture or the mask has changed: show what would be taken for the object."""
    if not bpy.app.background and _current is not None:
        _current.mask.ask(settings, start=preferences.current().start_automatically)


def title_of(job):
    """What the object of a job is called."""
    found = _current.jobs.get(job) if _current is not None else None
    name = Path(found.name).stem if found is not None and found.name else ""
    return name or "DreamCraft"


def _import_due():
    """One-shot timer of its own: reading and building a model is the one thing that takes longer than a tick."""
    if _current is not None:
        _current.arrivals.import_due()


def _tick():
    start, worked = time.perf_counter(), time.thread_time()
    try:
        pause = get().tick()
    except Exception:
        logger.exception("DreamCraft's timer had to skip a turn")
        pause = 1.0
    if measuring:
        ticks.append((time.perf_counter() - start, time.thread_time() - worked))
    return pause


@persistent
def _file_loaded(_):
    """Another file: its scenes may wait for jobs; what was on its way into the old one is dropped."""
    if _current is not None:
        _current.arrivals.forget()
        _current._shown = None


def register():
    bpy.app.handlers.load_post.append(_file_loaded)
    if not bpy.app.background:
        bpy.app.timers.register(_tick, first_interval=0.5, persistent=True)


def unregister():
    global _current
    for timer in (_tick, _import_due):
        if bpy.app.timers.is_registered(timer):
            bpy.app.timers.unregister(timer)
    if _file_loaded in bpy.app.handlers.load_post:
        bpy.app.handlers.load_post.remove(_file_loaded)
    if _current is not None:
        if preferences.current().stop_with_blender:
            _current.link.launcher.terminate()
        _current.close()
        _current = None
