"""The service's log: one rotating file of JSON lines, each with the job it is about, none with a secret.

A line: {"time": "2026-11-25T06:50:00.123Z", "level", "logger", "message", "job": id or null, ...}. Secrets that are
known (the token) are taken out wherever they stand, as is whatever looks like one; the file is its user's only.
"""

import json
import logging
import logging.handlers
import os
import re
import time
from collections.abc import Iterable
from io import TextIOWrapper
from pathlib import Path
from typing import Any

__all__ = ["LOGGERS", "JsonLines", "Redactor", "close_log", "log_tail", "open_log"]

MEGABYTES = 4
BACKUPS = 3
LOG_LINES = 20
"""Lines of a job's log that a message about it carries."""

LOGGERS = ("dreamcraft3d", "uvicorn", "asyncio")
"""Whose records go into the file."""

EXTRAS = ("job", "ms")
"""Further fields that a record may carry."""

NAMES = "token|password|api[_-]?key|secret|authorization"
SECRETS = (
    (re.compile(r"(?i)\b(bearer\s+)[\w\-.~+/=]+"), r"\1[secret]"),
    (re.compile(rf"(?i)((?:{NAMES})[\"']?\s*[=:]\s*[\"']?)(?!bearer\b)[^\s\"',&}}]+"), r"\1[secret]"),
    (re.compile(r"\bhf_[A-Za-z0-9]{8,}"), "[secret]"),
)
"""What looks like a secret: credentials in headers, addresses and settings, tokens of the model hub."""


class Redactor:
    """Takes secrets out of texts. `known`: those that are secret for sure."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._known = [secret for secret in known if secret]

    def __call__(self, text: str) -> str:
        for secret in self._known:
            text = text.replace(secret, "[secret]")
        for pattern, instead in SECRETS:
            text = pattern.sub(instead, text)
        return text


class JsonLines(logging.Formatter):
    """A record as one line of JSON, without secrets."""

    def __init__(self, redact: Redactor) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._redact(record.getMessage()),
            "job": None,
        }
        line.update({name: value for name in EXTRAS if (value := getattr(record, name, None)) is not None})
        if record.exc_info:
            line["traceback"] = self._redact(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=True)


class PrivateRotatingFile(logging.handlers.RotatingFileHandler):
    """A rotating file that only its user can read, also right after it was made."""

    def _open(self) -> TextIOWrapper:
        handle = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return os.fdopen(handle, "a", encoding="utf-8")


def open_log(path: Path, *, secrets: Iterable[str] = (), level: int = logging.INFO) -> logging.Handler:
    """Sends the records of `LOGGERS` to the file from now on; give the handler to `close_log` at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = PrivateRotatingFile(path, maxBytes=MEGABYTES << 20, backupCount=BACKUPS, encoding="utf-8", delay=True)
    handler.setFormatter(JsonLines(Redactor(secrets)))
    handler.setLevel(level)
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(min(level, logger.level) if logger.level else level)
    return handler


def close_log(handler: logging.Handler) -> None:
    """Lets the file go."""
    for name in LOGGERS:
        logging.getLogger(name).removeHandler(handler)
    handler.close()


def log_tail(log: Path) -> list[str]:
    """The last lines of a log, for a message."""
    try:
        return log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
    except OSError:
        return []
