"""The copy that is painted: placed, outward, thin walls apart, broken faces left out; and what the views show of it."""

import math

import numpy as np
import pytest
import torch

import soups
from dreamcraft3d.functional.cameras import orbit
from dreamcraft3d.refining.refusals import EmptyMask
from dreamcraft3d.refining.request import Occluders
from dreamcraft3d.refining.surface import APART, surface_of
from dreamcraft3d.refining.visibility import looks, outward_normals

IMAGE = soups.png(soups.noise(16, 16))


def surface(mesh, **options):
    two_sided = options.pop("two_sided", True)
    return surface_of(soups.request(mesh, {0: IMAGE}, **options), two_sided=two_sided)


def views_of(made, elevation=(-60.0, 60.0)):
    return looks(made, elevation, orbit(0.0, 0.0))


def test_blenders_front_faces_the_reference_camera():
    front, right = soups.card(-0.5), soups.sphere(8, 16, centre=(0.5, 0, 0), radius=0.1)
    made = surface(soups.together(front, right))
    count = len(front.tri_vertex)
    assert np.allclose(made.normals[:count].mean(axis=0), [1, 0, 0], atol=1e-6)
    assert made.corners[count:].mean(axis=(0, 1))[1] > 0.3  # Blender's +x is image-right
    radius = float(made.mesh.vertices.norm(dim=-1).max())
    assert 0.55 < radius <= 0.6401


def test_a_negative_scale_turns_faces_but_not_the_order_of_corners():
    mesh = soups.sphere(8, 16)
    plain, mirror = surface(mesh), surface(mesh, matrix=np.diag([-1.0, 1, 1, 1]))
    assert np.allclose(plain.corners * [1, -1, 1], mirror.corners, atol=1e-6)
    for made in (plain, mirror):
        centre = made.corners.mean(axis=1)
        assert ((made.normals * centre).sum(axis=1)[made.usable] > 0).all()


def test_thin_walls_come_apart_and_others_stay():
    """Two cards back to back, at the same place, and a sphere: the cards' sides move outward, the sphere does not."""
    cards = soups.together(soups.card(0.0, box=(0, 0, 0.5, 1)), soups.card(0.0, back=True, box=(0.5, 0, 1, 1)))
    ball = soups.sphere(8, 16, centre=(0, 0, 1.5), radius=0.5, box=(0, 0, 1, 1))
    both = surface(soups.together(cards, ball))
    off = surface(soups.together(cards, ball), two_sided=False)
    count = len(cards.tri_vertex)
    assert both.thin == count and off.thin == 0
    moved = both.corners - off.corners
    assert np.allclose(moved[: count // 2], [APART, 0, 0], atol=1e-9)
    assert np.allclose(moved[count // 2 : count], [-APART, 0, 0], atol=1e-9)
    assert np.allclose(moved[count:], 0.0)


def test_a_closed_thin_box_stays_closed():
    thin = soups.cube()
    thin.position[:, 1] *= 0.01
    made = surface(thin)
    assert made.thin > 0
    edges = torch.sort(made.mesh.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), dim=1).values
    _, counts = torch.unique(edges, dim=0, return_counts=True)
    assert (counts == 2).all()


def test_broken_faces_are_left_out_and_counted():
    mesh = soups.cube()
    mesh.position[mesh.tri_vertex[5]] = mesh.position[mesh.tri_vertex[5][0]]
    mesh.position[mesh.tri_vertex[60][0]] = np.nan
    three = np.vstack([mesh.tri_vertex, mesh.tri_vertex[:7], mesh.tri_vertex[:7]])  # non-manifold too
    soup = soups.soup(mesh.position, three, np.vstack([mesh.tri_uv, mesh.tri_uv[:7], mesh.tri_uv[:7]]))
    made = surface(soup)
    assert 2 <= np.count_nonzero(~made.usable) < 40
    assert torch.isfinite(made.mesh.vertices).all()
    with pytest.raises(EmptyMask):
        mesh.position[:] = 0.0
        surface(mesh)


def test_views_show_the_outside_only():
    inner, outer = soups.sphere(12, 24, radius=0.4), soups.sphere(24, 48)
    made = surface(soups.together(inner, outer))
    views = views_of(made)
    centres = torch.from_numpy(made.corners.mean(axis=1)).float()
    shown = views.show(centres, torch.from_numpy(outward_normals(made, views)).float()).numpy()
    count = len(inner.tri_vertex)
    assert not shown[:count].any()
    height = np.abs(made.corners[count:].mean(axis=1)[:, 2]) / 0.6
    assert shown[count:][(height < math.sin(math.radians(65))) & made.usable[count:]].all()
    assert views.inside_out == 0


def test_occluders_hide():
    ring = soups.sphere(24, 48, radius=1.3)
    hidden = Occluders(ring.position, ring.tri_vertex)
    made = surface(soups.sphere(12, 24), occluders=hidden)
    views = views_of(made)
    centres = torch.from_numpy(made.corners.mean(axis=1)).float()
    assert not views.show(centres, torch.from_numpy(made.normals).float()).any()


def test_a_mesh_inside_out_is_seen_all_the_same():
    cube = soups.cube()
    cube.tri_vertex[:] = cube.tri_vertex[:, ::-1]
    cube.tri_uv[:] = cube.tri_uv[:, ::-1]
    made = surface(cube)
    views = views_of(made)
    assert views.inside_out == len(cube.tri_vertex)
    centres = torch.from_numpy(made.corners.mean(axis=1)).float()
    assert views.show(centres, torch.from_numpy(outward_normals(made, views)).float()).all()


def test_both_sides_of_a_card_are_seen():
    cards = soups.together(soups.card(0.0, box=(0, 0, 0.5, 1)), soups.card(0.0, back=True, box=(0.5, 0, 1, 1)))
    made = surface(cards)
    views = views_of(made)
    centres = torch.from_numpy(made.corners.mean(axis=1)).float()
    assert views.inside_out == 0
    assert views.show(centres, torch.from_numpy(made.normals).float()).all()
