"""The picture cache: what is written is what is drawn, and augmentation keeps picture and pose together."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from dreamcraft3d.training.dataset import ELEVATIONS, HELD_OUT, World, draw_object, held_out, write_shard


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("world")
    write_shard(path, 0, objects=3, views=4)
    return path


def test_a_shard_holds_what_is_drawn(folder: Path) -> None:
    views, poses = np.load(folder / "views-00000.npy"), np.load(folder / "poses-00000.npy")
    pictures, pose = draw_object(HELD_OUT + 1, views=4)
    assert np.array_equal(views[1], pictures.numpy())
    assert np.array_equal(poses[1], pose.numpy())
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
    batch = world.batch(40, torch.Generator().manual_seed(0))
    mirrored = 0
    for target, pose in zip(batch.target, batch.pose, strict=True):
        turned = np.isclose(np.abs(poses[..., 1]), abs(float(pose[1])), atol=1e-6)
        n, v = np.argwhere(turned & np.isclose(poses[..., 0], float(pose[0]), atol=1e-6))[0]
        flip = float(pose[1]) * poses[n, v, 1] < 0
        mirrored += flip
        alpha = torch.from_numpy(views[n, v, :, :, 3].astype(np.float32) / 255.0)
        if poses[n, v, 1] != 0.0:
            assert torch.equal(target[3], alpha.flip(1) if flip else alpha)
    assert 5 < mirrored < 35


def test_the_same_generator_gives_the_same_batch(folder: Path) -> None:
    first, second = (World(folder).batch(8, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first.target, second.target)
    assert torch.equal(first.reference, second.reference)


def test_held_out_seeds_are_kept_apart() -> None:
    batch = held_out([4], views=3)[0]
    assert batch.target.shape == (2, 4, 64, 64)
    assert torch.equal(batch.reference[0], batch.reference[1])
    with pytest.raises(ValueError, match="training set"):
        held_out([HELD_OUT])


def test_an_empty_cache_is_reported(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        World(tmp_path)
