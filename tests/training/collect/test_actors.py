"""Actors of 0 A.D.: variants, props, textures whose alpha means different things."""

import numpy as np
import pytest

from dreamcraft3d.training.collect.actors import actors
from dreamcraft3d.training.collect.files import PackageFiles, TextureFinder
from dreamcraft3d.training.collect.parts import FormatError
from mesh_files import pmd, png, triangle, write

SOLDIER = """<actor version="1"><group>
<variant frequency="0" name="never"><mesh>lost.dae</mesh></variant>
<variant frequency="3" name="base" file="biped/base.xml"><textures><texture file="skin.png" name="baseTex"/></textures>
  <props><prop actor="hat.xml" attachpoint="head"/><prop actor="particle/smoke.xml" attachpoint="root"/></props>
</variant>
<variant frequency="1"><mesh>other.dae</mesh></variant></group>
<group><variant><props><prop attachpoint="shield"/></props></variant></group>
<material>player_trans.xml</material></actor>"""
BASE = """<variant><mesh>body.dae</mesh><props><prop actor="hat.xml" attachpoint="shield"/></props></variant>"""
HAT = """<qualitylevels><actor file="hat_high.xml"/></qualitylevels>"""
HIGH = """<actor><group><variant><mesh>hat.dae</mesh><textures><texture file="leaf.png" name="baseTex"/></textures>
</variant></group><material>{}.xml</material></actor>"""
POINTS = {"prop-head": (0, 0, 5, 0, 0, 0, 1), "prop-shield": (9, 9, 9, 0, 0, 0, 1)}


def world(folder, material: str = "basic_trans", **more: str):
    files = {
        "art/actors/units/a/soldier.xml": SOLDIER, "art/actors/hat.xml": HAT,
        "art/actors/hat_high.xml": HIGH.format(material), "art/variants/biped/base.xml": BASE,
        "art/actors/particle_fire.xml": "<actor/>", "art/actors/props/fndn_1x1.xml": "<actor/>",
        "art/meshes/body.dae.cached.pmd": pmd(triangle(), POINTS), "art/meshes/hat.pmd": pmd(triangle()),
        "art/textures/skins/skin.png": png("RGBA"), "art/textures/skins/leaf.png": png("RGBA"), **more,
    }  # fmt: skip
    content = PackageFiles(write(folder, files))
    return {each.key: each for each in actors(content, TextureFinder([content]))}


def test_an_actor_is_its_mesh_with_its_props_in_place(tmp_path) -> None:
    found = world(tmp_path)
    assert sorted(found) == ["hat", "hat_high", "units_a_soldier"], "effects and foundations are no objects"
    soldier = found["units_a_soldier"]
    assert (soldier.source, soldier.category) == ("art/actors/units/a/soldier.xml", "units/a")
    body, hat = soldier.read()
    assert np.array_equal(body.vertices, triangle().vertices)
    assert np.array_equal(hat.vertices, triangle().vertices + np.array([0, 0, 5])), (
        "on the head; the shield was taken away"
    )


@pytest.mark.parametrize(("material", "mode"), [("basic_trans", "RGBA"), ("basic", "RGB")])
def test_the_material_says_what_alpha_means(tmp_path, material: str, mode: str) -> None:
    body, hat = world(tmp_path, material)["units_a_soldier"].read()
    assert body.texture is not None
    assert body.texture.image.mode == "RGB", "the player's colour"
    assert hat.texture is not None
    assert hat.texture.image.mode == mode


def test_an_actor_that_wears_itself_ends(tmp_path) -> None:
    props = '<props><prop actor="loop.xml" attachpoint="root"/></props>'
    loop = f"<actor><group><variant><mesh>hat.dae</mesh>{props}</variant></group></actor>"
    parts = world(tmp_path, **{"art/actors/loop.xml": loop})["loop"].read()
    assert len(parts) == 5


def test_damage_is_named(tmp_path) -> None:
    with pytest.raises(FormatError):
        world(tmp_path, **{"art/actors/bad.xml": "<actor>"})["bad"].read()


def test_an_actor_without_a_mesh_has_no_parts(tmp_path) -> None:
    assert world(tmp_path, **{"art/actors/void.xml": "<actor/>"})["void"].read() == []
