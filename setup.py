"""Give setuptools the one version number of the project, which lives in blender_manifest.toml."""

import tomllib
from pathlib import Path

from setuptools import setup

MANIFEST = Path(__file__).resolve().parent / "blender_manifest.toml"

setup(version=tomllib.loads(MANIFEST.read_text(encoding="utf-8"))["version"])
