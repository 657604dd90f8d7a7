"""The batch that the panel shows: its items, what runs, and what was said; also of a batch that another program runs.

A flow of the pump reads the ends of files, a little at each turn. Which batch it is, the scene says; if it says nothing
the last one is shown for as long as it runs, so that Blender can be closed and opened in between.
"""

import os
import time
from pathlib import Path

import bpy
import bpy.utils.previews

from . import preferences
from .batch_objects import with_blender
from .batch_runs import BatchRun, files_of, folder_for, following, options_of, out_in
from .batch_view import BatchView, Tail, holder_in
from .client import Pause
from .launcher import Installation
from .problems import Problem

LIVELY, IDLE = 0.25, 1.0
"""Seconds between two looks."""
PICTURES = 4
"""Thumbnails that are asked for at one look."""
EXPORT = "export-assets"


class Watch:
    """What is known about the batch. The panel reads it; the operators ask it. `note`: how the last command ended."""

    def __init__(self, session):
        self.session = session
        self.source = None
        self.view = BatchView()
        self.runs: dict[str, BatchRun] = {}
        self.note = None
        self.problem = None
        self.holder = None
        self.previews = bpy.utils.previews.new() if not bpy.app.background else None
        self.wanted: dict[str, None] = {}
        self._tail = None
        self._named = None
        self._looked = 0.0
        session.pump.run(self._watching())

    @property
    def busy(self):
        """Whether there is something to watch."""
        return bool(self.runs) or self.holder is not None

    @property
    def running(self):
        """Whether a runner is at work, ours or another."""
        return "run" in self.runs or self.holder is not None

    # --- wishes -----------------------------------------------------------------------------------

    def open(self, source):
        """Shows another batch; None shows none."""
        self.source, self.view, self.holder = source, BatchView(), None
        self.note = self.problem = self._tail = None
        self.wanted.clear()
        if self.previews is not None:
            self.previews.clear()
        if source is not None:
            self.refresh()
        self.session.touch()

    def sync(self):
        """Shows what the scene names, when that changed; if it names nothing, the batch that runs."""
        scene = bpy.context.scene
        path = bpy.path.abspath(scene.dreamcraft.batch) if scene is not None else ""
        if path == self._named:
            return
        self._named = path
        source = Path(path) if path else self.last()
        if source != self.source:
            self.open(source)

    def last(self):
        """The batch of the last run from here, if its runner is still at work."""
        try:
            path = Path((preferences.results_folder() / "batches" / "last.txt").read_text(encoding="utf-8"))
        except (OSError, ValueError, Problem):
            return None
        return path if path.exists() and self._runs_already(path) else None

    def _runs_already(self, source):
        """Whether the folder of results that its last run named has a runner."""
        out = out_in(folder_for(preferences.results_folder(), source))
        return out is not None and holder_in(out) is not None

    def start(self, action, **options):
        """Starts a command; returns the task. Raises `Problem`."""
        if self.source is None:
            raise Problem("no_batch", "No batch is chosen.", "Choose a manifest or a folder of pictures.")
        folder = folder_for(preferences.results_folder(), self.source)
        installation, environment = self.session.link.launcher.installation, None
        words = with_blender(action, options_of(**options))
        if action == EXPORT:
            words += ["--backend", installation.where] if installation is not None else []
            installation, environment = blender(), os.environ
        run = BatchRun(installation, action, self.source, words, folder=folder, environment=environment)
        name = "run" if action == "retry" else action
        self.runs[name] = run
        if name != "status":
            self.note = self.problem = None
        if name == "run":
            self._tail = None
            (folder.parent / "last.txt").write_text(str(self.source.absolute()), encoding="utf-8")
        return self.session.pump.run(self._doing(name, run))

    def refresh(self):
        """Asks the backend for the list, if it is there."""
        if "status" not in self.runs and self.session.link.launcher.installation is not None:
            try:
                self.start("status")
            except Problem as problem:
                self.problem = problem

    def _doing(self, name, run):
        """Flow: one command and what follows from its end."""
        view = self.view
        try:
            outcome = yield from following(run, view.hear)
        except Problem as problem:
            self.runs.pop(name, None)
            if view is self.view and problem.code != "cancelled":
                self.problem = why(name, problem)
        else:
            self.runs.pop(name, None)
            if view is self.view:
                self._ended(name, outcome)
        if name in ("run", "cancel") and view is self.view:
            self.refresh()
        self.session.touch()

    def _ended(self, name, outcome):
        """A command that did what it was asked."""
        if name == "status":
            self.view.list_items(outcome.record)
            self._follow()
        elif name in ("validate", EXPORT):
            self.note = (name, outcome.record)

    # --- looking ----------------------------------------------------------------------------------

    def _watching(self):
        """Flow without end."""
        while True:
            yield Pause(LIVELY if self.busy else IDLE)
            try:
                self.sync()
                if self._look():
                    self.session.touch()
            except (Problem, OSError) as problem:
                self.problem = problem if isinstance(problem, Problem) else Problem("read_only", str(problem))

    def _look(self):
        """Reads what is new; says whether anything was."""
        if self.source is None:
            return False
        news = self.view.read_journal()
        if self._tail is not None:
            for line in self._tail.lines():
                self.view.hear(line)
                news = True
        before, self.holder = self.holder, self.view.holder
        if self.holder is None and "run" not in self.runs:
            news = self.view.rest() or news
            if before is not None:
                self.refresh()
        if self.holder != before:
            self._follow()
            news = True
        if time.monotonic() - self._looked > 1.0:  # bars of what runs move
            self._looked, news = time.monotonic(), news or self.busy
        return self._load_previews() or news

    def _follow(self):
        """A runner that is not our child, but was started by an earlier Blender: its file still tells its progress."""
        if self.holder is not None and "run" not in self.runs and self._tail is None:
            self._tail = Tail(files_of(folder_for(preferences.results_folder(), self.source), "run")[1])
        elif self.holder is None:
            self._tail = None

    # --- thumbnails -------------------------------------------------------------------------------

    def icon(self, line):
        """Icon of an item's picture, or of its result; 0 as long as there is none. Loads nothing itself."""
        if self.previews is None:
            return 0
        key = f"{line.id}/{line.state == 'done'}"
        if key in self.previews:
            return self.previews[key].icon_id
        self.wanted[key] = None
        return 0

    def _load_previews(self):
        """A few of those that were drawn; says whether there were any."""
        loaded = False
        for key in list(self.wanted)[:PICTURES]:
            del self.wanted[key]
            path = self.picture_of(*key.rsplit("/", 1))
            if path is not None and self.previews is not None and key not in self.previews:
                self.previews.load(key, str(path), "IMAGE")
                loaded = True
        return loaded or bool(self.wanted)

    def picture_of(self, item, done):
        """The file that shows an item; None if there is none."""
        line = self.view.items.get(item)
        if line is None or self.view.out is None:
            return None
        result = self.view.out / "items" / item / "thumbnail.webp"
        if done == "True" and result.is_file():
            return result
        picture = line.record.get("image")
        return Path(picture) if picture and Path(picture).is_file() else None

    def close(self):
        if self.previews is not None:
            bpy.utils.previews.remove(self.previews)
            self.previews = None


def blender():
    """This Blender, without a window, as the program that exports."""
    return Installation((bpy.app.binary_path, "--background", "--command", "dreamcraft"), bpy.app.binary_path)


def why(name, problem):
    """The problem of a command, in words of the panel."""
    if name == EXPORT and problem.code == "bug" and "Traceback" not in problem.log:
        text = "A Blender without a window does not know DreamCraft."
        return Problem("no_extension", text, "Save the preferences with the extension enabled, and try again.")
    return problem
