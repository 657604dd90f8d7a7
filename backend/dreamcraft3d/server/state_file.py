"""The state file: how other programs of the same user find the running service, and the token that it wants.

It lies in the user's runtime folder, readable for the user only, and is written whole. What it says is believed only
after the service that it names has answered with its boot id: a process number may be anybody's by now.
"""

import contextlib
import dataclasses
import http.client
import json
import os
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path

from dreamcraft3d.workspace import output_error

__all__ = ["ServiceState", "answers", "forget_state", "read_state", "write_state"]

PATIENCE = 2.0
"""Seconds that a service may take to show a sign of life."""


@dataclass(frozen=True)
class ServiceState:
    """One start of the service. `started`: seconds since 1970. `data`: its data folder."""

    pid: int
    boot_id: str
    host: str
    port: int
    token: str = field(repr=False)
    protocol: int
    version: str
    started: float
    data: str = ""

    @property
    def address(self) -> str:
        """As in an address of the web."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


def write_state(path: Path, state: ServiceState) -> None:
    """Writes the file whole, for its user only at every moment. Raises ``OutputError``."""
    partial = path.with_suffix(".partial")
    try:
        partial.unlink(missing_ok=True)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump(dataclasses.asdict(state), file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise output_error(error, path) from error


def read_state(path: Path) -> ServiceState | None:
    """What the file says; None if there is none, it is damaged, or others could have written it."""
    try:
        status = path.stat()
        foreign = sys.platform != "win32" and status.st_uid != os.getuid()
        if foreign or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return None
        values = json.loads(path.read_text(encoding="utf-8"))
        kinds = {item.name: item.type for item in dataclasses.fields(ServiceState)}
        known = {name: values[name] for name in kinds if name in values}
        if not all(isinstance(known[name], kind) for name, kind in kinds.items() if isinstance(kind, type)):
            return None
        return ServiceState(**known)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def forget_state(path: Path, boot_id: str) -> None:
    """Removes the file, if it is still ours."""
    state = read_state(path)
    if state is not None and state.boot_id == boot_id:
        with contextlib.suppress(OSError):
            path.unlink()


def answers(state: ServiceState, *, seconds: float = PATIENCE) -> bool:
    """Whether the service that the file names lives."""
    connection = http.client.HTTPConnection(state.host, state.port, timeout=seconds)
    try:
        connection.request("GET", "/v1/health", headers={"Authorization": f"Bearer {state.token}"})
        record = json.loads(connection.getresponse().read(1 << 16))
        return isinstance(record, dict) and record.get("boot_id") == state.boot_id
    except (OSError, ValueError, http.client.HTTPException):
        return False
    finally:
        connection.close()
