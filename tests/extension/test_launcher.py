"""Finding and starting the service, and noticing how it is: with a real process each."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from service import Home

from dreamcraft_blender import launcher as module
from dreamcraft_blender import link as link_module
from dreamcraft_blender.client import TIMEOUT, Endpoint, Pump
from dreamcraft_blender.launcher import Breaker, alive, clean_environment, find_installation, read_state, state_files
from dreamcraft_blender.link import Link, LinkState
from dreamcraft_blender.problems import Problem
from patience import PATIENCE


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path / "home")
    yield made
    made.close()


@pytest.fixture
def link(home: Home) -> Iterator[Link]:
    made = Link(Pump(), home.launcher())
    yield made
    made.close()


def until(link: Link, condition: Callable[[], bool]) -> None:
    """Steps as Blender's timer would."""
    start = time.monotonic()
    while not condition():
        link.pump.step(time.monotonic() + 0.002)
        time.sleep(0.02)
        assert time.monotonic() - start < PATIENCE, (link.state, link.problem)


def test_it_starts_what_is_not_there_and_attaches_to_what_is(home: Home, link: Link) -> None:
    threads = threading.active_count()
    server = link.pump.wait(link.ensure(), seconds=PATIENCE)
    assert server["version"] == "0.1.0"
    assert link.ready
    other = Link(Pump(), home.launcher())
    other.pump.wait(other.ensure(), seconds=PATIENCE)
    assert other.boot_id == link.boot_id  # two Blenders, one backend
    assert len(home.starts) == 1
    assert threading.active_count() == threads


def test_without_a_wish_nothing_is_started(home: Home, link: Link) -> None:
    time.sleep(0.05)
    for _ in range(20):
        link.pump.step(time.monotonic() + 0.002)
    assert link.state is LinkState.IDLE
    assert link.problem is None
    assert not home.starts


def test_a_service_that_others_started_is_found(home: Home, link: Link) -> None:
    other = Link(Pump(), home.launcher())
    other.pump.wait(other.ensure(), seconds=PATIENCE)
    until(link, lambda: link.ready)


def test_silence_shows_within_five_seconds() -> None:
    """From one beat to the next, and until the answer is overdue; `tests/ui` measures it in a Blender."""
    assert link_module.BEAT + TIMEOUT < 5.0


@pytest.mark.slow
def test_a_stopped_process_shows_and_comes_back(home: Home, link: Link) -> None:
    link.pump.wait(link.ensure(), seconds=PATIENCE)
    home.signal(signal.SIGSTOP)
    until(link, lambda: link.state is LinkState.FAILED)
    assert link.problem is not None
    assert link.problem.code == "silent"
    assert link.problem.button is not None
    home.signal(signal.SIGCONT)
    until(link, lambda: link.ready)
    assert link.problem is None


@pytest.mark.slow
def test_a_killed_service_shows_and_is_started_for_work(home: Home, link: Link) -> None:
    link.pump.wait(link.ensure(), seconds=PATIENCE)
    first = link.boot_id
    home.signal(signal.SIGKILL)
    until(link, lambda: link.state is LinkState.STOPPED)
    assert link.problem is not None
    assert "stopped" in link.problem.message
    link._needed = lambda: True  # a job is waiting
    until(link, lambda: link.ready)
    assert link.boot_id != first
    assert len(home.starts) == 2


def test_a_service_that_keeps_dying_is_left_alone(home: Home) -> None:
    home.manners = "dies"
    made = home.launcher()
    link = Link(Pump(), made, needed=lambda: True)
    codes = []
    for _ in range(5):
        with pytest.raises(Problem) as caught:
            link.pump.wait(link.ensure(), seconds=PATIENCE)
        codes.append(caught.value.code)
        assert "cannot import torch" in caught.value.log
    assert codes == ["did_not_start"] * 3 + ["keeps_stopping"] * 2
    assert len(home.starts) == 3
    made.breaker.reset()
    with pytest.raises(Problem, match="ended while starting"):
        link.pump.wait(link.ensure(), seconds=PATIENCE)


@pytest.mark.parametrize(("manners", "code"), [("garbage", "not_ours"), ("html", "not_ours"), ("old", "wrong_version")])
def test_bad_manners_have_names(home: Home, manners: str, code: str) -> None:
    home.manners = manners
    link = Link(Pump(), home.launcher())
    with pytest.raises(Problem) as caught:
        link.pump.wait(link.ensure(), seconds=PATIENCE)
    assert caught.value.code == code
    assert caught.value.remedy
    assert caught.value.button is not None
    assert link.state is LinkState.FAILED


def test_no_installation_has_a_button(home: Home) -> None:
    made = home.launcher()
    made.installation = None
    link = Link(Pump(), made)
    with pytest.raises(Problem) as caught:
        link.pump.wait(link.ensure(), seconds=PATIENCE)
    assert caught.value.code == "not_installed"
    assert caught.value.button is not None
    assert caught.value.button.label == "Install Backend"


def test_a_fixed_address_is_never_started(home: Home) -> None:
    made = home.launcher()
    made.fixed = Endpoint("127.0.0.1", 1)
    link = Link(Pump(), made)
    with pytest.raises(Problem, match="not running"):
        link.pump.wait(link.ensure(), seconds=PATIENCE)
    assert not home.starts


def test_state_files_are_read_with_care(tmp_path: Path) -> None:
    path = tmp_path / "service.json"
    assert read_state(path) is None
    path.write_text('{"pid": 1')
    assert read_state(path) is None
    good = {"pid": 7, "boot_id": "b", "host": "127.0.0.1", "port": 9, "token": "hidden", "protocol": 1, "more": 1}
    path.write_text(json.dumps(good))
    state = read_state(path)
    assert state is not None
    assert state.endpoint == Endpoint("127.0.0.1", 9, "hidden")
    assert "hidden" not in repr(state)
    path.write_text(json.dumps({**good, "port": "none"}))
    assert read_state(path) is None


def test_the_state_file_is_where_the_backend_puts_it() -> None:
    platformdirs = pytest.importorskip("platformdirs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says where it falls back to
        place = Path(platformdirs.user_runtime_dir("dreamcraft3d")) / "service.json"
    assert place in state_files({**os.environ, "DREAMCRAFT3D_HOME": ""})


def test_blenders_python_does_not_leak_into_the_child() -> None:
    dirty = {
        "PYTHONPATH": "/x",
        "PYTHONHOME": "/y",
        "PYTHONSTARTUP": "/z",
        "BLENDER_USER_SCRIPTS": "/s",
        "PATH": "/bin",
    }
    clean = clean_environment(dirty)
    assert clean == {"PATH": "/bin", "PYTHONNOUSERSITE": "1", "PYTHONUTF8": "1"}


def test_which_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert find_installation("", tmp_path / "none") is None
    assert find_installation(str(tmp_path / "missing")) is None
    chosen = find_installation(sys.executable)
    assert chosen is not None
    assert chosen.command == (sys.executable, "-I", "-m", "dreamcraft3d")
    folder = tmp_path / "backend"
    python = module.environment_python(folder)
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    assert find_installation("", folder) is None  # unfinished
    (folder / "installed.json").write_text("{}")
    found = find_installation("", folder)
    assert found is not None
    assert found.command[0] == str(python)


def test_alive_is_about_living_processes() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    assert alive(os.getpid())
    deadline = time.monotonic() + PATIENCE
    while alive(child.pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(child.pid)  # although nobody has waited for it
    child.wait()
    assert not alive(child.pid)


def test_breaker_forgets() -> None:
    breaker = Breaker(limit=2, seconds=10)
    assert [breaker.allow(t) for t in (0, 1, 2, 9, 10.5, 11.5)] == [True, True, False, False, True, True]
