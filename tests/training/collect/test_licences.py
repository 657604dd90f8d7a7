"""Copyright files, and which licences are accepted."""

import pytest

from dreamcraft3d.training.collect.licences import accepted, read_copyright, stanza_of

COPYRIGHT = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Source: https://example.org

Files: *
Copyright: 2001 One
  2002 Two <two@example.org>
License: GPL-2+

Files: data/models/tree.spm
 data/models/sub/*
Copyright: 2003 Three
License: CC-BY-SA-4.0
 The text: of the licence.
 .
 Files: in its text are no field.

License: GPL-2+
 The text.
"""


def test_stanzas_are_read() -> None:
    first, second = read_copyright(COPYRIGHT)
    assert (first.patterns, first.licence, first.author) == (("*",), "GPL-2+", "2001 One 2002 Two <two@example.org>")
    assert (second.patterns, second.licence) == (("data/models/tree.spm", "data/models/sub/*"), "CC-BY-SA-4.0")
    assert read_copyright("Free text: about everything.\n\nMore of it.") == []


@pytest.mark.parametrize(
    ("name", "licence"),
    [("tree.spm", "CC-BY-SA-4.0"), ("sub/a/b.spm", "CC-BY-SA-4.0"), ("bush.spm", "GPL-2+")],
)
def test_the_last_stanza_that_matches_counts(name: str, licence: str) -> None:
    found = stanza_of(read_copyright(COPYRIGHT), name, (("", "data/models/"),))
    assert found is not None
    assert found.licence == licence


def test_installed_folders_may_lie_elsewhere_in_the_source() -> None:
    paths = (("usr/share/games/x/", "data/models/"),)
    found = stanza_of(read_copyright(COPYRIGHT), "usr/share/games/x/sub/a.spm", paths)
    assert found is not None
    assert found.licence == "CC-BY-SA-4.0"
    assert stanza_of([], "a", ()) is None


@pytest.mark.parametrize("licence", ["GPL-2+", "GPL-3+", "CC-BY-SA-3.0", "CC-BY-4.0", "CC0", "public-domain"])
def test_what_may_become_part_of_a_gpl_3_work_is_accepted(licence: str) -> None:
    assert accepted(licence)


@pytest.mark.parametrize(
    "licence", ["GPL-2", "", "CC-BY-NC-4.0", "CC-BY-NC-SA-3.0", "CC-BY-SA-2.0", "CC-BY-ND-4.0", "unknown"]
)
def test_anything_else_is_not(licence: str) -> None:
    assert not accepted(licence)
