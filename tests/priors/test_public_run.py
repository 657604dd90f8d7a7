"""The whole way with all public families at once, tiny and random: what comes out is nonsense, but it comes out."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dreamcraft3d.errors import ConfigError
from dreamcraft3d.pipeline import generate
from dreamcraft3d.progress import Progress
from dreamcraft3d.workspace import Workspace
from tiny import LEARNING, tiny_config
from tiny_models import save_deepfloyd, save_stable_diffusion, save_zero123

BRIEF: dict[str, Any] = {
    "coarse_nerf.steps": 40,
    "neus.steps": 8,
    "geometry.steps": 6,
    "texture.steps": 6,
    **LEARNING,
    "texture.guidance.form": "sds",
    "texture.guidance.view_weight": 0.0,
    "texture.guidance.image_weight": 0.001,
}


def picture(folder: Path) -> Path:
    image = Image.new("RGBA", (96, 96), (0, 0, 0, 0))
    image.paste((200, 40, 30, 255), (24, 16, 72, 80))
    path = folder / "box.png"
    image.save(path)
    return path


@pytest.mark.slow
def test_a_run_with_all_public_families(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMCRAFT3D_MODELS", str(tmp_path / "home"))
    names = {
        "priors.view": str(save_zero123(tmp_path / "zero")),
        "priors.image": str(save_deepfloyd(tmp_path / "floyd")),
        "priors.texture": str(save_stable_diffusion(tmp_path / "diffusion")),
    }
    faint = {f"{stage}.guidance.view_weight": 0.001 for stage in ("coarse_nerf", "neus", "geometry")}
    two_d = {f"{stage}.guidance.image_weight": 0.001 for stage in ("coarse_nerf", "neus", "geometry")}
    config = tiny_config({**BRIEF, **names, **faint, **two_d})
    with pytest.raises(ConfigError, match="words"):
        generate(picture(tmp_path), config, Workspace(tmp_path / "out"), Progress())
    config = config.model_copy(update={"prompt": "a red box"})
    result = generate(picture(tmp_path), config, Workspace(tmp_path / "out"), Progress())
    assert result.glb.stat().st_size > 1000
    stages = result.report["stages"]
    # a step of both priors: Zero123 asks a pair for each picture, IF four (Perp-Neg)
    batch = config.neus.guidance.batch
    assert stages["neus"]["prior_evaluations"] == 4 * batch * (1 + 4)
    assert result.report["priors"] == list(names.values())
    assert stages["texture"]["prior_evaluations"] > 0
