"""Shading leaves the reference image; what is painted on the object stays."""

import math

import numpy as np
import pytest
import torch

from dreamcraft3d.stages.delight import delit, fitted_light, harmonics
from dreamcraft3d.stages.reference import ReferenceView

SIZE = 128
LIGHT = np.array([0.5, 0.6, 0.6])


def ball() -> tuple[np.ndarray, np.ndarray]:
    """Normals of a ball that fills 0.9 of the image, and where it is."""
    x, y = np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5)
    x, y = (x / SIZE - 0.5) / 0.45, (0.5 - y / SIZE) / 0.45
    inside = x * x + y * y < 1.0
    z = np.sqrt(np.clip(1.0 - x * x - y * y, 0.0, None))
    return np.stack([x, y, z], axis=-1) * inside[..., None], inside


def view(albedo: np.ndarray, shading: np.ndarray) -> ReferenceView:
    normal, inside = ball()
    rgba = np.dstack([albedo * shading[..., None], np.ones((SIZE, SIZE))]) * inside[..., None]
    mask = torch.from_numpy(inside)
    return ReferenceView(torch.from_numpy(rgba).float(), mask, 0.0, "rendered", normal=torch.from_numpy(normal).float())


def checkers() -> np.ndarray:
    rows, columns = np.indices((SIZE, SIZE)) // 16
    return np.where(((rows + columns) % 2 == 0)[..., None], [0.55, 0.25, 0.2], [0.3, 0.4, 0.5])


def lambert() -> np.ndarray:
    return 0.4 + 0.6 * np.clip(ball()[0] @ LIGHT, 0.0, None)


def likeness(image: torch.Tensor, albedo: np.ndarray) -> float:
    """PSNR inside the ball after the best common gain, dB."""
    inside = ball()[1]
    ours, theirs = image[..., :3].double().numpy()[inside], albedo[inside]
    gain = (ours * theirs).sum() / (ours * ours).sum()
    return -10.0 * math.log10(np.square(gain * ours - theirs).mean())


def test_the_light_is_found_in_spite_of_a_painted_surface() -> None:
    normal, inside = ball()
    wanted = np.array([0.3, 0.2, -0.1])
    luminance = (checkers() @ np.array([0.2126, 0.7152, 0.0722])) * np.exp(normal @ wanted)
    assert np.abs(fitted_light(luminance, normal, inside, 1) - wanted).max() < 0.05


@pytest.mark.parametrize("order", [1, 2])
def test_shading_goes_and_the_pattern_stays(order: int) -> None:
    lit = view(checkers(), lambert())
    flat = delit(lit, order=order)
    assert likeness(flat.rgba, checkers()) > likeness(lit.rgba, checkers()) + 6.0
    assert torch.equal(flat.rgba[..., 3], lit.rgba[..., 3])
    assert (flat.rgba[..., :3] <= flat.rgba[..., 3:]).all()


def test_an_image_without_shading_hardly_changes() -> None:
    flat = view(checkers(), np.ones((SIZE, SIZE)))
    assert (delit(flat).rgba - flat.rgba).abs().max() < 0.02


def test_without_normals_nothing_happens() -> None:
    lit = view(checkers(), lambert())
    bare = ReferenceView(lit.rgba, lit.mask, 0.0, "rendered")
    assert delit(bare) is bare


def test_harmonics_of_higher_order_average_to_nothing_over_all_directions() -> None:
    vectors = np.random.default_rng(0).normal(size=(20000, 3))
    values = harmonics(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), 2)
    assert values.shape == (20000, 8)
    assert np.abs(values.mean(axis=0)).max() < 0.03
    assert np.abs(np.corrcoef(values.T) - np.eye(8)).max() < 0.04
