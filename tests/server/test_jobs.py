"""The life of a job: what users may ask, what a lost worker means, and that nothing ever gets stuck."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dreamcraft3d.server.jobs import (
    CRASH_WEIGHT,
    MAX_LOSSES,
    IllegalTransition,
    Input,
    Lifecycle,
    State,
    Wish,
    event_of,
    step,
)


def after(*events: Input) -> Lifecycle:
    life = Lifecycle()
    for event in events:
        life = step(life, event)
    return life


def test_the_usual_way() -> None:
    assert after(Input.CLAIM, Input.SUCCEED).state is State.FINISHED
    assert after(Input.CLAIM, Input.FAIL).state is State.FAILED
    assert after(Input.CLAIM, Input.FAIL, Input.RETRY).state is State.QUEUED


def test_pause_and_cancel_are_wishes_while_it_runs() -> None:
    pausing = after(Input.CLAIM, Input.PAUSE)
    assert (pausing.state, pausing.wish) == (State.RUNNING, Wish.PAUSE)
    assert step(pausing, Input.YIELD).state is State.PAUSED
    assert step(step(pausing, Input.RESUME), Input.SUCCEED).state is State.FINISHED
    cancelling = step(pausing, Input.CANCEL)
    assert step(cancelling, Input.PAUSE).wish is Wish.CANCEL, "a cancelled job cannot be paused instead"
    for end in (Input.YIELD, Input.FAIL, Input.LOSE, Input.CRASH, Input.RELEASE):
        assert step(cancelling, end).state is State.CANCELLED
    assert step(cancelling, Input.SUCCEED).state is State.FINISHED, "finished before it heard"


def test_a_lost_worker_sends_the_job_back_until_it_is_hopeless() -> None:
    life = Lifecycle()
    for loss in range(1, MAX_LOSSES):
        life = step(step(life, Input.CLAIM), Input.LOSE)
        assert (life.state, life.losses) == (State.QUEUED, loss)
    assert step(step(life, Input.CLAIM), Input.LOSE).state is State.FAILED


def test_a_job_that_crashes_is_hopeless_sooner() -> None:
    life = Lifecycle()
    for _ in range(MAX_LOSSES // CRASH_WEIGHT - 1):
        life = step(step(life, Input.CLAIM), Input.CRASH)
        assert life.state is State.QUEUED
    assert step(step(life, Input.CLAIM), Input.CRASH).state is State.FAILED


def test_a_service_that_stops_costs_nothing() -> None:
    life = after(*[Input.CLAIM, Input.RELEASE] * 10)
    assert life == Lifecycle()


@pytest.mark.parametrize(
    ("events", "asked"),
    [
        ((), Input.SUCCEED),
        ((), Input.RETRY),
        ((Input.CLAIM,), Input.CLAIM),
        ((Input.CLAIM, Input.SUCCEED), Input.CANCEL),
        ((Input.CLAIM, Input.SUCCEED), Input.RETRY),
        ((Input.CANCEL,), Input.RESUME),
    ],
)
def test_what_makes_no_sense_is_said_so(events: tuple[Input, ...], asked: Input) -> None:
    with pytest.raises(IllegalTransition, match=asked.value):
        step(after(*events), asked)


class Life(RuleBasedStateMachine):
    """Anything may happen in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.life = Lifecycle()
        self.last: str | None = "queued"

    @rule(event=st.sampled_from(Input))
    def happens(self, event: Input) -> None:
        before = self.life
        try:
            self.life = step(before, event)
        except IllegalTransition:
            return
        told = event_of(before, self.life)
        assert (before.state is self.life.state) or told is not None, "no silent transition"
        if before.state is State.FINISHED:
            raise AssertionError("a finished job stays finished")

    @invariant()
    def wishes_belong_to_running_jobs(self) -> None:
        assert self.life.wish is Wish.NONE or self.life.state is State.RUNNING

    @invariant()
    def losses_are_bounded(self) -> None:
        assert 0 <= self.life.losses <= MAX_LOSSES

    @invariant()
    def there_is_always_a_way_on(self) -> None:
        if not self.life.state.over:
            assert any(_legal(self.life, event) for event in Input)


def _legal(life: Lifecycle, event: Input) -> bool:
    try:
        return step(life, event) != life
    except IllegalTransition:
        return False


TestLife = Life.TestCase


@given(st.lists(st.sampled_from(Input), max_size=20))
@settings(max_examples=100, deadline=None)
def test_every_job_can_be_brought_to_an_end(events: list[Input]) -> None:
    life = Lifecycle()
    for event in events:
        if _legal(life, event):
            life = step(life, event)
    if not life.state.over:
        life = step(life, Input.CANCEL)
    if not life.state.over:
        life = step(life, Input.YIELD)
    assert life.state.over
