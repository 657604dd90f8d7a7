"""Pictures from words, by any text-to-picture model in diffusers layout (method section 4.1)."""

import gc
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from dreamcraft3d.errors import ConfigError
from dreamcraft3d.priors.perception import load_pipeline

__all__ = ["draw_pictures", "staged"]

STAGING = "one whole object, centred, seen from the front at eye level, plain white background, soft even light"
"""What a reference picture must be: reconstruction suffers from anything else."""
AVOIDED = "cropped, several objects, text, frame, hard shadow, busy background"


def staged(prompt: str) -> str:
    """The words that the model is given."""
    return f"{prompt.strip().rstrip('.,')}, {STAGING}"


def draw_pictures(
    folder: Path, prompt: str, *, seeds: list[int], steps: int, cfg_scale: float, device: torch.device | str
) -> Iterator[Image.Image]:
    """One picture for each seed, one at a time; the model is freed after the last.

    Raises:
        ConfigError: the model does not make pictures of words. DreamCraftError: it is damaged.
    """
    from diffusers import DiffusionPipeline

    pipeline: Any = load_pipeline(DiffusionPipeline, folder)
    if "prompt" not in inspect.signature(pipeline.__call__).parameters:
        raise ConfigError(
            f"The model in {folder} does not make pictures from words.", "Choose a text-to-picture model."
        )
    pipeline.to(device)
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        answer = pipeline(
            prompt=staged(prompt),
            negative_prompt=AVOIDED,
            num_inference_steps=steps,
            guidance_scale=cfg_scale,
            generator=generator,
        )
        picture: Image.Image = answer.images[0]
        yield picture.convert("RGB")
    del pipeline
    gc.collect()
    if torch.device(device).type != "cpu":
        torch.cuda.empty_cache()
