"""The pretended card refuses what a real one would, lets pass what it would, and computes what the CPU does."""

import copy
import math
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.utils.checkpoint
from torch import Tensor

import shapes
from dreamcraft3d.functional.cameras import orbit, project
from dreamcraft3d.kernels import dispatch
from dreamcraft3d.kernels.compositing import accumulate, render_weights
from dreamcraft3d.kernels.hash_grid import HashGridLayout, hash_encode
from dreamcraft3d.kernels.marching import OccupancyGrid, march
from dreamcraft3d.kernels.mesh_query import MeshQuery
from dreamcraft3d.kernels.rasterize import antialias, interpolate, rasterize
from pretend_card import CARD, Mistakes, PretendTensor, pretend_card

MIXED = "Expected all tensors to be on the same device"


@pytest.fixture
def card() -> Iterator[Mistakes]:
    with pretend_card() as mistakes:
        yield mistakes


def random(*size: int, seed: int = 0) -> Tensor:
    return torch.rand(size, generator=torch.Generator().manual_seed(seed))


MADE: dict[str, Callable[[], Tensor]] = {
    "zeros": lambda: torch.zeros(3, device="cuda"),
    "empty": lambda: torch.empty(3, device="cuda:0"),
    "arange": lambda: torch.arange(3, device=torch.device("cuda")),
    "linspace": lambda: torch.linspace(0, 1, 3, device=CARD),
    "rand": lambda: torch.rand(3, device="cuda"),
    "tensor": lambda: torch.tensor([0, 1, 2], device="cuda"),
    "as_tensor": lambda: torch.as_tensor(np.arange(3), device="cuda"),
    "to": lambda: torch.ones(3).to("cuda"),
    "to a dtype": lambda: torch.ones(3).to("cuda", torch.float64),
    "to another": lambda: torch.ones(3).to(torch.zeros(1, device="cuda")),
    "cuda": lambda: torch.ones(3).cuda(),
    "like": lambda: torch.zeros_like(torch.ones(3), device="cuda"),
    "new": lambda: torch.ones(1, device="cuda").new_zeros(3),
    "new_tensor": lambda: torch.ones(1, device="cuda").new_tensor([0.0, 1.0, 2.0]),
    "where": lambda: torch.where(torch.ones(3, device="cuda") > 0, 1.0, 2.0),
}


@pytest.mark.parametrize("name", MADE)
def test_made_on_the_card_and_back(card: Mistakes, name: str) -> None:
    made = MADE[name]()
    assert made.device == torch.device("cuda:0") != torch.device("cuda") and made.is_cuda and made.shape == (3,)
    assert isinstance(made, PretendTensor)
    for back in (made.cpu(), made.to("cpu"), made.to(torch.zeros(1))):
        assert type(back) is Tensor and back.device.type == "cpu"


def test_lists_are_indices(card: Mistakes) -> None:
    x = random(4, 5)
    y = x.to("cuda")
    for index in ([3, 1], (slice(None), [4, 0]), ([0, 1], [2, 3]), np.array([2, 0]), [True, False, False, True]):
        assert torch.equal(y[index].cpu(), x[index])
    x[[0, 2]], y[[0, 2]] = 7.0, 7.0
    x[:, 1], y[:, 1] = torch.arange(4.0), torch.arange(4.0)  # a copy, which may cross
    assert torch.equal(y.cpu(), x)


REFUSED: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "add": lambda x, y: x + y,
    "in place": lambda x, y: y.mul_(x),
    "card scalar": lambda x, y: x[0, 0] * y,
    "matmul": lambda x, y: x @ y,
    "einsum": lambda x, y: torch.einsum("ij,jk->ik", y, x),
    "cat": lambda x, y: torch.cat([x, y]),
    "stack of scalars": lambda x, y: torch.stack([x[0, 0], y[0, 0]]),
    "where": lambda x, y: torch.where(x > 0.5, y, 0.0),
    "searchsorted": lambda x, y: torch.searchsorted(x[0].contiguous(), y[0].contiguous()),
    "grid_sample": lambda x, y: torch.nn.functional.grid_sample(
        x[None, None], y[None, :, None, :2], align_corners=False
    ),
    "index_select": lambda x, y: x.index_select(0, torch.tensor([0])),
    "gather": lambda x, y: x.gather(0, torch.zeros(1, 3, dtype=torch.long)),
    "scatter": lambda x, y: y.scatter_add(0, torch.zeros(1, 3, dtype=torch.long), x),
    "index_put": lambda x, y: x.__setitem__(torch.tensor([0, 1]), y[:2]),
    "linear": lambda x, y: torch.nn.Linear(3, 2)(x),
    "embedding": lambda x, y: torch.nn.functional.embedding(x[0].long(), y),
    "out": lambda x, y: torch.add(x, x, out=y),
    "clamp": lambda x, y: x.clamp(y, y + 1.0),
    "allclose": lambda x, y: torch.allclose(x, y),
    "loss": lambda x, y: torch.nn.functional.mse_loss(x, y),
}


@pytest.mark.parametrize("name", REFUSED)
def test_two_devices_do_not_meet(card: Mistakes, name: str) -> None:
    x, y = random(3, 3).cuda(), random(3, 3)
    with pytest.raises(RuntimeError, match=MIXED):
        REFUSED[name](x, y)


def test_the_cpu_is_not_indexed_from_the_card(card: Mistakes) -> None:
    x = random(4)
    for index in (torch.tensor([0, 1], device="cuda"), x.cuda() > 0.5):
        with pytest.raises(RuntimeError, match="indices should be either on cpu"):
            x[index]
        with pytest.raises(RuntimeError, match="indices should be either on cpu"):
            x[index] = 0.0
    assert float(x[torch.tensor(2, device="cuda")]) == float(x[2])  # read as a number


def test_numbers_and_indices_of_the_cpu_are_welcome(card: Mistakes) -> None:
    x = random(4)
    y, number, index = x.cuda(), torch.tensor(0.5), torch.tensor([2, 0])
    allowed = [
        (y + number, x + number),
        (number / y, number / x),
        (torch.where(y > number, y, number), torch.where(x > number, x, number)),
        (torch.maximum(y, number), torch.maximum(x, number)),
        (y.masked_fill(y > 0.5, number), x.masked_fill(x > 0.5, number)),
        (y[index], x[index]),
        (y[x > 0.5], x[x > 0.5]),
    ]
    for theirs, expected in allowed:
        assert theirs.device == CARD and torch.equal(theirs.cpu(), expected)
    y[index], x[index] = number, number
    y[x > 0.9] = 0.0
    x[x > 0.9] = 0.0
    assert torch.equal(y.cpu(), x)


def test_only_numbers_leave_without_being_moved(card: Mistakes) -> None:
    x = torch.tensor([1.5, 2.0], device="cuda")
    for leave in (lambda x: x.numpy(), np.asarray, np.array, lambda x: np.array([x[0], x[1]])):
        with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
            leave(x)
    assert x.cpu().numpy().tolist() == x.tolist() == x.numpy(force=True).tolist() == [1.5, 2.0]
    assert float(x[0]) == x[0].item() == 1.5 and int(x[1]) == 2 and bool((x > 1).all()) and f"{x[0]:.2f}" == "1.50"
    assert repr(x) == "tensor([1.5000, 2.0000], device='cuda:0')"
    assert [float(part) for part in x] == [1.5, 2.0] and copy.deepcopy(x).device == CARD


def test_a_generator_draws_on_its_own_device(card: Mistakes) -> None:
    generator = torch.Generator()
    draws = (
        lambda: torch.rand(3, generator=generator, device="cuda"),
        lambda: torch.randint(3, (2,), generator=generator, device="cuda"),
        lambda: torch.zeros(3, device="cuda").normal_(generator=generator),
        lambda: torch.multinomial(torch.ones(3, device="cuda"), 2, generator=generator),
    )
    for draw in draws:
        with pytest.raises(RuntimeError, match="Expected a 'cuda' device type for generator but found 'cpu'"):
            draw()
    assert torch.rand(3, generator=generator).cuda().device == CARD


def test_what_only_cards_do_with_narrow_numbers(card: Mistakes) -> None:
    small = torch.nn.functional.interpolate(
        random(1, 1, 8, 8).cuda().bfloat16(), (4, 4), mode="bilinear", antialias=True
    )
    assert small.dtype == torch.bfloat16 and small.device == CARD and small.shape == (1, 1, 4, 4)


def test_what_is_dropped_is_freed(card: Mistakes) -> None:
    x = torch.zeros(3, device="cuda")
    held, number = weakref.ref(x.held), x + torch.tensor(1.0)
    del x
    assert held() is None and number.shape == (3,)


def test_new_memory_holds_nothing_useful(card: Mistakes) -> None:
    assert torch.empty(2, device="cuda").isnan().all() and torch.ones(2, device="cuda").new_empty(3).isnan().all()


def test_torch_sees_a_card_only_inside() -> None:
    before = dispatch.default_device(), torch.cuda.is_available(), Tensor.data, dispatch.view
    with pretend_card():
        assert torch.cuda.is_available() and torch.cuda.is_bf16_supported() and torch.cuda.device_count() == 1
        assert torch.cuda.get_device_properties(0).total_memory == 24 << 30 and torch.cuda.get_device_name()
        assert dispatch.default_device() == torch.device("cuda")
        torch.cuda.empty_cache()
        torch.cuda.synchronize()
        torch.manual_seed(0)
        assert not dispatch.may_accelerate(CARD)
    with pretend_card(accelerate=True):
        assert dispatch.may_accelerate(CARD)
    assert before == (dispatch.default_device(), torch.cuda.is_available(), Tensor.data, dispatch.view)


def test_a_module_moves_learns_and_is_saved(card: Mistakes, tmp_path: Any) -> None:
    """As on the CPU, and its parameters stay the same objects."""
    data, results = random(8, 3), {}
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.SiLU(), torch.nn.Linear(4, 1)
        )
        weight = model[0].weight
        optimisers = [torch.optim.AdamW(model.parameters(), lr=0.1), torch.optim.Adam([weight], lr=0.1, foreach=True)]
        model.to(device)
        assert model[0].weight is weight and isinstance(weight, torch.nn.Parameter) and weight.device.type == device
        x = data.to(device)
        for optimiser in optimisers * 3:
            optimiser.zero_grad()
            model(x).square().mean().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
        results[device] = {name: value.cpu() for name, value in model.state_dict().items()}
    for name, value in results["cpu"].items():
        torch.testing.assert_close(results["cuda"][name], value, rtol=1e-5, atol=1e-6)
    twin = copy.deepcopy(model)
    assert twin[0].weight.device == CARD and isinstance(twin[0].weight, torch.nn.Parameter)
    model.cpu()
    assert model[0].weight is weight and type(weight) is torch.nn.Parameter and weight.grad.device.type == "cpu"
    twin.load_state_dict(results["cpu"])  # from the CPU to the card
    assert torch.equal(twin[0].weight.cpu(), results["cpu"]["0.weight"])
    assert copy.deepcopy(model).to("meta")[0].weight.is_meta
    safetensors.torch.save_file(dict(twin.state_dict()), tmp_path / "a.safetensors")
    torch.save(twin.state_dict(), tmp_path / "a.pt")
    for state in (
        safetensors.torch.load_file(tmp_path / "a.safetensors", device="cuda"),
        torch.load(tmp_path / "a.pt", map_location="cuda", weights_only=True),
    ):
        assert all(value.device == CARD for value in state.values())
        assert torch.equal(state["3.weight"].cpu(), results["cpu"]["3.weight"])


def test_data_is_replaced_across_devices(card: Mistakes) -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    for device in ("cuda", "cpu", "cuda"):
        parameter.data = parameter.data.to(device)
        assert parameter.device.type == device and isinstance(parameter, torch.nn.Parameter) and parameter.requires_grad


class Doubled(torch.autograd.Function):
    """Python code in both directions, which names devices in all ways."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.tensor([2.0], device=x.device) * x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        two = torch.tensor([1.0], device="cuda") + torch.ones(1, device=grad.device)
        return two * grad + torch.zeros(1).to("cuda")


@pytest.mark.parametrize("again", [False, True])
def test_backward_passes_run_python(card: Mistakes, again: bool) -> None:
    """With checkpoints, the forward pass is such code too."""

    def work(x: Tensor) -> Tensor:
        return Doubled.apply(x) * torch.tensor([3.0], device=torch.device("cuda"))

    x = torch.ones(2, device="cuda", requires_grad=True)
    torch.utils.checkpoint.checkpoint(work, x, use_reentrant=again).sum().backward()
    (grad,) = torch.autograd.grad(work(x).sum(), x)
    assert grad.tolist() == x.grad.tolist() == [6.0, 6.0] and grad.device == CARD


def test_gradients_cross_with_copies(card: Mistakes) -> None:
    x = torch.ones(3, requires_grad=True)
    y = (2.0 * x).cuda()
    (y * torch.arange(3.0, device="cuda")).cpu().sum().backward()
    assert type(x.grad) is Tensor and x.grad.tolist() == [0.0, 2.0, 4.0]
    with pytest.raises(RuntimeError):
        torch.autograd.backward(y.sum(), torch.ones(1))


@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_without_gradients(card: Mistakes, guard: Any) -> None:
    model, x = torch.nn.Linear(3, 2).cuda(), random(2, 3).cuda()
    with guard():
        assert model(x[None])[0].device == CARD
        with pytest.raises(RuntimeError, match=MIXED):
            model(x.cpu())


def test_mistakes_inside_other_peoples_code(card: Mistakes) -> None:
    attention = torch.nn.MultiheadAttention(4, 2).cuda()
    x = random(2, 1, 4)
    assert attention(x.cuda(), x.cuda(), x.cuda())[0].device == CARD
    with pytest.raises(RuntimeError, match=MIXED):
        attention(x.cuda(), x, x)


def test_forgiven_mistakes_are_noted_with_their_line() -> None:
    told: list[str] = []
    with pretend_card(forgive=True, owner="test_pretend_card", tell=told.append) as mistakes:
        for _ in range(2):
            both = random(2).cuda() + random(2)
        assert both.device == CARD and both.numpy().shape == (2,)
    places = list(mistakes.found)
    assert len(told) == len(places) == 2 and all("test_pretend_card.py:" in place for place in places)
    assert MIXED in mistakes.found[places[0]] and "numpy" in mistakes.found[places[1]]


def hash_grid(device: str) -> list[Tensor]:
    layout = HashGridLayout(levels=4, base_resolution=4, growth=1.7, log2_table_size=8)
    points = random(5000, 3).to(device).requires_grad_()
    table = random(layout.entries, 2, seed=1).to(device).requires_grad_()
    features = hash_encode(points, table, layout, active_levels=3)
    return [features, *torch.autograd.grad(features.sin().sum(), (points, table))]


def volume(device: str) -> list[Tensor]:
    grid = OccupancyGrid(8, device=device)
    generator = torch.Generator().manual_seed(0)
    for step in (0, 300):
        grid.update(lambda x: (x.norm(dim=-1) < 0.6).to(x.dtype), generator=generator, step=step)
    origins = torch.nn.functional.normalize(random(300, 3) - 0.5, dim=1).to(device)
    samples = march(2.0 * origins, -origins, grid, step_size=0.05, generator=generator)
    alphas = (0.5 * random(len(samples), seed=1)).to(device).requires_grad_()
    values = random(len(samples), 3, seed=2).to(device).requires_grad_()
    weights = render_weights(alphas, samples.ray_offsets)
    sums = accumulate(weights, values, samples.ray_offsets)
    gradients = torch.autograd.grad(sums.sin().sum(), (alphas, values))
    return [grid.values, samples.t_starts, samples.ray_indices, weights, sums, *gradients]


def picture(device: str) -> list[Tensor]:
    mesh = shapes.sphere(subdivisions=2).to(device)
    vertices = mesh.vertices.requires_grad_()
    clip = project(vertices, orbit(torch.tensor([0.1, 0.5]), torch.tensor([0.2, 2.0])).to(device))
    raster = rasterize(clip, mesh.faces, 32)
    image = antialias(interpolate(vertices, raster, mesh.faces), raster, clip, mesh.faces)
    (gradient,) = torch.autograd.grad(image.sin().sum(), vertices)
    return [raster.face_ids, raster.barycentrics, image, gradient]


def distances(device: str) -> list[Tensor]:
    mesh = shapes.sphere(subdivisions=2).to(device)
    query, points = MeshQuery(mesh.vertices, mesh.faces), (2.0 * random(5000, 3) - 1.0).to(device)
    return [query.signed_distance(points), *query.closest_points(points), *query.cast_rays(points, -points)]


@pytest.mark.parametrize("work", [hash_grid, volume, picture, distances])
def test_kernels_give_what_they_give_on_the_cpu(work: Callable[[str], list[Tensor]]) -> None:
    expected = work("cpu")
    with pretend_card():
        results = work("cuda")
        assert all(result.device == CARD for result in results)
        results = [result.detach().cpu() for result in results]
    assert len(results) == len(expected)
    for result, wanted in zip(results, expected, strict=True):
        torch.testing.assert_close(result, wanted.detach(), rtol=1e-5, atol=1e-5, equal_nan=True)
    again = work("cpu")  # nothing of the card is left behind
    assert all(torch.allclose(one, other, equal_nan=True) for one, other in zip(again, expected, strict=True))


def test_kernels_refuse_arrays_of_both_devices(card: Mistakes) -> None:
    mesh, offsets = shapes.sphere(subdivisions=1), torch.tensor([0, 2, 3])
    query, points = MeshQuery(mesh.vertices.cuda(), mesh.faces.cuda()), random(4, 3)
    layout = HashGridLayout(levels=2, base_resolution=4, growth=1.5, log2_table_size=8)
    mixtures: list[Callable[[], Any]] = [
        lambda: render_weights(random(3).cuda(), offsets),
        lambda: hash_encode(points.cuda(), random(layout.entries, 2), layout),
        lambda: query.signed_distance(points),
        lambda: MeshQuery(mesh.vertices, mesh.faces).cast_rays(points.cuda(), points.cuda()),
        lambda: rasterize(project(mesh.vertices, orbit(0.0, 0.0)).cuda(), mesh.faces, 8),
    ]
    for mixture in mixtures:
        with pytest.raises(RuntimeError, match="arrays of both cuda:0 and cpu"):
            mixture()
    assert math.isfinite(float(query.signed_distance(points.cuda()).sum()))
