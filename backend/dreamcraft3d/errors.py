"""Errors that a user can act on.

Each carries three things: *message* (what is wrong, one line), *remedy* (what to do about it, one line) and *code*
(the exit code of the command line: 2 = the user can fix it before trying again, 3 = the run itself failed, 130 =
cancelled). Every other exception is a bug of ours and ends with code 1 and a traceback in a log file.
"""

from typing import ClassVar

__all__ = [
    "Cancelled",
    "ConfigError",
    "DiskFullError",
    "DownloadError",
    "DreamCraftError",
    "InputError",
    "MemoryExhaustedError",
    "MissingDependencyError",
    "ObjectLost",
    "OutputError",
    "WorkspaceBusyError",
]


class DreamCraftError(Exception):
    """Base of all errors that are reported as one clear line and a remedy, without a traceback."""

    code: ClassVar[int] = 2

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)  # both arguments, so that the error survives pickling between processes
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".rstrip()


class InputError(DreamCraftError):
    """A picture, map or mesh that the user gave cannot be used."""


class ConfigError(DreamCraftError):
    """An unknown preset, an unknown key, or a value of the wrong type or out of range."""


class OutputError(DreamCraftError):
    """The output folder cannot be written: permissions, a full disk, a file in the way."""


class DiskFullError(OutputError):
    """There is no room on the disk; with room the same work goes on."""


class WorkspaceBusyError(OutputError):
    """Another process is working in the same output folder."""


class MissingDependencyError(DreamCraftError):
    """An optional package or a model file that this request needs is not on this machine."""


class DownloadError(DreamCraftError):
    """A model cannot be loaded from the hub: no connection, no permission, a damaged file."""


class MemoryExhaustedError(DreamCraftError):
    """Memory ran out, and stepping down did not help."""

    code: ClassVar[int] = 3


class ObjectLost(DreamCraftError):  # noqa: N818 - the name says what happened
    """A stage lost the object (empty level set, collapsed opacity, NaN) and rolling back did not help."""

    code: ClassVar[int] = 3


class Cancelled(DreamCraftError):  # noqa: N818 - the name says what happened
    """The user asked to stop; raised by ``Progress.track`` at the next step."""

    code: ClassVar[int] = 130

    def __init__(self, message: str = "Cancelled.", remedy: str = "The same command resumes where it stopped.") -> None:
        super().__init__(message, remedy)
