"""Packs: what is written is what a reader of the format gets."""

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from dreamcraft3d.training.collect.assembly import Assembly, Material, assemble
from dreamcraft3d.training.collect.pack import PackWriter, held_out, join, read_index
from dreamcraft3d.training.collect.parts import FormatError, Part
from dreamcraft3d.training.collect.textures import Texture
from mesh_files import ball, image

BALL = ball()
THING = assemble(
    [
        Part(BALL.vertices * [2, 1, 1], BALL.faces, BALL.uv + 7, texture=Texture(image("RGBA", (300, 200)))),
        Part(BALL.vertices, BALL.faces, BALL.uv + 7, colour=(1.0, 0.5, 0.0)),
    ]
)


def facts(key: str) -> dict[str, str]:
    return {"id": key, "name": "n", "class": "prop", "package": "p", "source": "s", "author": "a", "licence": "CC0"}


def packed(path, *keys: str) -> None:
    with PackWriter(path) as writer:
        for key in keys:
            writer.add(facts(key), THING)
        writer.finish({"private": True})


def test_the_arrays_are_those_of_the_object(tmp_path) -> None:
    packed(tmp_path / "a.zip", "p/x")
    (entry,) = read_index(tmp_path / "a.zip")
    assert {key: entry[key] for key in facts("p/x")} == facts("p/x")
    assert entry["faces"] == len(THING.faces)
    with zipfile.ZipFile(tmp_path / "a.zip") as pack:
        mesh = np.load(io.BytesIO(pack.read("m/p/x.npz")))
        name = entry["materials"][0]["texture"]
        picture = Image.open(io.BytesIO(pack.read(f"t/{name}.jpg")))
        opacity = Image.open(io.BytesIO(pack.read(f"t/{name}.a.png")))
        index = json.loads(pack.read("index.json"))
    assert index == [entry]
    assert [mesh[key].dtype for key in "vfum"] == [np.int16, np.uint16, np.float16, np.uint8]
    assert np.abs(mesh["v"] / 65534 - THING.vertices).max() < 1e-5
    assert np.array_equal(mesh["f"], THING.faces)
    assert np.array_equal(mesh["m"], THING.material)
    # whole repetitions of the texture are dropped, of all coordinates alike
    assert np.abs(mesh["u"][: len(BALL.uv)] - BALL.uv).max() < 4e-3
    assert picture.size == opacity.size == (128, 85)
    assert entry["materials"][0]["cutout"] is True
    holes = np.asarray(opacity)
    assert not holes[:, :60].any()
    assert holes[:, 68:].all()
    assert entry["materials"][1] == {"colour": [255, 127, 0]}


def test_held_out_is_a_matter_of_the_id() -> None:
    assert held_out("torcs-data/usr_share_games_torcs_cars_car2-trb1_car2-trb1.acc")
    assert not held_out("torcs-data/usr_share_games_torcs_cars_buggy_buggy-lod1.acc")
    share = sum(held_out(f"p/{k}") for k in range(4000)) / 4000
    assert share == pytest.approx(0.05, abs=0.01)


def test_textures_of_several_objects_are_stored_once(tmp_path) -> None:
    packed(tmp_path / "a.zip", "p/x", "p/y")
    with zipfile.ZipFile(tmp_path / "a.zip") as pack:
        names = pack.namelist()
    assert len(names) == len(set(names))
    assert sum(name.endswith(".jpg") for name in names) == 1


def test_the_same_objects_make_the_same_file(tmp_path) -> None:
    for name in ("a.zip", "b.zip"):
        packed(tmp_path / name, "p/x")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_joined_packs_are_ordered_and_private_members_stay_behind(tmp_path) -> None:
    packed(tmp_path / "a.zip", "p/new", "p/x")
    packed(tmp_path / "b.zip", "q/y")
    index = join([tmp_path / "a.zip", tmp_path / "b.zip"], tmp_path / "all.zip", {"q/y": 0, "p/x": 1})
    assert [entry["id"] for entry in index] == ["q/y", "p/x", "p/new"]
    assert read_index(tmp_path / "all.zip") == index
    with zipfile.ZipFile(tmp_path / "all.zip") as pack:
        assert "report.json" not in pack.namelist()
        assert {f"m/{entry['id']}.npz" for entry in index} < set(pack.namelist())


@pytest.mark.parametrize("trouble", ["vertices", "coordinates"])
def test_what_the_format_cannot_hold_is_refused(tmp_path, trouble: str) -> None:
    count = 60_001 if trouble == "vertices" else 3
    vertices = np.random.default_rng(0).uniform(-0.5, 0.5, (count, 3))
    uv = np.linspace(0, 500 if trouble == "coordinates" else 1, count)[:, None].repeat(2, 1)
    thing = Assembly(vertices, np.array([[0, 1, 2]]), uv, np.zeros(1, np.int64), (Material((1, 2, 3)),))
    with PackWriter(tmp_path / "a.zip") as writer, pytest.raises(FormatError):
        writer.add(facts("p/x"), thing)
    assert writer.index == []
