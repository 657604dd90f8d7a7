"""Jobs as this Blender knows them: sent, followed, fetched. Plain Python; all of it flows (see `client`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .answers import garbled
from .client import Call, Flow, Pause
from .problems import Problem

__all__ = ["ACTIVE", "SHAPED", "Job", "act", "delete", "fetch", "follow", "listed", "reorder", "submit", "upload"]

ACTIVE = ("queued", "running", "paused")
"""States in which a job may still become something."""

STAGES = ("coarse_nerf", "neus", "geometry", "texture")
"""The stages that take time, in order, for the bar over all of them."""

SHAPED = ("start", *STAGES)
"""What may leave a mesh to look at, in order; a lifted start stands for the first two stages."""


@dataclass(frozen=True)
class Job:
    """What the service says about one job."""

    id: str
    name: str = ""
    kind: str = "generate"
    state: str = "queued"
    request: Mapping[str, Any] = field(default_factory=dict)
    created: Any = None
    stage: str = ""
    step: int = 0
    total: int = 0
    eta: float | None = None
    position: int | None = None
    error: Mapping[str, Any] | None = None
    artifacts: tuple[str, ...] = ()
    last_event: int = 0

    @staticmethod
    def read(view: Any) -> Job:
        """From the service's record; fields that we do not know are no concern of ours."""
        try:
            error = view.get("error")
            return Job(
                id=str(view["id"]),
                name=str(view.get("name") or ""),
                kind=str(view.get("kind") or "generate"),
                state=str(view["state"]),
                request=view.get("request") or {},
                created=view.get("created"),
                stage=str(view.get("stage") or ""),
                step=int(view.get("step") or 0),
                total=int(view.get("total") or 0),
                eta=None if view.get("eta") is None else float(view["eta"]),
                position=None if view.get("position") is None else int(view["position"]),
                error=error if isinstance(error, dict) else None,
                artifacts=tuple(str(item["name"]) for item in view.get("artifacts") or ()),
                last_event=int(view.get("last_event") or 0),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise garbled("its job is not a record") from error

    @property
    def active(self) -> bool:
        return self.state in ACTIVE

    @property
    def fraction(self) -> float:
        """Of the stage, between 0 and 1."""
        return min(1.0, self.step / self.total) if self.total > 0 else 0.0

    @property
    def overall(self) -> float:
        """Of the whole job, between 0 and 1: each stage counts the same, the export a little."""
        if self.state == "finished":
            return 1.0
        stages = STAGES[2:] if "shape" in (self.request.get("files") or {}) else STAGES
        if self.stage in stages:
            return (stages.index(self.stage) + self.fraction) / (len(stages) + 0.2)
        return len(stages) / (len(stages) + 0.2) if self.stage in ("mesh", "export") else 0.0

    def failure(self) -> Problem:
        """Why a failed (or cancelled) job did not make anything."""
        if self.state == "cancelled":
            return Problem("cancelled", "The job was cancelled.", "Resume it from the list, or generate again.")
        error = self.error or {}
        text = str(error.get("message") or "The job failed.")
        log = str(error.get("log_tail") or "")
        return Problem(str(error.get("code") or "failed"), text, str(error.get("hint") or ""), log=log)


def upload(data: bytes, content_type: str = "application/octet-stream") -> Flow[str]:
    """Flow: the id of these bytes at the service."""
    reply = yield Call("POST", "/v1/uploads", data, content_type=content_type, timeout=30.0)
    record = reply.json()
    if not isinstance(record, dict) or "id" not in record:
        raise garbled("it gives an upload no id")
    return str(record["id"])


def submit(request: Mapping[str, Any], files: Mapping[str, bytes]) -> Flow[Job]:
    """Flow: uploads the files, puts their ids into the request and sends it. The same client_key gives the same job."""
    body = dict(request)
    for name, data in files.items():
        body[name] = yield from upload(data)
    reply = yield Call.sending("POST", "/v1/jobs", body, timeout=10.0)
    return Job.read(reply.json())


def listed(limit: int = 50) -> Flow[list[Job]]:
    """Flow: the newest jobs, the newest first."""
    reply = yield Call("GET", "/v1/jobs", query={"limit": limit})
    record = reply.json()
    views = record.get("jobs") if isinstance(record, dict) else record
    if not isinstance(views, list):
        raise garbled("its list of jobs is none")
    return [Job.read(view) for view in views]


def looked_up(job: str) -> Flow[Job]:
    """Flow: one job."""
    reply = yield Call("GET", f"/v1/jobs/{job}")
    return Job.read(reply.json())


def events(job: str, since: int) -> Flow[list[dict[str, Any]]]:
    """Flow: what happened after event number `since`."""
    reply = yield Call("GET", f"/v1/jobs/{job}/events", query={"since": since, "wait": 0})
    record = reply.json()
    found = record.get("events") if isinstance(record, dict) else record
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise garbled("its events are none")
    return found


def act(job: str, action: str) -> Flow[Job]:
    """Flow: cancel, pause, resume or retry."""
    reply = yield Call.sending("POST", f"/v1/jobs/{job}/{action}", {})
    return Job.read(reply.json())


def reorder(job: str, before: str | None) -> Flow[Job]:
    """Flow: moves a waiting job before another one, or to the end."""
    reply = yield Call.sending("POST", f"/v1/jobs/{job}/reorder", {"before": before})
    return Job.read(reply.json())


def delete(job: str) -> Flow[None]:
    """Flow: removes a job and its files from the service."""
    yield Call("DELETE", f"/v1/jobs/{job}")


def fetch(job: str, name: str, target: Path) -> Flow[Path]:
    """Flow: one artifact, into a file that is there whole or not at all."""
    yield Call("GET", f"/v1/jobs/{job}/artifacts/{name}", save_to=target, timeout=30.0)
    return target


def follow(job: str, *, seen: Callable[[Job], None] = lambda job: None, every: float = 0.3) -> Flow[Job]:
    """Flow: until the job has ended; `seen` is called with every change. A short silence of the service is no end.

    Raises `Problem` if the job failed or was cancelled, or if the service stays away for a minute.
    """
    last, misses = None, 0.0
    while True:
        try:
            found = yield from looked_up(job)
            misses = 0.0
        except Problem as problem:
            misses += every
            if problem.code not in ("stopped", "silent") or misses > 60.0:
                raise
        else:
            if found != last:
                last = found
                seen(found)
            if not found.active:
                if found.state == "finished":
                    return found
                raise found.failure()
        yield Pause(every)
