"""Triangle meshes: normals, adjacency, smoothness terms, topology and clean-up (method 5.8).

Faces are counter-clockwise seen from outside. Edge k of a face lies opposite its corner k, from corner k + 1 to corner
k + 2. Letters: V vertices, F faces, E unique undirected edges.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize


@dataclass(frozen=True)
class Mesh:
    """An indexed triangle mesh."""

    vertices: Float[Tensor, "V 3"]
    faces: Int[Tensor, "F 3"]

    def to(self, device: torch.device | str) -> "Mesh":
        """The same mesh on another device."""
        return Mesh(self.vertices.to(device), self.faces.to(device))

    def detach(self) -> "Mesh":
        """The same mesh, cut from the graph of gradients."""
        return Mesh(self.vertices.detach(), self.faces)


def face_crosses(vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, "F 3"]:
    """(p1 - p0) x (p2 - p0): outward, as long as twice the area."""
    p0, p1, p2 = (vertices.index_select(0, faces[:, k]) for k in range(3))
    crosses: Tensor = torch.linalg.cross(p1 - p0, p2 - p0)
    return crosses


def face_areas(vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, " F"]:
    """Areas, in squared units of the vertices."""
    lengths: Tensor = torch.linalg.vector_norm(face_crosses(vertices, faces), dim=-1)
    return 0.5 * lengths


def face_normals(vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, "F 3"]:
    """Unit outward normals; 0 for degenerate faces."""
    return normalize(face_crosses(vertices, faces), dim=-1, eps=1e-20)


def vertex_normals(vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, "V 3"]:
    """Area-weighted unit normals: the normalised sum of the adjacent faces' crosses; (0, 0, 1) where that vanishes."""
    crosses = face_crosses(vertices, faces)
    total = torch.zeros_like(vertices).index_add(0, faces.T.reshape(-1), crosses.repeat(3, 1))
    squared = total.square().sum(-1, keepdim=True)
    up = total.new_tensor([0.0, 0.0, 1.0])
    vanishing = squared < 1e-30
    # The root of the replaced value: its gradient must be finite where the sum vanishes.
    return torch.where(vanishing, up, total * torch.where(vanishing, torch.ones_like(squared), squared).rsqrt())


def half_edges(faces: Int[Tensor, "F 3"]) -> Int[Tensor, "3F 2"]:
    """Directed edges, in blocks: edge 0 (corner 1 -> 2) of all faces, then edges 1 and 2."""
    return torch.cat([faces[:, [1, 2]], faces[:, [2, 0]], faces[:, [0, 1]]])


def _edge_keys(faces: Int[Tensor, "F 3"]) -> tuple[Int[Tensor, " 3F"], int]:
    """One integer per undirected half-edge, low * stride + high, and the stride."""
    low, high = torch.aminmax(half_edges(faces).long(), dim=1)
    stride = int(faces.max()) + 1 if faces.numel() else 1
    return low * stride + high, stride


def unique_edges(faces: Int[Tensor, "F 3"]) -> Int[Tensor, "E 2"]:
    """Undirected edges (low, high), each once, in lexicographic order."""
    keys, stride = _edge_keys(faces)
    unique = torch.unique(keys)
    return torch.stack([unique // stride, unique % stride], -1)


def closed_edges(faces: Int[Tensor, "F 3"]) -> Int[Tensor, "E 2"]:
    """The edges of a closed mesh, each once, without a search: the half-edges that run from the lower vertex to the
    higher.

    In no particular order. On an open mesh, boundary edges that run downwards are missing; the smoothness terms of a
    surface that optimisation changes in every step do not mind.
    """
    directed = half_edges(faces)
    return directed.index_select(0, torch.nonzero(directed[:, 0] < directed[:, 1]).squeeze(1))


@dataclass(frozen=True)
class EdgeFaces:
    """Undirected edges with their faces.

    Attributes:
        edges: (low, high) in lexicographic order. counts: faces at each edge (1 = boundary, > 2 = non-manifold).
        faces: the first two faces at the edge; -1 for the second of a boundary edge.
        face_edges: the edge opposite each corner of each face.
    """

    edges: Int[Tensor, "E 2"]
    counts: Int[Tensor, " E"]
    faces: Int[Tensor, "E 2"]
    face_edges: Int[Tensor, "F 3"]


def edge_faces(faces: Int[Tensor, "F 3"]) -> EdgeFaces:
    """Which faces meet at which edge."""
    keys, stride = _edge_keys(faces)
    unique, inverse, counts = torch.unique(keys, return_inverse=True, return_counts=True)
    order = torch.argsort(inverse, stable=True)
    start = counts.cumsum(0) - counts
    owner = order % max(len(faces), 1)
    second = torch.where(counts > 1, owner[(start + 1).clamp_max(max(len(owner) - 1, 0))], -1)
    return EdgeFaces(
        torch.stack([unique // stride, unique % stride], -1),
        counts,
        torch.stack([owner[start], second], -1),
        inverse.reshape(3, -1).T.contiguous(),
    )


def neighbour_faces(faces: Int[Tensor, "F 3"]) -> Int[Tensor, "F 3"]:
    """The face across each edge (edge k opposite corner k); -1 at boundary and non-manifold edges."""
    table = edge_faces(faces)
    pair = table.faces[table.face_edges]
    own = torch.arange(len(faces), device=faces.device)[:, None]
    other = torch.where(pair[..., 0] == own, pair[..., 1], pair[..., 0])
    return torch.where(table.counts[table.face_edges] == 2, other, -1)


def face_adjacency(faces: Int[Tensor, "F 3"]) -> Int[Tensor, "K 2"]:
    """Pairs of faces that share a manifold edge."""
    table = edge_faces(faces)
    return table.faces[table.counts == 2]


def normal_consistency(
    vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], *, edges: Int[Tensor, "E 2"] | None = None
) -> Float[Tensor, ""]:
    """Mean over unique edges (a, b) of 1 - cos(n_a, n_b) of the vertex normals (method 5.8); 0 for an empty mesh.

    `edges` saves their search: from `unique_edges` when the faces stay, from `closed_edges` when the mesh is closed.
    """
    edges = unique_edges(faces) if edges is None else edges
    if len(edges) == 0:
        return vertices.sum() * 0.0
    normals = vertex_normals(vertices, faces)
    return (1.0 - (normals.index_select(0, edges[:, 0]) * normals.index_select(0, edges[:, 1])).sum(-1)).mean()


def laplacian(
    vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], *, edges: Int[Tensor, "E 2"] | None = None
) -> Float[Tensor, ""]:
    """Mean over vertices of ||(L v)_i||, uniform graph Laplacian L = D - A (method 5.8); 0 for an empty mesh."""
    edges = unique_edges(faces) if edges is None else edges
    if len(edges) == 0:
        return vertices.sum() * 0.0
    a, b = edges.unbind(1)
    difference = vertices.index_select(0, a) - vertices.index_select(0, b)
    pull = torch.zeros_like(vertices).index_add(0, a, difference).index_add(0, b, -difference)
    return (pull.square().sum(-1) + 1e-20).sqrt().mean()


def smoothed(mesh: Mesh, *, iterations: int = 10, shrink: float = 0.5, grow: float = -0.53) -> Mesh:
    """Taubin's lambda|mu filter: each vertex moves towards the mean of its neighbours, then back a little more.

    Bumps of a few edges go, the volume stays (G. Taubin, 1995). The mesh must be closed.
    """
    a, b = closed_edges(mesh.faces).unbind(1)
    ones = torch.ones_like(a, dtype=mesh.vertices.dtype)
    degree = torch.zeros_like(mesh.vertices[:, 0]).index_add(0, a, ones).index_add(0, b, ones).clamp_min(1.0)[:, None]
    vertices = mesh.vertices
    for _ in range(iterations):
        for step in (shrink, grow):
            total = torch.zeros_like(vertices).index_add(0, a, vertices[b]).index_add(0, b, vertices[a])
            vertices = vertices + step * (total / degree - vertices)
    return Mesh(vertices, mesh.faces)


def signed_volume(vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, ""]:
    """Enclosed volume (divergence theorem): positive for a closed mesh with outward faces."""
    p0, p1, p2 = (vertices.index_select(0, faces[:, k]) for k in range(3))
    volume: Tensor = (p0 * torch.linalg.cross(p1, p2)).sum() / 6.0
    return volume


def euler_characteristic(faces: Int[Tensor, "F 3"]) -> int:
    """V - E + F over the vertices in use: 2 for a sphere, 0 for a torus, additive over components."""
    return len(torch.unique(faces)) - len(unique_edges(faces)) + len(faces)


def is_closed(faces: Int[Tensor, "F 3"]) -> bool:
    """Whether exactly two faces meet at every edge and run along it in opposite directions."""
    if len(faces) == 0:
        return False
    directed = half_edges(faces).long()
    stride = int(faces.max()) + 1
    forward = torch.unique(directed[:, 0] * stride + directed[:, 1])
    backward = torch.unique(directed[:, 1] * stride + directed[:, 0])
    return len(forward) == len(directed) and torch.equal(forward, backward)


def connected_components(faces: Int[Tensor, "F 3"]) -> Int[Tensor, " F"]:
    """A label per face, 0.. in order of first appearance; faces that share a vertex are connected."""
    if len(faces) == 0:
        return torch.zeros(0, dtype=torch.int64, device=faces.device)
    import numpy as np
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components as label_vertices

    corners = faces.cpu().numpy()
    count = int(corners.max()) + 1
    ends = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]]])
    graph = coo_matrix((np.ones(len(ends), dtype=np.int8), (ends[:, 0], ends[:, 1])), shape=(count, count))
    _, vertex_labels = label_vertices(graph, directed=False)
    labels = vertex_labels[corners[:, 0]]
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))
    return torch.from_numpy(rank[inverse.reshape(-1)]).to(faces.device)


def keep_components(mesh: Mesh, *, fraction: float = 0.01) -> Mesh:
    """Drop components with fewer faces than `fraction` of the largest one's, and the vertices they leave unused."""
    labels = connected_components(mesh.faces)
    if len(labels) == 0:
        return mesh
    sizes = torch.bincount(labels)
    kept = sizes >= fraction * sizes.max()
    return select_faces(mesh, kept[labels])


def select_faces(mesh: Mesh, keep: Bool[Tensor, " F"]) -> Mesh:
    """The faces where `keep` holds, with only the vertices they use, in their order."""
    used, faces = torch.unique(mesh.faces[keep], return_inverse=True)
    return Mesh(mesh.vertices.index_select(0, used), faces)


def boundary_loops(faces: Int[Tensor, "F 3"]) -> list[Int[Tensor, " L"]]:
    """The closed chains of vertices around each hole, in the direction of the faces' own half-edges; [] if closed.

    Where holes touch in a vertex, the chain is cut there into simple loops.
    """
    if len(faces) == 0:
        return []
    directed = half_edges(faces).long()
    table = edge_faces(faces)
    lone = table.counts[table.face_edges.T.reshape(-1)] == 1
    following: dict[int, list[int]] = {}
    for start, end in directed[lone].tolist():
        following.setdefault(start, []).append(end)
    loops = []
    while following:
        path = [next(iter(following))]
        place = {path[0]: 0}
        while path[-1] in following:
            ends = following[path[-1]]
            step = ends.pop()
            if not ends:
                del following[path[-1]]
            cut = place.get(step)
            if cut is None:
                place[step] = len(path)
                path.append(step)
            else:
                loops.append(torch.tensor(path[cut:], device=faces.device))
                for vertex in path[cut + 1 :]:
                    del place[vertex]
                del path[cut + 1 :]
    return loops
