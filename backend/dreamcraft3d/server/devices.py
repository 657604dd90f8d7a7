"""What jobs will run on, found without loading torch: the driver's own program is asked about graphics cards."""

import logging
import platform
import shutil
import subprocess
from functools import cache

import psutil

from dreamcraft3d.server.protocol import DeviceView

__all__ = ["best_device"]

logger = logging.getLogger(__name__)

QUERY = ("--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits")
MIB = 1 << 20


def best_device() -> DeviceView:
    """The first graphics card, else the processor with the main memory."""
    return _card() or _processor()


def _card() -> DeviceView | None:
    program = _program()
    if program is None:
        return None
    try:
        answer = subprocess.run([program, *QUERY], capture_output=True, text=True, timeout=5.0, check=True)
        name, total, free = (word.strip() for word in answer.stdout.splitlines()[0].rsplit(",", 2))
        return DeviceView(name=name, kind="gpu", memory_total=int(total) * MIB, memory_free=int(free) * MIB)
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        logger.info("no graphics card: %s", error)
        return None


@cache
def _program() -> str | None:
    return shutil.which("nvidia-smi")


def _processor() -> DeviceView:
    memory = psutil.virtual_memory()
    cores = psutil.cpu_count() or 1
    name = f"{platform.processor() or platform.machine()}, {cores} cores"
    return DeviceView(name=name, kind="cpu", memory_total=memory.total, memory_free=memory.available)
