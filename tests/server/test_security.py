"""Who is let in."""

import contextlib
import http.client
import logging
import socket
import time

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamcraft3d.server import patient_protocol
from dreamcraft3d.server.security import MAX_JSON, HostRule, host_name, new_token
from patience import PATIENCE, eventually
from serving import TOKEN, Hosted, error_of, png

ROUTES = ("/v1/server", "/v1/health", "/v1/jobs", "/v1/openapi.json", "/docs", "/", "/v1/nothing")


def test_nothing_is_told_without_the_token(shared: Hosted):
    with httpx.Client(base_url=f"http://127.0.0.1:{shared.port}", trust_env=False) as stranger:
        for route in ROUTES:
            for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"):
                answer = stranger.request(method, route)
                assert answer.status_code == 401, (method, route)
                assert answer.headers["www-authenticate"] == "Bearer"
                assert "access-control-allow-origin" not in answer.headers
        assert error_of(stranger.get("/v1/jobs"))["code"] == "unauthorized"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        TOKEN,
        f"Basic {TOKEN}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        "Bearer \u00e9",
        f"x{TOKEN}",
    ],
)
def test_a_wrong_token_is_as_good_as_none(shared: Hosted, value: str):
    headers = {"Authorization": value.encode("utf-8")}
    assert shared.http.get("/v1/health", headers=headers).status_code == 401


def test_two_tokens_are_one_too_many(shared: Hosted):
    headers = [("Authorization", "Bearer no"), ("Authorization", f"Bearer {TOKEN}")]
    with httpx.Client(base_url=f"http://127.0.0.1:{shared.port}", trust_env=False) as stranger:
        assert stranger.get("/v1/health", headers=headers).status_code == 401


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "10.0.0.7", "", "[::1"])
def test_a_foreign_name_is_refused_even_with_the_token(shared: Hosted, host: str):
    answer = shared.http.get("/v1/health", headers={"Host": host})
    assert answer.status_code in (400, 403)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:9999", "[::1]:80"])
def test_names_of_this_machine_are_taken_with_any_port(shared: Hosted, host: str):
    assert shared.http.get("/v1/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1"])
def test_web_pages_are_refused_even_with_the_token(shared: Hosted, origin: str):
    answer = shared.http.get("/v1/health", headers={"Origin": origin})
    assert answer.status_code == 403 and error_of(answer)["code"] == "forbidden_origin"


def test_a_request_without_a_host_is_refused(shared: Hosted):
    with socket.create_connection(("127.0.0.1", shared.port), timeout=PATIENCE) as line:
        line.sendall(f"GET /v1/health HTTP/1.0\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
        assert line.recv(100).startswith(b"HTTP/1.1 403")


def test_bodies_are_counted_announced_or_not(shared: Hosted):
    large = b"x" * (MAX_JSON + 1)
    headers = {"Content-Type": "application/json"}
    assert error_of(shared.http.post("/v1/jobs", content=large, headers=headers))["code"] == "too_large"
    pieces = (large[start : start + 65536] for start in range(0, len(large), 65536))
    answer = shared.http.post("/v1/jobs", content=pieces, headers=headers)
    assert answer.status_code == 413


def test_an_upload_beyond_the_limit_leaves_nothing(hosted: Hosted, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dreamcraft3d.server.security.MAX_UPLOAD", 100_000)
    pieces = (bytes(10_000) for _ in range(20))
    assert hosted.http.post("/v1/uploads", content=pieces).status_code == 413
    assert hosted.http.post("/v1/uploads", content=bytes(200_000)).status_code == 413
    assert not any(hosted.service.uploads.folder.iterdir())
    assert hosted.upload(png(64, 64))


def test_who_connects_and_says_nothing_is_sent_away(hosted: Hosted, monkeypatch: pytest.MonkeyPatch):
    with contextlib.ExitStack() as connections:

        def connected() -> socket.socket:
            return connections.enter_context(socket.create_connection(("127.0.0.1", hosted.port), timeout=PATIENCE))

        speaking = connections.enter_context(
            contextlib.closing(http.client.HTTPConnection("127.0.0.1", hosted.port, timeout=PATIENCE))
        )

        def asked() -> int:
            speaking.request("GET", "/v1/health", headers={"Authorization": f"Bearer {TOKEN}"})
            answer = speaking.getresponse()
            answer.read()
            return answer.status

        assert asked() == 200  # with the usual patience: a busy machine may need a while for a line
        line = speaking.sock
        monkeypatch.setattr(patient_protocol, "HEAD_SECONDS", 0.3)
        silent, stammering = connected(), connected()
        stammering.sendall(b"GET /v1/health HTTP/1.1\r\nHost: local")
        assert silent.recv(10) == stammering.recv(10) == b""
        monkeypatch.undo()
        assert (asked(), speaking.sock) == (200, line), "who has asked may be silent"


def test_a_slow_answer_is_not_taken_for_silence(hosted: Hosted, monkeypatch: pytest.MonkeyPatch):
    job = hosted.submit()["id"]
    monkeypatch.setattr(patient_protocol, "HEAD_SECONDS", 1.0)
    answer = hosted.http.get(f"/v1/jobs/{job}/events", params={"since": 1, "wait": 2.0})
    assert answer.status_code == 200
    time.sleep(1.2)  # between two requests of one connection
    assert hosted.http.get("/v1/health").status_code == 200


def test_web_sockets_get_nothing(shared: Hosted):
    connection = http.client.HTTPConnection("127.0.0.1", shared.port, timeout=PATIENCE)
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": "x", "Sec-WebSocket-Version": "13"}
    connection.request("GET", "/v1/health", headers=headers)
    assert connection.getresponse().status == 401
    connection.close()


def test_the_log_of_a_request_has_no_token(hosted: Hosted, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.DEBUG, logger="dreamcraft3d"):
        hosted.http.get("/v1/health", params={"token": TOKEN})
        eventually(lambda: "GET /v1/health 200" in caplog.text)
    assert TOKEN not in caplog.text


def test_tokens_are_long_and_never_the_same():
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100 and min(map(len, tokens)) >= 40


@given(st.text())
def test_any_host_header_is_judged_without_an_error(header: str):
    allowed = HostRule().allows(header)
    assert not allowed or host_name(header) in ("localhost", "127.0.0.1", "::1")


@given(st.ip_addresses(), st.integers(0, 65535))
def test_numbers_are_names_of_this_machine_only_when_others_may_connect(address: object, port: int):
    host = f"[{address}]" if ":" in str(address) else str(address)
    assert HostRule(addresses=True).allows(f"{host}:{port}")
    assert HostRule().allows(f"{host}:{port}") == (str(address) in ("127.0.0.1", "::1"))
    assert not HostRule(addresses=True).allows("evil.example")
