"""Classes by words and folders."""

import pytest

from dreamcraft3d.training.collect.classes import class_of


@pytest.mark.parametrize(
    ("package", "source", "name", "category", "kind"),
    [
        ("sh3d", "Scopia/scopia/x.obj", "Office chair", "Office", "furniture/home"),
        ("sh3d", "Scopia/scopia/x.obj", "Cat", "Miscellaneous", "animal"),
        ("sh3d", "KatorLegaz/castle.obj", "Castle", "Exterior", "furniture/home"),
        ("0ad-data", "art/actors/fauna/bear_white.xml", "bear_white", "fauna", "animal"),
        ("0ad-data", "art/actors/props/units/shields/a.xml", "a", "props/units", "weapon/armour"),
        ("0ad-data", "art/actors/props/units/heads/a.xml", "a", "props/units", "people"),
        ("0ad-data", "art/actors/props/structures/a.xml", "a", "props/structures", "prop"),
        ("warzone2100-data", "structs/blhq.pie", "blhq", "structs", "building"),
        ("warzone2100-data", "components/prop/x.pie", "x", "components/prop", "vehicle"),
        ("torcs-data", "usr/share/games/torcs/cars/155-DTM/155-DTM.acc", "155-DTM", "cars", "vehicle"),
        ("supertuxkart-data", "library/pumpkin/pumpkin.spm", "pumpkin", "library", "prop"),
    ],
)
def test_words_and_folders_tell_the_class(package, source, name, category, kind) -> None:
    assert class_of(package, source, name, category) == kind
