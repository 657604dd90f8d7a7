"""Metrics on cases whose answer is known."""

import math

import pytest
import torch

import shapes
from dreamcraft3d.evaluation import f_score, multi_view_report, psnr, silhouette_iou, unseen_views
from dreamcraft3d.evaluation.metrics import sample_surface, seen_from_outside, sphere_of_cameras
from dreamcraft3d.export import TexturedMesh
from dreamcraft3d.functional.mesh import Mesh


def textured(mesh: Mesh, colour: tuple[float, float, float] = (0.2, 0.4, 0.6)) -> TexturedMesh:
    colours = torch.tensor(colour).expand_as(mesh.vertices).contiguous()
    return TexturedMesh(mesh.vertices, mesh.faces, vertex_colours=colours)


def test_psnr_of_a_known_difference() -> None:
    a = torch.zeros(2, 4, 4, 3)
    b = torch.stack([torch.full((4, 4, 3), 0.1), torch.zeros(4, 4, 3)])
    torch.testing.assert_close(psnr(a, b), torch.tensor([20.0, 100.0]))


def test_silhouette_iou_of_known_rectangles() -> None:
    a, b = torch.zeros(3, 8, 8), torch.zeros(3, 8, 8)
    a[0, :4], b[0, 2:6] = 1.0, 1.0  # two of six rows
    a[1, 0, 0] = 1.0
    torch.testing.assert_close(silhouette_iou(a, b), torch.tensor([1 / 3, 0.0, 1.0]))


@pytest.mark.parametrize("shift", [0.05, 0.1])
def test_f_score_of_a_shifted_sphere(shift: float) -> None:
    """|p - c'|^2 = r^2 + d^2 - 2 r d cos(theta), and cos(theta) is uniform on a sphere."""
    radius = 0.5
    score = f_score(shapes.sphere(radius, (0.0, shift, 0.0), 4), shapes.sphere(radius, subdivisions=4), samples=20_000)
    t = score.threshold
    assert t == pytest.approx(0.02 * 2 * radius * math.sqrt(3), rel=1e-2)
    low = (radius**2 + shift**2 - (radius + t) ** 2) / (2 * radius * shift)
    high = (radius**2 + shift**2 - (radius - t) ** 2) / (2 * radius * shift)
    expected = (min(high, 1.0) - max(low, -1.0)) / 2
    assert score.f_score == pytest.approx(expected, abs=0.02)
    assert score.precision == pytest.approx(score.recall, abs=0.02)


def test_what_cannot_be_seen_does_not_matter() -> None:
    outer, inner = shapes.sphere(0.5), shapes.sphere(0.3)
    score = f_score(shapes.union(outer, inner), outer, samples=10_000)
    assert score.f_score > 0.999


def test_missing_and_surplus_parts_lower_recall_and_precision() -> None:
    body, part = shapes.sphere(0.3), shapes.sphere(0.15, (0.0, 0.6, 0.0))
    share = 0.3**2 / (0.3**2 + 0.15**2)
    missing = f_score(body, shapes.union(body, part), samples=10_000)
    assert missing.precision == pytest.approx(1.0)
    assert missing.recall == pytest.approx(share, abs=0.02)
    surplus = f_score(shapes.union(body, part), body, samples=10_000)
    assert surplus.recall == pytest.approx(1.0)
    assert surplus.precision == pytest.approx(share, abs=0.02)


def test_f_score_is_reproducible_and_ignores_where_the_pair_lies() -> None:
    a, b = shapes.torus(24), shapes.torus(32)
    first = f_score(a, b, samples=5_000)
    assert first == f_score(a, b, samples=5_000)
    far = torch.tensor([10.0, -5.0, 3.0])
    moved = f_score(Mesh(a.vertices + far, a.faces), Mesh(b.vertices + far, b.faces), samples=5_000)
    assert moved.f_score == pytest.approx(first.f_score, abs=0.01)


def test_samples_spread_evenly_over_the_area() -> None:
    points = sample_surface(shapes.box((0, 0, 0), (1, 2, 3)), 22_000, generator=torch.Generator().manual_seed(0))
    assert ((points[:, 2] - 3).abs() < 1e-6).sum().item() == pytest.approx(2_000, abs=3)
    torch.testing.assert_close(points.mean(0), torch.tensor([0.5, 1.0, 1.5]), atol=0.02, rtol=0)


def test_all_of_a_ring_can_be_seen_and_nothing_in_a_box() -> None:
    ring = shapes.torus()
    points = sample_surface(ring, 5_000, generator=torch.Generator().manual_seed(0))
    assert seen_from_outside(points, ring).float().mean() > 0.995
    inside = 0.5 * torch.rand(100, 3) - 0.25
    assert not seen_from_outside(inside, shapes.box((-0.5, -0.5, -0.5), (0.5, 0.5, 0.5))).any()


def test_cameras_cover_the_sphere() -> None:
    toward = sphere_of_cameras(64).c2w[:, :3, 2]
    torch.testing.assert_close(toward.mean(0), torch.zeros(3), atol=0.02, rtol=0)
    assert (toward @ toward.T - 2 * torch.eye(64)).amax(1).min() > math.cos(math.radians(35))


def test_unseen_views_leave_the_reference_out() -> None:
    cameras = unseen_views(24)
    assert len(cameras) == 24
    assert (cameras.c2w[:, 0, 2] < math.cos(math.radians(5))).all()
    assert (
        len({(round(float(e), 3), round(float(a), 3)) for e, a in zip(cameras.elevation, cameras.azimuth, strict=True)})
        == 24
    )


def test_report_on_a_smaller_sphere_of_another_colour() -> None:
    truth, result = textured(shapes.sphere(0.5)), textured(shapes.sphere(0.4), (0.2, 0.4, 0.5))
    report = multi_view_report(result, truth, views=6, size=128)
    assert report.silhouette_iou == pytest.approx(0.8**2, abs=0.02)  # areas of discs
    assert report.reference_iou == pytest.approx(report.silhouette_iou, abs=0.01)
    assert report.worst_iou <= report.silhouette_iou
    assert len(report.psnr_per_view) == len(report.azimuths) == 6
    disc = math.pi * (0.4 / (2 * 0.67)) ** 2
    ring = disc * (1 / 0.8**2 - 1)
    error = disc * 0.1**2 / 3 + ring * (0.8**2 + 0.6**2 + 0.4**2) / 3
    assert report.psnr == pytest.approx(-10 * math.log10(error), abs=0.3)
    same = multi_view_report(truth, truth, views=3, size=64)
    assert (same.silhouette_iou, same.psnr, same.reference_psnr) == (1.0, 100.0, 100.0)
