"""`bench_card` in small: its models load, the run goes through, and on a card every figure is there."""

from pathlib import Path

import pytest
import torch

from dreamcraft3d.config import GUIDED_STAGES
from dreamcraft3d.evaluation.bench_card import compare_with_plan, shortened, table

pytestmark = pytest.mark.slow

BRIEF = {"coarse_nerf.steps": 4, "neus.steps": 2, "geometry.steps": 2, "texture.steps": 4, "neus.fit_steps": 5}
PLANNED = {"stages": [{"stage": stage, "weights": 1, "training": 1, "peak": 1} for stage in GUIDED_STAGES]}


def test_every_stage_is_measured(card: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMCRAFT3D_MODELS", str(tmp_path / "models"))
    config = shortened("balanced", BRIEF, tiny=True)
    record = compare_with_plan(config, tmp_path / "run", tiny=True, planned=PLANNED)
    assert [row["stage"] for row in record["stages"]] == list(GUIDED_STAGES)
    for row in record["stages"]:
        measured = row["measured"]
        assert measured["weights"] > 0 and measured["seconds_per_step"] > 0.0
        assert card.type == "cpu" or measured["used"] >= measured["reserved"] >= measured["allocated"] > 0
    assert record["stages"][-1]["measured"]["trained"] > 0
    assert all(stage in table(record) for stage in GUIDED_STAGES)
