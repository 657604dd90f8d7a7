"""A non-blocking HTTP/1.1 client: nothing here ever waits, so that Blender's window never does.

An `Exchange` is one request and its answer on one non-blocking socket; `step` does what can be done at once. A *flow*
is a generator that yields a `Call` (and is sent its `Reply`) or a `Pause`; a `Pump` moves all flows on until a
deadline. In the window the pump is stepped by a timer, in the background by a plain loop: the same code in both. There
are no threads.

The addresses are numbers (or "localhost"): looking up a name would wait.
"""

from __future__ import annotations

import errno
import json
import socket
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlencode

from .answers import Message, Reply, refused, told
from .problems import Problem

__all__ = ["Call", "Endpoint", "Exchange", "Flow", "Pause", "Pump", "Reply", "Task"]

T = TypeVar("T")

CHUNK = 128 * 1024
"""Bytes sent or received at a time: far below a millisecond on the loopback."""

TIMEOUT = 2.5
"""Seconds without a byte after which a server counts as silent."""

NOT_YET = {
    errno.EAGAIN,
    errno.EWOULDBLOCK,
    errno.EINPROGRESS,
    errno.EALREADY,
    errno.ENOTCONN,
    errno.EINTR,
    10035,
    10057,
}
"""What a socket says that is not ready; the numbers are Windows' own."""


@dataclass(frozen=True)
class Endpoint:
    """Where a service listens, and the token that it wants to see."""

    host: str
    port: int
    token: str = field(default="", repr=False)

    @property
    def address(self) -> str:
        return "127.0.0.1" if self.host == "localhost" else self.host


@dataclass(frozen=True)
class Call:
    """One request. `save_to`: where the body goes instead of memory. `endpoint`: another service than the pump's."""

    method: str
    path: str
    body: bytes = b""
    query: Mapping[str, Any] = field(default_factory=dict)
    content_type: str = "application/json"
    timeout: float = TIMEOUT
    save_to: Path | None = None
    endpoint: Endpoint | None = None

    @staticmethod
    def sending(method: str, path: str, value: Any, **more: Any) -> Call:
        """A request with a JSON body."""
        return Call(method, path, json.dumps(value).encode("utf-8"), **more)

    def encode(self, endpoint: Endpoint) -> bytes:
        """The bytes on the wire. One request per connection, so that nothing can get out of step."""
        target = quote(self.path) + ("?" + urlencode(self.query) if self.query else "")
        host = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
        head = [
            f"{self.method} {target} HTTP/1.1",
            f"Host: {host}:{endpoint.port}",
            "Connection: close",
            "Accept: application/json, */*",
            "User-Agent: dreamcraft-blender",
        ]
        if endpoint.token:
            head.append(f"Authorization: Bearer {endpoint.token}")
        if self.body or self.method in ("POST", "PUT"):
            head += [f"Content-Type: {self.content_type}", f"Content-Length: {len(self.body)}"]
        return "\r\n".join([*head, "", ""]).encode("ascii") + self.body


@dataclass(frozen=True)
class Pause:
    """A flow that wants to wait."""

    seconds: float


Flow = Generator[Call | Pause, Any, T]


class Exchange:
    """One request and its answer. `step` never waits; it returns whether anything moved."""

    def __init__(self, call: Call, endpoint: Endpoint, *, now: Callable[[], float] = time.monotonic) -> None:
        self.call = call
        self.done = False
        self._now = now
        self._last = now()
        self._message = Message(call.save_to)
        self._unsent = memoryview(call.encode(endpoint))
        family = socket.AF_INET6 if ":" in endpoint.address else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        try:
            code = self._socket.connect_ex((endpoint.address, endpoint.port))
        except (OSError, OverflowError) as error:  # a name instead of a number, a port out of range
            self.close()
            text = f"{endpoint.host}:{endpoint.port} is not an address."
            raise Problem("bad_address", text, "Write it as 127.0.0.1:PORT.") from error
        if code and code not in NOT_YET:
            self.close()
            raise refused("The backend is not running.")

    def step(self) -> bool:
        """Sends or receives one piece. Raises `Problem`; then, and when done, the socket is closed."""
        try:
            if self._message.unsaved:
                self._message.save()
                self.done = moved = True
            else:
                moved = self._send() if self._unsent else self._receive()
        except Problem:
            self.close()
            raise
        except OSError as error:
            if error.errno in NOT_YET:
                moved = False
            elif error.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS) and self.call.save_to is not None:
                self.close()
                text = f"Cannot write {self.call.save_to}: {error.strerror}."
                raise Problem("read_only", text, "Choose another folder in the preferences.") from error
            else:
                self.close()
                raise refused("The backend is not running.") from error
        if moved:
            self._last = self._now()
        elif self._now() - self._last > self.call.timeout:
            self.close()
            text = f"The backend has not answered for {self.call.timeout:.0f} s."
            raise Problem("silent", text, "It may be very busy: wait, or restart it.")
        return moved

    def reply(self) -> Reply:
        return self._message.reply()

    def close(self) -> None:
        self._message.close()
        self._socket.close()

    def _send(self) -> bool:
        failure = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failure:
            raise OSError(failure, "connect")
        sent = self._socket.send(self._unsent[:CHUNK])
        self._unsent = self._unsent[sent:]
        return True

    def _receive(self) -> bool:
        data = self._socket.recv(CHUNK)
        self._message.feed(data) if data else self._message.end()
        if self._message.done:
            self.done = not self._message.unsaved
            self._socket.close()
        return True


class Task(Generic[T]):
    """A flow on its way. When `done`, either `problem` is set or `result` is what the flow returned."""

    def __init__(self, flow: Flow[T], endpoint: Callable[[], Endpoint | None]) -> None:
        self.done = False
        self.result: T | None = None
        self.problem: Problem | None = None
        self._flow = flow
        self._endpoint = endpoint
        self._exchange: Exchange | None = None
        self._wake = 0.0
        self._advance(lambda: next(flow))

    @property
    def waiting(self) -> bool:
        """Whether it only lets time pass."""
        return self._exchange is None and not self.done

    def step(self) -> bool:
        """Moves on by one piece; returns whether there may be more to do at once."""
        if self.done:
            return False
        if self._exchange is None:
            if time.monotonic() < self._wake:
                return False
            self._advance(lambda: self._flow.send(None))
            return True
        try:
            moved = self._exchange.step()
            if not self._exchange.done:
                return moved
            reply = self._exchange.reply()
            if reply.status >= 400:
                raise told(reply)
        except Problem as problem:
            failure = problem  # the name in `except` is gone when the lambda runs
            self._exchange = None
            self._advance(lambda: self._flow.throw(failure))
            return True
        self._exchange = None
        self._advance(lambda: self._flow.send(reply))
        return True

    def cancel(self) -> None:
        """Stops where it is."""
        if self._exchange is not None:
            self._exchange.close()
            self._exchange = None
        self._flow.close()
        self.done = True

    def outcome(self) -> T:
        """The result of a finished task; raises its problem."""
        if self.problem is not None:
            raise self.problem
        return self.result  # type: ignore[return-value]

    def _advance(self, resume: Callable[[], Call | Pause]) -> None:
        try:
            wish = resume()
            while not isinstance(wish, Pause):
                endpoint = wish.endpoint or self._endpoint()
                try:
                    if endpoint is None:
                        raise refused("The backend is not running.")
                    self._exchange = Exchange(wish, endpoint)
                    return
                except Problem as problem:
                    wish = self._flow.throw(problem)
            self._wake = time.monotonic() + wish.seconds
        except StopIteration as stop:
            self.result, self.done = stop.value, True
        except Problem as problem:
            self.problem, self.done = problem, True


class Pump:
    """All flows of one Blender, moved on together. `endpoint` is the service that they talk to."""

    def __init__(self) -> None:
        self.endpoint: Endpoint | None = None
        self.tasks: list[Task[Any]] = []

    def run(self, flow: Flow[T]) -> Task[T]:
        task = Task(flow, lambda: self.endpoint)
        self.tasks.append(task)
        return task

    def step(self, deadline: float) -> bool:
        """Moves all flows on until there is nothing to do at once, or `time.monotonic()` passes the deadline.

        Returns whether something is on the wire, so that the next step should come soon.
        """
        moved = True
        while moved and time.monotonic() < deadline:
            moved = False
            for task in list(self.tasks):
                moved = task.step() or moved
                if time.monotonic() >= deadline:
                    break
        if self.tasks:  # fairness: who was reached last comes first next time
            self.tasks.append(self.tasks.pop(0))
        self.tasks = [task for task in self.tasks if not task.done]
        return any(not task.waiting for task in self.tasks)

    def wait(self, task: Task[T], *, seconds: float | None = None, idle: float = 0.01) -> T:
        """For scripts: steps until the task is done, and returns its result or raises its problem."""
        end = None if seconds is None else time.monotonic() + seconds
        while not task.done:
            self.step(time.monotonic() + 0.05)
            if end is not None and time.monotonic() > end:
                task.cancel()
                raise Problem("too_slow", f"This took longer than {seconds:.0f} s.", "Look at the backend's log.")
            time.sleep(idle)
        return task.outcome()

    def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        self.tasks = []
