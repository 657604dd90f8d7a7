"""The file: read by trimesh, and judged by the Khronos validator where npm can get it."""

import json
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

import shapes
from dreamcraft3d.evaluation import load_mesh
from dreamcraft3d.export import TexturedMesh, bake, prepare, write_glb
from dreamcraft3d.export.gltf import linear_to_srgb, srgb_to_linear
from patience import PATIENCE

TOOLS = Path(__file__).resolve().parents[2] / ".tools"
VALIDATE = """
const validator = require(process.argv[1]);
const bytes = new Uint8Array(require('fs').readFileSync(process.argv[2]));
validator.validateBytes(bytes).then(report => console.log(JSON.stringify(report.issues)));
"""


@pytest.fixture(scope="module")
def glb() -> bytes:
    unwrapped = prepare(shapes.lopsided(), target_faces=1000, texture_size=256)
    return write_glb(unwrapped.with_texture(bake(unwrapped, shapes.lopsided_colour)))


@pytest.fixture(scope="session")
def validator() -> Path:
    module = TOOLS / "node_modules" / "gltf-validator"
    npm = shutil.which("npm")
    if not module.is_dir() and npm is not None:
        TOOLS.mkdir(exist_ok=True)
        command = [npm, "install", "--no-audit", "--no-fund", "--no-save", "--prefix", str(TOOLS), "gltf-validator"]
        subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False)
    if not module.is_dir() or shutil.which("node") is None:
        pytest.skip("the Khronos validator needs npm and a network once")
    return module


def document(data: bytes) -> dict:
    (length,) = struct.unpack_from("<I", data, 12)
    return json.loads(data[20 : 20 + length])


def issues(validator: Path, path: Path) -> dict:
    command = ["node", "-e", VALIDATE, str(validator), str(path)]
    return json.loads(subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE).stdout)


def test_the_validator_finds_nothing(glb: bytes, validator: Path, tmp_path: Path) -> None:
    coloured = TexturedMesh(
        *vars(shapes.sphere()).values(), vertex_colours=torch.rand(len(shapes.sphere().vertices), 3)
    )
    grey = TexturedMesh(*vars(shapes.torus()).values())
    for index, data in enumerate((glb, write_glb(coloured), write_glb(grey), write_glb(shapes.textured_quad()))):
        path = tmp_path / f"{index}.glb"
        path.write_bytes(data)
        report = issues(validator, path)
        assert report["numErrors"] == 0, report
        assert report["numWarnings"] == 0, report


def test_the_material_adds_no_light_of_its_own(glb: bytes) -> None:
    content = document(glb)
    (material,) = content["materials"]
    assert material["pbrMetallicRoughness"]["metallicFactor"] == 0.0
    assert material["pbrMetallicRoughness"]["roughnessFactor"] == 1.0
    assert material["extensions"]["KHR_materials_specular"]["specularFactor"] == 0.0
    assert content["extensionsUsed"] == ["KHR_materials_specular"]
    assert content["asset"]["generator"].startswith("DreamCraft ")
    assert [image["mimeType"] for image in content["images"]] == ["image/png"]


def test_a_stranger_reads_a_closed_mesh_in_the_frame_of_gltf(glb: bytes, tmp_path: Path) -> None:
    path = tmp_path / "result.glb"
    path.write_bytes(glb)
    shape = trimesh.load(path, force="mesh", process=False)
    low, high = shape.bounds
    np.testing.assert_allclose(low, [-0.35, -0.5, -0.15], atol=1e-6)  # (y, z, x) of ours
    np.testing.assert_allclose(high, [0.6, 0.6, 0.4], atol=1e-6)
    shape.merge_vertices(merge_tex=True, merge_norm=True)
    assert shape.is_watertight
    assert shape.is_winding_consistent
    assert shape.volume > 0
    assert shape.body_count == 5


def test_normals_do_not_break_at_seams(glb: bytes, tmp_path: Path) -> None:
    path = tmp_path / "result.glb"
    path.write_bytes(glb)
    (shape,) = trimesh.load(path, process=False).geometry.values()  # as they are in the file
    _, index = np.unique(shape.vertices, axis=0, return_inverse=True)
    assert len(np.unique(index)) < len(shape.vertices)
    mean = np.stack([np.bincount(index.reshape(-1), weights=shape.vertex_normals[:, k]) for k in range(3)], axis=1)
    np.testing.assert_allclose(np.linalg.norm(mean, axis=1), np.bincount(index.reshape(-1)), rtol=1e-5)


def test_colours_survive_the_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "mesh.glb"
    sphere = shapes.sphere()
    colours = torch.rand(len(sphere.vertices), 3, generator=torch.Generator().manual_seed(0))
    path.write_bytes(write_glb(TexturedMesh(sphere.vertices, sphere.faces, vertex_colours=colours)))
    back = load_mesh(path)
    assert back.vertex_colours is not None
    torch.testing.assert_close(back.vertices[back.faces], sphere.vertices[sphere.faces])
    torch.testing.assert_close(back.vertex_colours[back.faces], colours[sphere.faces], atol=1e-5, rtol=0)

    quad = shapes.textured_quad()
    path.write_bytes(write_glb(quad))
    back = load_mesh(path)
    torch.testing.assert_close(back.texture, quad.texture)
    torch.testing.assert_close(back.vertices[back.faces], quad.vertices[quad.faces])
    torch.testing.assert_close(back.uvs, quad.uvs)


def test_transfer_functions_are_inverses() -> None:
    values = np.linspace(0, 1, 257)
    np.testing.assert_allclose(linear_to_srgb(srgb_to_linear(values)), values, atol=1e-6)
    np.testing.assert_allclose(srgb_to_linear(np.array([0.5])), [0.2140], atol=1e-4)
