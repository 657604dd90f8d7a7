"""What can stop a whole batch. Exit code 4: the folder, or the workers, cannot be had; 5: the user stopped it."""

from typing import ClassVar

from dreamcraft3d.errors import DreamCraftError, OutputError

__all__ = ["BatchBusyError", "BatchStopped", "WorkersUnavailableError"]


class BatchBusyError(OutputError):
    """Another runner works in the same output folder."""

    code: ClassVar[int] = 4


class WorkersUnavailableError(DreamCraftError):
    """The processes that compute cannot be started."""

    code: ClassVar[int] = 4


class BatchStopped(DreamCraftError):  # noqa: N818 - the name says what happened
    """The user stopped the batch."""

    code: ClassVar[int] = 5
