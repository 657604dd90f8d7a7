"""When another package's kernel takes over: on CUDA only, once, and only if it agrees with ours.

The packages are stand-ins with the documented interface of tinycudann and nerfacc, whose arithmetic is our twins'; CPU
tensors are made to count as CUDA's.
"""

import logging
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from dreamcraft3d.kernels import accelerators, dispatch
from dreamcraft3d.kernels.compositing import render_weights
from dreamcraft3d.kernels.hash_grid import HashGridLayout, hash_encode
from dreamcraft3d.kernels.marching import OccupancyGrid, march
from dreamcraft3d.kernels.reference import compositing as slow_compositing
from dreamcraft3d.kernels.reference import hash_grid as slow_hash_grid
from dreamcraft3d.kernels.reference import marching as slow_marching

LAYOUT = HashGridLayout(levels=4, base_resolution=4, growth=2.0, log2_table_size=8)


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    """Answers about accelerators do not outlive a test."""
    resolvers = (accelerators.encode_accelerator, accelerators.weigh_accelerator, accelerators.march_accelerator)
    for resolver in resolvers:
        resolver.cache_clear()
    yield
    for resolver in resolvers:
        resolver.cache_clear()


@pytest.fixture(params=["cpu", "as on cuda"])
def accelerating(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param == "as on cuda":
        monkeypatch.setattr(dispatch, "may_accelerate", lambda device: True)
    return bool(request.param == "as on cuda")


class Encoding(torch.nn.Module):
    """tinycudann.Encoding: a flat parameter vector `params`, level after level, feature innermost."""

    calls = 0
    error = 1.0

    def __init__(self, n_input_dims: int, encoding_config: dict[str, Any], seed: int = 1337, dtype: Any = None) -> None:
        super().__init__()
        assert n_input_dims == 3
        assert encoding_config["otype"] == "HashGrid"
        assert encoding_config["interpolation"] == "Linear"
        self.layout = HashGridLayout(
            encoding_config["n_levels"],
            encoding_config["n_features_per_level"],
            encoding_config["base_resolution"],
            encoding_config["per_level_scale"],
            encoding_config["log2_hashmap_size"],
        )
        self.params = torch.nn.Parameter(torch.zeros(self.layout.entries * self.layout.features, dtype=dtype))
        self.n_output_dims = self.layout.levels * self.layout.features

    def forward(self, points: Tensor) -> Tensor:
        type(self).calls += 1
        table = self.params.view(self.layout.entries, self.layout.features)
        return type(self).error * slow_hash_grid.hash_encode(points, table, self.layout)


def fake_tinycudann(monkeypatch: pytest.MonkeyPatch, error: float = 1.0) -> type[Encoding]:
    module = ModuleType("tinycudann")
    encoding = type("Encoding", (Encoding,), {"calls": 0, "error": error})
    module.Encoding = encoding  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tinycudann", module)
    return encoding


def fake_nerfacc(monkeypatch: pytest.MonkeyPatch, *, shift: float = 0.0, power: float = 1.0) -> dict[str, int]:
    """`shift` displaces the samples, `power` bends the weights."""
    module, calls = ModuleType("nerfacc"), {"march": 0, "weigh": 0}

    def traverse_grids(
        rays_o: Tensor, rays_d: Tensor, binaries: Tensor, aabbs: Tensor, near_planes: Tensor, step_size: float,
        traverse_steps_limit: int,
    ) -> tuple[Any, Any, Any]:  # fmt: skip
        calls["march"] += 1
        grid = OccupancyGrid(binaries.shape[1], half_extent=float(aabbs[0, 3]))
        grid.binary = binaries[0]
        # The twin knows one `near` for all rays: the others' starts move into their origins.
        moved = rays_o + near_planes[:, None] * rays_d
        samples = slow_marching.march(
            moved, rays_d, grid, step_size=step_size, max_samples_per_ray=traverse_steps_limit
        )
        starts = samples.t_starts + near_planes[samples.ray_indices] + shift
        edges = torch.stack([starts, starts + step_size], dim=1).view(-1)
        left = torch.arange(len(edges)) % 2 == 0
        packed = torch.stack([samples.ray_offsets[:-1], samples.ray_offsets.diff()], dim=1)
        intervals = SimpleNamespace(vals=edges, is_left=left, is_right=~left)
        return intervals, SimpleNamespace(ray_indices=samples.ray_indices, packed_info=packed), None

    def render_weight_from_alpha(alphas: Tensor, packed_info: Tensor) -> tuple[Tensor, None]:
        calls["weigh"] += 1
        offsets = torch.cat([packed_info[:1, 0], packed_info.sum(dim=1)])
        return slow_compositing.render_weights(alphas, offsets) ** power, None

    module.traverse_grids = traverse_grids  # type: ignore[attr-defined]
    module.render_weight_from_alpha = render_weight_from_alpha  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nerfacc", module)
    return calls


def encode() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    points = (1.2 * torch.rand(100, 3, generator=generator)).requires_grad_()
    table = torch.randn(LAYOUT.entries, LAYOUT.features, generator=generator).requires_grad_()
    output = hash_encode(points, table, LAYOUT, active_levels=3)
    return [output, *torch.autograd.grad(output.sum(), (points, table))]


def walk() -> list[Tensor]:
    origins = torch.tensor([[2.0, 0.1, 0.2], [2.0, 5.0, 0.0], [0.0, 0.1, 2.0]])
    directions = torch.tensor([[-1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
    samples = march(origins, directions, OccupancyGrid(4), step_size=0.03, generator=torch.Generator().manual_seed(1))
    return [samples.t_starts, samples.t_ends, samples.ray_indices, samples.ray_offsets]


def weigh() -> list[Tensor]:
    alphas = torch.tensor([0.5, 0.2, 0.9, 0.3], requires_grad=True)
    weights = render_weights(alphas, torch.tensor([0, 2, 2, 4]))
    return [weights, *torch.autograd.grad(weights.square().sum(), alphas)]


def test_a_package_that_agrees_takes_over_on_cuda_only(
    accelerating: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as ours:
        ours.setattr(dispatch, "may_accelerate", lambda device: False)
        expected = [*encode(), *walk(), *weigh()]
    encoding, calls = fake_tinycudann(monkeypatch), fake_nerfacc(monkeypatch)
    with caplog.at_level(logging.WARNING):
        results = [*encode(), *walk(), *weigh()]
    for result, reference in zip(results, expected, strict=True):
        torch.testing.assert_close(result, reference, rtol=1e-4, atol=1e-5)
    used = (encoding.calls > 0, calls["march"] > 0, calls["weigh"] > 0)
    assert used == (accelerating,) * 3
    assert not caplog.records
    before = (encoding.calls, calls["march"], calls["weigh"])
    _ = encode(), walk(), weigh()
    after = (encoding.calls, calls["march"], calls["weigh"])
    grown = [b - a for a, b in zip(before, after, strict=True)]
    assert grown == [int(accelerating)] * 3  # used each time, checked no more


@pytest.mark.parametrize(
    ("faults", "run"), [({"error": 1.01}, encode), ({"shift": 0.01}, walk), ({"power": 1.05}, weigh)]
)
def test_a_package_that_disagrees_is_reported_once_and_not_used(
    faults: dict[str, float], run: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = run()
    monkeypatch.setattr(dispatch, "may_accelerate", lambda device: True)
    if "error" in faults:
        fake_tinycudann(monkeypatch, **faults)
    else:
        fake_nerfacc(monkeypatch, **faults)
    with caplog.at_level(logging.WARNING):
        results = [run(), run()]
    assert all(torch.equal(a, b) for result in results for a, b in zip(result, expected, strict=True))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "is not used" in caplog.text


def test_a_package_with_another_interface_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dispatch, "may_accelerate", lambda device: True)
    monkeypatch.setitem(sys.modules, "tinycudann", ModuleType("tinycudann"))
    monkeypatch.setitem(sys.modules, "nerfacc", ModuleType("nerfacc"))
    expected = (encode()[0].shape, walk()[0].shape, weigh()[0].shape)
    assert expected == ((100, 8), torch.Size([len(walk()[0])]), (4,))
    assert len(caplog.records) == 3


def test_a_package_that_is_not_there_is_no_news(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dispatch, "may_accelerate", lambda device: True)
    monkeypatch.setattr(accelerators.importlib, "import_module", missing)
    with caplog.at_level(logging.DEBUG):
        _ = encode(), walk(), weigh()
    assert not [record for record in caplog.records if record.name == accelerators.__name__]


def missing(name: str) -> ModuleType:
    raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_nothing_imports_them_for_cpu_tensors() -> None:
    before = {name for name in ("tinycudann", "nerfacc") if name in sys.modules}
    _ = encode(), walk(), weigh()
    assert {name for name in ("tinycudann", "nerfacc") if name in sys.modules} == before


def test_only_cuda_devices_accelerate() -> None:
    assert not dispatch.may_accelerate(torch.device("cpu"))
    assert not dispatch.may_accelerate(torch.device("meta"))
    assert dispatch.may_accelerate(torch.device("cuda:0"))
