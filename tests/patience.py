"""How long tests wait for what must come.

The machine may be busy: no verdict hangs on the clock. `PATIENCE` only ends a test that would otherwise wait for ever,
and is far more than a loaded machine needs. Speed is measured by `bench`, or bounded in processor time of a thread.
"""

import time
from collections.abc import Callable

PATIENCE = 120.0
"""Seconds for one thing to happen: an answer, an end, the start of a process."""

RUN_PATIENCE = 600.0
"""Seconds for a whole program."""


def eventually(condition: Callable[[], bool], what: str = "it did not happen", *, seconds: float = PATIENCE) -> None:
    """Return as soon as `condition()` holds; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
