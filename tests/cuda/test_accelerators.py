"""nerfacc and tinycudann themselves, where they are installed and work: they take over, and agree with our kernels.

nerfacc compiles its own kernels at its first use, which takes minutes. So these tests stand alone.
"""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from dreamcraft3d.functional.cameras import orbit, rays
from dreamcraft3d.kernels import accelerators, dispatch
from dreamcraft3d.kernels.compositing import render_weights, weigh_with_warp
from dreamcraft3d.kernels.hash_grid import HashGridLayout, encode_with_warp, hash_encode
from dreamcraft3d.kernels.marching import OccupancyGrid, Samples, march

RESOLVERS = (accelerators.encode_accelerator, accelerators.weigh_accelerator, accelerators.march_accelerator)


@pytest.fixture(autouse=True)
def own_kernels() -> Iterator[None]:
    """Here others may take over; whether they do is asked anew for each test."""
    for resolver in RESOLVERS:
        resolver.cache_clear()
    yield
    for resolver in RESOLVERS:
        resolver.cache_clear()


@pytest.fixture(scope="module")
def nerfacc_works(card: torch.device) -> None:
    nerfacc = pytest.importorskip("nerfacc")
    alphas, packed = torch.full((3,), 0.5, device=card), torch.tensor([[0, 3]], device=card)
    try:
        weights = nerfacc.render_weight_from_alpha(alphas, packed_info=packed)[0]
    except Exception as error:  # noqa: BLE001 - a package that cannot be compiled here may say so in any way
        pytest.skip(f"nerfacc does not work here: {str(error).partition(chr(10))[0]}")
    torch.testing.assert_close(weights.cpu(), torch.tensor([0.5, 0.25, 0.125]))


@pytest.fixture(scope="module")
def tinycudann_works(card: torch.device) -> None:
    try:
        import tinycudann
    except (ImportError, OSError) as error:
        pytest.skip(f"tinycudann does not work here: {error}")
    assert tinycudann.Encoding


def test_nerfacc_weighs(card: torch.device, nerfacc_works: None, caplog: pytest.LogCaptureFixture) -> None:
    assert accelerators.weigh_accelerator(card) is not None, caplog.text
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(0, 50, (5000,), generator=generator)
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(card)
    alphas = torch.rand(int(offsets[-1]), generator=generator).to(card).requires_grad_()
    results = []
    for function in (render_weights, weigh_with_warp):
        weights = function(alphas, offsets)
        results.append([weights, *torch.autograd.grad(weights.sin().sum(), alphas)])
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-4)


def test_nerfacc_marches(
    card: torch.device, nerfacc_works: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert accelerators.march_accelerator(card) is not None, caplog.text
    grid = OccupancyGrid(48, device=card)
    grid.binary = (torch.rand(48, 48, 48, generator=torch.Generator().manual_seed(1)) < 0.2).to(card)
    origins, directions = (t.reshape(-1, 3).to(card) for t in rays(orbit(0.3, 0.8), 64))

    def walk() -> Samples:
        generator = torch.Generator().manual_seed(2)
        return march(origins, directions, grid, step_size=0.0135, generator=generator)

    theirs = walk()
    monkeypatch.setattr(dispatch, "may_accelerate", lambda device: False)
    ours = walk()
    same = theirs.ray_offsets.diff() == ours.ray_offsets.diff()
    assert float(same.float().mean()) > 0.98
    assert abs(len(theirs) - len(ours)) <= 0.002 * len(ours)
    assert theirs.t_starts.device.type == card.type


@pytest.mark.parametrize("active", [5, 16])
def test_tinycudann_encodes(
    active: int, card: torch.device, tinycudann_works: None, caplog: pytest.LogCaptureFixture
) -> None:
    assert accelerators.encode_accelerator(card) is not None, caplog.text
    layout, generator = HashGridLayout(), torch.Generator().manual_seed(0)
    points = torch.rand(10_000, 3, generator=generator).to(card).requires_grad_()
    table = torch.randn(layout.entries, layout.features, generator=generator).to(card).requires_grad_()
    theirs = hash_encode(points, table, layout, active_levels=active)
    ours = encode_with_warp(points, table, layout, active)
    close(theirs, ours)
    for a, b in zip(*(torch.autograd.grad(f.sin().sum(), (points, table)) for f in (theirs, ours)), strict=True):
        close(a, b)


def close(theirs: Tensor, ours: Tensor) -> None:
    """All but one number in a thousand: on the finest levels a point may lie in the neighbouring cell."""
    scale = ours.square().mean().sqrt()
    off = (theirs - ours).abs() > 5e-3 * (ours.abs() + scale)
    assert float(off.float().mean()) < 1e-3
