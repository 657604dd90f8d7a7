"""Lifting is geometry: what is put into the volume is seen where the cameras of the project see it."""

import math

import pytest
import torch

from dreamcraft3d.functional.cameras import DISTANCE, FOVY, HALF_WIDTH, Cameras, framing_cameras
from dreamcraft3d.kernels.frustum import pixel_centres
from dreamcraft3d.priors.lifting import (
    REACH,
    CameraEstimator,
    LiftingEncoder,
    ReferenceCode,
    look,
    picture_logits,
)

SIZE, PLANES, CHANNELS = 32, 24, 8
REFERENCE_SIZE = 128


def angles(*degrees: float) -> torch.Tensor:
    return torch.tensor([math.radians(d) for d in degrees])


def cameras(elevation: float, *azimuths: float, fovy: float = 20.0) -> Cameras:
    count = len(azimuths)
    return framing_cameras(angles(*[elevation] * count), angles(*azimuths), angles(*[fovy] * count))


def ball_seen(*, at: tuple[float, float, float], radius: float, tilt: float = 0.0, fovy: float = 20.0) -> ReferenceCode:
    """A volume with a red ball in it (world coordinates), seen by a camera with this tilt and lens (degrees)."""
    code = ReferenceCode(
        torch.full((1, SIZE, SIZE, PLANES, CHANNELS), -8.0), torch.zeros(1, SIZE, SIZE, PLANES), torch.zeros(1, 1, 1),
        angles(tilt), angles(fovy),
    )  # fmt: skip
    camera = code.cameras
    d = camera.distance + REACH * ((torch.arange(PLANES) + 0.5) / PLANES * 2 - 1)
    flat = pixel_centres(SIZE)[:, None] * (torch.tan(camera.fovy / 2) * d)[None, :, None]
    seen = torch.cat([flat, -d[None, :, None].expand(len(flat), -1, 1)], dim=-1)
    world = (seen @ camera.c2w[0, :3, :3].T + camera.c2w[0, :3, 3]).reshape(SIZE, SIZE, PLANES, 3)
    inside = (world - torch.tensor(at)).norm(dim=-1) < radius
    code.volume[0, ..., 0] = torch.where(inside, 24.0, -20.0)
    code.volume[0, ..., 1] = 8.0
    return code


@pytest.mark.parametrize(("tilt", "fovy"), [(0.0, 20.0), (25.0, 20.0), (0.0, 40.0)])
def test_a_ball_moves_as_the_camera_turns(tilt: float, fovy: float) -> None:
    """A ball to the right of the axis is right in front, near from the right (seen in the middle), hidden behind.

    Whatever camera the reference was taken with.
    """
    code = ball_seen(at=(0.0, 0.35, 0.0), radius=0.2, tilt=tilt, fovy=fovy)
    view = look(code, cameras(0.0, 0.0, 90.0, 180.0), size=SIZE)
    column = (view.rgba[:, 3] * torch.arange(SIZE)).sum((1, 2)) / view.rgba[:, 3].sum((1, 2))
    assert column.tolist() == pytest.approx([15.5 + 8.3, 15.5, 15.5 - 8.3], abs=0.8)
    red = view.rgba[:, 0][view.rgba[:, 3] > 0.9]
    assert float(red.min()) > 0.8
    depth = (view.depth / view.rgba[:, 3:].clamp_min(1e-3))[:, 0, 15:17]
    nearest = torch.stack([d[a > 0.9].min() for d, a in zip(depth, view.rgba[:, 3, 15:17], strict=True)])
    assert nearest.tolist() == pytest.approx([DISTANCE - 0.2, DISTANCE - 0.55, DISTANCE - 0.2], abs=0.06)


def test_a_ball_in_the_middle_is_as_wide_through_every_lens() -> None:
    """Cameras frame the same width at the origin; a short lens sees the near side larger."""
    code = ball_seen(at=(0.0, 0.0, 0.0), radius=0.35)
    widths = []
    for fovy in (10.0, 20.0, 50.0):
        alpha = look(code, cameras(0.0, 0.0, fovy=fovy), size=128).rgba[0, 3]
        widths.append(2.0 * math.sqrt(float(alpha.sum()) / math.pi) / 128 * 2.0 * HALF_WIDTH)
    assert widths == pytest.approx([0.70, 0.70, 0.72], abs=0.05)
    assert widths[2] > widths[0]


def test_chosen_rays_are_pixels_of_the_whole_picture() -> None:
    code = ball_seen(at=(0.0, 0.2, 0.1), radius=0.3)
    wanted = cameras(20.0, 40.0, 200.0)
    whole = look(code, wanted, size=SIZE)
    rays = pixel_centres(SIZE).reshape(SIZE, SIZE, 2)[1::2, 0::2].reshape(-1, 2).expand(2, -1, -1)
    thin = look(code, wanted, size=SIZE // 2, pixels=rays)
    assert torch.equal(thin.rgba, whole.rgba[..., 1::2, 0::2])
    assert torch.equal(thin.depth, whole.depth[..., 1::2, 0::2])
    assert torch.equal(thin.features, whole.features[..., 1::2, 0::2])


def test_codes_are_looked_at_in_turn() -> None:
    """Two references, two views of each."""
    first, second = ball_seen(at=(0.0, 0.3, 0.0), radius=0.2), ball_seen(at=(0.0, -0.3, 0.0), radius=0.2, fovy=35.0)
    pairs = zip(vars(first).values(), vars(second).values(), strict=True)
    both = ReferenceCode(*(torch.cat(pair) for pair in pairs))
    rgba = look(both, cameras(0.0, 0.0, 90.0, 0.0, 90.0), size=SIZE).rgba
    assert torch.equal(rgba[:2], look(first, cameras(0.0, 0.0, 90.0), size=SIZE).rgba)
    assert torch.equal(rgba[2:], look(both[1:], cameras(0.0, 0.0, 90.0), size=SIZE).rgba)
    assert float((rgba[0, 3] * torch.arange(SIZE)).sum() / rgba[0, 3].sum()) > 20.0
    assert float((rgba[2, 3] * torch.arange(SIZE)).sum() / rgba[2, 3].sum()) < 12.0


def test_outside_the_volume_is_nothing() -> None:
    """The border of a full volume does not smear into space: seen from the side it ends where it reaches to."""
    code = ball_seen(at=(0.0, 0.0, 0.0), radius=9.0)
    front = look(code, cameras(0.0, 0.0), size=SIZE).rgba[0, 3]
    assert float(front.min()) > 0.99
    beside = look(code, cameras(0.0, 0.0, fovy=60.0), size=SIZE).rgba[0, 3]
    assert float(beside[SIZE // 2, SIZE // 2]) > 0.99
    rays = torch.tensor([[[1.2, 0.0]], [[0.0, -1.2]]])
    outside = look(code, cameras(0.0, 0.0, 0.0), size=1, pixels=rays).rgba[:, 3]
    assert outside.flatten().tolist() == [0.0, 0.0]


def encoder(*, reference_size: int = REFERENCE_SIZE, supervised: bool = True) -> LiftingEncoder:
    torch.manual_seed(0)
    return LiftingEncoder(
        reference_size=reference_size, widths=(16, 16, 32), decoder=16, blocks=1, planes=6, features=4,
        supervised=supervised,
    )  # fmt: skip


def test_without_supervision_opacity_stands_for_occupancy() -> None:
    """As in the first shipped weights: half the resolution, the surface still estimated at 64 pixels."""
    code, estimate = encoder(reference_size=64, supervised=False)(
        torch.rand(1, 4, 64, 64), torch.zeros(1), torch.full((1,), FOVY)
    )
    assert code.volume.shape == (1, 32, 32, 6, 8)
    assert torch.equal(code.occupancy, code.volume[..., 0] - 4.0)
    assert estimate.depth.shape == (1, 1, 64, 64)


def test_gradients_reach_the_picture() -> None:
    picture = torch.rand(1, 4, REFERENCE_SIZE, REFERENCE_SIZE, requires_grad=True)
    code, estimate = encoder()(picture, torch.zeros(1), torch.full((1,), FOVY))
    seen = look(code, cameras(30.0, 30.0), size=64)
    (seen.rgba.sum() + estimate.depth.sum() + code.occupancy.sum()).backward()
    assert picture.grad is not None
    assert (picture.grad.abs().sum((0, 1)) > 0).all(), "every pixel matters"
    assert torch.allclose(estimate.normal.norm(dim=1), torch.ones(1, 64, 64), atol=1e-4)


def test_the_camera_of_the_reference_matters() -> None:
    picture, lifting = torch.rand(1, 4, REFERENCE_SIZE, REFERENCE_SIZE), encoder()
    plain, tilted, wide = (
        lifting(picture, angles(tilt), angles(fovy))[0].volume for tilt, fovy in ((0, 20), (20, 20), (0, 40))
    )
    assert not torch.allclose(plain, tilted, atol=1e-3)
    assert not torch.allclose(plain, wide, atol=1e-3)


def test_cells_start_almost_empty_with_the_picture_s_colours() -> None:
    """Half of the picture is opaque red, the rest transparent: cells there start from the mean colour."""
    rgba = torch.zeros(1, 4, REFERENCE_SIZE, REFERENCE_SIZE)
    rgba[:, :, :, :64] = torch.tensor([0.8, 0.2, 0.2, 1.0])[:, None, None]
    colours = torch.sigmoid(picture_logits(2.0 * rgba - 1.0))
    assert colours.shape == (1, 64, 64, 3)
    assert torch.allclose(colours, torch.tensor([0.8, 0.2, 0.2]).expand_as(colours), atol=0.01)


def test_an_untrained_camera_estimator_guesses_the_plain_camera() -> None:
    elevation, fovy = CameraEstimator(widths=(8, 16))(torch.rand(3, 4, REFERENCE_SIZE, REFERENCE_SIZE))
    assert elevation.tolist() == [0.0] * 3
    assert fovy.tolist() == pytest.approx([FOVY] * 3)
