"""The store on a real SQLite file: nothing is lost, events have no gaps, the queue keeps its order."""

import sqlite3
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamcraft3d.server.jobs import CRASH_WEIGHT, IllegalTransition, Input, State
from dreamcraft3d.server.store import Store, UnknownJob
from patience import PATIENCE


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "jobs.sqlite")


def ids(store: Store) -> list[str]:
    """The queue in the order in which it is worked off."""
    order = []
    while (job := store.claim_next()) is not None:
        order.append(job.id)
    return order


def test_a_job_is_there_after_a_restart(store: Store, tmp_path: Path) -> None:
    job, new = store.submit({"name": "mug"}, client_key="abc")
    store.add_event(job.id, "note", {"text": "hello"})
    assert new
    store.close()
    again = Store(tmp_path / "jobs.sqlite")
    assert again.get(job.id).request == {"name": "mug"}
    assert [event.type for event in again.events(job.id)] == ["queued", "note"]
    same, new = again.submit({"name": "other"}, client_key="abc")
    assert (same.id, new) == (job.id, False), "sending a request twice makes one job"


def test_priority_first_then_age_then_wishes(store: Store) -> None:
    a, b, c = (store.submit({"n": n})[0].id for n in range(3))
    urgent = store.submit({}, priority=5)[0].id
    store.reorder(c, before=a)
    assert store.position(store.get(a)) == 2
    assert ids(store) == [urgent, c, a, b]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12))
@settings(max_examples=25, deadline=None)
def test_any_sequence_of_moves_is_a_permutation(tmp_path_factory: pytest.TempPathFactory, moves: list) -> None:
    store = Store(tmp_path_factory.mktemp("queue") / "jobs.sqlite")
    model = [store.submit({"n": n})[0].id for n in range(6)]
    names = list(model)
    for moved, place in moves:
        if moved == place:
            continue
        store.reorder(names[moved], before=names[place])
        model.remove(names[moved])
        model.insert(model.index(names[place]), names[moved])
    assert ids(store) == model
    store.close()


def test_events_of_many_writers_have_no_gaps(store: Store) -> None:
    job, _ = store.submit({})

    def write() -> None:
        for n in range(50):
            store.add_event(job.id, "progress", {"n": n}, progress={"step": n})

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [event.number for event in store.events(job.id)] == list(range(1, 202))
    assert store.get(job.id).last_event == 201


def test_waiting_ends_with_the_event(store: Store) -> None:
    job, _ = store.submit({})
    start = time.monotonic()
    threading.Timer(0.2, lambda: store.add_event(job.id, "note", {})).start()
    store.wait(job.id, since=1, seconds=PATIENCE)
    assert 0.1 < time.monotonic() - start < PATIENCE
    start = time.monotonic()
    store.wait(job.id, since=2, seconds=0.2)
    assert time.monotonic() - start >= 0.19


def test_a_transition_and_its_event_are_one(store: Store) -> None:
    job, _ = store.submit({})
    store.claim_next()
    failed = store.apply(job.id, Input.FAIL, error={"code": "bug", "message": "oh", "hint": "", "log_tail": []})
    assert failed.error is not None
    assert failed.error["code"] == "bug"
    assert store.events(job.id)[-1].data["message"] == "oh"
    with pytest.raises(IllegalTransition):
        store.apply(job.id, Input.PAUSE)
    assert len(store.events(job.id)) == 3, "a refused transition leaves no trace"


def test_recovery_requeues_what_was_running(store: Store) -> None:
    job, _ = store.submit({})
    for _ in range(5):
        store.claim_next()
        assert [(j.id, j.life.state) for j in store.recover()] == [(job.id, State.QUEUED)]
    assert store.recover() == []


def test_progress_makes_up_for_losses(store: Store) -> None:
    job, _ = store.submit({})
    error = {"code": "worker_lost", "message": "gone", "hint": "retry", "log_tail": []}
    for loss in (1, 2):
        store.claim_next()
        lost = store.apply(job.id, Input.CRASH, error=error)
        assert (lost.life.state, lost.life.losses, lost.error) == (State.QUEUED, loss * CRASH_WEIGHT, None)
    store.claim_next()
    store.add_event(job.id, "progress", {}, progress={"stage": "neus", "step": 3})
    assert store.apply(job.id, Input.CRASH, error=error).life.state is State.QUEUED
    for _ in range(2):
        store.claim_next()
        lost = store.apply(job.id, Input.CRASH, error=error)
    assert lost.life.state is State.FAILED
    assert lost.error == error


def test_what_is_not_there(store: Store) -> None:
    for call in (store.get, store.events, store.delete, lambda job: store.apply(job, Input.CANCEL)):
        with pytest.raises(UnknownJob):
            call("nothing")


def test_running_jobs_are_not_deleted(store: Store) -> None:
    job, _ = store.submit({})
    store.claim_next()
    with pytest.raises(IllegalTransition):
        store.delete(job.id)
    store.apply(job.id, Input.SUCCEED)
    store.delete(job.id)
    assert store.page() == []


def test_only_the_user_may_read_it(store: Store, tmp_path: Path) -> None:
    assert (tmp_path / "jobs.sqlite").stat().st_mode & 0o077 == 0
    assert sqlite3.connect(tmp_path / "jobs.sqlite").execute("PRAGMA journal_mode").fetchone() == ("wal",)
