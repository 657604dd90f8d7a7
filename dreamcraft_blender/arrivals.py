"""Results that the open file's scenes wait for: fetched by the pump, imported when Blender is at rest."""

import contextlib

import bpy

from . import jobs, session
from .problems import Problem
from .window import at_rest, show_live, waiting_for_images, waiting_in_files


class Arrivals:
    """`due`: (job, file) that were fetched and wait to be imported. Each file is taken once."""

    def __init__(self, current):
        self.session = current
        self.due = []
        self._taken = set()

    def fetching(self):
        """Flow: fetches what scenes wait for, and hands it to the importer."""
        # copies: the file, and what is in it, may be gone when a flow goes on
        for name, live in [(pending.job, pending.live) for pending in waiting_in_files()]:
            job = self.session.jobs.get(name)
            if job is not None and job.state == "finished":
                yield from self._taking(job, "result.glb")
            elif job is not None and live and job.state == "running":
                stages = [f"stage-{stage}.glb" for stage in jobs.SHAPED if f"stage-{stage}.glb" in job.artifacts]
                if stages:
                    yield from self._taking(job, stages[-1])
        for name in [pending.job for pending in waiting_for_images()]:
            job = self.session.jobs.get(name)
            if job is not None and job.state == "finished":
                yield from self._taking(job, "result.zip")

    def _taking(self, job, name):
        """Flow: one file, once. What cannot be fetched now is fetched at a later turn."""
        key = job.id, name
        if key in self._taken:
            return
        self._taken.add(key)
        try:
            yield from self.fetch_result(job, name)
        except Problem:
            self._taken.discard(key)
            raise
        self.due.append(key)

    def again(self, job, name):
        """Fetches a file that may have been imported before, and imports it at the cursor."""
        self.session.run(self.fetch_result(job, name), done=lambda _: self.due.append((job.id, name)))

    def expect(self, job):
        """A scene waits for the result again."""
        self._taken.discard((job.id, "result.glb"))

    def fetch_result(self, job, name="result.glb"):
        """Flow: the files that an import needs; returns the model's path."""
        folder = self.session.folder_of(job.id)
        for extra in () if name.startswith("stage-") else ("report.json", "preview.webp"):
            if extra in job.artifacts and not ((folder / extra).is_file() and extra == "report.json"):
                with contextlib.suppress(Problem):  # good to have, not needed
                    yield from jobs.fetch(job.id, extra, folder / extra)
        return (yield from jobs.fetch(job.id, name, folder / name))

    def import_due(self):
        """Imports one result, if there is one and Blender is at rest. One undo step each."""
        if not self.due or not at_rest():
            return
        job, name = self.due.pop(0)
        window = bpy.context.window_manager.windows[0] if bpy.context.window_manager.windows else None
        override = {"window": window} if window is not None else {}
        try:
            with bpy.context.temp_override(**override):
                if name == "result.glb":
                    bpy.ops.dreamcraft.import_result("EXEC_DEFAULT", True, job=job, pending=True)
                elif name == "result.zip":
                    bpy.ops.dreamcraft.apply_refinement("EXEC_DEFAULT", True, job=job)
                else:
                    show_live(job, self.session.folder_of(job) / name, session.title_of(job))
        except (RuntimeError, Problem) as error:
            self.session.problem = error if isinstance(error, Problem) else Problem("bad_model", str(error))
        self.session.touch()

    def forget(self):
        """Another file is open: what was on its way into the old one is dropped."""
        self.due.clear()
        self._taken.clear()
