"""How examples are taken: framing, shifts, lenses, and which example a number is."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dreamcraft3d.functional.cameras import FOVY
from dreamcraft3d.training.drawing import (
    DEPTH_RANGE,
    LIT,
    Drawn,
    Shot,
    depth_of,
    held_out_example,
    plain_shot,
    procedural_example,
    random_shot,
    random_turn,
    real_example,
    take,
)
from dreamcraft3d.training.objects import ObjectPack
from dreamcraft3d.training.primitives import circle, dome, lathe
from dreamcraft3d.training.shapes import FILL, HELD_OUT
from dreamcraft3d.training.shards import Source
from dreamcraft3d.training.surfaces import Surface, VertexPaint
from packs import write_pack

BALL = lathe(dome(20), circle(40))
SIDE_VIEW = torch.tensor([[0.0, math.pi / 2, FOVY]])


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> ObjectPack:
    return ObjectPack(write_pack(tmp_path_factory.mktemp("pack") / "objects.zip"))


def ball_taken(
    elevation: float, fovy: float, fill: float, shift: tuple[float, float] = (0.0, 0.0), views: Tensor = SIDE_VIEW
) -> Drawn:
    """A white ball; angles in degrees."""
    faces = torch.as_tensor(BALL.faces)
    corners = torch.as_tensor(BALL.vertices, dtype=torch.float32)
    surface = Surface(corners, faces, VertexPaint(faces, torch.ones(len(corners), 3)))
    shot = Shot(math.radians(elevation), math.radians(fovy), fill, shift, views)
    return take(surface, BALL.vertices, shot, LIT)


def extent(rgba: Tensor) -> Tensor:
    """Left, right, top and bottom of what is drawn, in half sides from the picture's middle (y downwards)."""
    covered = rgba[..., 3] > 127
    ends = [covered.any(axis).nonzero()[[0, -1], 0] + torch.tensor([0, 1]) for axis in (0, 1)]
    return torch.cat(ends) / covered.shape[0] * 2.0 - 1.0


@pytest.mark.parametrize(
    ("elevation", "fovy", "fill"), [(0, 10, 0.9), (0, 20, 0.6), (25, 35, 0.9), (-20, 50, 0.7), (50, 28, 0.8)]
)
def test_an_object_fills_the_picture_as_said(elevation: float, fovy: float, fill: float) -> None:
    drawn = ball_taken(elevation, fovy, fill)
    assert extent(drawn.reference).tolist() == pytest.approx([-fill, fill, -fill, fill], abs=0.04)
    assert drawn.cameras[0].tolist() == pytest.approx([math.radians(elevation), 0.0, math.radians(fovy)])
    assert torch.equal(drawn.cameras[1:], SIDE_VIEW)


def test_a_shift_moves_the_object_right_and_up_in_its_own_picture() -> None:
    for elevation in (0.0, 30.0):
        left, right, top, bottom = extent(ball_taken(elevation, 20.0, 0.5, (0.3, 0.2)).reference).tolist()
        assert 0.5 * (left + right) == pytest.approx(0.3, abs=0.04)
        assert 0.5 * (top + bottom) == pytest.approx(-0.2, abs=0.04)


def test_objects_may_reach_over_the_border() -> None:
    drawn = ball_taken(0.0, 20.0, 1.1, (0.3, 0.0))
    alpha = drawn.reference[..., 3]
    assert int(alpha[:, -1].max()) == 255, "cut off on the right"
    assert int(alpha[:, 0].max()) == 0


def test_depth_is_stored_from_the_camera_s_distance() -> None:
    """The ball's nearest point is a radius nearer than the origin, in the reference and from the side."""
    drawn = ball_taken(0.0, 20.0, 0.6)
    radius = 0.6 * 0.67  # as it is seen, a little less than that in truth
    for levels in drawn.depth:
        nearest = float(depth_of(levels[levels > 0]).min())
        assert nearest == pytest.approx(-radius, abs=0.02)
        assert int(levels[0, 0]) == 0, "the background"
    assert float(depth_of(torch.tensor([1, 255], dtype=torch.uint8)).abs().max()) == pytest.approx(DEPTH_RANGE)


def test_normals_are_the_camera_s() -> None:
    """Towards the viewer in the middle, whatever the elevation; to the right on the right."""
    normals = ball_taken(40.0, 20.0, 0.9).normals.float() / 127.5 - 1.0
    assert normals[32, 32].tolist() == pytest.approx([0.0, 0.0, 1.0], abs=0.06)
    assert float(normals[32, 58, 0]) > 0.7
    assert float(normals[6, 32, 1]) > 0.7, "up at the top"


def test_shots_of_the_training_world_are_as_wide_as_said() -> None:
    shots = [random_shot(np.random.default_rng(seed)) for seed in range(400)]
    degrees = torch.tensor([[shot.elevation, shot.fovy] for shot in shots]).rad2deg()
    assert float(degrees[:, 0].min()) >= -20.0 and float(degrees[:, 0].max()) <= 60.0
    assert 10.0 <= float(degrees[:, 1].min()) < 12.0 and 45.0 < float(degrees[:, 1].max()) <= 50.0
    assert 0.4 < sum(shot.fovy == FOVY for shot in shots) / 400 < 0.6
    assert all(0.6 <= shot.fill <= 1.2 for shot in shots)
    assert all(shot.shift == (0.0, 0.0) for shot in shots if shot.fill < 0.95)
    for shot in shots:
        assert len(set((shot.views[:, 1] / (math.pi / 4)).floor().tolist())) == 8, "one view in each sector"
        assert len(set(shot.views[:, 2].tolist())) == 1, "one lens"
        assert float(shot.views[0, 2]) == pytest.approx(shot.fovy) or float(shot.views[0, 2]) == pytest.approx(FOVY)
    assert random_shot(np.random.default_rng(0), elevation=0.123).elevation == 0.123


def test_the_set_up_of_figures_is_the_program_s_own() -> None:
    shot = plain_shot(np.random.default_rng(0), 0.2, views=5)
    assert (shot.elevation, shot.fovy, shot.fill, shot.shift) == (0.2, pytest.approx(FOVY), FILL, (0.0, 0.0))
    degrees = shot.views.rad2deg()
    assert degrees.shape == (5, 3)
    assert float(degrees[:, 0].min()) >= -10.0 and float(degrees[:, 0].max()) <= 45.0


def test_turns_are_rotations_and_mostly_upright() -> None:
    turns = [random_turn(np.random.default_rng(seed)) for seed in range(200)]
    for turn in turns:
        assert np.allclose(turn @ turn.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(turn) == pytest.approx(1.0)
        assert turn[2, 2] > 0.7, "nothing stands on its head"
    assert 0.75 < sum(turn[2, 2] > 1.0 - 1e-9 for turn in turns) / 200 < 0.95


def same(first: Drawn, second: Drawn) -> bool:
    return all(torch.equal(value, getattr(second, name)) for name, value in vars(first).items())


def test_a_number_is_one_example_for_ever(pack: ObjectPack) -> None:
    thing = pack.chosen(held_out=False)[1]
    assert same(real_example(pack, thing, 5, views=1), real_example(ObjectPack(pack.path), thing, 5, views=1))
    assert not same(real_example(pack, thing, 5, views=1), real_example(pack, thing, 6, views=1))
    assert same(procedural_example(HELD_OUT + 5, views=1), procedural_example(HELD_OUT + 5, views=1))


def test_held_out_objects_have_pictures_of_their_own(pack: ObjectPack) -> None:
    """For ever the same; in the set-up of figures, or in that of the wide world."""
    leaf, stool = pack.chosen(held_out=True)
    plain, again, wide = (held_out_example(pack, stool, wide=w, views=2) for w in (False, False, True))
    assert same(plain, again)
    assert not same(plain, wide)
    assert plain.cameras[:, 2].tolist() == pytest.approx([FOVY] * 3)
    assert 0.0 <= float(plain.cameras[0, 0]) <= math.radians(30.0)
    assert not torch.equal(plain.cameras, held_out_example(pack, leaf, views=2).cameras)
    assert not any(same(plain, real_example(pack, stool, number, views=2)) for number in range(3))


def test_training_never_draws_what_is_held_out(tmp_path: Path) -> None:
    """All objects to train on come in turn, each round in an order of its own."""
    source = Source(write_pack(tmp_path / "objects.zip"), examples=2, views=1)
    pack = ObjectPack(tmp_path / "objects.zip")
    allowed = pack.chosen(held_out=False)
    rounds = []
    for start in (0, 2, 4):
        drawn = [source.drawn("real", number) for number in (start, start + 1)]
        found = [
            next(thing.id for thing in allowed if same(each, real_example(pack, thing, start + k, views=1)))
            for k, each in enumerate(drawn)
        ]
        assert set(found) == {"test/bar", "test/flag"}
        rounds.append(tuple(found))
    assert same(source.drawn("procedural", 3), procedural_example(HELD_OUT + 3, views=1))
