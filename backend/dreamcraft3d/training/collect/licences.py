"""Licences of single files: Debian's machine-readable copyright files, and which licences may be trained on.

Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/ (DEP-5).
"""

import fnmatch
import re
from dataclasses import dataclass

ACCEPTED = re.compile(r"^(CC0|CC-BY-[34]|CC-BY-SA-[34]|GPL-[23]\+|GPL-3|GPL$|GPL and CC|LGPL-|public-domain|Free-Art)")
"""Licences whose works may become part of a GPL-3-or-later program. GPL-2 without "or later" may not.

The Free Art License 1.3 and CC-BY-SA-3.0 get there through CC-BY-SA-4.0: the one is compatible with it, the other has a
later-version clause, and CC-BY-SA-4.0 is one-way compatible with GPL-3.
"""


@dataclass(frozen=True)
class Stanza:
    """What a copyright file says of some files."""

    patterns: tuple[str, ...]
    licence: str
    author: str


def accepted(licence: str) -> bool:
    """Whether weights that are GPL-3-or-later may be trained on works under a licence."""
    return ACCEPTED.match(licence) is not None


def read_copyright(text: str) -> list[Stanza]:
    """Read the stanzas on files of a copyright file, in their order; empty if it is free text."""
    stanzas = []
    for paragraph in re.split(r"\n[ \t]*\n", text):
        fields = _fields(paragraph)
        if fields.get("files") and fields.get("license"):
            licence = fields["license"].splitlines()[0].strip()
            author = " ".join(fields.get("copyright", "").split())
            stanzas.append(Stanza(tuple(fields["files"].split()), licence, author))
    return stanzas


def _fields(paragraph: str) -> dict[str, str]:
    """The fields of a paragraph by their names in lower case; lines that begin with a space go on the field before."""
    fields: dict[str, str] = {}
    name = ""
    for line in paragraph.splitlines():
        if line[:1].isspace():
            fields[name] = f"{fields.get(name, '')}\n{line}"
        elif ":" in line:
            name, _, value = line.partition(":")
            name = name.lower()
            fields[name] = value.strip()
    return {key: value.strip() for key, value in fields.items()}


def stanza_of(stanzas: list[Stanza], name: str, paths: tuple[tuple[str, str], ...]) -> Stanza | None:
    """The last stanza that speaks of a file.

    Args:
        stanzas: of a copyright file, which names files of the *source* package.
        name: an installed file.
        paths: where installed folders may lie in the source package: (begin of the installed name, what stands there
            instead).
    """
    names = [source + name.removeprefix(installed) for installed, source in paths if name.startswith(installed)]
    found = None
    for stanza in stanzas:
        if any(_matches(each, pattern) for each in [*names, name] for pattern in stanza.patterns):
            found = stanza
    return found


def _matches(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern) or ("*" not in pattern and pattern.endswith("/" + name))
