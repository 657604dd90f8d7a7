"""Shading out of the reference image: what smooth light explains of its brightness by the surface's normals.

A matt surface under distant light has the radiance albedo x shading, and the shading is a smooth function of the normal
alone: spherical harmonics up to order 2 hold it to within a percent (Ramamoorthi and Hanrahan 2001). With H_k the
harmonics, taken of the logarithm,

    log Y(pixel) = log albedo(pixel) + sum_k c_k H_k(normal(pixel))

Albedo is constant but for edges, so the c_k are fitted to *differences* between nearby pixels, in which it shows as
outliers; iteratively reweighted least squares ignores these. Only brightness is changed, by one smooth factor, which
leaves the mean of log Y as it was. Display values may be used as they are: a gamma is a factor on both sides.

Notation: S side of the image, P pairs of pixels, K coefficients.
"""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from dreamcraft3d.stages.reference import ReferenceView

__all__ = ["delit", "fitted_light", "harmonics"]

LUMINANCE = (0.2126, 0.7152, 0.0722)
DARKEST = 1.0 / 64.0
"""Luminance below which noise and black ink say nothing about light."""

STRIDES = (1.0 / 64.0, 1.0 / 16.0)
"""Distances between the pixels of a pair, as shares of the image's side."""

ROUNDS = 20
SCALE = 0.03
"""Difference of log luminance that counts as an edge of albedo and loses its weight (Cauchy's function)."""

RIDGE = 1e-2
"""Pull of the coefficients to zero, as a share of the mean square of the regressors: no light without evidence."""

LARGEST = 0.7
"""Limit of the correction, in log luminance: a factor of two."""

Array = NDArray[np.float64]


def delit(reference: ReferenceView, *, order: int = 1) -> ReferenceView:
    """Divide the shading out of a reference image; a view without normals is returned as it is."""
    if reference.normal is None:
        return reference
    rgba, normal = reference.rgba.cpu().double().numpy(), reference.normal.cpu().double().numpy()
    inside = ndimage.binary_erosion(reference.mask.cpu().numpy(), iterations=2)
    coefficients = fitted_light(rgba[..., :3] @ np.array(LUMINANCE), normal, inside, order)
    shading = harmonics(normal, order) @ coefficients
    shading = np.clip(shading - (shading[inside].mean() if inside.any() else 0.0), -LARGEST, LARGEST)
    factor = torch.from_numpy(np.exp(-shading)).to(reference.rgba)[..., None]
    colour = torch.minimum(reference.rgba[..., :3] * factor, reference.rgba[..., 3:])
    return replace(reference, rgba=torch.cat([colour, reference.rgba[..., 3:]], dim=-1))


def harmonics(normal: Array, order: int) -> Array:
    """Evaluate real spherical harmonics of unit vectors, without the constant one and without norm: K = 3 or 8."""
    x, y, z = np.moveaxis(normal, -1, 0)
    basis = [x, y, z]
    if order == 2:
        basis += [x * y, y * z, x * z, x * x - y * y, 3.0 * z * z - 1.0]
    return np.stack(basis, axis=-1)


def fitted_light(luminance: Array, normal: Array, inside: NDArray[np.bool_], order: int) -> Array:
    """Fit the coefficients c_k of the light, K.

    Args:
        luminance: S x S. normal: S x S x 3. inside: pixels that may be used.
    """
    known = inside & (luminance > DARKEST)
    value, basis = np.log(np.maximum(luminance, DARKEST)), harmonics(normal, order)
    left, right = [], []
    for stride in STRIDES:
        step = max(1, round(stride * len(value)))
        for axis in (0, 1):
            planes = [np.moveaxis(plane, axis, 0) for plane in (known, basis, value)]
            both = planes[0][step:] & planes[0][:-step]
            left.append((planes[1][step:] - planes[1][:-step])[both])
            right.append((planes[2][step:] - planes[2][:-step])[both])
    return _robust_fit(np.concatenate(left), np.concatenate(right))


def _robust_fit(matrix: Array, values: Array) -> Array:
    """Minimise sum log(1 + (residual / SCALE)^2), and a ridge, by reweighting, K."""
    count = matrix.shape[1]
    coefficients = np.zeros(count)
    if len(values) < count:
        return coefficients
    ridge = RIDGE * np.square(matrix).sum() / count
    weights = np.ones(len(values))
    for _ in range(ROUNDS):
        weighted = weights[:, None] * matrix
        normal_matrix = weighted.T @ matrix + (ridge * weights.mean() + 1e-12) * np.eye(count)
        coefficients = np.linalg.solve(normal_matrix, weighted.T @ values)
        weights = 1.0 / (1.0 + np.square((values - matrix @ coefficients) / SCALE))
    return coefficients
