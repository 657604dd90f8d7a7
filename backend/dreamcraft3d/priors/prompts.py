"""The object in words, and the words as embeddings: encoded once, kept on disk, and the text encoder is freed.

Ten texts name one object: nothing (for guidance), the user's words, these words from four directions, and the same
with a rare word in front, which a personalised prior fills with this object (DreamBooth's identifier).
"""

import gc
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreamcraft3d.errors import OutputError
from dreamcraft3d.functional.perp_neg import DIRECTIONS
from dreamcraft3d.priors.base import Wording
from dreamcraft3d.priors.components import load_network, precision, text_parts
from dreamcraft3d.priors.models import home
from dreamcraft3d.workspace import atomic_path

__all__ = ["Prompts", "encode_with_clip", "encode_with_t5", "make_prompts", "personal_text", "texts_of"]

logger = logging.getLogger(__name__)

RARE = "sks"
"""A word that means nothing to the text encoders."""
TOKENS = 77
Encode = Callable[[Path, list[str]], Float[Tensor, "N L E"]]


@dataclass(frozen=True)
class Prompts:
    """Embeddings of the ten texts, in the order of `texts_of`."""

    embeddings: Float[Tensor, "10 L E"]

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "Prompts":
        """The same on another device and in another precision."""
        return Prompts(self.embeddings.to(device, dtype))

    def nothing(self, count: int) -> Float[Tensor, "B L E"]:
        """The empty text, for the unconditional branch."""
        return self.embeddings[:1].expand(count, -1, -1)

    def family(self, wording: Wording) -> Float[Tensor, "4 L E"]:
        """The texts of `DIRECTIONS` in a wording; "plain" names none of them."""
        if wording == "plain":
            return self.embeddings[1:2].expand(len(DIRECTIONS), -1, -1)
        return self.embeddings[2:6] if wording == "view" else self.embeddings[6:10]

    def of(self, wording: Wording, direction: Int[Tensor, " B"]) -> Float[Tensor, "B L E"]:
        """Each view's text."""
        return self.family(wording)[direction.to(self.embeddings.device)]


def personal_text(text: str) -> str:
    """The rare word before the noun phrase.

    >>> personal_text("a red bird")
    'a sks red bird'
    """
    article, space, rest = text.partition(" ")
    if space and article.lower() in ("a", "an", "the"):
        return f"a {RARE} {rest}"
    return f"a {RARE} {text}"


def texts_of(text: str) -> list[str]:
    """Nothing, the words, the words from each direction, and these with the rare word."""
    named = [f"{subject}, {direction} view" for subject in (text, personal_text(text)) for direction in DIRECTIONS]
    return ["", text, *named]


def make_prompts(folder: Path, text: str, encode: Encode, *, cache: Path | None = None) -> Prompts:
    """The embeddings by the text encoder of a model, from the cache if they were made before.

    Args:
        cache: folder of embeddings; by default one in the models folder.
    """
    texts = texts_of(text)
    file = (cache or home() / ".embeddings") / f"{_digest(folder, texts)}.safetensors"
    if (known := _read(file)) is not None:
        return Prompts(known)
    embeddings = encode(folder, texts)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    _write(file, embeddings)
    return Prompts(embeddings)


@torch.no_grad()
def encode_with_clip(folder: Path, texts: list[str]) -> Float[Tensor, "N L E"]:
    """Last hidden states of a model's CLIP text encoder (Stable Diffusion), 77 tokens, no mask."""
    CLIPTextModel, CLIPTokenizer, _, _ = text_parts()
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    encoder = load_network(CLIPTextModel, folder, "text_encoder", dtype=torch.float32)
    length = min(TOKENS, encoder.config.max_position_embeddings)
    tokens = tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    hidden: Tensor = encoder(tokens.input_ids)[0]
    return hidden.cpu()


@torch.no_grad()
def encode_with_t5(folder: Path, texts: list[str]) -> Float[Tensor, "N L E"]:
    """Hidden states of a model's T5 encoder (DeepFloyd IF), 77 tokens, with mask, texts as they are.

    With a card the encoder (4.8 billion parameters) runs in half precision there, as far as it fits; the rest of it
    stays in main memory and is brought in layer by layer.
    """
    _, _, T5EncoderModel, T5Tokenizer = text_parts()
    tokenizer = T5Tokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    placing = {"device_map": "auto"} if torch.cuda.is_available() else {}
    encoder = load_network(T5EncoderModel, folder, "text_encoder", dtype=precision(), **placing)
    tokens = tokenizer(texts, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt")
    device = encoder.device
    hidden: Tensor = encoder(tokens.input_ids.to(device), attention_mask=tokens.attention_mask.to(device))[0]
    return hidden.cpu()


def _digest(folder: Path, texts: list[str]) -> str:
    """Of the texts and of what encodes them (names and sizes of the weights stand for the weights)."""
    digest = hashlib.sha256("\n".join(texts).encode("utf-8"))
    for part in ("text_encoder", "tokenizer"):
        for path in sorted((folder / part).iterdir() if (folder / part).is_dir() else ()):
            digest.update(f"{part}/{path.name}:{path.stat().st_size}\n".encode())
            if path.name == "config.json":
                digest.update(path.read_bytes())
    digest.update(str(precision()).encode())
    return digest.hexdigest()[:40]


def _read(file: Path) -> Tensor | None:
    try:
        return load_file(file)["embeddings"] if file.is_file() else None
    except (OSError, SafetensorError, KeyError) as error:
        logger.warning("cannot read %s: %s", file, error)
        return None


def _write(file: Path, embeddings: Tensor) -> None:
    """A cache that cannot be written costs time later, nothing else."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(file) as path:
            save_file({"embeddings": embeddings.contiguous()}, path)
    except (OSError, OutputError) as error:
        logger.warning("cannot write %s: %s", file, error)
