"""Outlier detection with any autoencoder, p-values for outliers, and explanations by cell."""

from dataclasses import replace
from math import ceil
from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from numpy.random import RandomState
from numpy.typing import NDArray
from sklearn.base import OutlierMixin

from skae._compat.sklearn import Interval, StrOptions, fit_context, warn, weighted_percentile
from skae.base import BaseAutoencoder, MatrixLike
from skae.fitting.prepare import draw_seed
from skae.state import FittedAttribute
from skae.table.blocks import NUMBERS
from skae.table.containers import frames_like, index_of, tables_like
from skae.table.rows import select_by_hash
from skae.table.seen import Sample, Seen
from skae.table.selection import DistinctRows, Selection
from skae.tasks.meta_estimator import (
    AutoencoderMetaEstimator,
    FittedTask,
    Training,
    TrainingRows,
)
from skae.tasks.outlier_model import FittedDetector, ScaledAutoencoder
from skae.tasks.outlier_scores import SCORES, OfPatterns, Score
from skae.tasks.robust_statistics import VARIANCE_FLOOR, Floats, robust_center_scale
from skae.tasks.units import Units
from skae.training.budget import FULL_BATCH_ROWS
from skae.training.messages import about_distance
from skae.variants.autoencoder import Autoencoder

STATISTICS_ROWS = 2**14
"""Maximum number of distinct training rows from which the criterion is estimated.

The threshold is computed from all training rows.
"""

N_STEPS = 300
"""Approximate number of optimizer steps of the default autoencoder.

It is small enough that the autoencoder does not learn rare rows. A large table takes more steps,
because one epoch is the minimum.
"""

BATCH_SIZE = 128
"""Rows per batch of the default autoencoder for tables of more than `FULL_BATCH_ROWS` rows."""

MIN_CALIBRATION_ROWS = 19
"""Effective number of calibration rows below which no p-value can reach 0.05."""


class AutoencoderOutlierDetector(OutlierMixin, AutoencoderMetaEstimator):
    """Outlier and novelty detector based on any autoencoder.

    An autoencoder is trained to reconstruct rows from short codes. Each training step leaves out
    the rows of the batch that have the largest loss, so that the model learns what most rows have
    in common. The residual of a row is the row minus its reconstruction. By default, a row is
    abnormal if its code or its residual differs much from those of the training rows. `explain`
    reports which cells make a row abnormal and which values the model expected. Columns may hold
    numbers, categories and dates, and cells may be missing, as in `fit` of :class:`Autoencoder`.

    The callbacks of scikit-learn that `set_callbacks` receives follow the epochs of the
    autoencoder.

    Parameters
    ----------
    autoencoder : autoencoder of skae, FrozenEstimator or None, default=None
        The autoencoder. It must be able to fit and reconstruct rows without `y`.

        - An unfitted autoencoder is cloned. The detector sets the clone's `trim` and
          `random_state` and trains it. Columns are converted to robust units (see Notes), unless
          the clone has a Bernoulli likelihood, which requires cells in [0, 1]. If its `warm_start`
          is True, training resumes from the autoencoder of the previous `fit`, on the same columns
          and in the units of the first `fit`.
        - A fitted autoencoder in `sklearn.frozen.FrozenEstimator` is used without further
          training, on rows in the user's units. Its `warm_start` has no effect.
        - None uses a small `Autoencoder` whose number of components is half the square root of the
          number of columns, rounded, and at least 1. It is trained with half of the cells masked,
          for about 300 steps or one epoch, whichever is longer. This is too short to learn rare
          rows.

    criterion : {"auto", "reconstruction", "deviance", "density", "neighbors", "robust"}, \
default="auto"
        How the anomaly score of a row is computed. Regular rows are the training rows that `trim`
        does not leave out.

        - "reconstruction" is the logarithm of the mean squared residual of the row, in robust
          units.
        - "deviance" is the sum of half the squared residuals of the observed cells, in nats, minus
          its mean for these columns, and divided by its standard deviation for these columns. The
          residuals of numbers are divided by their standard deviation in the training rows.
        - "density" is the negative log-density of the row under the autoencoder, in nats. If the
          autoencoder is trained in robust units, cells beyond 20 robust standard deviations from
          the median are clipped first. Rows with different missing cells are compared in robust
          units.
        - "neighbors" is the logarithm of a distance in the space of codes and residuals: that from
          the second nearest of up to 1024 reference points, which are the means of groups of at
          least three similar regular rows. The distance is a Mahalanobis distance with the
          covariance of the regular rows. This criterion is the most sensitive one if all training
          rows are normal.
        - "robust" is the sum of two numbers, each standardized over the training rows. The first is
          the logarithm of such a distance from the fifth nearest of up to 256 reference points. The
          second is the negative log-likelihood of the residuals under Student's t distribution.
          Outliers among the training rows hardly affect the second number.
        - "auto" is "deviance" for tables with columns of several kinds or with categories. For
          tables of numbers, it is "neighbors" if `trim=0`, and "robust" otherwise.

    contamination : "auto" or float, default="auto"
        How the threshold of the anomaly score is computed. A float in (0, 0.5] is the proportion of
        the training rows, by weight, that are beyond the threshold. "auto" is the upper fence of a
        boxplot of the training rows' anomaly scores, 1.5 interquartile ranges above the third
        quartile. For tables with categories, in which most rows may have the same score, it is at
        least the 90 % quantile. It requires no knowledge of the proportion of outliers, but flags a
        few percent of normal rows. Use `p_values` to control the rate of false alarms.

    trim : float, default=0.3
        Proportion of rows, in [0, 1), that may be outliers. Each training step leaves out this
        proportion of its batch, the rows with the largest loss. The estimates of the distribution
        of regular rows leave out this proportion of the training rows, those that are farthest from
        the center. Use 0 if all training rows are known to be normal (novelty detection). The
        default tolerates many outliers, because their proportion is rarely known.

    calibration_fraction : float, default=0.0
        Proportion of the distinct rows, in [0, 1), that `fit` holds out of training to calibrate
        `p_values`. The number of these rows is rounded. The default holds out none, so that all
        rows are used for training.

    random_state : int, RandomState instance or None, default=None
        Seed of the autoencoder's training, of the choice of calibration rows, and of the samples of
        training rows from which the criterion is estimated if there are many. Pass an int for
        reproducible results.

    Attributes
    ----------
    autoencoder_ : autoencoder
        The fitted autoencoder. Its inputs and outputs are in the user's units if it was passed as a
        FrozenEstimator or has a Bernoulli likelihood, and in robust units otherwise.

    offset_ : float
        The threshold, in the unit of `score_samples`. Rows whose score is lower are outliers.

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

    In robust units, each column of the training rows has a median of 0 and, after clipping, a
    standard deviation of 1. Cells beyond 20 robust standard deviations from the median are clipped
    there. A robust standard deviation is 1.48 times the median absolute deviation of those cells
    that differ from the median. A network that is trained in robust units receives clipped cells.
    Residuals are computed from the original cells, so that grossly wrong cells have large
    residuals. Except for effects of rounding errors, the results do not depend on the units of the
    columns: a change of the units and of the zero of a column changes neither predictions nor
    p-values nor shares.

    Categories have no units. The residual of a category is the square root of twice the logarithm
    of the ratio of the probability of the most probable category to that of the observed one, so
    that half its square is a difference of log-probabilities, in nats, as half a squared residual
    of a number is. A category that `fit` has not seen is a missing cell; with ``Categories`` of the
    autoencoder, it can be an error. Missing cells have no residual. Rows with different missing
    cells are compared by "deviance". "reconstruction" and "robust" compute means over observed
    cells, and "neighbors" divides a distance by the number of observed cells. If cells are missing
    in `fit`, these criteria and "density" subtract a sum of effects of missing cells, which a
    robust ridge regression estimates from the training rows. This concerns the mean of the scores,
    not their variance. False alarms, and small p-values, are then more frequent among rows with few
    observed cells.

    A column that is constant in the training rows has a scale of 0 in robust units. Every other
    value is therefore infinitely abnormal: its residual is clipped at 1e100, and the row is an
    outlier. Differences from the constant of at most 2 machine epsilons of it are rounding errors
    and are ignored. The density does not depend on the units of constant columns.

    The file that `save` writes contains no training rows. The criteria "neighbors" and "robust"
    contain means of groups of at least three rows, or of all rows if there are fewer than six.
    "reconstruction" and "density" contain nothing of single rows. With `calibration_fraction`, the
    anomaly scores of the calibration rows are stored, but not the rows. The detector itself, and a
    pickle of it, keep a sample of at most 2,048 training rows, from which `partial_fit` continues.

    Training without the rows of each batch that have the largest loss is least trimmed squares
    [1]_. The covariance of "neighbors" and "robust" is estimated by concentration steps [2]_. If
    codes and residuals together have more than 512 entries, only their variances are estimated.
    The p-values are split conformal p-values [3]_. Outlier detection by autoencoders with short
    codes was proposed in [4]_.

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
    >>> X.loc[7, "alcohol"] = 0.0  # A wrong cell: the others are between 11 and 15.
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

    _fitted_class: ClassVar = FittedDetector

    offset_ = FittedAttribute(lambda fitted: fitted.offset)
    n_calibration_rows_ = FittedAttribute(lambda fitted: len(fitted.calibration))

    # ------------------------------------------------------------------ fitting

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: MatrixLike, y: object = None, sample_weight: MatrixLike | None = None) -> Self:
        """Fit the autoencoder, the outlier criterion and the threshold.

        A fit that fails or is interrupted leaves an earlier fit unchanged.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows in the user's units. A proportion `trim` of them may be outliers.
        y : None
            Ignored, present for API consistency.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of rows. A weight of 2 is equivalent to repeating a row, and a weight of 0 is
            equivalent to leaving it out. None gives all rows a weight of 1.

        Returns
        -------
        self : object
            The fitted detector.

        Raises
        ------
        ValueError
            If X is invalid (infinite values, wrong shape, fewer than two rows), if
            `sample_weight` or a parameter is invalid, if `autoencoder` is not fitted and requires
            y, if `calibration_fraction` leaves fewer than two rows for training, if training cannot
            resume because X has other columns than in the previous fit, or if the objective becomes
            NaN or infinite during training.
        TypeError
            If X is sparse, or if `autoencoder` is a FrozenEstimator of another estimator than an
            autoencoder of skae.
        NotFittedError
            If `autoencoder` is a FrozenEstimator of an unfitted autoencoder.

        Warns
        -----
        UserWarning
            If `calibration_fraction` is positive, but there are too few calibration rows for a
            p-value of 0.05.
        ConvergenceWarning
            If the training of the autoencoder issues it; see the `fit` of the autoencoder.
        """
        return self._fit(X, y, sample_weight)

    @fit_context(prefer_skip_nested_validation=False)
    def partial_fit(
        self, X: MatrixLike, y: object = None, sample_weight: MatrixLike | None = None
    ) -> Self:
        """Join new rows with those seen before, and adapt the detector to all of them.

        The calls may have any size, down to one row, and the rows may come in any order. The
        detector keeps a sample of at most 2,048 of the distinct rows, with at most 2**20 cells.
        Hashes of the rows choose it, so that their order has no influence. A row that comes again
        counts again.

        - Each call computes the threshold anew, from the anomaly scores of the rows in the sample,
          except for calibration rows.
        - Whenever the weight of the rows seen has grown by a quarter, the detector is fitted anew
          to the sample: its autoencoder, robust units, criterion and calibration rows. The
          calibration rows are thus always rows that the present autoencoder was not trained on. If
          the sample contains all rows, this is the same as `fit` on all rows, except that the first
          call determines the kinds and levels of columns. Changes of parameters
          other than `contamination` have an effect on the model from the next such call.

        A pickle contains the sample. A file of `save` does not, so that `partial_fit` cannot
        continue after `skae.load`. The `warm_start` of the autoencoder has no effect.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            New rows in the user's units.
        y : None
            Ignored, present for API consistency.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of rows, as in `fit`.

        Returns
        -------
        self : object
            The fitted detector.

        Raises
        ------
        ValueError
            As in `fit`, if X has other columns than in the first call, or if the detector was
            loaded from a file of `save`. The first call may have a single row.
        TypeError, NotFittedError
            As in `fit`.

        Warns
        -----
        UserWarning
            As in `fit`, or if the new rows are far from those seen before: the mean of a column
            differs by more than 10 standard deviations of the column, and by more than sqrt(n / m)
            for m new rows after n others. The warning names the column.
        ConvergenceWarning
            As in `fit`.

        Examples
        --------
        >>> import numpy as np
        >>> from skae import AutoencoderOutlierDetector
        >>> rows = np.random.default_rng(0).normal(size=(300, 4))
        >>> detector = AutoencoderOutlierDetector(random_state=0)
        >>> for part in np.split(rows, 3):
        ...     detector = detector.partial_fit(part)
        >>> detector.predict([[0, 0, 0, 0], [9, 9, 9, 9]])
        array([ 1, -1])
        """
        return self._fit(X, y, sample_weight, "_stream_model")

    def _fit_model(
        self,
        X: MatrixLike,
        y: MatrixLike,
        sample_weight: MatrixLike | None,
        previous: FittedDetector | None,
        training: Training,
    ) -> FittedDetector:
        data = self._read_training_rows(X, sample_weight, previous)
        before = Seen.nothing(draw_seed(self.random_state), data.read.rows.n_modelled)
        seen = before.join(_as_sample(data, before.seed)).seen
        return self._fit_rows(data, seen.passed(0.0, True), training)

    def _stream_model(
        self,
        X: MatrixLike,
        y: MatrixLike,
        sample_weight: MatrixLike | None,
        previous: FittedDetector | None,
        training: Training,
    ) -> FittedDetector:
        """Join new rows with those seen before, and fit a new model to a sample if it is due."""
        data = self._read_training_rows(X, sample_weight, previous, True)
        if previous is None:
            before = Seen.nothing(draw_seed(self.random_state), data.read.rows.n_modelled)
        elif previous.seen is not None and previous.seen.sample is not None:
            before = previous.seen
        else:
            raise ValueError(
                "partial_fit continues from a sample of the rows seen before, which files of save "
                "do not contain. Call fit, or store the detector with pickle or joblib."
            )
        joined = before.join(_as_sample(data, before.seed))
        schema = data.read.schema
        moments = joined.new_moments.without(schema.is_category[: len(schema.modelled)])
        for message in about_distance(before.moments, moments, schema.column_label):
            warn(*message)
        is_due = joined.seen.weight >= before.due
        seen = joined.seen.passed(0.0, is_due)
        assert seen.sample is not None
        read = data.read._replace(rows=seen.sample.rows)
        data = replace(data, read=read, weight=seen.sample_weight)
        if previous is None or is_due:
            return self._fit_rows(data, seen, training, is_stream=True)
        rows = self._split(data, seen.seed, is_stream=True)[0]
        anomaly = previous.anomaly_scores(rows, previous.score)
        offset = self._threshold(anomaly, rows.share, previous.has_categories)
        return replace(previous, offset=offset, seen=seen)

    def _copy_autoencoder(
        self, previous: FittedTask | None, continues: bool = False
    ) -> tuple[BaseAutoencoder | None, FittedTask | None]:
        # `partial_fit` trains a new autoencoder, because the robust units of the columns follow the
        # rows.
        return super()._copy_autoencoder(None if continues else previous)

    def _fit_rows(
        self, data: TrainingRows, seen: Seen, training: Training, is_stream: bool = False
    ) -> FittedDetector:
        """Fit a model to validated rows. In a stream, there may still be few of them."""
        train, calibration = self._split(data, seen.seed, is_stream)
        model = self._make_model(data, train)
        if self._trains_autoencoder():
            model.autoencoder.set_params(trim=self.trim, random_state=seen.seed)
            with training(model.autoencoder):
                model.fit_autoencoder(train)
        criterion = self._fit_criterion(model, train)
        calibrated = self._calibrate(model, criterion["score"], calibration)
        if self.calibration_fraction > 0 and not is_stream:
            _warn_about_few_rows(calibrated["at_least"])
        return FittedDetector(**vars(model), **criterion, **calibrated, seen=seen)

    def _attributes(self) -> dict[str, Any]:
        attributes = super()._attributes()
        if "_seen_" in attributes:
            # The sample consists of training rows, which files do not contain.
            attributes["_seen_"] = attributes["_seen_"].without_rows()
        return attributes

    def _split(
        self, data: TrainingRows, seed: int, is_stream: bool = False
    ) -> tuple[DistinctRows, DistinctRows]:
        """Divide the distinct rows of a table into training and calibration rows.

        In a stream, the first rows are training rows.
        """
        rows = DistinctRows.merge(data.read.rows.values, data.weight, seed)
        # The rows are sorted by their hashes, so that the first of them are a random sample. If all
        # would be held out, none is.
        count = round(self.calibration_fraction * len(rows)) % len(rows)
        if is_stream:
            count = min(count, max(0, len(rows) - 2))
        calibration, train = rows.take(slice(count)), rows.take(slice(count, None))
        if len(calibration) and len(train) < 2:
            raise ValueError(
                f"calibration_fraction={self.calibration_fraction} leaves fewer than 2 rows for "
                "training. Lower calibration_fraction or pass more rows."
            )
        return train, calibration

    def _make_model(self, data: TrainingRows, train: DistinctRows) -> ScaledAutoencoder:
        """Combine the autoencoder, which may not be fitted yet, with the units of its rows."""
        d = train.n_columns
        autoencoder = data.autoencoder or _default_autoencoder(len(train), d)
        schema = data.read.schema
        epsilon = float(np.finfo(train.table.dtype).eps)
        is_number = ~schema.is_category & ~schema.has_likelihood("")
        units = Units.from_rows(train, train.share, epsilon, is_number)
        # The cells of other likelihoods must stay in their range.
        inputs = ScaledAutoencoder.choose_inputs(
            data, lambda: units.only(schema.has_likelihood(NUMBERS))
        )
        return ScaledAutoencoder(autoencoder, schema, inputs=inputs, units=units)

    def _fit_criterion(self, model: ScaledAutoencoder, train: DistinctRows) -> dict[str, Any]:
        """Fit the outlier criterion and the threshold to the training rows.

        The arguments are the trained autoencoder and the distinct training rows. Returns fields of
        the fitted model.
        """
        sample = train.take(select_by_hash(train.hashes, STATISTICS_ROWS))
        outputs, share = model.stored_outputs(sample), sample.share
        floor = VARIANCE_FLOOR + outputs.least_variance
        center, scale = robust_center_scale(outputs.residual, share, self.trim, floor)
        name = self.criterion
        if name == "auto" and model.schema.is_mixed:
            name = "deviance"
        elif name == "auto":
            name = "robust" if self.trim > 0 else "neighbors"
        score = SCORES[name]()
        if outputs.observed is not None and not score.knows_patterns:
            score = OfPatterns(score)
        score.fit(outputs, share, self.trim)
        anomaly = model.anomaly_scores(train, score)
        offset = self._threshold(anomaly, train.share, model.has_categories)
        return {"score": score, "offset": offset, "center": center, "scale": scale}

    def _threshold(self, anomaly: Floats, weight: Floats, is_discrete: bool) -> float:
        """Compute the threshold from the anomaly scores (n,) of rows with weights (n,).

        `is_discrete` is whether most rows may have the same score.
        """
        if self.contamination == "auto":
            low, high = weighted_percentile(anomaly, weight, np.array([25, 75]), average=True)
            limit = high + 1.5 * (high - low)
            if is_discrete:
                limit = max(limit, weighted_percentile(anomaly, weight, 90))
        else:
            percent = 100 * float(self.contamination)
            limit = -weighted_percentile(-anomaly, weight, percent, average=True)
        return -float(limit + _rounding_tolerance(limit))

    def _calibrate(
        self, model: ScaledAutoencoder, score: Score, rows: DistinctRows
    ) -> dict[str, Any]:
        """Compute the anomaly scores of calibration rows, from which p-values are computed.

        The arguments are the trained autoencoder, the fitted criterion, and the distinct rows that
        are held out. Returns fields of the fitted model.
        """
        weight = rows.share
        anomaly = model.anomaly_scores(rows, score) if len(rows) else np.zeros(0)
        order = anomaly.argsort()
        # Weights are rescaled so that they sum to Kish's effective sample size, because n rows of
        # unequal weight contain less information than n rows of equal weight.
        counts = weight[order] * weight.sum() / max((weight**2).sum(), np.finfo(float).tiny)
        at_least = 1 + np.append(counts[::-1].cumsum()[::-1], 0.0)
        return {"calibration": anomaly[order], "at_least": at_least}

    # ---------------------------------------------------------------- inference

    def score_samples(self, X: MatrixLike) -> Floats:
        """Compute the scores of rows. A lower score is more abnormal.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            The negative anomaly scores; see the parameter `criterion`. For "density", they are the
            log-densities of rows, in nats, from which the effects of missing cells are subtracted
            if `fit` received some. For the other criteria, they have no unit.

        Raises
        ------
        NotFittedError
            If the detector is not fitted.
        ValueError
            If X is invalid (infinite values, wrong shape).
        TypeError
            If X is sparse.
        """
        fitted = self._read_fitted()
        return self._scores(X, fitted)

    def _scores(self, X: MatrixLike, fitted: FittedDetector) -> Floats:
        rows = fitted.schema.read(X)
        return -fitted.anomaly_scores(Selection.all(rows.values), fitted.score)

    def decision_function(self, X: MatrixLike) -> Floats:
        """Compute `score_samples` minus `offset_`, which is negative for outliers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.

        Returns
        -------
        decision : ndarray of shape (n_samples,)
            The differences, in the unit of `score_samples`.
        """
        fitted = self._read_fitted()
        return self._scores(X, fitted) - fitted.offset

    def predict(self, X: MatrixLike) -> NDArray[np.intp]:
        """Predict which rows are inliers and which are outliers.

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
        """Compute a p-value for each row: small values indicate outliers.

        The p-value of a row estimates the probability that a normal row is at least as abnormal. It
        is the proportion of rows with at least the same anomaly score among the calibration rows
        and the row itself.

        If rows with a p-value of at most 0.05 are called outliers, at most 5 % of normal rows are
        false alarms, on average over the draw of calibration rows. Other thresholds work in the
        same way. This holds for any autoencoder, if normal rows have the same distribution as the
        calibration rows and all rows have equal weights. Outliers among the calibration rows make
        false alarms rarer. Equal rows are either all held out or all used for training. If one row
        makes up much of the table, the calibration rows therefore may not represent the table.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units. They must not be rows that `fit` received, for which the
            p-values are not valid.

        Returns
        -------
        p : ndarray of shape (n_samples,)
            Probabilities between ``1 / (n_calibration_rows_ + 1)`` and 1. If calibration rows have
            unequal weights, the lower bound uses their effective number instead, the squared sum of
            the weights divided by the sum of their squares. It is smaller than their number.

        Raises
        ------
        NotFittedError
            If the detector is not fitted.
        ValueError
            If `fit` held out no calibration rows, which happens if `calibration_fraction` is 0 or
            rounds to none or to all of the distinct rows. If X is invalid (infinite values, wrong
            shape).
        TypeError
            If X is sparse.

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
        fitted = self._read_fitted()
        if not len(fitted.calibration):
            raise ValueError(
                "p_values requires calibration rows, but fit held out none. Set "
                "calibration_fraction, for example to 0.3, or pass more rows, and fit again."
            )
        _warn_about_few_rows(fitted.at_least)
        anomaly = -self._scores(X, fitted)
        place = np.searchsorted(fitted.calibration, anomaly - _rounding_tolerance(anomaly))
        return fitted.at_least[place] / fitted.at_least[0]

    def explain(self, X: MatrixLike) -> pd.DataFrame | dict[str, Any]:
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
        explanation : DataFrame of shape (n_samples, 3 * n_features) or dict of data frames
            Three tables side by side, in a pandas DataFrame whose columns have an additional level.
            If `X` is a data frame of another library, such as polars, they are the values of a dict
            and data frames of this library. Each table has the columns of `X`. If `X` is not a data
            frame, they have the names that `fit` received, or "x0", "x1" and so on:

            - `explanation["deviation"]`: cells minus their expected values, divided by a robust
              standard deviation of these differences in the training rows. It has no unit. In a
              column that is constant in the training rows, it is 0 for the constant and has a
              magnitude of about 1e101 for any other value. For a category, it is the residual that
              the notes of the class describe, divided in the same way. It is NaN for missing cells.
            - `explanation["expected"]`: the expected values in the user's units. For a category, it
              is the most probable one. If there are categories or dates, the columns have the
              dtypes of the table that `fit` received.
            - `explanation["share"]`: the contribution of each cell divided by the sum of the
              contributions of its row; 0 for missing cells. For the criterion "robust", which
              "auto" selects for tables of numbers unless `trim=0`, the contribution is
              ``log(1 + deviation**2 / 10)``. This is proportional to the negative log-likelihood of
              Student's t distribution with 10 degrees of freedom, without its constant. For the
              other criteria, the contribution is ``deviation**2``.

        Raises
        ------
        NotFittedError
            If the detector is not fitted.
        ValueError
            If X is invalid (infinite values, wrong shape).
        TypeError
            If X is sparse.
        """
        fitted = self._read_fitted()
        schema, rows = fitted.schema, fitted.schema.read(X)
        tables = fitted.explain(Selection.all(rows.values))
        titles = ("deviation", "expected", "share")
        if schema.holds_numbers and not (schema.is_mixed or schema.conditions):
            return tables_like(X, titles, tables, fitted.feature_names_in)
        d = rows.n_modelled
        deviation, share = (schema.arrange(tables[:, i, :d]) for i in (0, 2))
        expected = schema.write(tables[:, 1, :d], rows.conditions, index_of(X))
        return frames_like(X, titles, (deviation, expected, share), fitted.feature_names_in)


def _as_sample(data: TrainingRows, seed: int) -> Sample:
    """Return the rows of positive weight."""
    return Sample.hashed(data.read.rows, data.weight, None, None, seed)


def _default_autoencoder(n: int, n_features: int) -> Autoencoder:
    """Return the default autoencoder for `n` distinct training rows.

    It has few components and is trained for few steps, with half of the cells masked.
    """
    batch_size = n if n <= FULL_BATCH_ROWS else BATCH_SIZE
    return Autoencoder(
        max(1, round(n_features**0.5 / 2)),
        hidden_layer_sizes=(64, 32),
        activation="tanh",
        linear_skip=False,
        corruption="masking",
        corruption_level=0.5,
        weight_decay=100.0,
        learning_rate=3e-3,
        max_epochs=ceil(N_STEPS * batch_size / n),
        batch_size=batch_size,
        early_stopping=False,
    )


def _rounding_tolerance(values: Any) -> Any:
    """Return the largest difference between anomaly scores that rounding errors may cause.

    The score of a row can differ slightly between calls, because it depends on the block of rows
    in which it is computed.
    """
    return 2e-6 * (1 + np.abs(values))


def _warn_about_few_rows(at_least: Floats) -> None:
    """Warn if no p-value can reach 0.05. The argument is the `at_least` of the fitted model."""
    n = at_least[0] - 1
    if round(n, 6) < MIN_CALIBRATION_ROWS:
        warn(
            f"Only {n:.3g} calibration rows were held out, so that no p-value can be below "
            f"{1 / (n + 1):.3g}. Increase calibration_fraction or pass more rows.",
            UserWarning,
        )
