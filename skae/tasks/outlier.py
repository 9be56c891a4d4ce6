"""Outlier detection with any autoencoder: which rows it does not expect, and why."""

from dataclasses import dataclass
from math import ceil
from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from numpy.random import RandomState
from numpy.typing import NDArray
from sklearn.base import OutlierMixin, clone
from sklearn.utils import gen_batches, get_tags
from sklearn.utils.validation import check_is_fitted

from skae._compat.sklearn import Interval, StrOptions, fit_context, warn, weighted_percentile
from skae.base import MatrixLike
from skae.files import Stored
from skae.fitting import draw_seed
from skae.table.rows import hash_rows, merge_equal_rows, select_by_hash
from skae.tasks.meta_estimator import AutoencoderMetaEstimator
from skae.tasks.outlier_scores import SCORES, Evidence, Floats, moments, spread
from skae.training.split import hold_out
from skae.variants.autoencoder import Autoencoder

BLOCK = 2**14
"""Rows that are scored at once, so that memory does not grow with the table."""

STATISTICS_ROWS = 2**14
"""Rows from which is learnt what residuals and codes are usual."""

REACH = 20.0
"""Robust deviations beyond which a cell moves neither its column's scale nor the network."""

FAR = 1e100
"""Largest residual, in columns' units, whose square leaves room for sums."""

STEPS, BATCH, FULL_BATCH = 300, 128, 256
"""Steps of the default training, few, so that what is rare is not learnt, and rows of each."""

BELIEVED = 3.0
"""Deviations up to which a cell is believed when the rest of its row is to be explained."""

ROUNDS = 2
"""Times that unbelievable cells are replaced: more change little."""

FEWEST_FOR_P_VALUES = 19
"""Calibration rows below which no p-value reaches .05."""


@dataclass(frozen=True)
class Units(Stored):
    """Columns' own units, in which `center` is 0, `scale` is 1; a network sees up to `reach`."""

    center: Floats
    scale: Floats
    reach: Floats

    @classmethod
    def of(cls, X: Floats, weight: Floats) -> Self:
        """Median, and standard deviation of cells that are pulled in to `REACH`.

        How far cells are out is told by the median absolute deviation of those that differ from
        the median: columns that mostly hold one value have a scale, too.
        """
        center = weighted_percentile(X, weight, 50, average=True)
        apart = X - center
        distance = np.where(apart == 0, np.nan, np.abs(apart))
        typical = 1.4826 * weighted_percentile(distance, weight, 50, average=True)
        typical = np.where(typical > 0, typical, 1.0)
        pulled_in = np.clip(apart / typical, -REACH, REACH)
        _, deviation = moments(pulled_in, weight)
        return cls(center, typical * deviation, REACH / deviation)

    @classmethod
    def of_user(cls, n_features: int) -> Self:
        """The units that rows come in, without limits."""
        return cls(np.zeros(n_features), np.ones(n_features), np.full(n_features, np.inf))

    def enter(self, X: Floats) -> Floats:
        """Rows as a network sees them."""
        return np.clip((X - self.center) / self.scale, -self.reach, self.reach)

    def leave(self, X: Floats) -> Floats:
        """A network's rows in the user's units."""
        return X * self.scale + self.center


class AutoencoderOutlierDetector(OutlierMixin, AutoencoderMetaEstimator):
    """Outliers are the rows that an autoencoder does not expect.

    An autoencoder is trained to restore rows from short codes, without those of each batch that it
    restores worst: it learns what most rows have in common. What is far from that, in the code or
    in what the code leaves over, is strange. `explain` says which cells of a row are, and what was
    expected instead.

    Parameters
    ----------
    autoencoder : autoencoder of skae, FrozenEstimator or None, default=None
        What to train. None is a small `Autoencoder`: its code has half the square root of the
        number of columns, rounded, and it is trained on rows of which half the cells are masked,
        for 300 steps, or one pass if that is longer: too short to learn what is rare. It is given
        columns in robust units, unless it takes values in [0, 1] only; its `trim` and
        `random_state` are set by the detector. A fitted one in `sklearn.frozen.FrozenEstimator` is
        used as it is, on rows as they are.

    criterion : {"auto", "reconstruction", "density", "neighbors", "robust"}, default="auto"
        What makes a row strange. "reconstruction" is its squared error, in columns' robust units.
        "density" is its negative log-density under the autoencoder, in nats, where cells beyond 20
        robust standard deviations count as being there. "neighbors" is the
        distance in [code, residual] from the nearest of the usual training rows, in the metric of
        their covariance: the sharpest where all training rows are normal. "robust" adds to such a
        distance the residuals' negative log-likelihood under heavy tails, which outliers among
        the training rows can hardly mislead. "auto" is "robust", or "neighbors" if `trim=0`.

    contamination : "auto" or float, default="auto"
        Where the threshold is. A float in (0, 0.5] is the share of training rows beyond it.
        "auto" is the upper fence of a boxplot of the training rows' strangeness, 1.5 interquartile
        ranges beyond the third quartile; some per cent of normal rows are beyond it. For a stated
        rate of false alarms see `p_values`.

    trim : float, default=0.3
        Share of rows that may be outliers: training and the estimates of what is usual leave out
        so many of the strangest. 0 is for training rows that are known to be normal (novelty
        detection).

    calibration_fraction : float, default=0.0
        Share of distinct rows set aside in `fit`, on which `p_values` are calibrated. None are by
        default: all rows serve training.

    random_state : int, RandomState instance or None, default=None
        Decides the autoencoder's training and which rows are set aside.

    Attributes
    ----------
    autoencoder_ : autoencoder
        The fitted autoencoder; unless given as it is, it sees columns in robust units.

    offset_ : float
        What `score_samples` must reach for a row to count as an inlier.

    n_calibration_rows_ : int
        Distinct rows set aside.

    n_features_in_ : int
        Number of columns seen in fit.

    feature_names_in_ : ndarray of shape (n_features,)
        Their names, where all are strings.

    See Also
    --------
    sklearn.ensemble.IsolationForest : Tells outliers by how few cuts isolate them.
    sklearn.neighbors.LocalOutlierFactor : Tells them by the density around their neighbours.

    Notes
    -----
    Columns' units are robust: the median is 0, and the standard deviation of cells, those beyond
    20 robust standard deviations (1.48 median absolute deviations) pulled in, is 1. The network
    sees pulled-in cells; residuals are those of rows as they are, so that gross errors stay gross.

    Dropping the rows that fit worst from each step is least trimmed squares [1]_; the covariance
    is estimated by concentration steps [2]_. p-values are split conformal [3]_. Autoencoders with
    few codes find outliers as in [4]_.

    References
    ----------
    .. [1] P. J. Rousseeuw, "Least median of squares regression", JASA 79, 1984.
    .. [2] P. J. Rousseeuw and K. Van Driessen, "A fast algorithm for the minimum covariance
       determinant estimator", Technometrics 41, 1999.
    .. [3] S. Bates, E. Candès, L. Lei, Y. Romano and M. Sesia, "Testing for outliers with
       conformal p-values", Annals of Statistics 51, 2023.
    .. [4] S. Hawkins, H. He, G. Williams and R. Baxter, "Outlier detection using replicator neural
       networks", DaWaK 2002.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from skae import AutoencoderOutlierDetector
    >>> X = load_wine(as_frame=True).data
    >>> X.loc[7, "alcohol"] = 0.0
    >>> detector = AutoencoderOutlierDetector(contamination=0.05, random_state=0)
    >>> bool(detector.fit_predict(X)[7] == -1)
    True
    >>> why = detector.explain(X.loc[[7]])
    >>> why["share"].idxmax(axis=1).item()
    'alcohol'
    >>> bool(12 < why["expected"]["alcohol"].item() < 15)
    True
    """

    criterion: str = "auto"
    contamination: float | str = "auto"
    trim: float = 0.3
    calibration_fraction: float = 0.0
    random_state: int | RandomState | None = None

    _parameter_constraints: ClassVar = {
        "criterion": [StrOptions({"auto", *SCORES})],
        "contamination": [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="right")],
        "trim": [Interval(Real, 0, 1, closed="left")],
        "calibration_fraction": [Interval(Real, 0, 1, closed="left")],
        "random_state": ["random_state"],
    }

    _checks: ClassVar = {"dtype": np.float64}

    # ------------------------------------------------------------------ fitting

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: MatrixLike, y: object = None, sample_weight: MatrixLike | None = None) -> Self:
        """Train the autoencoder, learn what is usual, and set the threshold.

        A fit that fails or is interrupted leaves an earlier model as it was.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows in the user's units, outliers among them unless `trim=0`.
        y : None
            Ignored.
        sample_weight : array-like of shape (n_samples,), default=None
            How often each row counts; a weight of 2 is a row given twice, 0 a row left out.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            Where X cannot be used (NaN, infinite, wrong shape) or training breaks down.
        TypeError
            Where X is sparse.
        NotFittedError
            Where `autoencoder` is a FrozenEstimator of one that is not fitted.

        Warns
        -----
        UserWarning
            Where so few rows are set aside that no p-value can reach .05.
        """
        new = type(self)(**self.get_params(deep=False))
        new._fit(X, sample_weight)
        self._adopt(new)
        return self

    def _fit(self, X: MatrixLike, sample_weight: MatrixLike | None) -> None:
        model, X, weight = self._read_training(X, sample_weight)
        X, weight = X[weight > 0], weight[weight > 0]
        seed = draw_seed(self.random_state)
        hashes = hash_rows(X, seed)
        set_aside = hold_out(hashes, self.calibration_fraction)
        # Equal rows become one of their summed weight: repeating a row is weighting it.
        distinct, share = merge_equal_rows(weight, hashes)
        share /= share.mean()
        for_training = ~set_aside[distinct]
        train = distinct[for_training]
        self._units_ = Units.of(X[train], share[for_training])
        if (~set_aside).sum() < 2:
            raise ValueError(
                f"calibration_fraction={self.calibration_fraction} leaves a single row for "
                "training: lower it or give more rows."
            )
        self._inputs_ = Units.of_user(X.shape[1])
        if model is None:
            model = clone(self.autoencoder or _small(len(train), X.shape[1]))
            model.set_params(trim=self.trim, random_state=seed)
            if not get_tags(model).input_tags.positive_only:
                self._inputs_ = self._units_
            model.fit(self._inputs_.enter(X[~set_aside]), sample_weight=weight[~set_aside])
        self.autoencoder_ = model
        self._learn(X[train], share[for_training], hashes[train])
        self._calibrate(X[distinct[~for_training]], share[~for_training])

    def _learn(self, X: Floats, weight: Floats, hashes: NDArray[np.uint64]) -> None:
        """Learn from distinct rows which residuals and scores are usual."""
        some = select_by_hash(hashes, STATISTICS_ROWS)
        seen, share = self._evidence(X[some]), weight[some]
        self._center_, self._scale_ = spread(seen.residual, share, self.trim)
        name = self.criterion
        if name == "auto":
            name = "robust" if self.trim > 0 else "neighbors"
        self._score_ = SCORES[name]().fit(seen, share, self.trim)
        strangeness = self._strangeness(X)
        if self.contamination == "auto":
            low, high = weighted_percentile(strangeness, weight, np.array([25, 75]), average=True)
            limit = high + 1.5 * (high - low)
        else:
            percent = 100 * float(self.contamination)
            limit = -weighted_percentile(-strangeness, weight, percent, average=True)
        self.offset_ = -float(limit + _rounding(limit))

    def _calibrate(self, X: Floats, weight: Floats) -> None:
        """Note how strange rows are that training has not seen."""
        self.n_calibration_rows_ = len(X)
        strangeness = self._strangeness(X) if len(X) else np.zeros(0)
        order = strangeness.argsort()
        self._calibration_ = strangeness[order]
        # Rows of unequal weight tell less than as many of equal weight (Kish's effective number).
        counts = weight[order] * weight.sum() / max((weight**2).sum(), np.finfo(float).tiny)
        # Of rows at least as strange as the i-th, one more than their number.
        self._at_least_ = 1 + np.append(counts[::-1].cumsum()[::-1], 0.0)
        if self.calibration_fraction > 0:
            self._warn_of_few_rows()

    def _warn_of_few_rows(self) -> None:
        n = self._at_least_[0] - 1
        if round(n, 6) < FEWEST_FOR_P_VALUES:
            warn(
                f"Only {n:.3g} rows are set aside for p-values, of which none can be below "
                f"{1 / (n + 1):.3g}. Raise calibration_fraction or give more rows.",
                UserWarning,
            )

    # ---------------------------------------------------------------- inference

    def score_samples(self, X: MatrixLike) -> Floats:
        """How normal rows are: higher is more normal.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            The negative of what `score` names: of log mean squared error ("reconstruction"), log
            distance ("neighbors") or the sum of two standardised numbers ("robust"), without
            units; for "density", the log-density of rows in nats.
        """
        return -self._strangeness(self._read(X))

    def decision_function(self, X: MatrixLike) -> Floats:
        """`score_samples` minus `offset_`: negative for outliers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.

        Returns
        -------
        decision : ndarray of shape (n_samples,)
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X: MatrixLike) -> NDArray[np.intp]:
        """Whether rows are inliers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.

        Returns
        -------
        is_inlier : ndarray of shape (n_samples,)
            1 for inliers, -1 for outliers.
        """
        return np.where(self.decision_function(X) < 0, -1, 1)

    def p_values(self, X: MatrixLike) -> Floats:
        """How often a normal row would be at least as strange.

        Rows with a p-value of at most .05 make up at most 5 % of all normal rows, on average over
        what is set aside: the rate of false alarms. It holds whatever the autoencoder has learnt,
        if normal rows are like those set aside; outliers among these make alarms rarer. Equal rows
        are set aside together, so that a row that makes up much of the table may be missing.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units; not those of `fit`.

        Returns
        -------
        p : ndarray of shape (n_samples,)
            Between ``1 / (n_calibration_rows_ + 1)`` and 1.

        Raises
        ------
        ValueError
            Where `fit` has set no rows aside, by default or because there were too few.

        Warns
        -----
        UserWarning
            Where so few rows are set aside that no p-value can reach .05.

        Examples
        --------
        >>> import numpy as np
        >>> from skae import AutoencoderOutlierDetector
        >>> X = np.random.default_rng(0).normal(size=(300, 4))
        >>> detector = AutoencoderOutlierDetector(calibration_fraction=0.3, random_state=0)
        >>> detector.fit(X).p_values([[0, 0, 0, 0], [9, 9, 9, 9]]) <= 0.05
        array([False,  True])
        """
        check_is_fitted(self)
        if not self.n_calibration_rows_:
            raise ValueError(
                "p-values need rows that training has not seen, and none were set aside: set "
                "calibration_fraction, for instance to 0.3, or give more rows, and fit again."
            )
        self._warn_of_few_rows()
        strangeness = self._strangeness(self._read(X))
        place = np.searchsorted(self._calibration_, strangeness - _rounding(strangeness))
        return self._at_least_[place] / self._at_least_[0]

    def explain(self, X: MatrixLike) -> pd.DataFrame:
        """Which cells make rows strange, and what was expected there.

        What is expected of a row is told by its cells that can be believed: those that deviate
        much are replaced by their expectations, and the row is restored again.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.

        Returns
        -------
        why : DataFrame of shape (n_samples, 3 * n_features)
            Three tables side by side, each with the columns of `X`: `why["deviation"]`, cells
            minus their expectations in robust standard deviations of such differences among the
            training rows; `why["expected"]`, the expectations in the user's units; and
            `why["share"]`, each cell's part, of 1, of what the row's deviations sum up to: their
            squares, or for the score "robust" their terms in the score's heavy-tailed half.
        """
        rows = self._read(X)
        names = getattr(self, "feature_names_in_", [f"x{i}" for i in range(self.n_features_in_)])
        index = X.index if isinstance(X, pd.DataFrame) else None
        blocks = [self._explained(rows[some]) for some in gen_batches(len(rows), BLOCK)]
        tables = {
            title: pd.DataFrame(np.concatenate(parts), index=index, columns=names)
            for title, *parts in zip(("deviation", "expected", "share"), *blocks, strict=True)
        }
        return pd.concat(tables, axis=1)

    def _explained(self, X: Floats) -> tuple[Floats, Floats, Floats]:
        """Deviations of cells, what was expected of them, and their shares."""
        restored = self._rows(self._codes(X))
        deviation = self._deviation(X, restored)
        for _ in range(ROUNDS):
            believed = np.where(np.abs(deviation) > BELIEVED, restored, X)
            restored = self._rows(self._codes(believed))
            deviation = self._deviation(X, restored)
        parts = self._score_.parts(deviation)
        total = parts.sum(axis=1, keepdims=True)
        share = np.divide(parts, total, out=np.full_like(parts, 1 / X.shape[1]), where=total > 0)
        return deviation, restored + self._center_ * self._units_.scale, share

    def _deviation(self, X: Floats, restored: Floats) -> Floats:
        return (self._residual(X, restored) - self._center_) / self._scale_

    def _codes(self, X: Floats) -> Floats:
        return np.asarray(self.autoencoder_.transform(self._inputs_.enter(X)), dtype=np.float64)

    def _rows(self, codes: Floats) -> Floats:
        rows = np.asarray(self.autoencoder_.inverse_transform(codes), dtype=np.float64)
        return self._inputs_.leave(rows)

    def _residual(self, X: Floats, restored: Floats) -> Floats:
        return np.clip((X - restored) / self._units_.scale, -FAR, FAR)

    def _evidence(self, X: Floats) -> Evidence:
        def log_prob() -> Floats:
            change_of_units = np.log(self._inputs_.scale).sum()
            return self.autoencoder_.score_samples(self._inputs_.enter(X)) - change_of_units

        codes = self._codes(X)
        return Evidence(codes, self._residual(X, self._rows(codes)), log_prob)

    def _strangeness(self, X: Floats) -> Floats:
        blocks = [X[some] for some in gen_batches(len(X), BLOCK)]
        return np.concatenate([self._score_(self._evidence(rows)) for rows in blocks])


def _small(n: int, n_features: int) -> Autoencoder:
    """The default: a short code, few steps, and each cell to be told from half of the others."""
    batch_size = n if n <= FULL_BATCH else BATCH
    return Autoencoder(
        max(1, round(n_features**0.5 / 2)),
        hidden_layer_sizes=(64, 32),
        activation="tanh",
        linear_skip=False,
        corruption="masking",
        corruption_level=0.5,
        weight_decay=100.0,
        max_epochs=ceil(STEPS * batch_size / n),
        batch_size=batch_size,
        early_stopping=False,
    )


def _rounding(values: Any) -> Any:
    """How far a row's scores may differ between batches, which is no reason for an alarm."""
    return 2e-6 * (1 + np.abs(values))
