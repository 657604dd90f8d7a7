"""What a run really needs on a card, beside what `dreamcraft3d plan` says.

    python -m dreamcraft3d.evaluation.bench_card --preset fast

The public models of a preset are made here with their real sizes and random weights, laid out as `models download`
would leave them, and a whole run asks them at the preset's real sizes for a few steps per stage. Text encoders are left
out: they are used once and freed before the first stage, so random embeddings of their width lie in the cache instead.
What the run makes is nonsense; its memory and the seconds of its steps are not.

Letters: allocated = bytes of torch's tensors, reserved = what torch's allocator took for them, used = what the whole
card misses (with the context, Warp's own arrays, and other programs).
"""

import argparse
import gc
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from dreamcraft3d.config import GUIDED_STAGES, GenerateConfig, parse_setting
from dreamcraft3d.evaluation.plan import CONTEXT, make_plan, texture_memory
from dreamcraft3d.kernels.dispatch import default_device
from dreamcraft3d.pipeline import generate, load_priors
from dreamcraft3d.presets import configure
from dreamcraft3d.priors.components import quietly
from dreamcraft3d.priors.footprint import skeleton
from dreamcraft3d.priors.loading import needs_words
from dreamcraft3d.priors.model_files import Manifest, ModelFile, write_manifest
from dreamcraft3d.priors.models import HOME_VARIABLE, Entry, entry, home, installed, variant_in
from dreamcraft3d.priors.prompts import make_prompts
from dreamcraft3d.priors.residency import Shelf
from dreamcraft3d.progress import Artifact, Event, Progress, StageFinished, StageStarted, StepDone, Warned
from dreamcraft3d.stages.memory import release
from dreamcraft3d.workspace import Workspace

__all__ = ["CUT", "Readings", "compare_with_plan", "install_hollow", "main"]

GIB = 1 << 30
PROMPT = "a red box"
POSE = 4
TOKENS = 77

CUT: dict[str, Any] = {
    "coarse_nerf.steps": 10,
    "neus.steps": 10,
    "neus.fit_steps": 20,
    "geometry.steps": 6,
    "texture.steps": 8,
    "texture.fit_steps": 20,
    "texture.bootstrap.rounds": 1,
    "texture.bootstrap.round_steps": 4,
    "texture.bootstrap.round_views": 2,
    "texture.bootstrap.sampling_steps": 4,
    "export.target_faces": 2000,
    "export.texture_size": 256,
    "export.unwrap_seconds": 20.0,
}
"""As short as it gets: even and odd steps at every render size, and a few of everything that learns."""

TINY: dict[str, Any] = {
    "reference.size": 64,
    "coarse_nerf.render_size": 32,
    "neus.render_size": 32,
    "geometry.render_size": 64,
    "texture.render_size": 64,
    "texture.reference_size": 64,
}
NARROW = 32
"""Width of everything in tiny networks."""


# --- models of the real sizes without content ---------------------------------------------------------


def install_hollow(model: Entry, store: Path, *, tiny: bool) -> None:
    """A model of the catalogue with random weights in half precision, complete in the models folder."""
    folder = store / model.name
    for part, kind in model.networks.items():
        if not part.startswith("text_encoder"):
            network: Any = _filled(_skeleton(kind, tiny=tiny), default_device())
            with quietly():
                network.save_pretrained(folder / part, variant="fp16")
            del network
    config = {**model.schedule, "prediction_type": model.prediction_type}
    (folder / "scheduler").mkdir(parents=True, exist_ok=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config), encoding="utf-8")
    if "clip_camera_projection" in model.files:
        _write_projection(folder / "clip_camera_projection", NARROW if tiny else 768)
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    files = [ModelFile(path.relative_to(folder).as_posix(), path.stat().st_size, "sha256", "") for path in paths]
    write_manifest(folder, Manifest(model.name, "", "", variant_in(folder), tuple(files)))
    if needs_words(model.name):
        _write_embeddings(folder, model, tiny=tiny)


def _skeleton(kind: str, *, tiny: bool) -> nn.Module:
    """A network of the catalogue on the meta device, as it is or narrowed."""
    whole: Any = skeleton(kind)
    if not tiny:
        return whole  # type: ignore[no-any-return]
    with torch.device("meta"):
        if hasattr(whole, "from_config"):
            narrow: nn.Module = type(whole).from_config({**whole.config, **_narrowed(whole.config)})
        else:
            settings = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4,
                        "image_size": 32, "patch_size": 8, "projection_dim": NARROW}  # fmt: skip
            narrow = type(whole)(whole.config_class(**settings))
    return nn.Module.to(narrow, torch.float16)


def _narrowed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Two narrow levels instead of four wide ones."""
    blocks = {key: [config[key][k] for k in (0, -1)] for key in ("down_block_types", "up_block_types")}
    narrow = {**blocks, "block_out_channels": [32, 64], "layers_per_block": 1}
    if "cross_attention_dim" not in config:
        return {**narrow, "sample_size": 16}
    narrow |= {"sample_size": 8, "cross_attention_dim": NARROW, "attention_head_dim": 4}
    if config.get("encoder_hid_dim"):
        narrow |= {"encoder_hid_dim": NARROW, "attention_head_dim": 16, "addition_embed_type_num_heads": 4}
    return narrow


@torch.no_grad()
def _filled(network: nn.Module, device: torch.device) -> nn.Module:
    """Small random numbers; layers that normalise keep what they are given, so that nothing grows without end."""
    network = network.to_empty(device=device)
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            parameter.normal_(0.0, 0.02)
        else:
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
    return network


def _write_projection(folder: Path, width: int) -> None:
    """From (CLIP embedding, pose) to the token of Zero123."""
    folder.mkdir(parents=True, exist_ok=True)
    weight = 0.02 * torch.randn(width, width + POSE)
    state = {"proj.weight": weight.half(), "proj.bias": torch.zeros(width).half()}
    save_file(state, folder / "diffusion_pytorch_model.safetensors")


def _write_embeddings(folder: Path, model: Entry, *, tiny: bool) -> None:
    """What the text encoder would have said, into the cache where the prior looks first."""
    config: Mapping[str, Any] = skeleton(model.networks["unet"]).config  # type: ignore[assignment]
    width = NARROW if tiny else int(config.get("encoder_hid_dim") or config["cross_attention_dim"])
    make_prompts(folder, PROMPT, lambda _, texts: torch.randn(len(texts), TOKENS, width))


# --- reading the card ---------------------------------------------------------------------------------


@dataclass
class Readings:
    """One stage: bytes at the worst moment, the priors' own bytes, and the times of its steps in seconds."""

    allocated: int = 0
    reserved: int = 0
    used: int = 0
    weights: int = 0
    trained: int = 0
    steps: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Per step, without the first half, in which kernels are compiled and chosen."""
        late = self.steps[len(self.steps) // 2 :]
        return sum(late) / max(len(late), 1)


class Meter:
    """A sink that reads the card's memory as the run goes on."""

    def __init__(self, shelf: Shelf, device: torch.device) -> None:
        self._shelf, self._device, self._before = shelf, device, 0.0
        self.stages: dict[str, Readings] = {}
        self.warnings: list[str] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, Warned):
            self.warnings.append(event.text)
        if isinstance(event, Artifact) and self._device.type != "cpu":
            gc.collect()
            torch.cuda.empty_cache()  # what one stage reserved is not the next one's
        if getattr(event, "stage", None) not in GUIDED_STAGES:
            return
        if isinstance(event, StageStarted):
            self.stages[event.stage] = Readings()
        readings = self.stages[event.stage]  # type: ignore[attr-defined]
        if isinstance(event, StepDone):
            self._step(readings, last=event.step == event.total)
        if isinstance(event, StageFinished):
            self._peak(readings)
        self._before = time.perf_counter()

    def _step(self, readings: Readings, *, last: bool) -> None:
        if self._device.type != "cpu":
            torch.cuda.synchronize(self._device)
            free, total = torch.cuda.mem_get_info(self._device)
            readings.used = max(readings.used, total - free)
        readings.steps.append(time.perf_counter() - self._before)
        if last:
            networks = [network for prior in self._shelf.all() for network in _networks(prior)]
            frozen = [p for network in networks for name, p in network.named_parameters() if "lora_" not in name]
            readings.weights = sum(_bytes(p) for p in frozen if p.device.type == self._device.type)
            readings.trained = _trained(networks)

    def _peak(self, readings: Readings) -> None:
        if self._device.type != "cpu":
            readings.allocated = torch.cuda.max_memory_allocated(self._device)
            readings.reserved = torch.cuda.max_memory_reserved(self._device)


def _networks(prior: object) -> list[nn.Module]:
    """The networks that a prior holds."""
    return [part for part in vars(prior).values() if isinstance(part, nn.Module)]


def _trained(networks: Sequence[nn.Module]) -> int:
    """Bytes of the adapters with their camera embeddings, gradients and moments, as their optimisers hold them.

    A gradient is freed after its step; it is counted like its parameter.
    """
    adapted = {id(p) for network in networks for name, p in network.named_parameters() if "lora_" in name}
    total = 0
    for optimiser in [found for found in gc.get_objects() if issubclass(type(found), torch.optim.Optimizer)]:
        parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        if any(id(parameter) in adapted for parameter in parameters):
            moments = [t for state in optimiser.state.values() for t in state.values() if isinstance(t, Tensor)]
            total += 2 * sum(_bytes(parameter) for parameter in parameters) + sum(_bytes(t) for t in moments)
    return total


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


# --- the run ------------------------------------------------------------------------------------------


def shortened(preset: str, settings: Mapping[str, Any], *, tiny: bool) -> GenerateConfig:
    """The preset at its own sizes, with few steps, and priors whose random opinions hardly count."""
    whole = configure(preset)
    faint = {
        f"{stage}.guidance.{key}": 1e-4
        for stage in GUIDED_STAGES
        for key in ("view_weight", "image_weight")
        if getattr(getattr(whole, stage).guidance, key) > 0.0
    }
    return configure(preset, {**faint, **CUT, **(TINY if tiny else {}), "prompt": PROMPT, **settings})


def compare_with_plan(
    config: GenerateConfig, folder: Path, *, tiny: bool = False, planned: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Installs what the configuration asks for where it is missing, runs it, and compares.

    Args:
        folder: for the run's files; the models go where the models folder is. planned: what `plan --json` said.
    """
    times = {"start": time.perf_counter()}
    for name in config.prior_names():
        if installed(name) is None:
            install_hollow(entry(name), home(), tiny=tiny)
    release()
    times["models"] = time.perf_counter()
    stages = planned["stages"] if planned is not None else _plan(config)
    times["plan"] = time.perf_counter()
    shelf = load_priors(config)
    meter = Meter(shelf, default_device())
    result = generate(_picture(folder), config, Workspace(folder / "out"), Progress((meter,)), shelf=shelf)
    times["run"] = time.perf_counter()
    return {
        "preset": config.preset,
        "card": result.report.get("device", ""),
        "seconds": {after: round(times[after] - times[before], 1) for before, after in itertools.pairwise(times)},
        "stages": [_row(stage, meter.stages[stage["stage"]]) for stage in stages],
        "texture": {**asdict(texture_memory(config)), "measured": _held(meter)},
        "warnings": meter.warnings,
        "report": result.report["stages"],
    }


def _plan(config: GenerateConfig) -> list[dict[str, Any]]:
    return [{**asdict(stage), "peak": stage.peak} for stage in make_plan(config).stages]


def _row(planned: Mapping[str, Any], readings: Readings) -> dict[str, Any]:
    """A stage as planned and as measured."""
    measured = {**asdict(readings), "seconds_per_step": round(readings.seconds, 4)}
    return {"stage": planned["stage"], "planned": dict(planned), "measured": measured}


def _held(meter: Meter) -> int:
    """Weights and training of the texture stage."""
    return meter.stages["texture"].weights + meter.stages["texture"].trained


def _picture(folder: Path) -> Path:
    """A red box on nothing."""
    image = Image.new("RGBA", (512, 512), (0, 0, 0, 0))
    image.paste((200, 40, 30, 255), (128, 96, 384, 416))
    folder.mkdir(parents=True, exist_ok=True)
    image.save(folder / "box.png")
    return folder / "box.png"


def table(record: Mapping[str, Any]) -> str:
    """GiB per stage: the plan's parts and peak, what was measured, and what of it is outside of torch."""
    head = ("weights", "measured", "training", "measured", "planned", "allocated", "reserved", "used")
    lines = [
        f"{record['preset']} on {record['card']}: GiB",
        f"{'':12}" + "".join(f"{word:>10}" for word in head) + "  s/step",
    ]
    for row in record["stages"]:
        plan, seen = row["planned"], row["measured"]
        numbers = (plan["weights"], seen["weights"], plan["training"], seen["trained"], plan["peak"],
                   seen["allocated"], seen["reserved"], seen["used"])  # fmt: skip
        cells = "".join(f"{number / GIB:10.3f}" for number in numbers)
        lines.append(f"{row['stage']:12}{cells}{seen['seconds_per_step']:8.3f}")
    texture = {key: f"{number / GIB:.3f}" for key, number in record["texture"].items()}
    lines.append(f"texture stage, parameters and optimiser state: {texture}")
    lines += [f"took: {record['seconds']}", *(f"warning: {text}" for text in record["warnings"])]
    return "\n".join(lines) + "\n"


@contextmanager
def _models_folder(chosen: Path | None) -> Iterator[Path]:
    """A models folder of our own, in main memory where the system has such a place; `chosen` is kept."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as temporary:
        store, before = chosen or Path(temporary) / "models", os.environ.get(HOME_VARIABLE)
        store.mkdir(parents=True, exist_ok=True)
        os.environ[HOME_VARIABLE] = str(store)
        try:
            yield Path(temporary)
        finally:
            os.environ.pop(HOME_VARIABLE)
            if before is not None:
                os.environ[HOME_VARIABLE] = before


def _hold_back(gib: float | None) -> None:
    """Lets torch have no more memory than on a card of this size, beside the context that the plan assumes."""
    if gib is not None and torch.cuda.is_available():
        total = torch.cuda.get_device_properties(default_device()).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, (gib * GIB - CONTEXT) / total))


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, runs, and writes the table and the record."""
    parser = argparse.ArgumentParser(description="what a run really needs on a card")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--scale", choices=("full", "tiny"), default="full", help="tiny: networks for a try-out")
    parser.add_argument("--store", type=Path, help="models folder to use and keep (default: one for this run)")
    parser.add_argument("--plan", type=Path, help="what `dreamcraft3d plan --json` said, to save its time")
    parser.add_argument("--card-gib", type=float, help="work as on a card of this size")
    parser.add_argument("--json", type=Path, help="where the record goes")
    chosen = parser.parse_args(arguments)
    tiny = chosen.scale == "tiny"
    config = shortened(chosen.preset, dict(parse_setting(text) for text in chosen.settings), tiny=tiny)
    planned = json.loads(chosen.plan.read_text(encoding="utf-8")) if chosen.plan else None
    with _models_folder(chosen.store) as folder:
        _hold_back(chosen.card_gib)
        record = compare_with_plan(config, folder / "run", tiny=tiny, planned=planned)
    if chosen.json:
        chosen.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(table(record))


if __name__ == "__main__":
    main()
