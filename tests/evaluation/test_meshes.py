"""Meshes from files."""

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

import shapes
from dreamcraft3d.errors import InputError
from dreamcraft3d.evaluation import load_mesh, normalise, render_textured
from dreamcraft3d.functional.cameras import orbit


def painted(colour: tuple[int, int, int], low: tuple[float, ...], high: tuple[float, ...]) -> trimesh.Trimesh:
    """A textured box whose image has one colour."""
    box = trimesh.creation.box(bounds=[low, high])
    uv = np.random.default_rng(0).uniform(0, 1, (len(box.vertices), 2))
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.new("RGB", (8, 8), colour))
    box.visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    return box


@pytest.mark.parametrize("suffix", [".obj", ".ply", ".glb"])
def test_files_are_y_up_with_their_front_towards_z(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"box{suffix}"
    trimesh.creation.box(bounds=[[-1, -2, -3], [4, 5, 6]]).export(path)
    mesh = load_mesh(path)
    assert mesh.vertices.amin(0).tolist() == [-3, -1, -2]
    assert mesh.vertices.amax(0).tolist() == [6, 4, 5]
    assert len(mesh.vertices) == 8
    assert len(mesh.faces) == 12


def test_vertex_colours_of_a_ply_are_kept_as_they_are(tmp_path: Path) -> None:
    box = trimesh.creation.box()
    box.visual.vertex_colors = np.arange(24).reshape(8, 3) * 10
    box.export(tmp_path / "box.ply")
    mesh = load_mesh(tmp_path / "box.ply")
    found = {tuple(row) for row in (mesh.vertex_colours * 255).round().int().tolist()}
    assert found == {tuple(row) for row in (np.arange(24).reshape(8, 3) * 10).tolist()}


def test_a_scene_is_flattened_and_its_textures_share_an_atlas(tmp_path: Path) -> None:
    scene = trimesh.Scene()
    scene.add_geometry(painted((255, 0, 0), (-1, 0, 0), (0, 1, 0.1)))
    move = trimesh.transformations.translation_matrix([0, -1, 0])
    scene.add_geometry(painted((0, 0, 255), (0, 0, 0), (1, 1, 0.1)), transform=move)
    scene.export(tmp_path / "two.glb")
    mesh, _ = normalise(load_mesh(tmp_path / "two.glb"))
    image = render_textured(mesh, orbit(0.0, 0.0), 64).rgba[0]
    torch.testing.assert_close(image[20, 20], torch.tensor([1.0, 0, 0, 1]), atol=0.02, rtol=0)
    torch.testing.assert_close(image[44, 44], torch.tensor([0, 0, 1.0, 1]), atol=0.02, rtol=0)
    assert image[20, 44, 3] == 0


def test_a_mirrored_node_keeps_its_outside_outside(tmp_path: Path) -> None:
    scene = trimesh.Scene()
    scene.add_geometry(trimesh.creation.icosphere(subdivisions=1), transform=np.diag([-1.0, 1.0, 1.0, 1.0]))
    scene.export(tmp_path / "mirror.glb")
    mesh = load_mesh(tmp_path / "mirror.glb")
    a, b, c = mesh.vertices[mesh.faces].unbind(1)
    assert (a * torch.linalg.cross(b, c)).sum() > 0


def test_seams_are_welded(tmp_path: Path) -> None:
    """A file with six vertices for a square of four."""
    quad = shapes.textured_quad()
    shape = trimesh.Trimesh(quad.vertices[quad.faces].reshape(-1, 3).numpy(), np.arange(6).reshape(2, 3), process=False)
    shape.visual = trimesh.visual.TextureVisuals(uv=quad.uvs.reshape(-1, 2).numpy(), image=Image.new("RGB", (4, 4)))
    shape.export(tmp_path / "quad.obj")
    mesh = load_mesh(tmp_path / "quad.obj")
    assert len(mesh.vertices) == 4
    assert mesh.uvs.shape == (2, 3, 2)


def test_normalise_fits_every_view() -> None:
    mesh = shapes.textured_quad()
    stretched = type(mesh)(mesh.vertices * 7.0 + 100.0, mesh.faces, mesh.uvs, mesh.texture)
    fitted, matrix = normalise(stretched)
    torch.testing.assert_close(stretched.vertices @ matrix[:3, :3].T + matrix[:3, 3], fitted.vertices)
    assert fitted.vertices.norm(dim=-1).max() <= 0.64 + 1e-5
    assert fitted.vertices.abs().max() <= 0.6 + 1e-5
    torch.testing.assert_close(fitted.vertices.amax(0), -fitted.vertices.amin(0), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "content"),
    [("none.glb", None), ("mesh.txt", b"x"), ("bad.glb", b"not a mesh"), ("empty.obj", b"v 0 0 0\n")],
)
def test_files_that_are_not_meshes_are_refused_with_a_remedy(tmp_path: Path, name: str, content: bytes | None) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as error:
        load_mesh(path)
    assert error.value.remedy
