"""Objects from one picture, scored: the truth scores one, the blind variant asks no prior, the table tells both."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from dreamcraft3d import export
from dreamcraft3d.cli import app
from dreamcraft3d.cli.evaluate import seeds_of
from dreamcraft3d.errors import InputError
from dreamcraft3d.evaluation import reconstruction
from dreamcraft3d.evaluation.oracle import reference_of, score
from dreamcraft3d.evaluation.reconstruction import (
    WITHOUT,
    ReconstructionRow,
    depth_to_width,
    objects_from,
    packed_objects,
    reconstruct,
    reconstruction_table,
    variants,
)
from dreamcraft3d.presets import configure
from dreamcraft3d.progress import Progress
from packs import write_pack
from tiny import SETTINGS, lopsided_textured


@pytest.mark.slow
def test_held_out_objects_come_with_the_elevation_of_their_picture() -> None:
    (name, mesh, elevation), (other, _, _) = objects_from([], [3, 4])
    assert name.endswith("-3")
    assert other.endswith("-4")
    assert 0.0 <= elevation <= 0.35
    assert mesh.vertex_colours is not None
    same = score(mesh, mesh, elevation)
    assert same["unseen_iou"] == pytest.approx(1.0)
    assert same["f_score"] == pytest.approx(1.0, abs=1e-3)
    with pytest.raises(ValueError, match="trained on"):
        next(objects_from([], [1000]))


def test_depth_to_width_is_along_the_viewing_direction() -> None:
    mesh = lopsided_textured()
    stretched = export.TexturedMesh(
        mesh.vertices * torch.tensor([2.0, 1.0, 1.0]), mesh.faces, vertex_colours=mesh.vertex_colours
    )
    assert depth_to_width(stretched) == pytest.approx(2.0 * depth_to_width(mesh))


@pytest.mark.slow
def test_without_a_prior_nothing_is_asked(tmp_path: Path) -> None:
    mesh = tmp_path / "lopsided.glb"
    mesh.write_bytes(export.write_glb(lopsided_textured()))
    configs = variants(configure("preview", SETTINGS), without=True, with_prior=False)
    assert list(configs) == [WITHOUT]
    rows = list(reconstruct(objects_from([mesh], []), configs, tmp_path / "out", Progress()))
    assert [(row.object, row.variant) for row in rows] == [("lopsided", WITHOUT)]
    report = json.loads((tmp_path / "out" / "lopsided" / "without" / "report.json").read_text())
    assert report["prior_evaluations"] == 0
    assert (tmp_path / "out" / "lopsided" / "without" / "ground_truth.glb").exists()
    assert rows[0].reference_iou > 0.7, "the front is given"


def test_the_table_has_every_run_and_the_means() -> None:
    rows = [
        ReconstructionRow("mug", "with prior", 0.9, 20.0, 0.95, 25.0, 0.8, 0.1, 60.0, 0.9, 0.02),
        ReconstructionRow("cup", "with prior", 0.7, 16.0, 0.85, 23.0, 0.6, 0.5, 80.0, 0.6, 0.05),
        ReconstructionRow("hat", "with prior", 0.8, 18.0, 0.90, 24.0, 0.7, 0.2, 70.0, 0.6, 0.02),
        ReconstructionRow("mug", "without"),
    ]
    table = reconstruction_table(rows).splitlines()
    assert len(table) == 2 + 4 + 2
    assert (
        table[6] == "| **3 objects** | with prior | 0.800 | 18.00 | 0.900 | 24.00 | 0.700 | 20% | 70 | 0.60 | 0.0300 |"
    )
    assert "| hat |" in table[4]


def test_a_lost_object_scores_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(*_: object) -> None:
        raise reconstruction.ObjectLost("gone")

    monkeypatch.setattr(reconstruction, "run_stages", lose)
    objects = [("thing", lopsided_textured(), 0.0)]
    rows = list(reconstruct(objects, {WITHOUT: configure("preview")}, tmp_path, Progress()))
    assert rows == [ReconstructionRow("thing", WITHOUT)]


def test_seeds_are_read_as_ranges() -> None:
    assert seeds_of("3, 7-9") == [3, 7, 8, 9]
    assert seeds_of("") == []
    for wrong in ("a", "3-", "-4", "1-b", "999-1000"):
        with pytest.raises(InputError):
            seeds_of(wrong)


def test_the_commands_refuse_politely() -> None:
    runner = CliRunner()
    for words in (
        ["evaluate", "objects"],
        ["evaluate", "objects", "--held-out", "x"],
        ["evaluate", "--preset", "oracle"],
    ):
        result = runner.invoke(app, words)
        assert result.exit_code == 2, words
        assert "Traceback" not in result.output


def test_real_held_out_objects_are_shown_as_they_are_judged(tmp_path: Path) -> None:
    """Two held-out objects of a tiny pack: in the picture, textured, the leaf with its hole, and the same each time."""
    pack = write_pack(tmp_path / "objects.zip")
    found = list(packed_objects(pack, per_class=1))
    assert [name for name, _, _ in found] == ["test-leaf", "test-stool"]
    for _, mesh, elevation in found:
        view = reference_of(mesh, elevation, size=64)
        rows, columns = view.mask.nonzero().unbind(1)
        assert 40 < max(int(rows.max() - rows.min()), int(columns.max() - columns.min())) < 62
    again = list(packed_objects(pack, per_class=1))
    assert all(torch.equal(a[1].vertices, b[1].vertices) for a, b in zip(found, again, strict=True))
    leaf = found[0][1]
    assert leaf.vertex_colours is not None
    green = leaf.vertex_colours[:, 1] > leaf.vertex_colours[:, 0]
    assert float(green.float().mean()) > 0.95
