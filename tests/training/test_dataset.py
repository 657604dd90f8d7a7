"""The picture cache: what is written is what is drawn, and augmentation keeps picture and pose together."""

import math
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from dreamcraft3d.training.dataset import (
    ELEVATIONS,
    HELD_OUT,
    UNTINTED,
    Raw,
    World,
    draw_object,
    drawing_beside,
    examples,
    held_out,
    write_shard,
)
from patience import PATIENCE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("world")
    write_shard(path, 0, objects=3, views=4)
    return path


def test_a_shard_holds_what_is_drawn(folder: Path) -> None:
    views, poses = np.load(folder / "views-00000.npy"), np.load(folder / "poses-00000.npy")
    drawn = draw_object(HELD_OUT + 1, views=4)
    assert np.array_equal(views[1], drawn.views.numpy())
    assert np.array_equal(poses[1], drawn.poses.numpy())
    assert poses[:, 0, 1].max() == 0.0, "view 0 is the reference"
    assert poses[:, 1:, 0].min() >= ELEVATIONS[0] - 1e-6
    assert poses[:, 1:, 0].max() <= ELEVATIONS[1] + 1e-6
    assert np.abs(poses[:, 1:, 1]).max() <= math.pi + 1e-6
    assert not list(folder.glob("*.tmp"))


def test_writing_again_leaves_the_shard_alone(folder: Path) -> None:
    before = (folder / "poses-00000.npy").stat().st_mtime_ns
    assert not write_shard(folder, 0, objects=3, views=4)
    assert (folder / "poses-00000.npy").stat().st_mtime_ns == before


def test_batches_are_cached_views_with_their_poses(folder: Path) -> None:
    world = World(folder)
    assert len(world) == 3
    views, poses = np.load(folder / "views-00000.npy"), np.load(folder / "poses-00000.npy")
    batch = world.batch(40, torch.Generator().manual_seed(0), targets=2)
    mirrored = 0
    for target, pose in zip(batch.target.flatten(0, 1), batch.pose.flatten(0, 1), strict=True):
        turned = np.isclose(np.abs(poses[..., 1]), abs(float(pose[1])), atol=1e-6)
        n, v = np.argwhere(turned & np.isclose(poses[..., 0], float(pose[0]), atol=1e-6))[0]
        flip = float(pose[1]) * poses[n, v, 1] < 0
        mirrored += flip
        alpha = torch.from_numpy(views[n, v, :, :, 3].astype(np.float32) / 255.0)
        if poses[n, v, 1] != 0.0:
            assert torch.equal(target[3], alpha.flip(1) if flip else alpha)
    assert 10 < mirrored < 70


def test_depth_and_normals_are_those_of_the_pictures() -> None:
    """A surface facing the viewer has a normal along z; the nearest point is nearer than the object's middle."""
    batch = held_out([4], views=3)[0]
    inside = batch.reference[0, 3] > 0.99
    assert torch.equal(batch.depth[0, :, 0] > 0.0, batch.target[0, :, 3] > 0.5 / 255.0)
    assert 3.0 < float(batch.reference_depth[0, 0][inside].min()) < 3.8
    normal = batch.normal[0][:, inside]
    assert torch.allclose(normal.norm(dim=0), torch.ones(normal.shape[1]), atol=1e-4)
    assert float(normal[2].mean()) > 0.4, "visible surfaces face the viewer"
    slope = batch.reference_depth[0, 0].diff(dim=1)
    flat = inside[:, 1:] & inside[:, :-1] & (slope.abs() < 0.03)
    lean = torch.corrcoef(torch.stack([slope[flat], batch.normal[0, 0, :, 1:][flat]]))[0, 1]
    assert float(lean) > 0.5, "where the surface recedes to the right it looks to the right"


def raw_of_one(*, order: tuple[int, int, int], mirror: bool, tint: torch.Tensor = UNTINTED) -> Raw:
    drawn = draw_object(HELD_OUT + 2, views=3)
    stored = (drawn.views[None], drawn.depth[None], drawn.normals[None], drawn.poses[None])
    return Raw(*stored, torch.tensor([order]), torch.tensor([mirror]), tint[None])


def test_a_mirrored_example_is_the_plain_one_seen_in_a_mirror() -> None:
    plain, twin = (examples(raw_of_one(order=(0, 1, 2), mirror=mirror)) for mirror in (False, True))
    for name in ("reference", "reference_depth", "target", "depth"):
        assert torch.equal(getattr(twin, name), getattr(plain, name).flip(-1)), name
    assert torch.equal(twin.normal, plain.normal.flip(-1) * torch.tensor([-1.0, 1.0, 1.0])[:, None, None])
    assert torch.equal(twin.pose, plain.pose * torch.tensor([1.0, -1.0, 1.0]))
    assert float(plain.pose[..., 1].abs().min()) > 0.0


def test_permuted_colours_leave_everything_else() -> None:
    plain, turned = (examples(raw_of_one(order=order, mirror=False)) for order in ((0, 1, 2), (2, 0, 1)))
    assert torch.equal(turned.reference, plain.reference[:, [2, 0, 1, 3]])
    assert torch.equal(turned.target, plain.target[:, :, [2, 0, 1, 3]])
    for name in ("reference_depth", "depth", "normal", "pose"):
        assert torch.equal(getattr(turned, name), getattr(plain, name)), name


def test_a_tint_changes_all_views_alike_and_nothing_shines_through() -> None:
    tint = torch.tensor([[0.5, 0.1], [1.3, 0.15], [1.0, -0.15]])
    plain, tinted = (examples(raw_of_one(order=(0, 1, 2), mirror=False, tint=t)) for t in (UNTINTED, tint))
    for before, after in ((plain.reference, tinted.reference), (plain.target[:, 0], tinted.target[:, 0])):
        opacity = before[:, 3:]
        straight = (before[:, :3] / opacity.clamp_min(1e-6)).clamp(0.0, 1.0)
        wanted = opacity * (straight * tint[:, 0, None, None] + tint[:, 1, None, None]).clamp(0.0, 1.0)
        assert torch.allclose(after[:, :3], wanted, atol=1e-5)
        assert torch.equal(after[:, 3:], opacity)
    assert torch.equal(plain.depth, tinted.depth)


def test_half_of_the_objects_keep_their_colours(folder: Path) -> None:
    views = np.load(folder / "views-00000.npy")[:, 0].astype(np.float32) / 255.0
    sums = views.reshape(len(views), -1, 4).sum(1)
    batch = World(folder).batch(200, torch.Generator().manual_seed(0))
    found = batch.reference.flatten(2).sum(-1).numpy()
    same = [any(np.allclose(np.sort(a[:3]), np.sort(b[:3]), rtol=1e-4) for b in sums) for a in found]
    assert 70 < sum(same) < 130


def test_views_of_an_object_differ_and_all_of_them_are_wanted_at_times(folder: Path) -> None:
    poses = World(folder).batch(60, torch.Generator().manual_seed(1), targets=3).pose
    azimuths = poses[..., 1].abs()
    assert all(len(set(each.tolist())) == 3 for each in azimuths)
    front = (azimuths == 0.0).any(1)
    assert 30 < int(front.sum()) < 60, "three of four views: the reference among them three times in four"


def test_a_world_grows_without_using_up_descriptors(tmp_path: Path) -> None:
    write_shard(tmp_path, 0, objects=2, views=2)
    world = World(tmp_path)
    write_shard(tmp_path, 1, objects=1, views=2)
    world.refresh()
    assert len(world) == 3
    azimuths = np.abs(np.load(tmp_path / "poses-00001.npy")[0, 1, 1])
    batch = world.batch(30, torch.Generator().manual_seed(0), targets=2)
    assert any(np.isclose(float(pose[1].abs()), azimuths, atol=1e-6) for pose in batch.pose.flatten(0, 1))
    assert not [file for file in psutil.Process().open_files() if file.path.startswith(str(tmp_path))]


def card_of(pid: int | None) -> str | None:
    """What a process was told of cards; for a moment after its start it still has the words of its parent."""
    deadline = time.monotonic() + PATIENCE
    while (told := psutil.Process(pid).environ().get("CUDA_VISIBLE_DEVICES")) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    return told


@pytest.mark.slow
def test_writers_see_no_card_and_leave_nothing_half_done(tmp_path: Path) -> None:
    card = os.environ.get("CUDA_VISIBLE_DEVICES")
    with pytest.raises(KeyboardInterrupt), drawing_beside(tmp_path, [0, 1, 2], writers=2, objects=10_000) as processes:
        assert len(processes) == 2
        assert [card_of(process.pid) for process in processes] == ["", ""]
        for process in processes:
            (tmp_path / f"views-00000.{process.pid}.tmp").touch()
        raise KeyboardInterrupt
    assert not any(process.is_alive() for process in processes)
    assert not multiprocessing.active_children()
    assert not list(tmp_path.iterdir())
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == card


def test_the_same_generator_gives_the_same_batch(folder: Path) -> None:
    first, second = (World(folder).batch(8, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first.target, second.target)
    assert torch.equal(first.reference, second.reference)


def test_held_out_seeds_are_kept_apart() -> None:
    batch = held_out([4], views=3)[0]
    assert batch.target.shape == (1, 2, 4, 64, 64)
    assert batch.reference.shape == (1, 4, 64, 64)
    with pytest.raises(ValueError, match="training set"):
        held_out([HELD_OUT])


def test_an_empty_cache_is_reported(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        World(tmp_path)
