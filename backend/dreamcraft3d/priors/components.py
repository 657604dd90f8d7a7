"""Parts of a public model from a local folder in diffusers layout: networks, noise schedule, text and picture settings.

Each part is the real class of diffusers or transformers, read from its own sub-folder. Weights are safetensors only:
a pickle can run anything. Nothing here touches the network.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor

from dreamcraft3d.errors import DreamCraftError, MissingDependencyError
from dreamcraft3d.priors.model_files import variant_of

__all__ = ["NoiseSchedule", "load_network", "precision", "quietly", "read_json", "read_schedule", "text_parts"]

Prediction = Literal["epsilon", "v_prediction"]


def precision() -> torch.dtype:
    """Of big networks: bfloat16 on cards that have it, else float16; float32 without a card (half is slower there)."""
    if not torch.cuda.is_available():
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


@dataclass(frozen=True)
class NoiseSchedule:
    """alphabar_t of the training timesteps, and what the network predicts."""

    alphas_cumprod: Float[Tensor, " T"]
    prediction: Prediction


def read_schedule(folder: Path) -> NoiseSchedule:
    """From scheduler/scheduler_config.json, whichever sampler it names.

    Raises:
        DreamCraftError: the file is missing, or the network predicts something else than noise or velocity.
    """
    import diffusers

    kind: Any = diffusers.DDPMScheduler
    config = read_json(folder / "scheduler" / "scheduler_config.json")
    known = (
        "num_train_timesteps",
        "beta_start",
        "beta_end",
        "beta_schedule",
        "trained_betas",
        "rescale_betas_zero_snr",
    )
    schedule = kind(**{key: config[key] for key in known if key in config})
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in ("epsilon", "v_prediction"):
        raise DreamCraftError(
            f"The model in {folder} predicts '{prediction}', which is not supported.",
            "Choose a model that predicts noise (epsilon) or velocity (v_prediction).",
        )
    return NoiseSchedule(schedule.alphas_cumprod.float(), prediction)


def load_network(kind: Any, folder: Path, part: str, *, dtype: torch.dtype, **options: Any) -> Any:
    """A frozen network of class `kind` from a sub-folder, in main memory.

    Raises:
        DreamCraftError: it is missing, damaged, or has no safetensors.
    """
    transformers = kind.__module__.startswith("transformers")
    options[("dtype" if transformers else "torch_dtype")] = dtype
    variants = {variant_of(path.name) for path in (folder / part).glob("*.safetensors")}
    if variants and None not in variants:  # each part by itself: some copies mark only some of them
        options["variant"] = min(filter(None, variants))
    with _explaining(folder, part), quietly():
        network = kind.from_pretrained(folder / part, use_safetensors=True, local_files_only=True, **options)
    return network.eval().requires_grad_(False)


def text_parts() -> tuple[Any, Any, Any, Any]:
    """(CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5Tokenizer).

    Raises:
        MissingDependencyError: transformers is not installed.
    """
    try:
        from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5Tokenizer
    except ImportError as error:
        raise MissingDependencyError(
            "Text-conditioned models need the package transformers.",
            "Install it: `pip install 'dreamcraft3d[models]'`.",
        ) from error
    return CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5Tokenizer


def read_json(path: Path) -> dict[str, Any]:
    """A configuration file of a model. Raises DreamCraftError."""
    with _explaining(path.parent.parent, path.parent.name):
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return values


@contextmanager
def _explaining(folder: Path, part: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise DreamCraftError(
            f"The part '{part}' of the model in {folder} cannot be loaded ({reason}).",
            "The folder must be in diffusers layout with safetensors: `dreamcraft3d models verify NAME --repair`, or "
            "import it again.",
        ) from error


@contextmanager
def quietly() -> Iterator[None]:
    """Their loggers report every unused key, and bars are drawn for each part; ours reports what matters."""
    import diffusers

    diffusers.utils.logging.disable_progress_bar()
    try:
        import transformers

        theirs: Any = transformers.utils.logging
        theirs.disable_progress_bar()
    except ImportError:  # only Stable Diffusion's networks are read, without its text encoder
        pass
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
