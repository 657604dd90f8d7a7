"""A given mesh as the first stage: what is read and what is refused, and a whole run from one."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from dreamcraft3d import export
from dreamcraft3d.config import ShapeConfig
from dreamcraft3d.errors import DreamCraftError, InputError
from dreamcraft3d.evaluation.meshes import normalise, transform
from dreamcraft3d.evaluation.oracle import evaluate_oracle, reference_of
from dreamcraft3d.export import TexturedMesh
from dreamcraft3d.progress import Event, Note, Progress, StageStarted, Warned
from dreamcraft3d.shape_start import MOST_FACES, fit_shape, placed_shape, read_shape
from dreamcraft3d.stages.alignment import Similarity
from dreamcraft3d.stages.reference import ReferenceView
from shapes import LOPSIDED, box, flipped, sphere, union
from tiny import lopsided_textured, tiny_config

AROUND = torch.tensor(
    [[-0.6428, -0.7660, 0.0, 0.7], [0.7660, -0.6428, 0.0, -2.0], [0.0, 0.0, 1.0, 5.0], [0.0, 0.0, 0.0, 1.0]]
)
AROUND[:3, :3] *= 3.0
"""Turned by 130 degrees, three times as large, elsewhere."""


def truth() -> TexturedMesh:
    return normalise(lopsided_textured())[0]


def outline(mesh: TexturedMesh) -> ReferenceView:
    return dataclasses.replace(reference_of(mesh, size=256), depth=None, normal=None)


def saved(mesh: TexturedMesh, path: Path) -> Path:
    path.write_bytes(export.write_glb(mesh))
    return path


def volume(mesh: export.TexturedMesh) -> float:
    a, b, c = mesh.vertices[mesh.faces].double().unbind(1)
    return float((a * b.cross(c, dim=-1)).sum() / 6.0)


# --- reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["shape.glb", "shape.obj", "glb-without-suffix", "obj-without-suffix"])
def test_a_file_is_read_by_its_content(tmp_path: Path, name: str) -> None:
    mesh = truth()
    path = tmp_path / name
    if "glb" in name:
        saved(mesh, path)
    else:
        ours = mesh.vertices[:, [1, 2, 0]].numpy()  # y up, front +z
        path.write_text(trimesh.Trimesh(ours, mesh.faces.numpy(), process=False).export(file_type="obj"))
    found = read_shape(path, max_triangles=10_000)
    assert len(found.mesh.faces) == len(mesh.faces)
    assert torch.allclose(found.mesh.vertices.amax(dim=0), mesh.vertices.amax(dim=0), atol=1e-5)
    assert torch.allclose(found.mesh.vertices.amin(dim=0), mesh.vertices.amin(dim=0), atol=1e-5)
    assert (found.colour is not None) == ("glb" in name)
    if found.colour is not None:
        front = found.colour(mesh.vertices[mesh.vertices[:, 0] == mesh.vertices[:, 0].min()][:1])
        assert torch.allclose(front[0], torch.tensor(LOPSIDED["back"]), atol=0.02)


def test_nothing_beside_an_upload_is_opened(tmp_path: Path) -> None:
    """A material library with a path in it is not looked for where there is no name to begin with."""
    (tmp_path / "secret.mtl").write_text("newmtl gold\nKd 1 0.8 0\n")
    text = f"mtllib {tmp_path / 'secret.mtl'}\nusemtl gold\nv 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 3\nf 1 2 4\n"
    (tmp_path / "upload").write_text(text)
    assert read_shape(tmp_path / "upload", max_triangles=10).colour is None


def test_faces_look_outward_and_are_not_too_many(tmp_path: Path) -> None:
    many = union(flipped(sphere(0.4, subdivisions=6)), sphere(0.2, (1.0, 0.0, 0.0), subdivisions=6))
    assert len(many.faces) > 2 * MOST_FACES
    found = read_shape(saved(TexturedMesh(many.vertices, many.faces), tmp_path / "many.glb"), max_triangles=1_000_000)
    assert len(found.mesh.faces) <= 1.05 * MOST_FACES
    assert volume(TexturedMesh(found.mesh.vertices, found.mesh.faces)) == pytest.approx(0.2681 + 0.0335, rel=0.02)


def glb(document: dict[str, object], binary: bytes = b"") -> bytes:
    return export.gltf.container({"asset": {"version": "2.0"}, **document}, binary)


def hostile(folder: Path) -> dict[str, str]:
    """Files that no shape can be made of, and a word of what is said about each."""
    triangle = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], "<f4").tobytes()
    far = np.array([7, 8, 9], "<u4").tobytes()
    mesh = {"meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1}]}], "nodes": [{"mesh": 0}],
            "scenes": [{"nodes": [0]}], "buffers": [{"byteLength": 48}],
            "bufferViews": [{"buffer": 0, "byteOffset": 0, "byteLength": 36},
                            {"buffer": 0, "byteOffset": 36, "byteLength": 12}],
            "accessors": [{"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"},
                          {"bufferView": 1, "componentType": 5125, "count": 3, "type": "SCALAR"}]}  # fmt: skip
    files = {
        "empty.glb": (b"", "cannot be read"),
        "cut.glb": (glb(mesh, triangle + far)[:60], "cannot be read|damaged"),
        "text.glb": (b"hello", "cannot be read"),
        "outside.glb": (glb(mesh, triangle + far), "cannot be read"),
        "draco.glb": (glb({"extensionsRequired": ["KHR_draco_mesh_compression"]}), "needs KHR_draco"),
        "nothing.glb": (glb({"scenes": [{"nodes": []}]}), "no triangles|cannot be read"),
        "points.obj": (b"v 0 0 0\nv 1 1 1\n", "no triangles|cannot be read"),
        "words.obj": (b"v a b c\nf 1 2 3\n", "cannot be read"),
        "nan.obj": (b"v nan 0 0\nv 1 nan 0\nv 0 1 nan\nf 1 2 3\n", "no extent|cannot be read"),
        "line.obj": (b"v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n", "no extent"),
        "picture.png": (b"\x89PNG", "not a mesh"),
        "no-suffix": (b"\x00\x01\x02", "cannot be read|no triangles"),
    }
    for name, (data, _) in files.items():
        (folder / name).write_bytes(data)
    return {name: words for name, (_, words) in files.items()}


def test_hostile_files_are_refused_with_a_remedy(tmp_path: Path) -> None:
    for name, words in hostile(tmp_path).items():
        with pytest.raises(InputError, match=words) as caught:
            read_shape(tmp_path / name, max_triangles=1000)
        assert caught.value.remedy, name
    with pytest.raises(InputError, match="Cannot read"):
        read_shape(tmp_path / "missing.glb", max_triangles=1000)
    ball = sphere()
    with pytest.raises(DreamCraftError, match="limit is 100"):
        read_shape(saved(TexturedMesh(ball.vertices, ball.faces), tmp_path / "ball.glb"), max_triangles=100)


# --- fitting --------------------------------------------------------------------------------------


def test_a_shape_is_placed_with_its_colours(tmp_path: Path) -> None:
    mesh = truth()
    given = read_shape(saved(transform(mesh, AROUND), tmp_path / "moved.glb"), max_triangles=10_000)
    events: list[Event] = []
    found = fit_shape(given, outline(mesh), ShapeConfig(), Progress((events.append,)))
    assert found.iou > 0.97
    assert any(isinstance(event, Note) and "turned by -130" in event.text for event in events)
    shape = placed_shape(given, found.transform, outline(mesh))
    front = torch.tensor([[float(mesh.vertices[:, 0].max()), 0.1, 0.1]])
    assert torch.allclose(shape.colour(front)[0], torch.tensor(LOPSIDED["front"]), atol=0.1)


def test_another_object_is_refused_or_doubted(tmp_path: Path) -> None:
    plate = box((-0.6, -0.6, -0.02), (0.6, 0.6, 0.02))
    given = read_shape(saved(TexturedMesh(plate.vertices, plate.faces), tmp_path / "plate.glb"), max_triangles=100)
    with pytest.raises(InputError, match="another object") as caught:
        fit_shape(given, outline(truth()), ShapeConfig(), Progress())
    assert "upright" in caught.value.remedy
    events: list[Event] = []
    fit_shape(given, outline(truth()), ShapeConfig(least_overlap=0.0), Progress((events.append,)))
    assert any(isinstance(event, Warned) and "same object" in event.text for event in events)


def test_aligned_meshes_stay_where_they_are(tmp_path: Path) -> None:
    mesh = truth()
    config = ShapeConfig(aligned=True)
    given = read_shape(saved(mesh, tmp_path / "there.glb"), max_triangles=10_000)
    found = fit_shape(given, outline(mesh), config, Progress())
    assert found.iou > 0.98
    assert torch.equal(found.transform(mesh.vertices), mesh.vertices)
    away = read_shape(saved(transform(mesh, AROUND), tmp_path / "away.glb"), max_triangles=10_000)
    with pytest.raises(InputError, match="not aligned"):
        fit_shape(away, outline(mesh), config, Progress())


def test_a_blockout_takes_the_mean_colour_of_the_picture() -> None:
    view = outline(truth())
    given = dataclasses.replace(read_shape_of(truth()), colour=None)
    identity = Similarity(1.0, torch.eye(3), torch.zeros(3))
    colours = placed_shape(given, identity, view).colour(torch.rand(5, 3))
    assert torch.allclose(colours, view.rgba[view.mask][:, :3].mean(dim=0).expand(5, 3))


def read_shape_of(mesh: TexturedMesh):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return read_shape(saved(mesh, Path(folder) / "mesh.glb"), max_triangles=10_000)


# --- whole runs -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The truth, and the same turned by 130 degrees and three times as large."""
    folder = tmp_path_factory.mktemp("files")
    return saved(truth(), folder / "truth.glb"), saved(transform(truth(), AROUND), folder / "moved.glb")


def stages_of(events: list[Event]) -> list[str]:
    return [event.stage for event in events if isinstance(event, StageStarted)]


@pytest.mark.slow
def test_a_run_from_a_shape_has_no_volume_stages_and_finds_the_object(files: tuple[Path, Path], tmp_path: Path) -> None:
    config = tiny_config({"shape.mesh": str(files[1])})
    events: list[Event] = []
    report = evaluate_oracle(files[0], tmp_path, config, Progress((events.append,)))
    assert stages_of(events) == ["geometry", "texture"]
    assert list(report["stages"]) == ["shape", "geometry", "mesh", "texture", "export"]
    assert report["stages"]["shape"]["overlap"] > 0.97
    assert report["scores"]["unseen_iou"] > 0.85
    assert json.loads((tmp_path / "report.json").read_text())["settings"]["shape"]["mesh"] == str(files[1])

    again: list[Event] = []
    copy = tmp_path / "elsewhere.glb"
    copy.write_bytes(files[1].read_bytes())
    evaluate_oracle(files[0], tmp_path, tiny_config({"shape.mesh": str(copy)}), Progress((again.append,)))
    assert not stages_of(again)  # the same bytes under another name are the same shape

    other: list[Event] = []
    saved(transform(truth(), 2.0 * AROUND), copy)
    evaluate_oracle(files[0], tmp_path, tiny_config({"shape.mesh": str(copy)}), Progress((other.append,)))
    assert stages_of(other) == ["geometry", "texture"]


@pytest.mark.slow
def test_the_picture_is_not_needed_by_the_volume_stages_priors(files: tuple[Path, Path]) -> None:
    """A model of the volume stages alone need not be on this machine."""
    settings = {"priors.image": "deepfloyd-if", "coarse_nerf.guidance.image_weight": 1.0}
    assert "deepfloyd-if" in tiny_config(settings).prior_names()
    assert "deepfloyd-if" not in tiny_config({**settings, "shape.mesh": str(files[1])}).prior_names()
