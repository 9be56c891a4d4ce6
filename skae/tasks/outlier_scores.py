"""Outlier criteria: anomaly scores of rows, computed from the outputs of an autoencoder.

In this module, [code, residual] is the vector of the code of a row followed by its residual.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from skae.files import Stored, check_numbers
from skae.table.rows import chunks, row_chunks
from skae.tasks.robust_statistics import (
    VARIANCE_FLOOR,
    Floats,
    clipped_mean_and_variance,
    concentrate,
    group_means,
    mean_and_deviation,
    robust_center_scale,
    scale_within_reach,
    whiten,
)

DEGREES_OF_FREEDOM = 10.0
"""Degrees of freedom of the Student's t distribution of residuals.

Because its tails are heavy, a single grossly wrong cell does not determine the score of a row that
has many cells.
"""

LEAST_DEVIANCE = 1e-3
"""Variance of a sum of deviances, in squared nats, that is added to the estimated one."""

RIDGE_ROWS = 4
"""Ratio of the ridge of the effects of missing cells to the usual squared length of a row of them.

The score of a row contributes at most a share 1 / (1 + `RIDGE_ROWS`) to what is subtracted from it
if no other row has similar missing cells.
"""

HUBER_LIMIT, HUBER_STEPS = 1.5, 20
"""Difference, in robust standard deviations, beyond which Huber's loss is linear, and the number of
steps that minimize it."""

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
        Rows minus their reconstructions, in robust units. Those of missing cells are NaN.
    log_prob : callable
        Function without arguments that computes the log-densities of the rows in the user's units,
        an ndarray of shape (n_rows,). Only criteria that need the log-densities call it.
    is_category : ndarray of shape (n_features,), bool
        Which columns are categories. Their residuals are surprises, of which half the square is in
        nats.
    """

    code: Floats
    residual: Floats
    log_prob: Callable[[], Floats]
    is_category: NDArray[np.bool_]

    @property
    def observed(self) -> NDArray[np.bool_] | None:
        """Which cells are observed, (n_rows, n_features), or None if all are."""
        missing = np.isnan(self.residual)
        return ~missing if missing.any() else None

    @property
    def least_variance(self) -> Floats:
        """Variance that is added to the estimated variance of each column of residuals.

        Surprises have a unit of their own, so that they are not divided by a standard deviation
        that is close to 0 if almost all rows have the same category.
        """
        return self.is_category.astype(np.float64)

    def score(self, criterion: "Score") -> Floats:
        """Compute the anomaly scores of the rows, block by block."""
        scores = np.empty(len(self.residual))
        for block in row_chunks(*self.residual.shape):
            scores[block] = criterion(self._take(block))
        return scores

    def _take(self, rows: slice) -> "ModelOutputs":
        parts = self.code[rows], self.residual[rows], lambda: self.log_prob()[rows]
        return ModelOutputs(*parts, self.is_category)


def mean_of_observed(terms: Floats) -> Floats:
    """Return the mean over the observed cells of each row of terms (n_rows, n_features)."""
    missing = np.isnan(terms)
    if not missing.any():
        return terms.mean(axis=1)
    n_observed = np.maximum((~missing).sum(axis=1), 1)
    return np.where(missing, 0.0, terms).sum(axis=1) / n_observed


class Score(Stored, ABC):
    """Base class of outlier criteria, which can be saved to files.

    The attributes of a criterion are therefore numbers, arrays or other criteria.
    """

    @property
    def knows_patterns(self) -> bool:
        """Whether scores of rows with different missing cells can be compared."""
        return False

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
        return np.log(TINY + mean_of_observed(outputs.residual**2))


class Deviance(Score):
    """Sum of half the squared residuals of the observed cells, in units of what is usual for them.

    The deviance of a cell is half its squared residual. That of a number is divided by the variance
    of its residuals, so that the deviances of numbers and of categories are differences of
    log-probabilities, in nats. From the sum over the observed cells of a row, the sum of the means
    of these columns is subtracted. The difference is divided by the root of the sum of their
    variances. Rows with different missing cells can thus be compared. The means and variances are
    those of the training rows, whose cells are clipped at a high quantile of their column, so that
    a few outliers hardly affect them. A row without observed cells has a score of 0.
    """

    residual_variance: Floats
    mean: Floats
    variance: Floats

    @property
    def knows_patterns(self) -> bool:
        return True

    def fit(self, outputs: ModelOutputs, weight: Floats, trim: float) -> Self:
        typical, deviation = scale_within_reach(outputs.residual.astype(np.float64), weight)
        variance = (typical * deviation) ** 2 + VARIANCE_FLOOR
        self.residual_variance = np.where(outputs.is_category, 1.0, variance)
        moments = clipped_mean_and_variance(self._deviances(outputs), weight)
        self.mean, self.variance = np.nan_to_num(moments)
        return self

    def _deviances(self, outputs: ModelOutputs) -> Floats:
        return outputs.residual.astype(np.float64) ** 2 / (2 * self.residual_variance)

    def check_sizes(self, n_components: int, n_features: int) -> None:
        check_numbers(
            self.residual_variance, (n_features,), "the variances of residuals", positive=True
        )
        check_numbers(self.mean, (n_features,), "the means of deviances")
        check_numbers(self.variance, (n_features,), "the variances of deviances")
        if (self.variance < 0).any():
            raise ValueError("the variances of deviances must not be negative")

    def __call__(self, outputs: ModelOutputs) -> Floats:
        terms = self._deviances(outputs)
        observed = ~np.isnan(terms)
        usual, variance = observed @ self.mean, observed @ self.variance
        # The constant matters where all training rows are reconstructed exactly.
        return (np.nansum(terms, axis=1) - usual) / np.sqrt(variance + LEAST_DEVIANCE)


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
        least = np.append(np.zeros(outputs.code.shape[1]), outputs.least_variance)
        estimate = concentrate(points, weight, trim, self.floor, least)
        self.center, self.whitening, is_regular = estimate
        regular = np.flatnonzero(is_regular)
        for block in chunks(len(regular), points.shape[1]):
            # A row moves to an earlier position, so that it only replaces rows that have been read.
            points[block] = whiten(points[regular[block]], self.center, self.whitening)
        self.usual = group_means(points[: len(regular)], self.size)
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
        code = (outputs.code - self.code_center) / self.code_scale
        return np.hstack([code.astype(outputs.residual.dtype, copy=False), outputs.residual])

    def __call__(self, outputs: ModelOutputs) -> Floats:
        points = whiten(self._to_points(outputs), self.center, self.whitening)
        squares = (points**2).sum(1)[:, None] + (self.usual**2).sum(1) - 2 * points @ self.usual.T
        rank = min(self.rank, len(self.usual)) - 1
        squares.partition(rank, axis=1)
        length: int | Floats = points.shape[1]
        if outputs.observed is not None:
            length = outputs.code.shape[1] + outputs.observed.sum(axis=1)
        return np.log(TINY + np.maximum(squares[:, rank], 0.0) / length) / 2


class Tails(Score):
    """Mean negative log-likelihood of a row's standardized residuals under Student's t.

    Each residual is standardized by the center and the trimmed scale of its column. A factor and a
    constant of the negative log-likelihood are left out.
    """

    center: Floats
    scale: Floats

    def fit(self, outputs: ModelOutputs, weight: Floats, trim: float) -> Self:
        floor = VARIANCE_FLOOR + outputs.least_variance
        self.center, self.scale = robust_center_scale(outputs.residual, weight, trim, floor)
        return self

    def check_sizes(self, n_components: int, n_features: int) -> None:
        check_numbers(self.center, (n_features,), "the centers of residuals")
        check_numbers(self.scale, (n_features,), "the scales of residuals", positive=True)

    def __call__(self, outputs: ModelOutputs) -> Floats:
        return mean_of_observed(self.cell_terms((outputs.residual - self.center) / self.scale))

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
        scores = [outputs.score(part.fit(outputs, weight, trim)) for part in self._criteria()]
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


class OfPatterns(Score):
    """Criterion of rows with missing cells, relative to rows with the same missing cells.

    A linear function of the number of missing cells and of their columns is subtracted from the
    scores of another criterion. It is fitted to the training rows by a ridge regression with
    Huber's loss, which outliers among them hardly affect. The ridge, and smaller weights of rows
    with rare combinations of missing cells, limit the influence of the score of a row on what is
    subtracted from it, however many columns have missing cells.

    Parameters
    ----------
    score : Score
        The other criterion.
    """

    score: Score
    effect: Floats

    def __init__(self, score: Score) -> None:
        self.score = score

    def fit(self, outputs: ModelOutputs, weight: Floats, trim: float) -> Self:
        values = outputs.score(self.score.fit(outputs, weight, trim))
        missing = np.isnan(outputs.residual).astype(np.float64)
        center, scale = robust_center_scale(values[:, None], weight, trim, floor=0.0)
        scores = (values - center) / scale
        # The number of missing cells has a small coefficient, so that the ridge hardly affects it.
        bits = np.hstack([missing, missing.sum(axis=1, keepdims=True)])
        length = ((bits - np.average(bits, axis=0, weights=weight)) ** 2).sum(axis=1)
        usual_length = np.average(length, weights=weight)
        model = Ridge(alpha=1 + RIDGE_ROWS * usual_length)
        # Rows with rare combinations of missing cells would otherwise determine their own effects.
        share = weight * usual_length / np.maximum(length, max(usual_length, TINY))
        expected = np.zeros(len(scores))
        for _ in range(HUBER_STEPS):
            usual = expected + (scores - expected).clip(-HUBER_LIMIT, HUBER_LIMIT)
            expected = model.fit(bits, usual, sample_weight=share).predict(bits)
        self.effect = scale * (model.coef_[:-1] + model.coef_[-1])
        return self

    def check_sizes(self, n_components: int, n_features: int) -> None:
        self.score.check_sizes(n_components, n_features)
        check_numbers(self.effect, (n_features,), "the effects of missing cells")

    def __call__(self, outputs: ModelOutputs) -> Floats:
        values = self.score(outputs)
        return values if outputs.observed is None else values - ~outputs.observed @ self.effect

    def cell_terms(self, deviation: Floats) -> Floats:
        return self.score.cell_terms(deviation)


SCORES: dict[str, Callable[[], Score]] = {
    "reconstruction": Reconstruction,
    "deviance": Deviance,
    "density": Density,
    "neighbors": Neighbors,
    "robust": Robust,
}
