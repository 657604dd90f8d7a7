"""DreamCraft: one picture in, a UV-unwrapped, textured mesh out.

The package is the *backend*: models, jobs and files. Its parts, from the ground up: ``functional`` (maths on
tensors), ``kernels`` (fast versions), ``fields`` and ``rendering``, ``priors`` and ``guidance``, ``stages``,
``pipeline``, ``cli``. Importing this module is cheap: it loads neither torch nor any other heavy library.
"""

import importlib.metadata
import os
import tomllib
from pathlib import Path

__all__ = ["__version__"]


def _version() -> str:
    """The number in blender_manifest.toml when this is a source tree, else that of the installed package."""
    manifest = Path(__file__).resolve().parents[2] / "blender_manifest.toml"
    if manifest.is_file():
        return str(tomllib.loads(manifest.read_text(encoding="utf-8"))["version"])
    return importlib.metadata.version("dreamcraft3d")


__version__ = _version()

# torch's OpenMP threads spin between operations, and starve the threads of our own kernels (and every neighbour)
# while they do: a training step on two busy cores took 750 ms spinning and 150 ms asleep. Read when torch is first
# imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
