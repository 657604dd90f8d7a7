"""Space carving: what is closed is full, what is open is empty, and a sheet without thickness is not lost."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from dreamcraft3d.functional.cameras import Cameras, framing_cameras, project
from dreamcraft3d.priors.lifting import REACH
from dreamcraft3d.training.occupancy import MARGIN, PLANES, carved_occupancy, frustum_cells, seen_past
from dreamcraft3d.training.primitives import circle, dome, lathe
from dreamcraft3d.training.surfaces import Surface, VertexPaint

CELL = 2.0 * REACH / PLANES
"""Distance of the planes: the coarsest step of the volume at the origin."""
SQUARE = [[0, 1, 2], [0, 2, 3]]


def camera_of(elevation: float, fovy: float = 20.0) -> Cameras:
    return framing_cameras(*(torch.tensor([math.radians(angle)]) for angle in (elevation, 0.0, fovy)))


def surface(vertices: np.ndarray, faces: np.ndarray) -> Surface:
    corners = torch.as_tensor(np.asarray(faces, np.int64))
    return Surface(
        torch.as_tensor(vertices, dtype=torch.float32), corners, VertexPaint(corners, torch.ones(len(vertices), 3))
    )


def box(*, without_top: bool) -> Surface:
    """A wide box of half sides .4, .4 and .15, as six squares."""
    signs = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
    squares = [
        [[s if k == axis else signs[c][0 if k == (axis + 1) % 3 else 1] for k in range(3)] for c in range(4)]
        for axis in range(3)
        for s in (-1, 1)
    ]
    corners = np.array(squares[:-1] if without_top else squares).reshape(-1, 3) * (0.4, 0.4, 0.15)
    return surface(corners, np.concatenate([np.array(SQUARE) + 4 * k for k in range(len(corners) // 4)]))


def distances(cells: Tensor) -> Tensor:
    """How far from the box's walls cells lie: negative inside."""
    return (cells.abs() - torch.tensor([0.4, 0.4, 0.15])).amax(-1)


@pytest.mark.parametrize("fovy", [12.0, 20.0, 45.0])
def test_cells_are_where_the_camera_sees_them(fovy: float) -> None:
    camera = camera_of(25.0, fovy)
    cells = frustum_cells(camera, size=8, planes=6)
    clip = project(cells.reshape(-1, 3), camera)[0].reshape(8, 8, 6, 4)
    centre = (torch.arange(8) + 0.5) / 8 * 2 - 1
    assert torch.allclose(clip[..., 0] / clip[..., 3], centre[None, :, None].expand(8, 8, 6), atol=1e-4)
    assert torch.allclose(clip[..., 1] / clip[..., 3], -centre[:, None, None].expand(8, 8, 6), atol=1e-4)
    depth = (clip[..., 3] - camera.distance) / REACH
    assert torch.allclose(depth, ((torch.arange(6) + 0.5) / 6 * 2 - 1).expand(8, 8, 6), atol=1e-4)


@pytest.mark.parametrize(("elevation", "fovy"), [(0.0, 20.0), (30.0, 45.0)])
def test_a_closed_ball_is_full_and_nothing_else_is(elevation: float, fovy: float) -> None:
    ball, camera = lathe(dome(24), circle(48)), camera_of(elevation, fovy)
    occupied = carved_occupancy(surface(0.4 * ball.vertices, ball.faces), camera)
    away = frustum_cells(camera).norm(dim=-1)
    assert bool(occupied[away < 0.39].all())
    beside = occupied & (away > 0.4 + 2.0 * CELL)
    assert int(beside.sum()) < 0.01 * int(occupied.sum())
    assert abs(int(occupied.sum()) / int((away < 0.4).sum()) - 1.0) < 0.2


def test_a_closed_box_is_full_and_an_open_one_is_hollow() -> None:
    camera = camera_of(0.0)
    cells = frustum_cells(camera)
    deep = (cells[..., :2].abs().amax(-1) < 0.25) & (cells[..., 2].abs() < 0.09)
    closed, opened = (carved_occupancy(box(without_top=lid), camera) for lid in (False, True))
    assert bool(closed[distances(cells) < -0.01].all())
    assert float(opened[deep].float().mean()) < 0.1, "looked into from above"


def test_an_open_box_keeps_its_walls() -> None:
    camera = camera_of(0.0)
    cells = frustum_cells(camera)
    walls = (distances(cells).abs() < 0.25 * CELL) & (cells[..., 2].abs() < 0.13)
    assert float(carved_occupancy(box(without_top=True), camera)[walls].float().mean()) > 0.95


def sheet_and_cells(turn: float) -> tuple[Tensor, Tensor]:
    """Occupancy of a sheet turned about the vertical (radians), and its cells in the sheet's own axes."""
    flat = np.array([[0.0, -0.35, -0.35], [0.0, 0.35, -0.35], [0.0, 0.35, 0.35], [0.0, -0.35, 0.35]])
    c, s = math.cos(turn), math.sin(turn)
    spin = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    camera = camera_of(10.0)
    occupied = carved_occupancy(surface(flat @ spin.T, np.array(SQUARE)), camera)
    return occupied, frustum_cells(camera) @ torch.as_tensor(spin, dtype=torch.float32)


TURNS = pytest.mark.parametrize("turn", [0.0, 0.6, 1.2])
"""From facing the camera to nearly along its rays."""


@TURNS
def test_beside_a_sheet_is_nothing(turn: float) -> None:
    occupied, cells = sheet_and_cells(turn)
    away = (cells[..., 0].abs() > 2.5 * CELL) | (cells[..., 1:].abs().amax(-1) > 0.35 + 2.5 * CELL)
    assert float(occupied[away].float().mean()) < 0.002


@TURNS
def test_a_sheet_without_thickness_keeps_the_cells_that_it_passes_through(turn: float) -> None:
    occupied, cells = sheet_and_cells(turn)
    through = (cells[..., 0].abs() < 0.25 * CELL) & (cells[..., 1:].abs().amax(-1) < 0.33)
    assert float(occupied[through].float().mean()) > 0.95


def test_what_is_seen_past() -> None:
    """A wall at depth 3.8 across the left half of the picture; nothing on the right."""
    camera = camera_of(0.0)
    depth = torch.full((8, 8), math.inf)
    depth[:, :4] = 3.8
    places = {
        "before the wall": (0.3, -0.2, 0.0, True),
        "just before the wall": (0.5 * MARGIN, -0.2, 0.0, False),
        "behind the wall": (-0.3, -0.2, 0.0, False),
        "before nothing": (-0.3, 0.2, 0.0, True),
        "outside the picture": (0.3, -0.9, 0.0, False),
        "above the picture": (0.3, 0.2, 0.9, False),
        "behind the camera": (4.5, 0.1, 0.0, False),
    }
    points = torch.tensor([place[:3] for place in places.values()])
    found = dict(zip(places, seen_past(points, camera, depth).tolist(), strict=True))
    assert found == {name: place[3] for name, place in places.items()}
