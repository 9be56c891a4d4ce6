"""Probabilistic PCA of tables with missing cells, for initializing networks."""

from typing import NamedTuple

import torch
from torch import Tensor

from skae.nn.pca import LazyRows, Moments, Table, principal_axes

MAX_ROWS = 4096
"""Largest number of rows from which the axes are estimated."""

BLOCK_CELLS = 2**20
"""Largest number of entries of the second moments of codes that are computed at once."""

MAX_ROUNDS, MAX_FLOPS, TOLERANCE = 300, 2e10, 1e-4
"""Largest number of iterations, approximate limit of their floating-point operations, and the
largest change of a parameter, in standard deviations of the columns, below which they end. The
mean log-likelihood is then lower than its maximum by about 0.001 nats, which training recovers."""

MAX_ENTRIES = 2**23
"""Largest number of entries of the moments of columns. If there are more, the axes are those of the
table with missing cells set to the center."""

LEAST_VARIANCE = 1e-10
"""Smallest variance along the other axes, in units of the scale."""

RIDGE = 1e-10
"""Ridge of the regression of a column on the codes, as a share of the weight of all rows. The
coefficients of a column without observed cells are then 0."""


class Axes(NamedTuple):
    """Axes and variances of a table, as `principal_axes` returns them, and its mean.

    Attributes
    ----------
    values : Tensor of shape (r,)
        Variances along the axes, in decreasing order.
    axes : Tensor of shape (n_features, r)
        Orthonormal axes.
    mean : Tensor of shape (n_features,)
        Difference of the mean row from the center of the moments, in units of their scale.
    rest : float
        Variance along all other axes.
    """

    values: Tensor
    axes: Tensor
    mean: Tensor
    rest: float


class _Parameters(NamedTuple):
    """Loadings and means in one matrix (n_features, k + 1), and the logarithm of the noise."""

    map: Tensor
    log_noise: Tensor

    def change(self, other: "_Parameters") -> float:
        noise = (self.log_noise - other.log_noise).abs()
        return float((self.map - other.map).abs().max().maximum(noise))


def axes_of_observed(
    x: Table,
    observed: LazyRows,
    weight: Tensor,
    moments: Moments,
    n_axes: int,
    generator: torch.Generator,
) -> Axes:
    """Estimate probabilistic PCA from the observed cells of a table.

    The likelihood of the observed cells is maximized by expectation-maximization (Roweis 1998;
    Tipping & Bishop 1999), which starts at PCA of the table with missing cells set to the center.
    The iterations are extrapolated (SQUAREM, Varadhan & Roland 2008).

    Parameters
    ----------
    x : Table of shape (n, n_features)
        Rows, in which missing cells have the centers of their columns.
    observed : LazyRows of shape (n, n_features), bool
        Which cells are observed. Only the first `MAX_ROWS` rows are used.
    weight : Tensor of shape (n,)
        Weights of the rows.
    moments : Moments
        Moments of the observed cells of `x`. The result is in units of their scale.
    n_axes : int
        Largest number of axes.
    generator : torch.Generator
        Source of random numbers.
    """
    values, axes = principal_axes(x, weight, moments, n_axes, generator)
    (n, d), k = x.shape, len(values)
    flops = 4.0 * d * (k + 1) ** 2
    rows = slice(0, max(1, min(n, MAX_ROWS, int(MAX_FLOPS / (3 * flops)))))
    u = (x[rows].double() - moments.center) / moments.scale
    known = observed[rows].double()
    share = weight[rows].double()
    known = known * (share / share.sum())[:, None]
    variance = moments.variance / moments.scale**2
    rest = ((variance.sum() - values.sum()) / max(1, d - k)).clamp_min(1e-6)
    loadings = axes * (values - rest).clamp_min(1e-6).sqrt()
    point = _Parameters(torch.cat([loadings, torch.zeros_like(loadings[:, :1])], 1), rest.log())
    if k == 0 or d * (k + 1) ** 2 > MAX_ENTRIES:
        return Axes(values, axes, torch.zeros_like(variance), float(rest))
    for _ in range(max(1, min(MAX_ROUNDS, int(MAX_FLOPS / (flops * len(u)))) // 3)):
        first = _iteration(point, u, known)
        second = _iteration(first, u, known)
        if first.change(second) < TOLERANCE:
            point = second
            break
        point = _iteration(_extrapolated(point, first, second), u, known)
    noise = point.log_noise.exp()
    left, deviation, _ = torch.linalg.svd(point.map[:, :k], full_matrices=False)
    largest = left.abs().argmax(0, keepdim=True)
    axes = left * left.gather(0, largest).sign()
    return Axes(deviation**2 + noise, axes, point.map[:, k], float(noise))


def _extrapolated(start: _Parameters, first: _Parameters, second: _Parameters) -> _Parameters:
    """Extrapolate the limit of the iteration that leads from `start` to `first` and `second`."""
    points = [torch.cat([p.map.ravel(), p.log_noise[None]]) for p in (start, first, second)]
    step, bend = points[1] - points[0], points[2] - 2 * points[1] + points[0]
    length = (step.norm() / bend.norm()).clamp(1.0, 100.0)
    point = points[0] + 2 * length * step + length**2 * bend
    if not point.isfinite().all():
        return second
    return _Parameters(point[:-1].reshape(second.map.shape), point[-1])


def _iteration(at: _Parameters, u: Tensor, known: Tensor) -> _Parameters:
    """Compute the moments of the codes of rows, and the parameters that fit them best.

    `u` (n, d) are the cells, 0 where missing. `known` (n, d) are the weights of cells, 0 where
    missing, which sum to 1 over a complete column.
    """
    d, k = u.shape[1], at.map.shape[1] - 1
    loadings, mean = at.map[:, :k], at.map[:, k]
    noise = at.log_noise.exp().clamp_min(LEAST_VARIANCE)
    squares = (loadings[:, :, None] * loadings[:, None, :]).reshape(d, k * k)
    eye = torch.eye(k, dtype=u.dtype)
    moments = u.new_zeros(d, (k + 1) ** 2)
    products = u.new_zeros(d, k + 1)
    size = max(1, BLOCK_CELLS // (k + 1) ** 2)
    for weight, cells in zip(known.split(size), u.split(size), strict=True):
        is_known = (weight > 0).to(u)
        precision = (is_known @ squares).reshape(-1, k, k) + noise * eye
        covariance = torch.linalg.inv(precision)
        z = (covariance @ ((is_known * (cells - mean)) @ loadings)[..., None])[..., 0]
        z = torch.cat([z, torch.ones_like(z[:, :1])], 1)
        second = z[:, :, None] * z[:, None, :]
        second[:, :k, :k] += noise * covariance
        moments += weight.mT @ second.reshape(len(z), -1)
        products += (weight * cells).mT @ z
    matrix = moments.reshape(d, k + 1, k + 1) + RIDGE * torch.eye(k + 1, dtype=u.dtype)
    new = torch.linalg.solve(matrix, products[..., None])[..., 0]
    rest = (known * u**2).sum() - (products * new).sum()
    return _Parameters(new, (rest / known.sum()).clamp_min(LEAST_VARIANCE).log())
