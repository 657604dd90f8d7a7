"""Jobs that start from a shape: what is admitted, and what the real worker makes of it."""

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dreamcraft3d import export
from dreamcraft3d.evaluation.bench_service import picture as ball
from dreamcraft3d.export import TexturedMesh
from dreamcraft3d.server.description import usual_minutes
from dreamcraft3d.server.worker import Worker
from serving import Hosted, error_of, png
from shapes import box, sphere
from tiny import SETTINGS

OBJ = b"# made by hand\no thing\nv 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 3\nf 1 2 4\n"
QUICK = {**SETTINGS, "reference.size": 64, "reference.estimate": False, "geometry.steps": 2, "texture.steps": 2}


def glb(mesh: Any = None) -> bytes:
    mesh = mesh or sphere(0.5, subdivisions=2)
    return export.write_glb(TexturedMesh(mesh.vertices, mesh.faces))


@pytest.mark.parametrize("data", [glb(), OBJ])
def test_a_shape_is_admitted_by_its_content(shared: Hosted, data: bytes) -> None:
    fields = {"picture": shared.upload(png(64, 64)), "shape": shared.upload(data)}
    answer = shared.http.post("/v1/jobs", json=fields)
    assert answer.status_code == 201, answer.text
    assert answer.json()["request"]["files"] == fields
    schema = shared.http.get("/v1/server").json()["schema"]
    assert "mesh" not in schema["$defs"]["ShapeConfig"]["properties"]  # a path is no setting on the wire


@pytest.mark.parametrize(
    ("fields", "field", "word"),
    [
        ({"shape": "GLB"}, "picture", "needs a picture"),
        ({"picture": "PICTURE", "shape": "PICTURE"}, "shape", "neither a GLB file nor an OBJ"),
        ({"picture": "PICTURE", "shape": "TEXT"}, "shape", "neither a GLB file nor an OBJ"),
        ({"picture": "PICTURE", "shape": "0" * 64}, "shape", "does not have the shape"),
        ({"picture": "PICTURE", "settings": {"shape.mesh": "/etc/passwd"}}, "settings.shape.mesh", "path"),
        ({"picture": "PICTURE", "settings": {"shape.pitch": 90.0}}, "settings.shape.pitch", "shape.pitch"),
    ],
)
def test_a_refusal_names_the_field(shared: Hosted, fields: dict[str, Any], field: str, word: str) -> None:
    known = {"PICTURE": png(64, 64), "GLB": glb(), "TEXT": b"hello, this is no mesh"}
    body = {key: shared.upload(known[value]) if str(value) in known else value for key, value in fields.items()}
    error = error_of(shared.http.post("/v1/jobs", json=body))
    assert error["field"] == field, error
    assert word in error["message"], error


def run(folder: Path, shape: bytes) -> list[dict[str, Any]]:
    """What the worker says about one job; files are named by hashes, as the service names them."""
    files = {}
    for name, data in (("picture", ball()), ("shape", shape)):
        (folder / f"upload-{name}").write_bytes(data)
        files[name] = str(folder / f"upload-{name}")
    request = {"kind": "generate", "preset": "preview", "settings": QUICK}
    order = {"job": "j", "folder": str(folder / "job"), "files": files, "request": request}
    said: list[dict[str, Any]] = []
    Worker(io.StringIO(json.dumps({"run": order}) + '\n{"quit": true}\n'), said.append).serve()
    return [message for message in said if "beat" not in message]


@pytest.mark.slow
def test_the_worker_starts_from_the_upload(tmp_path: Path) -> None:
    said = run(tmp_path, glb())
    assert said[-1]["done"]["outcome"] == "finished", said[-1]
    assert [m["data"]["stage"] for m in said if m.get("event") == "stage"] == ["geometry", "texture"]
    report = json.loads((tmp_path / "job" / "report.json").read_text())
    assert report["stages"]["shape"]["overlap"] > 0.9


def test_another_object_fails_the_job_with_a_remedy(tmp_path: Path) -> None:
    said = run(tmp_path, glb(box((-0.6, -0.6, -0.01), (0.6, 0.6, 0.01))))
    error = said[-1]["done"]["error"]
    assert error["code"] == "InputError"
    assert "another object" in error["message"]
    assert "upright" in error["hint"]


def test_runs_from_a_shape_say_nothing_about_how_long_a_preset_takes() -> None:
    def job(files: dict[str, str], minutes: float) -> SimpleNamespace:
        request = {"preset": "preview", "settings": {}, "files": files}
        return SimpleNamespace(request=request, started=0.0, finished=60.0 * minutes)

    jobs = [job({"picture": "a"}, 3.0), job({"picture": "a", "shape": "b"}, 1.0)]
    store: Any = SimpleNamespace(page=lambda **_: jobs)
    assert usual_minutes(store) == {"preview": 3.0}
