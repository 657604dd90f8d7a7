"""What is sent is checked first, and every refusal says what to do."""

from typing import Any

import pytest
from double import SCHEMA

from dreamcraft_blender.problems import Problem
from dreamcraft_blender.schema import fields_of, identifier
from dreamcraft_blender.submission import Picture, build

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
SERVER = {"schema": SCHEMA, "presets": [{"name": "preview"}, {"name": "paper", "available": False, "reason": "no GPU"}]}


def test_a_request_says_what_was_asked_and_nothing_else() -> None:
    picture = Picture(PNG, "mug.png", 512, 512)
    made = build(picture, server=SERVER, settings={"seed": 3, "coarse_nerf.steps": 20}, mask=b"mask")
    assert made.request["settings"] == {"seed": 3, "coarse_nerf.steps": 20}
    assert made.files == {"picture": PNG, "mask": b"mask"}
    assert set(made.request) == {"kind", "name", "preset", "settings", "priority", "client_key"}
    assert made.request["client_key"] != build(picture, server=SERVER).request["client_key"]


def test_a_shape_travels_by_its_content() -> None:
    picture = Picture(PNG, "mug.png", 512, 512)
    made = build(picture, server=SERVER, settings={"shape.turn": False}, shape=b"glTF mesh")
    assert made.files == {"picture": PNG, "shape": b"glTF mesh"}
    assert made.request["settings"] == {"shape.turn": False}


def test_a_backend_that_knows_no_shapes_is_not_sent_one() -> None:
    old = {"schema": {"properties": {"seed": {"type": "integer", "default": 0}}}}
    with pytest.raises(Problem) as caught:
        build(Picture(PNG), server=old, shape=b"glTF mesh")
    assert caught.value.code == "wrong_version"
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("picture", "code"),
    [
        (None, "no_image"),
        (Picture(b""), "no_image"),
        (Picture(b"%PDF-1.4", "paper.pdf"), "bad_image"),
        (Picture(PNG, "dot.png", 4, 900), "bad_image"),
        (Picture(PNG, "wall.png", 20_000, 20_000), "bad_image"),
    ],
)
def test_pictures_that_cannot_work(picture: Picture | None, code: str) -> None:
    with pytest.raises(Problem) as caught:
        build(picture, server=SERVER)
    assert caught.value.code == code
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"coarse_nerf.stepps": 3}, "coarse_nerf.steps"),
        ({"coarse_nerf.steps": 0}, "at least 1"),
        ({"coarse_nerf.steps": 2.5}, "whole number"),
        ({"coarse_nerf.steps": True}, "whole number"),
        ({"reference.elevation": 90}, "at most 80"),
        ({"reference.estimate": 1}, "true or false"),
        ({"coarse_nerf.guidance.form": "y0"}, "x0, sds"),
    ],
)
def test_settings_are_checked_by_the_services_schema(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(Problem, match=words) as caught:
        build(Picture(PNG), server=SERVER, settings=settings)
    assert caught.value.code == "bad_setting"
    assert caught.value.field in settings


@pytest.mark.parametrize(("preset", "words"), [("papper", "no preset"), ("paper", "no GPU")])
def test_presets_are_the_services(preset: str, words: str) -> None:
    with pytest.raises(Problem, match=words):
        build(Picture(PNG), server=SERVER, preset=preset)


def test_the_real_schema_is_understood() -> None:
    """Every setting of the backend becomes a field with a meaning, a range where it has one, and a name that fits."""
    from dreamcraft3d.config import GenerateConfig, describe

    fields = {item.key: item for item in fields_of(GenerateConfig.model_json_schema())}
    known = {key for key, _, _ in describe(GenerateConfig())}
    assert set(fields) == known - {"preset"}
    assert fields["coarse_nerf.steps"].low == 1
    assert fields["reference.elevation"].high == 80
    assert fields["coarse_nerf.guidance.form"].choices == ("x0", "sds")
    assert fields["coarse_nerf.render_size"].kind == "json"
    assert fields["seed"].kind == "integer"
    assert all(item.description for item in fields.values())
    assert max(len(identifier(key)) for key in fields) <= 60  # Blender's limit is 63


def test_the_words_go_where_the_backend_wants_them() -> None:
    schema = {"properties": {"prompt": {"type": "string", "default": ""}}}
    assert build(Picture(PNG), server={"schema": schema}, prompt="a mug").request["settings"] == {"prompt": "a mug"}
    assert build(Picture(PNG), server=SERVER, prompt="a mug").request["settings"] == {}
