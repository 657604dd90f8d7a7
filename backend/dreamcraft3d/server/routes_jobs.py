"""Routes of jobs: submitting, looking, changing, following, fetching."""

import shutil
import time
from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from dreamcraft3d.server.admission import check_job
from dreamcraft3d.server.answers import ServiceError
from dreamcraft3d.server.artifacts import ARTIFACTS, artifact_path
from dreamcraft3d.server.file_answers import file_answer
from dreamcraft3d.server.hosting import CurrentService, Service
from dreamcraft3d.server.jobs import Input, State
from dreamcraft3d.server.protocol import (
    DeletedView,
    EventsView,
    JobRequest,
    JobsView,
    JobView,
    ReorderRequest,
)
from dreamcraft3d.server.store import Job
from dreamcraft3d.server.views import event_view, job_view

__all__ = ["MAX_WAIT", "router"]

router = APIRouter(tags=["jobs"])

MAX_WAIT = 30.0
"""Longest wait for events, seconds."""

SLICE = 0.5
"""Waits are cut into slices, so that a service that stops does not wait for them, seconds."""

CONDEMNED = ".deleted-"
"""Prefix of folders that are being removed; what a killed service left of them goes at the next start."""

FILES = ("picture", "mask", "depth", "normal", "shape", "mesh")

JobId = Annotated[str, Path(max_length=64, description="The id of a job.")]
Action = Literal["cancel", "pause", "resume", "retry"]


@router.post(
    "/v1/jobs",
    status_code=201,
    responses={200: {"model": JobView, "description": "the job of this client_key, which was there already"}},
)
async def submit(request: JobRequest, service: CurrentService, response: Response) -> JobView:
    """Stores a job durably and queues it. Sending the same `client_key` again gives the same job."""
    view, new = await to_thread.run_sync(submitted, service, request)
    response.status_code = 201 if new else 200
    return view


def submitted(service: Service, request: JobRequest) -> tuple[JobView, bool]:
    """The job of a request, and whether it is a new one; takes as long as the disk."""
    check_job(request, service.uploads, service.store)
    stored = request.model_dump(mode="json", exclude={"priority", "client_key", *FILES})
    stored["files"] = {name: upload for name in FILES if (upload := getattr(request, name)) is not None}
    job, new = service.store.submit(stored, priority=request.priority, client_key=request.client_key)
    service.executor.poke()
    return job_view(service, job), new


@router.get("/v1/jobs")
def list_jobs(
    service: CurrentService,
    state: State | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    before: Annotated[float | None, Query(description="`next` of the page before", allow_inf_nan=False)] = None,
) -> JobsView:
    """Jobs, the newest first."""
    jobs = service.store.page(state=state, limit=limit + 1, before=before)
    shown = jobs[:limit]
    more = shown[-1].rank if len(jobs) > limit else None
    return JobsView(jobs=[job_view(service, job) for job in shown], next=more)


@router.get("/v1/jobs/{job_id}")
def get_job(job_id: JobId, service: CurrentService) -> JobView:
    """One job."""
    return job_view(service, service.store.get(job_id))


@router.delete("/v1/jobs/{job_id}")
def delete_job(job_id: JobId, service: CurrentService) -> DeletedView:
    """Forgets a job that does not run, and removes its files."""
    service.store.delete(job_id)
    folder = service.paths.job(job_id)
    condemned = folder.with_name(f"{CONDEMNED}{folder.name}")
    if folder.is_dir():
        folder.rename(condemned)  # from now on nobody sees half of it
        shutil.rmtree(condemned, ignore_errors=True)
    return DeletedView()


@router.post("/v1/jobs/{job_id}/reorder")
def reorder(job_id: JobId, request: ReorderRequest, service: CurrentService) -> JobView:
    """Moves a waiting job directly before another one (and to its priority), or to the end."""
    job = service.store.reorder(job_id, before=request.before)
    service.executor.poke()
    return job_view(service, job)


@router.post("/v1/jobs/{job_id}/{action}")
def act(job_id: JobId, action: Action, service: CurrentService) -> JobView:
    """cancel, pause: a running job obeys at its next step (`wish` says so until then). resume: a paused one goes on.
    retry: a failed or cancelled one goes on where it stopped. Doing it twice is no error.
    """
    job = service.store.apply(job_id, Input(action))
    service.executor.poke()
    return job_view(service, job)


@router.get("/v1/jobs/{job_id}/events")
async def events(
    job_id: JobId,
    service: CurrentService,
    since: Annotated[int, Query(ge=0, lt=2**53, description="number of the last event that is known")] = 0,
    wait: Annotated[
        float, Query(ge=0.0, le=MAX_WAIT, description="seconds to wait for news", allow_inf_nan=False)
    ] = 0.0,
    limit: Annotated[int, Query(ge=1, le=2000)] = 500,
) -> EventsView:
    """What happened to a job after event number `since`; waits for it, if asked to."""
    deadline = time.monotonic() + wait
    while True:
        view, job = news(service, job_id, since, limit)  # at once: a change of threads costs more than it reads
        left = deadline - time.monotonic()
        if view.events or left <= 0.0 or job.life.state.over or not await patience(service, job_id, since, left):
            return view


def news(service: Service, job_id: str, since: int, limit: int) -> tuple[EventsView, Job]:
    found = service.store.events(job_id, since=since, limit=limit)
    job = service.store.get(job_id)
    view = EventsView(events=[event_view(event) for event in found], last=job.last_event, state=job.life.state)
    return view, job


async def patience(service: Service, job_id: str, since: int, seconds: float) -> bool:
    """Waits for a slice of the time; false if there is no (more) waiting."""
    if service.stopping.is_set() or service.waiters.available_tokens < 1:
        return False
    slept = min(SLICE, seconds)
    await to_thread.run_sync(
        lambda: service.store.wait(job_id, since=since, seconds=slept),
        limiter=service.waiters,
        abandon_on_cancel=True,
    )
    return True


ARTIFACT_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "the file",
        "content": {
            kind: {"schema": {"type": "string", "format": "binary"}} for kind in sorted(set(ARTIFACTS.values()))
        },
    },
    206: {"description": "the asked range of it"},
    304: {"description": "the version that If-None-Match named"},
    416: {"description": "the range is outside of the file"},
}


@router.get("/v1/jobs/{job_id}/artifacts/{name}", response_class=Response, responses=ARTIFACT_ANSWERS)
def artifact(
    job_id: JobId, name: Annotated[str, Path(max_length=64)], service: CurrentService, request: Request
) -> Response:
    """A file of a job. Its name is one of a fixed set."""
    job = service.store.get(job_id)
    path = artifact_path(service.paths.job(job.id), name)
    if path is None:
        hint = "The job's `artifacts` lists those that are there."
        raise ServiceError(404, "unknown_artifact", "The job has no such file (yet).", hint)
    return file_answer(path, ARTIFACTS[name], request.headers)
