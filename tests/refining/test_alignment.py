"""The picture laid over the mesh: onto its outline, or through the camera that took it."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

import soups
from dreamcraft3d.evaluation.refining import TrueLook
from dreamcraft3d.functional.cameras import orbit, project, projection
from dreamcraft3d.presets import configure
from dreamcraft3d.refining.alignment import laid_over_outline, mixed, present_view, projected, viewer_of
from dreamcraft3d.refining.surface import surface_of

CONFIG = configure("preview", {"reference.size": 128})


def colourful(mesh):
    """The mesh with one bold colour per quarter of its image."""
    pixels = np.kron(
        np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 0]]], np.uint8), np.ones((32, 32, 1), np.uint8)
    )
    return soups.request(mesh, {0: soups.png(pixels)})


def saved(rgba: torch.Tensor, path, *, crop=None):
    """A premultiplied picture as a straight PNG."""
    alpha = rgba[..., 3:].clamp_min(1e-6)
    straight = torch.cat([rgba[..., :3] / alpha, rgba[..., 3:]], -1)
    image = Image.fromarray((straight.clamp(0, 1) * 255).round().to(torch.uint8).numpy())
    image = image if crop is None else image.crop(crop)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    path.write_bytes(buffer.getvalue())
    return path


def view_of(look: TrueLook, elevation: float, azimuth: float, size: int) -> torch.Tensor:
    return look(torch.tensor([elevation]), torch.tensor([azimuth]), "rgba", size)[0]


def error(a: torch.Tensor, b: torch.Tensor) -> float:
    inside = (a[..., 3] > 0.9) & (b[..., 3] > 0.9)
    assert inside.sum() > 500
    return float((a - b)[inside][..., :3].abs().mean())


def test_a_picture_of_the_front_falls_onto_the_outline_wherever_it_is_in_its_frame(tmp_path):
    request = colourful(soups.five_slots())
    surface = surface_of(request, two_sided=False)
    truth = view_of(TrueLook(request, surface), 0.0, 0.0, 256)
    picture = saved(truth, tmp_path / "front.png", crop=(10, -40, 300, 256))
    view, ratio = laid_over_outline(picture, surface, CONFIG)
    small = view_of(TrueLook(request, surface), 0.0, 0.0, 128)
    assert (view.mask == (small[..., 3] > 0.5)).float().mean() > 0.99
    assert error(view.rgba, small) < 0.03
    assert ratio < 1.05


def test_a_picture_of_another_shape_is_noticed(tmp_path):
    surface = surface_of(colourful(soups.sphere()), two_sided=False)
    wide = torch.zeros(100, 200, 4)
    wide[20:60, 20:180] = 1.0
    _, ratio = laid_over_outline(saved(wide, tmp_path / "wide.png"), surface, CONFIG)
    assert ratio == pytest.approx(4.0, rel=0.05)


def clip_matrix(surface, elevation: float, azimuth: float) -> np.ndarray:
    """What a camera of ours is in the object's own space (here also the world)."""
    camera = orbit(elevation, azimuth)
    return (projection(camera)[0] @ camera.w2c[0]).double().numpy() @ surface.matrix


@pytest.mark.parametrize("azimuth", [0.0, 2.0, -1.3])
def test_the_camera_of_a_picture_is_found_and_its_picture_projected(tmp_path, azimuth):
    request = colourful(soups.sphere(24, 48))
    straight = surface_of(request, two_sided=False)
    elevation = 0.35
    picture = saved(view_of(TrueLook(request, straight), elevation, azimuth, 512), tmp_path / "seen.png")
    matrix = clip_matrix(straight, elevation, azimuth)
    viewer = viewer_of(tuple(map(tuple, matrix)), request.header.matrix_world)
    found = viewer.angles(straight.matrix)
    assert found == pytest.approx((elevation, azimuth), abs=1e-4)
    turned = surface_of(request, two_sided=False, azimuth=azimuth)
    grey = torch.full((128, 128, 4), 1.0)
    now = present_view(turned, lambda x: torch.full_like(x, 0.5), elevation, 128)
    view = projected(picture, viewer, turned, now, CONFIG)
    truth = view_of(TrueLook(request, turned), elevation, 0.0, 128)
    assert error(view.rgba, truth) < 0.05
    assert error(grey, truth) > 0.2


def test_a_parallel_camera_has_its_eye_at_infinity():
    request = colourful(soups.sphere())
    surface = surface_of(request, two_sided=False)
    parallel = np.diag([1.0, 1.0, -0.01, 1.0])  # looks along -z: from above
    viewer = viewer_of(tuple(map(tuple, parallel)), request.header.matrix_world)
    assert viewer.angles(surface.matrix)[0] == pytest.approx(math.pi / 2, abs=1e-6)


def test_what_the_picture_does_not_show_stays_as_it_is(tmp_path):
    """A second sphere hides half of the first from the camera: there the present look remains."""
    mesh = soups.together(soups.sphere(centre=(0, 0, 0)), soups.sphere(centre=(-3.0, -6.0, 0), radius=0.8))
    request = colourful(mesh)
    surface = surface_of(request, two_sided=False)
    camera_matrix = clip_matrix(surface, 0.0, -0.5)
    viewer = viewer_of(tuple(map(tuple, camera_matrix)), request.header.matrix_world)
    white = saved(torch.ones(64, 64, 4), tmp_path / "white.png")
    turned = surface_of(request, two_sided=False, azimuth=-0.5)
    now = present_view(turned, torch.zeros_like, 0.0, 128)
    view = projected(white, viewer, turned, now, CONFIG)
    colours = view.rgba[view.mask][:, 0]
    assert (colours > 0.99).float().mean() > 0.9  # from the camera's own place everything that is seen was shown
    aside = present_view(surface, torch.zeros_like, 0.0, 128)
    seen_aside = projected(white, viewer, surface, aside, CONFIG)
    colours = seen_aside.rgba[seen_aside.mask][:, 0]
    assert 0.05 < (colours < 0.01).float().mean() < 0.6


def test_strength_goes_from_the_present_to_the_wanted():
    surface = surface_of(colourful(soups.sphere()), two_sided=False)
    black = present_view(surface, torch.zeros_like, 0.0, 64)
    white = present_view(surface, torch.ones_like, 0.0, 64)
    middle = mixed(white, black, 0.25).rgba[32, 32]
    assert torch.allclose(middle, torch.tensor([0.25, 0.25, 0.25, 1.0]), atol=1e-5)
    assert project(surface.mesh.vertices, orbit(0.0, 0.0)).shape[-1] == 4
