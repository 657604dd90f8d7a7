"""Manifests: three forms, one meaning; every mistake named at once, with its line."""

import gc
import hashlib
import json
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batches import items, write
from dreamcraft3d.batch.keys import item_key
from dreamcraft3d.batch.manifest import Item, ManifestError, Row, item_seed, parse_items
from dreamcraft3d.batch.tables import read_rows, rows_of_csv, rows_of_jsonl, to_csv, to_jsonl
from dreamcraft3d.batch.tasks import load_batch

words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
ids = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,20}[A-Za-z0-9_-]", fullmatch=True)
values = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3),
)
rows = st.fixed_dictionaries(
    {"id": ids},
    optional={
        "image": words, "prompt": words, "name": words, "catalog": words, "seed": st.integers(0, 2**63 - 1),
        "priority": st.integers(0, 100), "timeout_s": st.floats(0.1, 1e6), "tags": st.lists(words, max_size=3),
        "params": st.dictionaries(st.from_regex(r"[a-z_]{1,8}(\.[a-z_]{1,8})?", fullmatch=True), values, max_size=3),
    },
)  # fmt: skip


def parsed(found: list[Row]) -> list[Item]:
    good, problems = parse_items(found, {})
    assert not problems
    return [item for _, item in good]


@given(st.lists(rows, max_size=5, unique_by=lambda row: row["id"].lower()))
def test_a_table_says_the_same_as_lines_of_json(found):
    wanted, problems = parse_items([Row(n, row) for n, row in enumerate(found, start=1)], {})
    assert all("Windows" in problem.message for problem in problems)  # the ids of a few examples are device names
    batch = [item for _, item in wanted]
    lines, table = to_jsonl(batch), to_csv(batch)
    assert parsed(rows_of_jsonl(lines)) == batch
    assert parsed(rows_of_csv(table)) == batch
    assert to_csv(parsed(rows_of_csv(table))) == table
    assert to_jsonl(parsed(rows_of_csv(table))) == lines


def test_ten_thousand_lines_there_and_back_in_two_seconds():
    batch = [
        Item(id=f"thing-{n}", image=f"{n}.png", seed=n, prompt=f"Stühle, {n} 椅子", tags=("a", "b"))
        for n in range(10_000)
    ]
    gc.collect()
    gc.freeze()  # what other tests have left behind is not ours to be searched for garbage
    try:
        start = time.thread_time()  # ours: the machine, and threads that other tests have left, may be busy
        assert parsed(rows_of_jsonl(to_jsonl(parsed(rows_of_csv(to_csv(batch)))))) == batch
        assert time.thread_time() - start < 2.0
    finally:
        gc.unfreeze()


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_what_spreadsheets_do_to_a_table(tmp_path, delimiter, ending):
    lines = ["id|image|params.export.target_faces|params.coarse_nerf.guidance.form|tags|seed",
             '007|"a, b; c.png"|500|sds||', "", "x|ü.png||||12"]  # fmt: skip
    text = ending.join(line.replace("|", delimiter) for line in lines) + ending
    path = tmp_path / "table.csv"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    first, second = parsed(read_rows(path))
    assert (first.id, first.image, first.seed) == ("007", "a, b; c.png", None)
    assert first.params == {"export.target_faces": 500, "coarse_nerf.guidance.form": "sds"}
    assert (second.image, second.seed, second.params) == ("ü.png", 12, {})
    assert [row.line for row in read_rows(path)] == [2, 4]


def test_all_mistakes_at_once_with_their_lines(tmp_path):
    manifest = write(tmp_path, items("a"))
    lines = [
        {"id": "a", "image": "a.png"},
        {"id": "A", "image": "a.png"},
        {"id": "a", "image": "a.png"},
        {"id": "con.x", "image": "a.png"},
        {"id": "b", "image": "missing.png", "preset": "quick"},
        {"id": "c", "image": "../../etc/passwd"},
        {"id": "d", "imag": "a.png"},
        {"id": "e", "image": "a.png", "params": {"export.faces": 3}},
        {"id": "f", "image": "A.PNG", "params": {"seed": "x"}},
        {"id": "g", "kind": "refine", "mesh": "a.glb"},
        {"image": "a.png"},
        {"id": "h", "image": "a.png", "seed": "7", "priority": 101},
        {"id": "i", "image": "batch.json"},
        {"id": "j", "image": "a.png", "shape": "missing.glb"},
        {"id": "k", "image": "a.png", "params": {"shape.mesh": "a.png"}},
        {"id": "l", "kind": "refine", "mesh": "a.png", "shape": "a.png"},
    ]
    (tmp_path / "batch.json").write_text("{}")
    manifest.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(ManifestError) as caught:
        load_batch(manifest)
    expected = [
        (2, "capital letters"), (3, "is taken (line 1)"), (4, "Windows"), (5, "no preset"), (5, "no file missing.png"),
        (6, "outside"), (7, "no key 'imag'"), (8, "no setting 'export.faces'"), (9, "seed"), (9, "no file A.PNG"),
        (10, "no file a.glb"), (11, "'id' is missing"), (12, "seed"),
        (12, "priority"), (13, "not a picture"), (14, "no file missing.glb"), (15, "cannot be a setting here"),
        (16, "has no shape"), (16, "cannot be refined in place"),
    ]  # fmt: skip
    problems = caught.value.problems
    assert [problem.line for problem in problems] == [line for line, _ in expected]
    for problem, (_, text) in zip(problems, expected, strict=True):
        assert text in str(problem), problem
    assert caught.value.code == 2
    assert not (tmp_path / "things-out").exists()
    assert "Did you mean a.png?" in str(problems[9])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"id": "a"', "not JSON"),
        ('{"id": "a", "id": "b"}', "there twice"),
        ('{"id": NaN}', "NaN"),
        ("[1]", "not a JSON object"),
        ("", "empty"),
    ],
)
def test_what_is_not_a_manifest(tmp_path, text, message):
    path = tmp_path / "m.jsonl"
    path.write_text(text)
    with pytest.raises(ManifestError, match=message):
        load_batch(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"id,image,id\n", "twice"),
        (b"name\nx\n", "no column 'id'"),
        (b"id\na,b\n", "more cells"),
        (b'id\n"a\n', "not CSV"),
        ("id,image\na,Stühle.png\n".encode("latin-1"), "line 2: The file is not UTF-8"),
        (b"", "no header"),
    ],
)
def test_what_is_not_a_table(tmp_path, data, message):
    path = tmp_path / "m.csv"
    path.write_bytes(data)
    with pytest.raises(ManifestError, match=message):
        load_batch(path)


@pytest.mark.parametrize("name", ["..", ".", "a/b", "a\\b", "nul", "COM1", "lpt9.png", "x.", "", "é", "a" * 65, "a b"])
def test_names_that_are_no_folder_everywhere(name):
    assert parse_items([Row(1, {"id": name})], {})[1]


def test_a_folder_of_pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("Grüner Stuhl.png", "a.png", "a.JPG", "椅子.webp", "con.png", ".hidden.png", "notes.txt", "Z.png"):
        (folder / name).write_bytes((write(tmp_path, items("x")).with_name("x.png")).read_bytes())
    batch = load_batch(folder)
    named = {task.item.image: task.id for task in batch.tasks}
    assert (named["Grüner Stuhl.png"], named["Z.png"]) == ("Gruner-Stuhl", "Z")
    for image, start in {"a.JPG": "a-", "a.png": "a-", "con.png": "picture-", "椅子.webp": "picture-"}.items():
        digest = hashlib.sha256(image.encode()).hexdigest()  # depends on the name alone
        assert named[image] == start + digest[:8]
    assert len(named) == 6
    assert batch.out == tmp_path / "pictures-out"
    (tmp_path / "empty").mkdir()
    with pytest.raises(ManifestError, match="no picture"):
        load_batch(tmp_path / "empty")


def test_defaults_and_limits_of_batch_json(tmp_path):
    rows = [*items("a", params={"export.target_faces": 900}), *items("b", preset="oracle", timeout_s=5.0)]
    settings = {
        "schema": "batch/1",
        "defaults": {"preset": "paper", "params": {"export.target_faces": 700, "geometry.steps": 3}},
        "batch_seed": "spring", "output": {"folder": "made"}, "limits": {"jobs": 2, "timeout_s": 60.0},
    }  # fmt: skip
    batch = load_batch(write(tmp_path, rows, settings))
    a, b = batch.tasks
    assert (a.config.preset, a.config.export.target_faces, a.config.geometry.steps, a.timeout) == (
        "paper",
        900,
        3,
        60.0,
    )
    assert (b.config.preset, b.config.export.target_faces, b.timeout) == ("oracle", 700, 5.0)
    assert a.config.seed == item_seed("spring", "a") != item_seed(0, "a")
    assert (batch.out, batch.settings.limits.jobs) == (tmp_path / "made", 2)
    for broken, message in [({"schema": "batch/2"}, "schema"), ({"jobs": 3}, "no key 'jobs'"),
                            ({"defaults": {"id": "x"}}, "default")]:  # fmt: skip
        with pytest.raises(ManifestError, match=message):
            load_batch(write(tmp_path, rows, broken))


def test_files_outside_the_folder_are_a_decision(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    write(tmp_path, items("x"))
    rows = [{"id": "x", "image": "../x.png"}]
    with pytest.raises(ManifestError, match="allow_outside"):
        load_batch(write(inside, rows))
    assert load_batch(write(inside, rows, {"allow_outside": True})).tasks[0].inputs["image"] == tmp_path / "x.png"


def test_the_key_knows_what_matters(tmp_path):
    write(tmp_path, items("mask", "other"))
    base = items("a", params={"reference.mask": "mask.png"})[0]

    def key(**changes: object) -> str:
        return item_key(load_batch(write(tmp_path, [{**base, **changes}])).tasks[0])

    before = key()
    assert before == key(tags=["x"], priority=3, name="Chair", license="CC0", timeout_s=3.0, catalog="c")
    assert before == key(seed=item_seed(0, "a"))
    (tmp_path / "shape.obj").write_bytes(b"v 0 0 0")
    shaped = key(shape="shape.obj")
    (tmp_path / "shape.obj").write_bytes(b"v 0 0 1")
    different = [key(seed=1), key(prompt="p"), key(negative="n"), key(preset="paper"), key(image="other.png"),
                 key(params={}), key(params={"reference.mask": "other.png"}), shaped, key(shape="shape.obj"),
                 ]  # fmt: skip
    assert len({before, *different}) == 1 + len(different)


def test_seeds_are_the_same_in_every_process():
    code = "from dreamcraft3d.batch.manifest import item_seed; print(item_seed(0, 'chair'))"
    found = {subprocess.check_output([sys.executable, "-c", code], env=None, text=True) for _ in range(2)}
    assert found == {"2105257966\n"}
