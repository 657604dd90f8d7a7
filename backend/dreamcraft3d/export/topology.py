"""Closed surfaces out of broken ones: pairing half-edges, splitting pinched vertices, filling holes.

Half-edge h = 3 f + k runs from corner k of face f to its next corner. A surface is *closed* here when every half-edge
a -> b occurs once and so does its opposite b -> a, and when the faces around each vertex form one fan.

Letters: V vertices (N x 3, float64), F faces (M x 3, int64); numpy, because nothing here is differentiated.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order, connected_components
from scipy.spatial import cKDTree

Vertices = NDArray[np.float64]
Faces = NDArray[np.int64]
NEXT = np.array([1, 2, 0])


def group(count: int, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """Labels of `count` things after joining a[i] with b[i] for every i."""
    graph = coo_matrix((np.ones(len(a), dtype=np.int8), (a, b)), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def weld(vertices: Vertices, faces: Faces, tolerance: float) -> tuple[Vertices, Faces]:
    """Merges vertices closer than `tolerance`, each chain of them into its first; then `compact`."""
    pairs = cKDTree(vertices).query_pairs(tolerance, output_type="ndarray").astype(np.int64)
    labels = group(len(vertices), pairs[:, 0], pairs[:, 1])
    first = np.full(labels.max(initial=-1) + 1, len(vertices))
    np.minimum.at(first, labels, np.arange(len(vertices)))
    return compact(vertices, first[labels][faces])


def compact(vertices: Vertices, faces: Faces) -> tuple[Vertices, Faces]:
    """Drops faces that name a vertex twice, and vertices that no face names."""
    faces = faces[(faces != faces[:, NEXT]).all(axis=1)]
    used, inverse = np.unique(faces, return_inverse=True)
    return vertices[used], inverse.reshape(-1, 3).astype(np.int64)


def cancel_duplicates(faces: Faces) -> Faces:
    """Of faces on the same three vertices keeps one, or none where as many face one way as the other.

    Those are flaps without volume, and a face given twice.
    """
    if len(faces) == 0:
        return faces
    order = np.argsort(faces, axis=1)
    odd = ~np.isin(order @ np.array([9, 3, 1]), [0 + 3 + 2, 9 + 6 + 0, 18 + 0 + 1])  # the codes of 012, 120, 201
    _, inverse = np.unique(np.take_along_axis(faces, order, axis=1), axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    net = np.bincount(inverse, weights=np.where(odd, -1.0, 1.0))
    wanted = np.where(odd, net[inverse] < 0, net[inverse] > 0)
    candidates = np.flatnonzero(wanted)
    _, keep = np.unique(inverse[candidates], return_index=True)
    return faces[np.sort(candidates[keep])]


def half_edges(faces: Faces) -> NDArray[np.int64]:
    """3M x 2 (start, end), row h = 3 f + k."""
    return np.asarray(np.stack([faces, faces[:, NEXT]], axis=-1).reshape(-1, 2), dtype=np.int64)


def is_closed(faces: Faces) -> bool:
    """Whether each half-edge occurs exactly once, and its opposite too."""
    if len(faces) == 0:
        return False
    edges = half_edges(faces)
    keys, opposite = _keys(edges), _keys(edges[:, ::-1])
    return len(np.unique(keys)) == len(keys) and bool(np.isin(opposite, keys, assume_unique=False).all())


def is_manifold(faces: Faces) -> bool:
    """Whether the surface is closed and the faces around each vertex form a single fan."""
    if not is_closed(faces):
        return False
    fans = _fans(faces, pair_half_edges(np.zeros((int(faces.max()) + 1, 3)), faces))
    return int(fans.max()) + 1 == len(np.unique(faces))


def components(faces: Faces) -> NDArray[np.int64]:
    """The connected component (through shared vertices) of each face."""
    labels = group(int(faces.max(initial=-1)) + 1, faces[:, 0].repeat(2), faces[:, 1:].reshape(-1))
    return np.asarray(np.unique(labels[faces[:, 0]], return_inverse=True)[1], dtype=np.int64).reshape(-1)


def volumes(vertices: Vertices, faces: Faces) -> NDArray[np.float64]:
    """Per component the sum of det(a, b, c) / 6: positive for a closed surface that faces outward."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    weights = np.einsum("ij,ij->i", a, np.cross(b, c)) / 6.0
    return np.asarray(np.bincount(components(faces), weights=weights), dtype=np.float64)


def face_areas(vertices: Vertices, faces: Faces) -> NDArray[np.float64]:
    """Triangle areas, M."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return np.asarray(0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1), dtype=np.float64)


def orient(faces: Faces) -> Faces:
    """Flips faces until neighbours agree which side is out; the first face of each component stays as it is."""
    edges = half_edges(faces)
    key = _keys(np.sort(edges, axis=1))
    order = np.argsort(key, kind="stable")
    start = np.flatnonzero(np.r_[True, key[order][1:] != key[order][:-1]])
    size = np.diff(np.r_[start, len(order)])
    first, second = order[start[size == 2]], order[start[size == 2] + 1]
    agree = (edges[first] == edges[second][:, ::-1]).all(axis=1)
    if agree.all():
        return faces
    return np.where(_parity(len(faces), first // 3, second // 3, ~agree)[:, None], faces[:, ::-1], faces)


def _parity(count: int, a: NDArray[np.int64], b: NDArray[np.int64], differs: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Carries "same as" and "opposite of" from face to face, breadth first from the first of each component."""
    value = {}
    for i, j, d in zip(a.tolist(), b.tolist(), differs.tolist(), strict=True):
        value[i, j] = value[j, i] = d
    graph = coo_matrix((np.ones(len(a)), (a, b)), shape=(count, count)).tocsr()
    flip, seen = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
    for seed in range(count):
        if seen[seed]:
            continue
        nodes, parents = breadth_first_order(graph, seed, directed=False)
        seen[nodes] = True
        for node in nodes[1:].tolist():
            parent = int(parents[node])
            flip[node] = flip[parent] ^ value[parent, node]
    return flip


def pair_half_edges(vertices: Vertices, faces: Faces) -> NDArray[np.int64]:
    """The opposite half-edge of each half-edge, -1 on a boundary.

    Where more than two faces meet at an edge, neighbours in angle around it are paired across the *inside* of the
    solid, so that two bodies that touch along an edge come apart.
    """
    edges = half_edges(faces)
    partner = np.full(len(edges), -1)
    key = _keys(np.sort(edges, axis=1))
    order = np.argsort(key, kind="stable")
    start = np.flatnonzero(np.r_[True, key[order][1:] != key[order][:-1]])
    size = np.diff(np.r_[start, len(order)])
    first, second = order[start[size == 2]], order[start[size == 2] + 1]
    opposite = edges[first, 0] == edges[second, 1]
    first, second = first[opposite], second[opposite]
    partner[first], partner[second] = second, first
    for s, n in zip(start[size > 2].tolist(), size[size > 2].tolist(), strict=True):
        for h, g in _pair_around(vertices, faces, edges, order[s : s + n]):
            partner[h], partner[g] = g, h
    return partner


def _pair_around(
    vertices: Vertices, faces: Faces, edges: NDArray[np.int64], fan: NDArray[np.int64]
) -> list[tuple[int, int]]:
    """Pairs the half-edges of one crowded edge by angle.

    Seen along a -> b, a face that runs a -> b has the solid on the clockwise side of it: it is paired with the next
    face clockwise, if that one runs b -> a.
    """
    a, b = edges[fan].min(), edges[fan].max()
    axis = vertices[b] - vertices[a]
    length = np.linalg.norm(axis)
    axis = axis / length if length > 0 else np.array([0.0, 0.0, 1.0])
    apex = vertices[faces[fan // 3, (fan % 3 + 2) % 3]] - vertices[a]
    helper = np.eye(3)[np.argmin(np.abs(axis))]
    x = np.cross(axis, helper)
    x /= np.linalg.norm(x)
    angle = np.arctan2(apex @ np.cross(axis, x), apex @ x)
    ring = fan[np.argsort(angle, kind="stable")].tolist()
    pairs: list[tuple[int, int]] = []
    index = 0
    while index < len(ring) >= 2:  # like brackets: neighbours (backward, forward) cancel until none is left
        h, g = ring[index - 1], ring[index]
        if edges[h, 0] == b and edges[g, 0] == a:
            pairs.append((h, g))
            ring = [e for e in ring if e not in (h, g)]
            index = 0
        else:
            index += 1
    return pairs


def split_pinches(vertices: Vertices, faces: Faces, *, nudge: float = 0.05) -> tuple[Vertices, Faces]:
    """Gives every fan of faces a vertex of its own, and moves twins `nudge` of the way to their fan's centre.

    Afterwards no vertex is shared by two fans, and no edge by more than two faces, not even after merging by distance.
    """
    labels = _fans(faces, pair_half_edges(vertices, faces))
    corners = faces.reshape(-1)
    first = np.full(int(labels.max(initial=-1)) + 1, len(corners))
    np.minimum.at(first, labels, np.arange(len(corners)))
    split, result = vertices[corners[first]], labels.reshape(-1, 3)
    twins = np.bincount(corners[first], minlength=len(vertices))[corners[first]] > 1
    centre = vertices[faces].mean(axis=1).repeat(3, axis=0)
    total = np.stack([np.bincount(labels, weights=centre[:, k]) for k in range(3)], axis=1)
    mean = total / np.bincount(labels)[:, None]
    split = np.where(twins[:, None], split + nudge * (mean - split), split)
    return split, result


def split_doubled_edges(vertices: Vertices, faces: Faces, *, nudge: float = 0.05) -> tuple[Vertices, Faces]:
    """Where one fan passes twice along the same two vertices, the second passage gets a vertex in the middle.

    `split_pinches` cannot part these, because both passages belong to one fan. One edge per face and call.
    """
    edges = half_edges(faces)
    partner = pair_half_edges(vertices, faces)
    forward = np.flatnonzero((partner >= 0) & (edges[:, 0] < edges[:, 1]))
    _, first = np.unique(_keys(edges[forward]), return_index=True)
    busy = np.zeros(len(faces), dtype=bool)
    new_vertices, new_faces = [vertices], [faces]
    count = len(vertices)
    for h in np.delete(forward, first).tolist():
        f, g = h // 3, int(partner[h]) // 3
        if busy[f] or busy[g]:
            continue
        busy[[f, g]] = True
        (a, b), c, d = edges[h], faces[f, (h % 3 + 2) % 3], faces[g, (int(partner[h]) % 3 + 2) % 3]
        middle = 0.5 * (vertices[a] + vertices[b])
        new_vertices.append((middle + nudge * (0.5 * (vertices[c] + vertices[d]) - middle))[None])
        new_faces.append(np.array([[a, count, c], [count, b, c], [b, count, d], [count, a, d]]))
        count += 1
    new_faces[0] = faces[~busy]
    return np.concatenate(new_vertices), np.concatenate(new_faces)


def fill_holes(vertices: Vertices, faces: Faces) -> tuple[Vertices, Faces, int]:
    """Closes every boundary loop: with a triangle if it has three edges, else with a fan around its centre.

    Loops are simple only after `split_pinches`. Returns also how many there were.
    """
    edges = half_edges(faces)
    open_edges = edges[pair_half_edges(vertices, faces) < 0]
    follow = dict(open_edges.tolist())
    new_vertices, new_faces, holes = [vertices], [faces], 0
    count = len(vertices)
    while follow:
        start = next(iter(follow))
        loop = [start]
        while loop[-1] in follow:
            loop.append(follow.pop(loop[-1]))
        loop = loop[:-1]
        if len(loop) < 3:
            continue
        holes += 1
        if len(loop) == 3:
            new_faces.append(np.array([loop[::-1]]))
            continue
        ring = np.array(loop)
        new_vertices.append(vertices[ring].mean(axis=0, keepdims=True))
        new_faces.append(np.stack([np.roll(ring, -1), ring, np.full_like(ring, count)], axis=1))
        count += 1
    return np.concatenate(new_vertices), np.concatenate(new_faces), holes


def close(vertices: Vertices, faces: Faces, *, rounds: int = 8) -> tuple[Vertices, Faces, int]:
    """Repeats cancel, split, fill until the surface is closed and manifold; returns also the number of holes filled.

    Stops after `rounds`: ask `is_manifold` whether it succeeded.
    """
    total = 0
    for _ in range(rounds):
        vertices, faces = compact(vertices, cancel_duplicates(faces))
        if len(faces) == 0 or is_manifold(faces):
            break
        vertices, faces = split_doubled_edges(*split_pinches(vertices, faces))
        vertices, faces = split_pinches(vertices, faces)
        vertices, faces, holes = fill_holes(vertices, faces)
        total += holes
    return vertices, faces, total


def _keys(edges: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.asarray(edges[:, 0] * (edges.max(initial=0) + 1) + edges[:, 1], dtype=np.int64)


def _fans(faces: Faces, partner: NDArray[np.int64]) -> NDArray[np.int64]:
    """The fan of each corner: corners joined across paired half-edges."""
    h = np.flatnonzero(partner >= 0)
    p = partner[h]
    following = h - h % 3 + NEXT[h % 3]
    return group(int(faces.size), np.r_[h, following], np.r_[p - p % 3 + NEXT[p % 3], p])
