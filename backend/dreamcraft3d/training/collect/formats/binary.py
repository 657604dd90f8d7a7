"""Read numbers, arrays and texts from bytes, one after the other."""

import struct
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dreamcraft3d.training.collect.parts import FormatError


class Cursor:
    """A position in `data` that every read moves on.

    Raises:
        FormatError: a read or a jump would leave the data.
    """

    def __init__(self, data: bytes, position: int = 0) -> None:
        self.data = data
        self.position = 0
        self.skip(position)

    @property
    def left(self) -> int:
        """Bytes behind the position."""
        return len(self.data) - self.position

    def skip(self, count: int) -> None:
        """Move on by `count` bytes."""
        if not 0 <= count <= self.left:
            raise FormatError(f"the file ends early: {count} bytes are wanted, {self.left} are left")
        self.position += count

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        start = self.position
        self.skip(count)
        return self.data[start : self.position]

    def unpack(self, layout: str) -> tuple[Any, ...]:
        """Values of a struct layout, little-endian."""
        return struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout)))

    def integer(self, layout: str = "I") -> int:
        """One integer (default: 32 bits, unsigned)."""
        return int(self.unpack(layout)[0])

    def text(self, count: int) -> str:
        """A text of at most `count` bytes, ended by a zero byte."""
        return self.take(count).split(b"\0")[0].decode("latin-1")

    def array(self, kind: DTypeLike, *shape: int) -> NDArray[Any]:
        """An array of little-endian numbers, or of records."""
        size = int(np.prod([np.dtype(kind).itemsize, *shape], dtype=object))
        return np.frombuffer(self.take(size), kind).reshape(shape)

    def expect(self, magic: bytes) -> None:
        """Read past the mark that a format begins with."""
        if self.data[self.position : self.position + len(magic)] != magic:
            raise FormatError(f"not a file of this format: it does not begin with {magic!r}")
        self.skip(len(magic))
