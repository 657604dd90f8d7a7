"""One runner per folder: who holds it is known, and a dead one does not hold it for ever."""

import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from dreamcraft3d.batch import lock as module
from dreamcraft3d.batch.errors import BatchBusyError
from dreamcraft3d.batch.lock import BatchLock, holder_of


def left_behind(folder, **changes):
    """The lock of a runner that is elsewhere, and was alive a moment ago."""
    values = {"host": "render-7", "pid": 4242, "born": 1.0, "token": "theirs", "beat": time.time(), **changes}
    (folder / "batch.lock").write_text(json.dumps(values))


def ours(folder) -> bool:
    """Whether this process holds the lock, as others read it."""
    holder = holder_of(folder)
    return holder is not None and (holder.pid, holder.host) == (os.getpid(), socket.gethostname())


def test_held_and_given_back(tmp_path):
    with BatchLock(tmp_path) as lock:
        holder = holder_of(tmp_path)
        assert holder is not None
        assert (holder.pid, holder.host) == (os.getpid(), socket.gethostname())
        lock.check()
    assert holder_of(tmp_path) is None
    assert not (tmp_path / "batch.lock").exists()


def test_a_live_one_on_another_machine_is_respected_and_a_silent_one_is_not(tmp_path):
    left_behind(tmp_path)
    with pytest.raises(BatchBusyError, match="Process 4242 on render-7"), BatchLock(tmp_path):
        pass
    assert json.loads((tmp_path / "batch.lock").read_text())["token"] == "theirs"
    left_behind(tmp_path, beat=time.time() - module.STALE_SECONDS - 1.0)
    with BatchLock(tmp_path):
        assert holder_of(tmp_path) is not None


def test_a_dead_one_on_this_machine_is_replaced_at_once(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    for pid in (child.pid, os.getpid()):  # the second: the number was used again
        left_behind(tmp_path, host=socket.gethostname(), pid=pid)
        with BatchLock(tmp_path):
            assert ours(tmp_path)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"host": 3}'])
def test_a_damaged_lock_holds_nobody(tmp_path, text):
    (tmp_path / "batch.lock").write_text(text)
    with BatchLock(tmp_path):
        assert ours(tmp_path)


def test_of_many_that_find_a_stale_lock_one_gets_it(tmp_path):
    left_behind(tmp_path, beat=0.0)
    start, over = threading.Barrier(8), threading.Event()
    got: list[bool] = []

    def take() -> None:
        start.wait()
        try:
            with BatchLock(tmp_path):
                got.append(True)
                over.wait()
        except BatchBusyError:
            got.append(False)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    while len(got) < 8:
        time.sleep(0.01)
    over.set()
    for thread in threads:
        thread.join()
    assert sorted(got) == [False] * 7 + [True]


def test_the_heartbeat_goes_on_and_stops_for_a_usurper(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.02)
    with BatchLock(tmp_path) as lock:
        first = holder_of(tmp_path)
        while (now := holder_of(tmp_path)) is not None and first is not None and now.beat == first.beat:
            time.sleep(0.01)
        left_behind(tmp_path)
        time.sleep(0.1)
        with pytest.raises(BatchBusyError, match="took over"):
            lock.check()
    assert json.loads((tmp_path / "batch.lock").read_text())["token"] == "theirs"
