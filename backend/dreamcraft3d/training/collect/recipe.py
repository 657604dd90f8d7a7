"""The recipe: packages in, one pack out. Each package is one step, kept in the workspace, so that it is done once."""

import contextlib
import hashlib
import json
import logging
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dreamcraft3d.progress import Progress
from dreamcraft3d.training.collect.assembly import Assembly, assemble
from dreamcraft3d.training.collect.candidates import Candidate
from dreamcraft3d.training.collect.classes import class_of
from dreamcraft3d.training.collect.debian import discard, extracted, supplied
from dreamcraft3d.training.collect.files import PackageFiles, TextureFinder
from dreamcraft3d.training.collect.filters import Duplicates, fault
from dreamcraft3d.training.collect.licences import Stanza, accepted, read_copyright, stanza_of
from dreamcraft3d.training.collect.pack import REPORT, PackWriter, join
from dreamcraft3d.training.collect.packages import Package
from dreamcraft3d.training.collect.parts import FormatError
from dreamcraft3d.training.collect.selection import Selected, selection
from dreamcraft3d.workspace import atomic_path

logger = logging.getLogger(__name__)

VERSION = 1
"""Of the recipe: raised when it makes other packs of the same packages, so that old ones are not taken again."""


@dataclass
class Outcome:
    """What became of a package.

    Attributes:
        package: its Debian name.
        wanted: objects that were looked for.
        packed: objects in the pack.
        missing: selected keys that the package does not hold, or that cannot be read.
        left_out: number of candidates by reason.
    """

    package: str
    wanted: int = 0
    packed: int = 0
    missing: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)


def collect(
    packages: Sequence[Package],
    out: Path,
    *,
    workspace: Path,
    everything: bool = False,
    source: Path | None = None,
    progress: Progress | None = None,
) -> list[Outcome]:
    """Collect the objects of packages into the pack `out`.

    Args:
        packages: what to take, in this order.
        out: the zip file.
        workspace: keeps downloads and the finished packs of single packages; the same call goes on where it stopped.
        everything: all objects that pass the filters, rather than those of the shipped selection.
        source: a folder with packages that are extracted already, one folder each; default: download them.
        progress: is told of each object.

    Raises:
        DreamCraftError: a package cannot be had, or a file cannot be written.
    """
    progress = progress or Progress()
    outcomes, parts = [], []
    for package in packages:
        part = workspace / "packs" / f"{package.name}-{_fingerprint(package, everything=everything)}.zip"
        if not part.exists():
            with _opened(package, workspace, source, progress) as content:
                _pack(package, content, part, everything=everything, progress=progress)
        parts.append(part)
        with zipfile.ZipFile(part) as pack:
            outcomes.append(Outcome(**json.loads(pack.read(REPORT))))
    join(parts, out, {chosen.id: rank for rank, chosen in enumerate(selection())})
    return outcomes


def _fingerprint(package: Package, *, everything: bool) -> str:
    """What a package's pack depends on, beside the package."""
    chosen = "all" if everything else json.dumps([each.facts for each in _selected(package)])
    return hashlib.sha1(f"{VERSION} {chosen}".encode()).hexdigest()[:10]


def _selected(package: Package) -> list[Selected]:
    return [each for each in selection() if each.package == package.key]


@dataclass(frozen=True)
class _Content:
    """An extracted package."""

    candidates: list[Candidate]
    copyright: list[Stanza]


@contextlib.contextmanager
def _opened(package: Package, workspace: Path, source: Path | None, progress: Progress) -> Iterator[_Content]:
    """The candidates of a package; what was extracted for them is deleted when they are done with."""
    names = (package.name, *package.companions)
    folders = [extracted(name, workspace, progress) if source is None else supplied(name, source) for name in names]
    opened = [
        PackageFiles(folder, root=package.root, archives=package.archives, mounted=package.mounted)
        for folder in folders
    ]
    notice = folders[0] / "usr/share/doc" / package.name / "copyright"
    stanzas = read_copyright(notice.read_text(encoding="utf-8", errors="replace")) if notice.exists() else []
    progress.note(f"{package.name}: looking for objects")
    try:
        yield _Content(list(package.listing(opened[0], TextureFinder(opened))), stanzas)
    finally:
        for files in opened:
            files.close()
    if source is None:
        for name in names:
            discard(name, workspace)


def _pack(package: Package, content: _Content, path: Path, *, everything: bool, progress: Progress) -> None:
    """Write the pack of one package, with a report of what became of its candidates."""
    with atomic_path(path) as temporary, PackWriter(temporary) as writer:
        packing = _Packing(package, content, writer, progress)
        outcome = packing.everything() if everything else packing.selected()
        outcome.packed = len(writer.index)
        writer.finish(asdict(outcome))


class _Packing:
    """One package on its way into a pack."""

    def __init__(self, package: Package, content: _Content, writer: PackWriter, progress: Progress) -> None:
        self._package, self._content, self._writer, self._progress = package, content, writer, progress

    def selected(self) -> Outcome:
        """Pack the objects of the selection, as they are: they passed the filters when they were selected."""
        chosen = _selected(self._package)
        candidates = {f"{self._package.key}/{each.key}": each for each in self._content.candidates}
        outcome = Outcome(self._package.name, wanted=len(chosen))
        for number in self._progress.track(self._package.name, range(len(chosen)), len(chosen)):
            wanted = chosen[number]
            candidate = candidates.get(wanted.id)
            if candidate is None or not self._added(candidate, lambda _: None, wanted.facts):
                outcome.missing.append(wanted.id)
        return outcome

    def everything(self) -> Outcome:
        """Pack every candidate whose licence is accepted and that passes the filters."""
        candidates = list({each.key: each for each in self._content.candidates}.values())
        outcome = Outcome(self._package.name, wanted=len(candidates))
        left_out: Counter[str] = Counter()
        known = Duplicates()
        for number in self._progress.track(self._package.name, range(len(candidates)), len(candidates)):
            candidate, faults = candidates[number], list[str]()
            facts = self._facts(candidate)
            if not accepted(facts["licence"]):
                left_out["licence"] += 1
                continue

            def filtered(thing: Assembly, group: str = candidate.group, faults: list[str] = faults) -> str | None:
                found = fault(thing, known, group)
                faults += [found] if found else []
                return found

            if not self._added(candidate, filtered, facts):
                left_out[faults[0] if faults else "unreadable"] += 1
        outcome.left_out = dict(left_out.most_common())
        return outcome

    def _added(self, candidate: Candidate, filtered: Callable[[Assembly], str | None], facts: dict[str, Any]) -> bool:
        """Read, filter and write one object; false if it is left out."""
        try:
            thing = assemble(candidate.read(), z_up=self._package.z_up)
            if filtered(thing) is not None:
                return False
            self._writer.add(facts, thing)
        except (FormatError, KeyError, zipfile.BadZipFile) as error:
            logger.info("%s: %s is left out: %s", self._package.name, candidate.source, error)
            return False
        return True

    def _facts(self, candidate: Candidate) -> dict[str, Any]:
        """What the package itself says of an object."""
        package = self._package
        author, licence = candidate.author or package.author, candidate.licence or package.licence
        stanza = stanza_of(self._content.copyright, candidate.source, package.copyright_paths)
        if stanza is not None and not candidate.licence:
            author, licence = stanza.author, stanza.licence
        kind = class_of(package.key, candidate.source, candidate.name, candidate.category)
        facts = {"id": f"{package.key}/{candidate.key}", "name": candidate.name, "class": kind}
        return {**facts, "package": package.key, "source": candidate.source, "author": author, "licence": licence}
