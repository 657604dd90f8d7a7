"""The slow, obvious twin of `kernels/rasterize.py`: the same functions in plain torch, for small pictures and meshes.

It works in the precision of `clip` (give it float64 for finite differences) and its gradients are torch's own.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreamcraft3d.functional.mesh import neighbour_faces
from dreamcraft3d.kernels.rasterize import EdgeTopology, Raster


def rasterize(clip: Float[Tensor, "B V 4"], faces: Int[Tensor, "F 3"], size: int | tuple[int, int]) -> Raster:
    """One triangle after the other over all pixels; the nearest depth z / w within -1..1 stays."""
    height, width = (size, size) if isinstance(size, int) else size
    face_ids = torch.full((len(clip), height, width), -1, dtype=torch.int64, device=clip.device)
    pixels = pixel_centres(height, width, clip)
    for view, points in enumerate(clip.detach()):
        nearest = torch.full((height, width), torch.inf, dtype=clip.dtype, device=clip.device)
        for number, face in enumerate(faces.tolist()):
            corners = points[face]
            if not bool(torch.isfinite(corners).all() and (corners[:, 3] > 1e-6).all()):
                continue
            weights = _barycentrics(corners.expand(height, width, 3, 4), pixels)
            depth = (weights @ corners[:, 2]) / (weights @ corners[:, 3])
            wins = (weights >= 0).all(-1) & (depth.abs() <= 1) & (depth < nearest)
            nearest = torch.where(wins, depth, nearest)
            face_ids[view] = torch.where(wins, number, face_ids[view])
    covered = face_ids >= 0
    corners = _gather(clip, faces, face_ids)
    any_triangle = corners.new_tensor([[0, 0, 0, 1], [1, 0, 0, 1], [0, 1, 0, 1]])
    safe = torch.where(covered[..., None, None], corners, any_triangle)
    weights = _barycentrics(safe, pixels.expand(len(clip), height, width, 2))
    return Raster(face_ids, torch.where(covered[..., None], weights[..., :2], 0.0))


def interpolate(
    attributes: Float[Tensor, "V C"] | Float[Tensor, "B V C"], raster: Raster, faces: Int[Tensor, "F 3"]
) -> Float[Tensor, "B H W C"]:
    """u a0 + v a1 + (1 - u - v) a2 where a face is seen, else 0."""
    batched = attributes if attributes.ndim == 3 else attributes.expand(len(raster.face_ids), -1, -1)
    u, v = raster.barycentrics[..., None].unbind(-2)
    a0, a1, a2 = _gather(batched, faces, raster.face_ids).unbind(-2)
    return torch.where((raster.face_ids >= 0)[..., None], u * a0 + v * a1 + (1 - u - v) * a2, 0.0)


def edge_topology(faces: Int[Tensor, "F 3"], vertex_count: int | None = None) -> EdgeTopology:
    """The half-edge across each half-edge, from the sorted edge table of `functional.mesh`."""
    other = neighbour_faces(faces)
    rows = faces[other.clamp_min(0)]
    ends = torch.stack([faces.roll(-1, 1), faces.roll(-2, 1)], -1)
    opposite = (rows[:, :, None, :] != ends[..., None]).all(2).long().argmax(-1)
    return EdgeTopology(torch.where(other >= 0, 3 * other + opposite, -1).int())


def antialias(
    image: Float[Tensor, "B H W C"],
    raster: Raster,
    clip: Float[Tensor, "B V 4"],
    faces: Int[Tensor, "F 3"],
    *,
    topology: EdgeTopology | None = None,
) -> Float[Tensor, "B H W C"]:
    """Every pair of neighbouring pixels in turn (method 5.9): see the function of the same name in
    `kernels.rasterize`."""
    views, height, width, _ = image.shape
    across_edge = (topology or edge_topology(faces)).neighbours.tolist()
    corners, ids = faces.tolist(), raster.face_ids.tolist()
    result = image.clone()
    for b in range(views):
        view = Raster(raster.face_ids[b : b + 1], raster.barycentrics[b : b + 1])
        depth = interpolate(clip[b, :, 2:].detach(), view, faces)
        depth = torch.where(raster.face_ids[b] >= 0, depth[0, ..., 0] / depth[0, ..., 1], torch.inf)
        for y in range(height):
            for x in range(width):
                for right, down in ((1, 0), (0, 1)):
                    first, second = (y, x), (y + down, x + right)
                    if second[0] >= height or second[1] >= width or ids[b][y][x] == ids[b][second[0]][second[1]]:
                        continue
                    near, far = (second, first) if depth[second] < depth[first] else (first, second)
                    points = _along_and_across(clip[b], near, far, height, width)
                    edge = _silhouette_edge(points.detach(), corners, across_edge, ids[b][near[0]][near[1]])
                    if edge is None:
                        continue
                    tau = _intersection(points[edge[0]], points[edge[1]]).clamp(0.0, 1.0)
                    along, across = (points[edge[1]] - points[edge[0]]).detach().square()
                    target, source = (near, far) if tau < 0.5 else (far, near)
                    amount = 0.5 - tau if tau < 0.5 else tau - 0.5
                    delta = across / (along + across) * amount * (image[b, *source] - image[b, *target])
                    place = torch.zeros(height, width, 1, dtype=image.dtype)
                    place[target] = 1.0
                    alone = torch.nn.functional.pad((place * delta)[None], (0, 0, 0, 0, 0, 0, b, views - 1 - b))
                    result = result + alone
    return result


def pixel_centres(height: int, width: int, like: Tensor) -> Float[Tensor, "H W 2"]:
    """Normalised device coordinates (x right, y up) of the pixel centres."""
    x = (2 * torch.arange(width, dtype=like.dtype, device=like.device) + 1) / width - 1
    y = 1 - (2 * torch.arange(height, dtype=like.dtype, device=like.device) + 1) / height
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)


def _barycentrics(corners: Float[Tensor, "*N 3 4"], pixels: Float[Tensor, "*N 2"]) -> Float[Tensor, "*N 3"]:
    """Perspective-correct weights: q_i = (x_i - X w_i, y_i - Y w_i); (q1 x q2, q2 x q0, q0 x q1), normalised."""
    q = corners[..., :2] - pixels[..., None, :] * corners[..., 3:]
    after, last = q.roll(-1, -2), q.roll(-2, -2)
    products = after[..., 0] * last[..., 1] - after[..., 1] * last[..., 0]
    return products / products.sum(-1, keepdim=True)


def _gather(
    values: Float[Tensor, "B V C"], faces: Int[Tensor, "F 3"], face_ids: Int[Tensor, "B H W"]
) -> Float[Tensor, "B H W 3 C"]:
    """The corners' values of each pixel's face (any face on background)."""
    if len(faces) == 0:
        return values.new_zeros(*face_ids.shape, 3, values.shape[-1])
    views = torch.arange(len(values), device=values.device)[:, None, None, None]
    return values[views, faces[face_ids.clamp_min(0)]]


def _along_and_across(
    clip: Float[Tensor, "V 4"], near: tuple[int, int], far: tuple[int, int], height: int, width: int
) -> Float[Tensor, "V 2"]:
    """Screen points in pixels, in the frame with `near` at (0, 0) and `far` at (1, 0)."""
    x = (0.5 + 0.5 * clip[:, 0] / clip[:, 3]) * width - (near[1] + 0.5)
    y = (0.5 - 0.5 * clip[:, 1] / clip[:, 3]) * height - (near[0] + 0.5)
    right, down = far[1] - near[1], far[0] - near[0]
    return torch.stack([x * right + y * down, x * abs(down) + y * abs(right)], -1)


def _silhouette_edge(
    points: Float[Tensor, "V 2"], faces: list[list[int]], across_edge: list[list[int]], face: int
) -> tuple[int, int] | None:
    """Walk from the nearer pixel's face along the segment until an edge of a hole, or a fold; None if the far pixel
    comes first."""
    below = (points[:, 1] < 0).tolist()
    entered = -1
    for _ in range(len(faces)):
        exits = []
        for k in range(3):
            a, b = faces[face][(k + 1) % 3], faces[face][(k + 2) % 3]
            if k != entered and below[a] != below[b]:
                exits.append((float(_intersection(points[a], points[b])), k, a, b))
        if not exits or max(exits)[0] > 1:
            return None
        _, k, a, b = max(exits)
        if across_edge[face][k] < 0:
            return a, b
        own = faces[face][k]
        face, entered = divmod(across_edge[face][k], 3)
        if _side(points, a, b, own) * _side(points, a, b, faces[face][entered]) > 0:
            return a, b
    return None


def _side(points: Float[Tensor, "V 2"], a: int, b: int, c: int) -> float:
    (ax, ay), (bx, by), (cx, cy) = points[a].tolist(), points[b].tolist(), points[c].tolist()
    return float((bx - ax) * (cy - ay) - (by - ay) * (cx - ax))


def _intersection(a: Float[Tensor, "2"], b: Float[Tensor, "2"]) -> Float[Tensor, ""]:
    """Where the line through a and b meets across = 0."""
    return (a[0] * b[1] - b[0] * a[1]) / (b[1] - a[1])
