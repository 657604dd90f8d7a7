import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dreamcraft3d.functional import losses


def plane(seed: int, size: int = 16) -> torch.Tensor:
    return torch.rand(1, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


FULL = torch.ones(1, 16, 16, dtype=torch.bool)


@given(st.floats(0.1, 10.0), st.floats(-5.0, 5.0), st.integers(0, 50))
def test_depth_correlation_ignores_scale_and_shift(scale: float, shift: float, seed: int) -> None:
    depth = plane(seed)
    assert float(losses.depth_correlation_loss(scale * depth + shift, depth, FULL)) == pytest.approx(0.0, abs=1e-6)
    assert float(losses.depth_correlation_loss(-depth, depth, FULL)) == pytest.approx(2.0, abs=1e-6)


@given(st.floats(0.1, 10.0), st.floats(-5.0, 5.0), st.integers(0, 50))
def test_affine_depth_ignores_scale_and_shift(scale: float, shift: float, seed: int) -> None:
    depth = plane(seed)
    assert float(losses.depth_affine_loss(depth, scale * depth + shift, FULL)) == pytest.approx(0.0, abs=1e-6)


def test_depth_losses_have_nothing_to_say_about_a_constant_or_a_few_pixels() -> None:
    depth = plane(0).requires_grad_()
    few = torch.zeros_like(FULL)
    few[0, 0, :10] = True
    for loss in (
        losses.depth_correlation_loss(depth, torch.ones_like(depth), FULL),
        losses.depth_correlation_loss(depth, plane(1), few),
    ):
        loss.backward()
        assert float(loss.detach()) == 0.0


@pytest.mark.parametrize(
    "name", ["depth_correlation_loss", "opaque_loss", "sparsity_loss", "smoothness_loss", "eikonal_loss"]
)
def test_gradients_match_finite_differences(name: str) -> None:
    x = plane(3, 10).requires_grad_()
    mask = torch.ones(1, 10, 10, dtype=torch.bool)
    calls = {
        "depth_correlation_loss": lambda v: losses.depth_correlation_loss(v, plane(4, 10), mask),
        "opaque_loss": losses.opaque_loss,
        "sparsity_loss": losses.sparsity_loss,
        "smoothness_loss": lambda v: losses.smoothness_loss(v[..., None]),
        "eikonal_loss": lambda v: losses.eikonal_loss(v.reshape(-1)[:99].reshape(-1, 3)),
    }
    assert torch.autograd.gradcheck(calls[name], x)


def test_opaque_prefers_hits_and_misses() -> None:
    half, sure = torch.full((1, 4, 4), 0.5), torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    assert losses.opaque_loss(half) > 0.69 and losses.opaque_loss(sure) < 0.01


def test_orientation_punishes_only_surfaces_that_face_away() -> None:
    weights, directions = torch.ones(2), torch.tensor([[1.0, 0, 0], [1.0, 0, 0]])
    normals = torch.tensor([[-1.0, 0, 0], [0.5, 0.5, 0]])
    assert float(losses.orientation_loss(weights, normals, directions, 2)) == pytest.approx(0.125)


def test_normal_loss_is_one_minus_the_cosine() -> None:
    up, side = torch.zeros(1, 16, 16, 3), torch.zeros(1, 16, 16, 3)
    up[..., 2], side[..., 0] = 1.0, 1.0
    assert float(losses.normal_loss(up, up, FULL)) == pytest.approx(0.0, abs=1e-6)
    assert float(losses.normal_loss(up, side, FULL)) == pytest.approx(1.0, abs=1e-6)
    assert float(losses.normal_loss(up, side, ~FULL)) == 0.0


def test_erosion_takes_the_rim_but_not_the_picture_border() -> None:
    mask = torch.zeros(1, 12, 12, dtype=torch.bool)
    mask[0, 4:, 3:] = True
    eroded = losses.erode(mask, 3)
    assert eroded[0, 5:, 4:].all() and not eroded[0, 4].any() and not eroded[0, :, 3].any()


def test_masked_l1_sees_the_mask_only() -> None:
    a, b = torch.zeros(1, 4, 4, 3), torch.ones(1, 4, 4, 3)
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    assert float(losses.masked_l1(a, b, mask)) == 0.0
    mask[0, :2] = True
    assert float(losses.masked_l1(a, b, mask)) == pytest.approx(0.5)
