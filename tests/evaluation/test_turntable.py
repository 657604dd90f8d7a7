"""A result at a glance."""

from pathlib import Path

import cv2
import torch

import shapes
from dreamcraft3d.evaluation import turntable, turntable_image
from dreamcraft3d.export import TexturedMesh, write_glb


def test_colour_above_clay_the_reference_side_first(tmp_path: Path) -> None:
    mesh = shapes.lopsided()
    colours = shapes.lopsided_colour(mesh.vertices)
    (tmp_path / "mesh.glb").write_bytes(write_glb(TexturedMesh(mesh.vertices, mesh.faces, vertex_colours=colours)))
    turntable(tmp_path / "mesh.glb", tmp_path / "turntable.png", size=48)
    picture = cv2.imread(str(tmp_path / "turntable.png"))
    assert picture.shape == (4 * 48, 4 * 48, 3)
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []

    image = turntable_image(TexturedMesh(mesh.vertices, mesh.faces, vertex_colours=colours), size=48)
    cells = image.unflatten(0, (4, 48)).unflatten(2, (4, 48)).permute(0, 2, 1, 3, 4).flatten(0, 1)
    green = (cells[..., 1] > 0.5) & (cells[..., 0] < 0.4) & (cells[..., 2] < 0.4)  # the long arm
    columns = torch.arange(48.0).expand(48, 48)
    assert columns[green[0]].mean() > 30  # to the right from the front, to the left from behind
    assert columns[green[4]].mean() < 18
    saturation = cells.amax(-1) - cells.amin(-1)
    assert saturation[:8].flatten(1).amax(1).min() > 0.3
    assert saturation[8:].max() < 0.15
