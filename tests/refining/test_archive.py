"""Requests as ZIP files: there and back, and what is refused before anything is unpacked."""

import io
import json
import zipfile
from pathlib import Path

import pytest

import soups
from dreamcraft3d.refining import archive
from dreamcraft3d.refining.archive import check_archive, is_archive, read_archive
from dreamcraft3d.refining.folder import members
from dreamcraft3d.refining.refusals import RequestBroken


def zipped(parts: dict[str, bytes] | list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    """A ZIP file of some parts, in their order."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, data in parts.items() if isinstance(parts, dict) else parts:
            file.writestr(name, data)
    return buffer.getvalue()


def request():
    return soups.request(soups.cube(), {0: soups.png(soups.noise(16, 16))}, prompt="a box")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_there_and_back(tmp_path: Path, method: int) -> None:
    path = tmp_path / "request"
    path.write_bytes(zipped(members(request()), method))
    assert is_archive(path) and check_archive(path) == request().header
    assert members(read_archive(path)) == members(request())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"../evil": b"x"}, "no part named '../evil'"),
        ({"files/cover.png": b"x"}, "no part named"),
        ({"request.json": b"{"}, "cannot be used"),
        ({"request.json": json.dumps({"schema": "refine/1"}).encode()}, "targets"),
        ({"position.npy": b"no array"}, "position.npy cannot be read"),
        ({"tri_face.npy": None}, "no tri_face.npy"),
        ({"request.json": None}, "no request.json"),
    ],
)
def test_what_does_not_belong_is_refused(tmp_path: Path, change: dict[str, bytes | None], said: str) -> None:
    parts = {**members(request()), **change}
    path = tmp_path / "request"
    path.write_bytes(zipped({name: data for name, data in parts.items() if data is not None}))
    with pytest.raises(RequestBroken, match=said):
        read_archive(path)


def test_bombs_doubles_and_damage_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, parts = tmp_path / "request", members(request())
    monkeypatch.setattr(archive, "MAX_BYTES", 10_000)
    path.write_bytes(zipped({**parts, "tri_uv.npy": bytes(20_000)}, zipfile.ZIP_DEFLATED))
    with pytest.raises(RequestBroken, match="unpacks to more"):
        check_archive(path)
    with pytest.warns(UserWarning, match="Duplicate"):
        path.write_bytes(zipped([*parts.items(), ("position.npy", b"")]))
    with pytest.raises(RequestBroken, match="twice"):
        check_archive(path)
    whole = zipped(parts)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RequestBroken, match="cannot be unpacked"):
        check_archive(path)
    at = whole.index(b"NUMPY") + 40
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(RequestBroken):
        read_archive(path)
