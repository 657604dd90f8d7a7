"""Who may talk to the service: its user, through programs that know the token. Everybody else hears 401 or 403.

The `Guard` stands before everything, so that an answer never tells somebody without the token what exists:

* Host must be this machine (a name that an attacker's DNS points here is refused: DNS rebinding);
* a request with an Origin comes from a web page, and none is ours (no CORS either);
* the token is compared in constant time;
* bodies are counted, whatever their header claims.
"""

import hmac
import ipaddress
import logging
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dreamcraft3d.server.answers import ServiceError, error_response

__all__ = ["MAX_JSON", "MAX_UPLOAD", "Guard", "HostRule", "new_token"]

logger = logging.getLogger(__name__)

MAX_JSON = 1 << 20
"""Largest body of a request that is not an upload, bytes."""

MAX_UPLOAD = 256 << 20
"""Largest upload, bytes."""

UPLOADS = "/v1/uploads"
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


def new_token() -> str:
    """256 random bits, for one start of the service."""
    return secrets.token_urlsafe(32)


@dataclass(frozen=True)
class HostRule:
    """Which Host headers are this machine. Ports do not matter: a tunnel may have another one.

    >>> HostRule().allows("localhost:8000"), HostRule().allows("evil.example")
    (True, False)
    >>> HostRule(("gpu-box",), addresses=True).allows("10.0.0.7:80")
    True
    """

    names: tuple[str, ...] = ()
    """further names, besides the loopback's"""
    addresses: bool = False
    """whether any number will do (a number cannot be rebound); only when other machines may connect"""

    def allows(self, header: str) -> bool:
        """Whether a Host header names this machine."""
        name = host_name(header)
        if name in LOOPBACK_NAMES or name in self.names:
            return True
        return self.addresses and is_address(name)


def host_name(header: str) -> str:
    """The name of `name:port` or `[address]:port`, in lower case; empty if it is neither."""
    text = header.strip().lower()
    if text.startswith("["):
        name, bracket, rest = text[1:].partition("]")
    else:
        name, colon, port = text.partition(":")
        bracket, rest = "]", f"{colon}{port}"
    port = rest.removeprefix(":")
    well_formed = bracket and (not rest or (rest.startswith(":") and port.isdecimal() and port.isascii()))
    return name if well_formed else ""


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


@dataclass
class Guard:
    """ASGI middleware; see the module. `heard` is called for every request that was let in (for the idle clock)."""

    app: ASGIApp
    token: str = field(repr=False)
    hosts: HostRule = HostRule()
    heard: Callable[[], None] = lambda: None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # there are no web sockets here, and the lifespan is nobody's request
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
            await send(message)

        try:
            await self._admit(scope, receive, watched)
        finally:
            level = logging.DEBUG if scope["method"] == "GET" and status < 400 else logging.INFO
            took = round((time.perf_counter() - start) * 1000.0, 1)
            logger.log(level, "%s %s %d", scope["method"], scope["path"], status, extra={"ms": took})

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        limit = MAX_UPLOAD if scope["path"] == UPLOADS else MAX_JSON
        refusal = self._refusal(headers) or too_large(headers, limit)
        if refusal is not None:
            await error_response(refusal)(scope, receive, send)
            return
        self.heard()
        await self.app(scope, counted(receive, limit), send)

    def _refusal(self, headers: Headers) -> ServiceError | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self.hosts.allows(hosts[0]):
            return ServiceError(403, "forbidden_host", "This name is not the service's.", "Connect to 127.0.0.1.")
        if "origin" in headers:
            return ServiceError(403, "forbidden_origin", "Web pages may not talk to the service.")
        if not self._knows_token(headers.getlist("authorization")):
            hint = "Send `Authorization: Bearer TOKEN` with the token of the state file."
            return ServiceError(401, "unauthorized", "The token is missing or wrong.", hint)
        return None

    def _knows_token(self, values: Iterable[str]) -> bool:
        given = list(values)
        scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        right = hmac.compare_digest(token.strip().encode("utf-8", "replace"), self.token.encode("utf-8"))
        return right and scheme.lower() == "bearer"


def too_large(headers: Headers, limit: int) -> ServiceError | None:
    """The refusal of a body that announces too much."""
    length = headers.get("content-length", "0")
    if length.isdecimal() and len(length) < 20 and int(length) <= limit:
        return None
    return refused_size(limit)


def refused_size(limit: int) -> ServiceError:
    message = f"The body is larger than {limit >> 20} MiB."
    return ServiceError(413, "too_large", message, "Send a smaller picture or mesh.")


def counted(receive: Receive, limit: int) -> Receive:
    """The same bytes, until there are more than `limit` (a chunked body announces no length)."""
    total = 0

    async def counting() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > limit:
            raise refused_size(limit)
        return message

    return counting
