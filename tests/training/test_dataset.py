"""The picture cache: what is written is what is drawn; what is varied keeps pictures, cells and cameras together."""

import math
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from torch.nn.functional import avg_pool2d, max_pool2d

from crossings import Crossings
from dreamcraft3d.functional.cameras import FOVY
from dreamcraft3d.priors.lifting import REACH
from dreamcraft3d.training.dataset import (
    DAMAGED,
    UNTINTED,
    Batch,
    Raw,
    TrainingSet,
    batch_of,
    damaged,
    held_out,
)
from dreamcraft3d.training.drawing import occupancy_of, procedural_example
from dreamcraft3d.training.occupancy import PLANES, SIDE
from dreamcraft3d.training.shapes import HELD_OUT
from dreamcraft3d.training.shards import FIELDS, Shard, Source, drawing_beside, shards_of, write_shard
from packs import write_pack
from patience import PATIENCE

FIRST = Shard(0, "procedural")
SMALL = Source(examples=3, views=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("world")
    write_shard(path, FIRST, SMALL)
    return path


@pytest.fixture(scope="module")
def plain_one() -> Batch:
    """A held-out object in the set-up of figures."""
    return held_out([4], views=3)[0]


def stored(folder: Path, field: str) -> np.ndarray:
    return np.load(FIRST.file(folder, field))


def test_a_shard_holds_what_is_drawn(folder: Path) -> None:
    drawn = procedural_example(HELD_OUT + 1, views=4)
    for name in FIELDS:
        assert np.array_equal(stored(folder, name)[1], getattr(drawn, name).numpy()), name
    cameras = stored(folder, "cameras")
    assert cameras.shape == (3, 5, 3)
    assert cameras[:, 0, 1].max() == 0.0, "the first is the reference"
    assert np.abs(cameras[:, 1:, 1]).max() <= math.pi + 1e-6
    assert not list(folder.glob("*.tmp"))


def test_writing_again_leaves_the_shard_alone(folder: Path) -> None:
    before = FIRST.file(folder, "cameras").stat().st_mtime_ns
    assert not write_shard(folder, FIRST, SMALL)
    assert FIRST.file(folder, "cameras").stat().st_mtime_ns == before


def test_batches_are_stored_views_with_their_cameras(folder: Path) -> None:
    world = TrainingSet(folder)
    assert len(world) == 3
    views, cameras = stored(folder, "views"), stored(folder, "cameras")[:, 1:]
    batch = world.batch(40, torch.Generator().manual_seed(0), targets=2)
    assert batch.reference.shape == (40, 4, 128, 128)
    mirrored = 0
    for target, pose in zip(batch.target.flatten(0, 1), batch.pose.flatten(0, 1).numpy(), strict=True):
        same = np.isclose(np.abs(cameras[..., 1]), abs(pose[1]), atol=1e-6) & np.isclose(cameras[..., 0], pose[0])
        n, v = np.argwhere(same)[0]
        assert pose[2] == cameras[n, v, 2]
        flip = pose[1] * cameras[n, v, 1] < 0
        mirrored += flip
        alpha = torch.from_numpy(views[n, v, :, :, 3].astype(np.float32) / 255.0)
        assert torch.equal(target[3], alpha.flip(1) if flip else alpha)
    assert 10 < mirrored < 70


def inside_of(batch: Batch) -> torch.Tensor:
    """Pixels (64 a side) that the object fills in the reference."""
    return avg_pool2d(batch.reference[:, 3:], 2)[0, 0] > 0.99


def test_depth_and_normals_are_those_of_the_pictures(plain_one: Batch) -> None:
    """A surface facing the viewer has a normal along z; the nearest point is nearer than the object's middle."""
    batch, inside = plain_one, inside_of(plain_one)
    assert torch.equal(batch.depth[0, :, 0] > 0.0, batch.target[0, :, 3] > 0.5 / 255.0)
    assert 3.0 < float(batch.reference_depth[0, 0][inside].min()) < 3.8
    normal = batch.normal[0][:, inside]
    assert torch.allclose(normal.norm(dim=0), torch.ones(normal.shape[1]), atol=1e-4)
    assert float(normal[2].mean()) > 0.4, "visible surfaces face the viewer"
    slope = batch.reference_depth[0, 0].diff(dim=1)
    flat = inside[:, 1:] & inside[:, :-1] & (slope.abs() < 0.03)
    lean = torch.corrcoef(torch.stack([slope[flat], batch.normal[0, 0, :, 1:][flat]]))[0, 1]
    assert float(lean) > 0.5, "where the surface recedes to the right it looks to the right"


def test_occupied_cells_lie_behind_the_surface_that_the_reference_shows(plain_one: Batch) -> None:
    cells, depth = plain_one.occupancy[0], plain_one.reference_depth[0, 0]
    inside, any_cell = inside_of(plain_one), cells.any(-1)
    assert bool(any_cell[inside].float().mean() > 0.97), "something is behind every pixel of the object"
    covered = avg_pool2d((plain_one.reference[:, 3:] > 0.0).float(), 2)[0, 0] > 0.0
    around = max_pool2d(covered[None, None].float(), 3, stride=1, padding=1)[0, 0] > 0.0
    assert not bool((any_cell & ~around).any()), "and nothing beside it but what covers no sample of a pixel"
    thickness = 2.0 * REACH / PLANES
    nearest = 3.8 - REACH + (cells.int().argmax(-1) + 0.5) * thickness
    off = (nearest - depth)[inside & any_cell].abs()
    assert float(off.quantile(0.95)) < 1.5 * thickness


def raw_of_one(*, order: tuple[int, int, int], mirror: bool, tint: torch.Tensor = UNTINTED) -> Raw:
    drawn = procedural_example(HELD_OUT + 2, views=3)
    fields = (value[None] for value in vars(drawn).values())
    return Raw(*fields, torch.tensor([order]), torch.tensor([mirror]), tint[None])


def test_a_mirrored_example_is_the_plain_one_seen_in_a_mirror() -> None:
    plain, mirrored = (batch_of(raw_of_one(order=(0, 1, 2), mirror=mirror)) for mirror in (False, True))
    for name in ("reference", "reference_depth", "target", "depth"):
        assert torch.equal(getattr(mirrored, name), getattr(plain, name).flip(-1)), name
    assert torch.equal(mirrored.occupancy, plain.occupancy.flip(2)), "columns of cells"
    assert torch.equal(mirrored.normal, plain.normal.flip(-1) * torch.tensor([-1.0, 1.0, 1.0])[:, None, None])
    assert torch.equal(mirrored.pose, plain.pose * torch.tensor([1.0, -1.0, 1.0]))
    assert torch.equal(mirrored.camera, plain.camera)
    assert float(plain.pose[..., 1].abs().min()) > 0.0
    assert not torch.equal(plain.occupancy, plain.occupancy.flip(2))


def test_permuted_colours_leave_everything_else() -> None:
    plain, turned = (batch_of(raw_of_one(order=order, mirror=False)) for order in ((0, 1, 2), (2, 0, 1)))
    assert torch.equal(turned.reference, plain.reference[:, [2, 0, 1, 3]])
    assert torch.equal(turned.target, plain.target[:, :, [2, 0, 1, 3]])
    for name in ("reference_depth", "depth", "normal", "pose", "occupancy", "camera"):
        assert torch.equal(getattr(turned, name), getattr(plain, name)), name


def test_a_tint_changes_all_views_alike_and_nothing_shines_through() -> None:
    tint = torch.tensor([[0.5, 0.1], [1.3, 0.15], [1.0, -0.15]])
    plain, tinted = (batch_of(raw_of_one(order=(0, 1, 2), mirror=False, tint=t)) for t in (UNTINTED, tint))
    for before, after in ((plain.reference, tinted.reference), (plain.target[:, 0], tinted.target[:, 0])):
        opacity = before[:, 3:]
        straight = (before[:, :3] / opacity.clamp_min(1e-6)).clamp(0.0, 1.0)
        wanted = opacity * (straight * tint[:, 0, None, None] + tint[:, 1, None, None]).clamp(0.0, 1.0)
        assert torch.allclose(after[:, :3], wanted, atol=1e-5)
        assert torch.equal(after[:, 3:], opacity)
    assert torch.equal(plain.depth, tinted.depth)


def test_a_batch_is_made_where_its_pictures_lie() -> None:
    """The meta device refuses values and tensors of the CPU, as a GPU would make them be waited for."""
    raw = raw_of_one(order=(2, 1, 0), mirror=True)
    there = Raw(*(tensor.to("meta") for tensor in vars(raw).values()))
    with Crossings() as crossings:
        batch = batch_of(there)
    assert not crossings.found
    for name, tensor in vars(batch_of(raw)).items():
        assert getattr(batch, name).shape == tensor.shape, name


def test_cells_are_unpacked_as_numpy_packed_them() -> None:
    cells = np.random.default_rng(0).random((2, 4, 4, 6)) < 0.5
    packed = torch.from_numpy(np.stack([np.packbits(each) for each in cells]))
    assert np.array_equal(occupancy_of(packed, 4, 6).numpy(), cells)
    assert procedural_example(3, views=1).occupancy.shape == (SIDE * SIDE * PLANES // 8,)


def test_half_of_the_objects_keep_their_colours(folder: Path) -> None:
    views = stored(folder, "views").astype(np.float32) / 255.0
    sums = views.reshape(len(views), -1, 4).sum(1)
    batch = TrainingSet(folder).batch(200, torch.Generator().manual_seed(0), targets=4)
    found = batch.target.sum((1, 3, 4)).numpy()
    same = [any(np.allclose(np.sort(a[:3]), np.sort(b[:3]), rtol=1e-4) for b in sums) for a in found]
    assert 70 < sum(same) < 130


def test_views_of_an_object_differ_and_all_of_them_are_wanted_at_times(folder: Path) -> None:
    poses = TrainingSet(folder).batch(60, torch.Generator().manual_seed(1), targets=3).pose
    azimuths = poses[..., 1].abs()
    assert all(len(set(each.tolist())) == 3 for each in azimuths)
    there = np.unique(np.abs(stored(folder, "cameras")[:, 1:, 1]))
    assert np.array_equal(np.unique(azimuths.numpy()), there)


def test_damage_spares_most_references_and_keeps_pictures_premultiplied() -> None:
    reference = procedural_example(HELD_OUT + 2, views=1).reference.numpy()
    rng = np.random.default_rng(0)
    found = [damaged(reference, rng) for _ in range(200)]
    touched = [picture for picture in found if not np.array_equal(picture, reference)]
    assert 0.7 * DAMAGED < len(touched) / len(found) < 1.3 * DAMAGED
    solid = reference[..., 3] > 127
    for picture in touched:
        assert picture.shape == reference.shape and picture.dtype == np.uint8
        assert (picture[..., :3].max(-1) <= picture[..., 3].astype(int) + 1).all()
        mask = picture[..., 3] > 127
        assert (mask & solid).sum() / (mask | solid).sum() > 0.8, "it is still that object"
    again = np.random.default_rng(0)
    assert all(np.array_equal(picture, damaged(reference, again)) for picture in found)


def test_a_set_grows_without_using_up_descriptors(tmp_path: Path) -> None:
    source, second = Source(examples=2, views=2), Shard(1, "procedural")
    write_shard(tmp_path, FIRST, source)
    world = TrainingSet(tmp_path)
    write_shard(tmp_path, second, source)
    world.refresh()
    assert len(world) == 4
    azimuths = np.abs(np.load(second.file(tmp_path, "cameras"))[:, 1:, 1])
    batch = world.batch(30, torch.Generator().manual_seed(0), targets=2)
    assert np.isclose(batch.pose[..., 1].abs().numpy().reshape(-1, 1), azimuths.reshape(1, -1), atol=1e-6).any()
    assert not [file for file in psutil.Process().open_files() if file.path.startswith(str(tmp_path))]


def test_a_batch_has_the_wanted_share_of_real_objects(tmp_path: Path) -> None:
    source = Source(write_pack(tmp_path / "objects.zip"), examples=2, views=2)
    shards = shards_of(source, 2)
    assert [(shard.kind, shard.number) for shard in shards] == [("real", 0), ("procedural", 0)]
    for shard in shards:
        write_shard(tmp_path, shard, source)
    real = np.abs(np.load(shards[0].file(tmp_path, "cameras"))[:, 1:, 1]).reshape(-1)
    for share, fewest, most in ((0.0, 0, 0), (0.6, 80, 160), (1.0, 200, 200)):
        poses = TrainingSet(tmp_path, real=share).batch(200, torch.Generator().manual_seed(0)).pose
        found = np.isclose(poses[:, 0, 1:2].abs().numpy(), real, atol=1e-6).any(1).sum()
        assert fewest <= found <= most, share
    for field in FIELDS:
        shards[1].file(tmp_path, field).unlink()
    assert len(TrainingSet(tmp_path, real=0.0).batch(5, torch.Generator()).pose) == 5, "there is only one kind"


def test_without_a_pack_all_shards_are_procedural() -> None:
    assert {shard.kind for shard in shards_of(Source(), 5, first=3)} == {"procedural"}
    assert [shard.number for shard in shards_of(Source(), 3, first=3)] == [3, 4, 5]
    with pytest.raises(ValueError, match="no pack"):
        Source().drawn("real", 0)


def gpus_of(pid: int | None) -> str | None:
    """What a process was told of GPUs; for a moment after its start it still has the words of its parent."""
    deadline = time.monotonic() + PATIENCE
    while (told := psutil.Process(pid).environ().get("CUDA_VISIBLE_DEVICES")) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    return told


@pytest.mark.slow
def test_writers_see_no_gpu_and_leave_nothing_half_done(tmp_path: Path) -> None:
    before, shards = os.environ.get("CUDA_VISIBLE_DEVICES"), shards_of(Source(), 3)
    endless = Source(examples=10_000)
    with pytest.raises(KeyboardInterrupt), drawing_beside(tmp_path, shards, endless, writers=2) as processes:
        assert len(processes) == 2
        assert [gpus_of(process.pid) for process in processes] == ["", ""]
        for process in processes:
            (tmp_path / f"procedural-00000.views.{process.pid}.tmp").touch()
        raise KeyboardInterrupt
    assert not any(process.is_alive() for process in processes)
    assert not multiprocessing.active_children()
    assert not list(tmp_path.iterdir())
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == before


def test_the_same_generator_gives_the_same_batch(folder: Path) -> None:
    first, second = (TrainingSet(folder).batch(8, torch.Generator().manual_seed(3)) for _ in range(2))
    for name, tensor in vars(first).items():
        assert torch.equal(tensor, getattr(second, name)), name


def test_held_out_seeds_are_kept_apart(plain_one: Batch) -> None:
    assert plain_one.target.shape == (1, 3, 4, 64, 64)
    assert plain_one.reference.shape == (1, 4, 128, 128)
    assert plain_one.occupancy.shape == (1, SIDE, SIDE, PLANES)
    assert plain_one.pose[0, :, 2].tolist() == pytest.approx([FOVY] * 3)
    with pytest.raises(ValueError, match="training set"):
        held_out([HELD_OUT])


def test_an_empty_cache_is_reported(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        TrainingSet(tmp_path)
