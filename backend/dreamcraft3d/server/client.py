"""A client of the service for terminals, tests and measurements: plain, blocking, typed.

The extension has a client of its own (it may not wait, and may not import this package); both speak what
`docs/service.md` says.
"""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import httpx

from dreamcraft3d.errors import DreamCraftError, InputError, OutputError
from dreamcraft3d.server.paths import ServicePaths, service_paths
from dreamcraft3d.server.protocol import PROTOCOL
from dreamcraft3d.server.state_file import ServiceState, read_state
from dreamcraft3d.workspace import atomic_path

__all__ = ["JobFailedError", "RefusedError", "ServiceClient", "ServiceUnavailableError"]

SECONDS = 30.0
"""Longest silence of the service."""

OVER = ("finished", "failed", "cancelled")
PREFIX = 4
"""Fewest characters that stand for a job."""


class ServiceUnavailableError(DreamCraftError):
    """No service runs, or it does not answer, or it is not ours."""


class RefusedError(DreamCraftError):
    """The service said no, and why. `field`: what is wrong with the request."""

    def __init__(
        self, message: str, remedy: str = "", *, status: int = 0, code_word: str = "", field: str = ""
    ) -> None:
        super().__init__(message, remedy)
        self.status, self.code_word, self.field = status, code_word, field


class JobFailedError(DreamCraftError):
    """The job that was followed came to nothing."""

    code: ClassVar[int] = 3


class ServiceClient:
    """Talks to one service. Use it in `with`."""

    def __init__(self, state: ServiceState, *, paths: ServicePaths | None = None) -> None:
        self.state = state
        self._paths = paths or service_paths()
        self._http = new_http(state)

    @classmethod
    def connect(cls, paths: ServicePaths | None = None) -> Self:
        """A client of the running service of this user.

        Raises:
            ServiceUnavailableError: there is none, it does not answer, or it speaks another version.
        """
        paths = paths or service_paths()
        found = read_state(paths.state_file)
        if found is None:
            raise ServiceUnavailableError("The service is not running.", "Start it with `dreamcraft3d serve`.")
        if found.protocol != PROTOCOL:
            message = f"The running service speaks version {found.protocol} of the protocol, this program {PROTOCOL}."
            raise ServiceUnavailableError(message, "Stop it and start it again with `dreamcraft3d serve`.")
        client = cls(found, paths=paths)
        client.health()
        return client

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def call(self, method: str, path: str, **more: Any) -> Any:
        """One request; the JSON of its answer.

        Raises:
            ServiceUnavailableError, RefusedError.
        """
        try:
            answer = self._http.request(method, path, **more)
            record = answer.json()
        except httpx.HTTPError as error:
            raise self._silent(error) from error
        except ValueError as error:
            message = f"Something else than the service answers at {self.state.address}."
            raise ServiceUnavailableError(message, "Start it again with `dreamcraft3d serve`.") from error
        if answer.is_error:
            raise refused(answer.status_code, record)
        return record

    # --- the service --------------------------------------------------------------------------------

    def health(self) -> dict[str, Any]:
        return dict(self.call("GET", "/v1/health", timeout=5.0))

    def server(self) -> dict[str, Any]:
        return dict(self.call("GET", "/v1/server"))

    def shutdown(self) -> None:
        self.call("POST", "/v1/shutdown")

    # --- jobs ---------------------------------------------------------------------------------------

    def upload(self, path: Path) -> str:
        """The id of a file's bytes at the service. Raises ``InputError``."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InputError(f"Cannot read {path}: {error.strerror or error}.", "Check the path.") from error
        kind = {"Content-Type": "application/octet-stream"}
        return str(self.call("POST", "/v1/uploads", content=data, headers=kind)["id"])

    def submit(
        self, picture: Path, *, preset: str = "preview", settings: Mapping[str, Any] | None = None, **more: Any
    ) -> dict[str, Any]:
        """Uploads a picture and queues a job. `more`: further fields of the request; files by their ids."""
        body = {"picture": self.upload(picture), "preset": preset, "settings": dict(settings or {}), **more}
        body.setdefault("name", picture.stem[:120])
        return dict(self.call("POST", "/v1/jobs", json=body))

    def job(self, job: str) -> dict[str, Any]:
        return dict(self.call("GET", f"/v1/jobs/{job}"))

    def jobs(self, *, state: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """The newest first."""
        query: dict[str, Any] = {"limit": limit} if state is None else {"limit": limit, "state": state}
        return list(self.call("GET", "/v1/jobs", params=query)["jobs"])

    def act(self, job: str, action: str) -> dict[str, Any]:
        """cancel, pause, resume or retry."""
        return dict(self.call("POST", f"/v1/jobs/{job}/{action}"))

    def delete(self, job: str) -> None:
        self.call("DELETE", f"/v1/jobs/{job}")

    def resolve(self, text: str) -> str:
        """The id that begins with a text. Raises ``InputError`` if none does, or several do."""
        if len(text) == 32:
            return text
        found = [job["id"] for job in self.jobs(limit=500) if job["id"].startswith(text)]
        if len(text) < PREFIX or len(found) != 1:
            which = "No job" if not found else "More than one job"
            raise InputError(f"{which} has an id that begins with '{text}'.", "`dreamcraft3d jobs list` shows the ids.")
        return str(found[0])

    # --- following and fetching ---------------------------------------------------------------------

    def events(self, job: str, *, since: int = 0, wait: float = 0.0) -> dict[str, Any]:
        query = {"since": since, "wait": wait}
        return dict(self.call("GET", f"/v1/jobs/{job}/events", params=query, timeout=wait + SECONDS))

    def follow(self, job: str, *, since: int = 0, patience: float = 20.0) -> Iterator[dict[str, Any]]:
        """All events until the job is over. Survives a restart of the service that takes less than `patience` s."""
        last_word = time.monotonic()
        while True:
            try:
                news = self.events(job, since=since, wait=10.0)
            except ServiceUnavailableError:
                if time.monotonic() - last_word > patience:
                    raise
                time.sleep(0.3)
                self._reconnect()
                continue
            last_word = time.monotonic()
            for event in news["events"]:
                since = event["number"]
                yield event
            if news["state"] in OVER and since >= news["last"]:
                return

    def download(self, job: str, name: str, target: Path) -> Path:
        """An artifact, into a file that is there whole or not at all."""
        try:
            with (
                self._http.stream("GET", f"/v1/jobs/{job}/artifacts/{name}") as answer,
                atomic_path(target) as temporary,
                temporary.open("wb") as file,
            ):
                if answer.is_error:
                    answer.read()
                    raise refused(answer.status_code, answer.json())
                for chunk in answer.iter_bytes():
                    file.write(chunk)
        except httpx.HTTPError as error:
            raise self._silent(error) from error
        except OSError as error:
            raise OutputError(f"Cannot write {target}: {error.strerror or error}.", "Choose another place.") from error
        return target

    def _reconnect(self) -> None:
        """Another start of the service has another port and token."""
        found = read_state(self._paths.state_file)
        if found is not None and found.boot_id != self.state.boot_id:
            self._http.close()
            self.state, self._http = found, new_http(found)

    def _silent(self, error: Exception) -> ServiceUnavailableError:
        message = f"The service does not answer at {self.state.address} ({type(error).__name__})."
        return ServiceUnavailableError(message, "Start it with `dreamcraft3d serve`; its log may say more.")


def new_http(state: ServiceState) -> httpx.Client:
    """Nothing of the environment: a proxy has no business between a user and a service on the same machine."""
    headers = {"Authorization": f"Bearer {state.token}"}
    return httpx.Client(base_url=state.address, headers=headers, timeout=SECONDS, trust_env=False)


def refused(status: int, record: Any) -> RefusedError:
    """The service's error as ours."""
    said = record.get("error", {}) if isinstance(record, dict) else {}
    message, hint = str(said.get("message", f"The service answered {status}.")), str(said.get("hint", ""))
    return RefusedError(
        message, hint, status=status, code_word=str(said.get("code", "")), field=str(said.get("field") or "")
    )
