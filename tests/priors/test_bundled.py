"""The bundled prior keeps the protocol; weights here are random unless a test says otherwise."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dreamcraft3d.errors import DreamCraftError
from dreamcraft3d.functional.cameras import FOVY, Cameras, framing_cameras
from dreamcraft3d.functional.diffusion import add_noise, noise_to_x0
from dreamcraft3d.priors.base import DiffusionPrior, ViewCondition
from dreamcraft3d.priors.bundled import BundledPrior
from dreamcraft3d.priors.network import pose_vector
from dreamcraft3d.priors.sampling import sample
from dreamcraft3d.training.dataset import held_out
from dreamcraft3d.training.report import held_out_figures, procedural_objects
from dreamcraft3d.training.train import write_weights
from tiny_models import tiny_network


@pytest.fixture
def prior() -> BundledPrior:
    return BundledPrior(tiny_network())


def condition(views: int = 2, *, size: int = 64) -> ViewCondition:
    rgba = torch.rand(1, size, size, 4, generator=torch.Generator().manual_seed(2))
    reference = torch.cat([rgba[..., :3] * rgba[..., 3:], rgba[..., 3:]], dim=-1)
    return ViewCondition(reference, 0.1, torch.linspace(0.0, 0.5, views), torch.linspace(0.0, 3.0, views))


def noisy(views: int = 2) -> torch.Tensor:
    return torch.randn(views, 4, 64, 64, generator=torch.Generator().manual_seed(3))


def test_it_is_a_diffusion_prior(prior: BundledPrior) -> None:
    typed: DiffusionPrior = prior
    assert typed.alphas_cumprod.shape == (1000,)
    assert typed.contents == {"rgba"}


def test_encode_and_decode_are_inverse_at_its_own_size(prior: BundledPrior) -> None:
    picture = torch.rand(2, 64, 64, 4)
    x = prior.encode(picture)
    assert x.shape == (2, 4, 64, 64)
    assert torch.allclose(prior.decode(x), picture, atol=1e-6)


@pytest.mark.parametrize("size", [64, 128, 100])
def test_gradients_flow_through_encode(prior: BundledPrior, size: int) -> None:
    render = torch.rand(1, size, size, 4, requires_grad=True)
    prior.encode(render).sum().backward()
    assert render.grad is not None
    assert float(render.grad.sum()) == pytest.approx(2.0 * 4 * 64 * 64, rel=1e-3)
    assert (render.grad > 0).all()


def test_guidance_is_the_one_formula(prior: BundledPrior) -> None:
    view, x_t, t = condition(), noisy(), torch.tensor([300, 800])
    empty = ViewCondition(torch.zeros(1, 64, 64, 4), 0.1, view.elevation, view.azimuth)
    conditional = prior.predict_noise(x_t, t, view, cfg_scale=1.0)
    unconditional = prior.predict_noise(x_t, t, empty, cfg_scale=1.0)
    guided = prior.predict_noise(x_t, t, view, cfg_scale=2.5)
    assert not torch.allclose(conditional, unconditional, atol=1e-3)
    assert torch.allclose(guided, unconditional + 2.5 * (conditional - unconditional), atol=1e-4)


def test_evaluations_count_pictures(prior: BundledPrior) -> None:
    prior.predict_noise(noisy(), torch.tensor([10, 20]), condition(), cfg_scale=1.0)
    assert prior.evaluations == 2
    prior.predict_noise(noisy(), torch.tensor([10, 20]), condition(), cfg_scale=2.0)
    assert prior.evaluations == 6


def test_noise_and_x0_tell_the_same_story(prior: BundledPrior) -> None:
    x, noise, t = noisy().clamp(-1, 1), torch.randn(2, 4, 64, 64), torch.tensor([200, 700])
    x_t = add_noise(x, noise, prior.alphas_cumprod, t)
    eps = prior.predict_noise(x_t, t, condition(), cfg_scale=1.5)
    x0 = prior.predict_x0(x_t, t, condition(), cfg_scale=1.5)
    assert torch.allclose(noise_to_x0(x_t, eps, prior.alphas_cumprod, t), x0, atol=1e-3)
    assert not eps.requires_grad


def test_views_of_a_batch_are_independent(prior: BundledPrior) -> None:
    view, x_t, t = condition(3), noisy(3), torch.tensor([100, 500, 900])
    together = prior.predict_noise(x_t, t, view, cfg_scale=2.0)
    for k in range(3):
        one = ViewCondition(view.reference, 0.1, view.elevation[k : k + 1], view.azimuth[k : k + 1])
        alone = prior.predict_noise(x_t[k : k + 1], t[k : k + 1], one, cfg_scale=2.0)
        assert torch.allclose(alone, together[k : k + 1], atol=1e-4)


def test_a_new_reference_is_noticed(prior: BundledPrior) -> None:
    first = condition()
    other = ViewCondition(1.0 - first.reference, 0.1, first.elevation, first.azimuth)
    t = torch.tensor([500, 500])
    a, b, c = (prior.predict_noise(noisy(), t, view, cfg_scale=1.0) for view in (first, other, first))
    assert not torch.allclose(a, b)
    assert torch.equal(a, c)


def test_a_new_lens_or_tilt_of_the_reference_is_noticed(prior: BundledPrior) -> None:
    first, t = condition(), torch.tensor([500, 500])
    asked = (first, replace(first, reference_fovy=0.7), replace(first, reference_elevation=0.4), first)
    a, b, c, d = (prior.predict_noise(noisy(), t, view, cfg_scale=1.0) for view in asked)
    assert not torch.allclose(a, b, atol=1e-4)
    assert not torch.allclose(a, c, atol=1e-4)
    assert torch.equal(a, d)


def test_views_are_seen_through_the_wanted_lens(prior: BundledPrior) -> None:
    plain, wide = condition(), replace(condition(), fovy=math.radians(45.0))
    assert not torch.allclose(prior.lifted(plain), prior.lifted(wide), atol=1e-3)
    assert torch.equal(prior.lifted(plain), prior.lifted(replace(plain, fovy=FOVY)))


def test_the_guessed_camera_follows_the_picture(prior: BundledPrior) -> None:
    """Before training the guess is the plain set-up; it follows the picture once its last layer says something."""
    assert prior.guess_camera(condition().reference) == (0.0, pytest.approx(FOVY))
    torch.nn.init.constant_(prior.network.camera.out.weight, 0.05)
    other = 1.0 - condition().reference
    assert prior.guess_camera(other) != prior.guess_camera(condition().reference)


def camera(elevation: float, azimuth: float, fovy: float = FOVY) -> Cameras:
    return framing_cameras(*(torch.tensor([angle]) for angle in (elevation, azimuth, fovy)))


def test_pose_vector_is_periodic_and_tells_left_from_right_and_lenses_apart() -> None:
    start, wanted = camera(0.1, 0.0), camera(0.3, 1.0)
    assert torch.allclose(pose_vector(wanted, start), pose_vector(camera(0.3, 1.0 + 2 * math.pi), start), atol=1e-5)
    others = (camera(0.3, -1.0), camera(0.3, 1.0, 0.6), camera(0.5, 1.0))
    assert not any(torch.allclose(pose_vector(wanted, start), pose_vector(o, start), atol=0.1) for o in others)
    for other in (camera(0.4, 0.0), camera(0.1, 0.0, 0.6)):
        assert not torch.allclose(pose_vector(wanted, start), pose_vector(wanted, other), atol=0.1)


def test_samples_are_pictures_and_repeatable(prior: BundledPrior) -> None:
    first, second = (sample(prior, condition(), steps=2, generator=torch.Generator().manual_seed(0)) for _ in range(2))
    assert first.shape == (2, 64, 64, 4)
    assert 0.0 <= float(first.min()) <= float(first.max()) <= 1.0
    assert torch.equal(first, second)


def test_weights_survive_the_file(prior: BundledPrior, tmp_path: Path) -> None:
    write_weights(prior.network, tmp_path / "weights.safetensors")
    loaded = BundledPrior.load(tmp_path / "weights.safetensors")
    assert all(p.dtype == torch.float32 for p in loaded.network.parameters())
    t = torch.tensor([200, 600])
    a, b = (p.predict_x0(noisy(), t, condition(), cfg_scale=1.0) for p in (prior, loaded))
    assert torch.allclose(a, b, atol=0.02)


def test_missing_weights_name_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(DreamCraftError) as caught:
        BundledPrior.load(tmp_path / "none.safetensors")
    assert "train-prior" in caught.value.remedy


def test_adapters_attach_and_start_as_nothing(prior: BundledPrior) -> None:
    peft = pytest.importorskip("peft")
    t = torch.tensor([200, 600])
    before = prior.predict_x0(noisy(), t, condition(), cfg_scale=1.0)
    config = peft.LoraConfig(r=2, target_modules=["to_q", "to_k", "to_v", "to_out.0"], init_lora_weights=True)
    prior.network.unet.add_adapter(config, adapter_name="texture")
    assert torch.equal(prior.predict_x0(noisy(), t, condition(), cfg_scale=1.0), before)
    trainable = [name for name, p in prior.network.unet.named_parameters() if p.requires_grad]
    assert trainable
    assert all("lora" in name for name in trainable)


@pytest.mark.slow
def test_the_shipped_weights_see_behind_objects() -> None:
    """On held-out objects a sampled view beats giving the reference picture back, by far more than noise."""
    figures = held_out_figures(BundledPrior.load(), procedural_objects(range(12)), views=4, steps=4)
    assert figures["sampled"].iou > figures["reference again"].iou + 0.03
    assert figures["sampled"].psnr > figures["reference again"].psnr + 1.0
    assert figures["one step"].psnr > 20.0


def test_the_surface_of_a_picture_is_estimated() -> None:
    """The estimate of the shipped weights follows the true depth and normals of a held-out object."""
    batch = held_out([46], views=2)[0]
    reference = batch.reference.permute(0, 2, 3, 1)
    estimate = BundledPrior.load().estimate(reference, float(batch.camera[0, 0]))
    inside = torch.nn.functional.avg_pool2d(batch.reference[0, 3:], 2)[0] > 0.9
    pair = torch.stack([estimate.depth[0, 0][inside], batch.reference_depth[0, 0][inside]])
    assert float(torch.corrcoef(pair)[0, 1]) > 0.7
    cosine = (estimate.normal[0] * batch.normal[0]).sum(0)[inside]
    assert float(cosine.mean()) > 0.8
