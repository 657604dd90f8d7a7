"""The models folder: accepted licences, checking, importing and removing models (`downloads` loads them)."""

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from dreamcraft3d.errors import InputError, MissingDependencyError, OutputError, WorkspaceBusyError
from dreamcraft3d.priors.model_files import (
    Manifest,
    ModelFile,
    choose,
    digest_of,
    lacking,
    read_manifest,
    write_manifest,
)
from dreamcraft3d.priors.models import HOME_VARIABLE, Licence, entry, home, installed, variant_in
from dreamcraft3d.progress import Progress
from dreamcraft3d.workspace import atomic_path

__all__ = ["accept_licence", "forget", "import_folder", "intact", "licence_accepted", "locked", "remove", "verify"]

ACCEPTED = "licences.json"


def licence_accepted(licence: Licence) -> bool:
    """Whether the user has accepted this licence on this machine."""
    return licence.key in _accepted()


def accept_licence(licence: Licence) -> None:
    """Remembers that the user has accepted the licence, with the date."""
    accepted = {**_accepted(), licence.key: time.strftime("%Y-%m-%d")}
    with atomic_path(home() / ACCEPTED) as temporary:
        temporary.write_text(json.dumps(accepted, indent=1) + "\n", encoding="utf-8")


def _accepted() -> dict[str, str]:
    try:
        values = json.loads((home() / ACCEPTED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


@contextmanager
def locked(name: str) -> Iterator[Path]:
    """The model's folder, while no other process changes it."""
    folder = home() / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(home() / f".{name}.lock", timeout=0)
        with lock:
            yield folder
    except Timeout as error:
        raise WorkspaceBusyError(
            f"Another process is working on the model {name}.", "Wait until it has finished, or stop it."
        ) from error
    except OSError as error:
        raise models_folder_error(error) from error
    finally:
        with suppress(OSError):
            folder.rmdir()  # only if nothing came of it


def models_folder_error(error: OSError) -> OutputError:
    """An error of the operating system about the models folder, with what to do."""
    reason = error.strerror or str(error)
    return OutputError(
        f"Cannot write the models folder {home()}: {reason}.",
        f"Free some space or correct its permissions, or set {HOME_VARIABLE} to another folder.",
    )


def verify(name: str, progress: Progress | None = None) -> list[str]:
    """Reads all files of an installed model; returns those that are missing or differ from their checksum.

    Raises:
        MissingDependencyError: the model is not installed. Cancelled: the user stopped.
    """
    manifest = installed(name)
    if manifest is None:
        raise MissingDependencyError(
            f"The model {entry(name).name} is not in the models folder.", f"Run `dreamcraft3d models download {name}`."
        )
    progress = progress or Progress()
    broken = set(lacking(home() / name, manifest.files))
    for index in progress.track(f"verify {name}", range(len(manifest.files)), len(manifest.files)):
        file = manifest.files[index]
        if file.path not in broken and not intact(home() / name / file.path, file, progress):
            broken.add(file.path)
    return sorted(broken)


def intact(path: Path, file: ModelFile, progress: Progress) -> bool:
    """Whether a file has the content it should have."""
    return (
        path.stat().st_size == file.size and digest_of(path, file.algorithm, lambda _: progress.check()) == file.digest
    )


def import_folder(name: str, source: Path, progress: Progress | None = None) -> Path:
    """Takes a model from a folder in diffusers layout (a copied models folder, a hub snapshot), without a network.

    Files are hard links where the folder is on the same disk, copies elsewhere. Returns the model's folder.

    Raises:
        InputError: no folder, or not in diffusers layout. DreamCraftError: components missing, or only pickled weights.
    """
    model, progress = entry(name), progress or Progress()
    if not (source / "model_index.json").is_file() and not (source / "unet").is_dir():
        raise InputError(
            f"{source} is not a model in diffusers layout.", "It should hold model_index.json, unet/, scheduler/ ..."
        )
    listing = [path.relative_to(source).as_posix() for path in sorted(source.rglob("*")) if path.is_file()]
    chosen = choose(listing, model.components, model.sources[0].variant)
    with locked(name) as folder:
        steps = progress.track(f"import {name}", range(len(chosen)), len(chosen))
        files = tuple([_take(source, folder, chosen[index], progress) for index in steps])
        origin = read_manifest(source)
        repository, revision = (origin.repository, origin.revision) if origin else ("", "")
        write_manifest(folder, Manifest(name, repository, revision, variant_in(folder), files))
    return folder


def _take(source: Path, folder: Path, path: str, progress: Progress) -> ModelFile:
    """Links or copies one file. The checksum is that of what was given; a manifest beside it is believed."""
    origin, target = (source / path).resolve(), folder / path
    known = {file.path: file for file in manifest.files} if (manifest := read_manifest(source)) else {}
    file = known.get(path) or ModelFile(path, origin.stat().st_size, "sha256", digest_of(origin, "sha256"))
    if path in known and not intact(origin, file, progress):
        raise InputError(f"{source / path} is damaged: its checksum differs.", "Copy the folder again.")
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and target.samefile(origin):
        return file
    beside = target.with_name(f"{target.name}.linked")
    beside.unlink(missing_ok=True)
    try:
        os.link(origin, beside)
        beside.replace(target)
    except OSError:  # another disk, or one without hard links
        with atomic_path(target) as temporary:
            shutil.copyfile(origin, temporary)
    return file


def forget(name: str, paths: list[str]) -> None:
    """Deletes single files of a model, so that `downloads.download` brings them again."""
    with locked(name) as folder:
        for path in paths:
            (folder / path).unlink(missing_ok=True)


def remove(name: str) -> int:
    """Deletes a model from the models folder, finished or not; returns the bytes set free."""
    entry(name)
    folder = home() / name
    if not folder.is_dir():
        raise MissingDependencyError(f"The model {name} is not in the models folder.", f"It is empty of it: {home()}.")
    with locked(name):
        freed = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        shutil.rmtree(folder)
    return freed
