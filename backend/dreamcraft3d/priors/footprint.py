"""How much memory the real networks need: built from their real configurations on the meta device, run without data.

A tensor on torch's meta device has a shape, a type and no content, so that a network of billions of parameters is built
and run in a second anywhere. `LiveBytes` watches which tensors are alive, in the forward and in the backward pass. What
differs from a card: workspaces of its libraries, rounding of its allocator, and the attention kernel, for which one
that keeps no score matrix is assumed (torch's own on CUDA).
"""

import gc
import importlib
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from dreamcraft3d.errors import MissingDependencyError
from dreamcraft3d.priors.models import network

__all__ = [
    "LiveBytes",
    "add_adapters",
    "bytes_of",
    "decode_peak",
    "encode_peak",
    "noise_peak",
    "sample_size",
    "skeleton",
    "train_peak",
    "weights",
]

META = torch.device("meta")
TOKENS = 77
"""Length of a prompt's embedding."""


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors made while it is active and still alive; `peak` is the largest sum so far."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now: int = 0
        self.peak: int = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in tree_iter((args, kwargs)):
            if isinstance(tensor, Tensor):  # weights and inputs were there before; a view of them is not new
                self._known.add(tensor.untyped_storage())
        result = func(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor):
                self._watch(tensor.untyped_storage())
        return result

    def _watch(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, size)

    def _forget(self, size: int) -> None:
        self.now -= size


class _Attention(torch.autograd.Function):
    """Shapes and saved tensors of attention without a score matrix: q, k, v, the result and one number per query."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        result = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, result, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = ctx.saved_tensors[:3]
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


@contextmanager
def _lean_attention() -> Iterator[None]:
    """Replaces torch's attention, which on the meta device would be the one with a score matrix.

    By name rather than by a mode: modes are off when checkpointing runs a block again inside the backward pass.
    """
    attention: Any = _Attention
    ours: Any = lambda query, key, value, *_, **__: attention.apply(query, key, value)  # noqa: E731
    theirs = torch.nn.functional.scaled_dot_product_attention
    torch.nn.functional.scaled_dot_product_attention = ours
    try:
        yield
    finally:
        torch.nn.functional.scaled_dot_product_attention = theirs


def skeleton(name: str, *, dtype: torch.dtype = torch.float16) -> nn.Module:
    """A network of `networks/` without content, frozen and in evaluation mode."""
    import diffusers

    record = network(name)
    with META:
        if hasattr(diffusers, record["kind"]):
            built = getattr(diffusers, record["kind"])(**record["config"])
        else:
            kind = getattr(_library("transformers"), record["kind"])
            built = kind(kind.config_class(**record["config"]))
    module: nn.Module = nn.Module.to(built, dtype)  # diffusers' own warns that weights on the disk may want fp32 parts
    return module.eval().requires_grad_(False)


def add_adapters(unet: nn.Module, ranks: tuple[int, ...]) -> int:
    """Adds one low-rank adapter (fp32, attention layers) per rank; the last one trains. Returns their parameters."""
    peft = _library("peft")
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    before = {id(parameter) for parameter in unet.parameters()}
    adapted: Any = unet
    with META, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # two adapters are what we want
        for index, rank in enumerate(ranks):
            adapted.add_adapter(peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=targets), f"adapter{index}")
    added = [parameter for parameter in unet.parameters() if id(parameter) not in before]
    for parameter in added:
        parameter.data = parameter.data.float()
    return sum(parameter.numel() for parameter in added)


def _library(name: str) -> Any:
    """An optional library. Raises MissingDependencyError without it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingDependencyError(
            f"The public models need {name}, which is not installed.", "Run: pip install 'dreamcraft3d[models]'."
        ) from error


def sample_size(name: str) -> int:
    """Side of what a U-Net denoises, in pixels or latents."""
    return int(network(name)["config"]["sample_size"])


def bytes_of(module: nn.Module) -> int:
    """Bytes of the parameters and buffers."""
    return sum(tensor.numel() * tensor.element_size() for tensor in [*module.parameters(), *module.buffers()])


@cache
def weights(name: str) -> int:
    """Bytes of a network's weights in half precision."""
    return bytes_of(skeleton(name))


@cache
def noise_peak(name: str, *, batch: int) -> int:
    """Bytes alive at the worst moment of a forward pass without gradient, beside the weights."""
    unet: Any = skeleton(name)
    inputs = _inputs(name, batch)
    with torch.no_grad():
        return _peak(lambda: unet(**inputs))


@cache
def train_peak(name: str, *, batch: int, ranks: tuple[int, ...], checkpointing: bool) -> int:
    """Bytes alive at the worst moment of a training step of the last adapter (forward and backward), beside weights."""
    unet: Any = skeleton(name)
    add_adapters(unet, ranks)
    if checkpointing:
        unet.enable_gradient_checkpointing()
        unet.train()
    inputs = _inputs(name, batch)

    def step() -> None:
        unet(**inputs).sample.float().square().mean().backward()

    return _peak(step)


@cache
def encode_peak(name: str, *, size: int, batch: int) -> int:
    """Bytes alive at the worst moment of an image autoencoder's encoder with its backward pass into the picture."""
    autoencoder: Any = skeleton(name)
    picture = torch.empty(batch, 3, size, size, device=META, dtype=torch.float16, requires_grad=True)

    def step() -> None:
        autoencoder.encode(picture).latent_dist.mean.sum().backward()

    return _peak(step)


@cache
def decode_peak(name: str, *, size: int, batch: int) -> int:
    """Bytes alive at the worst moment of an image autoencoder's decoder, without gradient."""
    autoencoder: Any = skeleton(name)
    latents = torch.empty(batch, 4, size // 8, size // 8, device=META, dtype=torch.float16)
    with torch.no_grad():
        return _peak(lambda: autoencoder.decode(latents))


def _inputs(name: str, batch: int) -> dict[str, Tensor]:
    """What a U-Net is given: noisy pictures or latents, timesteps, embeddings."""
    config = network(name)["config"]
    size, channels = config["sample_size"], config["in_channels"]
    width = config.get("encoder_hid_dim", config["cross_attention_dim"])
    tokens = 1 if channels == 8 and width == 768 else TOKENS  # Zero123 has one token
    half = {"device": META, "dtype": torch.float16}
    return {
        "sample": torch.empty(batch, channels, size, size, **half),  # type: ignore[call-overload]
        "timestep": torch.empty(batch, device=META, dtype=torch.int64),
        "encoder_hidden_states": torch.empty(batch, tokens, width, **half),  # type: ignore[call-overload]
    }


def _peak(work: Callable[[], object]) -> int:
    gc.collect()
    with _lean_attention(), LiveBytes() as live:
        work()
    peak: int = live.peak
    return peak
