"""What the service takes for the object in the form's picture: asked for when it changes, drawn before a run."""

import bpy
import numpy as np

from . import jobs, preferences
from .client import Call
from .problems import Problem

FRAME = "x-dreamcraft-frame"
"""Header: left, top and side of the answer's square, as parts of the picture's width."""


class MaskLook:
    """The latest answer. `path`: the square picture, opaque where the object is; `problem`: why there is none."""

    def __init__(self, session):
        self.session = session
        self.path = None
        self.frame = None
        self.problem = None
        self._key = None
        self._task = None

    def ask(self, form, *, start):
        """The form has changed: asks, unless it is the same picture, mask and elevation. `start`: also the backend."""
        from . import pictures

        try:
            submission, key = pictures.reference_request(form)
        except Problem as problem:
            submission, key, failure = None, problem.message, problem if problem.code != "no_image" else None
        else:
            failure = None
        if key != self._key:
            self._key, self.path, self.frame, self.problem = key, None, None, failure
            if self._task is not None:
                self._task.cancel()
            asking = self._asking(submission, start=start) if submission is not None else None
            self._task = self.session.pump.run(asking) if asking is not None else None
            self.session.touch()

    def _asking(self, submission, *, start):
        """Flow: uploads the files and saves the answer."""
        link, previews = self.session.link, self.session.previews
        try:
            if not link.ready and not start:
                return
            yield from link.connected()
            body = {"preset": submission.request["preset"], "settings": submission.request["settings"]}
            for name, data in submission.files.items():
                body[name] = yield from jobs.upload(data)
            path = preferences.results_folder() / "masks" / f"{abs(hash(self._key)):x}.png"
            reply = yield Call.sending("POST", "/v1/reference", body, timeout=60.0, save_to=path)
            self.path, self.frame = path, frame_in(reply.headers.get(FRAME, ""))
            if previews is not None:
                previews.pop("mask", None)
                previews.load("mask", str(path), "IMAGE", force_reload=True)
        except Problem as problem:
            self.problem = problem
        self.session.touch()

    @property
    def pending(self):
        return self._task is not None and not self._task.done

    def icon(self):
        """Icon of the answer; 0 as long as there is none."""
        previews = self.session.previews
        found = previews.get("mask") if previews is not None and self.path is not None else None
        return found.icon_id if found is not None else 0

    def opacity(self, width, height):
        """The answer in the picture's own pixels: height x width, the top row first, 0 to 1; None without an answer."""
        if self.path is None or self.frame is None:
            return None
        from . import pictures

        image = bpy.data.images.load(str(self.path))
        try:
            square = pictures.pixels_of(image)[..., 3]
        finally:
            bpy.data.images.remove(image)
        return in_picture(square, self.frame, width, height)


def frame_in(text):
    """The numbers of the header; None where an older service sends none."""
    try:
        left, top, side = (float(word) for word in text.split())
    except ValueError:
        return None
    return (left, top, side) if side > 0.0 else None


def in_picture(square, frame, width, height):
    """Takes each pixel of a picture from the square that lies over it; 0 outside.

    Args:
        square: N x N numbers.
        frame: left, top and side of the square, as parts of the picture's width.
        width, height: of the picture in pixels.
    Returns:
        height x width numbers.
    """
    (left, top, side), size = frame, len(square)
    across = np.floor(((np.arange(width) + 0.5) / width - left) / side * size).astype(int)
    down = np.floor(((np.arange(height) + 0.5) / width - top) / side * size).astype(int)
    inside = ((down >= 0) & (down < size))[:, None] & ((across >= 0) & (across < size))[None, :]
    return np.where(inside, square[np.clip(down, 0, size - 1)[:, None], np.clip(across, 0, size - 1)[None, :]], 0.0)
