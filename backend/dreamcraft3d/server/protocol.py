"""The wire as records: what clients send and what they get. The OpenAPI document is made from these.

Strict on the way in (an unknown field is an error that names it, nothing is converted), open on the way out (clients
ignore fields that they do not know). Times are seconds since 1970, sizes are bytes, `eta` is seconds. Files travel by
the id of their upload; nothing that a client sends is a path.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dreamcraft3d.server.jobs import State

__all__ = [
    "PROTOCOL",
    "PROTOCOL_MIN",
    "ArtifactView",
    "DeletedView",
    "DeviceView",
    "ErrorView",
    "EventView",
    "EventsView",
    "FailureView",
    "HealthView",
    "JobRequest",
    "JobView",
    "JobsView",
    "ModelView",
    "PresetView",
    "ReferenceRequest",
    "ReorderRequest",
    "ServerView",
    "UploadView",
]

PROTOCOL = 1
"""The newest version of the wire that this service speaks; a client names none, it looks at `GET /v1/server`."""

PROTOCOL_MIN = 1
"""The oldest one."""

UploadId = Annotated[str, Field(pattern="^[0-9a-f]{64}$", description="What POST /v1/uploads answered.")]
JobId = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
Number = Annotated[int, Field(ge=-(2**63), lt=2**63)] | Annotated[float, Field(allow_inf_nan=False)]
Word = Annotated[str, Field(max_length=1000)]
Points = Annotated[list[Number | Annotated[list[Number], Field(max_length=2)]], Field(max_length=100)]
Setting = bool | Number | Word | Points | None
"""The value of a setting: what JSON has, or points of a schedule. Which one a key takes, the configuration knows."""


class Asked(BaseModel):
    """Base of what clients send."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class View(BaseModel):
    """Base of what clients get."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


# --- asked ----------------------------------------------------------------------------------------


class JobRequest(Asked):
    """One job."""

    kind: Literal["generate", "refine"] = "generate"
    name: Annotated[str, Field(max_length=120)] = ""
    """what people call it"""
    picture: UploadId | None = None
    """PNG, JPEG, WebP, TIFF or BMP of one object; a generation needs one, a refinement may have one"""
    mask: UploadId | None = None
    """where the object is: white on black, of the picture's size"""
    depth: UploadId | None = None
    """depth map; larger = farther"""
    normal: UploadId | None = None
    """normal map in view space"""
    shape: UploadId | None = None
    """a mesh (GLB or OBJ file) whose shape a generation starts from, instead of making one from the picture"""
    mesh: UploadId | None = None
    """what to refine: a GLB file, or a ZIP file with the parts of a refine request (its picture is then inside)"""
    slots: Annotated[list[Annotated[int, Field(ge=0, lt=2**15)]], Field(max_length=1000)] = []
    """materials of a GLB file to repaint; none = all that have texture coordinates"""
    preset: Annotated[str, Field(max_length=40)] = "preview"
    settings: Annotated[dict[str, Setting], Field(max_length=500)] = {}
    """changes to the preset, by dotted key"""
    priority: Annotated[int, Field(ge=-10, le=10)] = 0
    """larger = earlier"""
    client_key: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """a name for this submission: sending it again gives the same job instead of a second one"""
    batch: Annotated[str, Field(max_length=120)] | None = None
    """a name that jobs of one batch share"""


class ReorderRequest(Asked):
    """Where a waiting job should go."""

    before: JobId | None = None
    """directly before this waiting job; null = to the end"""


class ReferenceRequest(Asked):
    """How a picture would be prepared, before a job is made of it."""

    picture: UploadId
    mask: UploadId | None = None
    preset: Annotated[str, Field(max_length=40)] = "preview"
    settings: Annotated[dict[str, Setting], Field(max_length=500)] = {}


# --- answered -------------------------------------------------------------------------------------


class FailureView(View):
    """What went wrong, and what to do about it."""

    code: str
    """one word for programs"""
    message: str
    hint: str = ""
    """what to do"""
    field: str | None = None
    """the field or setting that is wrong, where one is"""


class ErrorView(View):
    """The body of every answer that is an error."""

    error: FailureView


class JobErrorView(View):
    """Why a job failed."""

    code: str
    message: str
    hint: str = ""
    log_tail: str = ""


class ArtifactView(View):
    """A file of a job that can be fetched by its name."""

    name: str
    size: int
    media_type: str


class JobView(View):
    """A job as it is now."""

    id: JobId
    kind: str
    name: str
    state: State
    wish: str
    """pause or cancel while the worker has not obeyed yet, else none"""
    request: dict[str, Any]
    created: float
    started: float | None = None
    finished: float | None = None
    position: int | None = None
    """how many jobs come before it, while it waits"""
    stage: str | None = None
    step: int = 0
    total: int = 0
    eta: float | None = None
    """seconds left of the stage"""
    resumable: bool = False
    """retry or resume goes on where it stopped instead of from the beginning"""
    error: JobErrorView | None = None
    artifacts: list[ArtifactView] = []
    last_event: int = 0


class JobsView(View):
    """A page of jobs, the newest first."""

    jobs: list[JobView]
    next: float | None = None
    """`before` of the next page, if there is one"""


class EventView(View):
    """Something that happened to a job; numbers count from 1 without gaps."""

    number: int
    time: float
    type: str
    data: dict[str, Any]


class EventsView(View):
    """The events after `since`, at most `limit`; `last` is the newest one that there is."""

    events: list[EventView]
    last: int
    state: State


class UploadView(View):
    """`id`: the SHA-256 of the bytes. The same bytes have the same id."""

    id: UploadId
    size: int


class DeletedView(View):
    ok: Literal[True] = True


class HealthView(View):
    """A sign of life."""

    ok: Literal[True] = True
    boot_id: str
    busy: bool
    queued: int


class DeviceView(View):
    """Where jobs run. `kind`: cpu or the name of an accelerator's interface; memory in bytes."""

    name: str
    kind: str
    memory_total: int
    memory_free: int


class PresetView(View):
    """A named set of values; `values`: every setting by dotted key."""

    name: str
    title: str
    description: str
    available: bool
    reason: str = ""
    """why it cannot be used now"""
    minutes: float | None = None
    memory_gib: float | None = None
    models: list[str] = []
    """public models that it needs"""
    values: dict[str, Any]


class ModelView(View):
    """A public model of the catalogue."""

    name: str
    role: str
    installed: bool
    licence: str
    commercial: bool


class ServerView(View):
    """The service about itself."""

    product: Literal["dreamcraft3d"] = "dreamcraft3d"
    version: str
    protocol: int
    protocol_min: int
    boot_id: str
    pid: int
    started: float
    capabilities: list[str]
    device: DeviceView
    presets: list[PresetView]
    models: list[ModelView]
    settings_schema: Annotated[dict[str, Any], Field(serialization_alias="schema")]
    """JSON schema of all settings, with ranges and meanings"""
    limits: dict[str, int]
    disk_free: int
    data: str
    """folder of jobs and uploads, on the service's machine"""
    log: str
    """log file, on the service's machine"""
