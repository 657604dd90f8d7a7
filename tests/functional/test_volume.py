import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dreamcraft3d.functional.volume import blob_bias, density_to_alpha, neus_alpha


@given(st.floats(0, 100), st.floats(1e-4, 0.5))
def test_two_half_segments_are_one_segment(density: float, delta: float) -> None:
    sigma = torch.tensor([density], dtype=torch.float64)
    half = density_to_alpha(sigma, torch.tensor([delta / 2], dtype=torch.float64))
    whole = density_to_alpha(sigma, torch.tensor([delta], dtype=torch.float64))
    assert float(1 - (1 - half) ** 2) == pytest.approx(float(whole), abs=1e-9)


def test_neus_hides_everything_in_the_first_crossing() -> None:
    f = torch.tensor([0.1, 0.04, -0.05, -0.1, 0.02])
    alpha = neus_alpha(f[:-1], f[1:], torch.tensor(400.0))
    assert alpha[1] > 0.99  # the segment that crosses
    assert alpha[0] < 0.01 and alpha[3] == 0.0  # before it, and the way out again


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(1, 1000))
def test_neus_alpha_is_an_opacity(before: float, after: float, s: float) -> None:
    alpha = neus_alpha(torch.tensor([before]), torch.tensor([after]), torch.tensor(s))
    assert 0.0 <= float(alpha) <= 1.0


def test_neus_alphas_compose_to_the_logistic_of_the_distance() -> None:
    """Product of transmittances over segments telescopes to Phi(f_end) / Phi(f_start): the rendering is unbiased."""
    f = torch.linspace(0.3, -0.3, 41, dtype=torch.float64)
    s = torch.tensor(20.0, dtype=torch.float64)
    through = torch.prod(1 - neus_alpha(f[:-1], f[1:], s))
    assert float(through) == pytest.approx(float(torch.sigmoid(s * f[-1]) / torch.sigmoid(s * f[0])), rel=2e-2)


def test_blob_is_dense_inside_its_radius() -> None:
    assert blob_bias(torch.tensor([[0.0, 0, 0], [0.5, 0, 0], [1.0, 0, 0]])).tolist() == [10.0, 0.0, -10.0]
