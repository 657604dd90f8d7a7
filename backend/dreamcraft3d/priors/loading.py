"""From a prior's name in the configuration to a prior that works."""

from dreamcraft3d.errors import ConfigError, MissingDependencyError
from dreamcraft3d.priors.base import DiffusionPrior
from dreamcraft3d.priors.models import catalogue, folder_of

__all__ = ["check_present", "load_prior"]

BUNDLED = "bundled"


def load_prior(name: str) -> DiffusionPrior:
    """The prior with this name (bundled, a model of the catalogue, a folder), in main memory.

    Raises:
        MissingDependencyError: it is not on this machine. ConfigError: there is none of that name.
    """
    if name == BUNDLED:
        from dreamcraft3d.priors.bundled import BundledPrior

        return BundledPrior.load()
    folder_of(name)
    raise ConfigError(f"The prior {name} cannot be loaded by this version.", "Choose bundled.")


def check_present(names: tuple[str, ...]) -> None:
    """Refuses before any work if one of the priors is not on this machine. Cheap.

    Raises:
        MissingDependencyError: names all that are missing, and the one command that brings them.
        ConfigError: there is no prior of that name.
    """
    missing = []
    for name in names:
        if name == BUNDLED:
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
