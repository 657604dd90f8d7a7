"""The public priors, loaded by the production code from folders that the real classes wrote."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler

from dreamcraft3d.errors import ConfigError, DreamCraftError, MissingDependencyError
from dreamcraft3d.functional.diffusion import classifier_free_guidance, cosine_alphas_cumprod, velocity_to_noise
from dreamcraft3d.functional.perp_neg import DIRECTIONS, blend_directions, perp_neg_guidance
from dreamcraft3d.priors import components
from dreamcraft3d.priors.base import Personalisable, ViewCondition
from dreamcraft3d.priors.deepfloyd import DeepFloydPrior
from dreamcraft3d.priors.loading import check_words, load_prior, pose_of
from dreamcraft3d.priors.models import catalogue
from dreamcraft3d.priors.prompts import personal_text, texts_of
from dreamcraft3d.priors.stable_diffusion import StableDiffusionPrior
from dreamcraft3d.priors.zero123 import Zero123Prior, pose_vector
from tiny_models import LATENTS, save_deepfloyd, save_stable_diffusion, save_zero123

PROMPT = "a red bird"
T = torch.tensor([300, 700])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models")
    save_stable_diffusion(place / "diffusion")
    save_deepfloyd(place / "floyd")
    save_zero123(place / "zero")
    return place


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DREAMCRAFT3D_MODELS", str(tmp_path / "home"))
    return tmp_path / "home"


def condition(azimuth: tuple[float, ...] = (20.0, 160.0), **changes: object) -> ViewCondition:
    picture = torch.rand(1, 32, 32, 4, generator=torch.Generator().manual_seed(1))
    picture[..., :3] *= picture[..., 3:]
    a = torch.tensor(azimuth).deg2rad()
    return ViewCondition(picture, math.radians(10.0), torch.full_like(a, 0.3), a, **changes)  # type: ignore[arg-type]


def noisy(prior: Personalisable) -> torch.Tensor:
    blank = prior.encode(torch.zeros(1, 16, 16, 4))
    return torch.randn((2, *blank.shape[1:]), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(
    ("part", "kind"), [("diffusion", StableDiffusionPrior), ("floyd", DeepFloydPrior), ("zero", Zero123Prior)]
)
def test_every_family_is_loaded_asked_and_taught(folders: Path, part: str, kind: type) -> None:
    prior = load_prior(str(folders / part), prompt=PROMPT)
    assert isinstance(prior, kind)
    assert isinstance(prior, Personalisable)
    rgba = torch.rand(2, 48, 48, 4, generator=torch.Generator().manual_seed(3)).requires_grad_()
    x = prior.encode(rgba)
    x.square().sum().backward()
    assert rgba.grad is not None and float(rgba.grad.abs().sum()) > 0.0
    assert x.shape[-1] == LATENTS
    both = prior.predict_noise(noisy(prior), T, condition(), cfg_scale=3.0)
    for index in range(2):  # each picture keeps its own condition, whatever else is in the batch (issue B5)
        alone = condition((20.0, 160.0)[index : index + 1])
        single = prior.predict_noise(noisy(prior)[index : index + 1], T[index : index + 1], alone, cfg_scale=3.0)
        assert torch.allclose(single[0], both[index], atol=1e-4)
    loss = prior.denoising_loss(x.detach(), torch.randn_like(x), T, condition(), dropped=torch.tensor([True, False]))
    assert bool(loss.isfinite())
    assert prior.decode(x.detach()).shape == (2, prior.image_size, prior.image_size, 4)


def test_pictures_are_seen_over_white(folders: Path) -> None:
    """Whatever lies under full transparency is white to the prior."""
    for part in ("diffusion", "floyd", "zero"):
        prior = load_prior(str(folders / part), prompt=PROMPT)
        clear, white = torch.zeros(1, 16, 16, 4), torch.ones(1, 16, 16, 4)
        assert torch.allclose(prior.encode(clear), prior.encode(white), atol=1e-5)


def test_noise_schedules_are_those_of_the_folder(folders: Path) -> None:
    floyd, diffusion = (load_prior(str(folders / part), prompt=PROMPT) for part in ("floyd", "diffusion"))
    assert torch.allclose(floyd.alphas_cumprod, cosine_alphas_cumprod(), atol=1e-5)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()
    assert torch.allclose(diffusion.alphas_cumprod, torch.cumprod(1.0 - betas, 0).float(), atol=1e-5)
    for entry in catalogue().values():  # and the catalogue's arguments are ones that the scheduler knows
        DDPMScheduler(**entry.schedule)


def test_velocity_becomes_noise(folders: Path, tmp_path: Path) -> None:
    """SD-2.1 at 768: the same network, declared to predict v, must be read as v; and taught v."""
    shutil.copytree(folders / "diffusion", tmp_path / "v")
    file = tmp_path / "v" / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "prediction_type": "v_prediction"}))
    noise, velocity = (load_prior(str(place), prompt=PROMPT) for place in (folders / "diffusion", tmp_path / "v"))
    assert isinstance(noise, StableDiffusionPrior)
    assert isinstance(velocity, StableDiffusionPrior)
    x_t = noisy(noise)
    raw = noise.predict_noise(x_t, T, condition(), cfg_scale=4.0)
    read = velocity.predict_noise(x_t, T, condition(), cfg_scale=4.0)
    assert torch.allclose(read, velocity_to_noise(x_t, raw, noise.alphas_cumprod, T), atol=1e-4)
    file.write_text(json.dumps({**json.loads(file.read_text()), "prediction_type": "flow"}))
    with pytest.raises(DreamCraftError, match="flow"):
        load_prior(str(tmp_path / "v"), prompt=PROMPT)


def test_guidance_of_words_is_the_one_formula(folders: Path) -> None:
    prior = load_prior(str(folders / "diffusion"), prompt=PROMPT)
    assert isinstance(prior, StableDiffusionPrior)
    x_t = noisy(prior)
    told = prior.predict_noise(x_t, T, condition(), cfg_scale=1.0)
    nothing = prior.predict_noise(x_t, T, condition(), cfg_scale=0.0)
    assert prior.evaluations == 2 + 4
    guided = prior.predict_noise(x_t, T, condition(), cfg_scale=7.5)
    assert torch.allclose(guided, classifier_free_guidance(nothing, told, 7.5), atol=1e-4)
    assert not torch.allclose(told, prior.predict_noise(x_t, T, condition(wording="personal"), cfg_scale=1.0))
    same = [
        prior.predict_noise(x_t, T, condition(a, wording="plain"), cfg_scale=1.0) for a in ((20.0, 160.0), (90.0, 0.0))
    ]
    assert torch.equal(*same)  # without the direction in words, the view makes no difference


@pytest.fixture
def _without_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Priors in float32, so that they can be compared with sums done by hand."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("_without_a_card")
def test_floyd_leads_away_from_other_directions(folders: Path) -> None:
    prior = load_prior(str(folders / "floyd"), prompt=PROMPT)
    assert isinstance(prior, DeepFloydPrior)
    x_t, views = noisy(prior), condition((30.0, 150.0))
    guided = prior.predict_noise(x_t, T, views, cfg_scale=20.0)
    assert prior.evaluations == 8
    family, blend = prior._prompts.family("view"), blend_directions(views.elevation, views.azimuth)

    def under(tokens: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return prior.unet(x_t, T, encoder_hidden_states=tokens)[0][:, :3]

    nothing = under(prior._prompts.nothing(2))
    wanted = under(torch.stack([sum(w * family[k] for k, w in enumerate(shares)) for shares in blend.positive]))
    unwanted = tuple(under(family[blend.negatives[:, k]]) for k in range(2))
    assert torch.allclose(guided, perp_neg_guidance(nothing, wanted, unwanted, blend.weights, 20.0), atol=1e-3)
    assert torch.isfinite(prior.predict_noise(x_t, T, condition(wording="plain"), cfg_scale=5.0)).all()


@pytest.mark.parametrize(("pose", "tau"), [("zero123", 0.0), ("stable-zero123", math.radians(80.0))])
def test_both_conventions_of_the_pose(pose: str, tau: float) -> None:
    """The reference view is [0, 0, 1, tau]; higher cameras have a negative polar angle."""
    tilt = math.radians(10.0)
    views = ViewCondition(
        torch.zeros(1, 4, 4, 4), tilt, torch.tensor([tilt, math.radians(40.0)]), torch.tensor([0.0, math.pi / 2])
    )
    vector = pose_vector(views, pose)  # type: ignore[arg-type]
    assert torch.allclose(vector[0], torch.tensor([0.0, 0.0, 1.0, tau]), atol=1e-6)
    assert torch.allclose(vector[1], torch.tensor([-math.radians(30.0), 1.0, 0.0, tau]), atol=1e-6)


@pytest.mark.usefixtures("_without_a_card")
def test_zero123_is_told_what_it_was_trained_on(folders: Path) -> None:
    prior = load_prior(str(folders / "zero"))
    assert isinstance(prior, Zero123Prior)
    views = condition()
    told, nothing = prior._conditional(views), prior._unconditional(views)
    assert told.beside is not None and nothing.beside is not None
    assert float(nothing.tokens.abs().max()) == 0.0 and float(nothing.beside.abs().max()) == 0.0
    scale = prior.vae.config.scaling_factor
    assert scale == pytest.approx(0.18215)
    assert torch.allclose(told.beside[:1] * scale, prior.encode(views.reference), atol=1e-5)
    assert told.tokens.shape[:2] == (2, 1)
    embedding, _ = prior._reference(views.reference)
    vector = torch.cat([embedding.expand(2, -1), pose_vector(views, "zero123")], dim=1)
    expected = vector @ prior.projection.weight.T + prior.projection.bias
    assert torch.allclose(told.tokens[:, 0], expected, atol=1e-5)
    pixels = prior._clip_pixels(torch.ones(1, 8, 8, 4))
    assert torch.allclose(
        pixels[0, :, 0, 0], torch.tensor([1.9303, 2.0749, 2.1459]), atol=1e-3
    )  # white, as CLIP has it


def test_the_pose_convention_comes_from_the_catalogue_or_the_name() -> None:
    assert pose_of("zero123-xl") == "zero123"
    assert pose_of("stable-zero123") == "stable-zero123"
    assert pose_of("/models/My-Stable-Zero123") == "stable-zero123"
    assert pose_of("/stable/zero123-105000") == "zero123"


def test_words_are_encoded_once(folders: Path, tmp_path: Path, home: Path) -> None:
    place = shutil.copytree(folders / "diffusion", tmp_path / "copy")
    before = load_prior(str(place), prompt=PROMPT).predict_noise
    first = before(torch.ones(2, 4, LATENTS, LATENTS), T, condition(), cfg_scale=2.0)
    kept = list((home / ".embeddings").glob("*.safetensors"))
    assert len(kept) == 1
    weights = place / "text_encoder" / "model.safetensors"
    weights.write_bytes(bytes(weights.stat().st_size))  # unreadable from now on
    again = load_prior(str(place), prompt=PROMPT)
    assert torch.equal(again.predict_noise(torch.ones(2, 4, LATENTS, LATENTS), T, condition(), cfg_scale=2.0), first)
    with pytest.raises(DreamCraftError, match="text_encoder"):
        load_prior(str(place), prompt="a blue bird")
    kept[0].write_bytes(b"broken")
    with pytest.raises(DreamCraftError, match="text_encoder"):
        load_prior(str(place), prompt=PROMPT)


def test_ten_texts() -> None:
    texts = texts_of("the old clock")
    assert texts[:2] == ["", "the old clock"]
    assert texts[2:6] == [f"the old clock, {name} view" for name in DIRECTIONS]
    assert texts[6] == "a sks old clock, side view"
    assert personal_text("birds") == "a sks birds"


def test_pickles_are_refused(folders: Path, tmp_path: Path) -> None:
    place = shutil.copytree(folders / "zero", tmp_path / "pickled")
    weights = place / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save({}, place / "unet" / "diffusion_pytorch_model.bin")
    weights.unlink()
    with pytest.raises(DreamCraftError, match="unet"):
        load_prior(str(place))


def test_a_damaged_part_is_named(folders: Path, tmp_path: Path) -> None:
    place = shutil.copytree(folders / "zero", tmp_path / "damaged")
    projection = place / "clip_camera_projection" / "diffusion_pytorch_model.safetensors"
    whole = projection.read_bytes()
    projection.write_bytes(whole[:-10])
    with pytest.raises(DreamCraftError, match="camera projection"):
        load_prior(str(place))
    shutil.rmtree(place / "clip_camera_projection")
    with pytest.raises(DreamCraftError, match="cc_projection"):
        load_prior(str(place))
    (place / "cc_projection").mkdir()  # the other public name
    (place / "cc_projection" / "model.safetensors").write_bytes(whole)
    load_prior(str(place))
    weights = place / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(DreamCraftError, match="vae") as caught:
        load_prior(str(place))
    assert caught.value.remedy


def test_the_fp16_variant_is_found_part_by_part(folders: Path, tmp_path: Path) -> None:
    place = shutil.copytree(folders / "zero", tmp_path / "variant")
    for part in ("unet", "vae"):
        weights = place / part / "diffusion_pytorch_model.safetensors"
        weights.rename(weights.with_name("diffusion_pytorch_model.fp16.safetensors"))
    encoder = place / "image_encoder" / "model.safetensors"
    encoder.rename(encoder.with_name("model.fp16.safetensors"))
    assert isinstance(load_prior(str(place)), Zero123Prior)


def test_priors_that_need_words_say_so() -> None:
    check_words(("bundled", "zero123-xl"), "")
    with pytest.raises(ConfigError, match="deepfloyd-if-m") as caught:
        check_words(("bundled", "deepfloyd-if-m"), " ")
    assert "--prompt" in caught.value.remedy


def test_models_that_are_no_priors_are_refused(folders: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingDependencyError):
        load_prior("stable-diffusion-2-1-base", prompt=PROMPT)
    place = shutil.copytree(folders / "zero", tmp_path / "other")
    (place / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionXLPipeline"}))
    with pytest.raises(ConfigError, match="StableDiffusionXLPipeline"):
        load_prior(str(place), prompt=PROMPT)


def test_precision_follows_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {(False, False): torch.float32, (True, True): torch.bfloat16, (True, False): torch.float16}
    for (present, brain), dtype in expected.items():
        monkeypatch.setattr(torch.cuda, "is_available", lambda present=present: present)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda brain=brain: brain)
        assert components.precision() == dtype


@pytest.mark.parametrize("part", ["diffusion", "zero"])
def test_saving_memory_changes_no_answer(folders: Path, part: str) -> None:
    prior = load_prior(str(folders / part), prompt=PROMPT)
    assert isinstance(prior, StableDiffusionPrior | Zero123Prior)

    def answers() -> tuple[torch.Tensor, ...]:
        rgba = torch.full((2, 32, 32, 4), 0.4, requires_grad=True)
        x = prior.encode(rgba)
        x.square().sum().backward()
        assert rgba.grad is not None
        noise = prior.predict_noise(noisy(prior), T, condition(), cfg_scale=3.0)
        return x.detach(), rgba.grad, noise, prior.decode(x.detach())

    before = answers()
    measures = 0
    while prior.save_memory():
        measures += 1
        assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(answers(), before, strict=True))
    assert measures == 3
