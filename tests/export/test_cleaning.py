"""The real object, and nothing else."""

import numpy as np
import pytest
import torch

import shapes
from dreamcraft3d.errors import ObjectLost
from dreamcraft3d.export import cleaning, topology
from dreamcraft3d.functional.mesh import Mesh
from dreamcraft3d.functional.tets import bcc_grid, marching_tets


def clean(mesh: Mesh, target_faces: int = 100_000) -> tuple[np.ndarray, np.ndarray, cleaning.CleanReport]:
    return cleaning.clean(mesh.vertices.double().numpy(), mesh.faces.numpy(), target_faces=target_faces)


def test_floaters_go_and_real_parts_stay() -> None:
    body, part = shapes.sphere(0.4), shapes.sphere(0.08, (0.6, 0.0, 0.0), 2)
    floater = shapes.sphere(0.02, (0.0, 0.6, 0.0), 1)
    vertices, faces, report = clean(shapes.union(floater, body, part))
    assert (report.dropped_floaters, report.parts, report.closed) == (1, 2, True)
    assert vertices[:, 1].max() < 0.5
    np.testing.assert_allclose(sorted(topology.volumes(vertices, faces)), [0.0020, 0.2645], atol=2e-3)


@pytest.mark.parametrize("turn", [False, True])
def test_what_lies_inside_goes_whichever_way_it_faces(turn: bool) -> None:
    inner = shapes.sphere(0.3)
    _, faces, report = clean(shapes.union(shapes.sphere(0.5), shapes.flipped(inner) if turn else inner))
    assert (report.dropped_hidden, report.parts) == (1, 1)
    assert len(faces) == len(shapes.sphere(0.5).faces)


def test_parts_that_pierce_each_other_stay() -> None:
    _, _, report = clean(shapes.union(shapes.sphere(0.3), shapes.sphere(0.3, (0.3, 0.0, 0.0))))
    assert (report.dropped_hidden, report.parts) == (0, 2)


def test_an_inside_out_object_is_turned() -> None:
    vertices, faces, report = clean(shapes.flipped(shapes.torus()))
    assert report.closed
    assert topology.volumes(vertices, faces).min() > 0


def test_the_budget_is_met_and_the_shape_kept() -> None:
    vertices, faces, report = clean(shapes.torus(96), target_faces=1200)
    assert report.closed
    assert report.faces_before == 2 * 96 * 48
    assert len(faces) <= 1200
    expected = 2.0 * np.pi**2 * 0.4 * 0.15**2
    np.testing.assert_allclose(topology.volumes(vertices, faces), expected, rtol=0.03)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_spongy_level_set_still_ends_closed_within_a_budget(seed: int) -> None:
    """Noise makes handles, pinches and crumbs: what a stage that has gone wrong might hand over."""
    vertices, tets = bcc_grid(14)
    points = 2.0 * vertices - 1.0
    noise = 0.06 * torch.randn(len(points), generator=torch.Generator().manual_seed(seed))
    mesh = marching_tets(points, points.norm(dim=-1) - 0.6 + noise, tets)
    vertices, faces, report = clean(mesh, target_faces=800)
    assert report.closed
    assert report.dropped_floaters > 0
    assert len(faces) < 2000
    assert topology.volumes(vertices, faces).min() > 0


def test_broken_numbers_are_cut_out_and_the_hole_is_filled() -> None:
    mesh = shapes.sphere()
    vertices = mesh.vertices.clone()
    vertices[7] = torch.nan
    _, _, report = clean(Mesh(vertices, mesh.faces))
    assert report.closed
    assert report.filled_holes == 1


def test_nothing_left_is_an_error_with_a_remedy() -> None:
    empty = Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))
    flat = Mesh(torch.rand(3, 3), torch.tensor([[0, 1, 2]]))
    for mesh in (empty, flat):
        with pytest.raises(ObjectLost) as error:
            clean(mesh)
        assert error.value.remedy


def test_winding_number_of_a_sphere() -> None:
    mesh = shapes.sphere(0.5, subdivisions=2)
    points = np.array([[0.0, 0, 0], [0.45, 0, 0], [0.6, 0, 0], [0, 2, 0]])
    number = cleaning.winding_number(points, mesh.vertices.double().numpy(), mesh.faces.numpy())
    np.testing.assert_allclose(number, [1, 1, 0, 0], atol=1e-6)
