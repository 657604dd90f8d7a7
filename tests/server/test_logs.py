"""What is written down, and what is not."""

import json
import logging
import os
import stat
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamcraft3d.doctor import Check
from dreamcraft3d.server import logs
from dreamcraft3d.server.bundle import write_bundle
from dreamcraft3d.server.jobs import Input
from dreamcraft3d.server.logs import Redactor, close_log, log_tail, open_log
from dreamcraft3d.server.state_file import ServiceState, write_state
from serving import Hosted, png

logger = logging.getLogger("dreamcraft3d.test")


def lines_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]


def test_every_line_is_json_and_has_its_job(tmp_path: Path):
    path = tmp_path / "logs" / "service.log"
    handler = open_log(path)
    try:
        logger.info("plain")
        logger.info("about %s", "it", extra={"job": "abc", "ms": 1.5})
        try:
            raise ValueError("two\nlines")
        except ValueError:
            logger.exception("broken")
    finally:
        close_log(handler)
    plain, about, broken = lines_of(path)
    assert (plain["message"], plain["job"], plain["level"]) == ("plain", None, "info")
    assert (about["message"], about["job"], about["ms"]) == ("about it", "abc", 1.5)
    assert "two\nlines" in str(broken["traceback"])
    logger.info("after the end")
    assert len(lines_of(path)) == 3


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_the_log_rotates_and_stays_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "service.log"
    handler = open_log(path)
    assert isinstance(handler, logging.handlers.RotatingFileHandler)
    handler.maxBytes = 10_000
    before = os.umask(0)
    try:
        for number in range(1000):
            logger.info("line %d %s", number, "x" * 50)
    finally:
        os.umask(before)
        close_log(handler)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 1 + logs.BACKUPS
    for file in files:
        assert file.stat().st_size <= 10_000 and stat.S_IMODE(file.stat().st_mode) == 0o600
        assert lines_of(file)
    assert "line 999" in str(lines_of(path)[-1]["message"])


SECRET = "s3cr3t-T0ken_value"


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {SECRET}",
        f"{{'authorization': 'Bearer {SECRET}'}}",
        f"GET /v1/jobs?token={SECRET}&x=1",
        f'"password": "{SECRET}"',
        f"api_key={SECRET}",
        f"API-KEY: {SECRET}",
        f"the token is {SECRET}, they say",
    ],
)
def test_secrets_are_taken_out(text: str):
    assert SECRET not in Redactor([SECRET])(text)
    if "they say" not in text:
        assert SECRET not in Redactor()(text), "also those that nobody has named"


@given(st.text(), st.text(min_size=8, alphabet="abcdefghij"))
def test_a_known_secret_never_comes_through(text: str, secret: str):
    assert secret not in Redactor([secret])(f"{text}{secret}{text}").replace("[secret]", "")


def test_the_hub_token_is_taken_out():
    assert "hf_" not in Redactor()("cannot load with hf_AbCdEfGhIjKlMnOp")


def test_a_bundle_tells_what_happened_and_nothing_private(
    hosted: Hosted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", str(tmp_path / "home-of-alice"))
    paths = hosted.service.paths
    write_state(paths.state_file, ServiceState(1, "boot", "127.0.0.1", 1, SECRET, 1, "0.1.0", 1.0, str(paths.data)))
    job = hosted.submit(name="secret project")["id"]
    assert hosted.store.claim_next() is not None
    folder = paths.job(job)
    folder.mkdir(parents=True)
    (folder / "result.glb").write_bytes(b"glTF")
    (folder / "log.txt").write_text(f"loading {tmp_path / 'home-of-alice'}/models with {SECRET}\n" + "line\n" * 200_000)
    failure = {"code": "bug", "message": "it broke", "hint": "", "log_tail": ["the end"]}
    hosted.store.apply(job, Input.FAIL, error=failure)
    paths.log.write_text(f'{{"message": "Bearer {SECRET}"}}\n')
    target = tmp_path / "report.zip"
    names = write_bundle(target, paths, [Check("python", "ok", "3.11")])
    with zipfile.ZipFile(target) as bundle:
        assert bundle.namelist() == names
        texts = {name: bundle.read(name).decode("utf-8") for name in names}
    whole = "\n".join(texts.values())
    assert "it broke" in texts["jobs.json"] and "python" in texts["doctor.json"]
    assert '"boot_id": "boot"' in texts["service.json"]
    assert [event["type"] for event in json.loads(texts[f"jobs/{job}/events.json"])] == ["queued", "started", "failed"]
    assert SECRET not in whole and "home-of-alice" not in whole and "secret project" not in whole
    assert not any(name.endswith((".png", ".glb", ".webp")) for name in names)
    assert hosted.upload(png(64, 64)) not in whole
    assert target.stat().st_size < 1 << 20


def test_a_bundle_of_a_machine_that_never_served(tmp_path: Path):
    from dreamcraft3d.server.paths import ServicePaths

    names = write_bundle(tmp_path / "report.zip", ServicePaths(tmp_path / "data", tmp_path / "run"), [])
    assert names == ["versions.json", "doctor.json"]
    assert not (tmp_path / "data").exists(), "looking makes nothing"


def test_the_tail_of_a_log(tmp_path: Path):
    (tmp_path / "log.txt").write_text("\n".join(f"line {n}" for n in range(100)))
    assert log_tail(tmp_path / "log.txt")[-1] == "line 99"
    assert len(log_tail(tmp_path / "log.txt")) == 20
    assert log_tail(tmp_path / "none") == []
