"""A zip for a bug report: what this machine is, what the service logged, how the latest jobs went.

Left out are pictures, meshes, names that people gave, the token, and the name of the user's home folder. Everything
inside is text, so that people can read what they send.
"""

import dataclasses
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from dreamcraft3d import __version__
from dreamcraft3d.doctor import Check
from dreamcraft3d.server.logs import Redactor
from dreamcraft3d.server.paths import ServicePaths
from dreamcraft3d.server.state_file import read_state
from dreamcraft3d.server.store import Job, Store
from dreamcraft3d.workspace import atomic_path

__all__ = ["write_bundle"]

JOBS = 30
"""The latest jobs that are told about."""

EVENTS = 60
"""The latest events of each."""

LOG_BYTES = 512 << 10
"""The end of each log."""

PACKAGES = ("torch", "warp-lang", "diffusers", "numpy", "pydantic", "fastapi", "uvicorn", "httpx")


def write_bundle(target: Path, paths: ServicePaths, checks: Iterable[Check]) -> list[str]:
    """Writes the zip; names of what is in it. Works beside a running service and without one.

    Raises:
        OutputError: the file cannot be written.
    """
    state = read_state(paths.state_file)
    redact = Redactor([state.token] if state is not None else [])
    texts = dict(contents(paths, checks))
    with atomic_path(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, text in texts.items():
            bundle.writestr(name, without_home(redact(text)))
    return list(texts)


def contents(paths: ServicePaths, checks: Iterable[Check]) -> Iterator[tuple[str, str]]:
    """(name, text) of everything that goes in."""
    yield "versions.json", as_text({"dreamcraft3d": __version__, **versions()})
    yield "doctor.json", as_text([dataclasses.asdict(check) for check in checks])
    state = read_state(paths.state_file)
    if state is not None:
        shown = {key: value for key, value in dataclasses.asdict(state).items() if key != "token"}
        yield "service.json", as_text(shown)
    for log in sorted(paths.log.parent.glob("*.log*")) if paths.log.parent.is_dir() else ():
        yield f"logs/{log.name}", tail(log)
    if paths.database.is_file():
        yield from job_records(paths)


def job_records(paths: ServicePaths) -> Iterator[tuple[str, str]]:
    store = Store(paths.database)
    try:
        jobs = store.page(limit=JOBS)
        yield "jobs.json", as_text([job_record(job) for job in jobs])
        for job in jobs:
            found = store.events(job.id, since=max(0, job.last_event - EVENTS))
            yield f"jobs/{job.id}/events.json", as_text([dataclasses.asdict(event) for event in found])
            log = paths.job(job.id) / "log.txt"
            if log.is_file() and not log.is_symlink():
                yield f"jobs/{job.id}/log.txt", tail(log)
    finally:
        store.close()


def job_record(job: Job) -> dict[str, Any]:
    """A job without the words that its user gave it."""
    request: Mapping[str, Any] = job.request
    asked = {key: request.get(key) for key in ("kind", "preset", "settings")}
    asked["files"] = sorted(request.get("files", {}))
    times = {"created": job.created, "started": job.started, "finished": job.finished}
    return {"id": job.id, "life": dataclasses.asdict(job.life), **asked, **times, "error": job.error}


def versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def tail(path: Path) -> str:
    """The end of a text file, from the beginning of a line."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - LOG_BYTES))
            data = file.read()
    except OSError as error:
        return f"(cannot be read: {error.strerror})"
    if size > LOG_BYTES:
        data = data.partition(b"\n")[2]
    return data.decode("utf-8", "replace")


def without_home(text: str) -> str:
    """The user's home folder as `~`: its name is often theirs."""
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text


def as_text(value: Any) -> str:
    return json.dumps(value, indent=1, default=str) + "\n"
