"""Jobs of the kind refine: what is admitted, and what the real worker makes of it."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

import soups
from dreamcraft3d.evaluation.bench_service import picture as ball
from dreamcraft3d.refining.folder import members
from dreamcraft3d.server.worker import Worker
from refining.test_archive import zipped
from refining.test_mesh_files import glb, images_of, textured
from serving import Hosted, error_of, png
from tiny import SETTINGS

QUICK: dict[str, Any] = {
    **{key: value for key, value in SETTINGS.items() if key.startswith("texture.")},
    "reference.size": 64,
    "texture.steps": 4,
    "texture.fit_steps": 4,
}
PICTURE = soups.png(soups.noise(16, 16))


def request_zip(**header: Any) -> bytes:
    return zipped(members(soups.request(soups.cube(), {0: PICTURE}, **header)))


def mesh_file() -> bytes:
    return glb([textured(0)], [PICTURE], [0])


def test_a_mesh_and_a_request_are_admitted(shared: Hosted) -> None:
    for fields in (
        {"mesh": shared.upload(mesh_file()), "picture": shared.upload(png(64, 64)), "slots": [0]},
        {"mesh": shared.upload(mesh_file())},
        {"mesh": shared.upload(request_zip())},
    ):
        answer = shared.http.post("/v1/jobs", json={"kind": "refine", "settings": QUICK, **fields})
        assert answer.status_code == 201, answer.text
        assert (answer.json()["kind"], answer.json()["state"]) == ("refine", "queued")
    assert "refine" in shared.http.get("/v1/server").json()["capabilities"]


@pytest.mark.parametrize(
    ("fields", "field", "word"),
    [
        ({}, "mesh", "needs a mesh"),
        ({"kind": "generate"}, "picture", "needs a picture"),
        ({"kind": "generate", "picture": "PICTURE", "mesh": "GLB"}, "mesh", "refine"),
        ({"kind": "generate", "picture": "PICTURE", "slots": [1]}, "slots", "refine"),
        ({"mesh": "0" * 64}, "mesh", "does not have"),
        ({"mesh": "PICTURE"}, "mesh", "neither a GLB"),
        ({"mesh": "BROKEN"}, "mesh", "no part named"),
        ({"mesh": "ZIP", "picture": "PICTURE"}, "picture", "say this themselves"),
        ({"mesh": "ZIP", "slots": [0]}, "slots", "say this themselves"),
        ({"mesh": "GLB", "mask": "PICTURE"}, "mask", "does not take"),
        ({"mesh": "GLB", "shape": "GLB"}, "shape", "does not take"),
        ({"mesh": "GLB", "slots": [-1]}, "slots.0", "0"),
        ({"mesh": "GLB", "settings": {"refine.strength": 2.0}}, "settings.refine.strength", "refine.strength"),
    ],
)
def test_a_refusal_names_the_field(shared: Hosted, fields: dict[str, Any], field: str, word: str) -> None:
    broken = zipped({**members(soups.request(soups.cube(), {0: PICTURE})), "notes.txt": b""})
    known = {"PICTURE": png(64, 64), "GLB": mesh_file(), "ZIP": request_zip(), "BROKEN": broken}
    body = {key: shared.upload(known[value]) if str(value) in known else value for key, value in fields.items()}
    before = shared.store.count()
    error = error_of(shared.http.post("/v1/jobs", json={"kind": "refine", **body}))
    assert error["field"] == field and word in error["message"], error
    assert shared.store.count() == before


def run(folder: Path, mesh: bytes, *, picture: bytes | None = None, **request: Any) -> list[dict[str, Any]]:
    """What the worker says about one job; files are named by hashes, as the service names them."""
    files = {}
    for name, data in (("mesh", mesh), ("picture", picture)):
        if data is not None:
            (folder / f"upload-{name}").write_bytes(data)
            files[name] = str(folder / f"upload-{name}")
    order = {"job": "j", "folder": str(folder / "job"), "files": files,
             "request": {"kind": "refine", "preset": "preview", "settings": QUICK, **request}}  # fmt: skip
    lines = io.StringIO(json.dumps({"run": order}) + '\n{"quit": true}\n')
    said: list[dict[str, Any]] = []
    Worker(lines, said.append).serve()
    return [message for message in said if "beat" not in message]


def artifacts(said: list[dict[str, Any]]) -> set[str]:
    return {message["data"]["artifact"] for message in said if message.get("event") == "artifact"}


def test_a_request_comes_back_as_images(tmp_path: Path) -> None:
    """The preset and the settings of the job go before those of the request, which gives the seed."""
    said = run(tmp_path, request_zip(seed=5, preset="paper", fingerprint="the box"))
    assert said[-1]["done"]["outcome"] == "finished", said[-1]
    assert {"result.zip", "result.json"} <= artifacts(said)
    with zipfile.ZipFile(tmp_path / "job" / "result.zip") as archive:
        report = json.loads(archive.read("result.json"))
        assert (report["fingerprint"], report["seed"], report["settings"]["preset"]) == ("the box", 5, "preview")
        named = {file[key] for file in report["files"] for key in ("name", "mask")}
        assert set(archive.namelist()) == {"result.json", *named}
        assert archive.read(report["files"][0]["name"]) != PICTURE


def test_a_mesh_comes_back_as_a_mesh(tmp_path: Path) -> None:
    said = run(tmp_path, mesh_file(), picture=ball(), slots=[0])
    assert said[-1]["done"]["outcome"] == "finished", said[-1]
    assert {"result.glb", "result.json"} <= artifacts(said)
    before, after = mesh_file(), (tmp_path / "job" / "result.glb").read_bytes()
    assert images_of(after) != images_of(before)


def test_a_refusal_has_its_own_code(tmp_path: Path) -> None:
    said = run(tmp_path, zipped(members(soups.request(soups.cube(paint=False), {0: PICTURE}))))
    error = said[-1]["done"]["error"]
    assert (error["code"], error["hint"]) == ("E_EMPTY_MASK", "Choose another slot or other faces.")
