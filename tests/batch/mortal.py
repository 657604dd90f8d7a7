"""Runs a batch and is killed at its n-th durable write: before it, or right after it, as chance has it.

    python mortal.py MANIFEST N

Everything that lasts goes through ``os.fsync``: a file before it gets its name, its folder after that, and each line of
the journal.
"""

import os
import signal
import sys
from pathlib import Path

from batches import make

fsync, left = os.fsync, int(sys.argv[2])


def deadly(handle: int) -> None:
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(handle)


os.fsync = deadly
make(Path(sys.argv[1]), jobs=2)
