"""`blender_assets.cats.txt`: the catalogues of an asset library. Plain Python.

A user arranges catalogues in Blender, so nothing that is in the file is ever changed or removed: lines are only added.
The id of a new catalogue follows from its path, so every machine gives it the same one.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from pathlib import Path

from .problems import Problem
from .whole_file import write_whole

__all__ = ["NAME", "add_catalogs", "catalog_path"]

NAME = "blender_assets.cats.txt"
NAMESPACE = uuid.UUID("9f0c7f4e-2f55-5d0a-9a0e-5c2f7d1b8a63")
VERSION = 1
HEAD = f"""# This is an Asset Catalog Definition file for Blender.
#
# Empty lines and lines starting with `#` will be ignored.
# The first non-ignored line should be the version indicator.
# Other lines are of the format "UUID:catalog/path/for/assets:simple catalog name"

VERSION {VERSION}

"""


def catalog_path(text: str) -> str:
    """A path as Blender writes it: parts between slashes, without empty ones, colons and line ends."""
    parts = re.sub(r"[:\x00-\x1f]", "-", text.replace("\\", "/")).split("/")
    return "/".join(part.strip() for part in parts if part.strip())


def add_catalogs(folder: Path, wanted: Iterable[str]) -> dict[str, str]:
    """The ids of these catalogues (cleaned paths); writes those that the library lacks. Raises `Problem`.

    A catalogue of ours that the user has given another place keeps its id, and so its assets.
    """
    path = folder / NAME
    try:
        text = path.read_bytes().decode("utf-8") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise Problem("read_only", f"Cannot read {path}: {error}.", "Check the file.") from error
    known = _known(path, text)
    ids, new = {}, []
    for name in dict.fromkeys(wanted):
        number = known.get(name) or str(uuid.uuid5(NAMESPACE, name))
        if name not in known and number not in known.values():
            new.append(f"{number}:{name}:{name.replace('/', '-')}")
        ids[name] = number
    if new:
        ending = "\r\n" if "\r\n" in text else "\n"
        start = text or HEAD
        if not start.endswith("\n"):
            start += ending
        text = start + "".join(line + ending for line in new)
        write_whole(path, text.encode("utf-8"), remedy="Choose another --library.")
    return ids


def _known(path: Path, text: str) -> dict[str, str]:
    """Ids by path."""
    found: dict[str, str] = {}
    versions = 0
    for line in text.splitlines():
        words = line.strip()
        if not words or words.startswith("#"):
            continue
        if words.startswith("VERSION"):
            versions += 1
            if words.split()[1:] != [str(VERSION)]:
                text = f"{path.name} is of another version of Blender ({words})."
                raise Problem("bad_library", text, "Choose another --library.")
            continue
        number, _, rest = words.partition(":")
        found.setdefault(rest.partition(":")[0], number.lower())
    if text.strip() and not versions:
        raise Problem("bad_library", f"{path} holds no catalogues.", "Choose another --library.")
    return found
