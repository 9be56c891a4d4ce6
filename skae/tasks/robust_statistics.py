"""Robust statistics of weighted rows.

They are computed in float64, block by block, so that rows in float32 are never copied as a whole.
Missing cells are NaN.
"""

from collections.abc import Callable, Iterator
from functools import wraps
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skae._compat.sklearn import weighted_percentile
from skae.table.rows import chunks

Floats = NDArray[np.float64]

VARIANCE_FLOOR = 0.003
"""Default variance, in squared robust units, that is added to estimated variances.

It prevents columns that hardly vary from dominating the anomaly scores.
"""

MAX_COVARIANCE_COLUMNS = 512
"""Largest length of [code, residual] for which a full covariance matrix is estimated.

For longer vectors, only the variances are estimated.
"""

CONCENTRATION_STEPS = 4
"""Number of concentration steps (Rousseeuw and Van Driessen, 1999). A few are enough."""

GROUP_ROWS = 3
"""Smallest number of training rows whose mean is a reference point of `Neighbors`."""

MAX_DEVIATION = 20.0
"""Number of robust standard deviations from the median of a column at which cells are clipped.

Cells are clipped before the scale of their column is estimated, and before a network receives them
that is trained in robust units.
"""

CLIPPED_PERCENT = 95
"""Percentile of a column at which its cells are clipped before their moments are computed."""

POWER_ITERATIONS = 3
"""Number of power iterations that find a direction of large variance. A few are enough."""


def of_observed_cells(statistic: Callable[..., Any]) -> Callable[..., Any]:
    """Let a statistic of the columns of a table ignore missing cells.

    The statistic is a function of values (n_rows, n_columns), weights (n_rows,) and further
    arguments. It returns an array of shape (..., n_columns). That of a column without observed
    cells is NaN.
    """

    @wraps(statistic)
    def ignoring_missing(values: Floats, weight: Floats, *rest: Any) -> Any:
        observed = ~np.isnan(values)
        if observed.all():
            return statistic(values, weight, *rest)
        # A statistic of one complete column has the shape of those of missing columns.
        missing = np.full_like(statistic(np.zeros((1, 1)), np.ones(1), *rest), np.nan)
        columns = [
            statistic(values[known, j, None], weight[known], *rest) if known.any() else missing
            for j, known in enumerate(observed.T)
        ]
        return np.concatenate(columns, axis=-1)

    return ignoring_missing


@of_observed_cells
def mean_and_deviation(values: Floats, weight: Floats) -> Floats:
    """Compute the weighted mean and standard deviation of each column, (2, n_columns).

    A standard deviation of 0 is replaced by 1.
    """
    mean = np.average(values, axis=0, weights=weight)
    deviation = np.sqrt(np.average((values - mean) ** 2, axis=0, weights=weight))
    return np.array([mean, np.where(deviation > 0, deviation, 1.0)])


@of_observed_cells
def clipped_mean_and_variance(values: Floats, weight: Floats) -> Floats:
    """Compute the mean and variance of each column, clipped at a high percentile, (2, d)."""
    clipped = np.minimum(values, weighted_percentile(values, weight, CLIPPED_PERCENT))
    mean = np.average(clipped, axis=0, weights=weight)
    return np.array([mean, np.average((clipped - mean) ** 2, axis=0, weights=weight)])


def scale_within_reach(difference: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """Compute the scale of each column of differences from a center, without far cells.

    The scale is the standard deviation of the differences after they have been clipped at
    `MAX_DEVIATION` robust standard deviations. A robust standard deviation is 1.4826 times the
    median absolute difference that is not 0. Zeros are left out, because a column that mostly
    contains one value would otherwise have a scale of 0.

    Returns
    -------
    typical : ndarray of shape (n_columns,)
        Robust standard deviations. They are 0 in columns whose observed differences are all 0.
    deviation : ndarray of shape (n_columns,)
        Standard deviations of the clipped differences, in robust standard deviations. The scale is
        `typical * deviation`.
    """
    distance = np.where(difference == 0, np.nan, np.abs(difference))
    spread = 1.4826 * weighted_median(distance, weight)
    typical = np.where(spread > 0, spread, 0.0)
    clipped = divide(difference, typical).clip(-MAX_DEVIATION, MAX_DEVIATION)
    return typical, np.nan_to_num(mean_and_deviation(clipped, weight)[1], nan=1.0)


def divide(difference: Floats, scale: Floats) -> Floats:
    """Divide differences by scales. Where a scale is 0, the quotient is 0 or infinite."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        quotient = difference / scale
    return np.where(difference == 0, 0.0, quotient)


@of_observed_cells
def weighted_median(values: Floats, weight: Floats) -> Floats:
    """Compute the weighted median of each column of `values`. Equal weights need no sorting."""
    if (weight != weight[0]).any():
        return weighted_percentile(values, weight, 50, average=True)
    return np.median(values, axis=0)


def trimmed_weights(distance: Floats, weight: Floats, trim: float) -> Floats:
    """Remove a share `trim` of the total weight from the rows with the largest distances.

    The weights of these rows become 0, except that one of them keeps a part of its weight, so that
    the removed share is exactly `trim`.

    Parameters
    ----------
    distance : ndarray of shape (n_rows,)
        Distances of the rows.
    weight : ndarray of shape (n_rows,)
        Weights of the rows.
    trim : float
        Share to remove, in [0, 1).

    Returns
    -------
    kept : ndarray of shape (n_rows,)
        The remaining weights.
    """
    order = distance.argsort(kind="stable")
    kept = np.empty_like(weight)
    kept[order] = _keep_first(weight[order], trim)
    return kept


@of_observed_cells
def trimmed_means(values: Floats, weight: Floats, trim: float) -> Floats:
    """Compute the mean of each column of `values` without a share `trim`, that of large values.

    Equal weights need no complete sorting.
    """
    if (weight != weight[0]).any():
        order = values.argsort(axis=0)
        values, kept = np.take_along_axis(values, order, axis=0), _keep_first(weight[order], trim)
    else:
        kept = _keep_first(weight, trim)[:, None]
        last = np.count_nonzero(kept) - 1
        values = np.partition(values, last, axis=0)
    return (kept * values).sum(axis=0) / kept.sum(axis=0)


def _keep_first(weight: Floats, trim: float) -> Floats:
    """Remove a share `trim` of the total weight along the first axis, from its end."""
    remaining = (1 - trim) * weight.sum(axis=0) - (weight.cumsum(axis=0) - weight)
    return np.clip(remaining, 0.0, weight)


def robust_center_scale(
    values: Floats, weight: Floats, trim: float, floor: float | Floats = VARIANCE_FLOOR
) -> tuple[Floats, Floats]:
    """Compute the median and a trimmed scale of each column of `values` (n_rows, n_columns).

    The scale is the root mean square difference from the median. It is computed from the cells
    that are closest to the median and have a share 1 - `trim` of the weight. A factor makes it
    consistent for the standard deviation of a normal distribution. `floor` is then added to its
    square; it is one number or one for each column. A scale of 0 is replaced by 1. Missing cells
    are ignored; a column without observed cells has a center of 0 and a scale of 1.
    """
    n, d = values.shape
    center, variance = np.empty(d), np.empty(d)
    for block in chunks(d, n):
        cells = values[:, block].astype(np.float64)
        center[block] = weighted_median(cells, weight)
        variance[block] = trimmed_means((cells - center[block]) ** 2, weight, trim)
    # Variance of the central part of a standard normal distribution.
    consistency = 1.0
    if trim > 0:
        normal = NormalDist()
        edge = normal.inv_cdf(1 - trim / 2)
        consistency = 1 - 2 * edge * normal.pdf(edge) / (1 - trim)
    scale = np.sqrt(variance / consistency + floor)
    return np.nan_to_num(center), np.where(scale > 0, scale, 1.0)


def concentrate(
    points: Floats,
    weight: Floats,
    trim: float,
    floor: float = VARIANCE_FLOOR,
    least: float | Floats = 0.0,
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Estimate a robust center and a robust covariance by concentration steps.

    Each step selects the rows that are nearest to the previous center in the metric of the previous
    covariance and have a share 1 - `trim` of the total weight. It computes the center and the
    covariance of these rows. The first step uses medians and trimmed scales. With `trim=0`, there
    is a single step, which uses all rows.

    Means and variances are those of observed cells. A missing cell does not contribute to
    covariances, and adds 1 to the squared distance of its row.

    Parameters
    ----------
    points : ndarray of shape (n_rows, n_columns)
        The rows.
    weight : ndarray of shape (n_rows,)
        Weights of the rows.
    trim : float
        Share of the total weight that each step leaves out, in [0, 1).
    floor : float
        Variance that is added to the variance of each column. The variances of a covariance matrix
        are increased further, by its trace divided by the total weight of the selected rows.
    least : float or ndarray of shape (n_columns,)
        Further variance that is added to that of each column.

    Returns
    -------
    center : ndarray of shape (n_columns,)
        Mean of the rows that the last step selected.
    whitening : ndarray of shape (n_columns, n_columns) or (n_columns,)
        Matrix that transforms the covariance, with its increased variances, into the identity. With
        more than `MAX_COVARIANCE_COLUMNS` columns, it is a vector of factors that transform the
        increased variances into 1.
    is_kept : ndarray of shape (n_rows,)
        Mask of the rows that the last step selected.
    """
    n, d = points.shape
    is_missing = np.isnan(points)
    missing = is_missing if is_missing.any() else None
    center, scale = robust_center_scale(points, weight, trim, VARIANCE_FLOOR + least)
    whitening = 1 / scale
    for _ in range(CONCENTRATION_STEPS if trim > 0 else 1):
        squares = np.empty(n)
        for block in chunks(n, d):
            squares[block] = (whiten(points[block], center, whitening) ** 2).sum(axis=1)
        if missing is not None:
            squares += missing.sum(axis=1)
        kept = trimmed_weights(squares, weight, trim)
        total = observed = kept.sum()
        if missing is not None:
            known = kept @ ~missing
            observed = np.where(known > 0, known, total)
        parts = (kept[block] @ np.nan_to_num(points[block].astype(float)) for block in chunks(n, d))
        center = sum(parts) / observed
        differences = (
            (kept[block, None], np.nan_to_num(points[block] - center)) for block in chunks(n, d)
        )
        if d > MAX_COVARIANCE_COLUMNS:
            variance = sum((w * part**2).sum(axis=0) for w, part in differences) / observed
            whitening = (variance + floor + least) ** -0.5
        else:
            covariance = sum((w * part).T @ part for w, part in differences) / total
            covariance += np.diag(covariance.diagonal() * (total / observed - 1))
            # The error of the covariance grows with the ratio of columns to rows. If there are few
            # rows, other rows may vary in directions in which these do not vary. The variances are
            # therefore increased more if there are few rows.
            ridge = floor + least + covariance.trace() / total
            root = np.linalg.cholesky(covariance + ridge * np.eye(d))
            whitening = np.linalg.inv(root).T
    return center, whitening, kept > 0


def whiten(points: Floats, center: Floats, whitening: Floats) -> Floats:
    """Center points and scale them to unit variance, by the results of `concentrate`.

    If `whitening` is a matrix, this also removes correlations between columns. Missing cells are
    set to the center.
    """
    difference = np.nan_to_num(points - center)
    return difference * whitening if whitening.ndim == 1 else difference @ whitening


def group_means(points: Floats, size: int) -> Floats:
    """Divide points into groups of similar points, and return the mean of each group.

    A group is divided at the median of the direction in which it varies most, as long as each half
    has at least `GROUP_ROWS` points.

    Parameters
    ----------
    points : ndarray of shape (n, n_columns)
        The points.
    size : int
        Maximum number of groups, of which the largest power of 2 that it contains is used.

    Returns
    -------
    means : ndarray of shape (n_groups, n_columns)
    """
    return np.vstack([*_divide_groups(points, np.arange(len(points)), size)])


def _divide_groups(points: Floats, index: NDArray[np.intp], size: int) -> Iterator[Floats]:
    """Iterate over the means of the groups into which the points at `index` are divided."""
    blocks = [index[block] for block in chunks(len(index), points.shape[1])]
    center = sum(points[block].sum(axis=0, dtype=float) for block in blocks) / len(index)
    half = len(index) // 2
    if size < 2 or half < GROUP_ROWS:
        yield center
        return
    squares = [((points[block] - center) ** 2).sum(axis=1) for block in blocks]
    # Rounding keeps rounding errors from deciding between points that are equally far away.
    direction = points[index[np.concatenate(squares).round(6).argmax()]] - center
    for _ in range(POWER_ITERATIONS):
        parts = (points[block] - center for block in blocks)
        direction = sum((part @ direction) @ part for part in parts)
        direction /= np.linalg.norm(direction) or 1.0
    projections = np.concatenate([(points[block] - center) @ direction for block in blocks])
    order = projections.round(6).argsort(kind="stable")
    for part in (order[:half], order[half:]):
        yield from _divide_groups(points, index[part], size // 2)
