"""A card that our kernels fail on is not used: wrong results, refusals, and a card that works."""

from dataclasses import replace

import pytest
import torch

from dreamcraft3d import pipeline
from dreamcraft3d.kernels import selfcheck
from dreamcraft3d.presets import configure
from dreamcraft3d.progress import Event, Progress, Warned
from pretend_card import pretend_card

CARD = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def _nothing_remembered():
    selfcheck.card_trouble.cache_clear()
    yield
    selfcheck.card_trouble.cache_clear()


def test_the_processor_is_never_in_trouble():
    assert selfcheck.card_trouble(torch.device("cpu")) is None


def test_a_card_that_agrees_holds_the_scene():
    heard: list[Event] = []
    with pretend_card():
        assert selfcheck.card_trouble(CARD) is None
        assert pipeline.scene_device(configure("preview"), Progress((heard.append,))).type == "cuda"
    assert heard == []


@pytest.mark.parametrize(
    ("kernel", "problem"),
    [
        ("hash_encode", "encoding"),
        ("accumulate", "compositing"),
        ("antialias", "drawing"),
        ("signed_distance", "distances"),
    ],
)
def test_wrong_results_are_noticed(kernel, problem, monkeypatch):
    right = getattr(selfcheck, kernel)

    def wrong(first, *rest, **options):
        result = right(first, *rest, **options)
        return result if result.device.type == "cpu" else 1.1 * result

    monkeypatch.setattr(selfcheck, kernel, wrong)
    monkeypatch.setattr(selfcheck, "PROBLEMS", (getattr(selfcheck, f"_{problem}"),))
    with pretend_card():
        assert str(selfcheck.card_trouble(CARD)).startswith(f"{problem}: results differ by ")


def test_a_ray_more_or_less_is_no_trouble_but_half_of_them_are(monkeypatch):
    right = selfcheck.march

    def hurried(origins, directions, grid, *, step_size, generator):
        longer = 1.0 if origins.device.type == "cpu" else 2.0
        return right(origins, directions, grid, step_size=longer * step_size, generator=generator)

    monkeypatch.setattr(selfcheck, "march", hurried)
    monkeypatch.setattr(selfcheck, "PROBLEMS", (selfcheck._marching,))
    with pretend_card():
        assert "marching: results differ" in str(selfcheck.card_trouble(CARD))


def test_a_volume_that_is_too_bright_on_the_card_is_noticed(monkeypatch):
    right = selfcheck.render_frustum

    def wrong(volume, *rest, **options):
        view = right(volume, *rest, **options)
        return view if volume.device.type == "cpu" else replace(view, colour=1.5 * view.colour)

    monkeypatch.setattr(selfcheck, "render_frustum", wrong)
    monkeypatch.setattr(selfcheck, "PROBLEMS", (selfcheck._lifting,))
    with pretend_card():
        assert str(selfcheck.card_trouble(CARD)).startswith("lifting: results differ by ")


def test_a_refusal_sends_the_scene_to_the_processor_with_a_word(monkeypatch):
    def refuse(*_):
        raise RuntimeError("no kernel image is available for execution on the device\nmore")

    monkeypatch.setattr(selfcheck, "signed_distance", refuse)
    monkeypatch.setattr(selfcheck, "PROBLEMS", (selfcheck._compositing, selfcheck._distances))
    heard: list[Event] = []
    with pretend_card():
        assert pipeline.scene_device(configure("preview"), Progress((heard.append,))).type == "cpu"
        assert pipeline.priors_device(configure("preview")).type == "cuda"
    (event,) = heard
    assert isinstance(event, Warned)
    assert "no kernel image is available" in event.text
    assert "more" not in event.text


def test_the_user_can_forbid_the_card():
    with pretend_card():
        config = configure("preview", {"device": "cpu"})
        assert pipeline.priors_device(config).type == pipeline.scene_device(config, Progress()).type == "cpu"
