"""uvicorn's HTTP/1.1 with an end to its patience: a request that has begun must go on arriving.

Without an end, anybody on this machine could hold all of our connections by saying nothing.
"""

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["BODY_SECONDS", "HEAD_SECONDS", "PatientProtocol"]

HEAD_SECONDS = 10.0
"""How long the whole head of a request may take, from the beginning of the connection."""

BODY_SECONDS = 60.0
"""How long nothing may come of a body."""


class PatientProtocol(H11Protocol):
    """Closes connections on which no request begins, whose head does not end, or whose body stands still."""

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.access_log = False  # whole addresses, secrets included, whatever others did to uvicorn's loggers
        self._watch(HEAD_SECONDS)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.SEND_BODY:
            self._watch(BODY_SECONDS)
        elif self.conn.their_state is not h11.IDLE:  # the request is whole, or beyond hope
            self._forget()
        elif self._patience is None:  # a next request has begun; idle connections are uvicorn's to close
            self._watch(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def _watch(self, seconds: float) -> None:
        self._forget()
        self._patience = self.loop.call_later(seconds, self._give_up)

    def _forget(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
