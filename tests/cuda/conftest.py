"""What tests on a card share: the card itself, our own kernels, and what is compared with what.

They are skipped where there is no CUDA card. `DREAMCRAFT_TEST_DEVICE=cpu` runs them on the CPU, which shows that the
tests themselves are sound, and nothing else.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from dreamcraft3d.kernels import dispatch


@pytest.fixture(scope="session")
def card() -> torch.device:
    """The first card, or what `DREAMCRAFT_TEST_DEVICE` names."""
    named = os.environ.get("DREAMCRAFT_TEST_DEVICE")
    if named:
        return torch.device(named)
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA card")
    return torch.device("cuda", 0)


@pytest.fixture(scope="session", autouse=True)
def needs_a_card(card: torch.device) -> None:
    """Skips every test of this folder where there is none."""


@pytest.fixture(autouse=True)
def own_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """No accelerators: these tests are about our own kernels, and nerfacc takes minutes to compile its own."""
    monkeypatch.setattr(dispatch, "may_accelerate", lambda device: False)


@pytest.fixture
def clean_memory(card: torch.device) -> Iterator[None]:
    """Leaves the card's memory, and how much of it may be used, as they were."""
    yield
    if card.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A red box on nothing, 96 x 96."""
    image = Image.new("RGBA", (96, 96), (0, 0, 0, 0))
    image.paste((200, 40, 30, 255), (24, 16, 72, 80))
    path = tmp_path_factory.mktemp("picture") / "box.png"
    image.save(path)
    return path
