"""Align a mesh to the reference view: the similarity transform under which its silhouette is the picture's.

A silhouette says how large the object is, where it is in the picture, and (by its outline) from which side it is seen.
So yaw is searched over the whole circle; for each yaw, size and place follow from the bounding boxes of the two
silhouettes; the best yaws are then refined together with size and place by a pattern search on the overlap (IoU).
Objects with a plane of symmetry look alike from the front and from the back: where silhouettes cannot tell, the colours
and normals of the picture do, and where there are none, the file's own front.

Notation: V vertices, F faces, P poses, S side of an image in pixels. Angles are radians, camera axes OpenGL's.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from scipy.spatial import ConvexHull, QhullError
from torch import Tensor

from dreamcraft3d.functional.cameras import mvp
from dreamcraft3d.functional.mesh import Mesh, face_normals
from dreamcraft3d.kernels.rasterize import Raster, interpolate, rasterize
from dreamcraft3d.stages.colour_fit import ColourOf
from dreamcraft3d.stages.reference import ReferenceView

__all__ = ["Alignment", "Similarity", "align", "silhouette_overlap"]

COARSE_YAWS, COARSE_SIZE = 72, 64
COARSE_PITCHES = [0.0, -1.0, -0.5, 0.5, 1.0]
"""Tried in the coarse search, as shares of the largest one."""

STARTS = 6
"""Local maxima of the coarse search that are refined."""

FINE_SIZE, FINAL_SIZE = 128, 256
FIRST_STEP = (math.radians(2.5), math.radians(2.5), 0.02, 0.01, 0.01)
"""First steps of the pattern search: yaw, pitch, log scale, shift right and up (world units)."""

FINE_HALVINGS, FINAL_HALVINGS = (0, 4), (2, 6)
"""How often the steps have been halved, first and last: of all starts, and of the chosen one."""

MOST_ROUNDS = 24
TIE = 0.03
"""Silhouettes whose IoU differs by less cannot tell two yaws apart."""

SURE = 0.01
"""Least difference in agreement with the picture by which colours and normals decide between such yaws."""

REACH = 1.0
"""Largest distance of a vertex from the middle: the scene is the box of +-1."""

VERTICES_AT_ONCE = 1 << 21


@dataclass(frozen=True)
class Similarity:
    """The map x -> scale * rotation x + shift; rotation = Ry(pitch) Rz(yaw)."""

    scale: float
    rotation: Float[Tensor, "3 3"]
    shift: Float[Tensor, "3"]
    yaw: float = 0.0
    pitch: float = 0.0

    def __call__(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """The points moved."""
        return self.scale * points @ self.rotation.T.to(points) + self.shift.to(points)

    def inverse(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """The points moved back."""
        return (points - self.shift.to(points)) @ self.rotation.to(points) / self.scale

    def as_record(self) -> dict[str, Any]:
        """Plain values, for JSON; angles in degrees."""
        angles = {"yaw": round(math.degrees(self.yaw), 2), "pitch": round(math.degrees(self.pitch), 2)}
        return {**angles, "scale": self.scale, "rotation": self.rotation.tolist(), "shift": self.shift.tolist()}

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> "Similarity":
        """What `as_record` was made from."""
        rotation, shift = torch.tensor(record["rotation"]), torch.tensor(record["shift"])
        return Similarity(record["scale"], rotation, shift, math.radians(record["yaw"]), math.radians(record["pitch"]))


@dataclass(frozen=True)
class Alignment:
    """How a mesh fits the reference view.

    Attributes:
        transform: the mesh's frame to the scene. iou: overlap of the silhouettes. rivals: yaws (radians, of the
        transform) whose silhouettes fit about as well.
    """

    transform: Similarity
    iou: float
    rivals: tuple[float, ...] = ()


@torch.no_grad()
def align(
    mesh: Mesh,
    reference: ReferenceView,
    *,
    colour: ColourOf | None = None,
    turn: bool = True,
    most_pitch: float = 0.0,
) -> Alignment:
    """Find the similarity transform that brings a mesh to where the reference camera sees its silhouette.

    Args:
        mesh: z up, about upright; any size and place, closed or not. Every vertex finite and used by a face.
        colour: of points on it, in its own frame, to tell front from back. turn: False keeps its yaw. most_pitch: how
        far it may be tilted, radians.

    Raises:
        ValueError: the mesh has no face, or the mask of the reference is empty.
    """
    if len(mesh.faces) == 0 or not bool(reference.mask.any()):
        raise ValueError("a mesh without faces, or a picture without object, cannot be aligned")
    search = _Search(mesh, reference, turn, most_pitch)
    found, overlaps = search.refined(search.starts(), FINE_SIZE, FINE_HALVINGS)
    best = _chosen(search, found, overlaps, colour)
    final, overlap = search.refined(found[best, None], FINAL_SIZE, FINAL_HALVINGS)
    transform = search.similarity(final[0])
    rivals = tuple(float(pose[0]) for k, pose in enumerate(found) if k != best and overlaps[k] > overlaps.max() - TIE)
    return Alignment(transform, float(overlap[0]), _distinct(rivals, transform.yaw))


@torch.no_grad()
def silhouette_overlap(mesh: Mesh, transform: Similarity | None, reference: ReferenceView) -> float:
    """IoU of the silhouette of a mesh, moved or as it lies, and the mask of the reference view."""
    vertices = mesh.vertices if transform is None else transform(mesh.vertices)
    clip = _homogeneous(vertices) @ mvp(reference.camera).to(vertices).transpose(1, 2)
    seen = rasterize(clip, mesh.faces, FINAL_SIZE).face_ids >= 0
    return float(_iou(seen, _resized(reference.mask, FINAL_SIZE).to(seen.device))[0])


class _Search:
    """The silhouettes of one mesh in any pose.

    A pose is (yaw, pitch, log scale, shift right, shift up): of the mesh with its box's middle in the origin and its
    farthest vertex at distance 1, as the reference camera sees it. Along the camera's axis, where a silhouette says
    nothing that size does not, the middle of the turned mesh's bounding box comes as near to the origin as it can.
    """

    def __init__(self, mesh: Mesh, reference: ReferenceView, turn: bool, most_pitch: float) -> None:
        low, high = mesh.vertices.amin(dim=0), mesh.vertices.amax(dim=0)
        self.centre = 0.5 * (low + high)
        self.size = max(float((mesh.vertices - self.centre).norm(dim=-1).max()), 1e-30)
        self.vertices, self.faces = (mesh.vertices - self.centre) / self.size, mesh.faces
        self.hull = _hull(self.vertices)
        self.reference, self.turn, self.most_pitch = reference, turn, most_pitch
        self.free = [k for k in range(5) if (k != 0 or turn) and (k != 1 or most_pitch > 0.0)]
        camera = reference.camera.to(mesh.vertices.device)
        self.focal, self.distance = 1.0 / math.tan(0.5 * reference.fovy), float(camera.distance[0])
        self.axes = camera.c2w[0, :3, :3]
        self.to_clip = mvp(camera)[0]
        self.masks = {s: _resized(reference.mask, s).to(low.device) for s in (COARSE_SIZE, FINE_SIZE, FINAL_SIZE)}

    def starts(self) -> Float[Tensor, "K 5"]:
        """The best poses of a coarse search: local maxima over the yaw, each with its best pitch."""
        yaws = torch.arange(COARSE_YAWS if self.turn else 1) * (2.0 * math.pi / COARSE_YAWS)
        levels = torch.tensor(COARSE_PITCHES if self.most_pitch > 0.0 else [0.0]) * self.most_pitch
        poses = torch.stack([self.fitted(yaws, float(level)) for level in levels])
        overlaps = self.overlaps(poses.flatten(0, 1), COARSE_SIZE).reshape(len(levels), -1)
        best, level = overlaps.max(dim=0)
        peaks = _peaks(best)
        return poses[level[peaks], peaks]

    def fitted(self, yaws: Float[Tensor, " P"], pitch: float = 0.0) -> Float[Tensor, "P 5"]:
        """Poses of these yaws whose silhouettes have the bounding box of the mask as nearly as they can.

        Size: the geometric mean of what width and height ask for. Perspective makes it a fixed point.
        """
        poses = torch.zeros(len(yaws), 5)
        poses[:, 0], poses[:, 1], poses[:, 2] = yaws, pitch, math.log(0.6)
        low, high = _box(self.reference.mask)
        for _ in range(6):
            points = self._placed(self.hull, poses) @ self.axes
            ratio = self.focal * points[..., :2] / (self.distance - points[..., 2:])
            lower, upper = ratio.amin(dim=1).cpu(), ratio.amax(dim=1).cpu()
            growth = ((high - low) / (upper - lower).clamp_min(1e-6)).log().mean(dim=1)
            poses[:, 2] = (poses[:, 2] + growth).clamp(math.log(0.05), math.log(REACH))
            poses[:, 3:] += 0.5 * (low + high - lower - upper) * self.distance / self.focal
        return poses

    def overlaps(self, poses: Float[Tensor, "P 5"], size: int) -> Float[Tensor, " P"]:
        """IoU of the silhouettes and the mask."""
        at_once = max(1, VERTICES_AT_ONCE // len(self.vertices))
        parts = [_iou(self._raster(part, size).face_ids >= 0, self.masks[size]) for part in poses.split(at_once)]
        return torch.cat(parts).cpu()

    def refined(
        self, poses: Float[Tensor, "P 5"], size: int, halvings: tuple[int, int]
    ) -> tuple[Float[Tensor, "P 5"], Float[Tensor, " P"]]:
        """Local maxima of the overlap from these poses, by a pattern search: each step goes to the best neighbour, and
        where no neighbour is better the steps are halved."""
        moves = torch.cat([sign * torch.diag(torch.tensor(FIRST_STEP))[self.free] for sign in (1.0, -1.0)])
        poses, best = poses.clone(), self.overlaps(poses, size)
        halved = torch.full((len(poses),), float(halvings[0]))
        for _ in range(MOST_ROUNDS):
            active = torch.nonzero(halved <= halvings[1]).squeeze(1)
            if len(active) == 0:
                break
            tried = poses[active, None] + moves * 0.5 ** halved[active, None, None]
            tried[..., 1].clamp_(-self.most_pitch, self.most_pitch)
            tried[..., 2].clamp_max_(math.log(REACH))
            overlap, which = self.overlaps(tried.flatten(0, 1), size).reshape(len(active), -1).max(dim=1)
            better = overlap > best[active] + 1e-5
            poses[active[better]] = tried[better, which[better]]
            best[active[better]] = overlap[better]
            halved[active[~better]] += 1.0
        return poses, best

    def agreement(self, pose: Float[Tensor, "5"], colour: ColourOf | None) -> float | None:
        """How well colours and normals fit the picture where both silhouettes are, in [0, 1]; None without either."""
        raster = self._raster(pose[None], FINE_SIZE)
        both = (raster.face_ids[0] >= 0) & self.masks[FINE_SIZE]
        scores = []
        if bool(both.any()) and colour is not None:
            shown = colour(interpolate(self.vertices * self.size + self.centre, raster, self.faces)[0][both])
            wanted = _shrunk(self.reference.rgba, FINE_SIZE).to(shown)[both]
            scores.append(1.0 - float((shown - wanted[:, :3] / wanted[:, 3:].clamp_min(1e-3)).abs().mean()))
        if bool(both.any()) and self.reference.normal is not None:
            normals = face_normals(self._placed(self.vertices, pose[None])[0], self.faces) @ self.axes
            shown = normals[raster.face_ids[0][both]]
            shown = torch.where(shown[:, 2:] < 0.0, -shown, shown)
            wanted = torch.nn.functional.normalize(_shrunk(self.reference.normal, FINE_SIZE).to(shown)[both], dim=-1)
            scores.append(0.5 + 0.5 * float((shown * wanted).sum(dim=-1).mean()))
        return sum(scores) / len(scores) if scores else None

    def similarity(self, pose: Float[Tensor, "5"]) -> Similarity:
        """The transform of the mesh's own frame that a pose stands for."""
        scale = float(pose[2].exp()) / self.size
        rotation = _rotations(pose[None])[0].to(self.centre)
        shift = self._placed(torch.zeros_like(self.centre)[None], pose[None])[0, 0]
        return Similarity(scale, rotation, shift - scale * rotation @ self.centre, _wrapped(pose[0]), float(pose[1]))

    def _placed(self, points: Float[Tensor, "N 3"], poses: Float[Tensor, "P 5"]) -> Float[Tensor, "P N 3"]:
        poses = poses.to(points)
        matrices = poses[:, 2].exp()[:, None, None] * _rotations(poses)
        turned = self.hull @ matrices.transpose(1, 2)
        middle = 0.5 * (turned.amin(dim=1) + turned.amax(dim=1)) @ self.axes[:, 2:]
        shifts = torch.cat([poses[:, 3:], -middle], dim=1) @ self.axes.T
        return points @ matrices.transpose(1, 2) + shifts[:, None]

    def _raster(self, poses: Float[Tensor, "P 5"], size: int) -> Raster:
        clip = _homogeneous(self._placed(self.vertices, poses)) @ self.to_clip.T
        return rasterize(clip, self.faces, size)


def _chosen(
    search: _Search, poses: Float[Tensor, "P 5"], overlaps: Float[Tensor, " P"], colour: ColourOf | None
) -> int:
    """The pose with the best silhouette; among equals the one whose surface looks like the picture, else the one that
    turns the mesh least."""
    equals = [k for k in range(len(poses)) if overlaps[k] > overlaps.max() - TIE]
    agreements = {k: search.agreement(poses[k], colour) for k in equals}
    known = {k: value for k, value in agreements.items() if value is not None}
    if known and max(known.values()) - min(known.values()) > SURE:
        top = max(known.values())
        equals = [k for k in known if known[k] > top - SURE]
        return max(equals, key=lambda k: float(overlaps[k]))
    near = [k for k in equals if overlaps[k] > overlaps.max() - SURE]
    return min(near, key=lambda k: abs(_wrapped(poses[k, 0])))


def _peaks(overlaps: Float[Tensor, " P"]) -> Int[Tensor, " K"]:
    """The best local maxima on a circle of values, the highest first."""
    before, after = overlaps.roll(1), overlaps.roll(-1)
    peaks = torch.nonzero((overlaps >= before) & (overlaps >= after)).squeeze(1)
    return peaks[overlaps[peaks].argsort(descending=True, stable=True)][:STARTS]


def _distinct(yaws: tuple[float, ...], chosen: float) -> tuple[float, ...]:
    """Those that are 15 degrees or more from the chosen yaw and from each other."""

    def kept() -> Iterator[float]:
        seen = [chosen]
        for yaw in yaws:
            if all(abs(_wrapped(yaw - other)) > math.radians(15.0) for other in seen):
                seen.append(yaw)
                yield _wrapped(yaw)

    return tuple(kept())


def _rotations(poses: Float[Tensor, "P 5"]) -> Float[Tensor, "P 3 3"]:
    """Ry(pitch) Rz(yaw)."""
    (c, s), (cp, sp) = ((poses[:, k].cos(), poses[:, k].sin()) for k in (0, 1))
    rows = [cp * c, -cp * s, sp, s, c, torch.zeros_like(c), -sp * c, sp * s, cp]
    return torch.stack(rows, dim=1).reshape(-1, 3, 3)


def _hull(points: Float[Tensor, "V 3"]) -> Float[Tensor, "K 3"]:
    """The corners of the convex hull, which every bounding box depends on; all points where they are flat."""
    try:
        return points[torch.from_numpy(ConvexHull(points.double().cpu().numpy()).vertices).long().to(points.device)]
    except (QhullError, ValueError):
        return points


def _box(mask: Bool[Tensor, "S S"]) -> tuple[Float[Tensor, "2"], Float[Tensor, "2"]]:
    """Lowest and highest corner of what is true, in normalised device coordinates (y up)."""
    size = mask.shape[0]
    rows, columns = torch.nonzero(mask.any(dim=1)), torch.nonzero(mask.any(dim=0))
    left, right, top, bottom = (float(v) for v in (columns.min(), columns.max() + 1, rows.min(), rows.max() + 1))
    edges = torch.tensor([[left, size - bottom], [right, size - top]]) * (2.0 / size) - 1.0
    return edges[0], edges[1]


def _iou(silhouettes: Bool[Tensor, "P S S"], mask: Bool[Tensor, "S S"]) -> Float[Tensor, " P"]:
    both, either = (silhouettes & mask).flatten(1).sum(dim=1), (silhouettes | mask).flatten(1).sum(dim=1)
    return both / either.clamp_min(1)


def _shrunk(image: Float[Tensor, "S S C"], size: int) -> Float[Tensor, "R R C"]:
    """Area means at another size."""
    planes = image.float().permute(2, 0, 1)[None]
    return torch.nn.functional.interpolate(planes, (size, size), mode="area")[0].permute(1, 2, 0)


def _resized(mask: Bool[Tensor, "S S"], size: int) -> Bool[Tensor, "R R"]:
    return _shrunk(mask[..., None], size)[..., 0] > 0.5


def _homogeneous(points: Float[Tensor, "... 3"]) -> Float[Tensor, "... 4"]:
    return torch.cat([points, torch.ones_like(points[..., :1])], dim=-1)


def _wrapped(angle: Tensor | float) -> float:
    """The same angle between -pi and pi."""
    return math.remainder(float(angle), 2.0 * math.pi)
