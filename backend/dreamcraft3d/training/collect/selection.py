"""The objects that the shipped weights are trained and judged on, named one by one.

`selection.json.gz` holds facts only: id, name, class, package, source file, author, licence and whether the object is
held out. Other objects of the same packages were kept for judging, and must not slip in.
"""

import gzip
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

FILE = "selection.json.gz"


@dataclass(frozen=True)
class Selected:
    """One object; `package` is what its id begins with."""

    id: str
    name: str
    kind: str
    package: str
    source: str
    author: str
    licence: str
    held_out: bool

    @property
    def facts(self) -> dict[str, Any]:
        """The entries of a pack's index that do not have to be measured."""
        return {_JSON_NAMES.get(key, key): value for key, value in asdict(self).items() if key != "held_out"}


_JSON_NAMES = {"kind": "class"}


@cache
def selection() -> tuple[Selected, ...]:
    """The shipped selection, in its order."""
    return read_selection(files("dreamcraft3d.training.collect").joinpath(FILE).read_bytes())


def read_selection(data: bytes) -> tuple[Selected, ...]:
    """Read a selection: a table in JSON, compressed."""
    table = json.loads(gzip.decompress(data))
    return tuple(Selected(*row) for row in table["rows"])


def write_selection(index: Iterable[dict[str, Any]], path: Path) -> None:
    """Make a selection of all objects of a pack's index."""
    columns = [_JSON_NAMES.get(field.name, field.name) for field in fields(Selected)]
    rows = [[entry[column] for column in columns] for entry in index]
    text = json.dumps({"columns": columns, "rows": rows}, ensure_ascii=False, separators=(",", ":"))
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
