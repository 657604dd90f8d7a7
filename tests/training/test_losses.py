"""The training losses: nothing is lost where everything is right, and dropped references only cost denoising."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from dreamcraft3d.functional.diffusion import cosine_alphas_cumprod
from dreamcraft3d.kernels.frustum import pixel_centres
from dreamcraft3d.priors.base import Estimate
from dreamcraft3d.priors.lifting import Look, ReferenceCode
from dreamcraft3d.training.dataset import Batch, held_out
from dreamcraft3d.training.losses import Share, Weights, camera_loss, estimate_loss, training_loss, view_loss
from dreamcraft3d.training.occupancy import PLANES, SIDE
from tiny_models import tiny_network

NOTHING = Weights(denoising=0.0, lifted=0.0, occupancy=0.0, surface=0.0, camera=0.0)


@pytest.fixture(scope="module")
def batch() -> Batch:
    """Two held-out objects with two views each."""
    pairs = [vars(each).values() for each in held_out([4, 11], views=2)]
    return Batch(*(torch.cat(pair) for pair in zip(*pairs, strict=True)))


def share_of(batch: Batch, *dropped: bool) -> Share:
    noise = torch.randn(len(dropped), 4, 64, 64, generator=torch.Generator().manual_seed(0))
    return Share(batch, torch.tensor(dropped), torch.tensor([300, 800])[: len(dropped)], noise, (0, 1))


def rows(batch: Batch, part: slice) -> Batch:
    return Batch(*(tensor[part] for tensor in vars(batch).values()))


class Knowing:
    """Knows the batch: what a perfect network would say, less what it would get wrong by."""

    def __init__(self, batch: Batch, **off: float) -> None:
        self.alphas_cumprod, self.batch = cosine_alphas_cumprod(), batch
        self.off = {name: off.get(name, 0.0) for name in ("denoising", "lifted", "occupancy", "surface", "camera")}

    def encode(self, reference: Tensor, elevation: Tensor, fovy: Tensor) -> tuple[ReferenceCode, Estimate]:
        truth, off = self.batch, self.off
        cells = torch.where(truth.occupancy, 40.0, -40.0) * (1.0 - 10.0 * off["occupancy"])
        volume = torch.zeros(len(reference), SIDE, SIDE, PLANES, 8)
        code = ReferenceCode(volume, cells, torch.zeros(len(reference), 1, 1), elevation, fovy)
        return code, Estimate(truth.reference_depth + off["surface"], truth.normal)

    def camera(self, _reference: Tensor) -> tuple[Tensor, Tensor]:
        return self.batch.camera[:, 0] + self.off["camera"], self.batch.camera[:, 1]

    def look(self, *_: Any) -> Look:
        rgba = self.batch.target[:, 0]
        return Look(rgba - self.off["lifted"], self.batch.depth[:, 0] * rgba[:, 3:], torch.zeros_like(rgba))

    def __call__(self, *_: Any) -> Tensor:
        return 2.0 * self.batch.target[:, 0] - 1.0 + self.off["denoising"]


@pytest.fixture
def one_view(batch: Batch) -> Batch:
    """Only the first wanted views, which are looked at whole."""
    return replace(batch, target=batch.target[:, :1], depth=batch.depth[:, :1], pose=batch.pose[:, :1])


def test_who_knows_everything_loses_nothing(one_view: Batch) -> None:
    network: Any = Knowing(one_view)
    assert float(training_loss(network, share_of(one_view, False, False), Weights())) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("name", ["denoising", "lifted", "occupancy", "surface", "camera"])
def test_each_mistake_costs_its_own_part(one_view: Batch, name: str) -> None:
    network: Any = Knowing(one_view, **{name: 0.1})
    share = share_of(one_view, False, False)
    assert float(training_loss(network, share, replace(NOTHING, **{name: 1.0}))) > 1e-3
    others = replace(Weights(), **{name: 0.0})
    assert float(training_loss(network, share, others)) == pytest.approx(0.0, abs=1e-6)
    twice = training_loss(network, share, replace(NOTHING, **{name: 2.0}))
    assert float(twice) == pytest.approx(2.0 * float(training_loss(network, share, replace(NOTHING, **{name: 1.0}))))


@pytest.mark.parametrize("name", ["lifted", "occupancy", "surface", "camera"])
def test_a_dropped_reference_cannot_be_blamed_for_what_it_does_not_show(batch: Batch, name: str) -> None:
    network, alone = tiny_network(), replace(NOTHING, **{name: 1.0})
    with torch.no_grad():
        assert float(training_loss(network, share_of(batch, False, False), alone)) > 0.0
        assert float(training_loss(network, share_of(batch, True, True), alone)) == 0.0


def test_dropped_references_count_in_denoising_only(batch: Batch) -> None:
    network = tiny_network()
    with torch.no_grad():
        both = training_loss(network, share_of(batch, True, True), Weights())
        denoising = training_loss(network, share_of(batch, True, True), replace(NOTHING, denoising=Weights().denoising))
    assert float(both) == pytest.approx(float(denoising), rel=1e-6)
    assert float(both) > 0.0


def test_the_loss_is_the_mean_over_examples(batch: Batch) -> None:
    network, whole = tiny_network(), share_of(batch, False, True)
    with torch.no_grad():
        together = float(training_loss(network, whole, Weights()))
        single = [
            Share(rows(batch, part), whole.dropped[part], whole.t[part], whole.noise[part], whole.offset)
            for part in (slice(0, 1), slice(1, 2))
        ]
        alone = [float(training_loss(network, share, Weights())) for share in single]
    assert together == pytest.approx(sum(alone) / 2, rel=1e-4)


def test_views_are_compared_in_colour_opacity_and_depth(batch: Batch) -> None:
    target, depth = batch.target[:, 0], batch.depth[:, 0]
    right = Look(target, depth * target[:, 3:], torch.zeros(2, 4, 64, 64))
    assert view_loss(right, target, depth).tolist() == [0.0, 0.0]
    paler = replace(right, rgba=target + torch.tensor([0.1, 0.0, 0.0, 0.0])[:, None, None])
    assert view_loss(paler, target, depth).tolist() == pytest.approx([4.0 * 0.01 / 4] * 2, rel=1e-3)
    nearer = replace(right, depth=right.depth - 0.1 * target[:, 3:])
    solid = (target[:, 3:] > 0.5).float()
    wanted = 4.0 * 0.01 * (solid * target[:, 3:].square()).mean((1, 2, 3))
    assert torch.allclose(view_loss(nearer, target, depth), wanted, rtol=1e-3)


def test_wrong_opacity_is_not_punished_by_the_depth_of_what_is_there(batch: Batch) -> None:
    """Half as opaque, at the right depth: the depth's part is nothing."""
    target, depth = batch.target[:, 0], batch.depth[:, 0]
    faint = Look(0.5 * target, 0.5 * depth * target[:, 3:], torch.zeros(2, 4, 64, 64))
    weights = torch.tensor([1.0, 1.0, 1.0, 2.0])[:, None, None]
    wanted = 4.0 * ((0.5 * target).square() * weights).mean((1, 2, 3))
    assert torch.allclose(view_loss(faint, target, depth), wanted, rtol=1e-4)


def test_cameras_are_compared_in_tilt_and_ratio(batch: Batch) -> None:
    tilt, lens = batch.camera.unbind(1)
    assert camera_loss((tilt, lens), batch).tolist() == [0.0, 0.0]
    assert camera_loss((tilt - 0.05, lens), batch).tolist() == pytest.approx([0.5] * 2, abs=1e-4)
    assert camera_loss((tilt, 2.0 * lens), batch).tolist() == pytest.approx([2.0 * 0.6931] * 2, abs=1e-3)
    assert camera_loss((tilt, 0.5 * lens), batch).tolist() == pytest.approx([2.0 * 0.6931] * 2, abs=1e-3)


def test_surfaces_are_compared_on_the_object_alone(batch: Batch) -> None:
    inside = batch.reference_depth > 0.0
    depth = torch.where(inside, batch.reference_depth, 9.0)
    right = Estimate(depth, torch.where(inside, batch.normal, torch.tensor([1.0, 0.0, 0.0])[:, None, None]))
    assert estimate_loss(right, batch).tolist() == pytest.approx([0.0] * 2, abs=1e-5)
    assert estimate_loss(replace(right, depth=depth + 0.1), batch).tolist() == pytest.approx([0.4] * 2, abs=1e-4)
    assert estimate_loss(replace(right, normal=-right.normal), batch).tolist() == pytest.approx([2.0] * 2, abs=1e-4)


def test_thin_views_are_those_pixels_of_whole_ones(batch: Batch) -> None:
    """The rays of a quarter of the pixels: every second row and column from the offset on."""
    grid = pixel_centres(64).reshape(64, 64, 2)[0::2, 1::2]
    assert grid[0, 0].tolist() == pytest.approx([3 / 64 - 1, 1 - 1 / 64])
    network = tiny_network()
    only_lifted = replace(NOTHING, lifted=1.0)
    with torch.no_grad():
        found = [
            float(training_loss(network, replace(share_of(batch, False, False), offset=(r, c)), only_lifted))
            for r in (0, 1)
            for c in (0, 1)
        ]
        swapped = Batch(
            **{
                name: tensor.flip(1) if name in ("target", "depth", "pose") else tensor
                for name, tensor in vars(batch).items()
            }
        )
        other = [
            float(training_loss(network, replace(share_of(swapped, False, False), offset=(r, c)), only_lifted))
            for r in (0, 1)
            for c in (0, 1)
        ]
    assert sum(found) / 4 == pytest.approx(sum(other) / 4, rel=1e-4), "four quarters are the whole view"
