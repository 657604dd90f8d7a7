"""Lifting is geometry: what is put into the volume is seen where the cameras of the project see it."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamcraft3d.functional.cameras import DISTANCE, FOVY, orbit, project
from dreamcraft3d.priors.lifting import REACH, LiftingEncoder, frustum_grid, look

SIZE, PLANES = 32, 24


def angles(*degrees: float) -> torch.Tensor:
    return torch.tensor([math.radians(d) for d in degrees])


@given(st.floats(-10, 45), st.floats(-180, 180), st.floats(-10, 30))
@settings(max_examples=30, deadline=None)
def test_the_grid_is_where_the_cameras_say(elevation: float, azimuth: float, tilt: float) -> None:
    """A sample's world position, projected by the reference camera, is the sample's place in the volume."""
    grid = frustum_grid(angles(elevation), angles(azimuth), angles(tilt), size=SIZE, planes=PLANES)
    row, column, plane = 5, 20, 7
    half = math.tan(FOVY / 2)
    away = DISTANCE + REACH * ((plane + 0.5) / PLANES * 2 - 1)
    u, v = (column + 0.5) / SIZE * 2 - 1, -((row + 0.5) / SIZE * 2 - 1)
    camera = orbit(angles(elevation), angles(azimuth))
    world = camera.c2w[0, :3, :3] @ torch.tensor([u * half * away, v * half * away, -away]) + camera.c2w[0, :3, 3]
    clip = project(world[None], orbit(angles(tilt), 0.0))[0, 0]
    seen = grid[0, plane, row, column]
    right, up = (clip[:2] / clip[3]).tolist()
    assert seen[:2].tolist() == pytest.approx([right, -up], abs=1e-4), "rows count downwards"
    assert float(seen[2]) == pytest.approx((float(clip[3]) - DISTANCE) / REACH, abs=1e-4)


def ball_volume(*, at: tuple[float, float, float], radius: float) -> torch.Tensor:
    """A volume with a red ball in it (world coordinates), seen from the front."""
    half = math.tan(FOVY / 2)
    across = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
    away = DISTANCE + REACH * ((torch.arange(PLANES) + 0.5) / PLANES * 2 - 1)
    d, v, u = torch.meshgrid(away, -across, across, indexing="ij")
    world = torch.stack([DISTANCE - d, u * half * d, v * half * d], dim=-1)
    inside = (world - torch.tensor(at)).norm(dim=-1) < radius
    volume = torch.full((1, 6, PLANES, SIZE, SIZE), -8.0)
    volume[0, 0] = torch.where(inside, 20.0, -20.0)
    volume[0, 1] = 8.0
    return volume


def test_a_ball_moves_as_the_camera_turns() -> None:
    """A ball to the right of the axis is right in front, near from the right (seen in the middle), hidden behind."""
    volume = ball_volume(at=(0.0, 0.35, 0.0), radius=0.2)
    azimuths = angles(0.0, 90.0, 180.0)
    grid = frustum_grid(torch.zeros(3), azimuths, torch.zeros(3), size=SIZE, planes=PLANES)
    view = look(volume.expand(3, -1, -1, -1, -1), grid)
    column = (view.rgba[:, 3] * torch.arange(SIZE)).sum((1, 2)) / view.rgba[:, 3].sum((1, 2))
    assert column.tolist() == pytest.approx([15.5 + 8.3, 15.5, 15.5 - 8.3], abs=0.8)
    red = view.rgba[:, 0][view.rgba[:, 3] > 0.9]
    assert float(red.min()) > 0.8
    depth = (view.depth / view.rgba[:, 3:].clamp_min(1e-3))[:, 0, 15:17]
    nearest = torch.stack([d[a > 0.9].min() for d, a in zip(depth, view.rgba[:, 3, 15:17], strict=True)])
    assert nearest.tolist() == pytest.approx([DISTANCE - 0.2, DISTANCE - 0.55, DISTANCE - 0.2], abs=0.06)


def test_outside_the_volume_is_nothing() -> None:
    """The border of a full volume does not smear into space."""
    volume = torch.full((1, 5, PLANES, SIZE, SIZE), 20.0)
    inside = torch.zeros(1, PLANES, 2, 2, 3)
    outside = inside.clone()
    outside[..., 1, 0] = 1.1
    assert float(look(volume, inside).rgba[:, 3].min()) > 0.99
    assert look(volume, outside).rgba[0, 3].tolist() == [[pytest.approx(1.0), 0.0]] * 2


def test_gradients_reach_the_picture() -> None:
    encoder = LiftingEncoder(widths=(16, 16, 32), planes=6, features=2)
    picture = torch.rand(1, 4, 64, 64, requires_grad=True)
    code, estimate = encoder(picture, torch.zeros(1))
    grid = frustum_grid(torch.zeros(1), angles(30.0), torch.zeros(1), size=SIZE, planes=6)
    (look(code.volume, grid).rgba.sum() + estimate.depth.sum()).backward()
    assert picture.grad is not None
    assert (picture.grad.abs().sum((0, 1)) > 0).all(), "every pixel matters"
    assert torch.allclose(estimate.normal.norm(dim=1), torch.ones(1, 64, 64), atol=1e-4)
