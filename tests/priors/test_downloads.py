"""Downloads from a hub that breaks off, lies, refuses or vanishes; the hub is a real HTTP server on this machine."""

import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest
from huggingface_hub import constants

from dreamcraft3d.errors import Cancelled, DownloadError, MissingDependencyError, OutputError, WorkspaceBusyError
from dreamcraft3d.priors import models
from dreamcraft3d.priors.downloads import download
from dreamcraft3d.priors.model_files import MANIFEST
from dreamcraft3d.priors.model_store import accept_licence, import_folder, locked, remove, verify
from dreamcraft3d.progress import Event, Progress, StageFinished, StepDone, Warned
from hub import COMMIT, Hub
from patience import PATIENCE

NAME = "stable-diffusion-2-1-base"
FIRST, SECOND = (source.repository for source in models.entry(NAME).sources)
PINNED = models.entry(NAME).sources[0].revision
UNET = "unet/diffusion_pytorch_model.fp16.safetensors"
SIZE = 3_000_000


def repository(seed: int = 0) -> dict[str, bytes]:
    """Small files in the layout of the real repository, the ones we must not take included."""
    weights = bytes((seed + index * index) % 251 for index in range(1000)) * (SIZE // 1000)
    return {
        "model_index.json": b'{"_class_name": "StableDiffusionPipeline"}',
        "README.md": b"hello",
        "v2-1_512-ema-pruned.ckpt": b"pickle" * 1000,
        "scheduler/scheduler_config.json": b"{}",
        "tokenizer/vocab.json": b"{}",
        "tokenizer/merges.txt": b"a b",
        "text_encoder/config.json": b"{}",
        "text_encoder/model.fp16.safetensors": weights[:1000],
        "text_encoder/model.safetensors": weights[:2000],
        "unet/config.json": b"{}",
        UNET: weights,
        "unet/diffusion_pytorch_model.safetensors": weights * 2,
        "unet/diffusion_pytorch_model.bin": b"pickle",
        "vae/config.json": b"{}",
        "vae/diffusion_pytorch_model.safetensors": weights[:3000],
    }


TAKEN = {
    "model_index.json",
    "scheduler/scheduler_config.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "text_encoder/config.json",
    "text_encoder/model.fp16.safetensors",
    "unet/config.json",
    UNET,
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setenv("DREAMCRAFT3D_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(models, "_in_hub_cache", lambda _: None)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)  # ten megabytes are lost at a break otherwise
    with Hub({FIRST: repository()}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        accept_licence(models.entry(NAME).licence)
        yield server


def fetch(progress: Progress | None = None) -> Path:
    return download(models.entry(NAME), progress=progress)


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_takes_what_is_needed_and_says_where_it_lies(hub):
    events: list[Event] = []
    with pytest.raises(MissingDependencyError, match="models download"):
        models.folder_of(NAME)
    folder = fetch(Progress((events.append,)))
    assert files_in(folder) == TAKEN | {MANIFEST}
    assert (folder / UNET).read_bytes() == repository()[UNET]
    assert models.folder_of(NAME) == folder
    assert models.entry(NAME).variant == "fp16"
    assert verify(NAME) == []
    manifest = models.installed(NAME)
    assert manifest is not None and (manifest.repository, manifest.revision) == (FIRST, PINNED)
    steps = [event for event in events if isinstance(event, StepDone)]
    assert steps[-1].step == steps[-1].total and isinstance(events[-1], StageFinished)


def test_a_second_call_loads_nothing(hub):
    fetch()
    hub.requests.clear()
    fetch()
    assert hub.requests == []


def test_nothing_else_is_asked_or_told(hub):
    fetch()
    assert not hub.strangers
    assert not [agent for agent in hub.agents if "torch" in agent or "agent" in agent]


def test_licence_comes_first(hub, tmp_path):
    (tmp_path / "models" / "licences.json").unlink()
    with pytest.raises(DownloadError, match="accept-licence"):
        fetch()
    assert hub.requests == []


def test_a_broken_connection_is_resumed_within_the_call(hub):
    hub.once[UNET] = 1_000_000
    folder = fetch()
    first, second = hub.starts(UNET)
    assert first == 0 and 0 < second <= 1_000_000
    assert (folder / UNET).read_bytes() == repository()[UNET]


def test_a_connection_that_breaks_again_and_again(hub, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)
    hub.break_after[UNET] = 700_000
    folder = fetch()
    starts = hub.starts(UNET)
    assert len(starts) == 5 and starts == sorted(starts) and starts[-1] > 2_000_000
    assert (folder / UNET).read_bytes() == repository()[UNET]


def test_a_cancelled_download_is_resumed_by_the_next_call(hub):
    progress = Progress()

    def stop(event: Event) -> None:
        if isinstance(event, StepDone) and event.step >= 1:
            progress.cancel()

    progress.sinks = (stop,)
    hub.slow = 0.05
    with pytest.raises(Cancelled):
        fetch(progress)
    assert models.installed(NAME) is None
    hub.slow = 0.0
    folder = fetch()
    assert hub.starts(UNET)[-1] >= 1_000_000
    assert (folder / UNET).read_bytes() == repository()[UNET]
    assert not [name for name in files_in(folder) if name.endswith(".part")]


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.slow
def test_a_killed_process_is_resumed_by_the_next_one(hub, tmp_path):
    whole = hub.repositories[FIRST][UNET] * 12
    hub.repositories[FIRST][UNET], hub.slow = whole, 0.01

    def arrived() -> int:
        return max([path.stat().st_size for path in (tmp_path / "models").rglob("unet/*.part")], default=0)

    words = [sys.executable, "-m", "dreamcraft3d", "models", "download", NAME, "--json"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        until = time.monotonic() + PATIENCE
        while arrived() < 10_000_000 and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert 10_000_000 <= arrived() < len(whole)
    hub.slow = 0.0
    assert (fetch() / UNET).read_bytes() == whole
    assert hub.starts(UNET)[-1] >= 10_000_000


def test_a_server_without_ranges_sends_it_all_again(hub):
    hub.once[UNET], hub.ignore_ranges = 1_000_000, True
    assert (fetch() / UNET).read_bytes() == repository()[UNET]
    assert hub.starts(UNET) == [0, 0]


def test_a_damaged_file_is_loaded_again(hub):
    events: list[Event] = []
    hub.damage[UNET] = 1
    folder = fetch(Progress((events.append,)))
    assert (folder / UNET).read_bytes() == repository()[UNET]
    assert any(isinstance(event, Warned) and "damaged" in event.text for event in events)


def test_a_file_that_is_always_damaged_is_refused(hub):
    hub.damage[UNET] = 9
    with pytest.raises(DownloadError, match="checksum"):
        fetch()
    assert models.installed(NAME) is None
    assert not (models.home() / NAME / UNET).exists()


@pytest.mark.parametrize("harm", ["flip", "cut", "delete"])
def test_damage_on_the_disk_is_found_and_repaired(hub, harm):
    folder = fetch()
    whole = (folder / UNET).read_bytes()
    if harm == "flip":
        (folder / UNET).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    elif harm == "cut":
        (folder / UNET).write_bytes(whole[:-1])
    else:
        (folder / UNET).unlink()
    assert verify(NAME) == [UNET]
    if harm != "flip":
        with pytest.raises(MissingDependencyError, match="--repair"):
            models.folder_of(NAME)
    (folder / UNET).unlink(missing_ok=True)
    hub.requests.clear()
    fetch()
    assert {path for path, _ in hub.requests} == {UNET}
    assert verify(NAME) == []


def test_gated_models_say_where_to_accept(hub):
    hub.gated.add(FIRST)
    with pytest.raises(DownloadError) as caught:
        fetch()
    assert f"{hub.url}/{FIRST}" in caught.value.message
    assert "hf auth login" in caught.value.remedy


def test_a_vanished_repository_gives_way_to_its_mirror(hub):
    events: list[Event] = []
    hub.repositories = {SECOND: repository(seed=3)}
    folder = fetch(Progress((events.append,)))
    assert (folder / UNET).read_bytes() == repository(seed=3)[UNET]
    manifest = models.installed(NAME)
    assert manifest is not None and (manifest.repository, manifest.revision) == (SECOND, COMMIT)
    assert any(isinstance(event, Warned) and FIRST in event.text for event in events)


def test_no_source_left(hub):
    hub.repositories = {}
    with pytest.raises(DownloadError, match="None of the sources"):
        fetch()


def test_pickled_weights_are_not_taken(hub):
    files = repository()
    for path in [path for path in files if path.startswith("unet/") and path.endswith(".safetensors")]:
        del files[path]
    hub.repositories = {FIRST: files}
    events: list[Event] = []
    with pytest.raises(DownloadError):
        fetch(Progress((events.append,)))
    assert any(isinstance(event, Warned) and "pickled" in event.text for event in events)


def test_a_hub_that_is_down(hub, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)
    hub.down = True
    with pytest.raises(DownloadError, match="refuses"):
        fetch()


def test_no_connection(hub, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DownloadError, match="No connection"):
        fetch()


def test_too_little_space_is_found_before(hub, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1 << 30, 1 << 30, 1 << 20))
    with pytest.raises(OutputError) as caught:
        fetch()
    assert "DREAMCRAFT3D_MODELS" in caught.value.remedy
    assert hub.requests == []


@pytest.fixture
def small_disk(tmp_path):
    """A disk of two megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(place)], capture_output=True)
    if made.returncode:
        pytest.skip("mounting is not allowed here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.skipif(shutil.which("mount") is None, reason="needs mount")
def test_a_disk_that_fills_up_on_the_way(hub, small_disk, monkeypatch):
    monkeypatch.setenv("DREAMCRAFT3D_MODELS", str(small_disk))
    accept_licence(models.entry(NAME).licence)
    monkeypatch.setattr("dreamcraft3d.priors.downloads.SPARE", -SIZE)
    with pytest.raises(OutputError, match="No space left"):
        fetch()
    assert models.installed(NAME) is None


def test_two_at_once(hub):
    with locked(NAME), pytest.raises(WorkspaceBusyError):
        fetch()


def test_remove(hub):
    folder = fetch()
    assert remove(NAME) > SIZE
    assert not folder.exists()
    with pytest.raises(MissingDependencyError):
        remove(NAME)


def test_import_of_a_models_folder_needs_no_network(hub, tmp_path, monkeypatch):
    carried = tmp_path / "stick"
    shutil.copytree(fetch(), carried)
    monkeypatch.setenv("DREAMCRAFT3D_MODELS", str(tmp_path / "other"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    folder = import_folder(NAME, carried)
    assert files_in(folder) == TAKEN | {MANIFEST}
    assert verify(NAME) == []
    manifest = models.installed(NAME)
    assert manifest is not None and manifest.repository == FIRST
