"""A mesh comes back to where the picture shows it, however it was turned, scaled and moved."""

import dataclasses
import math

import pytest
import torch

from dreamcraft3d.evaluation.meshes import normalise
from dreamcraft3d.evaluation.oracle import reference_of
from dreamcraft3d.export import TexturedMesh
from dreamcraft3d.functional.mesh import Mesh
from dreamcraft3d.stages.alignment import Similarity, align, silhouette_overlap
from dreamcraft3d.stages.colour_fit import ColourOf
from dreamcraft3d.stages.reference import ReferenceView
from shapes import lopsided_colour, sphere
from tiny import lopsided_textured

SHIFT = torch.tensor([0.7, -2.0, 5.0])


def lopsided() -> TexturedMesh:
    """In the middle of the scene."""
    return normalise(lopsided_textured())[0]


def turned(degrees: float, *, tilt: float = 0.0) -> torch.Tensor:
    (c, s), (ct, st) = ((math.cos(math.radians(a)), math.sin(math.radians(a))) for a in (degrees, tilt))
    about_z = torch.tensor([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    return about_z @ torch.tensor([[ct, 0.0, st], [0.0, 1.0, 0.0], [-st, 0.0, ct]])


def moved(mesh: Mesh, rotation: torch.Tensor, scale: float = 3.0) -> Mesh:
    return Mesh(scale * mesh.vertices @ rotation.T + SHIFT, mesh.faces)


def outline(mesh: TexturedMesh, elevation: float = 0.0) -> ReferenceView:
    """A picture of which only the silhouette is known, and the colours in it."""
    return dataclasses.replace(reference_of(mesh, elevation, size=256), depth=None, normal=None)


@pytest.mark.parametrize(("degrees", "elevation"), [(130.0, 0.0), (-35.0, 0.35)])
def test_turned_scaled_and_moved_it_comes_back(degrees: float, elevation: float) -> None:
    truth = lopsided()
    found = align(moved(truth.mesh, turned(degrees)), outline(truth, elevation))
    assert found.iou >= 0.97
    assert math.remainder(math.degrees(found.transform.yaw) + degrees, 360.0) == pytest.approx(0.0, abs=2.0)
    assert 3.0 * found.transform.scale == pytest.approx(1.0, rel=0.02)
    back = found.transform(moved(truth.mesh, turned(degrees)).vertices)
    assert float((back - truth.vertices).norm(dim=-1).mean()) < 0.03


def test_the_mesh_itself_is_seldom_where_the_picture_shows_it() -> None:
    truth = lopsided()
    assert silhouette_overlap(truth.mesh, None, outline(truth)) > 0.98
    assert silhouette_overlap(moved(truth.mesh, turned(130.0), scale=1.0), None, outline(truth)) < 0.5


def two_colours(x: torch.Tensor) -> torch.Tensor:
    """Red in front, blue behind."""
    front = (x[:, :1] > 0.0).float()
    return torch.cat([front, torch.full_like(front, 0.2), 1.0 - front], dim=1)


def symmetric() -> TexturedMesh:
    """The same silhouette from the front and from the back."""
    ball = sphere(0.5, subdivisions=3)
    vertices = ball.vertices * torch.tensor([0.6, 1.0, 0.8])
    return TexturedMesh(vertices, ball.faces, vertex_colours=two_colours(vertices))


def in_its_frame(colour: ColourOf, rotation: torch.Tensor) -> ColourOf:
    return lambda x: colour((x - SHIFT) / 3.0 @ rotation)


def test_colours_tell_the_front_from_the_back() -> None:
    truth, rotation = symmetric(), turned(180.0)
    mesh = moved(truth.mesh, rotation)
    found = align(mesh, outline(truth), colour=in_its_frame(two_colours, rotation))
    assert abs(math.degrees(found.transform.yaw)) > 160.0
    assert any(abs(math.degrees(yaw)) < 20.0 for yaw in found.rivals)
    plain = align(mesh, outline(truth))  # nothing tells: the file's own front is believed
    assert abs(math.degrees(plain.transform.yaw)) < 20.0


def test_normals_tell_the_front_from_the_back() -> None:
    """A body with a flat back, whose silhouettes from both sides are the same but for perspective."""
    truth = symmetric()
    flatter = torch.where(truth.vertices[:, :1] < 0.0, torch.tensor([0.1, 1.0, 1.0]), 1.0)
    flat = TexturedMesh(truth.vertices * flatter, truth.faces)
    view = dataclasses.replace(reference_of(flat, size=256), depth=None)
    found = align(moved(flat.mesh, turned(180.0)), view)
    assert abs(math.degrees(found.transform.yaw)) > 160.0


def test_without_turning_only_size_and_place_change() -> None:
    truth = lopsided()
    found = align(moved(truth.mesh, turned(90.0)), outline(truth), turn=False)
    assert found.transform.yaw == 0.0
    assert found.rivals == ()
    straight = align(moved(truth.mesh, turned(0.0)), outline(truth), turn=False)
    assert straight.iou > 0.97 > found.iou


@pytest.mark.slow
def test_a_small_pitch_is_found_when_it_is_asked_for() -> None:
    truth = lopsided()
    mesh = moved(truth.mesh, turned(40.0, tilt=8.0))
    stiff, free = align(mesh, outline(truth)), align(mesh, outline(truth), most_pitch=math.radians(15.0))
    assert free.iou > stiff.iou
    assert free.iou > 0.95
    assert abs(math.degrees(free.transform.pitch)) == pytest.approx(8.0, abs=4.0)


def test_another_object_fits_worse() -> None:
    truth = lopsided()
    assert align(sphere(0.5), outline(truth)).iou < 0.7


def test_a_shape_that_is_deep_stays_inside_the_scene() -> None:
    """A rod seen end on: its silhouette could be filled by a giant."""
    rod = sphere(0.5).vertices * torch.tensor([20.0, 0.5, 0.5])
    mesh = Mesh(rod, sphere(0.5).faces)
    found = align(mesh, outline(lopsided()), turn=False)
    assert float(found.transform(rod).norm(dim=-1).max()) < 1.5


def test_a_transform_survives_being_written_down() -> None:
    transform = Similarity(0.3, turned(77.0), SHIFT, yaw=math.radians(77.0))
    again = Similarity.from_record(transform.as_record())
    points = torch.rand(50, 3)
    assert torch.equal(transform(points), again(points))
    assert torch.allclose(transform.inverse(transform(points)), points, atol=1e-4)


@pytest.mark.parametrize("broken", ["mesh", "mask"])
def test_nothing_cannot_be_aligned(broken: str) -> None:
    truth = lopsided()
    view, mesh = outline(truth), truth.mesh
    if broken == "mask":
        view = dataclasses.replace(view, mask=torch.zeros_like(view.mask))
    else:
        mesh = Mesh(mesh.vertices, mesh.faces[:0])
    with pytest.raises(ValueError, match="cannot be aligned"):
        align(mesh, view)


def test_colours_of_the_lopsided_object_agree_with_its_picture() -> None:
    truth = lopsided()
    middle = lopsided_textured()
    scale = float((middle.vertices[1] - middle.vertices[0]).norm() / (truth.vertices[1] - truth.vertices[0]).norm())
    shift = middle.vertices[0] - scale * truth.vertices[0]
    found = align(truth.mesh, outline(truth), colour=lambda x: lopsided_colour(scale * x + shift))
    assert abs(math.degrees(found.transform.yaw)) < 2.0
