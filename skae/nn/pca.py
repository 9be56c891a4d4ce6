"""Weighted principal axes of a table: where every model with a linear skip starts."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

EXACT_UP_TO = 2048
"""All axes are computed exactly where a table has at most so many rows or columns."""


CHUNK_CELLS = 2**18
"""Cells copied at once: their float64 copies stay in the processor's cache."""


FACTOR_ROUNDS = 500
FACTOR_FLOPS = 1e8
FACTOR_TOLERANCE = 1e-6
"""Rounds of factor analysis at most, what they may cost, and the change that ends them."""

LEAST_NOISE = 1e-2
"""Noise, as a share of the mean variance, that a model starts with at least: weights move by steps
of a fixed size, which would throw a more precise one off."""

LEAST_COLUMN_NOISE = 1e-4
"""Noise, as a share of a column's variance, that factor analysis finds at least."""

LEAST_SLOPE = 1e-10
"""Variance of a combination of columns, as a share of the largest, below which it is none."""

SMALLEST_VARIANCE = 1e-280
"""Columns that vary less are constant: shares of their variance would not be numbers."""


class LazyRows:
    """Rows that are computed when they are read, some at a time, as from a tensor.

    Parameters
    ----------
    read : callable
        Gives the rows in a slice.
    shape : tuple of int
        Numbers of rows and columns.
    """

    def __init__(self, read: Callable[[slice], Tensor], shape: tuple[int, int]) -> None:
        self.read, self.shape = read, shape

    def __getitem__(self, rows: slice) -> Tensor:
        return self.read(rows)


class DistinctRows(LazyRows):
    """The rows of a table with some numbers, without a copy of them all."""

    def __init__(self, table: Tensor, index: Tensor) -> None:
        super().__init__(lambda rows: table[index[rows]], (len(index), table.shape[1]))


Table = Tensor | LazyRows
"""Rows that can be read some at a time."""


class Moments(NamedTuple):
    """Weighted moments of a table's columns."""

    center: Tensor
    variance: Tensor
    scale: Tensor


def column_moments(x: Table, weight: Tensor) -> Moments:
    """Column means, column variances and the global scale, in float64, chunk by chunk.

    The global scale is the root of the mean variance; 1 where all rows are equal.
    """
    share, blocks = _shares(weight), row_blocks(x)
    center = share.new_zeros(x.shape[1])
    variance = torch.zeros_like(center)
    for block in blocks:
        center += share[block] @ x[block].double()
    for block in blocks:
        variance += share[block] @ (x[block].double() - center) ** 2
    # What is left of a constant column after rounding is not variance, nor is what underflows.
    floor = ((1e-14 * center) ** 2).clamp_min(SMALLEST_VARIANCE)
    return _with_scale(center, torch.where(variance > floor, variance, 0.0))


def of_observed_cells(moments: Moments, presence: Tensor) -> Moments:
    """Moments of columns that a share of rows has, from those with their means in the others.

    Columns that no row has vary as the mean of the others does.
    """
    seen = presence > 0
    variance = moments.variance / presence.clamp_min(SMALLEST_VARIANCE)
    return _with_scale(moments.center, torch.where(seen, variance, variance[seen].mean()))


def _with_scale(center: Tensor, variance: Tensor) -> Moments:
    scale = variance.mean().sqrt()
    return Moments(center, variance, torch.where(scale > 0, scale, 1.0))


def principal_axes(
    x: Table, weight: Tensor, moments: Moments, n_axes: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Leading eigenvalues (r,) and orthonormal axes (n_features, r), r <= n_axes, of x / scale.

    The sign makes each axis' largest entry positive. Exact while rows or columns are at most
    `EXACT_UP_TO`, by subspace iteration beyond (Halko et al. 2011).
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
    """Weighted covariance (n_features, n_features) of x / scale, float64."""
    d = x.shape[1]
    total = torch.zeros(d, d, dtype=torch.float64, device=weight.device)
    for u in _scaled_blocks(x, weight, moments):
        total.addmm_(u.mT, u)
    return total


def _scaled_blocks(x: Table, weight: Tensor, moments: Moments) -> Iterator[Tensor]:
    """Blocks of rows, scaled so that the sum of their products is the covariance of x / scale."""
    share = _shares(weight).sqrt()
    for block in row_blocks(x):
        yield (x[block].double() - moments.center) / moments.scale * share[block, None]


def _shares(weight: Tensor) -> Tensor:
    return weight.double() / weight.double().sum()


def slopes(
    x: Table, moments: Moments, others: Table, center: Tensor, scale: Tensor, weight: Tensor
) -> Tensor:
    """Weighted least squares (n_features, m) of rows by other columns.

    Those count from `center` in units of `scale`. Where the other columns depend on each
    other, these are the smallest such slopes.
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
    """Columns' noise variances, and the principal axes of rows in units of that noise.

    Returns eigenvalues (r,), orthonormal axes (n_features, r) and the noise (n_features,), found by
    turns from a covariance: the axes for a noise, the noise for the axes (Joreskog 1967).
    """
    d = len(cov)
    variance = cov.diagonal()
    floor = LEAST_COLUMN_NOISE * torch.where(variance > 0, variance, 1.0)
    noise = variance.maximum(floor)
    for _ in range(max(1, min(FACTOR_ROUNDS, int(FACTOR_FLOPS / d**3)))):
        deviation = noise.sqrt()
        values, axes = torch.linalg.eigh(cov / deviation / deviation[:, None])
        values, axes = values.flip(0)[:n_axes], axes.flip(1)[:, :n_axes]
        before = noise
        shared = axes**2 @ (values - 1).clamp_min(0)
        noise = (variance - before * shared).maximum(floor)
        if (noise - before).abs().max() < FACTOR_TOLERANCE * variance.mean():
            break
    return values, axes, deviation**2


def row_blocks(x: Table) -> list[slice]:
    """Slices of a table's rows that are small enough to be copied."""
    size = max(1, CHUNK_CELLS // x.shape[1])
    return [slice(i, i + size) for i in range(0, x.shape[0], size)]


def components_for_share(
    x: Table, weight: Tensor, moments: Moments, share: float, generator: torch.Generator
) -> int:
    """Number of principal axes that hold more than a share of the variance, as PCA counts them."""
    values = principal_axes(x, weight, moments, min(x.shape), generator)[0]
    total = moments.variance.sum() / moments.scale**2
    return max(1, min(len(values), int((values.cumsum(0) / total <= share).sum()) + 1))
