"""The table of packages."""

import pytest

from dreamcraft3d.errors import InputError
from dreamcraft3d.training.collect.licences import accepted
from dreamcraft3d.training.collect.packages import PACKAGES, package
from dreamcraft3d.training.collect.selection import selection


def test_packages_have_names_and_prefixes_of_their_own() -> None:
    names = [name for each in PACKAGES for name in {each.name, each.key}]
    assert len(names) == len(set(names))
    assert package("sweethome3d-furniture") is package("sh3d")
    with pytest.raises(InputError, match="nonsense"):
        package("nonsense")


def test_the_selection_is_of_these_packages() -> None:
    assert {each.package for each in selection()} == {each.key for each in PACKAGES}


def test_a_licence_is_accepted_or_stands_in_the_copyright_file() -> None:
    for each in PACKAGES:
        assert accepted(each.licence) or (not each.licence and each.copyright_paths), each.name
