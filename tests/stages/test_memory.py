"""Memory that runs out: recognised, answered by smaller work, and the run goes on where it was."""

import subprocess
import sys
from dataclasses import dataclass
from textwrap import dedent

import pytest
import torch

from dreamcraft3d.config import CoarseNerfConfig, GeometryConfig, NeusConfig, TextureConfig
from dreamcraft3d.errors import MemoryExhaustedError
from dreamcraft3d.progress import Event, Progress, Warned
from dreamcraft3d.stages.memory import SMALLEST, is_out_of_memory, smaller, within_memory
from patience import RUN_PATIENCE


@dataclass
class Card:
    """A stage that needs `side`^2 bytes for its renders and `fixed` for its priors, on a card of `size` bytes."""

    size: int
    fixed: int = 0
    measures: int = 0

    def save_memory(self) -> bool:
        if not self.measures:
            return False
        self.measures, self.fixed = self.measures - 1, self.fixed // 2
        return True

    def train(self, config: NeusConfig) -> int:
        side = int(config.render_size)
        if side**2 + self.fixed > self.size:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee documentation")
        return side


def run(card: Card, side: int) -> tuple[int, list[str], list[str]]:
    events: list[Event] = []
    config = NeusConfig(render_size=side)
    result, done = within_memory(
        card.train, config, card.save_memory, stage="neus", progress=Progress((events.append,))
    )
    return result, done, [event.text for event in events if isinstance(event, Warned)]


def test_enough_memory_changes_nothing():
    assert run(Card(size=10**6), 256) == (256, [], [])


def test_measures_that_cost_only_time_come_first():
    side, done, warnings = run(Card(size=71_000, fixed=10_000, measures=1), 256)
    assert side == 256
    assert len(done) == len(warnings) == 1
    assert "neus" in warnings[0] and "more time" in warnings[0]


def test_renders_shrink_as_often_as_needed():
    side, done, _ = run(Card(size=5000), 256)
    assert side == 64
    assert done == ["renders of half the side"] * 2


@pytest.mark.slow
def test_there_is_an_end():
    with pytest.raises(MemoryExhaustedError) as caught:
        run(Card(size=100), 256)
    assert "Tried to allocate 2.00 GiB" in caught.value.message and "See documentation" not in caught.value.message
    assert "dreamcraft3d plan" in caught.value.remedy
    assert caught.value.code == 3


def test_other_errors_pass():
    def fail(_: NeusConfig) -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        within_memory(fail, NeusConfig(), lambda: True, stage="neus", progress=Progress())


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("Failed to allocate 1073741824 bytes on device 'cuda:0'"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_ways_to_say_it(error, expected):
    assert is_out_of_memory(error) is expected


def test_schedules_shrink_and_nothing_grows():
    shrunk = smaller(CoarseNerfConfig(render_size=((0.0, 48), (0.6, 48), (0.6, 384))))
    assert shrunk is not None
    assert shrunk.render_size == ((0.0, 32), (0.6, 32), (0.6, 192))
    texture = smaller(TextureConfig(render_size=512, reference_size=1024))
    assert texture is not None and (texture.render_size, texture.reference_size) == (256, 512)
    assert smaller(GeometryConfig(render_size=SMALLEST)) is None
    assert smaller(GeometryConfig(render_size=16)) is None


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on memory")
@pytest.mark.slow
def test_a_process_that_really_runs_out():
    """A child that may have 2 GiB more and is asked for 4 GiB, ends with renders of half the side."""
    code = """
        import resource
        import torch
        from dreamcraft3d.config import NeusConfig
        from dreamcraft3d.progress import Progress
        from dreamcraft3d.stages.memory import within_memory
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**31, used + 2**31))
        def train(config):
            held = [torch.empty(int(config.render_size) ** 2, 1024) for _ in range(4)]
            return int(config.render_size)
        print(within_memory(train, NeusConfig(render_size=512), lambda: False, stage="neus", progress=Progress()))
    """
    child = subprocess.run([sys.executable, "-c", dedent(code)], capture_output=True, text=True, timeout=RUN_PATIENCE)
    assert child.stdout.strip() == "(256, ['renders of half the side'])", child.stderr
