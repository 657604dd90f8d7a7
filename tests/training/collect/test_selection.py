"""The shipped selection."""

from dreamcraft3d.training.collect.licences import accepted
from dreamcraft3d.training.collect.pack import held_out
from dreamcraft3d.training.collect.selection import read_selection, selection, write_selection


def test_the_selection_is_consistent() -> None:
    chosen = selection()
    assert len(chosen) == len({each.id for each in chosen}) == 2735
    assert sum(each.held_out for each in chosen) == 134
    for each in chosen:
        assert each.id.startswith(f"{each.package}/")
        assert each.held_out == held_out(each.id)
        assert accepted(each.licence), each
        assert each.author, each
        assert each.source, each


def test_what_is_written_is_read(tmp_path) -> None:
    few = selection()[:3]
    write_selection([{**each.facts, "held_out": each.held_out} for each in few], tmp_path / "few.gz")
    assert read_selection((tmp_path / "few.gz").read_bytes()) == few
    assert list(few[0].facts) == ["id", "name", "class", "package", "source", "author", "licence"]
