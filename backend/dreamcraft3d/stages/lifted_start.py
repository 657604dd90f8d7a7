"""Start from the volume of a feed-forward prior: a coloured surface without any optimisation, instead of NeRF and NeuS.

The volume is soft where its network is unsure, so that its surface depends on the density at which it is cut. The
threshold is the one whose silhouettes agree best with the picture's mask in the reference view, and with the volume's
own silhouettes in other views.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreamcraft3d.config import LiftedStartConfig
from dreamcraft3d.fields.tet_mesh import closed_at_box
from dreamcraft3d.functional.cameras import Cameras, orbit
from dreamcraft3d.functional.mesh import Mesh, keep_components, smoothed
from dreamcraft3d.functional.tets import bcc_grid, marching_tets
from dreamcraft3d.kernels.marching import OccupancyGrid
from dreamcraft3d.kernels.mesh_query import MeshQuery
from dreamcraft3d.priors.base import LiftedVolume, VolumePrior
from dreamcraft3d.rendering import render_density, render_mesh
from dreamcraft3d.stages.supervision import Supervision

__all__ = ["SurfaceStart", "lifted_start", "try_lifted_start"]

THRESHOLDS = (2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 16.0, 24.0)
"""Densities per unit length that may be the surface; light is halved in 35 to 3 % of the scene box's half side."""

VIEWS = 6
"""Silhouettes that a threshold is judged by; the first is the reference view's."""
SIZE = 64
"""Side of these silhouettes, pixels."""
STEP = 0.03
"""Distance of the samples along the rays through the volume."""

SMALLEST_PART = 0.02
"""Share of the largest part's faces below which a part of the volume is fog."""

CHUNK = 1 << 17


@dataclass(frozen=True)
class SurfaceStart:
    """A coloured surface that the geometry stage can start from, in the scene frame.

    Attributes:
        vertices, faces: closed, outward. colours: in [0,1], at the vertices.
        agreement: IoU of its silhouette with the picture's mask in the reference view.
    """

    vertices: Float[Tensor, "V 3"]
    faces: Int[Tensor, "F 3"]
    colours: Float[Tensor, "V 3"]
    agreement: float

    @property
    def mesh(self) -> Mesh:
        """The surface without its colours."""
        return Mesh(self.vertices, self.faces)

    def colour(self) -> Callable[[Float[Tensor, "N 3"]], Float[Tensor, "N 3"]]:
        """Return a function from world points to the colours of their nearest surface points."""
        query = MeshQuery(self.vertices, self.faces)

        def at(x: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
            _, face, weights = query.closest_points(x)
            return (weights[..., None] * self.colours[self.faces[face.clamp_min(0)]]).sum(dim=1)

        return at

    def to(self, device: torch.device | str) -> "SurfaceStart":
        """The same surface on another device."""
        return SurfaceStart(self.vertices.to(device), self.faces.to(device), self.colours.to(device), self.agreement)

    def state(self) -> dict[str, Tensor]:
        """Tensors that `load` makes the same surface of."""
        agreement = torch.tensor(self.agreement, dtype=torch.float64)
        return {"vertices": self.vertices, "faces": self.faces, "colours": self.colours, "agreement": agreement}

    @classmethod
    def load(cls, state: dict[str, Tensor]) -> "SurfaceStart":
        """The surface of a saved state."""
        return cls(state["vertices"], state["faces"], state["colours"], float(state["agreement"]))


def try_lifted_start(
    prior: object, supervision: Supervision, config: LiftedStartConfig
) -> tuple[SurfaceStart | None, str | None]:
    """The lifted start if there is one, and why it should not be used (None: it should)."""
    if not isinstance(prior, VolumePrior):
        return None, f"{getattr(prior, 'name', 'no prior')} makes no volume"
    surface = lifted_start(prior, supervision, config)
    if surface is None:
        return None, "the prior's volume has no surface"
    if surface.agreement < config.agreement:
        return surface, f"the prior's volume agrees with the picture's outline by {surface.agreement:.0%} only"
    return surface, None


@torch.no_grad()
def lifted_start(prior: VolumePrior, supervision: Supervision, config: LiftedStartConfig) -> SurfaceStart | None:
    """Extract, clean and colour the surface of the volume that `prior` makes of the reference picture.

    1. Sample the density on a BCC grid of `config.cells` cells per side of the scene box.
    2. For each density of `THRESHOLDS`, extract the level set, drop fog, smooth, and compare silhouettes.
    3. Keep the best, and colour its vertices from the volume. The score is the IoU with the picture's mask in the
       reference view plus the mean soft IoU with the volume's own opacity in all views. Opacity is not thresholded:
       where the network is unsure of the depth, thin fog is opaque from some sides, and a surface that fills it is too
       fat (a duck lost 4 points of IoU to that).

    None if no threshold gives a surface.
    """
    volume = prior.lifted_volume(supervision.picture, supervision.camera)
    unit, tets = bcc_grid(config.cells, device=supervision.device)
    box = 2.0 * unit - 1.0
    density = torch.cat([volume.density_and_colour(chunk)[0] for chunk in box.split(CHUNK)])
    cameras = _probes(supervision)
    own = volume_opacity(volume, cameras)
    best: tuple[float, float, Mesh] | None = None
    for threshold in THRESHOLDS:
        mesh = marching_tets(box, closed_at_box(threshold - density, box), tets)
        if len(mesh.faces) == 0:
            break
        mesh = smoothed(keep_components(mesh, fraction=SMALLEST_PART), iterations=config.smoothing)
        shown = render_mesh(mesh, None, cameras, SIZE).opacity
        front = float(soft_iou((shown[:1] > 0.5).float(), supervision.targets(SIZE).mask.float()))
        score = front + float(soft_iou(shown, own).mean())
        if best is None or score > best[0]:
            best = (score, front, mesh)
    if best is None:
        return None
    _, front, mesh = best
    colours = volume.density_and_colour(mesh.vertices)[1]
    return SurfaceStart(mesh.vertices, mesh.faces, colours, front)


def volume_opacity(volume: LiftedVolume, cameras: Cameras) -> Float[Tensor, "B S S"]:
    """Opacity of the volume, 1 - exp(-int sigma dt) along each ray."""
    everywhere = OccupancyGrid(8, device=cameras.c2w.device)
    return render_density(volume, everywhere, cameras, SIZE, step_size=STEP).opacity


def _probes(supervision: Supervision) -> Cameras:
    """The reference view, then evenly spaced azimuths at alternating heights."""
    turn = torch.arange(1, VIEWS) * (2.0 * math.pi / VIEWS)
    tilt = torch.tensor([0.3 if index % 2 else 0.0 for index in range(1, VIEWS)])
    around = orbit(tilt, turn).to(supervision.device)
    both = zip(vars(supervision.camera).values(), vars(around).values(), strict=True)
    return Cameras(*(torch.cat(pair) for pair in both))


def soft_iou(a: Float[Tensor, "B S S"], b: Float[Tensor, "B S S"]) -> Float[Tensor, " B"]:
    """sum min(a, b) / sum max(a, b) of opacities, per image: the IoU where both are 0 or 1."""
    either = torch.maximum(a, b).flatten(1).sum(1).clamp_min(1e-6)
    return torch.minimum(a, b).flatten(1).sum(1) / either
