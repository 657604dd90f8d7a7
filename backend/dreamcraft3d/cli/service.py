"""`dreamcraft3d serve` and `jobs`: the service, and a terminal's view of its queue."""

import gc
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.text import Text

from dreamcraft3d.cli.shell import Json, Preset, Settings, app, console, failing_politely, finish
from dreamcraft3d.config import parse_setting

if TYPE_CHECKING:
    from dreamcraft3d.server.client import ServiceClient
    from dreamcraft3d.server.service import Announcement

jobs = typer.Typer(help="The service's queue: submit, list, follow, cancel.", no_args_is_help=True)
app.add_typer(jobs, name="jobs")

JobName = Annotated[str, typer.Argument(metavar="JOB", help="Id of the job, or its beginning.", show_default=False)]
COLOURS = {"finished": "green", "failed": "red", "running": "cyan", "cancelled": "dim", "paused": "yellow"}


@app.command()
def serve(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: the system chooses a free one.")] = 0,
    allow_remote: Annotated[
        str | None, typer.Option(metavar="HOST", help="Listen on this address, for other machines. Unencrypted!")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of jobs and uploads.")] = None,
    idle_minutes: Annotated[
        float | None, typer.Option(min=0.01, help="End after that long without a request or a job.")
    ] = None,
    started_by: Annotated[str, typer.Option(help="Who starts it, for the log.", hidden=True)] = "a terminal",
) -> None:
    """Run the service: a queue of jobs behind a local socket. If it runs already, say where."""
    with failing_politely(None, as_json=False):
        gc.disable()  # a tenth of the start would go into looking for garbage among what is being imported
        from dreamcraft3d.server.service import LOOPBACK, ServeOptions
        from dreamcraft3d.server.service import serve as run

        host = allow_remote or LOOPBACK
        run(ServeOptions(host, port, data, idle_minutes, started_by), announce)


def announce(announcement: "Announcement") -> None:
    """One JSON line for programs, and one for people. The token is in the state file only."""
    gc.enable()
    state = announcement.state
    record = {"event": announcement.event, "host": state.host, "port": state.port, "pid": state.pid}
    record |= {"boot_id": state.boot_id, "protocol": state.protocol, "state_file": str(announcement.state_file)}
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()
    already = "is already running" if announcement.event == "attached" else "is running"
    console.print(f"DreamCraft {already} at {state.address} (process {state.pid}).", highlight=False, markup=False)


@contextmanager
def talking(*, as_json: bool) -> Iterator["ServiceClient"]:
    """A client of the running service, with errors for people."""
    with failing_politely(None, as_json=as_json):
        from dreamcraft3d.server.client import ServiceClient

        with ServiceClient.connect() as client:
            yield client


@jobs.command("list")
def list_jobs(
    state: Annotated[str | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many, the newest first.")] = 30,
    as_json: Json = False,
) -> None:
    """List jobs, the newest first."""
    with talking(as_json=as_json) as client:
        found = client.jobs(state=state, limit=limit)
        lines = [job_line(job) for job in found] or [Text("There are no jobs.")]
        finish({"ok": True, "jobs": found}, as_json=as_json, lines=lines)


def job_line(job: dict[str, Any]) -> Text:
    """One job for people: beginning of its id, state, where it is, name."""
    where = f"{job['stage']} {job['step']}/{job['total']}" if job["stage"] else ""
    if job["position"] is not None:
        where = f"{job['position']} before it"
    if job["error"]:
        where = job["error"]["message"]
    colour = COLOURS.get(job["state"], "")
    name = job["name"] or "(no name)"
    return Text.assemble((job["id"][:8], "bold"), "  ", (f"{job['state']:9}", colour), f"  {name}  ", (where, "dim"))


@jobs.command()
def submit(
    picture: Annotated[Path, typer.Argument(help="PNG, JPEG, WebP, TIFF or BMP of one object.", show_default=False)],
    preset: Preset = "preview",
    settings: Settings = [],  # noqa: B006
    mask: Annotated[Path | None, typer.Option(help="Where the object is: white on black.")] = None,
    shape: Annotated[
        Path | None, typer.Option(metavar="MESH", help="Start from this object's shape (GLB, OBJ).")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What to call the job.")] = None,
    priority: Annotated[int, typer.Option(min=-10, max=10, help="Larger = earlier.")] = 0,
    wait: Annotated[bool, typer.Option("--follow", help="Show what happens until it is done.")] = False,
    as_json: Json = False,
) -> None:
    """Queue a job."""
    with talking(as_json=as_json) as client:
        more: dict[str, Any] = {"priority": priority}
        if name is not None:
            more["name"] = name
        if mask is not None:
            more["mask"] = client.upload(mask)
        if shape is not None:
            more["shape"] = client.upload(shape)
        job = client.submit(picture, preset=preset, settings=dict(map(parse_setting, settings)), **more)
        finish({"ok": True, "job": job}, as_json=as_json, lines=[job["id"]])
        if wait:
            watch(client, job["id"], as_json=as_json)


@jobs.command()
def follow(job: JobName, as_json: Json = False) -> None:
    """Show what happens to a job until it is over. Ends with code 3 if it fails."""
    with talking(as_json=as_json) as client:
        watch(client, client.resolve(job), as_json=as_json)


def watch(client: "ServiceClient", job: str, *, as_json: bool) -> None:
    from dreamcraft3d.server.client import JobFailedError

    failure: dict[str, Any] = {}
    for event in client.follow(job):
        if as_json:
            sys.stdout.write(json.dumps(event) + "\n")
            sys.stdout.flush()
        else:
            console.print(event_line(event), highlight=False, markup=False, soft_wrap=True)
        failure = event["data"] if event["type"] == "failed" else {}
    if failure:
        raise JobFailedError(failure.get("message", "The job failed."), failure.get("hint", ""))


def event_line(event: dict[str, Any]) -> str:
    """One event for people."""
    data = event["data"]
    match event["type"]:
        case "progress":
            return f"{data['stage']}: {data['step']}/{data['total']}, {data['eta']:.0f} s left"
        case "stage":
            return f"{data['stage']}: begins"
        case "warning" | "note":
            return str(data.get("text", ""))
        case "preview" | "artifact":
            return f"{event['type']}: {data.get('artifact', '')}"
        case kind:
            reason = data.get("reason") or data.get("message") or ""
            return f"{kind} {reason}".rstrip()


@jobs.command()
def fetch(
    job: JobName,
    name: Annotated[str, typer.Option(help="Which file of the job.")] = "result.glb",
    out: Annotated[Path | None, typer.Option(help="File to write (default: its name, here).")] = None,
    as_json: Json = False,
) -> None:
    """Fetch a file of a job."""
    with talking(as_json=as_json) as client:
        target = client.download(client.resolve(job), name, out or Path(name))
        finish({"ok": True, "file": str(target)}, as_json=as_json, lines=[str(target)])


def change(job: str, action: Literal["cancel", "pause", "resume", "retry"], *, as_json: bool) -> None:
    with talking(as_json=as_json) as client:
        changed = client.act(client.resolve(job), action)
        finish({"ok": True, "job": changed}, as_json=as_json, lines=[job_line(changed)])


@jobs.command()
def cancel(job: JobName, as_json: Json = False) -> None:
    """Cancel a job; a running one stops at its next step."""
    change(job, "cancel", as_json=as_json)


@jobs.command()
def pause(job: JobName, as_json: Json = False) -> None:
    """Pause a job; a running one stops at its next step, with a checkpoint."""
    change(job, "pause", as_json=as_json)


@jobs.command()
def resume(job: JobName, as_json: Json = False) -> None:
    """Let a paused job go on."""
    change(job, "resume", as_json=as_json)


@jobs.command()
def retry(job: JobName, as_json: Json = False) -> None:
    """Queue a failed or cancelled job again; it goes on where it stopped."""
    change(job, "retry", as_json=as_json)


@jobs.command()
def delete(job: JobName, as_json: Json = False) -> None:
    """Forget a job and remove its files."""
    with talking(as_json=as_json) as client:
        found = client.resolve(job)
        client.delete(found)
        finish({"ok": True, "deleted": found}, as_json=as_json, lines=[f"{found[:8]} is deleted."])


@jobs.command("stop-service")
def stop_service(as_json: Json = False) -> None:
    """Stop the service; a running job is kept and goes on when the service starts again."""
    with talking(as_json=as_json) as client:
        client.shutdown()
        finish({"ok": True}, as_json=as_json, lines=["The service is stopping."])
