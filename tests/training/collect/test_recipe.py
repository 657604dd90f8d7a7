"""The whole recipe, on a package made here."""

import zipfile
from dataclasses import replace

import pytest

from dreamcraft3d.errors import InputError
from dreamcraft3d.progress import Progress, StepDone
from dreamcraft3d.training.collect import recipe
from dreamcraft3d.training.collect.candidates import Listing
from dreamcraft3d.training.collect.formats.spm import read_spm
from dreamcraft3d.training.collect.pack import read_index
from dreamcraft3d.training.collect.packages import Package
from dreamcraft3d.training.collect.recipe import collect
from dreamcraft3d.training.collect.selection import Selected
from mesh_files import ball, png, spm, triangle, write

MADE = Package(
    "made-data",
    "1.0",
    Listing(read_spm, (".spm",)),
    "Ann",
    "CC0",
    root="usr/share/made/",
    copyright_paths=(("", "data/"),),
)
COPYRIGHT = "Files: *\nCopyright: Ann\nLicense: CC0\n\nFiles: data/closed/*\nCopyright: Bob\nLicense: GPL-2\n"
CHOSEN = tuple(
    Selected(f"made-data/{key}", key, "food", "made-data", f"{key}.spm", "Ann", "CC0", False)
    for key in ("toys_speck", "gone", "broken", "toys_ball")
)


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "selection", lambda: CHOSEN)
    files = {
        "toys/ball.spm": spm(ball()), "toys/again.spm": spm(ball()), "toys/speck.spm": spm(triangle()),
        "closed/ball.spm": spm(ball(7, 7)), "broken.spm": spm(ball())[:99], "paint.png": png(),
    }  # fmt: skip
    folder = {f"made-data/usr/share/made/{name}": data for name, data in files.items()}
    return write(tmp_path / "source", {**folder, "made-data/usr/share/doc/made-data/copyright": COPYRIGHT})


def test_exactly_the_selection_is_packed_by_default(source, tmp_path) -> None:
    (outcome,) = collect([MADE], tmp_path / "out.zip", workspace=tmp_path / "work", source=source)
    index = read_index(tmp_path / "out.zip")
    assert [entry["id"] for entry in index] == ["made-data/toys_speck", "made-data/toys_ball"], (
        "in its order, unfiltered"
    )
    assert index[1]["class"] == "food", "as the selection says"
    assert (outcome.wanted, outcome.packed, outcome.missing) == (4, 2, ["made-data/gone", "made-data/broken"])


def test_all_that_passes_the_filters(source, tmp_path) -> None:
    (outcome,) = collect([MADE], tmp_path / "out.zip", workspace=tmp_path / "work", everything=True, source=source)
    (entry,) = read_index(tmp_path / "out.zip")
    assert (entry["id"], entry["author"], entry["licence"]) == ("made-data/toys_again", "Ann", "CC0")
    assert outcome.left_out == {"licence": 1, "unreadable": 1, "duplicate": 1, "too few faces": 1}
    assert outcome.wanted == 5
    assert outcome.packed == 1


def test_a_finished_package_is_not_read_again(source, tmp_path) -> None:
    first = collect([MADE], tmp_path / "out.zip", workspace=tmp_path / "work", source=source)
    steps: list[object] = []
    progress = Progress(sinks=(steps.append,))
    again = collect(
        [MADE], tmp_path / "two.zip", workspace=tmp_path / "work", source=tmp_path / "void", progress=progress
    )
    assert again == first
    assert not [step for step in steps if isinstance(step, StepDone)]
    assert (tmp_path / "two.zip").read_bytes() == (tmp_path / "out.zip").read_bytes()
    with pytest.raises(InputError):  # another mode is another pack
        collect([MADE], tmp_path / "x.zip", workspace=tmp_path / "work", everything=True, source=tmp_path / "void")


def test_a_cancelled_package_leaves_nothing_half_done(source, tmp_path) -> None:
    progress = Progress()

    def stop(event: object) -> None:
        if isinstance(event, StepDone):
            progress.cancel()

    progress.sinks = (stop,)
    with pytest.raises(Exception, match="Cancelled"):
        collect([MADE], tmp_path / "out.zip", workspace=tmp_path / "work", source=source, progress=progress)
    assert not [path for path in tmp_path.rglob("*.zip") if zipfile.is_zipfile(path) or path.stat().st_size]
    assert collect([MADE], tmp_path / "out.zip", workspace=tmp_path / "work", source=source)[0].packed == 2


def test_companions_hold_textures(source, tmp_path) -> None:
    picture = source / "made-data/usr/share/made/paint.png"
    other = write(source / "paints", {"skins/paint.png": picture.read_bytes()})
    picture.unlink()
    (outcome,) = collect(
        [replace(MADE, companions=("paints",))], tmp_path / "out.zip", workspace=tmp_path / "work", source=source
    )
    assert other.is_dir()
    assert outcome.packed == 2
    assert all("texture" in entry["materials"][0] for entry in read_index(tmp_path / "out.zip"))
