"""Whether a request can become a job: everything that can be known before any work is done is said at once.

What comes in is already well formed (`protocol`); here it is compared with the configuration, the uploads, the models
on this machine and the length of the queue. Every refusal names its field.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dreamcraft3d.config import GenerateConfig
from dreamcraft3d.errors import ConfigError, MissingDependencyError
from dreamcraft3d.presets import PRESETS, configure
from dreamcraft3d.priors.models import catalogue, folder_of
from dreamcraft3d.server.answers import ServiceError
from dreamcraft3d.server.jobs import State
from dreamcraft3d.server.protocol import JobRequest, ReferenceRequest
from dreamcraft3d.server.store import Store
from dreamcraft3d.server.uploads import Uploads, check_upload_mesh, check_upload_picture, check_upload_shape

__all__ = ["MAX_MEGAPIXELS", "MAX_WAITING", "PATH_SETTINGS", "check_job", "checked_config", "missing_models"]

MAX_WAITING = 20_000
"""Jobs that may wait."""

MAX_MEGAPIXELS = 64.0
"""Pictures with more are refused before they are decoded, whatever the settings say."""

PATH_SETTINGS: dict[str, str | None] = {
    "reference.mask": "mask",
    "reference.depth": "depth",
    "reference.normal": "normal",
    "shape.mesh": "shape",
    "exemplar.picture": None,
}
"""Settings that hold paths, and the fields for uploads that a client sends instead (if any): its paths are never
opened."""

PRIOR_SETTINGS = ("priors.view", "priors.image", "priors.texture")
BUILT_IN = ("bundled", "exemplar", "none")
"""Priors that need no model."""

PICTURES = ("picture", "mask", "depth", "normal")


def check_job(request: JobRequest, uploads: Uploads, store: Store) -> None:
    """Raises ``ServiceError`` for a request that cannot become a job."""
    config = checked_config(request.preset, request.settings)
    check_files(request, uploads, config)
    check_kind(request, uploads)
    if request.shape is not None:  # the volume stages do not run, and their priors are not needed
        config = config.model_copy(update={"shape": config.shape.model_copy(update={"mesh": Path(request.shape)})})
    if missing := missing_models(config):
        message = f"The preset needs models that are not on this machine: {', '.join(missing)}."
        hint = f"Run `dreamcraft3d models download {' '.join(missing)}`, or choose the preset preview."
        raise ServiceError(422, "missing_model", message, hint, field="preset")
    # The first number is cheap and never smaller than the second, which means counting.
    if store.count() >= MAX_WAITING and store.count(State.QUEUED) >= MAX_WAITING:
        message = f"{MAX_WAITING} jobs are waiting already."
        raise ServiceError(429, "queue_full", message, "Cancel some, or wait.")


def check_kind(request: JobRequest, uploads: Uploads) -> None:
    """Raises ``ServiceError`` if a field is missing that this kind of job needs, or there that it does not take."""
    if request.kind == "generate":
        if request.picture is None:
            raise ServiceError(422, "missing_field", "A generation needs a picture.", "Upload one.", field="picture")
        refuse(request, ("mesh", "slots"), "Only jobs of the kind refine take this.")
        if request.shape is not None:
            check_upload_shape(found_upload(request.shape, uploads, "shape"), field="shape")
        return
    refuse(request, ("mask", "depth", "normal", "shape"), "A refinement does not take this.")
    if request.mesh is None:
        raise ServiceError(422, "missing_field", "A refinement needs a mesh.", "Upload one.", field="mesh")
    if check_upload_mesh(found_upload(request.mesh, uploads, "mesh"), field="mesh") == "request":
        refuse(request, ("picture", "slots"), "The parts of a refine request say this themselves.")


def refuse(request: JobRequest, fields: Sequence[str], why: str) -> None:
    """Raises ``ServiceError`` for the first of these fields that is there."""
    for field in fields:
        if getattr(request, field):
            raise ServiceError(422, "bad_field", why, "Leave it out.", field=field)


def checked_config(preset: str, settings: Mapping[str, Any]) -> GenerateConfig:
    """The configuration that a request means.

    Raises:
        ServiceError: an unknown preset or setting, a wrong value, or a setting that would name a path.
    """
    if preset not in PRESETS:
        hint = f"Choose one of {', '.join(PRESETS)}."
        raise ServiceError(422, "bad_preset", f"There is no preset '{preset}'.", hint, field="preset")
    for key, field in PATH_SETTINGS.items():
        if settings.get(key) is not None:
            hint = "Leave it out." if field is None else f"Upload the file and put its id into the field {field}."
            raise ServiceError(422, "bad_setting", f"{key} cannot be a path here.", hint, field=f"settings.{key}")
    for key in PRIOR_SETTINGS:
        if key in settings and settings[key] not in (*BUILT_IN, *catalogue()):
            message = f"There is no model '{settings[key]}' in the catalogue."
            raise ServiceError(422, "bad_setting", message, "GET /v1/server lists them.", field=f"settings.{key}")
    try:
        return configure(preset, settings)
    except ConfigError as error:
        named = next((key for key in settings if key and key in error.message), None)
        where = "settings" if named is None else f"settings.{named}"
        raise ServiceError(422, "bad_setting", error.message, error.remedy, field=where) from error


def check_files(request: JobRequest | ReferenceRequest, uploads: Uploads, config: GenerateConfig) -> dict[str, Path]:
    """The files of a request by field. Raises ``ServiceError`` for one that is missing or no picture."""
    found: dict[str, Path] = {}
    for field in PICTURES:
        upload = getattr(request, field, None)
        if upload is None:
            continue
        path = found_upload(upload, uploads, field)
        check_upload_picture(path, field=field, max_megapixels=min(MAX_MEGAPIXELS, config.reference.max_megapixels))
        found[field] = path
    return found


def found_upload(upload: str, uploads: Uploads, field: str) -> Path:
    """The file of an id. Raises ``ServiceError``, which names the field, if it is not there."""
    path = uploads.find(upload)
    if path is None:
        message = f"The service does not have the {field} (it may have been tidied away)."
        raise ServiceError(422, "unknown_upload", message, "Upload it again.", field=field)
    return path


def missing_models(config: GenerateConfig) -> list[str]:
    """Priors that the configuration asks and this machine does not have."""
    missing = []
    for name in config.prior_names():
        if name not in BUILT_IN:
            try:
                folder_of(name)
            except MissingDependencyError:
                missing.append(name)
    return missing
