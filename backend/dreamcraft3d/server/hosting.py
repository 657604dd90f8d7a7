"""What the routes work with: one record of everything that one start of the service has."""

import os
import threading
import time
from dataclasses import dataclass, field
from typing import Annotated

from anyio import CapacityLimiter
from fastapi import Depends, Request

from dreamcraft3d.executors.base import Executor
from dreamcraft3d.server.paths import ServicePaths
from dreamcraft3d.server.store import Store
from dreamcraft3d.server.uploads import Uploads

__all__ = ["Activity", "CurrentService", "Service"]

WAITERS = 32
"""Clients that may wait for events at once; others are answered at once and ask again."""


@dataclass
class Activity:
    """When the service was last asked for something; seconds of a clock that never jumps."""

    last: float = field(default_factory=time.monotonic)

    def note(self) -> None:
        self.last = time.monotonic()

    @property
    def idle(self) -> float:
        return time.monotonic() - self.last


@dataclass(frozen=True)
class Service:
    """One start of the service. Who sets `stopping` ends it soon; clients that wait are then answered at once."""

    store: Store
    executor: Executor
    paths: ServicePaths
    uploads: Uploads
    boot_id: str
    stopping: threading.Event
    pid: int = field(default_factory=os.getpid)
    started: float = field(default_factory=time.time)
    activity: Activity = field(default_factory=Activity)
    waiters: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(WAITERS))


async def current_service(request: Request) -> Service:
    """The record of the application that answers this request."""
    service: Service = request.app.state.service
    return service


CurrentService = Annotated[Service, Depends(current_service)]
