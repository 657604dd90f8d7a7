"""The crew and its processes: nothing asked is forgotten, nothing started is left."""

import time
from pathlib import Path

import psutil
import pytest
from PIL import Image

from batches import PAINTER
from dreamcraft3d.batch import crew as module
from dreamcraft3d.batch.crew import Ended, LocalCrew, Order, Told
from patience import PATIENCE


def order(folder: Path, name: str, steps: int = 3) -> Order:
    picture = folder / f"{name}.png"
    Image.new("RGB", (24, 24)).save(picture)
    request = {"preset": "preview", "settings": {"seed": 1, "coarse_nerf.steps": steps}}
    return Order(name, folder / name, request, {"picture": picture})


def ends(crew: LocalCrew, count: int, seconds: float = PATIENCE) -> list[Ended]:
    """The next `count` ends of orders."""
    found: list[Ended] = []
    deadline = time.monotonic() + seconds
    while len(found) < count:
        assert time.monotonic() < deadline, found
        found += [event for event in crew.events(0.2) if isinstance(event, Ended)]
    return found


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if "painter.py" in words_of(child)]


def words_of(process: psutil.Process) -> str:
    """Its command line; nothing of one that has ended, whoever has not taken note of that yet."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.fixture(autouse=True)
def nobody_is_left():
    yield
    deadline = time.monotonic() + PATIENCE
    while (left := children()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


def test_places_and_ends(tmp_path):
    crew = LocalCrew(2, command=PAINTER)
    assert crew.free() == 2
    crew.submit(order(tmp_path, "a"))
    crew.submit(order(tmp_path, "b"))
    assert crew.free() == 0
    deadline = time.monotonic() + PATIENCE
    while len(children()) != 2:  # a process that was just made still bears its parent's name
        assert time.monotonic() < deadline
        time.sleep(0.02)
    found = ends(crew, 2)
    assert sorted((end.item, end.outcome, end.detail["faces"]) for end in found) == [
        ("a", "finished", 12),
        ("b", "finished", 12),
    ]
    assert crew.free() == 2
    crew.close()


def test_a_wish_to_stop_that_comes_with_the_order_is_heard(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "GRACE_SECONDS", 2 * PATIENCE)  # nobody ends it by force
    crew = LocalCrew(1, command=PAINTER)
    crew.submit(order(tmp_path, "slow"))
    crew.cancel("slow")
    (end,) = ends(crew, 1, seconds=PATIENCE)
    assert (end.item, end.outcome) == ("slow", "stopped")
    crew.submit(order(tmp_path, "next"))  # the wish was for the other one
    assert ends(crew, 1)[0].outcome == "finished"
    crew.close()


def test_an_order_whose_runner_is_gone_before_it_began_is_not_carried_out(tmp_path):
    crew = LocalCrew(1, command=PAINTER)
    crew.submit(order(tmp_path, "slow"))
    crew.close()  # ends the worker's input at once, and waits for it
    assert not (tmp_path / "slow" / "result.glb").exists()


def test_progress_is_told(tmp_path):
    crew = LocalCrew(1, command=PAINTER)
    crew.submit(order(tmp_path, "a", steps=2))
    told: list[Told] = []
    while not any(event.kind == "progress" and event.data["step"] == 2 for event in told):
        told += [event for event in crew.events(0.2) if isinstance(event, Told)]
    assert {event.item for event in told} == {"a"}
    crew.close()


def test_a_process_is_renewed_after_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RENEW_AFTER", 2)
    crew = LocalCrew(1, command=PAINTER)
    makers = []
    for name in ("a", "b", "c"):
        crew.submit(order(tmp_path, name))
        assert ends(crew, 1)[0].outcome == "finished"
        makers.append((tmp_path / name / "made.txt").read_text())
    assert makers[0] == makers[1] != makers[2]
    crew.close()


def test_a_deaf_worker_is_ended_by_force(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.5)
    crew = LocalCrew(1, command=PAINTER)
    crew.submit(order(tmp_path, "silent"))
    while "log.txt" not in {path.name for path in (tmp_path / "silent").glob("*")}:
        crew.events(0.1)
    crew.cancel("silent")
    assert ends(crew, 1)[0].outcome == "stopped"
    crew.close(force=True)
