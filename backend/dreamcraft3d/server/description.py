"""What the service says about itself: presets with all their values, the schema of the settings, models, limits."""

import inspect
import shutil
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from dreamcraft3d import __version__
from dreamcraft3d.config import GenerateConfig
from dreamcraft3d.presets import PRESETS, configure
from dreamcraft3d.priors.models import catalogue, installed
from dreamcraft3d.server.admission import MAX_MEGAPIXELS, MAX_WAITING, PATH_SETTINGS, missing_models
from dreamcraft3d.server.devices import best_device
from dreamcraft3d.server.hosting import Service
from dreamcraft3d.server.jobs import State
from dreamcraft3d.server.protocol import PROTOCOL, PROTOCOL_MIN, ModelView, PresetView, ServerView
from dreamcraft3d.server.security import MAX_JSON, MAX_UPLOAD
from dreamcraft3d.server.store import Store

__all__ = ["CAPABILITIES", "describe_service", "settings_schema"]

CAPABILITIES = ("generate", "refine")
"""Kinds of jobs."""

TIMELESS = {"seed", "reference.elevation"}
"""Settings that do not change how long a run takes."""

RECENT = 50
"""Finished jobs that tell how long a preset takes."""


def describe_service(service: Service) -> ServerView:
    """Everything that a client needs to draw its panel."""
    minutes = usual_minutes(service.store)
    return ServerView(
        version=__version__,
        protocol=PROTOCOL,
        protocol_min=PROTOCOL_MIN,
        boot_id=service.boot_id,
        pid=service.pid,
        started=service.started,
        capabilities=list(CAPABILITIES),
        device=best_device(),
        presets=[preset_view(name, minutes.get(name)) for name in PRESETS if name != "oracle"],
        models=model_views(),
        settings_schema=settings_schema(),
        limits={
            "json_bytes": MAX_JSON,
            "upload_bytes": MAX_UPLOAD,
            "waiting_jobs": MAX_WAITING,
            "picture_pixels": int(MAX_MEGAPIXELS * 1e6),
        },
        disk_free=shutil.disk_usage(service.paths.data).free,
        data=str(service.paths.data),
        log=str(service.paths.log),
    )


def preset_view(name: str, minutes: float | None) -> PresetView:
    config, values = _preset(name)
    missing = missing_models(config)
    reason = f"these models are not on this machine: {', '.join(missing)}" if missing else ""
    said = inspect.getdoc(PRESETS[name]) or ""
    return PresetView(
        name=name,
        title=name.capitalize(),
        description=said.splitlines()[0] if said else "",
        available=not missing,
        reason=reason,
        minutes=minutes,
        models=[model for model in config.prior_names() if model in catalogue()],
        values=dict(values),
    )


@cache
def _preset(name: str) -> tuple[GenerateConfig, Mapping[str, Any]]:
    config = configure(name)
    values = dict(leaves(config.model_dump(mode="json")))
    return config, {key: value for key, value in values.items() if key not in PATH_SETTINGS}


def usual_minutes(store: Store) -> dict[str, float]:
    """How long unchanged presets took on this machine lately: the only honest estimate before a run."""
    took: dict[str, list[float]] = defaultdict(list)
    for job in store.page(state=State.FINISHED, limit=RECENT):
        unchanged = set(job.request.get("settings", {})) <= TIMELESS and "shape" not in job.request.get("files", {})
        if unchanged and job.started is not None and job.finished is not None:
            took[str(job.request.get("preset"))].append((job.finished - job.started) / 60.0)
    return {preset: round(statistics.median(values), 2) for preset, values in took.items()}


def model_views() -> list[ModelView]:
    return [
        ModelView(
            name=model.name,
            role=model.role,
            installed=installed(model.name) is not None,
            licence=model.licence.title,
            commercial=model.licence.commercial,
        )
        for model in catalogue().values()
    ]


@cache
def settings_schema() -> dict[str, Any]:
    """The JSON schema of the configuration, without what may not come over the wire."""
    schema = GenerateConfig.model_json_schema()
    for key in PATH_SETTINGS:
        group, _, name = key.partition(".")
        reference = schema["properties"][group]["$ref"].rpartition("/")[2]
        del schema["$defs"][reference]["properties"][name]
    return schema


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of nested records."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
