"""The bench of the service: its arithmetic, and that it runs."""

import pytest

from dreamcraft3d.evaluation.bench import Figure
from dreamcraft3d.evaluation.bench_prior import measure_prior
from dreamcraft3d.evaluation.bench_service import Times, measure_service


def test_the_99th_percentile_is_what_one_in_a_hundred_exceeds():
    figure = Times([number / 1000 for number in range(1000)]).figure("poll", 10.0)
    assert figure.value == pytest.approx(990.0) and not figure.good
    assert "n 1000" in figure.detail and "median 499.5" in figure.detail
    assert Times([0.001]).figure("poll", 10.0).good


def test_a_figure_that_nothing_is_wanted_of_is_good():
    assert Figure("rate", 1.0, "1/s").good
    assert not Figure("ready", 1.01, "s", 1.0).good


def test_the_bundled_prior_is_timed():
    figures = measure_prior(repeats=2)
    assert [figure.name for figure in figures] == ["loading", "known reference", "new reference"]
    assert all(figure.value > 0.0 and figure.wanted for figure in figures)


@pytest.mark.slow
def test_it_measures_a_real_service():
    said: list[str] = []
    figures = {figure.name: figure for figure in measure_service(queued=20, seconds=4.0, say=said.append)}
    assert set(figures) == {
        "ready", "submit p99", "events poll p99", "memory of the service", "submits without pause",
        "submit without pause p99",
    }  # fmt: skip
    assert all(figure.value > 0.0 for figure in figures.values())
    assert figures["memory of the service"].value < 200.0 and len(said) == 3
