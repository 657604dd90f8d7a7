"""The life of the service as a process: starting, finding, stopping, and what is left afterwards."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from dreamcraft3d.errors import ConfigError, OutputError
from dreamcraft3d.server.client import JobFailedError, RefusedError, ServiceClient, ServiceUnavailableError
from dreamcraft3d.server.paths import ServicePaths
from dreamcraft3d.server.service import ServeOptions, listening_socket, serve
from dreamcraft3d.server.state_file import ServiceState, answers, forget_state, read_state, write_state
from patience import PATIENCE, RUN_PATIENCE, eventually
from serving import png
from tiny import SETTINGS

SERVE = [sys.executable, "-m", "dreamcraft3d", "serve"]
FEW = {**SETTINGS, "coarse_nerf.steps": 60, "neus.steps": 4, "geometry.steps": 4, "texture.steps": 4}


class Home:
    """Where a service lives in a test. `close` fails if one of its processes is left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths = ServicePaths(folder / "data", folder / "run")
        self.children: list[subprocess.Popen[str]] = []
        self.seen: set[psutil.Process] = set()

    def start(self, *options: str, command: list[str] = SERVE) -> subprocess.Popen[str]:
        environment = {**os.environ, "DREAMCRAFT3D_HOME": str(self.folder), "OMP_NUM_THREADS": "1"}
        child = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        self.children.append(child)
        return child

    def ready(self, *options: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
        """A service that has said that it is ready."""
        child = self.start(*options)
        assert child.stdout is not None
        line = child.stdout.readline()
        assert line, child.stderr and child.stderr.read()
        return child, json.loads(line)

    def client(self) -> ServiceClient:
        return ServiceClient.connect(self.paths)

    def note_processes(self) -> None:
        """Remembers the service's children, to ask about them after its end."""
        for child in self.children:
            if child.poll() is None:
                self.seen.update(psutil.Process(child.pid).children(recursive=True))

    def stop(self, child: subprocess.Popen[str], number: int = signal.SIGTERM) -> int:
        self.note_processes()
        child.send_signal(number)
        return child.wait(PATIENCE)

    def close(self) -> None:
        self.note_processes()
        for child in self.children:
            if child.poll() is None:
                child.kill()
            child.communicate()
        eventually(lambda: not any(process.is_running() for process in self.seen))


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    found = Home(tmp_path / "home")
    yield found
    found.close()


def test_it_starts_answers_and_stops(home: Home):
    child, record = home.ready()
    used = psutil.Process(child.pid).cpu_times()  # bench measures the time by the clock: about a second
    assert used.user + used.system < 10.0
    assert record["event"] == "ready" and record["pid"] == child.pid and record["host"] == "127.0.0.1"
    assert "token" not in record
    state = read_state(Path(record["state_file"]))
    assert state is not None and state.boot_id == record["boot_id"] and answers(state)
    assert stat.S_IMODE(home.paths.state_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.paths.data.stat().st_mode) == 0o700
    with home.client() as client:
        assert client.server()["pid"] == child.pid
    modules = subprocess.run(["/bin/cat", f"/proc/{child.pid}/maps"], capture_output=True, text=True, check=False)
    assert "libtorch" not in modules.stdout
    assert home.stop(child) == 0
    assert not home.paths.state_file.exists()
    with pytest.raises(ServiceUnavailableError, match="not running"):
        home.client()
    log = [json.loads(line) for line in home.paths.log.read_text().splitlines()]
    assert log[-1]["message"] == "stopping" and state.token not in home.paths.log.read_text()


@pytest.mark.slow
def test_the_second_one_attaches_and_leaves(home: Home):
    first, record = home.ready()
    second = home.start()
    out, _ = second.communicate(timeout=PATIENCE)
    assert second.returncode == 0
    attached = json.loads(out)
    assert attached == {**record, "event": "attached"}
    third = home.start("--data", str(home.folder / "elsewhere"))
    _, said = third.communicate(timeout=PATIENCE)
    assert third.returncode == 2 and "another data folder" in said and "DREAMCRAFT3D_HOME" in said
    assert first.poll() is None


@pytest.mark.slow
def test_many_started_at_once_are_one_service(home: Home):
    children = [home.start() for _ in range(4)]
    records = [json.loads(child.stdout.readline()) for child in children if child.stdout is not None]
    assert sorted(record["event"] for record in records) == ["attached"] * 3 + ["ready"]
    assert len({record["boot_id"] for record in records}) == 1
    ready = next(child for child, record in zip(children, records, strict=True) if record["event"] == "ready")
    assert ready.poll() is None


@pytest.mark.slow
def test_a_killed_service_leaves_nothing_in_the_way(home: Home):
    child, record = home.ready()
    with home.client() as client:
        picture = home.folder / "picture.png"
        picture.write_bytes(png(64, 64))
        job = client.submit(picture)["id"]
        client.act(job, "cancel")
    child.kill()
    child.wait(10.0)
    assert home.paths.state_file.exists()
    _, again = home.ready()
    assert again["boot_id"] != record["boot_id"]
    with home.client() as client:
        assert client.job(job)["state"] == "cancelled"


def test_it_ends_when_it_is_idle(home: Home):
    child, _ = home.ready("--idle-minutes", "0.02")
    assert child.wait(20.0) == 0
    assert not home.paths.state_file.exists()


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_it_outlives_who_started_it(home: Home):
    """A parent that starts the service as the extension does, and dies at once."""
    program = (
        "import subprocess, sys; quiet = subprocess.DEVNULL; "
        "child = subprocess.Popen(sys.argv[1:], start_new_session=True, stdout=quiet, stderr=quiet); print(child.pid)"
    )
    parent = home.start(command=[sys.executable, "-c", program, *SERVE])
    out, _ = parent.communicate(timeout=PATIENCE)
    service = psutil.Process(int(out))
    home.seen.add(service)
    eventually(lambda: (state := read_state(home.paths.state_file)) is not None and answers(state), 30.0)
    with home.client() as client:
        assert client.server()["pid"] == service.pid
        client.shutdown()
    service.wait(30.0)


def test_a_taken_port_is_said_politely(home: Home):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        child = home.start("--port", str(port))
        _, said = child.communicate(timeout=PATIENCE)
    assert child.returncode == 2 and "is taken" in said and "--port" in said
    assert not home.paths.state_file.exists()


def test_a_broken_database_is_said_politely(home: Home):
    home.paths.prepare()
    home.paths.database.write_bytes(b"this is no database" * 100)
    child = home.start()
    _, said = child.communicate(timeout=PATIENCE)
    assert child.returncode == 2 and "database" in said and "--data" in said
    assert home.paths.database.read_bytes().startswith(b"this is no database")


def test_addresses_that_are_none_are_refused():
    with pytest.raises(OutputError):
        listening_socket(ServeOptions(host="256.1.2.3"))
    listener = listening_socket(ServeOptions())
    assert listener.getsockname()[0] == "127.0.0.1"
    listener.close()


def example_state(**changes: Any) -> ServiceState:
    values: dict[str, Any] = {
        "pid": 1, "boot_id": "b", "host": "127.0.0.1", "port": 9, "token": "t", "protocol": 1, "version": "0",
        "started": 1.0, "data": "/d",
    }  # fmt: skip
    return ServiceState(**{**values, **changes})


def test_the_state_file_is_whole_private_and_ours(tmp_path: Path):
    path = tmp_path / "service.json"
    before = os.umask(0)
    try:
        write_state(path, example_state())
    finally:
        os.umask(before)
    assert read_state(path) == example_state() and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "geheim" not in repr(example_state(token="geheim"))
    forget_state(path, "somebody else")
    assert path.exists()
    forget_state(path, "b")
    assert not path.exists() and read_state(path) is None
    for text in ("", "{}", "[]", '{"pid": "x"}', json.dumps({"pid": 1, "boot_id": 3}), "\x00"):
        path.write_text(text)
        assert read_state(path) is None, text
    write_state(path, example_state())
    path.chmod(0o666)
    assert read_state(path) is None, "others could have written it"


def test_a_state_file_that_lies_is_not_believed(home: Home, tmp_path: Path):
    """The process lives and the port answers, but it is not the service."""

    def garbage(listener: socket.socket) -> None:
        while True:
            try:
                line, _ = listener.accept()
            except OSError:
                return
            with line:
                line.sendall(b"\x00\x01 no HTTP\r\n\r\n")

    home.paths.prepare()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        threading.Thread(target=garbage, args=(listener,), daemon=True).start()
        liar = example_state(pid=os.getpid(), port=listener.getsockname()[1])
        write_state(home.paths.state_file, liar)
        assert not answers(liar)
        with pytest.raises(ServiceUnavailableError):
            home.client()
        _, record = home.ready()
        assert record["event"] == "ready"
        listener.shutdown(socket.SHUT_RDWR)


def test_the_client_says_what_the_service_said(home: Home, tmp_path: Path):
    home.ready()
    picture = tmp_path / "picture.png"
    picture.write_bytes(png(64, 64))
    with home.client() as client:
        with pytest.raises(RefusedError) as refusal:
            client.submit(picture, settings={"coarse_nerf.stepz": 1})
        assert refusal.value.status == 422 and refusal.value.field == "settings.coarse_nerf.stepz"
        assert "coarse_nerf.steps" in refusal.value.remedy
        with pytest.raises(RefusedError):
            client.job("0" * 32)
        with pytest.raises(RefusedError):
            client.download("0" * 32, "result.glb", tmp_path / "result.glb")
        assert not (tmp_path / "result.glb").exists()


def test_two_services_cannot_share_their_data(home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    home.ready()
    monkeypatch.setenv("DREAMCRAFT3D_HOME", str(tmp_path / "other"))
    monkeypatch.setattr("dreamcraft3d.server.service.CLAIM_SECONDS", 0.5)
    with pytest.raises(OutputError, match="holds"):
        serve(ServeOptions(data=home.paths.data), lambda _: None)
    monkeypatch.setenv("DREAMCRAFT3D_HOME", str(home.folder))
    with pytest.raises(ConfigError, match="another data folder"):
        serve(ServeOptions(data=tmp_path / "third"), lambda _: None)


def run_cli(home: Home, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DREAMCRAFT3D_HOME": str(home.folder)}
    command = [sys.executable, "-m", "dreamcraft3d", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=RUN_PATIENCE, check=False)


@pytest.mark.slow
def test_a_job_survives_a_restart_and_can_be_driven_from_a_terminal(home: Home, tmp_path: Path):
    """Submit, follow, restart in the middle, resume, fetch, cancel: with the real worker."""
    child, _ = home.ready()
    settings = [word for key, value in FEW.items() for word in ("--set", f"{key}={value}")]
    picture = tmp_path / "picture.png"
    from PIL import Image, ImageDraw

    image = Image.new("RGBA", (96, 96), (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse((20, 16, 76, 80), fill=(200, 60, 40, 255))
    image.save(picture)
    first = run_cli(home, "jobs", "submit", str(picture), *settings, "--json")
    job = json.loads(first.stdout)["job"]["id"]
    other = run_cli(home, "jobs", "submit", str(picture), *settings).stdout.strip()
    assert run_cli(home, "jobs", "cancel", other[:8]).returncode == 0
    with home.client() as client:
        eventually(lambda: client.job(job)["step"] >= 3)
    assert home.stop(child) == 0, "a running job is released, and the end is clean"
    eventually(lambda: not any(process.is_running() for process in home.seen))
    home.ready()
    followed = run_cli(home, "jobs", "follow", job[:8], "--json")
    assert followed.returncode == 0, followed.stderr
    events = [json.loads(line) for line in followed.stdout.splitlines()]
    assert [event["number"] for event in events] == list(range(1, len(events) + 1))
    kinds = [event["type"] for event in events]
    assert kinds.count("finished") == 1 and kinds.count("started") == 2
    steps = [
        event["data"]["step"]
        for event in events
        if event["data"].get("stage") == "coarse_nerf" and "step" in event["data"]
    ]
    assert steps == sorted(steps), "it went on where it had stopped"
    fetched = run_cli(home, "jobs", "fetch", job[:8], "--out", str(tmp_path / "mug.glb"))
    assert fetched.returncode == 0 and (tmp_path / "mug.glb").read_bytes().startswith(b"glTF")
    listing = run_cli(home, "jobs", "list").stdout
    assert "finished" in listing and "cancelled" in listing
    again = run_cli(home, "jobs", "delete", job[:8])
    assert again.returncode == 0 and not home.paths.job(job).exists()


@pytest.mark.slow
def test_a_job_that_fails_says_why(home: Home, tmp_path: Path):
    home.ready()
    picture = tmp_path / "empty.png"
    picture.write_bytes(png(64, 64, (0, 0, 0, 0)))
    submitted = run_cli(home, "jobs", "submit", str(picture), "--follow")
    assert submitted.returncode == JobFailedError.code
    assert "object" in submitted.stderr and "Traceback" not in submitted.stderr
