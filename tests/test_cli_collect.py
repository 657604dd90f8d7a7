"""`dreamcraft3d collect-objects`: what people type."""

import json

from typer.testing import CliRunner, Result

from dreamcraft3d.cli import app
from dreamcraft3d.training.collect.attribution import attribution
from dreamcraft3d.training.collect.pack import read_index
from mesh_files import ball, md3, png, write

SOURCE = "models/gibs/skull.md3"


def call(*words: object) -> Result:
    return CliRunner().invoke(app, ["collect-objects", *map(str, words)])


def packages(folder):
    """An OpenArena with one of the selected objects, and a TORCS with none."""
    import zipfile

    write(
        folder,
        {"openarena-data/usr/x": "", "openarena-081-textures/x": "", "openarena-085-data/x": "", "torcs-data/x": ""},
    )
    with zipfile.ZipFile(folder / "openarena-data/usr/pak0.pk3", "w") as archive:
        archive.writestr(SOURCE, md3(ball(), shader="models/gibs/bone.tga"))
        archive.writestr("models/gibs/other.md3", md3(ball()))
        archive.writestr("models/gibs/bone.png", png())
    return folder


def test_several_packages_behind_one_option(tmp_path) -> None:
    words = ["--from", packages(tmp_path / "x"), "--workspace", tmp_path / "work", "--out", tmp_path / "out.zip"]
    result = call(*words, "--packages", "openarena-data", "torcs-data", "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout.splitlines()[-1])
    assert [(each["package"], each["packed"], len(each["missing"])) for each in record["packages"]] == [
        ("openarena-data", 1, 19),
        ("torcs-data", 0, 25),
    ]
    (entry,) = read_index(tmp_path / "out.zip")
    assert (entry["id"], entry["source"]) == ("openarena-data/models_gibs_skull", SOURCE)
    assert "texture" in entry["materials"][0]
    people = call(*words, "--packages", "openarena-data")
    assert "openarena-data               1 of    20" in people.stdout
    assert "and 9 more" in people.stdout


def test_mistakes_cost_one_line(tmp_path) -> None:
    for words, expected in (
        (["--packages", "nonsense"], "No recipe for the package 'nonsense'."),
        (["stray"], "'stray' is no option."),
        (["--packages", "torcs-data", "--from", tmp_path / "void", "--workspace", tmp_path], "There is no folder"),
    ):
        result = call(*words)
        assert result.exit_code == 2
        assert expected in " ".join(result.stderr.split())


def test_the_attribution_is_written_without_collecting(tmp_path) -> None:
    result = call("--attribution", tmp_path / "page.md")
    assert result.exit_code == 0
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == attribution()
    assert [path.name for path in tmp_path.iterdir()] == ["page.md"]
