"""Where kernels run: the default device, Warp set-up and launches, and the thread pool that splits CPU launches.

On the CPU a Warp launch uses one core and releases the interpreter lock, so a large launch is cut into tasks that write
to separate places (rows of points, levels of a hash grid, rays). Results do not depend on the number of threads.
`accelerators.py` decides which faster kernels take over on CUDA.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

SMALL = 4096
"""Fewer items than this are not worth a second thread."""


def default_device() -> torch.device:
    """The CUDA device if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def may_accelerate(device: torch.device) -> bool:
    """Whether other packages' kernels may take over on this device (`accelerators.py`): on CUDA only."""
    return device.type == "cuda"


@cache
def warp() -> Any:
    """The Warp module, set up once and quietly."""
    import warp as wp

    wp.config.log_level = wp.LOG_WARNING
    with _no_driver_is_no_news():
        wp.init()  # type: ignore[no-untyped-call]
    return wp


def warp_device(tensor: Tensor) -> Any:
    """The Warp device that holds a tensor."""
    return warp().device_from_torch(tensor.device)


def view(tensor: Tensor, dtype: Any = None) -> Any:
    """A zero-copy Warp array over a contiguous tensor; with a vector `dtype` the last axis becomes that vector."""
    return warp().from_torch(tensor.detach(), dtype=dtype, requires_grad=False)


def launch(kernel: Any, dim: int | tuple[int, ...], inputs: list[Any]) -> None:
    """Launches on the device of the first input; on CUDA in torch's current stream, in whose order memory is reused."""
    wp = warp()
    device = inputs[0].device
    stream = wp.stream_from_torch(wp.device_to_torch(device)) if device.is_cuda else None
    wp.launch(kernel, dim=dim, inputs=inputs, device=device, stream=stream, record_tape=False)


def settle(device: torch.device) -> None:
    """Waits for a card: what Warp builds or frees by itself it does in a stream of its own, not in torch's."""
    if device.type != "cpu":
        torch.cuda.synchronize(device)


def in_ranges(device: torch.device, total: int, body: Callable[[int, int], None]) -> None:
    """Calls body(first, count) so that the ranges cover 0..total, on the CPU one range per thread."""
    parts = threads() if device.type == "cpu" and total >= SMALL else 1
    edges = [total * k // parts for k in range(parts + 1)]
    in_parallel(device, [(first, end - first) for first, end in pairwise(edges) if end > first], body)


def in_parallel(device: torch.device, tasks: Iterable[tuple[int, int]], body: Callable[[int, int], None]) -> None:
    """Calls body(*task) for each task; on the CPU the pool's threads take the next task when they are free."""
    tasks = list(tasks)
    if device.type != "cpu" or len(tasks) < 2 or threads() < 2:
        for task in tasks:
            body(*task)
    else:
        list(_pool().map(lambda task: body(*task), tasks))


def threads() -> int:
    """Threads of the pool: as many as torch was given."""
    return max(1, torch.get_num_threads())


@contextmanager
def _no_driver_is_no_news() -> Iterator[None]:
    """Without a GPU, Warp's native code writes a warning to file descriptor 2 that no setting turns off."""
    if torch.cuda.is_available():
        yield
        return
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads(), thread_name_prefix="kernels")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a forked child has the pool but not its threads
