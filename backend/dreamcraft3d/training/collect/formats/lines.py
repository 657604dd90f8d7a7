"""Read a text file line by line, in words."""

from collections.abc import Iterator

from dreamcraft3d.training.collect.parts import FormatError


class Lines:
    """The lines of a text, stripped; `next` raises where the file ends early, iteration just ends."""

    def __init__(self, data: bytes) -> None:
        self._lines = data.decode("latin-1").replace("\r", "").split("\n")
        self._index = 0

    def __iter__(self) -> Iterator[str]:
        while self._index < len(self._lines):
            yield self.next()

    def next(self) -> str:
        """The next line.

        Raises:
            FormatError: there is none.
        """
        if self._index >= len(self._lines):
            raise FormatError("the file ends early")
        self._index += 1
        return self._lines[self._index - 1].strip()

    def back(self) -> None:
        """Return the last line, to be read again."""
        self._index -= 1

    def vectors(self, count: int, width: int) -> list[list[float]]:
        """The first `width` numbers of each of the next `count` lines."""
        if not 0 <= count <= len(self._lines) - self._index:
            raise FormatError(f"{count} lines are wanted, the file has {len(self._lines) - self._index} left")
        return [numbers(self.next().split()[:width], width) for _ in range(count)]

    def skip_characters(self, count: int) -> None:
        """Read past a block of `count` characters, which may span lines."""
        read = len(self._lines[self._index]) if self._index < len(self._lines) else 0
        self.next()
        while read < count:
            read += 1 + len(self._lines[self._index]) if self._index < len(self._lines) else 0
            self.next()


def numbers(words: list[str], count: int) -> list[float]:
    """Exactly `count` numbers.

    Raises:
        FormatError: fewer, or a word that is no number.
    """
    if len(words) < count:
        raise FormatError(f"{count} numbers are wanted, not {words}")
    try:
        return [float(word) for word in words[:count]]
    except ValueError as error:
        raise FormatError(str(error)) from error
