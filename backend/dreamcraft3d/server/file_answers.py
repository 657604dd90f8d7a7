"""A file as an answer: with ETag, If-None-Match and one Range, and whole even if the file is replaced meanwhile.

Size and name of the version come from the opened file, not from its path: a preview may be replaced (by a rename)
between two looks at the path.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from starlette.datastructures import Headers
from starlette.responses import Response, StreamingResponse

from dreamcraft3d.server.answers import ServiceError

__all__ = ["file_answer"]

CHUNK = 256 << 10
RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def file_answer(path: Path, media_type: str, headers: Headers) -> Response:
    """200, 206 or 304. Raises ``ServiceError`` 416 for a range outside of the file, 404 if it is gone."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise ServiceError(404, "unknown_artifact", "There is no such file (any more).") from error
    try:
        status = os.fstat(file.fileno())
        tag = f'"{status.st_size:x}-{status.st_mtime_ns:x}"'
        sent = {"ETag": tag, "Accept-Ranges": "bytes", "Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
        if tag in (word.strip() for word in headers.get("if-none-match", "").split(",")):
            file.close()
            return Response(status_code=304, headers=sent)
        wanted = _range(headers, tag)
        start, end = (0, status.st_size) if wanted is None else _bounds(wanted, status.st_size)
    except ServiceError:
        file.close()
        raise
    sent["Content-Length"] = str(end - start)
    if wanted is None:
        return StreamingResponse(_chunks(file, start, end), 200, sent, media_type)
    sent["Content-Range"] = f"bytes {start}-{end - 1}/{status.st_size}"
    return StreamingResponse(_chunks(file, start, end), 206, sent, media_type)


def _range(headers: Headers, tag: str) -> re.Match[str] | None:
    """One range of bytes; anything else is ignored, as HTTP allows, and so is a range of another version."""
    found = RANGE.fullmatch(headers.get("range", "").replace(" ", ""))
    if found is None or not any(found.groups()) or headers.get("if-range", tag) != tag:
        return None
    return found


def _bounds(wanted: re.Match[str], size: int) -> tuple[int, int]:
    """First byte, and the one after the last."""
    first, last = wanted.groups()
    start = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    if not start < end <= size:
        raise ServiceError(416, "bad_range", f"The file has {size} bytes.", "Ask for bytes that it has.")
    return start, end


def _chunks(file: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    with file:
        file.seek(start)
        left = end - start
        while left > 0 and (chunk := file.read(min(CHUNK, left))):
            left -= len(chunk)
            yield chunk
