"""Outlier criteria: anomaly scores of rows, computed from the outputs of an autoencoder.

In this module, [code, residual] is the vector of the code of a row followed by its residual.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Self

import numpy as np
from numpy.typing import NDArray

from skae._compat.sklearn import weighted_percentile
from skae.files import Stored, check_numbers

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

DEGREES_OF_FREEDOM = 10.0
"""Degrees of freedom of the Student's t distribution of residuals.

Because its tails are heavy, a single grossly wrong cell does not determine the score of a row that
has many cells.
"""

GROUP_ROWS = 3
"""Smallest number of training rows whose mean is a reference point of `Neighbors`."""

POWER_ITERATIONS = 3
"""Number of power iterations that find a direction of large variance. A few are enough."""

TINY = 1e-12
"""Constant added to mean squares before their logarithm, which is infinite at 0."""


@dataclass(frozen=True)
class ModelOutputs:
    """Outputs of a fitted autoencoder for rows.

    Parameters
    ----------
    code : ndarray of shape (n_rows, n_components)
        Codes of the rows.
    residual : ndarray of shape (n_rows, n_features)
        Rows minus their reconstructions, in robust units.
    log_prob : callable
        Function without arguments that computes the log-densities of the rows in the user's units,
        an ndarray of shape (n_rows,). Only criteria that need the log-densities call it.
    """

    code: Floats
    residual: Floats
    log_prob: Callable[[], Floats]


class Score(Stored, ABC):
    """Base class of outlier criteria, which can be saved to files.

    The attributes of a criterion are therefore numbers, arrays or other criteria.
    """

    def fit(self, outputs: ModelOutputs, weight: Floats, trim: float) -> Self:
        """Estimate the distribution of regular rows from training rows.

        A criterion that needs no such estimate inherits this method, which does nothing.

        Parameters
        ----------
        outputs : ModelOutputs
            Outputs of the autoencoder for distinct training rows.
        weight : ndarray of shape (n_rows,)
            Weights of the rows.
        trim : float
            Share of the total weight, in [0, 1), that the estimates leave out: that of the most
            abnormal rows.

        Returns
        -------
        self : Score
        """
        return self

    def check_sizes(self, n_components: int, n_features: int) -> None:
        """Raise ValueError unless this is a fitted criterion for codes and rows of these lengths.

        A criterion whose only attributes are numbers inherits this method, which does nothing.
        """

    @abstractmethod
    def __call__(self, outputs: ModelOutputs) -> Floats:
        """Compute the anomaly scores (n_rows,) of rows. A higher score is more abnormal."""

    def cell_terms(self, deviation: Floats) -> Floats:
        """Compute the contributions of cells from their standardized deviations, up to a factor.

        The contributions have the shape of `deviation`, (n_rows, n_features).
        """
        return deviation**2


class Reconstruction(Score):
    """Logarithm of the mean squared residual of each row."""

    def __call__(self, outputs: ModelOutputs) -> Floats:
        return np.log(TINY + (outputs.residual**2).mean(axis=1))


class Density(Score):
    """Negative log-density of each row under the autoencoder, in nats."""

    def __call__(self, outputs: ModelOutputs) -> Floats:
        return -outputs.log_prob()


class Neighbors(Score):
    """Logarithm of the distance of [code, residual] from that of regular training rows.

    The distance is a Mahalanobis distance with a robust covariance of [code, residual], divided by
    the square root of the length of this vector. It is the distance from the `rank`-th nearest of
    at most `size` reference points. These are the means of groups of similar training rows that are
    not trimmed, so that the criterion contains no training row. A row is far from all reference
    points if its code is unusual, if its residual is large, or both.

    Parameters
    ----------
    size : int
        Maximum number of reference points.
    rank : int
        Rank of the reference point, by its distance, from which the distance is measured; 1 is the
        nearest. With a value of 2 or more, the score of a training row does not depend on its
        distance from the mean of its own group, which is smaller than that of a new row. Larger
        values prevent small groups of outliers among the training rows from making each other look
        normal. If there are fewer reference points, the farthest one is used.
    floor : float
        Variance added to the diagonal of the covariance, in squared robust units. An autoencoder
        reconstructs new rows less well than training rows, and the difference is largest in
        directions of little variance.
    """

    size: int
    rank: int
    floor: float
    code_center: Floats
    code_scale: Floats
    center: Floats
    whitening: Floats
    usual: Floats

    def __init__(self, size: int = 1024, rank: int = 2, floor: float = 0.3) -> None:
        self.size = size
        self.rank = rank
        self.floor = floor

    def fit(self, outputs: ModelOutputs, weight: Floats, trim: float) -> Self:
        self.code_center, self.code_scale = robust_center_scale(
            outputs.code, weight, trim, floor=0.0
        )
        points = self._to_points(outputs)
        self.center, self.whitening, is_regular = concentrate(points, weight, trim, self.floor)
        self.usual = group_means(whiten(points[is_regular], self.center, self.whitening), self.size)
        return self

    def check_sizes(self, n_components: int, n_features: int) -> None:
        n = n_components + n_features
        check_numbers(self.code_center, (n_components,), "the centers of codes")
        check_numbers(self.code_scale, (n_components,), "the scales of codes", positive=True)
        check_numbers(self.center, (n,), "the center of points")
        check_numbers(self.whitening, (n,) * max(1, self.whitening.ndim), "the whitening")
        check_numbers(self.usual, (max(1, len(self.usual)), n), "the reference points")
        if self.rank < 1 or self.whitening.ndim > 2:
            raise ValueError("rank must be at least 1, and whitening a vector or a matrix")

    def _to_points(self, outputs: ModelOutputs) -> Floats:
        return np.hstack([(outputs.code - self.code_center) / self.code_scale, outputs.residual])

    def __call__(self, outputs: ModelOutputs) -> Floats:
        points = whiten(self._to_points(outputs), self.center, self.whitening)
        squares = (points**2).sum(1)[:, None] + (self.usual**2).sum(1) - 2 * points @ self.usual.T
        rank = min(self.rank, len(self.usual)) - 1
        squares.partition(rank, axis=1)
        return np.log(TINY + np.maximum(squares[:, rank], 0.0) / points.shape[1]) / 2


class Tails(Score):
    """Mean negative log-likelihood of a row's standardized residuals under Student's t.

    Each residual is standardized by the center and the trimmed scale of its column. A factor and a
    constant of the negative log-likelihood are left out.
    """

    center: Floats
    scale: Floats

    def fit(self, outputs: ModelOutputs, weight: Floats, trim: float) -> Self:
        self.center, self.scale = robust_center_scale(outputs.residual, weight, trim)
        return self

    def check_sizes(self, n_components: int, n_features: int) -> None:
        check_numbers(self.center, (n_features,), "the centers of residuals")
        check_numbers(self.scale, (n_features,), "the scales of residuals", positive=True)

    def __call__(self, outputs: ModelOutputs) -> Floats:
        return self.cell_terms((outputs.residual - self.center) / self.scale).mean(axis=1)

    def cell_terms(self, deviation: Floats) -> Floats:
        return np.log1p(deviation**2 / DEGREES_OF_FREEDOM)


class Robust(Score):
    """Sum of the standardized `Neighbors` and `Tails` scores.

    Both scores are standardized over all training rows. `Neighbors` accounts for dependencies
    between columns. `Tails` does not, but outliers among the training rows hardly affect it. An
    outlier that one score does not detect, because of other outliers among the training rows, is
    often detected by the other score.
    """

    distance: Neighbors
    tails: Tails
    moments: Floats

    def __init__(self) -> None:
        self.distance = Neighbors(size=256, rank=5, floor=VARIANCE_FLOOR)
        self.tails = Tails()

    def fit(self, outputs: ModelOutputs, weight: Floats, trim: float) -> Self:
        scores = [part.fit(outputs, weight, trim)(outputs) for part in self._criteria()]
        self.moments = np.array([mean_and_deviation(values, weight) for values in scores])
        return self

    def check_sizes(self, n_components: int, n_features: int) -> None:
        for part in self._criteria():
            part.check_sizes(n_components, n_features)
        check_numbers(self.moments, (2, 2), "the moments of the scores")
        check_numbers(self.moments[:, 1], (2,), "the deviations of the scores", positive=True)

    def _criteria(self) -> tuple[Score, Score]:
        return self.distance, self.tails

    def __call__(self, outputs: ModelOutputs) -> Floats:
        return sum(
            (part(outputs) - mean) / deviation
            for part, (mean, deviation) in zip(self._criteria(), self.moments, strict=True)
        )

    def cell_terms(self, deviation: Floats) -> Floats:
        return self.tails.cell_terms(deviation)


SCORES: dict[str, Callable[[], Score]] = {
    "reconstruction": Reconstruction,
    "density": Density,
    "neighbors": Neighbors,
    "robust": Robust,
}


def mean_and_deviation(values: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """Compute the weighted mean and standard deviation of each column of `values`.

    A standard deviation of 0 is replaced by 1.
    """
    mean = np.average(values, axis=0, weights=weight)
    deviation = np.sqrt(np.average((values - mean) ** 2, axis=0, weights=weight))
    return mean, np.where(deviation > 0, deviation, 1.0)


def trimmed_weights(distance: Floats, weight: Floats, trim: float) -> Floats:
    """Remove a share `trim` of the total weight from the rows with the largest distances.

    The weights of these rows become 0, except that one of them keeps a part of its weight, so that
    the removed share is exactly `trim`.

    Parameters
    ----------
    distance : ndarray of shape (n_rows,) or (n_rows, n_columns)
        Distances of the rows, or distances of the cells of each column. Columns are treated
        separately.
    weight : ndarray of shape (n_rows,)
        Weights of the rows.
    trim : float
        Share to remove, in [0, 1).

    Returns
    -------
    kept : ndarray of the shape of `distance`
        The remaining weights.
    """
    order = distance.argsort(axis=0, kind="stable")
    sorted_weight = weight[order]
    remaining = (1 - trim) * weight.sum() - (sorted_weight.cumsum(axis=0) - sorted_weight)
    kept = np.empty_like(sorted_weight)
    np.put_along_axis(kept, order, np.clip(remaining, 0.0, sorted_weight), axis=0)
    return kept


def robust_center_scale(
    values: Floats, weight: Floats, trim: float, floor: float = VARIANCE_FLOOR
) -> tuple[Floats, Floats]:
    """Compute the median and a trimmed scale of each column of `values` (n_rows, n_columns).

    The scale is the root mean square difference from the median. It is computed from the cells
    that are closest to the median and have a share 1 - `trim` of the weight. A factor makes it
    consistent for the standard deviation of a normal distribution. `floor` is then added to its
    square. A scale of 0 is replaced by 1.
    """
    center = weighted_percentile(values, weight, 50, average=True)
    squares = (values - center) ** 2
    kept = trimmed_weights(squares, weight, trim)
    # Variance of the central part of a standard normal distribution.
    consistency = 1.0
    if trim > 0:
        normal = NormalDist()
        edge = normal.inv_cdf(1 - trim / 2)
        consistency = 1 - 2 * edge * normal.pdf(edge) / (1 - trim)
    scale = np.sqrt((kept * squares).sum(axis=0) / kept.sum(axis=0) / consistency + floor)
    return center, np.where(scale > 0, scale, 1.0)


def concentrate(
    points: Floats, weight: Floats, trim: float, floor: float = VARIANCE_FLOOR
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Estimate a robust center and a robust covariance by concentration steps.

    Each step selects the rows that are nearest to the previous center in the metric of the previous
    covariance and have a share 1 - `trim` of the total weight. It computes the center and the
    covariance of these rows. The first step uses medians and trimmed scales. With `trim=0`, there
    is a single step, which uses all rows.

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
    center, scale = robust_center_scale(points, weight, trim)
    whitening = 1 / scale
    for _ in range(CONCENTRATION_STEPS if trim > 0 else 1):
        squares = (whiten(points, center, whitening) ** 2).sum(axis=1)
        kept = trimmed_weights(squares, weight, trim)
        center = np.average(points, axis=0, weights=kept)
        difference = points - center
        if points.shape[1] > MAX_COVARIANCE_COLUMNS:
            whitening = (np.average(difference**2, axis=0, weights=kept) + floor) ** -0.5
        else:
            covariance = (difference * kept[:, None]).T @ difference / kept.sum()
            # The error of the covariance grows with the ratio of columns to rows. If there are few
            # rows, other rows may vary in directions in which these do not vary. The variances are
            # therefore increased more if there are few rows.
            ridge = floor + covariance.trace() / kept.sum()
            root = np.linalg.cholesky(covariance + ridge * np.eye(len(center)))
            whitening = np.linalg.inv(root).T
    return center, whitening, kept > 0


def whiten(points: Floats, center: Floats, whitening: Floats) -> Floats:
    """Center points and scale them to unit variance, by the results of `concentrate`.

    If `whitening` is a matrix, this also removes correlations between columns.
    """
    difference = points - center
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
    center = points.mean(axis=0)
    half = len(points) // 2
    if size < 2 or half < GROUP_ROWS:
        return center[None]
    difference = points - center
    # Rounding keeps rounding errors from deciding between points that are equally far away.
    direction = difference[(difference**2).sum(axis=1).round(6).argmax()]
    for _ in range(POWER_ITERATIONS):
        direction = difference.T @ (difference @ direction)
        direction /= np.linalg.norm(direction) or 1.0
    order = (difference @ direction).round(6).argsort(kind="stable")
    halves = order[:half], order[half:]
    return np.vstack([group_means(points[part], size // 2) for part in halves])
