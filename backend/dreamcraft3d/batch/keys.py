"""When is a result still the answer to its item? When the item's *key* is the same.

The key is a hash of everything that the result depends on: the settings, the bytes of the files that go in, the
version of the program, and the revisions of the networks. It does not depend on names, tags, priorities and other
things that can change without another result, nor on where files lie.
"""

import hashlib
import json
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from dreamcraft3d import __version__
from dreamcraft3d.batch.tasks import MAPS, Task

__all__ = ["file_digest", "item_key", "revisions"]


def item_key(task: Task) -> str:
    """The key of a task, as its files are now. Raises ``OSError`` if one cannot be read."""
    settings = task.config.model_dump(mode="json")
    for setting in MAPS:
        settings["reference"][setting.rpartition(".")[2]] = None  # their bytes count, not their paths
    settings["shape"]["mesh"] = None
    content: dict[str, Any] = {
        "kind": task.item.kind,
        "prompt": task.item.prompt,
        "negative": task.item.negative,
        "slots": task.item.slots,
        "object": task.item.object,
        "settings": settings,
        "inputs": {name: file_digest(path) for name, path in task.inputs.items()},
        "version": __version__,
        "networks": revisions(task.config.prior_names()),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8")).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=32)
def revisions(names: tuple[str, ...]) -> dict[str, str]:
    """The revision of each network: a commit of its repository, or a hash of the weights that come along."""
    return {name: _revision(name) for name in names}


def _revision(name: str) -> str:
    if name == "exemplar":
        return ""  # it has no weights
    if name == "bundled":
        with resources.as_file(resources.files("dreamcraft3d.priors") / "weights" / "bundled.safetensors") as path:
            return file_digest(path)
    from dreamcraft3d.priors import models

    manifest = models.installed(name)
    return manifest.revision if manifest is not None else ""
