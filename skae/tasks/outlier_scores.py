"""Outlier criteria: anomaly scores of rows, computed from the outputs of an autoencoder."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Self

import numpy as np
from numpy.typing import NDArray

from skae._compat.sklearn import weighted_percentile
from skae.files import Stored

Floats = NDArray[np.float64]

VARIANCE_FLOOR = 0.003
"""Variance, in squared robust units, that is added to estimated variances.

It keeps columns that hardly vary from dominating the anomaly scores.
"""

MAX_COVARIANCE_COLUMNS = 512
"""Number of entries of [code, residual] up to which a full covariance matrix is estimated.

Beyond it, only the variances are.
"""

CONCENTRATION_STEPS = 4
"""Number of concentration steps (Rousseeuw and Van Driessen, 1999); few are enough."""

DEGREES_OF_FREEDOM = 10.0
"""Degrees of freedom of the Student's t distribution of residuals.

The heavy tails keep a single grossly wrong cell among many from deciding alone.
"""

TINY = 1e-12
"""Constant added to squared distances before the logarithm, which is infinite at 0."""


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
        Function without arguments that computes the log-densities of the rows, an ndarray of shape
        (n_rows,). It is called only by criteria that need them.
    """

    code: Floats
    residual: Floats
    log_prob: Callable[[], Floats]


class Score(Stored, ABC):
    """Outlier criterion, whose attributes are numbers and arrays or other such objects."""

    def fit(self, outputs: ModelOutputs, weight: Floats, trim: float) -> Self:
        """Estimate the distribution of regular rows from training rows.

        The share `trim` of the total weight, that of the most abnormal rows, is left out.
        """
        return self

    @abstractmethod
    def __call__(self, outputs: ModelOutputs) -> Floats:
        """Compute the anomaly scores of rows, of shape (n_rows,); higher is more abnormal."""

    def cell_terms(self, deviation: Floats) -> Floats:
        """Compute each cell's contribution from its standardized deviation, up to a factor."""
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
    """Logarithm of the distance from regular training rows in [code, residual].

    The distance is measured in the metric of the robust covariance of [code, residual]. It is the
    distance to the `rank`-th nearest of at most `size` reference rows, which are drawn from the
    training rows that are not trimmed. A row is far from all reference rows if its code is
    unusual, if it is far from the decoder's manifold, or both.

    Parameters
    ----------
    size : int
        Maximum number of reference rows. They are distinct.
    rank : int
        Which of the nearest reference rows the distance is measured to. A value of 2 or more
        prevents a training row from being compared with itself. Larger values prevent small groups
        of outliers among the reference rows from making each other look normal.
    floor : float
        Variance added to the covariance, in squared robust units. An autoencoder reconstructs new
        rows less well than training rows, and the difference is largest in directions of little
        variance.
    """

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
        kept = np.flatnonzero(is_regular)
        # Rows arrive in the order of their hashes, so that a systematic sample is a random one.
        self.usual = whiten(
            points[systematic_sample(kept, weight[kept], self.size)], self.center, self.whitening
        )
        return self

    def _to_points(self, outputs: ModelOutputs) -> Floats:
        return np.hstack([(outputs.code - self.code_center) / self.code_scale, outputs.residual])

    def __call__(self, outputs: ModelOutputs) -> Floats:
        points = whiten(self._to_points(outputs), self.center, self.whitening)
        squares = (points**2).sum(1)[:, None] + (self.usual**2).sum(1) - 2 * points @ self.usual.T
        rank = min(self.rank, len(self.usual)) - 1
        squares.partition(rank, axis=1)
        return np.log(TINY + np.maximum(squares[:, rank], 0.0) / points.shape[1]) / 2


class Tails(Score):
    """Mean negative log-likelihood of residuals under Student's t, up to factor and constant."""

    def fit(self, outputs: ModelOutputs, weight: Floats, trim: float) -> Self:
        self.center, self.scale = robust_center_scale(outputs.residual, weight, trim)
        return self

    def __call__(self, outputs: ModelOutputs) -> Floats:
        return self.cell_terms((outputs.residual - self.center) / self.scale).mean(axis=1)

    def cell_terms(self, deviation: Floats) -> Floats:
        return np.log1p(deviation**2 / DEGREES_OF_FREEDOM)


class Robust(Score):
    """Sum of the standardized `Neighbors` and `Tails` scores.

    Both scores are standardized over the training rows. `Neighbors` accounts for dependencies
    between columns. `Tails` does not, but outliers among the training rows hardly affect it. An
    outlier that one score does not detect, because of other outliers among the training rows, is
    often detected by the other score.
    """

    def __init__(self) -> None:
        self.distance = Neighbors(size=256, rank=5, floor=VARIANCE_FLOOR)
        self.tails = Tails()

    def fit(self, outputs: ModelOutputs, weight: Floats, trim: float) -> Self:
        scores = [part.fit(outputs, weight, trim)(outputs) for part in self._criteria()]
        self.moments = np.array([mean_and_deviation(values, weight) for values in scores])
        return self

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
    """Compute the weighted mean and standard deviation of columns; a deviation of 0 becomes 1."""
    mean = np.average(values, axis=0, weights=weight)
    deviation = np.sqrt(np.average((values - mean) ** 2, axis=0, weights=weight))
    return mean, np.where(deviation > 0, deviation, 1.0)


def trimmed_weights(distance: Floats, weight: Floats, trim: float) -> Floats:
    """Set the weights of the farthest rows to 0, up to a share `trim` of the total weight.

    The row at the border keeps a part of its weight.
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
    """Compute the median and a trimmed scale of columns.

    The scale is computed from the share 1 - `trim` of each column's weight that is closest to the
    median, and corrected so that it is consistent for the standard deviation of a normal
    distribution. `floor` is added to its square. A scale of 0 becomes 1.
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
    """Estimate a robust center and whitening by concentration steps.

    Each step computes the center and covariance of the rows that are nearest to the previous
    center, of a share 1 - `trim` of the total weight.

    Returns
    -------
    center : ndarray of shape (n_columns,)
    whitening : ndarray of shape (n_columns, n_columns) or (n_columns,)
        Matrix that transforms the covariance into the identity. With more than
        `MAX_COVARIANCE_COLUMNS` columns, a vector that transforms the variances into 1. `floor` is
        added to the variances first.
    is_kept : ndarray of shape (n_rows,)
        True for the rows that the last step used.
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
            # With few rows, the error of the covariance grows with the ratio of columns to rows,
            # and directions without variance among them may have variance among others.
            ridge = floor + covariance.trace() / kept.sum()
            root = np.linalg.cholesky(covariance + ridge * np.eye(len(center)))
            whitening = np.linalg.inv(root).T
    return center, whitening, kept > 0


def whiten(points: Floats, center: Floats, whitening: Floats) -> Floats:
    """Scale points to unit variances; a whitening matrix also removes their correlations."""
    difference = points - center
    return difference * whitening if whitening.ndim == 1 else difference @ whitening


def systematic_sample(index: NDArray[np.intp], weight: Floats, size: int) -> NDArray[np.intp]:
    """Select at most `size` distinct indices at equal steps of the cumulative weight."""
    if len(index) <= size:
        return index
    total = weight.cumsum()
    positions = (np.arange(size) + 0.5) / size * total[-1]
    return index[np.unique(np.searchsorted(total, positions))]
