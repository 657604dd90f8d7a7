"""GLB and OBJ files come back with other images and otherwise byte for byte."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import soups
from dreamcraft3d import export
from dreamcraft3d.errors import InputError
from dreamcraft3d.evaluation.meshes import load_mesh
from dreamcraft3d.export import TexturedMesh
from dreamcraft3d.export.gltf import container
from dreamcraft3d.presets import configure
from dreamcraft3d.progress import Progress
from dreamcraft3d.refining.files import open_mesh, refine_file, request_for
from dreamcraft3d.refining.glb import GlbFile
from dreamcraft3d.refining.glb_images import with_images
from dreamcraft3d.refining.obj import ObjFile
from dreamcraft3d.refining.refusals import NoTextureCoordinates, RefineRefused
from dreamcraft3d.workspace import Workspace

NEW = soups.png(soups.noise(40, 24, seed=5))


def glb(
    materials: list[dict],
    images: list[bytes],
    textures: list[int],
    *,
    order: str = "gi",
    nodes: list[dict] | None = None,
    coordinates: bool = True,
) -> bytes:
    """A file with one triangle per material. `order`: geometry (g) and images (i) as they lie in the binary chunk."""
    views, accessors, binary = [], [], bytearray()

    def view(data: bytes) -> int:
        views.append({"buffer": 0, "byteOffset": len(binary), "byteLength": len(data)})
        binary.extend(data + bytes(-len(data) % 4))
        return len(views) - 1

    primitives, records = [], []

    def geometry() -> None:
        for k in range(len(materials)):
            position = np.array([[k, 0, 0], [k + 1, 0, 0], [k, 1, 0.5]], np.float32)
            uv = np.array([[0.1, 0.1], [0.9, 0.1], [0.1, 0.9]], np.float32)
            index = np.arange(3, dtype=np.uint16)
            attributes = {}
            for name, data, kind, component in (
                ("POSITION", position, "VEC3", 5126),
                ("TEXCOORD_0", uv, "VEC2", 5126),
                ("", index, "SCALAR", 5123),
            ):
                accessors.append(
                    {"bufferView": view(data.tobytes()), "componentType": component, "count": 3, "type": kind}
                )
                if name and (coordinates or name == "POSITION"):
                    attributes[name] = len(accessors) - 1
            primitives.append({"attributes": attributes, "indices": len(accessors) - 1, "material": k})

    for part in order:
        if part == "g":
            geometry()
        else:
            records.extend({"bufferView": view(data), "mimeType": "image/png"} for data in images)
    document = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": list(range(len(nodes or [{}])))}],
        "nodes": nodes or [{"mesh": 0}],
        "meshes": [{"primitives": primitives}],
        "materials": materials,
        "textures": [{"source": source} for source in textures],
        "images": records,
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(binary)}],
        "extras": {"artist": "ænd more"},
    }
    return container(document, bytes(binary))


def textured(index: int) -> dict:
    return {"pbrMetallicRoughness": {"baseColorTexture": {"index": index}}, "name": f"material {index}"}


def accessors_of(file: GlbFile) -> list[bytes]:
    return [file._accessor(k).tobytes() for k in range(len(file.document["accessors"]))]


def images_of(data: bytes) -> dict[int, bytes | None]:
    file = GlbFile(data)
    return {slot: file.picture(slot).data for slot in file.slots()}


def assert_sound(data: bytes) -> None:
    """Lengths add up, views lie inside, accessors are aligned."""
    assert struct.unpack_from("<I", data, 8)[0] == len(data)
    file = GlbFile(data)
    assert file.document["buffers"][0]["byteLength"] <= len(file.binary)
    for view in file.document["bufferViews"]:
        assert view.get("byteOffset", 0) + view["byteLength"] <= len(file.binary)
    for accessor in file.document["accessors"]:
        assert file.document["bufferViews"][accessor["bufferView"]].get("byteOffset", 0) % 4 == 0


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["gi", "ig"]),
    st.lists(st.integers(1, 40), min_size=3, max_size=3),
    st.sets(st.integers(0, 2), min_size=1),
)
def test_only_the_chosen_images_change(order, sizes, slots):
    images = [soups.png(soups.noise(side, side, seed=side)) for side in sizes]
    data = glb([textured(0), textured(1), textured(2)], images, [0, 1, 2], order=order)
    result = with_images(GlbFile(data), dict.fromkeys(slots, NEW))
    assert_sound(result)
    assert accessors_of(GlbFile(result)) == accessors_of(GlbFile(data))
    assert images_of(result) == {k: NEW if k in slots else images[k] for k in range(3)}
    old, new = GlbFile(data).document, GlbFile(result).document
    for key in ("accessors", "meshes", "nodes", "materials", "textures", "extras", "scenes"):
        assert old[key] == new[key], key
    assert len(result) < len(data) + 3 * len(NEW) + 64  # the old images are gone


def test_an_image_that_others_show_stays_for_them():
    image = soups.png(soups.noise(8, 8))
    for materials, textures in (
        ([textured(0), textured(0)], [0]),
        ([textured(0), textured(1)], [0, 0]),
        ([{**textured(0), "emissiveTexture": {"index": 0}}, textured(1)], [0, 0]),
    ):
        data = glb(materials, [image], textures)
        result = with_images(GlbFile(data), {0: NEW})
        assert_sound(result)
        assert images_of(result) == {0: NEW, 1: image}
        assert accessors_of(GlbFile(result)) == accessors_of(GlbFile(data))


def test_a_material_without_an_image_gets_one():
    data = glb([{"pbrMetallicRoughness": {"baseColorFactor": [0.5, 0.1, 0.2, 0.7]}}, textured(0)], [NEW], [0])
    result = with_images(GlbFile(data), {0: NEW})
    assert images_of(result) == {0: NEW, 1: NEW}
    assert GlbFile(result).document["materials"][0]["pbrMetallicRoughness"]["baseColorFactor"] == [1, 1, 1, 0.7]


def test_the_frame_is_blenders_and_coordinates_have_v_up():
    request = GlbFile(glb([textured(0)], [NEW], [0])).request(None, texture_size=16)
    assert np.allclose(request.soup.position, [[0, 0, 0], [1, 0, 0], [0, -0.5, 1]])
    assert np.allclose(request.soup.tri_uv[0], [[0.1, 0.9], [0.9, 0.9], [0.1, 0.1]])


def test_another_place_of_the_same_mesh_only_hides():
    nodes = [{"mesh": 0}, {"mesh": 0, "translation": [9, 0, 0], "scale": [-1, 1, 1]}]
    request = GlbFile(glb([textured(0)], [NEW], [0], nodes=nodes)).request([0], texture_size=16)
    assert len(request.soup.tri_vertex) == 1
    assert request.occluders is not None
    assert np.allclose(request.occluders.position[0], [9, 0, 0])


def test_slots_that_cannot_be_painted_are_named():
    file = GlbFile(glb([textured(0), textured(0)], [NEW], [0]))
    with pytest.raises(RefineRefused, match="no slot 7") as caught:
        file.request([7], texture_size=16)
    assert "material 0" in caught.value.remedy
    bare = GlbFile(glb([textured(0)], [NEW], [0], coordinates=False))
    for slots in (None, [0]):
        with pytest.raises(NoTextureCoordinates):
            bare.request(slots, texture_size=16)


@pytest.mark.parametrize("data", [b"", b"glTF", b"glTF\1\0\0\0" + bytes(40), b"solid"])
def test_other_files_are_refused(tmp_path, data):
    (tmp_path / "mesh.glb").write_bytes(data)
    with pytest.raises(RefineRefused):
        open_mesh(tmp_path / "mesh.glb")
    (tmp_path / "mesh.fbx").write_bytes(data)
    with pytest.raises(InputError, match="GLB or OBJ"):
        open_mesh(tmp_path / "mesh.fbx")


def test_compressed_files_are_refused_by_name():
    data = GlbFile(glb([textured(0)], [NEW], [0]))
    document = {**data.document, "extensionsRequired": ["KHR_draco_mesh_compression"]}
    with pytest.raises(RefineRefused, match="draco"):
        GlbFile(container(document, data.binary))


def test_our_own_files_give_the_mesh_that_the_loader_sees(tmp_path):
    """The reader agrees with an independent one (trimesh) about places and coordinates."""
    mesh = TexturedMesh(
        torch.tensor([[0.1, -0.2, 0.3], [0.1, 0.5, 0.3], [0.1, 0.1, 0.9]]),
        torch.tensor([[0, 1, 2]]),
        torch.tensor([[[0.1, 0.9], [0.8, 0.9], [0.1, 0.2]]]),
        torch.rand(8, 8, 3),
    )
    path = tmp_path / "mesh.glb"
    path.write_bytes(export.write_glb(mesh))
    soup = GlbFile(path.read_bytes()).request(None, texture_size=8).soup
    there = load_mesh(path)
    x, y, z = soup.position[soup.tri_vertex[0]].T
    ours = np.stack([-y, x, z], axis=1)
    order = [int(np.abs(ours - corner).sum(1).argmin()) for corner in there.vertices[there.faces[0]].numpy()]
    assert np.allclose(ours[order], there.vertices[there.faces[0]], atol=1e-6)
    assert there.uvs is not None
    assert np.allclose(soup.tri_uv[0][order] * [1, -1] + [0, 1], there.uvs[0], atol=1e-6)


OBJ = """# café
mtllib thing.mtl
v 0 0 0
v 1 0 0
v 1 1 0
v 0 1 0
v 0 0 1
vt 0 0
vt 1 0
vt 1 1
vt 0 1
usemtl red wood
f 1/1 2/2 3/3 4/4
usemtl plain
f -5/1/1 -4/2/1 -1/3/1
"""
MTL = """newmtl red wood
Kd 1 1 1
map_Kd wood.png
map_Bump -bm 0.5 bump.png

newmtl plain
Kd 0.5 0.5 0.5
"""


def write_obj(folder: Path, text: str = OBJ, library: str | None = MTL) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "thing.obj").write_text(text, encoding="utf-8")
    (folder / "wood.png").write_bytes(soups.png(soups.noise(16, 16)))
    (folder / "bump.png").write_bytes(b"bump")
    if library is not None:
        (folder / "thing.mtl").write_text(library)
    return folder / "thing.obj"


def test_obj_slots_polygons_and_relative_indices(tmp_path):
    file = ObjFile(write_obj(tmp_path))
    assert file.soup.tri_slot.tolist() == [0, 0, 1]
    assert file.soup.tri_vertex.tolist() == [[0, 1, 2], [0, 2, 3], [0, 1, 4]]
    assert np.allclose(file.soup.position[4], [0, -1, 0])
    assert np.allclose(file.soup.tri_uv[1], [[0, 0], [1, 1], [0, 1]])
    assert file.picture(0) == (tmp_path / "wood.png").read_bytes() and file.picture(1) is None


def test_obj_geometry_is_copied_and_only_the_library_changes(tmp_path):
    file = ObjFile(write_obj(tmp_path))
    files = file.with_images({0: NEW, 1: NEW})
    assert files["thing.obj"] == (tmp_path / "thing.obj").read_bytes()
    assert files["thing-0-refined.png"] == NEW
    library = files["thing.mtl"].decode()
    assert library.replace("thing-0-refined.png", "wood.png").replace("map_Kd thing-1-refined.png\n", "") == MTL
    assert files["bump.png"] == b"bump"
    out = tmp_path / "out"
    for name, data in files.items():
        out.mkdir(exist_ok=True)
        (out / name).write_bytes(data)
    assert ObjFile(out / "thing.obj").picture(1) == NEW
    assert (ObjFile(out / "thing.obj").soup.tri_uv == file.soup.tri_uv).all()


def test_obj_without_a_library_gets_one(tmp_path):
    text = "v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nf 1/1 2/2 3/3\n"
    file = ObjFile(write_obj(tmp_path, text, None))
    files = file.with_images({0: NEW})
    assert files["thing.obj"].endswith(text.encode())
    out = tmp_path / "out"
    out.mkdir()
    for name, data in files.items():
        (out / name).write_bytes(data)
    assert ObjFile(out / "thing.obj").picture(0) == NEW


@pytest.mark.parametrize("text", ["", "v 0 0\nf 1 2 3\n", "f 1/1 2/2 x\n"])
def test_broken_obj_files_are_refused(tmp_path, text):
    with pytest.raises(RefineRefused):
        open_mesh(write_obj(tmp_path, text))


def test_strength_0_returns_the_file_with_the_same_image_and_never_overwrites(tmp_path):
    image = soups.png(soups.noise(16, 16, 4))
    path = tmp_path / "thing.glb"
    path.write_bytes(glb([textured(0)], [image], [0]))
    config = configure("preview", {"refine.strength": 0.0})
    done = refine_file(path, config, Workspace(tmp_path / "out"), Progress())
    assert done.mesh.read_bytes() == path.read_bytes()
    assert json.loads((tmp_path / "out" / "result.json").read_text())["strength"] == 0.0
    inside = tmp_path / "again" / "mesh" / "thing.glb"
    inside.parent.mkdir(parents=True)
    inside.write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="overwrite"):
        refine_file(inside, config, Workspace(tmp_path / "again"), Progress())
    assert request_for(open_mesh(path), config, picture=NEW, slots=None).header.reference is not None
