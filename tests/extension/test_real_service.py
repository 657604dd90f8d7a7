"""The extension's plain half against the real service: the double must not be kinder than the truth."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dreamcraft_blender import jobs
from dreamcraft_blender.client import Call, Pump
from dreamcraft_blender.launcher import Installation, Launcher, alive
from dreamcraft_blender.link import Link
from dreamcraft_blender.problems import Problem
from dreamcraft_blender.submission import Picture, build

pytestmark = pytest.mark.slow
MUG = Path(__file__).resolve().parents[2] / "examples" / "mug.png"
TINY = {
    "coarse_nerf.steps": 4,
    "neus.steps": 2,
    "neus.fit_steps": 10,
    "geometry.steps": 2,
    "texture.steps": 2,
    "texture.fit_steps": 5,
    "export.texture_size": 64,
    "export.target_faces": 500,
}


@pytest.fixture
def link(tmp_path: Path) -> Iterator[Link]:
    variables = {**os.environ, "DREAMCRAFT3D_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    made = Launcher(Installation.of_python(Path(sys.executable)), log=tmp_path / "serve.log", environment=variables)
    found = Link(Pump(), made)
    yield found
    made.terminate()
    if made.child is not None:
        made.child.wait(30)
    found.close()
    assert made.state is None or not alive(made.state.pid)


def test_what_the_panel_does(link: Link, tmp_path: Path) -> None:
    """Starts it, asks for the mask, is refused politely, sends, follows, fetches, sends again, cancels, deletes."""
    server = link.pump.wait(link.ensure(), seconds=60)
    assert "generate" in server["capabilities"]
    picture = Picture(MUG.read_bytes(), "mug.png", 256, 256)

    def look() -> Iterator[Call]:
        name = yield from jobs.upload(picture.data)
        yield Call.sending("POST", "/v1/reference", {"picture": name}, timeout=90.0, save_to=tmp_path / "mask.png")

    link.pump.wait(link.pump.run(look()), seconds=120)
    assert (tmp_path / "mask.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(Problem) as caught:
        link.pump.wait(link.pump.run(jobs.submit({"preset": "preview", "picture": "0" * 64}, {})), seconds=30)
    assert caught.value.message
    submission = build(picture, server=server, settings=TINY)
    job = link.pump.wait(link.pump.run(jobs.submit(submission.request, submission.files)), seconds=30)
    done = link.pump.wait(link.pump.run(jobs.follow(job.id)), seconds=400)
    assert "result.glb" in done.artifacts
    again = build(picture, server=server, settings={**TINY, "seed": 5})
    second = link.pump.wait(link.pump.run(jobs.submit(again.request, again.files)), seconds=30)
    link.pump.wait(link.pump.run(jobs.act(second.id, "cancel")), seconds=30)
    with pytest.raises(Problem, match="cancelled"):
        link.pump.wait(link.pump.run(jobs.follow(second.id)), seconds=60)
    link.pump.wait(link.pump.run(jobs.delete(second.id)), seconds=30)
    assert [item.id for item in link.pump.wait(link.pump.run(jobs.listed()), seconds=30)] == [job.id]
