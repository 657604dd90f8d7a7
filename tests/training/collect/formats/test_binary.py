"""Bounds of binary reads."""

import numpy as np
import pytest

from dreamcraft3d.training.collect.formats.binary import Cursor
from dreamcraft3d.training.collect.parts import FormatError


def test_reads_follow_each_other() -> None:
    cursor = Cursor(b"xAB\x01\x02\0\0\0hi\0\0" + np.arange(6, dtype="<f4").tobytes(), 1)
    cursor.expect(b"AB")
    assert cursor.unpack("BH") == (1, 2)
    cursor.skip(2)
    assert cursor.text(4) == "hi"
    assert cursor.array("<f4", 2, 3).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert cursor.left == 0


@pytest.mark.parametrize(
    "read",
    [
        lambda cursor: cursor.skip(5),
        lambda cursor: cursor.skip(-1),
        lambda cursor: cursor.take(5),
        lambda cursor: cursor.unpack("5B"),
        lambda cursor: cursor.array("<f4", 2),
        lambda cursor: cursor.array("<f4", -1),
        lambda cursor: cursor.array("<f4", 2**40, 2**40),  # no overflow to a small number
        lambda cursor: cursor.expect(b"abcx"),
    ],
)
def test_nothing_is_read_beyond_the_end(read) -> None:
    cursor = Cursor(b"abcd")
    with pytest.raises(FormatError):
        read(cursor)
    assert cursor.position == 0, "a failed read does not move"


def test_a_start_beyond_the_end() -> None:
    with pytest.raises(FormatError):
        Cursor(b"abcd", 5)
