"""A tetrahedral grid and marching tetrahedra: the differentiable surface of DMTet (method 5.7).

The signed distance s is positive *outside*. A tet is active if its signs differ; every edge (a, b) of it whose signs
differ carries one surface vertex at the zero of the linear interpolant,

    v = (q_a s_b - q_b s_a) / (s_b - s_a)

and triangles are wound so that their normals point towards increasing s, i.e. outwards, on positively oriented tets.
Neighbouring tets share their edges, so the surface is closed wherever the level set stays inside the grid.

Letters: n cells per side, N grid vertices q with values s, T tets of 4 corners and 6 edges (a, b), E unique edges.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dreamcraft3d.functional.mesh import Mesh

EDGES = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
"""The corners of a tet's six edges."""


def _triangles() -> tuple[tuple[int, ...], ...]:
    """For each of the 16 sign patterns (bit i set = corner i outside) the edges of its triangles, outward; -1 = none.

    One corner apart: the triangle of its three edges. Two and two: a quad, cut along a diagonal.
    """
    table = []
    for code in range(16):
        outside = [i for i in range(4) if code >> i & 1]
        inside = [i for i in range(4) if not code >> i & 1]
        corners: list[tuple[int, int]] = []
        if len(outside) == 2:
            (a, b), (c, d) = inside, outside
            corners = [(a, c), (a, d), (b, d), (a, c), (b, d), (b, c)]
            even = _is_even((a, b, c, d))
        elif outside and inside:
            lone, others = (outside[0], inside) if len(outside) == 1 else (inside[0], outside)
            corners = [(lone, other) for other in others]
            even = _is_even((lone, *others)) == (len(inside) == 1)
        edges = [EDGES.index((min(pair), max(pair))) for pair in corners]
        if edges and not even:
            edges = [edges[k + shift] for k in range(0, len(edges), 3) for shift in (0, 2, 1)]
        table.append(tuple(edges + [-1] * (6 - len(edges))))
    return tuple(table)


def _is_even(order: tuple[int, ...]) -> bool:
    """Whether a permutation of 0..3 has an even number of inversions."""
    return sum(order[i] > order[j] for i in range(4) for j in range(i + 1, 4)) % 2 == 0


TRIANGLES = _triangles()


def bcc_grid(n: int, *, device: torch.device | str = "cpu") -> tuple[Float[Tensor, "N 3"], Int[Tensor, "T 4"]]:
    """The body-centred cubic lattice of n^3 cells in [0, 1]^3, cut into 12 n^3 equal tets, positively oriented.

    Vertices: (n + 1)^3 cell corners, then n^3 cell centres. Two adjacent centres and each edge of the face between them
    make a tet; at the boundary a centre and each half of the face do. Edges are sqrt(3)/2 or 1 cells long, half-face
    diagonals sqrt(2).
    """
    steps = torch.arange(n + 1, device=device)
    corners = torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    cells = torch.stack(torch.meshgrid(steps[:n], steps[:n], steps[:n], indexing="ij"), -1).reshape(-1, 3)
    vertices = torch.cat([corners.float(), cells.float() + 0.5]) / n

    def corner(cell: Tensor) -> Tensor:
        return (cell[..., 0] * (n + 1) + cell[..., 1]) * (n + 1) + cell[..., 2]

    def centre(cell: Tensor) -> Tensor:
        return (n + 1) ** 3 + (cell[..., 0] * n + cell[..., 1]) * n + cell[..., 2]

    tets = []
    for axis in range(3):
        unit = torch.eye(3, dtype=torch.int64, device=device)
        along, u, v = unit[axis], unit[(axis + 1) % 3], unit[(axis + 2) % 3]
        ring = torch.stack([0 * u, u, u + v, v])  # the cell's low face, counter-clockwise seen from its high side
        inner = cells[cells[:, axis] > 0]
        face = corner(inner[:, None] + ring)
        tets += [torch.stack([centre(inner - along), face[:, k], face[:, k - 3], centre(inner)], -1) for k in range(4)]
        low = cells[cells[:, axis] == 0]
        high = cells[cells[:, axis] == n - 1]
        low_face, high_face = corner(low[:, None] + ring), corner(high[:, None] + along + ring)
        for k in (1, 2):
            tets.append(torch.stack([low_face[:, 0], low_face[:, k], low_face[:, k + 1], centre(low)], -1))
            tets.append(torch.stack([high_face[:, 0], high_face[:, k + 1], high_face[:, k], centre(high)], -1))
    return vertices, torch.cat(tets)


def tet_volumes(positions: Float[Tensor, "N 3"], tets: Int[Tensor, "T 4"]) -> Float[Tensor, " T"]:
    """Signed volumes; positive for (0, x, y, z)."""
    a, b, c, d = (positions[tets[:, k]] for k in range(4))
    volumes: Tensor = (torch.linalg.cross(b - a, c - a) * (d - a)).sum(-1) / 6.0
    return volumes


def marching_tets(positions: Float[Tensor, "N 3"], sdf: Float[Tensor, " N"], tets: Int[Tensor, "T 4"]) -> Mesh:
    """The zero level set of the piecewise linear field (module docstring); differentiable in positions and sdf.

    A field of one sign gives an empty mesh. Calls that share `tets` are much faster through a `TetExtractor`.
    """
    codes = _sign_codes(sdf.detach() > 0, tets.T)
    active = torch.nonzero((codes > 0) & (codes < 15)).squeeze(1)
    edges, tet_edges = _edge_table(tets[active], len(positions))
    triangles = _connect(codes[active], tet_edges)
    used, faces = torch.unique(triangles, return_inverse=True)
    return Mesh(_crossings(positions, sdf, edges[used]), faces)


@dataclass(frozen=True)
class _Band:
    """The tets near the surface: all that matter until an `unsafe` vertex changes its sign from what `outside` says."""

    tets: Int[Tensor, "4 C"]
    tet_edges: Int[Tensor, "C 6"]
    outside: Bool[Tensor, " N"]
    unsafe: Bool[Tensor, " N"]


class TetExtractor:
    """Marching tets for a grid that stays while its values move: the mesh of `marching_tets`, several times faster.

    The edges are numbered once. Only tets within two rings of the surface are looked at, and the search starts anew
    over the whole grid when a vertex further away changes its sign; the result therefore never depends on the history
    of calls.
    """

    def __init__(self, tets: Int[Tensor, "T 4"], vertex_count: int) -> None:
        self._edges, tet_edges = _edge_table(tets, vertex_count)
        self._tet_edges = tet_edges.int()  # the largest table: half the memory
        self._by_corner = tets.T.contiguous()
        self._number = torch.zeros(len(self._edges), dtype=torch.int64, device=tets.device)
        self._band: _Band | None = None

    def __call__(self, positions: Float[Tensor, "N 3"], sdf: Float[Tensor, " N"]) -> Mesh:
        """The mesh of these values; differentiable in positions and sdf."""
        outside = sdf.detach() > 0
        band = self._band
        if band is None or bool(((outside != band.outside) & band.unsafe).any()):
            band = self._band = self._search(outside)
        codes = _sign_codes(outside, band.tets)
        active = torch.nonzero((codes > 0) & (codes < 15)).squeeze(1)
        triangles = _connect(codes[active], band.tet_edges.index_select(0, active))
        used = torch.zeros(len(self._edges), dtype=torch.bool, device=sdf.device)
        used[triangles] = True
        crossed = torch.nonzero(used).squeeze(1)
        self._number[crossed] = torch.arange(len(crossed), device=sdf.device)
        faces = self._number.index_select(0, triangles.reshape(-1)).reshape(-1, 3)
        return Mesh(_crossings(positions, sdf, self._edges.index_select(0, crossed)), faces)

    def _search(self, outside: Bool[Tensor, " N"]) -> _Band:
        codes = _sign_codes(outside, self._by_corner)
        near = (codes > 0) & (codes < 15)
        for _ in range(2):
            safe = torch.zeros_like(outside)
            safe[self._by_corner[:, near]] = True
            near = _sign_codes(safe, self._by_corner) > 0
        chosen = torch.nonzero(near).squeeze(1)
        corners, edges = self._by_corner.index_select(1, chosen), self._tet_edges.index_select(0, chosen).long()
        return _Band(corners, edges, outside, ~safe)


def _sign_codes(outside: Bool[Tensor, " N"], corners: Int[Tensor, "4 T"]) -> Int[Tensor, " T"]:
    """Bit i set = corner i outside; 0 and 15 are the inactive tets."""
    # index_select rather than indexing, here and below: several times faster on the CPU.
    bits = outside.to(torch.uint8)
    a, b, c, d = (bits.index_select(0, corner) for corner in corners)
    return a + 2 * b + 4 * c + 8 * d


def _edge_table(tets: Int[Tensor, "T 4"], vertex_count: int) -> tuple[Int[Tensor, "E 2"], Int[Tensor, "T 6"]]:
    """Unique edges (low, high) in lexicographic order, and the numbers of each tet's six."""
    pairs = tets[:, torch.tensor(EDGES, device=tets.device)]
    keys = pairs.amin(-1) * vertex_count + pairs.amax(-1)
    unique, number = torch.unique(keys, return_inverse=True)
    return torch.stack([unique // vertex_count, unique % vertex_count], -1), number


def _connect(codes: Int[Tensor, " A"], tet_edges: Int[Tensor, "A 6"]) -> Int[Tensor, "F 3"]:
    """Triangles of active tets as edge numbers."""
    table = torch.tensor(TRIANGLES, device=codes.device).index_select(0, codes.long())
    triangles = tet_edges.gather(1, table.clamp_min(0)).reshape(-1, 3)
    return triangles.index_select(0, torch.nonzero(table.reshape(-1, 3)[:, 0] >= 0).squeeze(1))


def _crossings(
    positions: Float[Tensor, "N 3"], sdf: Float[Tensor, " N"], edges: Int[Tensor, "E 2"]
) -> Float[Tensor, "E 3"]:
    """v = (q_a s_b - q_b s_a) / (s_b - s_a): where the linear interpolant along each edge vanishes."""
    a, b = edges.unbind(1)
    # The gradient of index_select is an index_add: deterministic on the CPU.
    s_a, s_b = sdf.index_select(0, a), sdf.index_select(0, b)
    weight = (s_a / (s_a - s_b))[:, None]
    return torch.lerp(positions.index_select(0, a), positions.index_select(0, b), weight)
