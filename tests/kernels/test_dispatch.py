"""Splitting of launches, zero-copy views, the default device."""

import os

import pytest
import torch

from dreamcraft3d.kernels import dispatch


@pytest.mark.parametrize("total", [0, 1, dispatch.SMALL - 1, dispatch.SMALL, dispatch.SMALL + 1, 100_003])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_ranges_cover_everything_once(total: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "threads", lambda: threads)
    visits = torch.zeros(total, dtype=torch.int32)
    ranges: list[int] = []

    def body(first: int, count: int) -> None:
        visits[first : first + count] += 1
        ranges.append(count)

    dispatch.in_ranges(torch.device("cpu"), total, body)
    assert bool((visits == 1).all())
    assert len(ranges) == (0 if total == 0 else 1 if total < dispatch.SMALL else threads)


def test_an_error_in_a_task_reaches_the_caller() -> None:
    def body(first: int, count: int) -> None:
        raise RuntimeError(f"task {first}")

    with pytest.raises(RuntimeError, match="task"):
        dispatch.in_parallel(torch.device("cpu"), [(0, 1), (1, 1), (2, 1)], body)


def test_views_share_memory() -> None:
    tensor = torch.zeros(4, 3, requires_grad=True)
    array = dispatch.view(tensor, dispatch.warp().vec3)
    array.fill_(2.0)
    assert bool((tensor == 2.0).all())
    assert array.shape == (4,)
    assert str(dispatch.warp_device(tensor)) == "cpu"


def test_default_device_is_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert dispatch.default_device() == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert dispatch.default_device().type != "cpu"


@pytest.mark.skipif(not hasattr(os, "register_at_fork"), reason="no fork here")
def test_a_forked_child_makes_a_pool_of_its_own() -> None:
    dispatch.in_parallel(torch.device("cpu"), [(0, 1), (1, 1)], lambda first, count: None)
    child = os.fork()
    if child == 0:
        done: list[int] = []
        dispatch.in_parallel(torch.device("cpu"), [(0, 1), (1, 1)], lambda first, count: done.append(first))
        os._exit(0 if sorted(done) == [0, 1] else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
