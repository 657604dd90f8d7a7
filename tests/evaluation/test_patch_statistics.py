"""The patch statistics' known answers: equal images, blur, noise, shifts of colour, and what lies outside."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dreamcraft3d.evaluation.patch_statistics import patch_distance, patch_statistics, sharpness, unseen_statistics
from dreamcraft3d.functional.cameras import orbit
from tiny import lopsided_textured


def textured(count: int = 2, size: int = 64, seed: int = 0) -> Tensor:
    """Soft noise inside a disc, premultiplied."""
    noise = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))
    colour = (F.avg_pool2d(noise, 3, 1, 1) - 0.5) * 1.5 + 0.5
    axis = torch.linspace(-1.0, 1.0, size)
    disc = ((axis[:, None] ** 2 + axis[None] ** 2) < 0.8).float().expand(count, 1, size, size)
    return torch.cat([colour.clamp(0.0, 1.0) * disc, disc], dim=1).permute(0, 2, 3, 1)


def blurred(images: Tensor, size: int) -> Tensor:
    """A blur of the colours, the silhouette as it was."""
    colour, inside = images[..., :3].permute(0, 3, 1, 2), images[..., 3:].permute(0, 3, 1, 2)
    mean = F.avg_pool2d(colour, size, 1, size // 2) / F.avg_pool2d(inside, size, 1, size // 2).clamp_min(1e-6)
    return torch.cat([mean * inside, inside], dim=1).permute(0, 2, 3, 1)


def test_an_image_is_as_sharp_as_itself_and_not_far_from_itself() -> None:
    images = textured()
    statistics = patch_statistics(images, images.clone())
    assert (statistics.sharpness, statistics.distance) == (1.0, 0.0)


def test_where_things_are_does_not_matter() -> None:
    images = textured()
    turned = images.flip(0)
    assert patch_distance(images, turned) < 1e-6
    assert sharpness(images, turned) == pytest.approx(1.0)


def test_the_more_blurred_the_less_sharp_and_the_farther() -> None:
    images = textured()
    steps = [patch_statistics(blurred(images, size), images) for size in (3, 5, 9)]
    assert 1.0 > steps[0].sharpness > steps[1].sharpness > steps[2].sharpness > 0.0
    assert 0.0 < steps[0].distance < steps[1].distance < steps[2].distance


def test_noise_is_too_sharp() -> None:
    images = textured()
    noise = 0.3 * torch.randn((*images.shape[:-1], 3), generator=torch.Generator().manual_seed(1))
    noisy = torch.cat([(images[..., :3] + noise * images[..., 3:]).clamp(0.0, 1.0), images[..., 3:]], dim=-1)
    statistics = patch_statistics(noisy, images)
    assert statistics.sharpness > 1.5
    assert statistics.distance > 0.01


def test_a_shift_of_colour_has_the_distance_that_it_should_have() -> None:
    """|u . d 1| over unit vectors u of many dimensions: d sqrt(2 / pi)."""
    images = 0.5 * textured()
    images[..., 3] *= 2.0
    for shift in (0.1, 0.2):
        moved = images.clone()
        moved[..., :3] += shift * images[..., 3:]
        assert patch_distance(moved, images) == pytest.approx(shift * math.sqrt(2.0 / math.pi), rel=0.15)


def test_another_texture_of_the_same_kind_is_nearer_than_a_blur() -> None:
    images, other = textured(), textured(seed=9)
    assert patch_distance(other, images) < 0.3 * patch_distance(blurred(images, 9), images)


def test_what_lies_outside_counts_for_nothing() -> None:
    images = textured()
    dirty = images.clone()
    dirty[..., :3] += (images[..., 3:] == 0.0) * torch.rand((*images.shape[:-1], 3))
    assert patch_statistics(dirty, images) == patch_statistics(images, images)


def test_an_empty_result_is_black_and_two_empty_ones_are_equal() -> None:
    images, nothing = textured(), torch.zeros(1, 64, 64, 4)
    assert sharpness(nothing, images) == 0.0
    assert patch_distance(nothing, images) > 0.2
    assert patch_distance(nothing, nothing) == 0.0


def test_the_same_figures_every_time() -> None:
    a, b = textured(size=96, count=6), textured(size=96, count=6, seed=3)
    assert patch_distance(a, b) == patch_distance(a, b) > 0.0


def test_views_of_one_mesh_are_alike() -> None:
    mesh = lopsided_textured()
    statistics = unseen_statistics(mesh, mesh, orbit(0.0, 0.0), views=3, size=48)
    assert (statistics.sharpness, statistics.distance) == (1.0, 0.0)
