"""What makes a row an outlier: one small class per answer, fitted to what a model says of rows."""

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

FLOOR = 0.003
"""Variance, in columns' squared units, below which deviations do not grow in weight."""

WIDEST = 512
"""Longest [code, residual] whose covariance is estimated; of longer ones, only the variances."""

CONCENTRATION_STEPS = 4
"""Concentration steps (Rousseeuw and Van Driessen 1999): few reach the neighbourhood of the end."""

TAILS = 10.0
"""Degrees of freedom of the residuals' tails: one mad cell among many shall not decide alone."""

TINY = 1e-12
"""Squared distances have logarithms even where they are 0."""


@dataclass(frozen=True)
class Evidence:
    """What a model says of rows.

    Parameters
    ----------
    code : ndarray of shape (n_rows, n_components)
    residual : ndarray of shape (n_rows, n_features)
        Rows minus what the model expects, in columns' units.
    log_prob : callable
        Asked for it, the model's log-density of the rows, (n_rows,).
    """

    code: Floats
    residual: Floats
    log_prob: Callable[[], Floats]


class Score(Stored, ABC):
    """How strange rows are; its attributes are numbers and arrays."""

    def fit(self, seen: Evidence, weight: Floats, trim: float) -> Self:
        """Learn what is usual from training rows, of whose weight the strangest `trim` may lie."""
        return self

    @abstractmethod
    def __call__(self, seen: Evidence) -> Floats:
        """Strangeness of rows, (n_rows,): higher is stranger."""

    def parts(self, deviation: Floats) -> Floats:
        """What each cell's standardised deviation counts; only proportions matter."""
        return deviation**2


class Reconstruction(Score):
    """Logarithm of the mean squared residual."""

    def __call__(self, seen: Evidence) -> Floats:
        return np.log(TINY + (seen.residual**2).mean(axis=1))


class Density(Score):
    """The model's own negative log-density, in nats."""

    def __call__(self, seen: Evidence) -> Floats:
        return -seen.log_prob()


class Neighbors(Score):
    """Logarithm of the distance from usual rows in [code, residual].

    Distances are measured in the metric of the robust covariance of [code, residual], to the
    `rank`-th nearest of at most `size` rows that stand for those of the training rows that are
    not trimmed. Far from all of them is what no training row was like: in the code, off the
    surface of the decoder, or both.

    No two of the rows that stand for others are equal, and ranks above 1 keep a training row that
    is asked about from vouching for itself; where strange rows may be among them, higher ranks keep
    a few from vouching for each other. `floor` is added to the covariance, in columns' squared
    units: a network restores new rows less well than those it was trained on, most so in what
    hardly varies there.
    """

    def __init__(self, size: int = 1024, rank: int = 2, floor: float = 0.3) -> None:
        self.size = size
        self.rank = rank
        self.floor = floor

    def fit(self, seen: Evidence, weight: Floats, trim: float) -> Self:
        self.code_center, self.code_scale = spread(seen.code, weight, trim, floor=0.0)
        points = self._points(seen)
        self.center, self.whitening, usual = concentrated(points, weight, trim, self.floor)
        at = np.flatnonzero(usual)
        # Rows come in an order that content decides, so that any cut through them is a draw.
        self.usual = whitened(
            points[systematic(at, weight[at], self.size)], self.center, self.whitening
        )
        return self

    def _points(self, seen: Evidence) -> Floats:
        return np.hstack([(seen.code - self.code_center) / self.code_scale, seen.residual])

    def __call__(self, seen: Evidence) -> Floats:
        points = whitened(self._points(seen), self.center, self.whitening)
        squares = (points**2).sum(1)[:, None] + (self.usual**2).sum(1) - 2 * points @ self.usual.T
        rank = min(self.rank, len(self.usual)) - 1
        squares.partition(rank, axis=1)
        return np.log(TINY + np.maximum(squares[:, rank], 0.0) / points.shape[1]) / 2


class Tails(Score):
    """Mean negative log-likelihood of residuals under Student's t, up to constants."""

    def fit(self, seen: Evidence, weight: Floats, trim: float) -> Self:
        self.center, self.scale = spread(seen.residual, weight, trim)
        return self

    def __call__(self, seen: Evidence) -> Floats:
        return self.parts((seen.residual - self.center) / self.scale).mean(axis=1)

    def parts(self, deviation: Floats) -> Floats:
        return np.log1p(deviation**2 / TAILS)


class Robust(Score):
    """Robust distance in [code, residual] joined with robust residuals.

    Both are standardised over all training rows and added. The first knows how columns depend on
    each other, the second does not and is hard to mislead: where one is fooled by outliers among
    the training rows, the other often is not.
    """

    def __init__(self) -> None:
        self.distance = Neighbors(size=256, rank=5, floor=FLOOR)
        self.tails = Tails()

    def fit(self, seen: Evidence, weight: Floats, trim: float) -> Self:
        scores = [part.fit(seen, weight, trim)(seen) for part in self._both()]
        self.moments = np.array([moments(values, weight) for values in scores])
        return self

    def _both(self) -> tuple[Score, Score]:
        return self.distance, self.tails

    def __call__(self, seen: Evidence) -> Floats:
        return sum(
            (part(seen) - mean) / deviation
            for part, (mean, deviation) in zip(self._both(), self.moments, strict=True)
        )

    def parts(self, deviation: Floats) -> Floats:
        return self.tails.parts(deviation)


SCORES: dict[str, Callable[[], Score]] = {
    "reconstruction": Reconstruction,
    "density": Density,
    "neighbors": Neighbors,
    "robust": Robust,
}


def moments(values: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation of columns, 1 where it is 0."""
    mean = np.average(values, axis=0, weights=weight)
    deviation = np.sqrt(np.average((values - mean) ** 2, axis=0, weights=weight))
    return mean, np.where(deviation > 0, deviation, 1.0)


def central(distance: Floats, weight: Floats, trim: float) -> Floats:
    """Weights without the farthest `trim` of the total; a row at the border keeps a part."""
    order = distance.argsort(axis=0, kind="stable")
    sorted_weight = weight[order]
    room = (1 - trim) * weight.sum() - (sorted_weight.cumsum(axis=0) - sorted_weight)
    kept = np.empty_like(sorted_weight)
    np.put_along_axis(kept, order, np.clip(room, 0.0, sorted_weight), axis=0)
    return kept


def spread(
    values: Floats, weight: Floats, trim: float, floor: float = FLOOR
) -> tuple[Floats, Floats]:
    """Centre and scale of columns, from the central 1 - trim of each.

    Scales are those of a normal distribution of which the central part is seen, and at least the
    root of `floor`; where that is 0 too, they are 1.
    """
    center = weighted_percentile(values, weight, 50, average=True)
    squares = (values - center) ** 2
    kept = central(squares, weight, trim)
    share = 1.0
    if trim > 0:
        normal = NormalDist()
        edge = normal.inv_cdf(1 - trim / 2)
        share = 1 - 2 * edge * normal.pdf(edge) / (1 - trim)
    scale = np.sqrt((kept * squares).sum(axis=0) / kept.sum(axis=0) / share + floor)
    return center, np.where(scale > 0, scale, 1.0)


def concentrated(
    points: Floats, weight: Floats, trim: float, floor: float = FLOOR
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Centre and whitening of the rows that are nearest to them, and which rows these are.

    The whitening is the matrix that turns their covariance into the identity, or, where rows are
    longer than `WIDEST`, a vector that does so for their variances. `floor` is added to variances.
    """
    center, scale = spread(points, weight, trim)
    whitening = 1 / scale
    for _ in range(CONCENTRATION_STEPS if trim > 0 else 1):
        squares = (whitened(points, center, whitening) ** 2).sum(axis=1)
        kept = central(squares, weight, trim)
        center = np.average(points, axis=0, weights=kept)
        apart = points - center
        if points.shape[1] > WIDEST:
            whitening = (np.average(apart**2, axis=0, weights=kept) + floor) ** -0.5
        else:
            covariance = (apart * kept[:, None]).T @ apart / kept.sum()
            # Of few rows the covariance is uncertain by the ratio of columns to rows, and
            # directions in which they happen not to differ say nothing about others.
            ridge = floor + covariance.trace() / kept.sum()
            root = np.linalg.cholesky(covariance + ridge * np.eye(len(center)))
            whitening = np.linalg.inv(root).T
    return center, whitening, kept > 0


def whitened(points: Floats, center: Floats, whitening: Floats) -> Floats:
    """Points with unit variances, uncorrelated where the whitening is a matrix."""
    apart = points - center
    return apart * whitening if whitening.ndim == 1 else apart @ whitening


def systematic(index: NDArray[np.intp], weight: Floats, size: int) -> NDArray[np.intp]:
    """At most `size` of the indices, none twice, spread evenly over their weight."""
    if len(index) <= size:
        return index
    share = weight.cumsum()
    places = (np.arange(size) + 0.5) / size * share[-1]
    return index[np.unique(np.searchsorted(share, places))]
