"""The wire: what clients may ask and what they get."""

import hashlib
import io
import os
import socket
import struct
import threading
import time
import zlib

import pytest

from dreamcraft3d.config import describe
from dreamcraft3d.presets import configure
from dreamcraft3d.server.jobs import Input
from dreamcraft3d.server.protocol import PROTOCOL
from patience import PATIENCE, eventually
from serving import Hosted, error_of, png


def test_it_describes_itself_so_that_a_panel_can_be_drawn(hosted: Hosted):
    record = hosted.http.get("/v1/server").json()
    assert record["product"] == "dreamcraft3d" and record["protocol"] == PROTOCOL
    assert record["boot_id"] == hosted.service.boot_id and record["pid"] == os.getpid()
    preview = next(preset for preset in record["presets"] if preset["name"] == "preview")
    assert preview["available"] and preview["values"]["coarse_nerf.steps"] == configure("preview").coarse_nerf.steps
    known = {key for key, _, _ in describe(configure("preview"))}
    paths = {"reference.mask", "reference.depth", "reference.normal", "shape.mesh", "exemplar.picture"}
    assert set(preview["values"]) == known - paths
    schema = record["schema"]
    assert schema["$defs"]["CoarseNerfConfig"]["properties"]["steps"]["minimum"] == 1
    assert "mask" not in schema["$defs"]["ReferenceConfig"]["properties"]
    assert record["device"]["memory_free"] > 0 and record["disk_free"] > 0
    paper = next(preset for preset in record["presets"] if preset["name"] == "paper")
    assert "zero123-xl" in paper["models"]
    assert paper["available"] or "zero123-xl" in paper["reason"]


def test_minutes_of_a_preset_are_those_of_this_machine(hosted: Hosted):
    def minutes() -> float | None:
        presets = hosted.http.get("/v1/server").json()["presets"]
        found = next(preset for preset in presets if preset["name"] == "preview")
        return found["minutes"]

    assert minutes() is None
    short = hosted.submit(settings={"coarse_nerf.steps": 3})["id"]
    assert hosted.store.claim_next() is not None
    hosted.store.apply(short, Input.SUCCEED, {})
    assert minutes() is None, "a changed preset says nothing about the preset"
    hosted.submit(settings={"seed": 7})
    claimed = hosted.store.claim_next()
    assert claimed is not None
    hosted.store.apply(claimed.id, Input.SUCCEED, {})
    assert minutes() == pytest.approx(0.0, abs=0.2)


def test_uploads_are_named_by_their_bytes(hosted: Hosted):
    data = os.urandom(3 << 20)
    first = hosted.http.post("/v1/uploads", content=data)
    assert first.status_code == 201
    assert first.json() == {"id": hashlib.sha256(data).hexdigest(), "size": len(data)}
    assert hosted.http.post("/v1/uploads", content=data).json() == first.json()
    assert (hosted.service.uploads.folder / first.json()["id"]).read_bytes() == data
    assert len(list(hosted.service.uploads.folder.iterdir())) == 1
    assert error_of(hosted.http.post("/v1/uploads", content=b""))["code"] == "empty"


def test_an_upload_that_breaks_off_leaves_nothing(hosted: Hosted):
    with socket.create_connection(("127.0.0.1", hosted.port)) as line:
        head = (
            f"POST /v1/uploads HTTP/1.1\r\nHost: localhost\r\nAuthorization: {hosted.http.headers['authorization']}\r\n"
        )
        line.sendall(head.encode() + b"Content-Length: 5000000\r\n\r\n" + bytes(100_000))
        eventually(lambda: any(hosted.service.uploads.folder.iterdir()))
    eventually(lambda: not any(hosted.service.uploads.folder.iterdir()))
    assert hosted.http.get("/v1/health").status_code == 200


def test_a_full_disk_is_said_before_the_upload(hosted: Hosted):
    hosted.service.uploads.min_free = 1 << 60
    answer = hosted.http.post("/v1/uploads", content=b"x")
    assert answer.status_code == 507 and error_of(answer)["code"] == "disk"


def test_a_job_is_stored_as_it_was_asked(hosted: Hosted):
    job = hosted.submit(name="Mug", settings={"coarse_nerf.steps": 30}, priority=3, batch="kitchen")
    assert job["state"] == "queued" and job["position"] == 0 and job["name"] == "Mug"
    assert job["request"]["settings"] == {"coarse_nerf.steps": 30}
    assert job["request"]["batch"] == "kitchen" and job["request"]["priority"] == 3
    assert hosted.http.get(f"/v1/jobs/{job['id']}").json() == job
    assert hosted.executor.pokes == 1


def test_the_same_key_gives_the_same_job(hosted: Hosted):
    picture = hosted.upload(png(64, 64))
    body = {"picture": picture, "client_key": "once"}
    first, second = (hosted.http.post("/v1/jobs", json=body) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json()["id"] == second.json()["id"]
    assert len(hosted.http.get("/v1/jobs").json()["jobs"]) == 1


@pytest.mark.parametrize(
    ("change", "field", "word"),
    [
        ({"colour": "red"}, "colour", "no field"),
        ({"kind": "banana"}, "kind", "refine"),
        ({"picture": "../../etc/passwd"}, "picture", "pattern"),
        ({"picture": "0" * 64}, "picture", "does not have"),
        ({"mask": "f" * 64}, "mask", "does not have"),
        ({"preset": "huge"}, "preset", "huge"),
        ({"settings": {"coarse_nerf.stepz": 3}}, "settings.coarse_nerf.stepz", "coarse_nerf.stepz"),
        ({"settings": {"coarse_nerf.steps": -3}}, "settings.coarse_nerf.steps", "-3"),
        ({"settings": {"coarse_nerf.steps": "3"}}, "settings.coarse_nerf.steps", "integer"),
        ({"settings": {"reference.mask": "/etc/passwd"}}, "settings.reference.mask", "path"),
        ({"settings": {"priors.view": "/home/somebody/model"}}, "settings.priors.view", "catalogue"),
        ({"preset": "paper"}, "preset", "models"),
        ({"priority": 11}, "priority", "10"),
        ({"priority": True}, "priority", "integer"),
        ({"name": "x" * 121}, "name", "120"),
    ],
)
def test_a_refusal_names_the_field(shared: Hosted, change: dict[str, object], field: str, word: str):
    before = shared.store.count()
    body = {"picture": shared.upload(png(64, 64)), **change}
    answer = shared.http.post("/v1/jobs", json=body)
    assert answer.status_code == 422
    record = error_of(answer)
    assert record["field"].startswith(field)
    assert word in record["message"] and record["hint"]
    assert shared.store.count() == before


def bomb() -> bytes:
    """A small PNG that claims to be enormous."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 6, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("data", [b"not a picture", png(4, 4), bomb(), b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_usable_picture_becomes_no_job(shared: Hosted, data: bytes):
    body = {"picture": shared.upload(data), "settings": {"reference.max_megapixels": 1e9}}
    record = error_of(shared.http.post("/v1/jobs", json=body))
    assert record["code"] == "bad_image" and record["field"] == "picture"
    assert str(shared.service.paths.data) not in record["message"]


def test_a_queue_that_is_full_takes_no_more(hosted: Hosted, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dreamcraft3d.server.admission.MAX_WAITING", 2)
    first, _ = hosted.submit(), hosted.submit()
    body = {"picture": hosted.upload(png(64, 64))}
    answer = hosted.http.post("/v1/jobs", json=body)
    assert answer.status_code == 429 and error_of(answer)["code"] == "queue_full"
    hosted.http.post(f"/v1/jobs/{first['id']}/cancel")
    assert hosted.http.post("/v1/jobs", json=body).status_code == 201, "only those that wait count"


def test_lists_come_in_pages_the_newest_first(hosted: Hosted):
    ids = [hosted.submit(name=str(number))["id"] for number in range(7)]
    seen, query = [], {"limit": 3}
    while True:
        page = hosted.http.get("/v1/jobs", params=query).json()
        seen += [job["id"] for job in page["jobs"]]
        if page["next"] is None:
            break
        query = {"limit": 3, "before": page["next"]}
    assert seen == ids[::-1]
    hosted.http.post(f"/v1/jobs/{ids[0]}/cancel")
    cancelled = hosted.http.get("/v1/jobs", params={"state": "cancelled"}).json()["jobs"]
    assert [job["id"] for job in cancelled] == ids[:1]


def test_the_queue_can_be_reordered(hosted: Hosted):
    first, second, third = (hosted.submit()["id"] for _ in range(3))
    hosted.http.post(f"/v1/jobs/{third}/reorder", json={"before": first})
    hosted.http.post(f"/v1/jobs/{first}/reorder", json={"before": None})
    order = []
    while (job := hosted.store.claim_next()) is not None:
        order.append(job.id)
    assert order == [third, second, first]
    assert hosted.http.post(f"/v1/jobs/{first}/reorder", json={}).status_code == 409


def test_actions_follow_the_state_machine(hosted: Hosted):
    job = hosted.submit()["id"]

    def act(action: str) -> tuple[int, str]:
        answer = hosted.http.post(f"/v1/jobs/{job}/{action}")
        return answer.status_code, answer.json().get("state", "")

    assert act("pause") == (200, "paused")
    assert act("resume") == (200, "queued")
    assert act("cancel") == (200, "cancelled")
    assert act("cancel") == (200, "cancelled")
    assert act("pause")[0] == 409
    assert act("retry") == (200, "queued")
    assert hosted.store.claim_next() is not None
    answer = hosted.http.post(f"/v1/jobs/{job}/cancel").json()
    assert (answer["state"], answer["wish"]) == ("running", "cancel")
    assert hosted.http.post(f"/v1/jobs/{job}/explode").status_code in (404, 422)
    assert hosted.http.post(f"/v1/jobs/{'0' * 32}/cancel").status_code == 404


def test_events_are_numbered_and_waited_for(hosted: Hosted):
    job = hosted.submit()["id"]
    url = f"/v1/jobs/{job}/events"
    first = hosted.http.get(url).json()
    assert [event["number"] for event in first["events"]] == [1] and first["last"] == 1

    def later() -> None:
        time.sleep(0.3)
        hosted.store.add_event(job, "note", {"text": "hello"})

    thread = threading.Thread(target=later)
    start = time.monotonic()
    thread.start()
    news = hosted.http.get(url, params={"since": 1, "wait": 20}).json()
    took = time.monotonic() - start
    thread.join()
    assert [(event["number"], event["data"]) for event in news["events"]] == [(2, {"text": "hello"})]
    assert 0.2 < took < 20.0
    start = time.monotonic()
    assert hosted.http.get(url, params={"since": 2, "wait": 0.4}).json()["events"] == []
    assert time.monotonic() - start > 0.3
    hosted.http.post(f"/v1/jobs/{job}/cancel")
    start = time.monotonic()
    assert hosted.http.get(url, params={"since": 3, "wait": 20}).json()["state"] == "cancelled"
    assert time.monotonic() - start < 20.0, "nothing more will come of a job that is over"


def test_a_service_that_stops_answers_those_who_wait(hosted: Hosted):
    job = hosted.submit()["id"]
    answers: list[int] = []

    def wait() -> None:
        answers.append(hosted.http.get(f"/v1/jobs/{job}/events", params={"since": 1, "wait": 30}).status_code)

    thread = threading.Thread(target=wait)
    start = time.monotonic()
    thread.start()
    eventually(lambda: hosted.service.waiters.borrowed_tokens == 1)
    assert hosted.http.post("/v1/shutdown").status_code == 202
    thread.join(PATIENCE)
    assert answers == [200] and time.monotonic() - start < 30.0


def test_more_waiting_clients_than_places_are_answered_at_once(hosted: Hosted):
    job = hosted.submit()["id"]
    hosted.service.waiters.total_tokens = 1
    results: list[str] = []

    def wait() -> None:
        answer = hosted.http.get(f"/v1/jobs/{job}/events", params={"since": 1, "wait": 30})
        results.append(answer.json()["state"])

    threads = [threading.Thread(target=wait) for _ in range(4)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(results) == 3)
    hosted.http.post(f"/v1/jobs/{job}/cancel")
    for thread in threads:
        thread.join(PATIENCE)
    assert results == ["queued"] * 3 + ["cancelled"], "only one had a place to wait until something happened"


def finished_job(hosted: Hosted, data: bytes) -> str:
    job = hosted.submit()["id"]
    assert hosted.store.claim_next() is not None
    folder = hosted.service.paths.job(job)
    folder.mkdir(parents=True)
    (folder / "result.glb").write_bytes(data)
    (folder / "secret.txt").write_bytes(b"not for you")
    hosted.store.apply(job, Input.SUCCEED, {})
    return job


def test_artifacts_come_whole_in_ranges_and_once(hosted: Hosted):
    data = os.urandom(1_000_000)
    job = finished_job(hosted, data)
    url = f"/v1/jobs/{job}/artifacts/result.glb"
    whole = hosted.http.get(url)
    assert whole.content == data and whole.headers["content-type"] == "model/gltf-binary"
    tag = whole.headers["etag"]
    assert hosted.http.get(url, headers={"If-None-Match": tag}).status_code == 304
    for asked, start, end in (("0-9", 0, 10), ("999990-", 999_990, 1_000_000), ("-5", 999_995, 1_000_000)):
        part = hosted.http.get(url, headers={"Range": f"bytes={asked}"})
        assert part.status_code == 206 and part.content == data[start:end]
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/1000000"
    assert hosted.http.get(url, headers={"Range": "bytes=1000000-"}).status_code == 416
    assert hosted.http.get(url, headers={"Range": "bytes=5-1"}).status_code == 416
    assert hosted.http.get(url, headers={"Range": "bytes=0-1,5-6"}).content == data
    assert hosted.http.get(url, headers={"Range": "bytes=0-9", "If-Range": '"old"'}).content == data
    listed = hosted.http.get(f"/v1/jobs/{job}").json()["artifacts"]
    assert listed == [{"name": "result.glb", "size": 1_000_000, "media_type": "model/gltf-binary"}]


@pytest.mark.parametrize(
    "name", ["secret.txt", "..%2Fjobs.sqlite", "%2e%2e/jobs.sqlite", ".lock", "report.json", "x" * 65]
)
def test_no_other_file_is_ever_opened(shared: Hosted, name: str):
    job = finished_job(shared, b"glTF")
    assert shared.http.get(f"/v1/jobs/{job}/artifacts/{name}").status_code in (404, 422)


def test_a_link_out_of_the_folder_is_not_followed(hosted: Hosted):
    job = finished_job(hosted, b"glTF")
    (hosted.service.paths.job(job) / "report.json").symlink_to(hosted.service.paths.database)
    assert hosted.http.get(f"/v1/jobs/{job}/artifacts/report.json").status_code == 404


def test_a_preview_that_is_replaced_all_the_time_is_never_half(hosted: Hosted):
    """Sizes differ from version to version: a length taken from one and bytes from another would show."""
    job = finished_job(hosted, b"glTF")
    target = hosted.service.paths.job(job) / "preview.webp"
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            partial = target.with_suffix(".partial")
            partial.write_bytes(bytes([number % 251]) * (2000 + 997 * (number % 50)))
            partial.replace(target)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        eventually(target.exists)
        for _ in range(40):
            answer = hosted.http.get(f"/v1/jobs/{job}/artifacts/preview.webp")
            assert answer.status_code == 200
            assert len(set(answer.content)) == 1 and (len(answer.content) - 2000) % 997 == 0
    finally:
        stop.set()
        thread.join()


def test_a_deleted_job_leaves_no_file(hosted: Hosted):
    job = finished_job(hosted, b"glTF")
    assert hosted.http.delete(f"/v1/jobs/{job}").json() == {"ok": True}
    assert not any((hosted.service.paths.data / "jobs").iterdir())
    assert hosted.http.get(f"/v1/jobs/{job}").status_code == 404
    assert hosted.http.delete(f"/v1/jobs/{job}").status_code == 404
    running = hosted.submit()["id"]
    assert hosted.store.claim_next() is not None
    assert error_of(hosted.http.delete(f"/v1/jobs/{running}"))["code"] == "illegal"


def test_a_look_at_the_mask(hosted: Hosted):
    picture = hosted.upload(png(64, 64))
    body = {"picture": picture, "settings": {"reference.coverage": 0.5, "seed": 3}}
    answer = hosted.http.post("/v1/reference", json=body)
    assert answer.headers["content-type"] == "image/png" and answer.headers["x-dreamcraft-matting"] == "alpha channel"
    assert answer.content == png(64, 64)
    request = hosted.executor.asked[0]
    assert request.settings == {"reference.coverage": 0.5} and request.files["picture"].name == picture
    assert not request.target.parent.exists(), "nothing of it stays"
    assert "x-dreamcraft-frame" not in answer.headers
    hosted.executor.answer = {"ok": True, "matting": "d\u00e9coup\u00e9", "frame": [-3.5, 0.0, 71.0]}
    answer = hosted.http.post("/v1/reference", json=body)
    assert answer.headers["x-dreamcraft-frame"] == "-3.5 0.0 71.0"
    hosted.executor.answer = {"ok": False, "code": "InputError", "message": "There is hardly any object in it."}
    failure = error_of(hosted.http.post("/v1/reference", json=body))
    assert failure["code"] == "no_object" and failure["field"] == "picture"
    hosted.executor.answer = {"ok": False, "code": "busy", "message": "At work.", "hint": "Later."}
    assert hosted.http.post("/v1/reference", json=body).status_code == 409


def test_errors_all_look_alike(shared: Hosted):
    assert error_of(shared.http.get("/v1/nothing"))["code"] == "not_found"
    assert error_of(shared.http.put("/v1/jobs"))["code"] == "bad_method"
    kind = {"Content-Type": "application/json"}
    for body in (b"{", b"[" * 100_000, b"\xff\xfe", b"9" * 5000):
        assert shared.http.post("/v1/jobs", content=body, headers=kind).status_code in (400, 422)
    strange = {"picture": "0" * 64, "settings": {"\ud800": 1}}
    import json

    answer = shared.http.post("/v1/jobs", content=json.dumps(strange).encode(), headers=kind)
    assert answer.status_code == 422 and error_of(answer)


def test_the_document_of_the_api_needs_the_token_and_names_it(shared: Hosted):
    record = shared.http.get("/v1/openapi.json").json()
    assert record["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    for path, methods in record["paths"].items():
        assert path.startswith("/v1/")
        for method in methods.values():
            assert method["security"] and "401" in method["responses"]


def test_sweeping_keeps_what_jobs_need(hosted: Hosted):
    job = hosted.submit()
    stray = hosted.upload(b"stray bytes")
    recent = hosted.upload(b"recent bytes")
    for path in hosted.service.uploads.folder.iterdir():
        if path.name != recent:
            os.utime(path, (1.0, 1.0))
    from dreamcraft3d.server.service import tidy

    tidy(hosted.service)
    left = {path.name for path in hosted.service.uploads.folder.iterdir()}
    assert left == {job["request"]["files"]["picture"], recent} and stray not in left


def test_pictures_of_other_formats_are_taken(hosted: Hosted):
    from PIL import Image

    for kind in ("JPEG", "WEBP", "TIFF", "BMP"):
        buffer = io.BytesIO()
        Image.new("RGB", (64, 64), (1, 2, 3)).save(buffer, kind)
        assert hosted.http.post("/v1/jobs", json={"picture": hosted.upload(buffer.getvalue())}).status_code == 201
