"""The state of the connection to the backend, as the panel shows it; and the watch that keeps it true.

Plain Python. A `Link` looks at the service every `BEAT` seconds: who dies or falls silent is known within five seconds,
a service that died with work left is started again (not more often than the breaker allows), and one that comes back
is taken up where it was.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

from .answers import garbled
from .client import Call, Flow, Pause, Pump, Task
from .launcher import Launcher, alive
from .problems import Problem

__all__ = ["Link", "LinkState"]

BEAT, PATIENCE = 1.0, 2.0
"""Seconds between two looks, and until a look gives up: together, five seconds are enough to notice anything."""


class LinkState(Enum):
    """Where the connection stands."""

    IDLE = "idle"  # nothing is running, nothing was asked for
    CONNECTING = "connecting"
    READY = "ready"
    STOPPED = "stopped"  # it was there and has ended
    FAILED = "failed"  # see `problem`


class Link:
    """Attaches, starts, watches. Callers read `state`, `problem` and `server`, and call `ensure` when they need it."""

    def __init__(self, pump: Pump, launcher: Launcher, *, needed: Callable[[], bool] = lambda: False) -> None:
        self.pump = pump
        self.launcher = launcher
        self.state = LinkState.IDLE
        self.problem: Problem | None = None
        self.server: dict[str, Any] = {}
        self.boot_id = ""
        self._resting = False
        self._needed = needed
        self._connecting: Task[dict[str, Any]] | None = None
        self._watch: Task[None] = pump.run(self._watching())

    @property
    def ready(self) -> bool:
        return self.state is LinkState.READY

    def ensure(self, *, start: bool = True) -> Task[dict[str, Any]]:
        """Attaches (or starts); the same task for all who ask while it is under way."""
        if self._connecting is None or self._connecting.done:
            self._resting = self._resting and not start
            self._connecting = self.pump.run(self._connect(start=start))
        return self._connecting

    def connected(self) -> Flow[dict[str, Any]]:
        """Flow: waits for the service, starting it if need be; returns its description."""
        if self.ready:
            return self.server
        task = self.ensure()
        while not task.done:
            yield Pause(0.05)
        return task.outcome()

    def rest(self) -> None:
        """The user stops the service: that it goes away is no problem then."""
        self._resting = True

    def reconnected(self) -> Flow[dict[str, Any]]:
        """Flow: forgets what is known of the service and connects anew."""
        self.pump.endpoint = None
        self.state, self.problem = LinkState.CONNECTING, None
        return (yield from self.connected())

    def close(self) -> None:
        self.pump.close()
        self.launcher.reap()

    def _connect(self, *, start: bool) -> Flow[dict[str, Any]]:
        self.state = LinkState.CONNECTING if start else self.state
        try:
            server = yield from (self.launcher.attach_or_start() if start else self.launcher.attach())
        except Problem as problem:
            idle = problem.code == "stopped" and self.state is not LinkState.STOPPED
            self.state = LinkState.IDLE if idle else self.state if problem.code == "stopped" else LinkState.FAILED
            self.problem = None if idle else problem
            raise
        self._take(server)
        return server

    def _take(self, server: dict[str, Any]) -> None:
        self.server = server
        self.state = LinkState.READY
        self.problem = None
        if self.launcher.state is not None:
            self.boot_id = self.launcher.state.boot_id
        endpoint = self.launcher.fixed or (self.launcher.state.endpoint if self.launcher.state else None)
        self.pump.endpoint = endpoint

    def _watching(self) -> Flow[None]:
        """Flow without end: one look after the other."""
        while True:
            self.launcher.reap()
            connecting = self._connecting is not None and not self._connecting.done
            if not connecting:
                yield from self._look()
            yield Pause(BEAT)

    def _look(self) -> Flow[None]:
        if self.pump.endpoint is None or self.state in (LinkState.IDLE, LinkState.STOPPED):
            task = self.ensure(start=self.state is LinkState.STOPPED and self._needed())
            while not task.done:
                yield Pause(0.1)
            return
        try:
            reply = yield Call("GET", "/v1/health", timeout=PATIENCE)
            if not isinstance(reply.json(), dict):
                raise garbled("its health is not a record")
        except Problem as problem:
            self._lost(problem)
            return
        if self.state is not LinkState.READY:
            self.state, self.problem = LinkState.READY, None

    def _lost(self, problem: Problem) -> None:
        """The service did not answer as it should: gone, silent, or somebody else."""
        state = self.launcher.state
        if state is not None and not alive(state.pid):
            problem = Problem("stopped", "The backend has stopped.", "Start it: its jobs go on where they were.")
        if problem.code == "stopped":
            self.pump.endpoint = None
            self.state = LinkState.STOPPED
            if self._resting:
                self.state, self.problem = LinkState.IDLE, None
                return
        else:
            self.state = LinkState.FAILED
        self.problem = problem
