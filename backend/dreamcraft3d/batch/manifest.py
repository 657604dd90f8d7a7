"""What a batch consists of: the records of ``manifest.jsonl`` and ``batch.json``, and their seeds.

Everything a user writes is checked here, and every mistake becomes a ``Problem`` with its line; ``ManifestError``
carries all of them at once, so that one correction is enough. No paths are touched here (see ``tasks``).
"""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from dreamcraft3d.errors import DreamCraftError

__all__ = [
    "BatchSettings", "Item", "Limits", "ManifestError", "Output", "Problem", "Row", "item_seed", "parse_items",
    "problems_of",
]  # fmt: skip

ID_LENGTH = 64
ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
DEVICES = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))]
)
"""Names that Windows keeps for itself, with any ending."""


@dataclass(frozen=True)
class Problem:
    """A mistake in a manifest. `line`: of the file, from 1; None where it concerns the whole."""

    line: int | None
    item: str | None
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        where = ": ".join(filter(None, (f"line {self.line}" if self.line else "", self.item or "")))
        return f"{where + ': ' if where else ''}{self.message} {self.remedy}".rstrip()


class ManifestError(DreamCraftError):
    """A manifest that cannot be run; `problems` names every mistake."""

    code: ClassVar[int] = 2

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        title = f"The manifest has {count} mistake{'s' if count > 1 else ''}"
        super().__init__(f"{title}; the first: {self.problems[0]}", "`dreamcraft3d batch validate` lists all.")


class Record(BaseModel):
    """Base of the records: frozen, no unknown keys, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


def _usable_id(name: str) -> str:
    """Ids become folder names, on every system."""
    if not ID.fullmatch(name):
        raise ValueError(f"an id has 1 to {ID_LENGTH} of the characters A-Z a-z 0-9 . _ -")
    if name.endswith(".") or name.partition(".")[0].lower() in DEVICES:
        raise ValueError("no folder can have this name on Windows")
    return name


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain NUL characters")
    return text


Text = Annotated[str, Field(min_length=1), AfterValidator(_no_nul)]
Identifier = Annotated[str, AfterValidator(_usable_id)]
Tag = Annotated[str, Field(min_length=1, max_length=120), AfterValidator(_no_nul)]


class Item(Record):
    """One line of the manifest."""

    id: Identifier
    """name of the item's folder; unique, whatever its capital letters"""
    kind: Literal["generate", "refine"] = "generate"
    """generate: picture to object; refine: paint the texture of a mesh"""
    image: Text | None = None
    """the picture of the object, relative to the manifest"""
    shape: Text | None = None
    """generate: a GLB or OBJ file whose shape is the start"""
    mesh: Text | None = None
    """refine: a GLB or OBJ file"""
    blend: Text | None = None
    """refine: a Blender file, with `object`"""
    object: Text | None = None
    """refine: name of the object in the Blender file"""
    slots: tuple[Annotated[int, Field(ge=0)] | Text, ...] = ()
    """refine: material slots to paint, by number or name; none = all"""
    prompt: Text | None = None
    """what the object is, in words"""
    negative: Text | None = None
    """what it is not"""
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    """same seed, same result; without one it follows from `batch_seed` and the id"""
    preset: Text = "preview"
    """named set of values"""
    params: dict[str, Any] = Field(default_factory=dict)
    """single settings by dotted key, as in `generate --set`"""
    priority: Annotated[int, Field(ge=0, le=100)] = 0
    """higher ones first; equal ones in the order of the manifest"""
    name: Text | None = None
    """what the object is called in the asset library; default: the id"""
    tags: tuple[Tag, ...] = ()
    """of the asset"""
    catalog: Text | None = None
    """of the asset, as in furniture/chairs"""
    license: Text | None = None
    """of the asset"""
    author: Text | None = None
    """of the asset"""
    timeout_s: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | None = None
    """stop the item after so many seconds"""


class Output(Record):
    """Where results go, and what is kept."""

    folder: Text | None = None
    """relative to the manifest; default: NAME-out beside it"""
    keep_stages: bool = False
    """keep the intermediate results of finished items (several MB each)"""
    contact_sheet: bool = True
    """write index.html with thumbnails"""


class Limits(Record):
    """How much a batch may take."""

    jobs: Annotated[int, Field(ge=1, le=64)] = 1
    """items at the same time"""
    timeout_s: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | None = None
    """for items that name none"""
    crashes: Annotated[int, Field(ge=1, le=10)] = 2
    """an item whose worker died so often is given up"""


class BatchSettings(Record):
    """``batch.json``."""

    model_config = ConfigDict(serialize_by_alias=True, validate_by_alias=True, validate_by_name=True)

    schema_: Literal["batch/1"] = Field(default="batch/1", alias="schema")
    defaults: dict[str, Any] = Field(default_factory=dict)
    """values for items that do not give them; `params` are merged key by key"""
    batch_seed: int | Text = 0
    """from this and the id follow the seeds of items that name none"""
    allow_outside: bool = False
    """let items name files outside the folder of the manifest"""
    output: Output = Output()
    limits: Limits = Limits()


@dataclass(frozen=True)
class Row:
    """An item as it was written: the keys that are there, and the line."""

    line: int
    values: Mapping[str, Any]


def item_seed(batch_seed: int | str, item_id: str) -> int:
    """The seed of an item that names none: the same on every machine, in every order.

    >>> item_seed(0, "chair")
    2105257966
    """
    return int(hashlib.sha256(f"{batch_seed}\n{item_id}".encode()).hexdigest()[:8], 16)


def parse_items(rows: Iterable[Row], defaults: Mapping[str, Any]) -> tuple[list[tuple[int, Item]], list[Problem]]:
    """Items with their lines, and everything that is wrong with the rows."""
    items: list[tuple[int, Item]] = []
    problems: list[Problem] = []
    seen: dict[str, tuple[str, int]] = {}
    for row in rows:
        name = row.values.get("id")
        label = name if isinstance(name, str) else None
        try:
            item = Item.model_validate_json(_as_json(merged(defaults, row.values)))
        except ValidationError as error:
            problems += problems_of(error, Item, line=row.line, item=label)
            continue
        if (before := seen.get(item.id.lower())) is not None:
            same = "is taken" if before[0] == item.id else f"differs from {before[0]} only in capital letters"
            problems.append(Problem(row.line, item.id, f"The id {same} (line {before[1]}).", "Choose another id."))
            continue
        seen[item.id.lower()] = (item.id, row.line)
        items.append((row.line, item))
    return items, problems


def _as_json(values: dict[str, Any]) -> bytes | str:
    """Values of a row, in the fast way; halves of surrogate pairs and the like in the one that takes everything."""
    try:
        return to_json(values)
    except PydanticSerializationError:
        return json.dumps(values)


def merged(defaults: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values over the defaults; `params` key by key."""
    both = {**defaults, **values}
    below, above = defaults.get("params"), values.get("params")
    if isinstance(below, dict) and isinstance(above, dict):
        both["params"] = {**below, **above}
    return both


def problems_of(
    error: ValidationError, record: type[BaseModel], *, line: int | None, item: str | None
) -> list[Problem]:
    """Each complaint of pydantic as a problem; complaints about the alternatives of one value become one."""
    found: dict[str, Problem] = {}
    for detail in error.errors():
        path = [str(part) for part in detail["loc"]]
        key = ".".join(part for part in path if part.isidentifier() and part not in ("int", "str", "float"))
        if detail["type"] == "extra_forbidden":
            known = ", ".join(field.alias or name for name, field in record.model_fields.items())
            problem = Problem(line, item, f"There is no key '{'.'.join(path)}'.", f"Keys: {known}.")
        elif detail["type"] == "missing":
            problem = Problem(line, item, f"The key '{key}' is missing.", "Add it.")
        else:
            text = detail["msg"].removeprefix("Value error, ").removesuffix(".")
            problem = Problem(line, item, f"{key}: {text[0].lower() + text[1:]}, but got {_shown(detail['input'])}.")
        found.setdefault(key or ".".join(path), problem)
    return list(found.values())


def _shown(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."
