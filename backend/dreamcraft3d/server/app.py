"""The application: routes behind the guard, errors that look alike, and the OpenAPI document: the contract."""

from fastapi import FastAPI, Security
from fastapi.security import HTTPBearer
from starlette.types import ASGIApp

from dreamcraft3d import __version__
from dreamcraft3d.server import routes_jobs, routes_service
from dreamcraft3d.server.answers import ERRORS, answer_errors
from dreamcraft3d.server.hosting import Service
from dreamcraft3d.server.security import Guard, HostRule

__all__ = ["create_app", "create_routes"]

DESCRIPTION = """The backend of DreamCraft: durable jobs that turn a picture into a textured mesh.

Every request carries `Authorization: Bearer TOKEN`. Files are uploaded and fetched by id; no path ever travels.
Errors: `{"error": {"code", "message", "hint", "field"}}`.
"""


def create_routes() -> FastAPI:
    """The routes alone: what the OpenAPI document says."""
    app = FastAPI(
        title="DreamCraft",
        version=__version__,
        description=DESCRIPTION,
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    # The guard checks the token; this is for the document, in which a client must find that it needs one.
    documented = [Security(HTTPBearer(auto_error=False, description="of the state file"))]
    for router in (routes_service.router, routes_jobs.router):
        app.include_router(router, dependencies=documented, responses=ERRORS)
    answer_errors(app)
    return app


def create_app(service: Service, *, token: str, hosts: HostRule | None = None) -> ASGIApp:
    """The whole service as an ASGI application."""
    app = create_routes()
    app.state.service = service
    return Guard(app, token, hosts or HostRule(), service.activity.note)
