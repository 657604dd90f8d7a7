"""Routes of the service itself: what it is, whether it lives, files for jobs, a look at a picture, its end."""

import tempfile
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from dreamcraft3d.executors.base import MaskRequest
from dreamcraft3d.server.admission import check_files, checked_config
from dreamcraft3d.server.answers import ServiceError
from dreamcraft3d.server.description import describe_service
from dreamcraft3d.server.hosting import CurrentService
from dreamcraft3d.server.jobs import State
from dreamcraft3d.server.protocol import DeletedView, HealthView, ReferenceRequest, ServerView, UploadView

__all__ = ["router"]

router = APIRouter(tags=["service"])

LOOK_SECONDS = 60.0
"""Time limit of a look at a picture; the first one loads the libraries."""

BYTES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary", "minLength": 1}}},
    }
}


@router.get("/v1/server")
def server(service: CurrentService) -> ServerView:
    """Versions, capabilities, presets with their values, the schema of all settings, models, limits, the device."""
    return describe_service(service)


@router.get("/v1/health")
def health(service: CurrentService) -> HealthView:
    """A sign of life, and how much there is to do."""
    queued = service.store.count(State.QUEUED)
    return HealthView(boot_id=service.boot_id, busy=service.executor.busy, queued=queued)


@router.post("/v1/uploads", status_code=201, openapi_extra=BYTES)
async def upload(request: Request, service: CurrentService) -> UploadView:
    """Stores a file for jobs. The body is the file; the answer's id is the SHA-256 of its bytes."""
    name, size = await service.uploads.receive(request.stream())
    return UploadView(id=name, size=size)


@router.post(
    "/v1/reference",
    response_class=Response,
    responses={
        200: {
            "description": "the square canvas: straight colour, opacity = what is taken for the object",
            "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
            "headers": {
                "X-DreamCraft-Matting": {"schema": {"type": "string"}, "description": "how it was found"},
                "X-DreamCraft-Frame": {
                    "schema": {"type": "string"},
                    "description": "LEFT TOP SIDE of the canvas as parts of the picture's width",
                },
            },
        }
    },
)
def reference(request: ReferenceRequest, service: CurrentService) -> Response:
    """What a job would take for the object in a picture, before there is a job."""
    config = checked_config(request.preset, request.settings)
    files = check_files(request, service.uploads, config)
    settings = {key: value for key, value in request.settings.items() if key.startswith("reference.")}
    with tempfile.TemporaryDirectory(prefix=".look-", dir=service.paths.uploads) as folder:
        target = Path(folder) / "mask.png"
        answer = service.executor.mask(MaskRequest(files, settings, target), seconds=LOOK_SECONDS)
        if not answer.get("ok"):
            raise look_failed(answer, files["picture"])
        picture = target.read_bytes()
    headers = {"X-DreamCraft-Matting": ascii_words(answer.get("matting", ""))}
    if "frame" in answer:
        headers["X-DreamCraft-Frame"] = " ".join(ascii_words(number) for number in answer["frame"])
    return Response(picture, media_type="image/png", headers=headers)


def ascii_words(value: object) -> str:
    """A value as headers can carry it."""
    return str(value).encode("ascii", "replace").decode("ascii")


def look_failed(answer: dict[str, Any], picture: Path) -> ServiceError:
    """Why there is nothing to see; paths of the service are of no use to the client."""
    code, message = str(answer.get("code", "bad_image")), str(answer.get("message", "The picture cannot be used."))
    hint = str(answer.get("hint", ""))
    message = message.replace(str(picture), "the picture")
    if code in ("busy", "timeout"):
        return ServiceError(409, code, message, hint)
    code = "no_object" if "object" in message else "bad_image"
    return ServiceError(422, code, message, hint, field="picture")


@router.post("/v1/shutdown", status_code=202)
async def shutdown(service: CurrentService) -> DeletedView:
    """Ends the service after this answer. A running job is stopped with a checkpoint and goes on at the next start."""
    service.stopping.set()
    return DeletedView()
