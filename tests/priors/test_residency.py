"""Priors are loaded when first needed, and only those of the present stage are on the card."""

from dataclasses import dataclass, field

import pytest
import torch

from dreamcraft3d.errors import ConfigError, MissingDependencyError
from dreamcraft3d.presets import configure
from dreamcraft3d.priors.bundled import BundledPrior
from dreamcraft3d.priors.loading import check_present, load_prior
from dreamcraft3d.priors.residency import FixedPriors, LoadedPriors


@dataclass
class Weights:
    """Stands for a prior: the meta device stands for the card."""

    name: str
    history: list[str] = field(default_factory=list)
    measures: int = 0
    evaluations: int = 0

    def to(self, device: torch.device | str) -> "Weights":
        self.history.append(torch.device(device).type)
        return self

    def save_memory(self) -> bool:
        self.measures -= 1
        return self.measures >= 0


@pytest.fixture
def shelf() -> LoadedPriors:
    return LoadedPriors(Weights, "meta")  # type: ignore[arg-type]


def on_card(shelf: LoadedPriors) -> set[str]:
    return {prior.name for prior in shelf.all() if prior.history[-1:] == ["meta"]}


def test_only_the_present_stage_is_on_the_card(shelf):
    stages = [("view", "image"), ("view", "image"), (None, "texture"), ("view", None)]
    for names in stages:
        pair = shelf.pair(names)
        assert [None if prior is None else prior.name for prior in pair] == list(names)
        assert on_card(shelf) == set(filter(None, names))


def test_each_is_loaded_once_and_room_is_made_first(shelf):
    first = shelf.pair(("view", "image"))
    moves = [prior.history for prior in first]
    shelf.pair(("texture", None))
    assert [history[-1] for history in moves] == ["cpu", "cpu"]
    assert shelf.pair(("view", "image")) == first


def test_without_a_card_nothing_moves():
    shelf = LoadedPriors(Weights, "cpu")
    assert shelf.pair(("view", None))[0].history == []


def test_all_priors_of_a_stage_take_measures(shelf):
    view, image = shelf.pair(("view", "image"))
    shelf.pair(("view", "texture"))
    view.measures, image.measures = 1, 5
    assert shelf.save_memory(("view", "texture"))
    assert not shelf.save_memory(("view", "texture"))
    assert image.measures == 5
    assert FixedPriors(image).save_memory((None, None))


def test_frugal_from_the_start():
    shelf = LoadedPriors(lambda name: Weights(name, measures=3), frugal=True)  # type: ignore[arg-type]
    assert shelf.pair(("view", None))[0].measures < 0
    assert not shelf.save_memory(("view", None))


def test_the_bundled_prior_is_there():
    assert isinstance(load_prior("bundled"), BundledPrior)
    check_present(configure("preview").prior_names())


def test_missing_models_are_named_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setenv("DREAMCRAFT3D_MODELS", str(tmp_path))
    monkeypatch.setattr("dreamcraft3d.priors.models._in_hub_cache", lambda _: None)
    with pytest.raises(MissingDependencyError) as caught:
        check_present(configure("paper").prior_names())
    command = "models download zero123-xl deepfloyd-if-xl stable-diffusion-2-1-base"
    assert command in caught.value.remedy
    with pytest.raises(ConfigError, match="no model 'zero123-xll'"):
        check_present(("bundled", "zero123-xll"))
