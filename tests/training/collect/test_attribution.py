"""docs/training-data.md is what the generator prints, and names every file."""

from pathlib import Path

from dreamcraft3d.training.collect.attribution import attribution
from dreamcraft3d.training.collect.selection import Selected, selection

PAGE = Path(__file__).resolve().parents[3] / "docs" / "training-data.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == attribution(), (
        "write it again: dreamcraft3d collect-objects --attribution docs/training-data.md"
    )
    assert len(PAGE.read_bytes()) < 400_000


def test_every_file_is_named_once_under_its_author() -> None:
    first = Selected("torcs-data/a", "a", "vehicle", "torcs-data", "cars/a.acc", "Ann <a@b.c>", "GPL-2+", True)
    second = Selected("torcs-data/b", "b", "vehicle", "torcs-data", "cars/b.acc", "Ann <a@b.c>", "GPL-2+", False)
    third = Selected("sh3d/c", "c", "prop", "sh3d", "Scopia/c.obj", "Bob_B", "CC0", False)
    page = attribution([first, second, third])
    assert "**GPL-2+**, Ann \\<a@b.c>:\n\n* `cars`: `a.acc*`, `b.acc`\n" in page
    assert "**CC0**, Bob\\_B:\n\n* `Scopia`: `c.obj`\n" in page
    assert "2 to train on and 1 **held out**" in page
    assert "### sweethome3d-furniture" in page


def test_all_of_the_selection_is_there() -> None:
    page = attribution()
    assert page.count("`, `") + page.count("`: `") == len(selection())
