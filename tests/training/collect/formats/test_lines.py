"""Text files line by line."""

import pytest

from dreamcraft3d.training.collect.formats.lines import Lines, numbers
from dreamcraft3d.training.collect.parts import FormatError


def test_lines_are_stripped_and_end() -> None:
    lines = Lines(b"one \r\n  two\n1 2 3\n4 5 6")
    assert lines.next() == "one"
    assert next(iter(lines)) == "two"
    assert lines.vectors(2, 2) == [[1.0, 2.0], [4.0, 5.0]]
    assert list(lines) == []
    with pytest.raises(FormatError):
        lines.next()


def test_blocks_of_characters_span_lines() -> None:
    lines = Lines(b"ab\ncd\nkids 0")
    lines.skip_characters(5)
    assert lines.next() == "kids 0"


@pytest.mark.parametrize(("words", "count"), [(["1"], 2), (["1", "x"], 2)])
def test_numbers_that_are_none(words: list[str], count: int) -> None:
    with pytest.raises(FormatError):
        numbers(words, count)


@pytest.mark.parametrize("count", [-1, 2, 10**9])
def test_more_lines_than_there_are(count: int) -> None:
    with pytest.raises(FormatError):
        Lines(b"1 2 3").vectors(count, 3)
