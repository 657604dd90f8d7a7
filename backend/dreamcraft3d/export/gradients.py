"""Blending in the gradient domain: a screened Poisson equation on a graph of neighbouring samples.

An image p is known on a part of the surface (weight w = 1), nothing is known where w = 0, and a field f is there
everywhere. The blend t = f + u follows the gradients of p where it is known and those of f elsewhere, and so has no
step where the known part ends (Perez et al. 2003, "Poisson image editing"). With d = p - f:

    min_u  sum over pairs ( (u_i - u_j) - g_ij )^2  +  sum_i a w_i^2 (u_i - d_i)^2  +  s r_i (1 - w_i) u_i^2

    g_ij = m_ij (d_i - d_j) - (1 - r_ij) (1 - m_ij) (f_i - f_j);   m_ij = min(w_i, w_j);   u_i = d_i where w_i = 1

r is 1 where the field is reliable. Where it is 0 (in the band in which the field itself has a seam), its gradients do
not count, and t goes the smoothest way from one side to the other. The last term is the screening: beyond the band u
falls to zero within about 1 / sqrt(s) samples (Bhat et al. 2008), so that a shade which the field has for a reason
(the far side lies in the shade) stays.

Notation: N samples, K pairs, C channels; numpy and scipy.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import cg

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

DATA = 0.02
"""a: pull of the known colours where they are half known; small, so that the gradients decide."""

TOLERANCE = 2e-3
"""Residual, as a share of the right-hand side, at which the solver stops: far below one level of 255."""

MAXIMUM_ITERATIONS = 2000


@dataclass(frozen=True)
class Blend:
    """What is known of N samples.

    Attributes:
        field: f, N x C. difference: d = p - f, N x C; of no meaning where the weight is 0. weight: w in [0, 1], N.
        reliable: r, N, whether the field's gradients and values count.
    """

    field: Floats
    difference: Floats
    weight: Floats
    reliable: NDArray[np.bool_]


def blended_correction(blend: Blend, pairs: Ints, *, reach: float) -> Floats:
    """Solve for u, the change of the field, N x C.

    Args:
        pairs: neighbouring samples, K x 2, each once.
        reach: 1 / sqrt(s), how many samples beyond the border the change dies away; positive.
    """
    known = blend.weight >= 1.0
    correction = np.where(known[:, None], blend.difference, 0.0).astype(np.float32)
    if known.all() or not blend.weight.any():
        return correction
    matrix, right = _system(blend, pairs, 1.0 / reach**2)
    start = (blend.weight[:, None] * blend.difference)[~known]
    correction[~known] = _solve(matrix, right, start)
    return correction


def _system(blend: Blend, pairs: Ints, screening: float) -> tuple[sparse.csr_array, Floats]:
    """Normal equations A u = b of the samples whose colour is not fixed."""
    weight, difference = blend.weight, blend.difference
    known = weight >= 1.0
    number = np.cumsum(~known) - 1
    count = int(number[-1]) + 1
    i, j = pairs[~known[pairs].all(axis=1)].T
    jump = _wanted_jump(blend, i, j)
    data = DATA * weight[~known] ** 2
    right = data[:, None] * difference[~known]
    diagonal = data + screening * (blend.reliable * (1.0 - weight))[~known]
    for here, there, sign in ((i, j, 1.0), (j, i, -1.0)):
        rows = number[here[~known[here]]]
        diagonal += np.bincount(rows, minlength=count).astype(np.float32)
        told = sign * jump + np.where(known[there][:, None], difference[there], 0.0)
        for channel in range(right.shape[1]):
            right[:, channel] += np.bincount(rows, weights=told[~known[here], channel], minlength=count)
    both = ~known[i] & ~known[j]
    a, b, own = number[i[both]], number[j[both]], np.arange(count)
    values = np.concatenate([diagonal, np.full(2 * len(a), -1.0)]).astype(np.float32)
    entries = (np.concatenate([own, a, b]), np.concatenate([own, b, a]))
    return sparse.csr_array((values, entries), shape=(count, count)), right


def _wanted_jump(blend: Blend, i: Ints, j: Ints) -> Floats:
    """g of the pairs (i, j), K x C."""
    shared = np.minimum(blend.weight[i], blend.weight[j])[:, None]
    doubtful = (~(blend.reliable[i] & blend.reliable[j]))[:, None]
    difference, field = blend.difference[i] - blend.difference[j], blend.field[i] - blend.field[j]
    return np.asarray(shared * difference - doubtful * (1.0 - shared) * field, dtype=np.float32)


def _solve(matrix: sparse.csr_array, right: Floats, start: Floats) -> Floats:
    """Conjugate gradients, preconditioned by the diagonal, for each channel."""
    scale = sparse.dia_array((1.0 / matrix.diagonal()[None], [0]), shape=matrix.shape)
    columns = [
        cg(matrix, right[:, c], start[:, c], rtol=TOLERANCE, maxiter=MAXIMUM_ITERATIONS, M=scale)[0]
        for c in range(right.shape[1])
    ]
    return np.asarray(np.stack(columns, axis=1), dtype=np.float32)
