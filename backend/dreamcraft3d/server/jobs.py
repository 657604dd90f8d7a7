"""The life of a job as a pure function: no clock, no disk, no network.

    queued --claim--> running --succeed--> finished
      ^  \\              |  \\--fail------> failed --retry--> queued
      |   \\--pause--> paused <--yield-- (pause wished, or a full disk)
      |                  |
      +------resume------+        cancel: from queued and paused at once, from running as a wish

A running job belongs to a worker. What the user asks of it is a *wish* (pause, cancel) that the worker obeys at its
next step; the transition happens when it does. A service that stops *releases* its job: back to the queue. So does a
worker that is *lost* (killed from outside, with its service, nobody knows why) or *crashes* (by itself, or because it
hung); losses and crashes in a row, without getting further than ever before, make the job fail. A crash weighs
CRASH_WEIGHT losses: whoever kills a worker from outside may have nothing against its job.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

__all__ = ["CRASH_WEIGHT", "MAX_LOSSES", "IllegalTransition", "Input", "Lifecycle", "State", "Wish", "event_of", "step"]

CRASH_WEIGHT = 14
MAX_LOSSES = 42
"""Three crashes, or so many kills from outside in a row that somebody must mean it: thirty are survived."""


class State(StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def over(self) -> bool:
        """Nothing more happens by itself."""
        return self in (State.FINISHED, State.FAILED, State.CANCELLED)


class Wish(StrEnum):
    """What the user asked of a running job and the worker has not done yet."""

    NONE = "none"
    PAUSE = "pause"
    CANCEL = "cancel"


class Input(StrEnum):
    """What can happen to a job. The first line comes from users, the second from workers and the service."""

    PAUSE, RESUME, CANCEL, RETRY = "pause", "resume", "cancel", "retry"
    CLAIM, YIELD, RELEASE, SUCCEED, FAIL = "claim", "yield", "release", "succeed", "fail"
    LOSE, CRASH = "lose", "crash"


@dataclass(frozen=True)
class Lifecycle:
    """State, wish, and the weight of the deaths of its workers in a row without progress."""

    state: State = State.QUEUED
    wish: Wish = Wish.NONE
    losses: int = 0


class IllegalTransition(Exception):  # noqa: N818 - it says what it is
    """The input makes no sense in this state; the text is for people."""


def step(life: Lifecycle, event: Input) -> Lifecycle:
    """What a job is after an event.

    Inputs that ask for what is already so change nothing. Raises ``IllegalTransition`` for the rest.

    >>> step(Lifecycle(), Input.CLAIM).state
    <State.RUNNING: 'running'>
    """
    if life.state is State.RUNNING:
        return _running(life, event)
    match life.state, event:
        case State.QUEUED, Input.CLAIM:
            return replace(life, state=State.RUNNING, wish=Wish.NONE)
        case State.QUEUED, Input.PAUSE:
            return replace(life, state=State.PAUSED)
        case State.PAUSED, Input.RESUME:
            return replace(life, state=State.QUEUED, losses=0)
        case ((State.QUEUED | State.PAUSED), Input.CANCEL):
            return replace(life, state=State.CANCELLED)
        case ((State.FAILED | State.CANCELLED), Input.RETRY):
            return Lifecycle()
        case (State.PAUSED, Input.PAUSE) | (State.QUEUED, Input.RESUME) | (State.CANCELLED, Input.CANCEL):
            return life
        case _:
            raise IllegalTransition(f"A job that is {life.state.value} cannot {event.value}.")


def _running(life: Lifecycle, event: Input) -> Lifecycle:
    match event:
        case Input.PAUSE:
            return life if life.wish is Wish.CANCEL else replace(life, wish=Wish.PAUSE)
        case Input.RESUME:
            return replace(life, wish=Wish.NONE) if life.wish is Wish.PAUSE else life
        case Input.CANCEL:
            return replace(life, wish=Wish.CANCEL)
        case Input.SUCCEED:
            return Lifecycle(State.FINISHED)
        case Input.FAIL:
            return Lifecycle(State.CANCELLED if life.wish is Wish.CANCEL else State.FAILED)
        case Input.YIELD:  # the worker stopped at a step, checkpoint written
            return _obey(life) or Lifecycle(State.PAUSED)
        case Input.RELEASE:
            return _obey(life) or Lifecycle(losses=life.losses)
        case Input.LOSE | Input.CRASH:
            losses = min(MAX_LOSSES, life.losses + (CRASH_WEIGHT if event is Input.CRASH else 1))
            state = State.FAILED if losses >= MAX_LOSSES else State.QUEUED
            return _obey(life) or Lifecycle(state, losses=losses)
        case _:
            raise IllegalTransition(f"A job that is running cannot {event.value}.")


def _obey(life: Lifecycle) -> Lifecycle | None:
    """Where a wish leads once nobody works on the job."""
    wished = {Wish.CANCEL: State.CANCELLED, Wish.PAUSE: State.PAUSED}.get(life.wish)
    return None if wished is None else Lifecycle(wished)


def event_of(before: Lifecycle, after: Lifecycle) -> str | None:
    """The type of event that tells a transition; None for one that nobody needs to hear of."""
    if before.state is after.state:
        asked = after.wish is not before.wish and after.wish is not Wish.NONE
        return {Wish.PAUSE: "pausing", Wish.CANCEL: "cancelling"}[after.wish] if asked else None
    if after.state is State.QUEUED:
        return "resumed" if before.state is State.PAUSED else "queued"
    return {State.RUNNING: "started"}.get(after.state, after.state.value)
