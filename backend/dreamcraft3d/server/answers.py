"""Errors as answers: every one has a code for programs, a message for people, and what to do.

`ServiceError` is what routes raise. Whatever else they raise becomes one here; a bug becomes a 500 that names the log.
"""

import json
import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from dreamcraft3d.errors import ConfigError, DreamCraftError, OutputError
from dreamcraft3d.server.jobs import IllegalTransition
from dreamcraft3d.server.protocol import ErrorView
from dreamcraft3d.server.store import UnknownJob

__all__ = ["ERRORS", "JsonAnswer", "ServiceError", "answer_errors", "error_response"]

logger = logging.getLogger(__name__)

CODES = {
    400: ("bad_request", "The request cannot be read.", "Send JSON that fits the OpenAPI document."),
    404: ("not_found", "There is no such thing.", "GET /v1/openapi.json lists what there is."),
    405: ("bad_method", "This cannot be done with it.", "GET /v1/openapi.json lists what can."),
}

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorView, "description": description}
    for status, description in {
        400: "the request cannot be read",
        401: "the token is missing or wrong",
        403: "the request comes from a web page, or under a foreign name",
        404: "there is no such job, file or resource",
        409: "the job's state does not allow it",
        413: "the body is too large",
        422: "a field is wrong; `field` names it",
        429: "too much is waiting already",
        507: "the disk is full",
    }.items()
}
"""For the OpenAPI document: the answers that every route may give."""


class JsonAnswer(Response):
    """JSON in ASCII: whatever strange text a client sent, it can be told back."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, separators=(",", ":"), allow_nan=False).encode("ascii")


class ServiceError(HTTPException):
    """An answer that is an error. `status`: of HTTP."""

    def __init__(self, status: int, code: str, message: str, hint: str = "", *, field: str | None = None) -> None:
        super().__init__(status, message)
        self.code, self.message, self.hint, self.field = code, message, hint, field


def error_response(error: ServiceError) -> Response:
    """The body that all errors share."""
    record = {"code": error.code, "message": error.message, "hint": error.hint, "field": error.field}
    headers = {"WWW-Authenticate": "Bearer"} if error.status_code == 401 else {}
    if error.status_code in (401, 403, 413):
        headers["Connection"] = "close"  # what follows on this connection is a body that nobody wants
    return JsonAnswer({"error": record}, error.status_code, headers)


def answer_errors(app: FastAPI) -> None:
    """Teaches the application what its exceptions mean."""

    async def answer(_: Request, error: Exception) -> Response:
        return error_response(as_service_error(error))

    expected = (HTTPException, RequestValidationError, DreamCraftError, UnknownJob, IllegalTransition, ClientDisconnect)
    for kind in (*expected, Exception):
        app.add_exception_handler(kind, answer)


def as_service_error(error: Exception) -> ServiceError:
    """What the client hears of an exception."""
    match error:
        case ServiceError():
            return error
        case HTTPException():
            code, message, hint = CODES.get(error.status_code, CODES[400])
            return ServiceError(error.status_code, code, message, hint)
        case RequestValidationError():
            return invalid(error)
        case ClientDisconnect():  # nobody will read this
            return ServiceError(400, *CODES[400])
        case UnknownJob():
            return ServiceError(404, "unknown_job", "There is no such job.", "It may have been deleted.")
        case IllegalTransition():
            return ServiceError(409, "illegal", str(error), "Look at its state.")
        case OutputError():
            return ServiceError(507, "disk", error.message, error.remedy)
        case ConfigError():
            return ServiceError(422, "bad_setting", error.message, error.remedy, field="settings")
        case DreamCraftError():
            return ServiceError(422, "bad_input", error.message, error.remedy)
        case _:
            logger.error("a bug", exc_info=error)
            hint = "The log says more; `dreamcraft3d doctor --bundle FILE.zip` packs it for a report."
            return ServiceError(500, "bug", f"This is a bug of the service ({type(error).__name__}).", hint)


def invalid(error: RequestValidationError) -> ServiceError:
    """The first complaint about a request, with the field's name."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return ServiceError(400, *CODES[400])
    place = [str(part) for part in first["loc"] if part not in ("body", "query", "path", "header")]
    name = ".".join(place) or None
    if first["type"] == "extra_forbidden":
        return ServiceError(422, "unknown_field", f"There is no field '{name}'.", "Leave it out.", field=name)
    said = str(first["msg"])
    subject = f"The field '{name}'" if name else "The body"
    message = f"{subject} is wrong: {said[:1].lower()}{said[1:]}."
    return ServiceError(422, "bad_field", message, "Change it.", field=name)
