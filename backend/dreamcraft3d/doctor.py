"""Can this machine do the job? Each check says ok, warn (works, but something better is missing) or fail, and the
cure.
"""

import importlib.metadata
import importlib.resources
import importlib.util
import platform
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

__all__ = ["Check", "examine"]

Status = Literal["ok", "warn", "fail"]
GIB = 1 << 30

REINSTALL = "Run `python3 build.py setup` again."


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    name: str
    status: Status
    detail: str
    cure: str = ""


def examine(folder: Path | None = None) -> list[Check]:
    """All checks, in the order in which a run would need them. `folder`: where results would go (default: here)."""
    checks: list[Callable[[], Check]] = [
        _python,
        _torch,
        _kernels,
        lambda: _disk(folder or Path.cwd()),
        _memory,
        _weights,
        _graphics_card,
        _accelerators,
        _matting,
        _models,
    ]
    return [check() for check in checks]


def _python() -> Check:
    """Only told: pip refuses to install the package for an older one."""
    return Check("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _torch() -> Check:
    try:
        import torch

        torch.ones(4, 4) @ torch.ones(4, 4)
    except (ImportError, OSError, RuntimeError) as error:
        return Check("torch", "fail", _first_line(error), REINSTALL)
    version, wanted = torch.__version__.partition("+")[0], _pinned("torch")
    if wanted and version != wanted:
        return Check("torch", "warn", f"{torch.__version__}, tested with {wanted}", REINSTALL)
    return Check("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads")


def _kernels() -> Check:
    """Compiles and runs the smallest kernel, which proves that Warp works here."""
    try:
        version = importlib.metadata.version("warp-lang")
        import torch

        from dreamcraft3d.kernels.compositing import render_weights

        weights = render_weights(torch.tensor([0.5, 1.0]), torch.tensor([0, 2]))
        if not torch.allclose(weights, torch.tensor([0.5, 0.5])):
            return Check("warp", "fail", f"{version} computes nonsense: {weights.tolist()}", REINSTALL)
    except Exception as error:  # noqa: BLE001 - whatever a broken installation raises is the finding
        return Check("warp", "fail", _first_line(error), REINSTALL)
    return Check("warp", "ok", f"{version}, kernels compile and run")


def _disk(folder: Path) -> Check:
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free / GIB
    detail = f"{free:.1f} GiB free at {existing}"
    if free < 0.5:
        return Check("disk", "fail", detail, "Free at least 0.5 GiB, or choose another --out folder.")
    if free < 2.0:
        return Check("disk", "warn", detail, "A run with the paper preset needs up to 2 GiB.")
    return Check("disk", "ok", detail)


def _memory() -> Check:
    free = psutil.virtual_memory().available / GIB
    if free < 1.5:
        return Check("memory", "fail", f"{free:.1f} GiB free", "Close other programs: the preview preset needs 3 GiB.")
    if free < 3.0:
        return Check("memory", "warn", f"{free:.1f} GiB free", "The preview preset needs 3 GiB; it may get slow.")
    return Check("memory", "ok", f"{free:.1f} GiB free")


def _weights() -> Check:
    folder = importlib.resources.files("dreamcraft3d") / "priors" / "weights"
    found = [file.name for file in folder.iterdir() if file.name.endswith(".safetensors")] if folder.is_dir() else []
    if not found:
        return Check("bundled prior", "fail", "its weights are missing", "Clone or install the project again.")
    return Check("bundled prior", "ok", ", ".join(sorted(found)))


def _graphics_card() -> Check:
    try:
        import torch
    except (ImportError, OSError):
        return Check("graphics card", "warn", "unknown, because torch does not import", REINSTALL)
    if not torch.cuda.is_available():
        return Check("graphics card", "ok", "none that torch can use: everything runs on the processor")
    from dreamcraft3d.kernels.dispatch import default_device
    from dreamcraft3d.kernels.selfcheck import card_trouble

    memory = torch.cuda.get_device_properties(0).total_memory / GIB
    name, trouble = f"{torch.cuda.get_device_name(0)}, {memory:.0f} GiB", card_trouble(default_device())
    if trouble is not None:
        cure = "Renew the graphics driver. Until then the processor holds the scene."
        return Check("graphics card", "warn", f"{name}; our kernels fail on it ({trouble})", cure)
    return Check("graphics card", "ok", f"{name}; our kernels agree with those on the processor")


def _accelerators() -> Check:
    found = [name for name in ("tinycudann", "nerfacc") if importlib.util.find_spec(name)]
    return Check("accelerators", "ok", ", ".join(found) if found else "none (optional, for NVIDIA cards)")


def _matting() -> Check:
    try:
        from dreamcraft3d.stages.matting import rembg_model
    except ImportError as error:
        return Check("background removal", "fail", _first_line(error), REINSTALL)
    model = rembg_model()
    if model is None:
        cure = "For hard pictures: pip install 'dreamcraft3d[matting]', then once `rembg d u2net`."
        return Check("background removal", "warn", "GrabCut (no rembg, or no model file of it)", cure)
    return Check("background removal", "ok", f"rembg with {model}")


def _models() -> Check:
    missing = [name for name in ("diffusers", "transformers", "peft") if not importlib.util.find_spec(name)]
    if "diffusers" in missing:
        return Check("model libraries", "fail", "diffusers is missing", REINSTALL)
    if missing:
        cure = "For the big public priors: pip install 'dreamcraft3d[models]'."
        return Check("model libraries", "ok", f"diffusers; not {', '.join(missing)}", cure)
    return Check("model libraries", "ok", "diffusers, transformers, peft")


def _pinned(package: str) -> str | None:
    """The version that pyproject.toml asks for, if this is a source tree."""
    project = Path(__file__).resolve().parents[2] / "pyproject.toml"
    if not project.is_file():
        return None
    dependencies = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"]
    return next((line.partition("==")[2] for line in dependencies if line.startswith(f"{package}==")), None)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
