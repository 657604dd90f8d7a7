"""Models from the Hugging Face hub into the models folder, so that a broken line or a killed process costs little.

The hub is asked once for the repository's commit, files, sizes and checksums. Each file is loaded into
`FILE.DIGEST.part` beside its place, which a later call goes on with, then checked, then renamed; the manifest comes
last. `HF_ENDPOINT` names another hub (a mirror, a test), `HF_TOKEN` or `hf auth login` give access to gated models; we
store no token.
"""

import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from dreamcraft3d.errors import DownloadError, DreamCraftError, OutputError
from dreamcraft3d.priors.model_files import (
    Manifest,
    ModelFile,
    choose,
    lacking,
    read_manifest,
    variant_of,
    write_manifest,
)
from dreamcraft3d.priors.model_store import intact, licence_accepted, locked, models_folder_error
from dreamcraft3d.priors.models import HOME_VARIABLE, Entry, Source, home
from dreamcraft3d.progress import Progress, StageFinished, StageStarted, StepDone

__all__ = ["download"]

logger = logging.getLogger(__name__)

MIB = 1 << 20
SPARE = 64 * MIB
"""Bytes that must stay free on the disk."""
ATTEMPTS = 2
"""How often a file that arrives damaged is loaded."""
DEFAULT_HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Repository:
    """What the hub says about a source: its commit and its files."""

    source: Source
    commit: str
    files: tuple[ModelFile, ...]


class _NotThere(Exception):  # noqa: N818 - not an error yet: the next source may have the model
    """A source does not exist (any more)."""


def download(model: Entry, *, progress: Progress | None = None) -> Path:
    """Brings a model into the models folder, or completes and repairs it there; returns its folder.

    Sources are tried in order; a copy that is there already is completed from where it came from.

    Raises:
        DownloadError: no licence accepted, no connection, no permission, a damaged file. OutputError: the disk is full.
        WorkspaceBusyError: another process is at it. Cancelled: the user stopped; the same call goes on.
    """
    progress = progress or Progress()
    if not licence_accepted(model.licence):
        raise DownloadError(
            f"The licence of {model.name} ({model.licence.title}) is not accepted yet: {model.licence.url}",
            f"Read it, then run `dreamcraft3d models download {model.name} --accept-licence`.",
        )
    with locked(model.name) as folder:
        known = read_manifest(folder)
        sources = list(model.sources)
        if known is not None and known.repository:
            sources.insert(0, Source(known.repository, known.revision, known.variant, "installed"))
        for source in sources:
            try:
                with _explained(model, source):
                    repository = _look_up(model, source)
                    _fetch(model, repository, folder, progress)
                    return folder
            except _NotThere as reason:
                progress.warn(f"{source.repository}: {reason}; trying the next source.")
    raise DownloadError(
        f"None of the sources of {model.name} exists any more: {', '.join(source.repository for source in sources)}.",
        f"If you have the model elsewhere: `dreamcraft3d models import {model.name} FOLDER`.",
    )


def _look_up(model: Entry, source: Source) -> Repository:
    """Asks the hub for the commit and the needed files."""
    from huggingface_hub import HfApi

    info = HfApi(endpoint=_hub()).model_info(source.repository, revision=source.revision, files_metadata=True)
    listing = {item.rfilename: item for item in info.siblings or ()}
    try:
        chosen = choose(listing, model.components, source.variant)
    except DreamCraftError as error:
        raise _NotThere(error.message) from error
    return Repository(source, str(info.sha), tuple(_file(listing[path]) for path in chosen))


def _file(item: Any) -> ModelFile:
    if item.lfs is not None:
        return ModelFile(item.rfilename, int(item.lfs.size), "sha256", str(item.lfs.sha256))
    return ModelFile(item.rfilename, int(item.size), "git-sha1", str(item.blob_id))


def _fetch(model: Entry, repository: Repository, folder: Path, progress: Progress) -> None:
    """Loads what is missing or differs, then writes the manifest."""
    known = read_manifest(folder)
    trusted = set(known.files) if known is not None else set()
    absent = set(lacking(folder, repository.files))
    wanted = [file for file in repository.files if file.path in absent or not _is_ours(folder, file, trusted, progress)]
    _check_space(model, wanted, folder)
    meter = _Meter(f"download {model.name}", sum(file.size for file in wanted), progress)
    for file in wanted:
        _fetch_file(repository, file, folder, meter)
    meter.finish()
    weights = [file.parts[-1] for file in repository.files if file.path.endswith(".safetensors")]
    variant = repository.source.variant if repository.source.variant in map(variant_of, weights) else None
    files = repository.files
    write_manifest(folder, Manifest(model.name, repository.source.repository, repository.commit, variant, files))
    for stray in {file.path for file in trusted} - {file.path for file in files}:
        (folder / stray).unlink(missing_ok=True)
    for part in folder.rglob("*.part"):
        part.unlink()


def _is_ours(folder: Path, file: ModelFile, trusted: set[ModelFile], progress: Progress) -> bool:
    """Whether the file that is there is the right one: as the manifest says (`verify` reads it), or by its content."""
    return file in trusted or intact(folder / file.path, file, progress)


def _fetch_file(repository: Repository, file: ModelFile, folder: Path, meter: "_Meter") -> None:
    """One file, continued from its part; loaded again if it arrives damaged."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    target = folder / file.path
    part = target.with_name(f"{target.name}.{file.digest[:12]}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    name, commit = repository.source.repository, repository.commit
    url = hf_hub_url(name, file.path, revision=commit, endpoint=_hub())
    for attempt in range(1, ATTEMPTS + 1):
        start = part.stat().st_size if part.exists() else 0
        if start > file.size:
            part.unlink()
            start = 0
        meter.add(start)
        with part.open("ab") as stream:
            counted: Any = _Counted(stream, meter)
            http_get(url, counted, resume_size=start, headers=build_hf_headers(), expected_size=file.size)
            stream.flush()
            os.fsync(stream.fileno())
        if intact(part, file, meter.progress):
            part.replace(target)
            return
        part.unlink()
        meter.add(-file.size)
        if attempt < ATTEMPTS:
            meter.progress.warn(f"{file.path} arrived damaged; loading it again.")
    raise DownloadError(
        f"{file.path} of {name} arrived damaged {ATTEMPTS} times: its checksum differs.",
        "Try again later; a proxy or a virus scanner between here and the hub may change files.",
    )


def _check_space(model: Entry, wanted: list[ModelFile], folder: Path) -> None:
    present = sum(part.stat().st_size for part in folder.rglob("*.part"))
    needed = sum(file.size for file in wanted) - present
    free = shutil.disk_usage(folder).free
    if needed + SPARE > free:
        raise OutputError(
            f"{model.name} needs {needed / 1e9:.2f} GB more, and {free / 1e9:.2f} GB are free on the disk of {home()}.",
            f"Free some space, or set {HOME_VARIABLE} to a folder on another disk.",
        )


@dataclass
class _Meter:
    """Bytes so far as progress events (in MiB, at most a few a second), and the place where cancel is noticed."""

    stage: str
    total: int
    progress: Progress
    done: int = 0
    _began: float = field(default_factory=time.monotonic)
    _told: float = 0.0

    def __post_init__(self) -> None:
        self.progress.emit(StageStarted(self.stage, max(1, self.total // MIB)))

    def add(self, count: int) -> None:
        self.progress.check()
        self.done += count
        now = time.monotonic()
        if now - self._told > 0.2:
            self._told = now
            self._tell()

    def finish(self) -> None:
        self._tell()
        self.progress.emit(StageFinished(self.stage, time.monotonic() - self._began))

    def _tell(self) -> None:
        seconds = time.monotonic() - self._began
        left = seconds * (self.total - self.done) / max(1, self.done)
        total = max(1, self.total // MIB)
        self.progress.emit(StepDone(self.stage, min(total, self.done // MIB), total, seconds, max(0.0, left)))


class _Counted:
    """A file opened for appending, as far as `http_get` uses it, whose bytes are counted."""

    def __init__(self, stream: IO[bytes], meter: _Meter) -> None:
        self._stream, self._meter = stream, meter

    def write(self, block: bytes) -> int:
        count = self._stream.write(block)
        self._meter.add(count)
        return count

    def tell(self) -> int:
        return self._stream.tell()

    def seek(self, place: int) -> int:
        """The server ignored where we wanted to go on: it sends the file from the start."""
        self._meter.add(place - self._stream.tell())
        return self._stream.seek(place)

    def truncate(self) -> int:
        return self._stream.truncate()


def _hub() -> str:
    return os.environ.get("HF_ENDPOINT", DEFAULT_HUB).rstrip("/")


@contextmanager
def _explained(model: Entry, source: Source) -> Iterator[None]:
    """Turns the hub's errors into ours; its own progress bars and telemetry stay silent."""
    import httpx2
    from huggingface_hub import constants, errors
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars  # type: ignore[attr-defined]

    again = "What has arrived is kept: the same command goes on there."
    group = "huggingface_hub.http_get"
    disable_progress_bars(group)
    constants.HF_HUB_DISABLE_TELEMETRY = True  # what else is installed here, and who asks, is nobody's business
    try:
        yield
    except errors.GatedRepoError as error:
        page = f"{_hub()}/{source.repository}"
        raise DownloadError(
            f"{model.name} is gated: its owner wants you to accept the licence on {page} with an account.",
            "Accept it there, then log in here with `hf auth login` (or set HF_TOKEN) and try again.",
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.RemoteEntryNotFoundError) as error:
        raise _NotThere("there is no such repository, revision or file") from error
    except errors.OfflineModeIsEnabled as error:
        raise DownloadError(
            "The hub is switched off by HF_HUB_OFFLINE.",
            f"Unset it, or run `dreamcraft3d models import {model.name} FOLDER`.",
        ) from error
    except errors.HfHubHTTPError as error:
        raise DownloadError(f"{_hub()} refuses: {_first_line(error)}.", f"Try again later. {again}") from error
    except httpx2.TransportError as error:
        raise DownloadError(
            f"No connection to {_hub()} ({_first_line(error)}).",
            f"Check the network and HF_ENDPOINT. {again} Without a network: `dreamcraft3d models import`.",
        ) from error
    except OSError as error:
        if error.errno is None:  # a file that came out shorter than announced
            raise DownloadError(f"The connection to {_hub()} broke: {_first_line(error)}", again) from error
        raise models_folder_error(error) from error
    finally:
        enable_progress_bars(group)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
