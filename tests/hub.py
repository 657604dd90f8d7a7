"""A small Hugging Face hub on this machine: the API and file routes that downloads use, with faults on demand."""

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """`repositories`: name -> path -> content. The other fields are faults, and what was asked.

    Attributes:
        break_after: path -> bytes after which each answer breaks off (every time). once: the same, but one time only.
        damage: path -> how many answers have a wrong byte. gated: repositories that want a licence accepted.
        slow: seconds between blocks. requests: (path, where the answer began). strangers: paths that do not exist here.
        agents: how the callers introduced themselves.
    """

    repositories: dict[str, dict[str, bytes]]
    break_after: dict[str, int] = field(default_factory=dict)
    once: dict[str, int] = field(default_factory=dict)
    damage: dict[str, int] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    ignore_ranges: bool = False
    slow: float = 0.0
    down: bool = False
    requests: list[tuple[str, int]] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    agents: set[str] = field(default_factory=set)

    def __enter__(self) -> Self:
        hub = self
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def starts(self, path: str) -> list[int]:
        """Where the answers about a file began."""
        return [start for asked, start in self.requests if asked == path]


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.agents.add(self.headers.get("User-Agent", ""))
        if self.hub.down:
            return self._refuse(503, None)
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            return self._describe(match[1], match[2] or "main")
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._send_file(match[1], match[3])
        self.hub.strangers.append(path)
        return self._refuse(404, "EntryNotFound")

    def _describe(self, repository: str, revision: str) -> None:
        files = self.hub.repositories.get(repository)
        if files is None:
            return self._refuse(401, "RepoNotFound")
        commit = revision if re.fullmatch(r"[0-9a-f]{40}", revision) else COMMIT
        siblings = [_sibling(path, content) for path, content in files.items()]
        answer = {"_id": "1", "id": repository, "sha": commit, "private": False, "tags": [], "downloads": 0, "likes": 0}
        return self._answer(json.dumps({**answer, "siblings": siblings}).encode())

    def _send_file(self, repository: str, path: str) -> None:
        hub = self.hub
        if repository in hub.gated:
            return self._refuse(403, "GatedRepo")
        content = hub.repositories.get(repository, {}).get(path)
        if content is None:
            return self._refuse(404, "EntryNotFound")
        start = 0
        if not hub.ignore_ranges and (match := re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))):
            start = int(match[1])
        hub.requests.append((path, start))
        if hub.damage.get(path, 0) > 0:
            hub.damage[path] -= 1
            content = content[:-1] + bytes([content[-1] ^ 1])
        limit = hub.once.pop(path, None) or hub.break_after.get(path)
        return self._answer(content[start:], start=start, total=len(content), limit=limit)

    def _answer(self, body: bytes, *, start: int = 0, total: int | None = None, limit: int | None = None) -> None:
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{total}")
        self.send_header("Content-Type", "application/json" if total is None else "application/octet-stream")
        self.end_headers()
        try:
            for place in range(0, len(body) if limit is None else min(limit, len(body)), 1 << 16):
                end = place + (1 << 16) if limit is None else min(limit, place + (1 << 16))
                self.wfile.write(body[place:end])
                if self.hub.slow:
                    self.wfile.flush()
                    threading.Event().wait(self.hub.slow)
        except OSError:  # the other side has gone
            limit = 0
        if limit is not None:
            self.close_connection = True

    def _refuse(self, status: int, code: str | None) -> None:
        body = b'{"error": "refused"}'
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _sibling(path: str, content: bytes) -> dict[str, Any]:
    blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
    item: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": blob}
    if path.endswith((".safetensors", ".bin", ".ckpt")):
        digest = hashlib.sha256(content).hexdigest()
        item["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
    return item
