"""The forms in which people bring a batch: JSONL, CSV, or a folder of pictures; all become rows of a manifest.

CSV has a header of (dotted) names, as in ``id,image,seed,params.export.target_faces,tags``; an empty cell means the
default. Cells are words for keys that hold words (an id ``007`` stays one), numbers for keys that hold numbers, and
JSON or a word below ``params``. Tags and slots are separated by ``;``. What spreadsheets do is tolerated: a byte order
mark, CRLF, and ``;`` or tabs between the cells.
"""

import csv
import hashlib
import io
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dreamcraft3d.batch.manifest import ID_LENGTH, Item, ManifestError, Problem, Row

__all__ = ["read_rows", "rows_of_csv", "rows_of_folder", "rows_of_jsonl", "to_csv", "to_jsonl"]

PICTURES = frozenset([".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"])
TABLES = {".csv": None, ".tsv": "\t"}
NUMBERS = frozenset(["seed", "priority", "timeout_s"])
LISTS = frozenset(["tags", "slots"])


def read_rows(source: Path) -> list[Row]:
    """The rows of a manifest in any form.

    Raises:
        ManifestError: the source is missing, or not of its form; all mistakes of form at once.
    """
    if source.is_dir():
        return rows_of_folder(source)
    try:
        text = source.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise _refused("The file is not UTF-8 text.", "Save it again with the encoding UTF-8.", line) from error
    except OSError as error:
        raise _refused(f"Cannot read {source}: {error.strerror}.", "Check the path.") from error
    if source.suffix.lower() in TABLES:
        return rows_of_csv(text, delimiter=TABLES[source.suffix.lower()])
    return rows_of_jsonl(text)


# --- JSONL ----------------------------------------------------------------------------------------


def rows_of_jsonl(text: str) -> list[Row]:
    """One object per line; empty lines are skipped. Raises ``ManifestError``."""
    rows, problems = list[Row](), list[Problem]()
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            values = READER.decode(line)
        except ValueError as error:
            what = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            problems.append(Problem(number, None, f"This is not JSON: {what}.", "Write one object per line."))
            continue
        if not isinstance(values, dict):
            problems.append(Problem(number, None, "This is not a JSON object.", 'Write {"id": ..., "image": ...}.'))
            continue
        rows.append(Row(number, values))
    if problems:
        raise ManifestError(problems)
    return rows


def to_jsonl(items: Iterable[Item]) -> str:
    """The canonical form: what differs from the defaults of the program, keys in the order of ``Item``."""
    return "".join(f"{WRITER.encode(written(item))}\n" for item in items)


def written(item: Item) -> dict[str, Any]:
    """What a manifest has to say about an item, in one order only."""
    values = item.model_dump(mode="json", exclude_defaults=True)
    return values | ({"params": dict(sorted(item.params.items()))} if item.params else {})


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key '{next(name for name in names if names.count(name) > 1)}' is there twice")
    return values


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


READER = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_constant)
CELL_READER = json.JSONDecoder(parse_constant=_no_constant)
WRITER = json.JSONEncoder(ensure_ascii=False)
"""Made once: thousands of lines are read and written."""


# --- CSV ------------------------------------------------------------------------------------------


def rows_of_csv(text: str, *, delimiter: str | None = None) -> list[Row]:
    """A row per line below the header. Raises ``ManifestError``."""
    header = text.partition("\n")[0]
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter or _delimiter(header), strict=True)
    rows, problems = list[Row](), list[Problem]()
    names: list[str] | None = None
    try:
        start = 1
        for cells in lines:
            number, start = start, lines.line_num + 1
            if not any(cells):
                continue
            if names is None:
                names = [cell.strip() for cell in cells]
                problems += _header_problems(names, number)
            elif len(cells) > len(names) and any(cells[len(names) :]):
                problems.append(
                    Problem(number, None, "There are more cells than names in the header.", "Quote commas.")
                )
            else:
                rows.append(Row(number, dict(_cells(names, cells))))
    except csv.Error as error:
        problems.append(Problem(lines.line_num, None, f"This is not CSV: {error}.", "Check the quotes."))
    if names is None:
        problems.append(Problem(None, None, "The table has no header.", "Start with a line such as id,image."))
    if problems:
        raise ManifestError(problems)
    return _nested(rows)


def to_csv(items: Iterable[Item]) -> str:
    """A table of the items, with the columns that are in use; `rows_of_csv` reads it back as it was."""
    flat = [dict(_flat(item)) for item in items]
    used = {name for row in flat for name in row}
    order = [name for name in Item.model_fields if name in used]
    columns = [*(order or ["id"]), *sorted(used - set(order))]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="")  # ends lines with CRLF, and quotes cells with either of them
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _flat(item: Item) -> Iterator[tuple[str, str]]:
    for name, value in written(item).items():
        if name == "params":
            yield from ((f"params.{key}", _cell(inner)) for key, inner in value.items())
        elif name in LISTS:
            plain = all(isinstance(entry, str) and _splits_back(entry) for entry in value)
            yield name, ";".join(value) if plain else json.dumps(value, ensure_ascii=False)
        else:
            yield name, value if isinstance(value, str) else str(value) if type(value) is int else json.dumps(value)


def _cell(value: Any) -> str:
    """A word where it would be read back as the same word, else JSON."""
    if isinstance(value, str) and value and _value(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)


def _splits_back(tag: str) -> bool:
    return ";" not in tag and tag == tag.strip() and not tag.startswith("[")


def _cells(names: Sequence[str], cells: Sequence[str]) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(names, cells, strict=False):
        if cell == "":
            continue
        if name in LISTS:
            yield name, _list(cell)
        elif name in NUMBERS or name.startswith("params."):
            yield name, _value(cell)
        else:
            yield name, cell


def _list(cell: str) -> Any:
    if cell.lstrip().startswith("["):
        return _value(cell)
    return [part.strip() for part in cell.split(";") if part.strip()]


def _value(cell: str) -> Any:
    try:
        return CELL_READER.decode(cell)
    except ValueError:
        return cell


def _nested(rows: Iterable[Row]) -> list[Row]:
    """Columns `params.KEY` become the mapping `params`."""
    return [Row(row.line, _with_params(row.values)) for row in rows]


def _with_params(values: Mapping[str, Any]) -> dict[str, Any]:
    params = {key.removeprefix("params."): value for key, value in values.items() if key.startswith("params.")}
    plain = {key: value for key, value in values.items() if not key.startswith("params.")}
    return {**plain, "params": params} if params else plain


def _header_problems(names: Sequence[str], line: int) -> Iterator[Problem]:
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield Problem(line, None, f"The column '{name}' is there twice.", "Drop one of them.")
    if "id" not in names:
        yield Problem(line, None, "The header has no column 'id'.", "Start with a line such as id,image.")


def _delimiter(header: str) -> str:
    """Spreadsheets of some countries write ';', and copied cells come with tabs."""
    return max(",;\t", key=header.count)


# --- a folder of pictures -------------------------------------------------------------------------


def rows_of_folder(folder: Path) -> list[Row]:
    """A row for each picture of the folder itself, in the order of their names. Raises ``ManifestError``."""
    try:
        names = sorted(path.name for path in folder.iterdir() if _is_picture(path))
    except OSError as error:
        raise _refused(f"Cannot read {folder}: {error.strerror}.", "Check its permissions.") from error
    if not names:
        endings = " ".join(sorted(PICTURES))
        raise _refused(f"There is no picture in {folder}.", f"Pictures end in one of: {endings}.")
    return [Row(n, {"id": name, "image": image}) for n, (name, image) in enumerate(_ids(names).items(), start=1)]


def _ids(names: Sequence[str]) -> dict[str, str]:
    """An id for each file name, made from it: ``Grüner Stuhl.png`` -> ``Gruner-Stuhl``. Depends on the names only."""
    by_stem = [(_slug(Path(name).stem), name) for name in names]
    counts: dict[str, int] = {}
    for slug, _ in by_stem:
        counts[slug.lower()] = counts.get(slug.lower(), 0) + 1
    return {slug if counts[slug.lower()] == 1 and slug else _with_hash(slug, name): name for slug, name in by_stem}


def _slug(stem: str) -> str:
    ascii_ = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode("ascii")
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", ascii_)[:ID_LENGTH].strip("-.")
    try:
        return Item(id=slug).id
    except ValueError:
        return ""


def _with_hash(slug: str, name: str) -> str:
    """Two names with one slug, or none at all: told apart by a hash of the name."""
    digest = hashlib.sha256(unicodedata.normalize("NFC", name).encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{slug[: ID_LENGTH - 9] or 'picture'}-{digest}"


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURES and not path.name.startswith(".") and path.is_file()


def _refused(message: str, remedy: str, line: int | None = None) -> ManifestError:
    return ManifestError([Problem(line, None, message, remedy)])
