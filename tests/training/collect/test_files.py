"""Files of packages, archives among them, and the search for textures."""

import zipfile

import pytest

from dreamcraft3d.training.collect.files import PackageFiles, TextureFinder
from dreamcraft3d.training.collect.parts import Part
from mesh_files import png, triangle, write


def archive(path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as made:
        for name, data in files.items():
            made.writestr(name, data)


def test_names_begin_behind_the_root(tmp_path) -> None:
    files = PackageFiles(write(tmp_path, {"usr/share/a/B.OBJ": "1", "etc/c.txt": "2"}), root="usr/share/")
    assert files.names == ["a/B.OBJ", "etc/c.txt"]
    assert files.ending(".obj") == ["a/B.OBJ"]
    assert files.read("a/B.OBJ") == b"1"
    assert "b.obj" not in files
    with pytest.raises(KeyError):
        files.read("b.obj")


def test_later_archives_replace_files_of_earlier_ones(tmp_path) -> None:
    archive(tmp_path / "usr/0.pk3", {"a.md3": b"old", "b.md3": b"b"})
    archive(tmp_path / "usr/1.pk3", {"a.md3": b"new"})
    files = PackageFiles(tmp_path, archives="*.pk3")
    assert files.names == ["a.md3", "b.md3"]
    assert files.read("a.md3") == b"new"
    files.close()
    mounted = PackageFiles(tmp_path, archives="*.pk3", mounted=True)
    assert mounted.names == ["0/a.md3", "0/b.md3", "1/a.md3"]
    mounted.close()


@pytest.mark.parametrize(
    ("name", "folder", "found"),
    [
        ("textures/wood.png", "models", "textures/wood.png"),  # the whole name
        ("TEXTURES\\Wood.tga", "models", "textures/wood.png"),  # with another suffix
        ("wood.png", "a/models", "a/models/wood.png"),  # beside the mesh
        ("../skins/metal.png", "b/models", "b/skins/metal.png"),  # relative to it
        ("metal.jpg", "b/models", "b/skins/metal.png"),  # the nearest
        ("c:/work/metal", "a/models", "a/skins/metal.png"),
        ("stone.png", "a/models", None),
        ("", "a/models", None),
    ],
)
def test_textures_are_found_though_names_are_not_exact(tmp_path, name, folder, found) -> None:
    names = ("textures/wood.png", "a/models/wood.png", "a/skins/metal.png", "b/skins/metal.png")
    finder = TextureFinder([PackageFiles(write(tmp_path, dict.fromkeys(names, png())))])
    assert finder.find(name, folder) == found


def test_a_part_gets_the_first_of_its_images_that_can_be_read(tmp_path) -> None:
    files = PackageFiles(
        write(tmp_path, {"m/broken.png": b"x", "m/good.png": png(), "m/thing.png": png(colour=(1, 2, 3))})
    )
    finder, thing = TextureFinder([files]), triangle()
    part = Part(thing.vertices, thing.faces, thing.uv, images=("broken.png", "lost.png", "good.png"))
    bound = finder.bound(part, "m")
    assert bound.texture is not None
    assert bound.texture.image.getpixel((0, 0)) == (200, 100, 50)
    fallback = finder.bound(Part(thing.vertices, thing.faces, thing.uv), "m", "m/thing")
    assert fallback.texture is not None
    assert fallback.texture.image.getpixel((0, 0)) == (1, 2, 3)
    assert finder.bound(Part(thing.vertices, thing.faces, images=("good.png",)), "m").texture is None


def test_companions_come_second(tmp_path) -> None:
    first = PackageFiles(write(tmp_path / "1", {"t/a.png": png(colour=(1, 1, 1))}))
    second = PackageFiles(write(tmp_path / "2", {"t/a.png": png(colour=(2, 2, 2)), "t/b.png": png(colour=(3, 3, 3))}))
    finder = TextureFinder([first, second])
    colours = [finder.texture([name], "").image.getpixel((0, 0)) for name in ("t/a.png", "t/b.png")]
    assert colours == [(1, 1, 1), (3, 3, 3)]
