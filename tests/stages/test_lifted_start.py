"""The surface of a volume: cut where silhouettes agree, cleaned, coloured, and refused where the picture differs."""

import math

import torch

from dreamcraft3d.config import LiftedStartConfig
from dreamcraft3d.evaluation.metrics import silhouette_iou
from dreamcraft3d.evaluation.render import render_textured
from dreamcraft3d.functional.cameras import Cameras, orbit
from dreamcraft3d.functional.mesh import is_closed, signed_volume
from dreamcraft3d.kernels.mesh_query import MeshQuery
from dreamcraft3d.rendering import render_mesh
from dreamcraft3d.stages.lifted_start import SurfaceStart, lifted_start, try_lifted_start
from shapes import lopsided_colour
from tiny import lopsided_textured, tiny_supervision

CONFIG = LiftedStartConfig(cells=24)


class FoggyVolume:
    """The lopsided object, dense inside, with fog around it that thins out, and a speck of dirt."""

    def __init__(self, *, scale: float = 1.0, empty: bool = False) -> None:
        mesh = lopsided_textured().mesh
        self._query, self._empty = MeshQuery(scale * mesh.vertices, mesh.faces), empty

    def density_and_colour(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        distance = self._query.signed_distance(x)
        dirt = 40.0 * ((x - torch.tensor([0.0, 0.9, 0.9])).norm(dim=-1) < 0.05)
        density = torch.where(distance < 0.0, 60.0, 3.0 * torch.exp(-distance / 0.05)) + dirt
        return density * (not self._empty), lopsided_colour(x)


class Generator3D:
    """A prior that makes the volume."""

    name = "generator"

    def __init__(self, volume: FoggyVolume) -> None:
        self.volume = volume
        self.seen: Cameras | None = None

    def lifted_volume(self, reference: torch.Tensor, camera: Cameras) -> FoggyVolume:
        self.seen = camera
        return self.volume


def test_the_surface_is_the_objects_and_so_are_its_colours() -> None:
    prior = Generator3D(FoggyVolume())
    start = lifted_start(prior, tiny_supervision(), CONFIG)
    assert start is not None and prior.seen is not None and len(prior.seen) == 1
    assert is_closed(start.faces) and float(signed_volume(start.vertices, start.faces)) > 0.0
    assert float(start.vertices[:, 2].max()) < 0.8  # no dirt
    cameras = orbit(torch.tensor([0.2] * 4), torch.arange(4) * math.pi / 2 + 0.4)
    truth = render_textured(lopsided_textured(), cameras, 64).rgba[..., 3]
    assert float(silhouette_iou(render_mesh(start.mesh, None, cameras, 64).opacity, truth).mean()) > 0.9
    assert start.agreement > 0.9
    assert torch.allclose(start.colour()(start.vertices), start.colours, atol=1e-3)


def test_a_volume_that_is_not_what_the_picture_shows_is_refused() -> None:
    start, reason = try_lifted_start(Generator3D(FoggyVolume(scale=0.6)), tiny_supervision(), CONFIG)
    assert start is not None and reason is not None and "outline" in reason and start.agreement < 0.6


def test_a_prior_without_a_volume_and_an_empty_volume_are_named() -> None:
    supervision = tiny_supervision()
    start, reason = try_lifted_start(supervision.view_prior, supervision, CONFIG)
    assert start is None and reason == "oracle makes no volume"
    start, reason = try_lifted_start(Generator3D(FoggyVolume(empty=True)), supervision, CONFIG)
    assert start is None and reason is not None and "no surface" in reason


def test_a_saved_start_is_the_same_start() -> None:
    start = SurfaceStart(torch.rand(4, 3), torch.tensor([[0, 1, 2], [0, 2, 3]]), torch.rand(4, 3), 0.93)
    again = SurfaceStart.load(start.state())
    assert torch.equal(again.vertices, start.vertices) and torch.equal(again.faces, start.faces)
    assert torch.equal(again.colours, start.colours) and again.agreement == 0.93
