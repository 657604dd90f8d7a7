"""Pictures of a lopsided object: which side is where."""

import math

import numpy as np
import pytest
import torch

from dreamcraft3d.functional.cameras import orbit
from dreamcraft3d.training.drawing import LIT
from dreamcraft3d.training.render import render_rgba, render_surface
from dreamcraft3d.training.sculptor import Light, Paint, Sculptor, Solid
from dreamcraft3d.training.surfaces import Lighting, Surface, VertexPaint, surface_of

RED, GREEN = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)


@pytest.fixture(scope="module")
def lopsided() -> Solid:
    """A red bar along x with a green ball at +y: image-right in the front view."""
    s = Sculptor(np.random.default_rng(0))
    s.box(Paint(RED), size=(0.3, 0.1, 0.1))
    s.ball(Paint(GREEN), at=(0.0, 0.4, 0.0), size=0.15)
    return s.finish(Light((1.0, 0.0, 0.0), 1.0, 0.0))


def test_plus_y_is_right_in_front_and_near_at_ninety_degrees(lopsided: Solid) -> None:
    front, right, left = render_rgba(lopsided, orbit(0.0, torch.tensor([0.0, math.pi / 2, -math.pi / 2])), size=32)
    green = front[..., 1] > 0.5
    assert green[:, 20:].any()
    assert not green[:, :20].any()
    assert right[16, 16, 1] > 0.9, "the ball is in front of the bar seen from +y"
    assert left[16, 16, 0] > 0.9, "and behind it seen from -y"


def test_a_camera_above_looks_down(lopsided: Solid) -> None:
    views = render_surface(surface_of(lopsided), orbit(torch.tensor([0.0, 0.9]), 0.0), LIT, size=48)
    hit = views.depth[0, ..., 0] > 0
    assert torch.allclose(views.normals[0][hit].norm(dim=-1), torch.ones(int(hit.sum())), atol=1e-4)
    assert views.depth[0, 24, 24, 0] == pytest.approx(3.5, abs=0.02)
    assert views.normals[0, 24, 24, 0] > 0.95
    assert views.normals[1, ..., 2].max() > 0.95


def test_rgba_is_premultiplied_and_smooth_at_edges(lopsided: Solid) -> None:
    rgba = render_rgba(lopsided, orbit(0.0, 0.3), size=32, supersampling=4)
    assert (rgba[..., :3] <= rgba[..., 3:] + 1e-5).all()
    assert ((rgba[..., 3] > 0.05) & (rgba[..., 3] < 0.95)).any()


def test_both_renderers_draw_the_same_picture(lopsided: Solid) -> None:
    cameras = orbit(torch.tensor([0.1, 0.6]), torch.tensor([0.4, 2.0]))
    plain, lit = render_rgba(lopsided, cameras, size=32), render_surface(surface_of(lopsided), cameras, LIT, size=32)
    assert torch.allclose(lit.rgba, plain, atol=1e-5)


def test_a_sheet_shows_the_viewer_its_normal_on_both_sides() -> None:
    """One lamp in front: the front is lit, the back gets the ambient light and no more."""
    corners = torch.tensor([[0.0, -0.4, -0.4], [0.0, 0.4, -0.4], [0.0, 0.4, 0.4], [0.0, -0.4, 0.4]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    sheet = Surface(corners, faces, VertexPaint(faces, torch.full((4, 3), 0.5)))
    lamp = Lighting(torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([0.6]), ambient=0.4)
    views = render_surface(sheet, orbit(0.0, torch.tensor([0.0, math.pi])), lamp, size=16)
    assert views.normals[0, 8, 8].tolist() == pytest.approx([1.0, 0.0, 0.0], abs=1e-5)
    assert views.normals[1, 8, 8].tolist() == pytest.approx([-1.0, 0.0, 0.0], abs=1e-5)
    assert views.rgba[0, 8, 8].tolist() == pytest.approx([0.5, 0.5, 0.5, 1.0], abs=1e-5)
    assert views.rgba[1, 8, 8].tolist() == pytest.approx([0.2, 0.2, 0.2, 1.0], abs=1e-5)
    assert views.depth[:, 8, 8, 0].tolist() == pytest.approx([3.8, 3.8], abs=1e-4)
    assert float(views.depth[0, 0, 0, 0]) == 0.0, "the background"
