"""From a prior's name in the configuration to a prior that works."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from dreamcraft3d.errors import ConfigError, MissingDependencyError
from dreamcraft3d.priors.base import DiffusionPrior
from dreamcraft3d.priors.models import Pose, catalogue, folder_of

__all__ = ["check_present", "check_words", "load_prior", "needs_words"]

BUNDLED, EXEMPLAR = "bundled", "exemplar"
BUILT_IN = (BUNDLED, EXEMPLAR)
"""Priors that come with the program: the bundled network, and the picture's own patches, which need none."""

Family = Literal["stable-diffusion", "deepfloyd", "zero123"]
PIPELINES: dict[str, Family] = {
    "StableDiffusionPipeline": "stable-diffusion",
    "IFPipeline": "deepfloyd",
    "Zero123Pipeline": "zero123",
    "Zero1to3StableDiffusionPipeline": "zero123",
}
"""Which family a folder belongs to, by the class that its model_index.json names."""


def load_prior(name: str, *, prompt: str = "") -> DiffusionPrior:
    """The prior with this name (bundled, exemplar, a model of the catalogue, a folder), in main memory.

    Args:
        prompt: the object in words, for priors that need them.

    Raises:
        MissingDependencyError: it is not on this machine, or a package is missing. ConfigError: there is none of that
        name, or it is no prior, or needs words. DreamCraftError: it is damaged.
    """
    if name == BUNDLED:
        from dreamcraft3d.priors.bundled import BundledPrior

        return BundledPrior.load()
    if name == EXEMPLAR:
        from dreamcraft3d.priors.exemplar import ExemplarPrior

        return ExemplarPrior()
    folder, family = folder_of(name), family_of(name)
    if family == "zero123":
        from dreamcraft3d.priors.zero123 import Zero123Prior

        return Zero123Prior.load(folder, pose=pose_of(name), name=name)
    check_words((name,), prompt)
    if family == "deepfloyd":
        from dreamcraft3d.priors.deepfloyd import DeepFloydPrior

        return DeepFloydPrior.load(folder, prompt=prompt, name=name)
    from dreamcraft3d.priors.stable_diffusion import StableDiffusionPrior

    return StableDiffusionPrior.load(folder, prompt=prompt, name=name)


def family_of(name: str) -> Family:
    """Which class of prior serves a model of the catalogue, or a folder of one's own.

    Raises:
        ConfigError: none does.
    """
    if name in catalogue():
        role = catalogue()[name].role
        families: dict[str, Family] = {"view": "zero123", "image": "deepfloyd", "texture": "stable-diffusion"}
        if role not in families:
            raise ConfigError(f"{name} is no prior.", "Its role is another one: `dreamcraft3d models list`.")
        return families[role]
    index = folder_of(name) / "model_index.json"
    try:
        pipeline = str(json.loads(index.read_text(encoding="utf-8")).get("_class_name", ""))
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"{index} cannot be read.", "Export the model again in diffusers layout.") from error
    if pipeline not in PIPELINES:
        raise ConfigError(
            f"The model in {index.parent} is a {pipeline or 'model of no known kind'}, which cannot serve as a prior.",
            f"Known kinds: {', '.join(PIPELINES)}.",
        )
    return PIPELINES[pipeline]


def pose_of(name: str) -> Pose:
    """The pose convention of a Zero123 model; of a folder of one's own, by its name."""
    if name in catalogue():
        pose = catalogue()[name].pose
        assert pose is not None
        return pose
    return "stable-zero123" if "stable" in Path(name).name.lower() else "zero123"


def needs_words(name: str) -> bool:
    """Whether a prior has to be told in words what the object is."""
    return name not in BUILT_IN and family_of(name) != "zero123"


def check_words(names: Iterable[str], prompt: str) -> None:
    """Refuses before any work if a prior needs words and there are none.

    Raises:
        ConfigError: names the prior.
    """
    wordless = [name for name in names if needs_words(name)]
    if wordless and not prompt.strip():
        raise ConfigError(
            f"The prior {wordless[0]} must be told in words what the picture shows.",
            'Add --prompt "a red bird", or choose --preset preview, whose prior needs no words.',
        )


def check_present(names: tuple[str, ...]) -> None:
    """Refuses before any work if one of the priors is not on this machine. Cheap.

    Raises:
        MissingDependencyError: names all that are missing, and the one command that brings them.
        ConfigError: there is no prior of that name.
    """
    missing = []
    for name in names:
        if name in BUILT_IN:
            continue
        try:
            folder_of(name)
        except MissingDependencyError:
            missing.append(name)
    if len(missing) == 1:
        folder_of(missing[0])
    if missing:
        gigabytes = sum(catalogue()[name].size for name in missing) / 1e9
        raise MissingDependencyError(
            f"These models are not on this machine, or are damaged: {', '.join(missing)}.",
            f"Run `dreamcraft3d models download {' '.join(missing)}` ({gigabytes:.1f} GB), or choose --preset preview.",
        )
