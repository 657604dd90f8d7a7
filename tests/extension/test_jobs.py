"""Jobs over the wire: sent once, followed, fetched, cancelled, told apart when they fail."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from service import Home

from dreamcraft_blender import glb, jobs
from dreamcraft_blender.client import Pump
from dreamcraft_blender.jobs import Job
from dreamcraft_blender.link import Link
from dreamcraft_blender.problems import Problem
from dreamcraft_blender.submission import Picture, build
from patience import PATIENCE

PICTURE = Picture(b"\x89PNG\r\n\x1a\n" + bytes(20), "mug.png", 256, 256)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path / "home")
    yield made
    made.close()


def connected(home: Home) -> Link:
    link = Link(Pump(), home.launcher())
    link.pump.wait(link.ensure(), seconds=PATIENCE)
    return link


def submitted(link: Link, **more: Any) -> Job:
    submission = build(PICTURE, server=link.server, **more)
    return link.pump.wait(link.pump.run(jobs.submit(submission.request, submission.files)), seconds=PATIENCE)


def test_the_whole_way(home: Home, tmp_path: Path) -> None:
    link = connected(home)
    job = submitted(link, settings={"seed": 5})
    assert job.name == "mug.png"
    seen: list[Job] = []
    done = link.pump.wait(link.pump.run(jobs.follow(job.id, seen=seen.append, every=0.02)), seconds=PATIENCE)
    assert done.state == "finished"
    fractions = [item.overall for item in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert {item.stage for item in seen} >= {"geometry", "texture"}
    path = link.pump.wait(link.pump.run(jobs.fetch(job.id, "result.glb", tmp_path / "r.glb")), seconds=PATIENCE)
    assert len(glb.read(path).faces) == 12


def test_sent_twice_is_one_job(home: Home) -> None:
    link = connected(home)
    submission = build(PICTURE, server=link.server)
    sends = [link.pump.run(jobs.submit(submission.request, submission.files)) for _ in range(2)]
    assert len({link.pump.wait(send, seconds=PATIENCE).id for send in sends}) == 1
    assert len(link.pump.wait(link.pump.run(jobs.listed()), seconds=PATIENCE)) == 1


def test_cancel_and_delete(home: Home) -> None:
    home.seconds = 60
    link = connected(home)
    job = submitted(link)
    following = link.pump.run(jobs.follow(job.id, every=0.02))
    link.pump.wait(link.pump.run(jobs.act(job.id, "pause")), seconds=PATIENCE)
    link.pump.wait(link.pump.run(jobs.act(job.id, "resume")), seconds=PATIENCE)
    link.pump.wait(link.pump.run(jobs.act(job.id, "cancel")), seconds=PATIENCE)
    with pytest.raises(Problem) as caught:
        link.pump.wait(following, seconds=PATIENCE)
    assert caught.value.code == "cancelled"
    with pytest.raises(Problem, match="cannot pause"):
        link.pump.wait(link.pump.run(jobs.act(job.id, "pause")), seconds=PATIENCE)
    link.pump.wait(link.pump.run(jobs.delete(job.id)), seconds=PATIENCE)
    assert link.pump.wait(link.pump.run(jobs.listed()), seconds=PATIENCE) == []


def test_a_failure_carries_its_remedy_and_its_log(home: Home) -> None:
    home.manners = "fails"
    link = connected(home)
    job = submitted(link)
    with pytest.raises(Problem) as caught:
        link.pump.wait(link.pump.run(jobs.follow(job.id, every=0.02)), seconds=PATIENCE)
    assert (caught.value.code, caught.value.remedy) == ("object_lost", "Check the mask.")
    assert "empty level set" in caught.value.log


@pytest.mark.slow
def test_a_job_is_followed_across_a_crash_of_the_service(home: Home) -> None:
    home.seconds = 2.0
    link = connected(home)
    link._needed = lambda: True
    job = submitted(link)
    following = link.pump.run(jobs.follow(job.id, every=0.05))
    home.signal(9)
    done = link.pump.wait(following, seconds=PATIENCE)
    assert done.state == "finished"
    assert len(home.starts) == 2


@pytest.mark.parametrize(
    "view",
    [
        None,
        [],
        {},
        {"id": "x"},
        {"id": "x", "state": "running", "step": "many"},
        {"id": 1, "state": 2, "artifacts": [1]},
    ],
)
def test_a_record_that_is_none(view: Any) -> None:
    with pytest.raises(Problem, match="does not speak"):
        Job.read(view)


def test_unknown_fields_are_no_concern(home: Home) -> None:
    job = Job.read({"id": "a", "state": "running", "new": 1, "stage": "neus", "step": 5, "total": 10})
    assert job.overall == pytest.approx(1.5 / 4.2)


def test_a_job_from_a_shape_has_two_stages() -> None:
    request = {"files": {"picture": "p", "shape": "s"}}
    view = {"id": "a", "state": "running", "request": request, "stage": "geometry", "step": 5, "total": 10}
    assert Job.read(view).overall == pytest.approx(0.5 / 2.2)
    assert Job.read({**view, "stage": "mesh"}).overall == pytest.approx(2.0 / 2.2)
