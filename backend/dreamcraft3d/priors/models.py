"""The public models that can serve as priors: what they are, where they lie on this machine, and their licences.

`catalogue.json` names them (facts only: repositories, revisions, licences, networks); `networks/*.json` hold the
configurations of their networks. A model is found in the models folder (one folder per model, see `home`), or in the
cache of the Hugging Face hub when another program has loaded it; `downloads` and `model_store` fill the models folder.
Nothing here touches the network or imports torch, so that a run can refuse early.
"""

import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import platformdirs

from dreamcraft3d.errors import ConfigError, MissingDependencyError
from dreamcraft3d.priors.model_files import Manifest, lacking, read_manifest, variant_of

__all__ = [
    "Entry",
    "Licence",
    "Source",
    "catalogue",
    "entry",
    "folder_of",
    "home",
    "installed",
    "network",
    "variant_in",
]

Role = Literal["view", "image", "texture", "perception", "picture"]
Pose = Literal["zero123", "stable-zero123"]

HOME_VARIABLE = "DREAMCRAFT3D_MODELS"
HALF = 2
"""Bytes per parameter of half-precision weights."""


@dataclass(frozen=True)
class Licence:
    """`commercial`: whether commercial use is allowed (with the conditions in `note`)."""

    key: str
    title: str
    url: str
    commercial: bool
    note: str


@dataclass(frozen=True)
class Source:
    """A repository on the hub. `revision`: commit, None where it is not known (then the newest is taken and recorded);
    `variant`: file variant to prefer; `checked`: how far these facts were verified.
    """

    repository: str
    revision: str | None
    variant: str | None
    checked: str


@dataclass(frozen=True)
class Entry:
    """A model of the catalogue.

    Attributes:
        role: view (3D-aware prior), image (2D prior of the geometry stages), texture (2D prior of the texture stage),
            perception (depth, normals), picture (text to picture).
        networks: component -> name of its configuration in `networks/`. files: components without a network.
        schedule: arguments of the noise schedule. pose: which of Zero123's two pose conventions (view priors only).
    """

    name: str
    role: Role
    summary: str
    licence: Licence
    gated: bool
    sources: tuple[Source, ...]
    networks: Mapping[str, str]
    files: tuple[str, ...]
    schedule: Mapping[str, Any]
    prediction_type: Literal["epsilon", "v_prediction"]
    pose: Pose | None

    @property
    def components(self) -> tuple[str, ...]:
        """Sub-folders in diffusers layout."""
        return (*self.files, *self.networks)

    @property
    def variant(self) -> str | None:
        """File variant on this machine: of the installed copy, or of the first source."""
        manifest = installed(self.name)
        return manifest.variant if manifest else self.sources[0].variant

    @property
    def size(self) -> int:
        """Bytes of the weights in half precision, by the number of parameters."""
        return HALF * sum(int(network(kind)["parameters"]) for kind in self.networks.values())


@cache
def catalogue() -> Mapping[str, Entry]:
    """All models by name."""
    values = json.loads(_data().joinpath("catalogue.json").read_text(encoding="utf-8"))
    licences = {key: Licence(key, **licence) for key, licence in values["licences"].items()}
    return {item["name"]: _entry(item, licences) for item in values["models"]}


def _entry(item: dict[str, Any], licences: Mapping[str, Licence]) -> Entry:
    sources = tuple(Source(**source) for source in item["sources"])
    fixed = {"licence": licences[item["licence"]], "sources": sources, "files": tuple(item["files"])}
    return Entry(**{**item, **fixed})


@cache
def network(name: str) -> Mapping[str, Any]:
    """Configuration of a network: `kind` (class), `config` (its arguments), `parameters` (their number)."""
    text = _data().joinpath("networks", f"{name}.json").read_text(encoding="utf-8")
    record: Mapping[str, Any] = json.loads(text)
    return record


def _data() -> Any:
    return resources.files("dreamcraft3d.priors")


def entry(name: str) -> Entry:
    """The catalogue's entry. Raises ConfigError for a name that it does not have."""
    models = catalogue()
    if name not in models:
        near = difflib.get_close_matches(name, models, n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise ConfigError(
            f"There is no model '{name}' in the catalogue.", f"{hint}`dreamcraft3d models list` shows all."
        )
    return models[name]


def home() -> Path:
    """The models folder: DREAMCRAFT3D_MODELS, else `models` in the program's data folder."""
    if chosen := os.environ.get(HOME_VARIABLE):
        return Path(chosen).expanduser().absolute()
    data = os.environ.get("DREAMCRAFT3D_HOME") or platformdirs.user_data_dir("dreamcraft3d", appauthor=False)
    return Path(data).expanduser().absolute() / "models"


# --- finding --------------------------------------------------------------------------------------


def folder_of(name: str) -> Path:
    """The folder of a model in diffusers layout; `name` is one of the catalogue, or the path of a folder of one's own.

    Raises:
        MissingDependencyError: the model is not on this machine, or is damaged. ConfigError: there is no such model.
    """
    own = Path(name).expanduser()
    if name not in catalogue() and (own / "model_index.json").is_file():
        return own.absolute()
    model = entry(name)
    folder, manifest = home() / name, installed(name)
    if manifest is None:
        if (cached := _in_hub_cache(model)) is not None:
            return cached
        gigabytes = model.size / 1e9
        raise MissingDependencyError(
            f"The model {name} is not on this machine.",
            f"Run `dreamcraft3d models download {name}` ({gigabytes:.1f} GB), or choose a preset that needs none.",
        )
    if broken := lacking(folder, manifest.files):
        raise MissingDependencyError(
            f"The model {name} is damaged: {broken[0]} is missing or of the wrong size.",
            f"Run `dreamcraft3d models verify {name} --repair`.",
        )
    return folder


def installed(name: str) -> Manifest | None:
    """The manifest of a complete model in the models folder."""
    return read_manifest(home() / name)


def variant_in(folder: Path) -> str | None:
    """The variant in the names of a folder's weights (diffusers must be told); None where the names have none."""
    found = {variant_of(path.name) for path in folder.glob("*/*.safetensors")}
    return None if None in found or not found else sorted(filter(None, found))[0]


def _in_hub_cache(model: Entry) -> Path | None:
    """A complete snapshot of a pinned source that another program has loaded."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    for source in model.sources:
        if source.revision is None:
            continue
        place = repo_folder_name(repo_id=source.repository, repo_type="model")
        folder = Path(constants.HF_HUB_CACHE) / place / "snapshots" / source.revision
        if all(any((folder / part).glob("*.safetensors")) for part in model.networks):
            return folder
    return None
