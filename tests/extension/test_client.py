"""The client: every way an answer can come in pieces, and every way it can be none."""

import itertools
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamcraft_blender.answers import Message
from dreamcraft_blender.client import Call, Endpoint, Exchange, Pause, Pump
from dreamcraft_blender.problems import Problem
from patience import PATIENCE


def answered(raw: bytes, cuts: list[int]) -> Message:
    message = Message()
    places = sorted({min(cut, len(raw)) for cut in cuts} | {0, len(raw)})
    for start, end in itertools.pairwise(places):
        message.feed(raw[start:end])
    return message


@given(st.binary(max_size=300), st.lists(st.integers(0, 500), max_size=20))
def test_an_answer_may_arrive_in_any_pieces(body: bytes, cuts: list[int]) -> None:
    plain = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-Word: Yes\r\n\r\n" % len(body) + body
    message = answered(plain, cuts)
    assert message.reply().body == body
    assert message.headers["x-word"] == "Yes"
    assert message.done


@given(st.lists(st.binary(min_size=1, max_size=90), max_size=6), st.lists(st.integers(0, 900), max_size=20))
def test_chunks_are_put_together(pieces: list[bytes], cuts: list[int]) -> None:
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    raw += b"".join(b"%x;note=1\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    message = answered(raw, cuts)
    assert message.done
    assert message.reply().body == b"".join(pieces)


@given(st.binary(max_size=400))
def test_garbage_is_refused_or_waited_for_and_never_crashes(raw: bytes) -> None:
    message = Message()
    try:
        message.feed(raw)
        message.end()
    except Problem as problem:
        assert problem.code in ("not_ours", "stopped")  # noqa: PT017
        assert problem.remedy  # noqa: PT017


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000,
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (33 * 2**20),
    ],
)
def test_what_is_no_answer_is_named(raw: bytes) -> None:
    with pytest.raises(Problem, match="does not speak"):
        Message().feed(raw)


class Peer:
    """A listening socket of a test: accepts, and does what the test wants."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.endpoint = Endpoint("127.0.0.1", self.socket.getsockname()[1], "secret")

    def serve(self, answer: bytes, *, piece: int = 10_000, close: bool = True) -> threading.Thread:
        def work() -> None:
            connection, _ = self.socket.accept()
            self.request = connection.recv(65536)
            for start in range(0, len(answer), piece):
                connection.sendall(answer[start : start + piece])
            if close:
                connection.close()
            else:
                self.kept = connection

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.socket.close()


def run(pump: Pump, call: Call, seconds: float = PATIENCE):
    def flow():
        return (yield call)

    return pump.wait(pump.run(flow()), seconds=seconds)


def test_a_real_answer_over_a_real_socket(peer: Peer) -> None:
    peer.serve(b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{"jobs": 1}', piece=7)
    pump = Pump()
    pump.endpoint = peer.endpoint
    assert run(pump, Call.sending("POST", "/v1/jobs", {"a b": "ü"}, query={"since": 3})).json() == {"jobs": 1}
    assert peer.request.startswith(b"POST /v1/jobs?since=3 HTTP/1.1\r\n")
    assert b"Authorization: Bearer secret" in peer.request
    assert "secret" not in repr(peer.endpoint)


def test_a_download_is_whole_or_not_there(peer: Peer, tmp_path: Path) -> None:
    body = bytes(range(256)) * 4096
    target = tmp_path / "new folder" / "result.glb"
    peer.serve(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body, piece=50_000)
    pump = Pump()
    pump.endpoint = peer.endpoint
    run(pump, Call("GET", "/x", save_to=target))
    assert target.read_bytes() == body
    peer.serve(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (2 * len(body)) + body)
    broken = tmp_path / "broken.glb"
    with pytest.raises(Problem, match="broke off"):
        run(pump, Call("GET", "/x", save_to=broken))
    assert list(tmp_path.iterdir()) == [target.parent]


def test_an_error_message_is_not_saved_as_a_file(peer: Peer, tmp_path: Path) -> None:
    error = b'{"error": {"code": "not_found", "message": "No such file.", "hint": "Look.", "field": "name"}}'
    peer.serve(b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n" % len(error) + error)
    pump = Pump()
    pump.endpoint = peer.endpoint
    with pytest.raises(Problem) as caught:
        run(pump, Call("GET", "/x", save_to=tmp_path / "file"))
    assert (caught.value.code, caught.value.remedy, caught.value.field) == ("not_found", "Look.", "name")
    assert not list(tmp_path.iterdir())


def test_nobody_there_is_known_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    pump = Pump()
    pump.endpoint = Endpoint("127.0.0.1", port)
    with pytest.raises(Problem) as caught:
        run(pump, Call("GET", "/v1/health"))
    assert caught.value.code == "stopped"  # had it waited, it would be "silent"


class Later:
    """The clock, which a test can put forward."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds, clock = 0.0, time.monotonic
        monkeypatch.setattr(time, "monotonic", lambda: clock() + self.seconds)
        monkeypatch.setitem(Exchange.__init__.__kwdefaults__, "now", time.monotonic)


@pytest.mark.timeout(PATIENCE)
def test_silence_is_noticed_and_never_waited_for(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The peer accepts and says nothing for an hour: each step comes back all the same, or we would wait as long."""
    peer.serve(b"", close=False)
    pump, clock = Pump(), Later(monkeypatch)
    pump.endpoint = peer.endpoint

    def flow():
        return (yield Call("GET", "/v1/health", timeout=3600.0))

    task = pump.run(flow())
    for _ in range(50):
        pump.step(time.monotonic() + 0.002)
        time.sleep(0.01)
    assert not task.done
    clock.seconds = 3601.0
    while not task.done:
        pump.step(time.monotonic() + 0.002)
    assert task.problem is not None
    assert task.problem.code == "silent"


@pytest.mark.parametrize(("host", "port"), [("example.invalid", 80), ("127.0.0.1", 70_000), ("not an address", 1)])
def test_names_are_refused_instead_of_looked_up(host: str, port: int) -> None:
    with pytest.raises(Problem, match="not an address"):
        Exchange(Call("GET", "/"), Endpoint(host, port))


def test_flows_share_the_pump_fairly(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that only waits does not hold up another, and problems can be caught inside a flow."""
    pump, clock = Pump(), Later(monkeypatch)
    order: list[str] = []

    def sleeper():
        yield Pause(3600.0)
        order.append("late")

    def catcher():
        try:
            yield Call("GET", "/", endpoint=Endpoint("127.0.0.1", 1))
        except Problem:
            order.append("caught")
        yield Pause(0.0)
        return "done"

    late, soon = pump.run(sleeper()), pump.run(catcher())
    assert pump.wait(soon, seconds=PATIENCE) == "done"
    clock.seconds = 3601.0
    pump.wait(late, seconds=PATIENCE)
    assert order == ["caught", "late"]
    assert not pump.tasks
