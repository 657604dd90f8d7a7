"""The journal survives what can happen to a file, and is quick enough for thousands of items."""

import os
import subprocess
import sys
import time
from contextlib import closing

import pytest

from batches import write
from dreamcraft3d.batch.journal import History, Journal, replay
from dreamcraft3d.batch.outcome import commit
from dreamcraft3d.batch.tasks import load_batch

SURVEY = """
import sys
from pathlib import Path
import psutil
from dreamcraft3d.batch.runner import Runner  # with all that a runner needs
from dreamcraft3d.batch.survey import counts, survey
from dreamcraft3d.batch.tasks import load_batch
standings = list(survey(load_batch(Path(sys.argv[1]))))
print(counts(standings), psutil.Process().memory_info().rss / 2**20)
"""


def test_the_history_of_an_item(tmp_path):
    path = tmp_path / "journal.jsonl"
    with closing(Journal(path)) as journal:
        journal.append("item_started", "a", key="1")
        journal.append("item_failed", "a", key="1", code="X", message="No.", remedy="Yes.")
        journal.append("item_started", "b", key="2")
        journal.append("item_stopped", "b", key="2")
        journal.append("item_started", "b", key="2")
        journal.append("item_committed", "b", key="2", seconds=2.5)
    error = {"code": "X", "message": "No.", "remedy": "Yes."}
    assert replay(path) == {
        "a": History("failed", "1", 1, None, error),
        "b": History("committed", "2", 2, 2.5, None),
    }
    assert replay(tmp_path / "none.jsonl") == {}


@pytest.mark.parametrize("torn", [b'{"t": 1, "event": "item_comm', b'{"event": "item_failed", "id": "a"}', b"\xff"])
def test_a_line_that_was_cut_off_is_not_read_and_not_kept(tmp_path, torn):
    path = tmp_path / "journal.jsonl"
    with closing(Journal(path)) as journal:
        journal.append("item_started", "a", key="1")
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert replay(path)["a"].last == "started"
    with closing(Journal(path)) as journal:
        assert path.read_bytes() == whole
        journal.append("item_started", "b", key="2")
    assert set(replay(path)) == {"a", "b"}
    assert path.read_bytes().count(b"\n") == 2


def test_a_journal_that_is_nothing_but_a_torn_line(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"t"')
    Journal(path).close()
    assert path.read_bytes() == b""


@pytest.mark.slow
def test_three_thousand_items_are_surveyed_in_little_memory(tmp_path):
    rows = [{"id": f"thing-{n}", "image": "a.png", "prompt": f"thing number {n}"} for n in range(3000)]
    batch = load_batch(write(tmp_path, rows))
    batch.out.mkdir()
    with (batch.out / "journal.jsonl").open("w") as lines:
        for row in rows:
            for event in ("item_started", "item_lost", "item_started", "item_failed"):
                lines.write(f'{{"t": 1.0, "run": "r", "event": "{event}", "id": "{row["id"]}", "key": "k"}}\n')
    start = time.thread_time()
    assert len(replay(batch.out / "journal.jsonl")) == 3000
    assert time.thread_time() - start < 1.0
    (batch.folder("thing-7")).mkdir(parents=True)
    commit(batch.folder("thing-7"), "thing-7", "another key", {})
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    told = subprocess.check_output([sys.executable, "-c", SURVEY, str(batch.source)], env=environment, text=True)
    found, mib = told.rsplit(maxsplit=1)
    assert found == "{'pending': 2999, 'stale': 1}"
    assert float(mib) < 300.0
