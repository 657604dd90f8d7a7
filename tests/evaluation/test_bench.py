"""The benchmark's arithmetic, and that every volume kernel has its row."""

import pytest

from dreamcraft3d.evaluation import bench, bench_patches, bench_volume


def test_ours_and_the_twin_run_in_turn_after_a_warm_up() -> None:
    calls: list[str] = []
    row = bench.compare("x", lambda: calls.append("ours"), lambda: calls.append("twin"), 3, detail="d")
    assert calls == ["ours", "twin"] * 4
    assert (row.name, row.detail) == ("x", "d")
    assert row.ratio == pytest.approx(row.twin_ms / max(row.ours_ms, 1e-9))


def test_medians_ignore_an_outlier(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([2.0, 8.0, 500.0, 10.0, 2.0, 900.0])
    monkeypatch.setattr(bench, "_milliseconds", lambda body: next(times))
    row = bench.compare("x", lambda: None, lambda: None, 3)
    assert (row.ours_ms, row.twin_ms, row.ratio) == (2.0, 10.0, 5.0)


def test_no_repeats_no_median() -> None:
    with pytest.raises(ValueError, match="repeats"):
        bench.compare("x", lambda: None, lambda: None, 0)


def test_volume_kernels_have_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_volume, "POINTS", 64)
    monkeypatch.setattr(bench_volume, "RAY_SIDE", 4)
    monkeypatch.setattr(bench_volume, "HASH_GRIDS", ((8, False, False), (8, True, True)))
    monkeypatch.setattr(bench_volume, "FRUSTUM", (6, 4))
    rows = bench_volume.volume_benchmarks(1)
    assert len({(row.name, row.detail) for row in rows}) == 7
    assert [row.name for row in rows if "frustum" in row.name] == [
        "frustum volume forward",
        "frustum volume forward + backward",
    ]
    assert all(row.ours_ms > 0.0 and row.twin_ms > 0.0 for row in rows)


def test_the_patch_search_has_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_patches, "SIZE", 12)
    rows = bench_patches.patch_benchmarks(1)
    assert [row.name.partition(",")[0] for row in rows] == ["patch search", "patch search", "patch vote"]
    assert all(row.ours_ms > 0.0 and row.twin_ms > 0.0 for row in rows)
