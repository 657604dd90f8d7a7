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
