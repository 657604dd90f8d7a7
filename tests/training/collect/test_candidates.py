"""Listings: keys, what is skipped, groups."""

from dreamcraft3d.training.collect.candidates import Listing, key_of
from dreamcraft3d.training.collect.files import PackageFiles, TextureFinder
from dreamcraft3d.training.collect.formats.md3 import read_md3
from dreamcraft3d.training.collect.formats.vrml import read_vrml
from mesh_files import md3, png, triangle, vrml, write


def listed(folder, listing: Listing, files: dict):
    content = PackageFiles(write(folder, files))
    return list(listing(content, TextureFinder([content])))


def test_keys_are_file_names() -> None:
    assert key_of("Scopia_1_Chaise à bras/x") == "Scopia_1_Chaise___bras_x"
    assert len(key_of("a" * 500)) == 120


def test_one_candidate_per_mesh_with_its_texture(tmp_path) -> None:
    listing = Listing(read_md3, (".md3",), skip="lower|head", unless="gargoyle")
    names = ("models/a.md3", "models/lower.md3", "models/gargoyle_head.MD3")
    found = listed(
        tmp_path, listing, {**dict.fromkeys(names, md3(triangle())), "models/paint.png": png(), "x.txt": "x"}
    )
    assert [each.key for each in found] == ["models_a", "models_gargoyle_head"]
    assert (found[0].source, found[0].name, found[0].category, found[0].group) == ("models/a.md3", "a", "models", "")
    (part,) = found[0].read()
    assert part.texture is not None, "models/paint.tga is there as .png"


def test_families_and_short_keys(tmp_path) -> None:
    listing = Listing(read_vrml, (".wrl",), short=True, family=r"[0-9.]+")
    text = vrml(triangle())
    found = listed(
        tmp_path, listing, {"Pins/Header_1x02.wrl": text, "Pins/Header_1x03.wrl": text, "Pins/Socket_1.wrl": text}
    )
    assert [each.key for each in found] == ["Header_1x02", "Header_1x03", "Socket_1"]
    assert found[0].group == found[1].group != found[2].group


def test_suffixes_in_keys(tmp_path) -> None:
    (found,) = listed(tmp_path, Listing(read_vrml, (".wrl",), with_suffix=True), {"a/b.wrl": vrml(triangle())})
    assert found.key == "a_b.wrl"
