"""Each stage against the exact prior of a small object: it must find it, not merely run."""

import math
from collections.abc import Callable
from functools import cache

import pytest
import torch

from dreamcraft3d.errors import ObjectLost
from dreamcraft3d.evaluation.metrics import silhouette_iou
from dreamcraft3d.evaluation.render import render_textured
from dreamcraft3d.functional.cameras import orbit
from dreamcraft3d.functional.mesh import is_closed, signed_volume
from dreamcraft3d.rendering import Render, render_density, render_mesh, render_sdf
from dreamcraft3d.stages.coarse_nerf import CoarseNerf, train_coarse_nerf
from dreamcraft3d.stages.geometry import Geometry, geometry_from_mesh, new_geometry, sculpt_geometry
from dreamcraft3d.stages.neus import Neus, extract_surface, fit_shape, new_neus, train_neus
from dreamcraft3d.stages.texture import paint_texture
from shapes import lopsided_colour
from tiny import lopsided_textured, tiny_config, tiny_run, tiny_supervision

CAMERAS = orbit(torch.tensor([0.2] * 4), torch.arange(4) * math.pi / 2 + 0.4)
SIZE = 48


@cache
def nerf() -> CoarseNerf:
    return train_coarse_nerf(tiny_supervision(), tiny_config().coarse_nerf, tiny_run("coarse_nerf"))


@cache
def neus() -> Neus:
    return train_neus(tiny_supervision(), nerf(), tiny_config().neus, tiny_run("neus"))


@cache
def geometry() -> Geometry:
    config, run = tiny_config().geometry, tiny_run("geometry")
    return sculpt_geometry(tiny_supervision(), new_geometry(neus(), config, run.generator()), config, run)


def iou(render: Callable[[], Render]) -> float:
    truth = render_textured(lopsided_textured(), CAMERAS, SIZE)
    with torch.no_grad():
        return float(silhouette_iou(render().opacity, truth.rgba[..., 3]).mean())


def nerf_iou() -> float:
    return iou(lambda: render_density(nerf().field, nerf().grid, CAMERAS, SIZE, step_size=0.03))


def neus_iou(result: Neus) -> float:
    return iou(lambda: render_sdf(result.field, result.grid, CAMERAS, SIZE, step_size=0.03))


def test_the_nerf_finds_the_object_from_all_sides() -> None:
    nerf()
    assert nerf_iou() > 0.7


def test_the_nerfs_shape_reaches_the_signed_distances() -> None:
    """What the release loses: before any NeuS step, the field has the NeRF's surface."""
    config = tiny_config().neus
    fresh = new_neus(nerf(), config, tiny_run("neus").generator())
    surface = extract_surface(nerf(), config)
    fit_shape(fresh.field, surface, config, tiny_run("neus").generator(-2))
    assert float(fresh.field.sdf(surface.vertices).detach().abs().mean()) < 0.02
    assert neus_iou(fresh) > 0.7


def test_each_stage_hands_its_shape_to_the_next_and_the_mesh_is_closed() -> None:
    mesh = geometry().mesh()
    fine = iou(lambda: render_mesh(mesh, None, CAMERAS, SIZE))
    assert fine > 0.88
    assert fine > nerf_iou()
    assert neus_iou(neus()) > nerf_iou() - 0.05
    assert is_closed(mesh.faces)
    assert float(signed_volume(mesh.vertices, mesh.faces)) > 0.0


def test_any_mesh_can_be_the_start_of_the_geometry_stage() -> None:
    """Its shape is there before any step, and its colours where it has some."""
    truth, config = lopsided_textured(), tiny_config()
    start = geometry_from_mesh(
        truth.mesh, lopsided_colour, config.geometry, config.coarse_nerf.hash_grid, tiny_run("geometry").generator()
    )
    mesh = start.mesh()
    assert is_closed(mesh.faces)
    assert iou(lambda: render_mesh(mesh, None, CAMERAS, SIZE)) > 0.9
    error = (start.colour(mesh.vertices).detach() - lopsided_colour(mesh.vertices)).abs().mean()
    assert float(error) < 0.1  # grey would be 0.3


def test_the_texture_finds_the_colours_of_sides_that_the_picture_does_not_show() -> None:
    truth = lopsided_textured()
    surface = truth.mesh
    texture = paint_texture(
        tiny_supervision(), surface, lambda x: torch.full_like(x, 0.5), tiny_config().texture, tiny_run("texture")
    )
    back = orbit(0.0, math.pi)
    ours = render_mesh(surface, texture.at, back, SIZE)
    theirs = render_textured(truth, back, SIZE)
    inside = (ours.opacity > 0.99) & (theirs.rgba[..., 3] > 0.99)
    assert float((ours.rgb - theirs.rgba[..., :3]).abs()[inside].mean()) < 0.12  # grey would be 0.35


def test_a_prior_that_sees_nothing_ends_in_a_clear_error() -> None:
    """The object vanishes: the stage goes back, warns, and in the end says what to do."""
    supervision = tiny_supervision()
    supervision.reference.rgba.zero_()  # an empty picture, under a mask that says there is an object
    assert supervision.view_prior is not None
    supervision.view_prior._true_view = lambda e, a, content, size: torch.zeros(len(a), size, size, 4)  # type: ignore[attr-defined]
    config = tiny_config({"coarse_nerf.lr": 0.05, "coarse_nerf.steps": 200})
    with pytest.raises(ObjectLost) as caught:
        train_neus(
            supervision,
            train_coarse_nerf(supervision, config.coarse_nerf, tiny_run("coarse_nerf")),
            config.neus,
            tiny_run("neus"),
        )
    assert caught.value.remedy
