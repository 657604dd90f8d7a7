"""Stored jobs and events as the records of the wire."""

from typing import Any

from dreamcraft3d.server.artifacts import artifacts_in
from dreamcraft3d.server.hosting import Service
from dreamcraft3d.server.jobs import State
from dreamcraft3d.server.protocol import ArtifactView, EventView, JobErrorView, JobView
from dreamcraft3d.server.store import Event, Job

__all__ = ["event_view", "job_view"]

WITHOUT_FILES = (State.QUEUED,)
"""A job that never ran has no folder: a long queue is listed without looking for each."""


def job_view(service: Service, job: Job) -> JobView:
    """A job with its place in the queue and the files that are there."""
    state, folder = job.life.state, service.paths.job(job.id)
    fresh = state in WITHOUT_FILES and job.started is None
    progress = job.progress if state in (State.RUNNING, State.PAUSED) else {}
    return JobView(
        id=job.id,
        kind=job.request.get("kind", "generate"),
        name=job.request.get("name", ""),
        state=state,
        wish=job.life.wish.value,
        request={**job.request, "priority": job.priority},
        created=job.created,
        started=job.started,
        finished=job.finished,
        position=service.store.position(job),
        stage=progress.get("stage"),
        step=progress.get("step", 0),
        total=progress.get("total", 0),
        eta=progress.get("eta"),
        resumable=state not in (State.RUNNING, State.FINISHED) and not fresh and (folder / "stages").is_dir(),
        error=None if job.error is None else JobErrorView(**plain(job.error)),
        artifacts=[] if fresh else [ArtifactView(**vars(artifact)) for artifact in artifacts_in(folder)],
        last_event=job.last_event,
    )


def event_view(event: Event) -> EventView:
    return EventView(number=event.number, time=event.time, type=event.type, data=plain(event.data))


def plain(data: dict[str, Any]) -> dict[str, Any]:
    """The tail of a log as one text."""
    tail = data.get("log_tail")
    return {**data, "log_tail": "\n".join(tail)} if isinstance(tail, list) else data
