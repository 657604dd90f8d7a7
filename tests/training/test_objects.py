"""Packs of real objects: what is where, holes, and packs that are none."""

import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from dreamcraft3d.errors import InputError
from dreamcraft3d.functional.cameras import HALF_WIDTH, orbit
from dreamcraft3d.training.drawing import LIT
from dreamcraft3d.training.objects import ObjectPack, PackedObject
from dreamcraft3d.training.render import render_surface
from packs import BOX_CORNERS, GREY, HOLE, write_pack


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> ObjectPack:
    return ObjectPack(write_pack(tmp_path_factory.mktemp("pack") / "objects.zip"))


def named(pack: ObjectPack, name: str) -> PackedObject:
    return next(thing for thing in pack.objects if thing.id == f"test/{name}")


def front(pack: ObjectPack, name: str, *, size: int = 64) -> torch.Tensor:
    return render_surface(pack.load(named(pack, name)), orbit(0.0, 0.0), LIT, size=size).rgba[0]


def test_the_index_tells_what_to_train_on(pack: ObjectPack) -> None:
    assert [thing.id for thing in pack.chosen(held_out=False)] == ["test/bar", "test/flag"]
    assert [(thing.id, thing.kind) for thing in pack.chosen(held_out=True)] == [
        ("test/leaf", "plant"),
        ("test/stool", "furniture/home"),
    ]
    assert [thing.cut_out for thing in pack.objects] == [False, False, True, False]


def test_a_file_s_up_is_up_and_its_front_is_the_front(pack: ObjectPack) -> None:
    """Files have y up and look along +z; here z is up, and the front is +x."""
    surface = pack.load(named(pack, "bar"))
    expected = torch.as_tensor(BOX_CORNERS[:, [2, 0, 1]], dtype=torch.float32)
    assert torch.allclose(surface.vertices, expected, atol=2e-5)
    albedo = surface.paint.at(torch.arange(12), torch.full((12, 3), 1 / 3))
    assert torch.allclose(albedo, torch.tensor(GREY) / 255.0, atol=1e-6)


def test_a_texture_lies_the_right_way_round(pack: ObjectPack) -> None:
    picture = front(pack, "flag")
    left, right = picture[32, 20, :3], picture[32, 44, :3]
    assert left[0] > 0.9 and left[2] < 0.1
    assert right[2] > 0.9 and right[0] < 0.1


def test_a_hole_in_a_texture_is_a_hole_in_the_silhouette(pack: ObjectPack) -> None:
    picture = front(pack, "leaf", size=96)
    half = 0.5 / HALF_WIDTH  # of the sheet, in half pictures
    centre = (torch.arange(96) + 0.5) / 96 * 2 - 1
    away = torch.hypot(centre[:, None], centre)
    hole = HOLE / 0.5 * half
    assert float(picture[..., 3][away < 0.9 * hole].max()) == 0.0
    ring = (away > 1.15 * hole) & (torch.maximum(centre.abs()[:, None], centre.abs()) < 0.95 * half)
    assert float(picture[..., 3][ring].min()) == 1.0
    assert picture[ring][:, 1].mean() == pytest.approx(200 / 255, abs=0.02)
    whole, wanted = (2.0 * half) ** 2, (2.0 * half) ** 2 - torch.pi * hole**2
    assert float(picture[..., 3].mean()) * 4.0 == pytest.approx(wanted, abs=0.05 * whole)


def test_a_pack_goes_to_another_process(pack: ObjectPack) -> None:
    before = pack.load(named(pack, "bar"))  # the archive is open
    copy = pickle.loads(pickle.dumps(pack))
    assert torch.equal(copy.load(named(copy, "bar")).vertices, before.vertices)


def test_what_is_no_pack_is_said_to_be_none(tmp_path: Path) -> None:
    text, empty = tmp_path / "text.zip", tmp_path / "empty.zip"
    text.write_text("not a zip")
    with zipfile.ZipFile(empty, "w"):
        pass
    lame = write_pack(tmp_path / "lame.zip", index=[{"id": "a", "name": "a", "class": "prop", "held_out": False}])
    strange = write_pack(tmp_path / "strange.zip", index=[3])
    for path in (text, empty, lame, strange, tmp_path / "missing.zip"):
        with pytest.raises(InputError, match="is no pack of training objects") as caught:
            ObjectPack(path)
        assert "collect-objects" in caught.value.remedy


@pytest.mark.parametrize(
    ("part", "name"), [("m/test/bar.npz", "bar"), ("t/flag.jpg", "flag"), ("t/leaf.a.png", "leaf")]
)
def test_an_object_whose_part_is_missing_is_named(tmp_path: Path, part: str, name: str) -> None:
    lame = ObjectPack(write_pack(tmp_path / "lame.zip", without=part))
    with pytest.raises(InputError, match=f"no whole object test/{name}"):
        lame.load(named(lame, name))
    lame.load(named(lame, "stool"))
