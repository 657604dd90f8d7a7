"""Adapters on a frozen U-Net: the two of bootstrapped score distillation, for the memory of one network.

The *personal* adapter is the prior after it has learnt this object (DreamBooth), the *variational* adapter the score of
the renders as they are now (ProlificDreamer). Each is a low-rank change of some layers (LoRA through PEFT, in fp32
whatever the network's precision: in half precision such small steps are lost, issue B1) and an embedding of the camera
that is added to that of the timestep. With neither adapter the U-Net answers as before, bit by bit.
"""

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dreamcraft3d.errors import MissingDependencyError
from dreamcraft3d.functional.cameras import orbit
from dreamcraft3d.priors.base import Personalisable, ViewCondition

__all__ = ["Adapter", "AdapterName", "Adapters", "attached", "camera_vector"]

AdapterName = Literal["personal", "variational"]
CAMERA = 16


def camera_vector(condition: ViewCondition) -> Float[Tensor, "B 16"]:
    """The camera-to-world matrices of the wanted views, row by row; the reference camera stands on +x."""
    return orbit(condition.elevation, condition.azimuth).c2w.flatten(1)


class Adapter:
    """One adapter: its layers in the U-Net by name, and its embedding of the camera."""

    def __init__(self, layers: Mapping[str, nn.Parameter], camera: nn.Sequential) -> None:
        self.layers, self.camera = layers, camera

    def parameters(self) -> list[nn.Parameter]:
        """Everything that learns."""
        return [*self.layers.values(), *self.camera.parameters()]

    def state_dict(self) -> dict[str, Any]:
        """Copies nothing; see `stages.run.StageRun`."""
        return {"layers": dict(self.layers), "camera": self.camera.state_dict()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes the flat names of a checkpoint ("layers/...", "camera/...")."""
        camera = dict(self.camera.named_parameters())
        for path, tensor in state.items():
            kind, _, name = path.partition("/")
            (self.layers if kind == "layers" else camera)[name].copy_(tensor)


class Adapters:
    """Two adapters on the U-Net of a prior; `using` chooses the active one. Remove them with `close`."""

    def __init__(self, prior: Personalisable, ranks: Mapping[AdapterName, int], generator: torch.Generator) -> None:
        self.unet: Any = prior.unet
        self._camera: Float[Tensor, "B 16"] | None = None
        self._active: AdapterName | None = None
        width = int(self.unet.time_embedding.linear_2.out_features)
        self.by_name: dict[AdapterName, Adapter] = {}
        for name, rank in ranks.items():
            layers = _add_layers(self.unet, name, rank, prior.adapted, generator)
            self.by_name[name] = Adapter(layers, _camera_embedding(width, generator, self.unet.device))
        self._hook = self.unet.time_embedding.register_forward_hook(self._add_camera)
        self.unet.disable_adapters()

    @contextmanager
    def using(self, adapter: AdapterName | None, camera: Float[Tensor, "B 16"] | None = None) -> Iterator[None]:
        """Makes one adapter active (None: the prior as it was), told the cameras of the pictures that will be asked.

        A backward pass belongs into the block too: PEFT freezes what is not active, and recomputed activations
        (gradient checkpointing) have to go through the same adapter as before.
        """
        before = self._active, self._camera
        self._choose(adapter, camera)
        try:
            yield
        finally:
            self._choose(*before)

    def close(self) -> None:
        """Gives the U-Net back as it was: no adapter, no camera."""
        self._hook.remove()
        self.unet.unload_lora()  # puts the very layers back that the adapters wrapped
        self.unet.requires_grad_(False)

    def _choose(self, adapter: AdapterName | None, camera: Float[Tensor, "B 16"] | None) -> None:
        self._camera = camera
        if adapter == self._active:
            return
        self._active = adapter
        if adapter is None:
            self.unet.disable_adapters()
        else:
            self.unet.set_adapter(adapter)
            self.unet.enable_adapters()

    def _add_camera(self, module: nn.Module, inputs: object, embedding: Tensor) -> Tensor:
        """A branch of guidance repeats the batch of pictures, so their cameras are repeated as often."""
        if self._active is None or self._camera is None:
            return embedding
        camera = self._camera.to(embedding.device, torch.float32)
        term: Tensor = self.by_name[self._active].camera(camera)
        return embedding + term.repeat(len(embedding) // len(term), 1).to(embedding)


@contextmanager
def attached(prior: Personalisable, ranks: Mapping[AdapterName, int], generator: torch.Generator) -> Iterator[Adapters]:
    """Adapters for the time of a block: a prior that serves the next run too must forget this object."""
    adapters = Adapters(prior, ranks, generator)
    try:
        yield adapters
    finally:
        adapters.close()


def _add_layers(
    unet: Any, name: AdapterName, rank: int, adapted: tuple[str, ...], generator: torch.Generator
) -> dict[str, nn.Parameter]:
    """Low-rank layers B A with B = 0; A from our own random numbers, so that a resumed run begins alike."""
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise MissingDependencyError(
            "Bootstrapped score distillation needs the package peft.",
            "Install it with `pip install 'dreamcraft3d[models]'`, or set texture.bootstrap.form to none.",
        ) from error
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # the second adapter, as intended
        unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(adapted)), adapter_name=name)
    layers = {key: p for key, p in unet.named_parameters() if "lora_" in key and f".{name}." in key}
    for key, parameter in layers.items():
        parameter.data = parameter.data.float()
        if "lora_A" in key:
            fresh = torch.empty(parameter.shape)
            nn.init.kaiming_uniform_(fresh, a=math.sqrt(5.0), generator=generator)
            parameter.data.copy_(fresh)
    return layers


def _camera_embedding(width: int, generator: torch.Generator, device: torch.device) -> nn.Sequential:
    """16 -> width -> width; says nothing before it has learnt something."""
    embedding = nn.Sequential(nn.Linear(CAMERA, width), nn.SiLU(), nn.Linear(width, width))
    with torch.no_grad():
        for parameter in embedding[0].parameters():
            parameter.uniform_(-(CAMERA**-0.5), CAMERA**-0.5, generator=generator)
        for parameter in embedding[2].parameters():
            parameter.zero_()
    return embedding.to(device)
