"""Downloads, with an apt and a dpkg of our own in the path."""

import os
from pathlib import Path

import pytest

from dreamcraft3d.errors import DownloadError, InputError, MissingDependencyError
from dreamcraft3d.progress import Progress
from dreamcraft3d.training.collect.debian import discard, extracted, supplied

APT = """#!/bin/sh
echo "$@" >> {log}
case "$*" in *unknown*) echo "E: Unable to locate package unknown" >&2; exit 100;; esac
for name; do :; done
echo content > "${{name}}_1.0_all.deb"
"""
DPKG = """#!/bin/sh
echo "$@" >> {log}
[ -s "$2" ] && mkdir -p "$3/usr" && cp "$2" "$3/usr/file"
"""

pytestmark = pytest.mark.skipif(os.name == "nt", reason="shell scripts stand for apt and dpkg")


@pytest.fixture
def log(tmp_path, monkeypatch) -> Path:
    tools, log = tmp_path / "bin", tmp_path / "log"
    tools.mkdir()
    for name, text in (("apt-get", APT), ("dpkg-deb", DPKG)):
        (tools / name).write_text(text.format(log=log))
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    return log


def test_a_package_is_downloaded_and_extracted_once(log, tmp_path) -> None:
    folder = extracted("thing", tmp_path / "work", Progress())
    assert (folder / "usr/file").read_text() == "content\n"
    assert extracted("thing", tmp_path / "work", Progress()) == folder
    assert len(log.read_text().splitlines()) == 2
    discard("thing", tmp_path / "work")
    assert not folder.exists()
    extracted("thing", tmp_path / "work", Progress())
    assert [line.split()[0] for line in log.read_text().splitlines()] == ["download", "-x", "-x"], (
        "the download is kept"
    )


def test_an_extraction_that_was_cut_off_is_done_again(log, tmp_path) -> None:
    (tmp_path / "work/extracted/thing/usr").mkdir(parents=True)
    (tmp_path / "work/extracted/thing/usr/half").touch()
    folder = extracted("thing", tmp_path / "work", Progress())
    assert sorted(path.name for path in (folder / "usr").iterdir()) == ["file"]


def test_an_unknown_package_is_named(log, tmp_path) -> None:
    with pytest.raises(DownloadError, match="Unable to locate package unknown") as caught:
        extracted("unknown", tmp_path / "work", Progress())
    assert "apt-get update" in caught.value.remedy


def test_without_apt_there_is_another_way(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependencyError) as caught:
        extracted("thing", tmp_path / "work", Progress())
    assert "--from" in caught.value.remedy


def test_supplied_packages_lie_in_folders_of_their_names(tmp_path) -> None:
    (tmp_path / "thing").mkdir()
    assert supplied("thing", tmp_path) == tmp_path / "thing"
    with pytest.raises(InputError, match="other"):
        supplied("other", tmp_path)
