"""The request as typed records and as a folder that numpy alone can write."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

import soups
from dreamcraft3d.refining import folder
from dreamcraft3d.refining.refusals import NoTextureCoordinates, RequestBroken
from dreamcraft3d.refining.request import Occluders, configured_by, read_header


@pytest.fixture
def request_(tmp_path):
    hidden = Occluders(np.zeros((3, 3), np.float32), np.array([[0, 1, 2]], np.int32))
    image = soups.png(soups.noise(32, 48, 4))
    return soups.request(
        soups.cube(), {0: image}, occluders=hidden, fingerprint="abc", prompt="a ball, rød", policies={"unseen": "fill"}
    )


def test_a_folder_brings_the_same_request_back(request_, tmp_path):
    folder.write_request(request_, tmp_path / "request")
    again = folder.read_request(tmp_path / "request")
    assert again.header == request_.header
    assert again.files == request_.files
    for name in folder.ARRAYS:
        ours, theirs = getattr(request_.soup, name), getattr(again.soup, name)
        assert ours.dtype == theirs.dtype and (ours == theirs).all()
    assert again.occluders is not None and (again.occluders.tri_vertex == [[0, 1, 2]]).all()


def test_numpy_and_json_alone_write_it(tmp_path):
    """What the extension does, without our package."""
    mesh, data = soups.cube(), soups.png(soups.noise(16, 16))
    (tmp_path / "files").mkdir()
    import hashlib

    name = hashlib.sha256(data).hexdigest()
    (tmp_path / "files" / name).write_bytes(data)
    for array in ("position", "tri_vertex", "tri_uv", "tri_normal", "tri_face", "tri_slot", "tri_paint"):
        np.save(tmp_path / f"{array}.npy", getattr(mesh, array), allow_pickle=False)
    header = {
        "schema": "refine/1",
        "targets": [{"slot": 0, "tiles": [{"number": 1001, "width": 16, "height": 16, "sha256": name}]}],
        "strength": 0.5,
    }
    (tmp_path / "request.json").write_text(json.dumps(header))
    request = folder.read_request(tmp_path)
    assert request.header.strength == 0.5
    config = configured_by(request.header, {"refine.padding": 3})
    assert (config.refine.strength, config.refine.padding, config.preset) == (0.5, 3, "preview")


def test_a_request_says_nothing_about_the_machine_or_the_user(request_):
    text = folder.members(request_)["request.json"].decode()
    assert not re.search(r"[A-Za-z]:\\|/home|/Users|/tmp|\.\./", text)
    assert set(folder.members(request_)) == {
        *(f"{name}.npy" for name in folder.ARRAYS),
        "occluder_position.npy",
        "occluder_vertex.npy",
        *(f"files/{name}" for name in request_.files),
        "request.json",
    }


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"schema": "refine/2", "targets": []}', '{"targets": [{"slot": 0}]}', '{"targets": [], "x": 1}'],
)
def test_other_headers_are_refused_in_one_line(text):
    with pytest.raises(RequestBroken) as caught:
        read_header(text)
    assert "\n" not in caught.value.message and caught.value.remedy


def damage(contents: dict[str, bytes], what: str) -> dict[str, bytes]:
    if what == "missing":
        del contents["tri_uv.npy"]
    if what == "pickle":
        import io

        buffer = io.BytesIO()
        np.save(buffer, np.array([{}], dtype=object), allow_pickle=True)
        contents["tri_uv.npy"] = buffer.getvalue()
    if what == "cut":
        contents["position.npy"] = contents["position.npy"][:200]
    if what == "image":
        name = next(name for name in contents if name.startswith("files/"))
        contents[name] = contents[name][:-1] + b"?"
    if what == "index":
        contents["tri_vertex.npy"] = folder._npy(np.full((192, 3), 10**6, np.int32))
    if what == "shape":
        contents["tri_slot.npy"] = folder._npy(np.zeros((3, 2), np.int16))
    return contents


@pytest.mark.parametrize("what", ["missing", "pickle", "cut", "image", "index", "shape"])
def test_damaged_requests_are_refused(request_, what):
    with pytest.raises(RequestBroken):
        folder.request_of(damage(folder.members(request_), what))


def test_a_mesh_without_coordinates_is_refused():
    mesh = soups.cube()
    mesh.tri_uv[:] = 0.0
    with pytest.raises(NoTextureCoordinates) as caught:
        soups.request(mesh, {0: soups.png(soups.noise(8, 8))})
    assert caught.value.reason == "E_NO_UV"


def test_a_request_is_read_without_torch():
    """The service looks at requests before any worker runs."""
    code = "import sys; import dreamcraft3d.refining.folder; print(sorted({'torch', 'cv2', 'warp'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
