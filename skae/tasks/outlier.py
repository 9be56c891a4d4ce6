"""Outlier detection with any autoencoder, p-values for outliers, and explanations by cell."""

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
from skae.tasks.outlier_scores import (
    SCORES,
    Floats,
    ModelOutputs,
    mean_and_deviation,
    robust_center_scale,
)
from skae.training.split import hold_out
from skae.variants.autoencoder import Autoencoder

BLOCK_ROWS = 2**14
"""Number of rows scored at once. Scoring in blocks bounds the memory for large tables."""

STATISTICS_ROWS = 2**14
"""Maximum number of training rows from which the criterion is estimated."""

MAX_DEVIATION = 20.0
"""Robust standard deviations at which cells are clipped before they enter the network.

Cells are clipped there, too, when the scale of their column is estimated.
"""

MAX_RESIDUAL = 1e100
"""Magnitude, in robust units, at which residuals are clipped to keep sums of squares finite."""

N_STEPS = 300
"""Optimizer steps of the default autoencoder, few enough that it does not learn rare rows."""

BATCH_SIZE = 128
"""Rows per batch of the default autoencoder, where a table is not trained as a single batch."""

FULL_BATCH_ROWS = 256
"""Number of rows up to which the default autoencoder trains on the full batch."""

MAX_PLAUSIBLE_DEVIATION = 3.0
"""Absolute deviation above which `explain` replaces a cell by its expected value."""

N_REPLACEMENTS = 2
"""Number of times that `explain` replaces implausible cells; more rounds change little."""

MIN_CALIBRATION_ROWS = 19
"""Effective number of calibration rows below which no p-value can reach 0.05."""


@dataclass(frozen=True)
class Units(Stored):
    """Location, scale and clipping limit of each column of a table.

    In these units a column's `center` is 0, its `scale` is 1, and the network's inputs lie within
    -`reach` and `reach`.
    """

    center: Floats
    scale: Floats
    reach: Floats

    @classmethod
    def from_rows(cls, X: Floats, weight: Floats) -> Self:
        """Estimate robust units from weighted rows.

        The center is the median. The scale is the standard deviation of the cells after clipping
        at `MAX_DEVIATION` robust standard deviations from the median. A robust standard deviation
        is 1.4826 times the median absolute deviation of the cells that differ from the median:
        cells that equal it are left out because a column that mostly holds one value would
        otherwise have no scale.
        """
        center = weighted_percentile(X, weight, 50, average=True)
        difference = X - center
        distance = np.where(difference == 0, np.nan, np.abs(difference))
        typical = 1.4826 * weighted_percentile(distance, weight, 50, average=True)
        typical = np.where(typical > 0, typical, 1.0)
        clipped = np.clip(difference / typical, -MAX_DEVIATION, MAX_DEVIATION)
        _, deviation = mean_and_deviation(clipped, weight)
        return cls(center, typical * deviation, MAX_DEVIATION / deviation)

    @classmethod
    def identity(cls, n_features: int) -> Self:
        """Return units that leave rows as they are, without clipping."""
        return cls(np.zeros(n_features), np.ones(n_features), np.full(n_features, np.inf))

    def to_network(self, X: Floats) -> Floats:
        """Convert rows from the user's units to the network's and clip them."""
        return np.clip((X - self.center) / self.scale, -self.reach, self.reach)

    def to_user(self, X: Floats) -> Floats:
        """Convert rows from the network's units to the user's."""
        return X * self.scale + self.center


class AutoencoderOutlierDetector(OutlierMixin, AutoencoderMetaEstimator):
    """Outlier and novelty detector based on any autoencoder.

    An autoencoder is trained to reconstruct rows from short codes. Each training step leaves out
    the rows of the batch with the largest loss, so that the model learns what most rows have in
    common. A row is abnormal if its code or its residual is far from those of the training rows.
    `explain` reports which cells make a row abnormal and which values the model expected.

    Parameters
    ----------
    autoencoder : autoencoder of skae, FrozenEstimator or None, default=None
        The autoencoder to train. The detector trains a clone and sets its `trim` and
        `random_state`. The clone is trained on columns in robust units, unless it accepts values
        in [0, 1] only. None uses a small `Autoencoder` whose number of components is half the
        square root of the number of columns, rounded, and at least 1. It is trained with half of
        the cells masked, for 300 steps or one epoch, whichever is longer. This is too short to
        learn rare rows. A fitted autoencoder in `sklearn.frozen.FrozenEstimator` is used without
        further training, on rows in the user's units.

    criterion : {"auto", "reconstruction", "density", "neighbors", "robust"}, default="auto"
        The measure of abnormality:

        - "reconstruction": squared reconstruction error in robust units.
        - "density": negative log-density under the autoencoder, in nats. Cells beyond 20 robust
          standard deviations from the median are clipped there.
        - "neighbors": distance from the nearest regular training rows in [code, residual], in the
          metric of their covariance. It is the most sensitive criterion if all training rows are
          normal.
        - "robust": the sum of such a distance and the negative log-likelihood of the residuals
          under a heavy-tailed distribution, both standardized. Outliers among the training rows
          hardly affect the second term.
        - "auto": "neighbors" if `trim=0`, otherwise "robust".

    contamination : "auto" or float, default="auto"
        The threshold. A float in (0, 0.5] is the proportion of training rows beyond the
        threshold. "auto" uses the upper fence of a boxplot of the training rows' anomaly scores,
        1.5 interquartile ranges above the third quartile. It requires no knowledge of the
        proportion of outliers, but flags a few percent of normal rows. Use `p_values` to control
        the rate of false alarms.

    trim : float, default=0.3
        Proportion of rows, in [0, 1), that may be outliers. Training and the estimates of the
        regular rows' distribution leave out this proportion of the most abnormal rows. Use 0 if
        all training rows are known to be normal (novelty detection). The default tolerates many
        outliers, because their proportion is rarely known.

    calibration_fraction : float, default=0.0
        Proportion of distinct rows, in [0, 1), that `fit` holds out of training to calibrate
        `p_values`. The default holds out none, so that all rows serve training.

    random_state : int, RandomState instance or None, default=None
        Seed of the autoencoder's training and of the choice of calibration rows. Pass an int for
        reproducible results.

    Attributes
    ----------
    autoencoder_ : autoencoder
        The fitted autoencoder. Unless it was passed as a FrozenEstimator or accepts values in
        [0, 1] only, its inputs and outputs are in robust units.

    offset_ : float
        The threshold: rows with `score_samples` below it are outliers.

    n_calibration_rows_ : int
        Number of distinct rows held out to calibrate `p_values`.

    n_features_in_ : int
        Number of columns seen during `fit`.

    feature_names_in_ : ndarray of shape (n_features,)
        Names of columns seen during `fit`. Defined only if all names are strings.

    See Also
    --------
    sklearn.ensemble.IsolationForest : Detects outliers by how few random splits isolate them.
    sklearn.neighbors.LocalOutlierFactor : Detects outliers by the density of their neighborhood.

    Notes
    -----
    Most users set only `contamination` (if the proportion of outliers is known), `trim` (0 if all
    training rows are normal), `calibration_fraction` (for p-values) and `random_state`.

    Robust units of a column have a median of 0 and a standard deviation of 1 after cells beyond 20
    robust standard deviations (1.48 median absolute deviations each) are clipped. The network
    receives clipped cells. Residuals are computed from the original cells, so that gross errors
    keep large residuals.

    Training without the worst rows of each batch is least trimmed squares [1]_. The covariance is
    estimated by concentration steps [2]_. The p-values are split conformal p-values [3]_. Outlier
    detection by autoencoders with short codes was proposed in [4]_.

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
    >>> explanation = detector.explain(X.loc[[7]])
    >>> explanation["share"].idxmax(axis=1).item()
    'alcohol'
    >>> bool(12 < explanation["expected"]["alcohol"].item() < 15)
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

    _validation_options: ClassVar = {"dtype": np.float64}

    # ------------------------------------------------------------------ fitting

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: MatrixLike, y: object = None, sample_weight: MatrixLike | None = None) -> Self:
        """Fit the autoencoder, the outlier criterion and the threshold.

        A fit that fails or is interrupted leaves an earlier fit unchanged.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows in the user's units. They may contain outliers unless `trim=0`.
        y : None
            Ignored, present for API consistency.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of rows. A weight of 2 is equivalent to repeating a row, 0 to leaving it out.
            None gives all rows a weight of 1.

        Returns
        -------
        self : object
            The fitted detector.

        Raises
        ------
        ValueError
            If X is invalid (NaN, infinite values, wrong shape), if `calibration_fraction` leaves
            fewer than two rows for training, or if training diverges.
        TypeError
            If X is sparse.
        NotFittedError
            If `autoencoder` is a FrozenEstimator of an unfitted autoencoder.

        Warns
        -----
        UserWarning
            If there are too few calibration rows for a p-value of 0.05.
        """
        new = type(self)(**self.get_params(deep=False))
        new._fit(X, sample_weight)
        self._adopt(new)
        return self

    def _fit(self, X: MatrixLike, sample_weight: MatrixLike | None) -> None:
        model, X, weight = self._read_training_rows(X, sample_weight)
        X, weight = X[weight > 0], weight[weight > 0]
        seed = draw_seed(self.random_state)
        hashes = hash_rows(X, seed)
        held_out = hold_out(hashes, self.calibration_fraction)
        # Equal rows are merged and their weights added: repeating a row equals weighting it.
        distinct, share = merge_equal_rows(weight, hashes)
        share /= share.mean()
        for_training = ~held_out[distinct]
        train = distinct[for_training]
        self._units_ = Units.from_rows(X[train], share[for_training])
        if (~held_out).sum() < 2:
            raise ValueError(
                f"calibration_fraction={self.calibration_fraction} leaves fewer than 2 rows for "
                "training. Lower calibration_fraction or pass more rows."
            )
        self._inputs_ = Units.identity(X.shape[1])
        if model is None:
            model = clone(self.autoencoder or _default_autoencoder(len(train), X.shape[1]))
            model.set_params(trim=self.trim, random_state=seed)
            if not get_tags(model).input_tags.positive_only:
                self._inputs_ = self._units_
            model.fit(self._inputs_.to_network(X[~held_out]), sample_weight=weight[~held_out])
        self.autoencoder_ = model
        self._fit_criterion(X[train], share[for_training], hashes[train])
        self._calibrate(X[distinct[~for_training]], share[~for_training])

    def _fit_criterion(self, X: Floats, weight: Floats, hashes: NDArray[np.uint64]) -> None:
        """Fit the outlier criterion and the threshold to distinct training rows."""
        sample = select_by_hash(hashes, STATISTICS_ROWS)
        outputs, share = self._model_outputs(X[sample]), weight[sample]
        self._center_, self._scale_ = robust_center_scale(outputs.residual, share, self.trim)
        name = self.criterion
        if name == "auto":
            name = "robust" if self.trim > 0 else "neighbors"
        self._score_ = SCORES[name]().fit(outputs, share, self.trim)
        anomaly = self._anomaly_scores(X)
        if self.contamination == "auto":
            low, high = weighted_percentile(anomaly, weight, np.array([25, 75]), average=True)
            limit = high + 1.5 * (high - low)
        else:
            percent = 100 * float(self.contamination)
            limit = -weighted_percentile(-anomaly, weight, percent, average=True)
        self.offset_ = -float(limit + _rounding_tolerance(limit))

    def _calibrate(self, X: Floats, weight: Floats) -> None:
        """Store the anomaly scores of held-out rows, from which p-values are computed."""
        self.n_calibration_rows_ = len(X)
        anomaly = self._anomaly_scores(X) if len(X) else np.zeros(0)
        order = anomaly.argsort()
        self._calibration_ = anomaly[order]
        # Weights are rescaled to sum to Kish's effective sample size, because rows of unequal
        # weight carry less information than as many rows of equal weight.
        counts = weight[order] * weight.sum() / max((weight**2).sum(), np.finfo(float).tiny)
        # Entry i is 1 plus the effective number of rows with a score of at least the i-th.
        self._at_least_ = 1 + np.append(counts[::-1].cumsum()[::-1], 0.0)
        if self.calibration_fraction > 0:
            self._warn_about_few_rows()

    def _warn_about_few_rows(self) -> None:
        n = self._at_least_[0] - 1
        if round(n, 6) < MIN_CALIBRATION_ROWS:
            warn(
                f"Only {n:.3g} calibration rows were held out, so that no p-value can be below "
                f"{1 / (n + 1):.3g}. Increase calibration_fraction or pass more rows.",
                UserWarning,
            )

    # ---------------------------------------------------------------- inference

    def score_samples(self, X: MatrixLike) -> Floats:
        """Compute the scores of rows; lower is more abnormal.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            The negative anomaly scores. For "reconstruction" the anomaly score is the logarithm
            of the mean squared error in robust units, for "neighbors" the logarithm of a distance,
            and for "robust" the sum of two standardized numbers; these have no unit. For "density"
            the score is the log-density of rows in nats.
        """
        return -self._anomaly_scores(self._read_rows(X))

    def decision_function(self, X: MatrixLike) -> Floats:
        """Compute `score_samples` minus `offset_`; negative values are outliers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.

        Returns
        -------
        decision : ndarray of shape (n_samples,)
            The shifted scores, in the unit of `score_samples`.
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X: MatrixLike) -> NDArray[np.intp]:
        """Predict whether rows are inliers.

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
        """Compute the probability that a normal row is at least as abnormal as each row.

        At most 5 % of all normal rows, on average over the draw of calibration rows, have a
        p-value of at most 0.05, so that a threshold on p-values is a rate of false alarms. This
        holds for any autoencoder if normal rows follow the distribution of the calibration rows.
        Outliers among the calibration rows make false alarms rarer. Equal rows are held out
        together; if one row makes up much of the table, the calibration rows may not represent it.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units. They must not be rows that `fit` received.

        Returns
        -------
        p : ndarray of shape (n_samples,)
            Probabilities between ``1 / (n_calibration_rows_ + 1)`` and 1. If calibration rows have
            unequal weights, the lower bound uses their effective number, which is smaller.

        Raises
        ------
        ValueError
            If `fit` held out no calibration rows, because `calibration_fraction` is 0 or there
            are too few rows.

        Warns
        -----
        UserWarning
            If there are too few calibration rows for a p-value of 0.05.

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
                "p_values requires calibration rows, but fit held out none. Set "
                "calibration_fraction, for example to 0.3, or pass more rows, and fit again."
            )
        self._warn_about_few_rows()
        anomaly = self._anomaly_scores(self._read_rows(X))
        place = np.searchsorted(self._calibration_, anomaly - _rounding_tolerance(anomaly))
        return self._at_least_[place] / self._at_least_[0]

    def explain(self, X: MatrixLike) -> pd.DataFrame:
        """Compute the expected value of each cell, and how much each cell makes its row abnormal.

        The expected values are the reconstruction of the row, plus the median residual of each
        column. Cells with an absolute deviation above 3 are replaced by their reconstructed values,
        and the row is reconstructed again. This is done twice and reduces the influence of abnormal
        cells on the expected values.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.

        Returns
        -------
        explanation : DataFrame of shape (n_samples, 3 * n_features)
            Three tables side by side. Each has the column names of `X`, or "x0", "x1" and so on if
            `fit` received none:

            - `explanation["deviation"]`: cells minus their expected values, divided by a robust
              standard deviation of these differences in the training rows. It has no unit.
            - `explanation["expected"]`: the expected values in the user's units.
            - `explanation["share"]`: the contribution of each cell divided by the sum of the
              contributions of its row. The contribution is ``log(1 + deviation**2 / 10)``, a
              Student's t log-likelihood, for the criterion "robust", which is also "auto" unless
              `trim=0`. It is ``deviation**2`` for the other criteria.

        Raises
        ------
        NotFittedError
            If the detector is not fitted.
        ValueError
            If X is invalid (NaN, infinite values, wrong shape).
        """
        rows = self._read_rows(X)
        names = getattr(self, "feature_names_in_", [f"x{i}" for i in range(self.n_features_in_)])
        index = X.index if isinstance(X, pd.DataFrame) else None
        blocks = [self._explain_block(rows[block]) for block in gen_batches(len(rows), BLOCK_ROWS)]
        tables = {
            title: pd.DataFrame(np.concatenate(parts), index=index, columns=names)
            for title, *parts in zip(("deviation", "expected", "share"), *blocks, strict=True)
        }
        return pd.concat(tables, axis=1)

    def _explain_block(self, X: Floats) -> tuple[Floats, Floats, Floats]:
        """Compute the deviations, expected values and shares of cells."""
        reconstruction = self._decode(self._encode(X))
        deviation = self._deviation(X, reconstruction)
        for _ in range(N_REPLACEMENTS):
            plausible = np.where(np.abs(deviation) > MAX_PLAUSIBLE_DEVIATION, reconstruction, X)
            reconstruction = self._decode(self._encode(plausible))
            deviation = self._deviation(X, reconstruction)
        terms = self._score_.cell_terms(deviation)
        total = terms.sum(axis=1, keepdims=True)
        share = np.divide(terms, total, out=np.full_like(terms, 1 / X.shape[1]), where=total > 0)
        return deviation, reconstruction + self._center_ * self._units_.scale, share

    def _deviation(self, X: Floats, reconstruction: Floats) -> Floats:
        return (self._residual(X, reconstruction) - self._center_) / self._scale_

    def _encode(self, X: Floats) -> Floats:
        return np.asarray(
            self.autoencoder_.transform(self._inputs_.to_network(X)), dtype=np.float64
        )

    def _decode(self, codes: Floats) -> Floats:
        rows = np.asarray(self.autoencoder_.inverse_transform(codes), dtype=np.float64)
        return self._inputs_.to_user(rows)

    def _residual(self, X: Floats, reconstruction: Floats) -> Floats:
        return np.clip((X - reconstruction) / self._units_.scale, -MAX_RESIDUAL, MAX_RESIDUAL)

    def _model_outputs(self, X: Floats) -> ModelOutputs:
        def log_prob() -> Floats:
            change_of_units = np.log(self._inputs_.scale).sum()
            return self.autoencoder_.score_samples(self._inputs_.to_network(X)) - change_of_units

        codes = self._encode(X)
        return ModelOutputs(codes, self._residual(X, self._decode(codes)), log_prob)

    def _anomaly_scores(self, X: Floats) -> Floats:
        blocks = [X[block] for block in gen_batches(len(X), BLOCK_ROWS)]
        return np.concatenate([self._score_(self._model_outputs(rows)) for rows in blocks])


def _default_autoencoder(n: int, n_features: int) -> Autoencoder:
    """Return the default autoencoder: few components, few steps, half of the cells masked."""
    batch_size = n if n <= FULL_BATCH_ROWS else BATCH_SIZE
    return Autoencoder(
        max(1, round(n_features**0.5 / 2)),
        hidden_layer_sizes=(64, 32),
        activation="tanh",
        linear_skip=False,
        corruption="masking",
        corruption_level=0.5,
        weight_decay=100.0,
        max_epochs=ceil(N_STEPS * batch_size / n),
        batch_size=batch_size,
        early_stopping=False,
    )


def _rounding_tolerance(values: Any) -> Any:
    """Return the tolerance for differences of a row's score between batches due to rounding."""
    return 2e-6 * (1 + np.abs(values))
