"""Volumes in a frustum: the reference implementation, finite differences, where samples lie, and refusals."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dreamcraft3d.functional.cameras import Cameras, framing_distance, orbit, project
from dreamcraft3d.kernels.frustum import FrustumView, pixel_centres, relative_cameras, render_frustum
from dreamcraft3d.kernels.frustum_source import FAINT
from dreamcraft3d.kernels.reference import frustum as reference

CHANNELS, SIZE, REACH = 8, 12, 0.72
SHAPE = (10, 14, 9)
"""Rows, columns and planes, all different."""


def cameras_of(elevation: list[float], azimuth: list[float], fovy: list[float]) -> Cameras:
    """Cameras from degrees, that see the same width at the origin."""
    e, a, phi = (torch.tensor(values).deg2rad() for values in (elevation, azimuth, fovy))
    return orbit(e, a, distance=framing_distance(phi), fovy=phi)


def setting(views: int = 2, *, volumes: int = 2, spread: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Random volumes, cameras around them, and all pixels of their pictures."""
    generator = torch.Generator().manual_seed(5)
    volume = spread * torch.randn(volumes, *SHAPE, CHANNELS, generator=generator)
    count = views * volumes
    wanted = cameras_of(
        torch.linspace(-20.0, 60.0, count).tolist(), torch.linspace(0.0, 300.0, count).tolist(), [20.0, 45.0] * views
    )
    known = cameras_of([0.0, 15.0][:volumes], [0.0] * volumes, [20.0, 35.0][:volumes])
    rows = torch.arange(volumes).repeat_interleave(views)
    return volume, relative_cameras(wanted, known[rows]), pixel_centres(SIZE).expand(count, -1, -1)


def told(view: FrustumView) -> Tensor:
    return torch.cat([view.opacity, view.colour, view.features, view.depth], dim=-1)


def both(volume: Tensor, cameras: Tensor, pixels: Tensor, *, bias: float) -> list[tuple[Tensor, Tensor]]:
    """What the kernel and its reference implementation see, each with the gradient of a curved function of it."""
    found = []
    for render in (render_frustum, reference.render_frustum):
        cells = volume.clone().requires_grad_()
        seen = told(render(cells, cameras, pixels, samples=16, reach=REACH, bias=bias))
        found.append((seen.detach(), torch.autograd.grad(seen.sin().sum(), cells)[0]))
    return found


def test_without_faint_samples_values_and_gradients_are_the_reference_implementation_s() -> None:
    """Cells of opacity near .1: no weight comes near FAINT."""
    ours, theirs = both(*setting(spread=0.3), bias=-2.0)
    assert float(theirs[0][..., 0].max()) > 0.5, "something is seen"
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-3, atol=1e-5)


def test_faint_samples_change_no_more_than_they_weigh() -> None:
    """With cells between clear and opaque each of 16 samples may lose FAINT of colour, and the rest behind FAINT."""
    volume, cameras, pixels = setting(spread=6.0)
    ours, theirs = both(volume, cameras, pixels, bias=-4.0)
    off = (ours[0] - theirs[0]).abs()
    assert float(off[..., 0].max()) <= 1.1 * FAINT, "opacity"
    assert float(off[..., -1].max()) <= 1.1 * FAINT * 8.5, "depth: the farthest sample is 8.5 away"
    assert float(off[..., 1:-1].max()) <= 17 * FAINT * max(1.0, float(volume[..., 4:].abs().max()))
    assert float((ours[1] - theirs[1]).norm() / theirs[1].norm()) < 0.01


def test_the_reference_implementation_s_gradient_equals_finite_differences() -> None:
    volume = torch.randn(1, 3, 4, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted, known = cameras_of([10.0, 30.0], [40.0, 170.0], [20.0, 40.0]), cameras_of([5.0] * 2, [0.0] * 2, [25.0] * 2)
    cameras, pixels = relative_cameras(wanted, known).double(), pixel_centres(2).double().expand(2, -1, -1)

    def seen(cells: Tensor) -> Tensor:
        return told(reference.render_frustum(cells, cameras, pixels, samples=5, reach=REACH, bias=-1.0))

    assert torch.autograd.gradcheck(seen, volume.requires_grad_())


def test_one_ray_by_hand() -> None:
    """Two planes of opacity 1/2 and 3/4 straight ahead: weights 1/2 and 3/8."""
    volume = torch.zeros(1, 1, 1, 2, CHANNELS)
    volume[0, 0, 0, :, 0] = torch.tensor([0.0, math.log(3.0)])
    volume[0, 0, 0, :, 4] = torch.tensor([2.0, -1.0])
    camera = cameras_of([0.0], [0.0], [20.0])
    ahead = torch.zeros(1, 1, 2)
    seen = render_frustum(volume, relative_cameras(camera, camera), ahead, samples=2, reach=0.5, bias=0.0)
    assert float(seen.opacity) == pytest.approx(0.875)
    assert seen.colour[0, 0].tolist() == pytest.approx([0.4375] * 3)
    assert seen.features[0, 0].tolist() == pytest.approx([0.5 * 2.0 - 0.375, 0.0, 0.0, 0.0])
    assert float(seen.depth) == pytest.approx(0.5 * 3.55 + 0.375 * 4.05, abs=1e-5)


lenses = st.floats(10.0, 50.0)


@given(st.floats(-30, 80), st.floats(-180, 180), st.floats(-20, 60), lenses, lenses)
@settings(max_examples=30, deadline=None)
def test_samples_lie_where_the_cameras_say(
    elevation: float, azimuth: float, tilt: float, fovy: float, reference_fovy: float
) -> None:
    """Each opaque cell holds its own place: what a ray meets first, projected by the reference camera, is what it says.

    Outside the middles of the outermost cells the place is that of the border.
    """
    rows, columns, planes = SHAPE
    middles = [(torch.arange(n) + 0.5) / n * 2.0 - 1.0 for n in SHAPE]
    volume = torch.full((1, *SHAPE, CHANNELS), 40.0)
    for axis in range(3):
        shape = [-1 if k == axis else 1 for k in range(3)]
        volume[0, ..., 4 + axis] = middles[axis].reshape(shape)
    wanted, known = cameras_of([elevation], [azimuth], [fovy]), cameras_of([tilt], [0.0], [reference_fovy])
    pixels = pixel_centres(SIZE)
    seen = render_frustum(volume, relative_cameras(wanted, known), pixels[None], samples=24, reach=REACH, bias=0.0)
    hit = seen.opacity[0, :, 0] > 0.999
    assert bool(hit.any())
    d, flat = seen.depth[0, hit], pixels[hit]
    in_camera = torch.cat([flat * math.tan(math.radians(fovy) / 2) * d, -d], dim=1)
    world = in_camera @ wanted.c2w[0, :3, :3].T + wanted.c2w[0, :3, 3]
    clip = project(world, known)[0]
    v, u = -clip[:, 1] / clip[:, 3], clip[:, 0] / clip[:, 3]
    w = (clip[:, 3] - float(known.distance)) / REACH
    place = torch.stack([v, u, w], dim=1)
    assert float(place.abs().max()) < 1.0 + 1e-4, "what is seen lies inside the frustum"
    border = 1.0 - 1.0 / torch.tensor([rows, columns, planes])
    expected = place.clamp(-border, border)
    assert torch.allclose(seen.features[0, hit, :3], expected, atol=2e-4), "rows count downwards"


def test_outside_the_volume_is_nothing() -> None:
    """The border of an opaque volume does not smear into space."""
    volume, camera = torch.full((1, 4, 4, 4, CHANNELS), 20.0), cameras_of([0.0], [0.0], [30.0])
    rays = torch.tensor([[[0.0, 0.0], [0.99, -0.99], [1.01, 0.0], [0.0, -1.2]]])
    seen = render_frustum(volume, relative_cameras(camera, camera), rays, samples=4, reach=REACH, bias=0.0)
    assert seen.opacity[0, :, 0].tolist() == [pytest.approx(1.0), pytest.approx(1.0), 0.0, 0.0]


def test_a_camera_inside_the_frustum_sees_nothing_behind_itself() -> None:
    """Samples behind the reference camera are no cells, whatever perspective division makes of them."""
    volume = torch.full((1, 4, 4, 4, CHANNELS), 20.0)
    wanted = orbit(0.0, math.pi, distance=0.1)
    known = orbit(0.0, 0.0, distance=0.3)
    numbers = relative_cameras(wanted, known)
    rays = pixel_centres(4)[None]
    ours, theirs = (
        render(volume, numbers, rays, samples=64, reach=REACH, bias=0.0)
        for render in (render_frustum, reference.render_frustum)
    )
    assert torch.isfinite(told(ours)).all()
    torch.testing.assert_close(ours.opacity, theirs.opacity, rtol=0.0, atol=1.1 * FAINT)


def test_gradients_are_bitwise_the_same_in_every_run_and_on_any_number_of_threads() -> None:
    volume, cameras, pixels = setting(spread=3.0)
    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 3, 2):
        torch.set_num_threads(threads)
        cells = volume.clone().requires_grad_()
        seen = told(render_frustum(cells, cameras, pixels, samples=16, reach=REACH, bias=-4.0))
        found.append((seen.detach(), torch.autograd.grad(seen.square().sum(), cells)[0]))
    torch.set_num_threads(before)
    for seen, gradient in found[1:]:
        assert torch.equal(seen, found[0][0])
        assert torch.equal(gradient, found[0][1])


def test_views_see_their_own_volume() -> None:
    volume, cameras, pixels = setting(views=2, volumes=2)
    together = told(render_frustum(volume, cameras, pixels, samples=8, reach=REACH, bias=-1.0))
    for b in range(2):
        views = slice(2 * b, 2 * b + 2)
        alone = render_frustum(volume[b : b + 1], cameras[views], pixels[views], samples=8, reach=REACH, bias=-1.0)
        assert torch.equal(told(alone), together[views])


def test_strided_volumes_are_seen_like_others() -> None:
    volume, cameras, pixels = setting()
    strided = volume.permute(0, 4, 1, 2, 3).contiguous().permute(0, 2, 3, 4, 1)
    first, second = (
        told(render_frustum(cells, cameras, pixels, samples=8, reach=REACH, bias=-1.0)) for cells in (volume, strided)
    )
    assert not strided.is_contiguous()
    assert torch.equal(first, second)


@pytest.mark.parametrize("narrow", [0, 1, 2])
def test_refuses_other_types(narrow: int) -> None:
    tensors = [tensor.double() if index == narrow else tensor for index, tensor in enumerate(setting())]
    with pytest.raises(ValueError, match="float32"):
        render_frustum(*tensors, samples=4, reach=REACH, bias=0.0)


def test_refuses_shapes_that_do_not_fit() -> None:
    volume, cameras, pixels = setting()

    def refused(cells: Tensor, numbers: Tensor, rays: Tensor, *, match: str) -> None:
        with pytest.raises(ValueError, match=match):
            render_frustum(cells, numbers, rays, samples=4, reach=REACH, bias=0.0)

    refused(volume, cameras[:3], pixels[:3], match="do not fit 2 volumes")
    refused(volume, cameras, pixels[:3], match="do not fit 2 volumes")
    refused(volume[..., :3], cameras, pixels, match="shapes")
    refused(volume[0], cameras, pixels, match="shapes")
    refused(volume, cameras[:, :12], pixels, match="shapes")
    refused(volume, cameras, torch.cat([pixels, pixels], dim=-1), match="shapes")
