import pytest

from dreamcraft3d import export
from dreamcraft3d.evaluation import ablation
from dreamcraft3d.progress import Progress
from tiny import lopsided_textured


@pytest.mark.slow
def test_a_prior_beats_none_and_the_table_tells_it(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    mesh = tmp_path / "lopsided.glb"
    mesh.write_bytes(export.write_glb(lopsided_textured()))
    chosen = {name: ablation.VARIANTS[name] for name in ("full method", "no prior at all")}
    monkeypatch.setattr(ablation, "VARIANTS", chosen)
    monkeypatch.setattr(ablation, "BASE", {**ablation.BASE, "steps": 60})
    rows = list(ablation.ablate([mesh], seeds=1, progress=Progress()))
    full, none = rows
    assert full.iou > none.iou + 0.05
    assert (full.evaluations, none.evaluations) == (2 * 60, 0)  # two views in every second step, two priors
    table = ablation.ablation_table(rows)
    assert table.count("\n") == 3
    assert f"| full method | {full.iou:.3f}" in table
