"""An HTTP answer, as it arrives: in any pieces, whole or cut short, well-formed or somebody else's.

Plain Python; no sockets here. `Message` grows; what it became is a `Reply`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from .problems import Problem

__all__ = ["Message", "Reply", "garbled", "refused", "told"]

MAX_HEAD = 64 * 1024
MAX_BODY = 32 * 1024 * 1024
MAX_FILE = 2 * 1024**3


@dataclass(frozen=True)
class Reply:
    """A finished answer; the body is empty if it went to a file."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise garbled("its answer is not JSON") from error


def garbled(why: str) -> Problem:
    return Problem(
        "not_ours",
        f"Something answers where the backend should be, but it does not speak like it: {why}.",
        "Another program may have taken its port. Restart the backend.",
    )


def refused(message: str) -> Problem:
    return Problem("stopped", message, "Start the backend.")


class Message:
    """An HTTP answer that grows as bytes arrive. Raises `Problem` as soon as it cannot be one."""

    def __init__(self, save_to: Path | None = None) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.done = False
        self._raw = bytearray()
        self._body = bytearray()
        self._save_to = save_to
        self._file: BinaryIO | None = None
        self._size = 0
        self._left: int | None = None  # bytes to come of the body (or chunk); None: unknown
        self._chunked = False

    def feed(self, data: bytes) -> None:
        self._raw += data
        if not self.status and not self._read_head():
            return
        self._read_chunks() if self._chunked else self._read_plain()

    def end(self) -> None:
        """The other side has closed."""
        if self.done:
            return
        if not self.status or self._chunked or self._left:
            raise Problem("stopped", "The backend broke off in the middle of an answer.", "Start the backend.")
        self._finish()

    def reply(self) -> Reply:
        return Reply(self.status, self.headers, bytes(self._body))

    def close(self) -> None:
        """Drops a file that is only half there."""
        if self._file is not None:
            self._file.close()
            self._file = None
            if self._save_to is not None:
                partial(self._save_to).unlink(missing_ok=True)

    def _read_head(self) -> bool:
        if not b"HTTP/1."[: len(self._raw)] == bytes(self._raw[:7]):
            raise garbled("its answer is not HTTP")
        end = self._raw.find(b"\r\n\r\n")
        if end < 0:
            if len(self._raw) > MAX_HEAD:
                raise garbled("its answer has no end")
            return False
        lines = bytes(self._raw[:end]).decode("latin-1").split("\r\n")
        del self._raw[: end + 4]
        try:
            status = int(lines[0].split(" ")[1])
        except (ValueError, IndexError) as error:
            raise garbled("its answer has no status") from error
        if 100 <= status < 200:
            return self._read_head() if self._raw else False
        pairs = (line.partition(":") for line in lines[1:])
        self.headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        self._chunked = self.headers.get("transfer-encoding", "").lower() == "chunked"
        self._left = self._declared_length(status)
        self.status = status
        if self._save_to is not None and status < 400:
            self._save_to.parent.mkdir(parents=True, exist_ok=True)
            self._file = partial(self._save_to).open("wb")
        return True

    def _declared_length(self, status: int) -> int | None:
        if status in (204, 304):
            return 0
        text = self.headers.get("content-length")
        if self._chunked or text is None:
            return None
        if not text.isascii() or not text.isdigit():
            raise garbled("its answer has no proper length")
        return int(text)

    def _read_plain(self) -> None:
        take = len(self._raw) if self._left is None else min(self._left, len(self._raw))
        self._keep(take)
        if self._left is not None:
            self._left -= take
            if self._left == 0:
                self._finish()

    def _read_chunks(self) -> None:
        while not self.done:
            if self._left is None:
                end = self._raw.find(b"\r\n")
                if end < 0:
                    return
                try:
                    self._left = int(bytes(self._raw[:end]).split(b";")[0], 16)
                except ValueError as error:
                    raise garbled("its answer is cut into strange pieces") from error
                del self._raw[: end + 2]
                if self._left == 0:
                    self._finish()
                    return
            take = min(self._left, len(self._raw))
            self._keep(take)
            self._left -= take
            if self._left or len(self._raw) < 2:
                return
            del self._raw[:2]
            self._left = None

    def _keep(self, count: int) -> None:
        if not count:
            return
        self._size += count
        if self._size > (MAX_FILE if self._file else MAX_BODY):
            raise garbled("its answer is far too large")
        piece = self._raw[:count]
        if self._file is not None:
            self._file.write(piece)
        else:
            self._body += piece
        del self._raw[:count]

    def _finish(self) -> None:
        self.done = True

    @property
    def unsaved(self) -> bool:
        """Whether everything is there, and `save` is still to be called (a turn of its own: disks take their time)."""
        return self.done and self._file is not None

    def save(self) -> None:
        """Gives the whole file its name."""
        if self._file is not None and self._save_to is not None:
            self._file.close()
            self._file = None
            partial(self._save_to).replace(self._save_to)


def partial(path: Path) -> Path:
    """Where a download grows until it is whole."""
    return path.with_name(path.name + ".partial")


def told(reply: Reply) -> Problem:
    """What the service says is wrong."""
    try:
        error = json.loads(reply.body)["error"]
        code, message = str(error["code"]), str(error["message"])
        hint, name = str(error.get("hint") or ""), str(error.get("field") or "")
    except (ValueError, KeyError, TypeError, AttributeError):
        if reply.status in (401, 403):
            text = "The backend refuses this Blender: its token has changed."
            return Problem("stopped", text, "Start the backend again.")
        return garbled(f"it answers with status {reply.status} and no reason")
    return Problem(code, message, hint, field=name)
