"""Views that are rasterised once show what the renderer shows, and sampled pixels estimate the whole picture's loss."""

import math

import pytest
import torch

from dreamcraft3d.functional.cameras import orbit
from dreamcraft3d.kernels.rasterize import edge_topology
from dreamcraft3d.rendering import render_mesh
from dreamcraft3d.stages.fixed_views import ReferencePixels, rasterised, spread_views
from shapes import lopsided_colour
from tiny import lopsided_textured, tiny_supervision

CAMERAS = orbit(torch.tensor([0.1, 0.4, -0.2]), torch.tensor([0.3, 2.0, -2.5]))


def test_a_fixed_view_is_the_renderers_picture_and_so_is_its_gradient() -> None:
    mesh = lopsided_textured().mesh
    scale = torch.tensor([1.0, 0.5, 0.8], requires_grad=True)
    views = rasterised(mesh, edge_topology(mesh.faces), CAMERAS, 40)
    chosen = torch.tensor([2, 0])
    ours = views[chosen].render(lambda x: scale * lopsided_colour(x))
    theirs = render_mesh(mesh, lambda x: scale * lopsided_colour(x), CAMERAS[chosen], 40).rgba
    assert torch.allclose(ours, theirs, atol=1e-5)
    weights = torch.rand(ours.shape, generator=torch.Generator().manual_seed(0))
    gradients = [torch.autograd.grad((weights * picture).sum(), scale)[0] for picture in (ours, theirs)]
    assert torch.allclose(*gradients, rtol=1e-4)


def test_random_pixels_estimate_the_loss_of_the_whole_picture() -> None:
    supervision, mesh = tiny_supervision(), lopsided_textured().mesh
    view = rasterised(mesh, edge_topology(mesh.faces), supervision.camera, 96)
    pixels = ReferencePixels.of(view, supervision.targets(96))

    def error(count: int, seed: int = 0) -> float:
        return float(pixels.loss(lambda x: torch.full_like(x, 0.5), count, torch.Generator().manual_seed(seed)))

    assert error(0) > 0.02
    assert sum(error(64, seed) for seed in range(40)) / 40 == pytest.approx(error(0), rel=0.05)
    truth = float(pixels.loss(lopsided_colour, 0, torch.Generator()))
    assert truth < 0.1 * error(0)  # the points lie where the picture shows them


def test_spread_views_cover_the_circle_from_the_first_few_on() -> None:
    elevation, azimuth = spread_views(24, (-0.2, 0.7), torch.Generator().manual_seed(3))
    assert float(elevation.min()) >= -0.2 and float(elevation.max()) <= 0.7
    for count in (6, 12, 24):
        around = azimuth[:count].sort().values
        gaps = torch.diff(torch.cat([around, around[:1] + 2 * math.pi]))
        assert float(gaps.max()) < 2.2 * 2 * math.pi / count
