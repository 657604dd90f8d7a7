"""Download Debian packages and extract them, without installing anything and without being root."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from dreamcraft3d.errors import DownloadError, InputError, MissingDependencyError
from dreamcraft3d.progress import Progress

TOOLS = ("apt-get", "dpkg-deb")
DONE = ".extracted"
"""A file in a folder whose package is there completely."""


def extracted(name: str, workspace: Path, progress: Progress) -> Path:
    """The folder with a package's files; downloaded and extracted if it is not there yet.

    Raises:
        MissingDependencyError: this machine has no apt or no dpkg.
        DownloadError: apt does not know the package, or cannot reach its servers.
    """
    folder = workspace / "extracted" / name
    if (folder / DONE).exists():
        return folder
    archive = _archive(name, workspace / "debs", progress)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    progress.note(f"{name}: extracting")
    _run(["dpkg-deb", "-x", str(archive), str(folder)], workspace, f"Cannot extract {archive}.", progress)
    (folder / DONE).touch()
    return folder


def supplied(name: str, source: Path) -> Path:
    """The folder of a package among those that the user has extracted.

    Raises:
        InputError: it is not there.
    """
    folder = source / name
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}.", f"Extract the package: dpkg-deb -x {name}_*.deb {folder}")
    return folder


def discard(name: str, workspace: Path) -> None:
    """Delete what was extracted of a package; the download stays."""
    shutil.rmtree(workspace / "extracted" / name, ignore_errors=True)


def _archive(name: str, folder: Path, progress: Progress) -> Path:
    """The downloaded package."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        raise MissingDependencyError(
            f"Debian packages need {' and '.join(missing)}, which this machine does not have.",
            "Extract the packages on a Debian or Ubuntu (apt-get download, dpkg-deb -x), and name them with --from.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    found = sorted(folder.glob(f"{name}_*.deb"))
    if not found:
        progress.note(f"{name}: downloading")
        _run(["apt-get", "download", "-q", name], folder, f"Cannot download {name}.", progress)
        found = sorted(folder.glob(f"{name}_*.deb"))
    if not found:
        raise DownloadError(f"apt-get has downloaded nothing for {name}.", "Try `apt-get download` by hand.")
    return found[-1]


def _run(command: Sequence[str], folder: Path, trouble: str, progress: Progress) -> None:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    progress.check()  # Ctrl-C has reached the command, too
    if result.returncode:
        reason = next((line for line in result.stderr.splitlines() if line.startswith(("E:", "dpkg"))), "")
        raise DownloadError(f"{trouble} {reason}".strip(), "Run `apt-get update`; check the network and the disk.")
