import math

import pytest
import torch

from dreamcraft3d.functional.cameras import orbit, rays
from dreamcraft3d.priors.base import VolumePrior
from dreamcraft3d.priors.bundled import BundledPrior
from dreamcraft3d.priors.frustum_volume import FrustumVolume
from dreamcraft3d.priors.oracle import OraclePrior


def ball(camera, planes: int, side: int, *, near: float = 2.0, far: float = 4.0) -> FrustumVolume:
    """A ball of radius 0.4 around the origin, red where y > 0, as cells of the camera's frustum."""
    half = math.tan(0.5 * float(camera.fovy[0]))
    across = (torch.arange(side) + 0.5) / side * 2.0 - 1.0
    depth = near + (far - near) * (torch.arange(planes) + 0.5) / planes
    d, v, u = torch.meshgrid(depth, -across, across, indexing="ij")
    seen = torch.stack([u * half * d, v * half * d, -d], dim=-1)
    world = seen @ camera.c2w[0, :3, :3].T + camera.c2w[0, :3, 3]
    opacity = torch.where(world.norm(dim=-1) < 0.4, 3.0, -30.0)
    red = torch.where(world[..., 1] > 0.0, 8.0, -8.0)
    return FrustumVolume(torch.stack([opacity, red, -red, -red]), camera, near, far)


@pytest.mark.parametrize(("fovy", "distance", "elevation"), [(20.0, 3.0, 0.0), (45.0, 3.2, 0.5)])
def test_cells_lie_where_the_camera_saw_them_whatever_its_field_of_view(
    fovy: float, distance: float, elevation: float
) -> None:
    camera = orbit(elevation, 0.0, distance=distance, fovy=math.radians(fovy))
    volume = ball(camera, 48, 48)
    x = 1.6 * torch.rand(4000, 3, generator=torch.Generator().manual_seed(0)) - 0.8
    x = x[(x.norm(dim=-1) - 0.4).abs() > 0.1]
    density, colour = volume.density_and_colour(x)
    assert torch.equal(density > 1.0, x.norm(dim=-1) < 0.4)
    sure = (x.norm(dim=-1) < 0.3) & (x[:, 1].abs() > 0.1)
    assert torch.equal(colour[sure, 0] > 0.5, x[sure, 1] > 0.0)


@pytest.mark.parametrize("planes", [6, 24])
def test_a_ray_through_all_planes_sees_what_they_leave_of_each_other(planes: int) -> None:
    """Each plane lets 1 - alpha through: the optical depth is n softplus(z), however the n planes are spaced."""
    camera = orbit(0.0, 0.0, distance=3.0)
    volume = FrustumVolume(torch.full((4, planes, 4, 4), -1.0), camera, 2.0, 4.0)
    origins, directions = rays(camera, 1)
    step = 2.0 / 400
    t = 2.0 + step * (torch.arange(400) + 0.5)
    density, _ = volume.density_and_colour(origins.reshape(1, 3) + t[:, None] * directions.reshape(1, 3))
    left = float(1.0 - torch.tensor(-1.0).sigmoid()) ** planes
    assert float(torch.exp(-density.sum() * step)) == pytest.approx(left, rel=1e-3)


def test_nothing_is_outside_of_the_frustum() -> None:
    camera = orbit(0.0, 0.0, distance=3.0)
    full = FrustumVolume(torch.full((4, 4, 4, 4), 5.0), camera, 2.5, 3.5)
    outside = torch.tensor([[0.0, 0.9, 0.0], [0.0, 0.0, -0.9], [0.6, 0.0, 0.0], [-0.6, 0.0, 0.0], [4.0, 0.0, 0.0]])
    assert float(full.density_and_colour(outside)[0].abs().max()) == 0.0
    assert float(full.density_and_colour(torch.zeros(1, 3))[0]) > 1.0


def test_only_priors_with_a_volume_offer_one() -> None:
    assert isinstance(BundledPrior.load(), VolumePrior)
    assert not isinstance(OraclePrior(lambda e, a, content, size: torch.zeros(len(a), size, size, 4)), VolumePrior)
