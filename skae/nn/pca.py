"""Moments, principal axes and factor analysis of weighted tables, for initializing networks."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

EXACT_UP_TO = 2048
"""Largest number of rows or columns for which axes are computed exactly."""

CHUNK_CELLS = 2**18
"""Number of cells converted to float64 at once, chosen to fit into the processor's cache."""

FACTOR_ROUNDS = 500
FACTOR_FLOPS = 1e8
FACTOR_TOLERANCE = 1e-6
"""Largest number of iterations of factor analysis, approximate limit of its floating-point
operations, and the largest change of a noise variance, as a share of the variance of its column,
below which it ends. There is at least one iteration."""

LEAST_NOISE = 1e-2
"""Smallest noise variance at the first optimizer step, as a share of the mean variance. With a
smaller one, the first steps, whose size is fixed, would increase the loss."""

LEAST_COLUMN_NOISE = 1e-4
"""Smallest noise variance of factor analysis, as a share of the variance of the column."""

LEAST_SLOPE = 1e-10
"""Variance of a linear combination of columns, as a share of the largest such variance, below which
the combination is treated as constant."""

SMALLEST_VARIANCE = 1e-280
"""Columns with a smaller variance are treated as constant, because computations with shares of this
variance would underflow."""


class LazyRows:
    """Rows that are computed when a slice of them is read.

    Parameters
    ----------
    read : callable
        Function that returns the rows in a slice.
    shape : tuple of int
        Numbers of rows and columns.
    """

    def __init__(self, read: Callable[[slice], Tensor], shape: tuple[int, int]) -> None:
        self.read, self.shape = read, shape

    def __getitem__(self, rows: slice) -> Tensor:
        return self.read(rows)


class DistinctRows(LazyRows):
    """Rows of a table at an index, without a copy of all of them."""

    def __init__(self, table: Tensor, index: Tensor) -> None:
        super().__init__(lambda rows: table[index[rows]], (len(index), table.shape[1]))


Table = Tensor | LazyRows
"""Rows that can be read by slices."""


class Moments(NamedTuple):
    """Weighted moments of the columns of a table.

    Attributes
    ----------
    center : Tensor of shape (n_features,)
        Means of the columns.
    variance : Tensor of shape (n_features,)
        Variances of the columns.
    scale : Tensor of shape ()
        Square root of the mean variance, or 1 if all variances are 0.
    """

    center: Tensor
    variance: Tensor
    scale: Tensor


def column_moments(x: Table, weight: Tensor) -> Moments:
    """Compute column means, column variances and the global scale in float64, block by block.

    A variance is set to 0 if it is as small as the rounding errors of a constant column.
    """
    share, blocks = _shares(weight), row_blocks(x)
    center = share.new_zeros(x.shape[1])
    variance = torch.zeros_like(center)
    for block in blocks:
        center += share[block] @ x[block].double()
    for block in blocks:
        variance += share[block] @ (x[block].double() - center) ** 2
    # Smaller values are rounding errors of constant columns, or would underflow.
    floor = ((1e-14 * center) ** 2).clamp_min(SMALLEST_VARIANCE)
    return _with_scale(center, torch.where(variance > floor, variance, 0.0))


def filled_rows(x: LazyRows, observed: LazyRows, weight: Tensor) -> tuple[LazyRows, Moments]:
    """Fill missing cells with the means of their columns.

    Parameters
    ----------
    x : LazyRows of shape (n, n_features)
        Rows, whose missing cells have any value.
    observed : LazyRows of shape (n, n_features), bool
        Which cells are observed.
    weight : Tensor of shape (n,)
        Weights of the rows.

    Returns
    -------
    filled : LazyRows of shape (n, n_features)
        The rows, in which missing cells have the means of their columns, or 0 in a column without
        observed cells.
    moments : Moments
        Moments of the observed cells. A column without observed cells has the mean variance of the
        other columns.
    """
    share, total, center = _shares(weight), torch.zeros(()), torch.zeros(())
    for block in row_blocks(x):
        known = observed[block]
        total = total + share[block] @ known.double()
        center = center + share[block] @ torch.where(known, x[block].double(), 0.0)
    center = center / total.clamp_min(SMALLEST_VARIANCE)

    def fill(rows: slice) -> Tensor:
        return torch.where(observed[rows], x[rows].double(), center)

    filled = LazyRows(fill, x.shape)
    # The variances are too low, because missing cells have the means of their columns.
    variance = column_moments(filled, weight).variance / total.clamp_min(SMALLEST_VARIANCE)
    variance = torch.where(total > 0, variance, variance[total > 0].mean())
    return filled, _with_scale(center, variance)


def own_scales(moments: Moments, is_category: Tensor) -> Tensor:
    """Return a scale (n_features,) for each encoded column.

    PCA with these scales is factor analysis of mixed data (Pages 2004). The scale of a number is
    its standard deviation, or 1 if it is constant. That of a level is the square root of its share.
    """
    square = torch.where(is_category, moments.center, moments.variance)
    return torch.where(square > 0, square, 1.0).sqrt()


def _with_scale(center: Tensor, variance: Tensor) -> Moments:
    scale = variance.mean().sqrt()
    return Moments(center, variance, torch.where(scale > 0, scale, 1.0))


def principal_axes(
    x: Table, weight: Tensor, moments: Moments, n_axes: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Compute leading eigenvalues (r,) and eigenvectors (n_features, r) of a weighted covariance.

    The covariance is that of `x` divided by the scale in `moments`. Eigenvalues are in decreasing
    order. The eigenvectors are orthonormal, and the entry with the largest absolute value in each
    of them is positive. r is the smaller of `n_axes` and the numerical rank of the covariance. The
    results are exact up to rounding if the number of rows or of columns is at most `EXACT_UP_TO`.
    Otherwise, subspace iteration approximates them (Halko et al. 2011), with random initial vectors
    from `generator`.
    """
    n, d = x.shape
    if d <= EXACT_UP_TO:
        values, axes = torch.linalg.eigh(covariance(x, weight, moments))
    elif n <= EXACT_UP_TO:
        u = torch.cat([*_scaled_blocks(x, weight, moments)])
        values, left = torch.linalg.eigh(u @ u.mT)
        axes = u.mT @ left / values.clamp_min(torch.finfo(u.dtype).tiny).sqrt()
    else:
        width = min(n_axes + 10, d)
        axes = torch.randn(d, width, generator=generator, dtype=torch.float64)
        axes = axes.to(weight.device)
        for _ in range(8):
            projected = torch.linalg.qr(axes)[0]
            image = [u.mT @ (u @ projected) for u in _scaled_blocks(x, weight, moments)]
            axes = torch.stack(image).sum(0)
        values, rotation = torch.linalg.eigh(projected.mT @ axes)
        axes = projected @ rotation
    values, axes = values.flip(0)[:n_axes], axes.flip(1)[:, :n_axes]
    keep = values > values[:1] * max(n, d) * torch.finfo(torch.float64).eps
    values, axes = values[keep], axes[:, keep]
    largest = axes.abs().argmax(0, keepdim=True)
    return values, axes * axes.gather(0, largest).sign()


def covariance(x: Table, weight: Tensor, moments: Moments) -> Tensor:
    """Compute the weighted covariance (n_features, n_features) of x / scale in float64."""
    d = x.shape[1]
    total = torch.zeros(d, d, dtype=torch.float64, device=weight.device)
    for u in _scaled_blocks(x, weight, moments):
        total.addmm_(u.mT, u)
    return total


def _scaled_blocks(x: Table, weight: Tensor, moments: Moments) -> Iterator[Tensor]:
    """Yield blocks u of rows, such that the sum of all u.mT @ u is the covariance of x / scale."""
    share = _shares(weight).sqrt()
    for block in row_blocks(x):
        yield (x[block].double() - moments.center) / moments.scale * share[block, None]


def _shares(weight: Tensor) -> Tensor:
    return weight.double() / weight.double().sum()


def slopes(
    x: Table, moments: Moments, others: Table, center: Tensor, scale: Tensor, weight: Tensor
) -> Tensor:
    """Compute the coefficients of a weighted linear regression of `x` on other columns.

    The other columns are standardized by `center` and `scale`, both of shape (n_others,). The
    coefficients have shape (n_features, n_others). If the other columns are collinear, the
    coefficients are those of smallest norm.
    """
    share = _shares(weight)
    square = share.new_zeros(len(center), len(center))
    product = share.new_zeros(len(center), x.shape[1])
    for block in row_blocks(x):
        u = (others[block].double() - center) / scale
        square += (u.mT * share[block]) @ u
        product += (u.mT * share[block]) @ (x[block].double() - moments.center)
    return (torch.linalg.pinv(square, rtol=LEAST_SLOPE, hermitian=True) @ product).mT


def factor_analysis(cov: Tensor, n_axes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Estimate a factor analysis: principal axes and a noise variance for each column.

    The iteration alternates between the axes and the noise (Joreskog 1967).

    Parameters
    ----------
    cov : Tensor of shape (n_features, n_features)
        Covariance of the columns.
    n_axes : int
        Largest number of axes.

    Returns
    -------
    values : Tensor of shape (r,)
        Largest eigenvalues of the scaled covariance, in decreasing order. The scaled covariance is
        that of columns which are divided by the standard deviations of their noise. r is the
        smaller of `n_axes` and n_features.
    axes : Tensor of shape (n_features, r)
        Orthonormal eigenvectors of the scaled covariance.
    noise : Tensor of shape (n_features,)
        Noise variances of the columns.
    """
    d = len(cov)
    variance = cov.diagonal()
    unit = torch.where(variance > 0, variance, 1.0)
    floor = LEAST_COLUMN_NOISE * unit
    noise = variance.maximum(floor)
    for _ in range(max(1, min(FACTOR_ROUNDS, int(FACTOR_FLOPS / d**3)))):
        deviation = noise.sqrt()
        values, axes = torch.linalg.eigh(cov / deviation / deviation[:, None])
        values, axes = values.flip(0)[:n_axes], axes.flip(1)[:, :n_axes]
        before = noise
        shared = axes**2 @ (values - 1).clamp_min(0)
        noise = (variance - before * shared).maximum(floor)
        if ((noise - before).abs() < FACTOR_TOLERANCE * unit).all():
            break
    return values, axes, deviation**2


def row_blocks(x: Table) -> list[slice]:
    """Return slices of all rows, each with at most `CHUNK_CELLS` cells or one row."""
    size = max(1, CHUNK_CELLS // x.shape[1])
    return [slice(i, i + size) for i in range(0, x.shape[0], size)]


def total_variance(moments: Moments) -> Tensor:
    """Return the sum of the variances of columns in units of the scale, of shape ()."""
    if moments.scale.ndim:
        return (moments.variance / moments.scale**2).sum()
    return moments.variance.sum() / moments.scale**2


def components_for_share(
    x: Table, weight: Tensor, moments: Moments, share: float, generator: torch.Generator
) -> int:
    """Return the smallest number of principal axes that explain more than a share of the variance.

    scikit-learn's PCA has the same rule. The number is at least 1 and at most the rank of the data.
    """
    values = principal_axes(x, weight, moments, min(x.shape), generator)[0]
    total = total_variance(moments)
    return max(1, min(len(values), int((values.cumsum(0) / total <= share).sum()) + 1))
