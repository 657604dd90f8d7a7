import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamcraft3d.functional.cameras import DISTANCE, FOVY, HALF_WIDTH, framing_distance, orbit, project, rays

angles = st.floats(-math.pi, math.pi)
elevations = st.floats(-1.5, 1.5)


def test_reference_camera_sits_on_x_and_sees_y_on_the_right() -> None:
    camera = orbit(0.0, 0.0)
    assert torch.allclose(camera.c2w[0, :3, 3], torch.tensor([DISTANCE, 0.0, 0.0]))
    clip = project(torch.tensor([[0.0, 0.3, 0.0], [0.0, 0.0, 0.3]]), camera)[0]
    ndc = clip[:, :2] / clip[:, 3:]
    assert ndc[0, 0] > 0.1 and abs(ndc[0, 1]) < 1e-6  # world +y is image-right
    assert ndc[1, 1] > 0.1 and abs(ndc[1, 0]) < 1e-6  # world +z is up


def test_visible_half_extent_at_the_origin_is_the_documented_one() -> None:
    edge = DISTANCE * math.tan(FOVY / 2)
    assert edge == pytest.approx(0.670, abs=1e-3)
    clip = project(torch.tensor([[0.0, edge, 0.0]]), orbit(0.0, 0.0))[0, 0]
    assert float(clip[0] / clip[3]) == pytest.approx(1.0, abs=1e-5)


@given(elevations, angles)
def test_cameras_are_rigid_and_look_at_the_origin(elevation: float, azimuth: float) -> None:
    camera = orbit(elevation, azimuth)
    rotation = camera.c2w[0, :3, :3]
    assert torch.allclose(rotation @ rotation.T, torch.eye(3), atol=1e-5)
    assert float(torch.linalg.det(rotation)) == pytest.approx(1.0, abs=1e-5)
    assert torch.allclose(camera.w2c[0] @ camera.c2w[0], torch.eye(4), atol=1e-5)
    origin = project(torch.zeros(1, 3), camera)[0, 0]
    assert torch.allclose(origin[:2], torch.zeros(2), atol=1e-5)


@given(elevations, angles, st.integers(0, 15), st.integers(0, 15))
def test_rays_and_projection_agree(elevation: float, azimuth: float, row: int, column: int) -> None:
    size = 16
    camera = orbit(elevation, azimuth)
    origins, directions = rays(camera, size)
    point = origins[0, row, column] + 3.0 * directions[0, row, column]
    clip = project(point[None], camera)[0, 0]
    x, y = clip[:2] / clip[3]
    assert float((x + 1) / 2 * size) == pytest.approx(column + 0.5, abs=1e-2)
    assert float((1 - y) / 2 * size) == pytest.approx(row + 0.5, abs=1e-2)  # row 0 is the top


def test_azimuth_grows_towards_image_right() -> None:
    """A camera at +90 degrees shows the side that faces image-right of the reference."""
    assert torch.allclose(orbit(0.0, math.pi / 2).c2w[0, :3, 3], torch.tensor([0.0, DISTANCE, 0.0]), atol=1e-5)


@given(st.floats(5.0, 90.0), elevations, angles)
@settings(deadline=None)
def test_every_lens_frames_the_same_width_at_the_origin(degrees: float, elevation: float, azimuth: float) -> None:
    fovy = torch.tensor([math.radians(degrees)])
    camera = orbit(elevation, azimuth, distance=framing_distance(fovy), fovy=fovy)
    edges = torch.stack([HALF_WIDTH * camera.c2w[0, :3, 0], -HALF_WIDTH * camera.c2w[0, :3, 1]])
    clip = project(edges, camera)[0]
    assert torch.allclose(clip[:, :2] / clip[:, 3:], torch.tensor([[1.0, 0.0], [0.0, -1.0]]), atol=1e-4)


def test_the_default_lens_frames_from_the_default_distance() -> None:
    assert float(framing_distance(torch.tensor([FOVY]))) == pytest.approx(DISTANCE, abs=1e-5)
    near, far = framing_distance(torch.tensor([math.radians(50.0), math.radians(10.0)])).tolist()
    assert near < DISTANCE < far
