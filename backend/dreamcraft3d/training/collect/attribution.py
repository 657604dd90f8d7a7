"""Print docs/training-data.md: whose works the shipped weights were trained and judged on, file by file."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath

from dreamcraft3d.training.collect.packages import Package, package
from dreamcraft3d.training.collect.selection import Selected, selection

HELD_OUT = "*"
"""Marks files in the list that no weights were trained on."""

HEAD = """\
# Training data: the real objects

<!-- Generated: dreamcraft3d collect-objects --attribution docs/training-data.md -->

Beside the procedural objects of [the model card](bundled-prior.md), {count:,} objects of {packages} packages of
Debian 12 serve the bundled prior: {trained:,} to train on and {held_out} **held out**. The meshes and textures are
not part of this project; `dreamcraft3d collect-objects --out objects.zip` makes the same pack of them from the
packages. How that works, and how to collect more, is at the end.

Every file is listed below, with its author and licence as the package states them. Files that only judge, and that no
weights were ever trained on, are marked with `{mark}`: those whose SHA-1 of the id leaves no remainder modulo 20.
"""

LICENCES = """\
## Licences

| licence | objects |
|---|---|
{rows}

The weights, like the program, are licensed under the GNU General Public License, version 3 or later. So that works
may be adapted into it, only these licences were taken:

* **GPL-2+**, **GPL-3+**, **GPL** without a version: directly.
* **CC-BY-SA-4.0**: Creative Commons lists GPL-3 as a licence that adaptations may be published under (one-way).
  KiCad's exception only permits more.
* **CC-BY-SA-3.0**: its section 4(b) lets adaptations be published under a later version with the same elements; 4.0
  is one, and leads on to GPL-3.
* **Free Art License 1.3** (some cars of TORCS): compatible with CC-BY-SA-4.0 by its section 5 and by Creative
  Commons' list; from there on to GPL-3.
* **CC-BY-3.0**, **CC-BY-4.0**, **CC0**, **public domain**: attribution, which this page gives, or nothing.

Works under GPL-2 without "or later" were left out.
"""

LEFT_OUT = """\
## Left out

* Works under GPL-2 only: crrcsim-data, 239 meshes of ufoai-data and 5 of supertuxkart-data.
* Models that this project reads no format of, or that would give few objects: redeclipse-data and cube2-data (IQM),
  colobot-common (MOD), nexuiz-data's players (ZYM, DPM), openarena-081-players (three meshes to be joined),
  berusky2-data (PLY without texture), morse-simulator-data (BLEND), scorched3d-data (ASE), ufoai-data's OBJ files,
  trigger-rally-data and stellarium-data (OBJ, few).
* Sweet Home 3D's own catalogue: its colours stand in program code.
* Everything that is of one plain colour, flat, of fewer than 60 or more than 6,000 triangles, hardly visible,
  scattered in pieces, nearly black, or like another object of its package.
* Of what passed these filters, objects that were not drawn for the selection (animals, furniture, vehicles and food
  were preferred). They are used for judging only: `--all` collects them, and **no weights may be trained on them**.
"""

RECIPE = """\
## Collecting them

    dreamcraft3d collect-objects --out objects.zip
    dreamcraft3d collect-objects --packages torcs-data minetest-mod-homedecor --out some.zip

On a Debian or Ubuntu, `apt-get download` and `dpkg-deb` bring the packages (5.7 GB in all), as any user; nothing is
installed. Elsewhere extract each package on another machine, `dpkg-deb -x NAME_*.deb FOLDER/NAME`, and give `--from
FOLDER`. Downloads and the finished pack of each package stay in `--workspace`: the same command goes on where it
stopped. What a package no longer holds is named at the end; the versions above are those of Debian 12.

By default exactly the objects listed here are packed. `--all` packs all that pass the filters instead.

The pack is a zip file: `index.json` (per object: id, name, class, package, source, author, licence, faces, materials,
held_out), `m/ID.npz` (v: int16, divided by 65,534 in the unit box, y up; f: corners; u: texture coordinates, origin
at the bottom left; m: material of each face), `t/NAME.jpg` (textures of at most 128 pixels) and `t/NAME.a.png`
(opacity of cut-out ones).
"""


def attribution(chosen: Sequence[Selected] | None = None) -> str:
    """The page, as Markdown. Default: of the shipped selection."""
    chosen = selection() if chosen is None else chosen
    by_package: dict[str, list[Selected]] = defaultdict(list)
    for each in chosen:
        by_package[each.package].append(each)
    held_out = sum(each.held_out for each in chosen)
    head = HEAD.format(
        count=len(chosen), packages=len(by_package), trained=len(chosen) - held_out, held_out=held_out, mark=HELD_OUT
    )
    counts = Counter(each.licence for each in chosen).most_common()
    licences = LICENCES.format(rows="\n".join(f"| {licence} | {count:,} |" for licence, count in counts))
    names = sorted(by_package, key=lambda name: (-len(by_package[name]), name))
    sections = ["\n".join(_section(package(name), by_package[name])) for name in names]
    return "\n".join([head, licences, "## Objects\n", *sections, LEFT_OUT, RECIPE])


def _section(source: Package, chosen: Sequence[Selected]) -> Iterator[str]:
    """One package: where it comes from, then its files by licence and author."""
    held_out = sum(each.held_out for each in chosen)
    yield f"### {source.name}\n"
    place = f"https://packages.debian.org/bookworm/{source.name}"
    yield f"[{source.name}]({place}) {source.version}: {len(chosen)} objects, {held_out} held out.\n"
    groups: dict[tuple[str, str], list[Selected]] = defaultdict(list)
    for each in chosen:
        groups[each.licence, each.author].append(each)
    for (licence, author), members in sorted(groups.items(), key=lambda group: (-len(group[1]), group[0])):
        yield f"**{licence}**, {_plain(author)}:\n"
        yield from (f"* `{folder}`: {', '.join(names)}" for folder, names in _by_folder(members))
        yield ""


def _by_folder(chosen: Iterable[Selected]) -> list[tuple[str, list[str]]]:
    """File names by folder, both sorted; held-out ones marked."""
    folders: dict[str, list[str]] = defaultdict(list)
    for each in chosen:
        path = PurePosixPath(each.source)
        folders[str(path.parent)].append(f"`{path.name}{HELD_OUT if each.held_out else ''}`")
    return [(folder, sorted(names)) for folder, names in sorted(folders.items())]


def _plain(text: str) -> str:
    """A text that Markdown shows as it is."""
    return text.replace("<", "\\<").replace("*", "\\*").replace("_", "\\_")
