"""Tiny models of the public kinds with random weights, saved in diffusers layout by the real classes.

Their networks have the block types, channels and embeddings of `priors/networks/*.json`, narrowed.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    IFPipeline,
    MarigoldDepthPipeline,
    MarigoldNormalsPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from dreamcraft3d.priors.models import network
from dreamcraft3d.priors.network import BundledNetwork

LATENTS = 8
"""Side of what the tiny networks denoise."""
EMBEDDING = 32


def tiny_network() -> BundledNetwork:
    """The bundled prior's network, narrowed. It has the planes and channels of the whole one: the occupancy of its
    training pictures, and kernels that are compiled once."""
    torch.manual_seed(1)
    return BundledNetwork(channels=(32, 32), widths=(16, 16, 32), decoder=16, blocks=1, embedding=32)


def tiny_unet(name: str, *, zero: bool = False, **changes: Any) -> UNet2DConditionModel:
    """A U-Net of the catalogue with two narrow levels; `zero`: its last layer says nothing."""
    config = dict(network(name)["config"])
    config.update(
        sample_size=LATENTS,
        block_out_channels=[32, 64],
        layers_per_block=1,
        down_block_types=[config["down_block_types"][k] for k in (0, -1)],
        up_block_types=[config["up_block_types"][k] for k in (0, -1)],
        cross_attention_dim=EMBEDDING,
    )
    if config["down_block_types"][0].startswith("Resnet"):  # IF: heads of some channels
        config.update(attention_head_dim=16, encoder_hid_dim=EMBEDDING, addition_embed_type_num_heads=4)
    else:
        config.update(attention_head_dim=4)
    torch.manual_seed(7)
    unet = UNet2DConditionModel(**{**config, **changes})
    if zero:
        torch.nn.init.zeros_(unet.conv_out.weight)
        torch.nn.init.zeros_(unet.conv_out.bias)
    return unet


def tiny_vae() -> AutoencoderKL:
    """An autoencoder of half the side, with the catalogue's latents and scale."""
    config = dict(network("vae-sd")["config"])
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    torch.manual_seed(8)
    return AutoencoderKL(**{**config, **blocks, "block_out_channels": [32, 32], "layers_per_block": 1,
                            "sample_size": 2 * LATENTS})  # fmt: skip


def tiny_clip_tokenizer(folder: Path) -> CLIPTokenizer:
    """Letters only; vocab.json and merges.txt, as in the public copies."""
    letters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 77})
    )
    return CLIPTokenizer.from_pretrained(folder)


def tiny_clip_text() -> CLIPTextModel:
    torch.manual_seed(9)
    return CLIPTextModel(
        CLIPTextConfig(vocab_size=256, hidden_size=EMBEDDING, intermediate_size=37, num_hidden_layers=2,
                       num_attention_heads=4, max_position_embeddings=77, bos_token_id=188, eos_token_id=189)
    )  # fmt: skip


def tiny_t5_tokenizer(folder: Path) -> T5Tokenizer:
    """A real sentencepiece model (spiece.model, as in the public copies), trained on a few words."""
    import sentencepiece

    folder.mkdir(parents=True, exist_ok=True)
    words = ["a", "red", "bird", "sks", "front", "side", "back", "overhead", "view", "of", "the", "small", "thing"]
    sentences = [" ".join(words[k:] + words[:k]) for k in range(len(words))] * 4
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_prefix=str(folder / "spiece"), vocab_size=60, hard_vocab_limit=False,
        minloglevel=2, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
    )  # fmt: skip
    (folder / "spiece.vocab").unlink()
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "model_max_length": 77})
    )
    return T5Tokenizer.from_pretrained(folder)


def save_stable_diffusion(folder: Path, *, unet: UNet2DConditionModel | None = None, **schedule: Any) -> Path:
    """Stable Diffusion 2.1 in small; `schedule`: other settings of its scheduler."""
    settings = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, **schedule}
    pipeline = StableDiffusionPipeline(
        vae=tiny_vae(),
        text_encoder=tiny_clip_text(),
        tokenizer=tiny_clip_tokenizer(folder.with_name(f"{folder.name}-words")),
        unet=unet or tiny_unet("unet-sd-2"),
        scheduler=DDIMScheduler(**settings),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    _as_published(folder)
    return folder


def _as_published(folder: Path) -> None:
    """The tokenizer's own files in place of the tokenizer.json that today's transformers writes."""
    shutil.rmtree(folder / "tokenizer")
    folder.with_name(f"{folder.name}-words").rename(folder / "tokenizer")


def save_deepfloyd(folder: Path, *, unet: UNet2DConditionModel | None = None) -> Path:
    """DeepFloyd IF's first stage in small."""
    torch.manual_seed(10)
    encoder = T5EncoderModel(
        T5Config(vocab_size=64, d_model=EMBEDDING, d_kv=8, d_ff=37, num_layers=2, num_heads=4,
                 feed_forward_proj="gated-gelu")
    )  # fmt: skip
    pipeline = IFPipeline(
        tokenizer=tiny_t5_tokenizer(folder.with_name(f"{folder.name}-words")),
        text_encoder=encoder,
        unet=unet or tiny_unet("unet-if-m"),
        scheduler=DDPMScheduler(
            beta_schedule="squaredcos_cap_v2", variance_type="learned_range", prediction_type="epsilon"
        ),
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    _as_published(folder)
    return folder


def save_zero123(folder: Path, *, unet: UNet2DConditionModel | None = None) -> Path:
    """Zero123 in small, laid out as the public copies are: no pipeline class of diffusers, so part by part."""
    torch.manual_seed(11)
    encoder = CLIPVisionModelWithProjection(
        CLIPVisionConfig(hidden_size=32, intermediate_size=37, num_hidden_layers=2, num_attention_heads=4,
                         image_size=32, patch_size=8, projection_dim=EMBEDDING)
    )  # fmt: skip
    (unet or tiny_unet("unet-zero123")).save_pretrained(folder / "unet")
    tiny_vae().save_pretrained(folder / "vae")
    encoder.save_pretrained(folder / "image_encoder")
    DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).save_pretrained(
        folder / "scheduler"
    )
    projection = torch.nn.Linear(EMBEDDING + 4, EMBEDDING)
    (folder / "clip_camera_projection").mkdir()
    save_file(
        {f"proj.{key}": value for key, value in projection.state_dict().items()},
        folder / "clip_camera_projection" / "diffusion_pytorch_model.safetensors",
    )
    (folder / "feature_extractor").mkdir()
    (folder / "feature_extractor" / "preprocessor_config.json").write_text(
        json.dumps(
            {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
        )
    )
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "Zero123Pipeline"}))
    return folder


def save_marigold(folder: Path, kind: type[MarigoldDepthPipeline] | type[MarigoldNormalsPipeline]) -> Path:
    """Marigold in small."""
    pipeline = kind(
        unet=tiny_unet("unet-marigold"),
        vae=tiny_vae(),
        scheduler=DDIMScheduler(prediction_type="v_prediction", timestep_spacing="trailing"),
        text_encoder=tiny_clip_text(),
        tokenizer=tiny_clip_tokenizer(folder.with_name(f"{folder.name}-words")),
        prediction_type="depth" if kind is MarigoldDepthPipeline else "normals",
        default_denoising_steps=2,
        default_processing_resolution=32,
    )
    pipeline.save_pretrained(folder)
    _as_published(folder)
    return folder
