"""Regressor on codes that are trained to serve both rows and targets."""

from dataclasses import dataclass
from typing import ClassVar, Self

from sklearn.base import MultiOutputMixin, RegressorMixin
from sklearn.utils import column_or_1d

from skae._compat.sklearn import fit_context
from skae.base import Floats, MatrixLike
from skae.table.targets import Targets, column_names, read_numbers
from skae.tasks.supervised import (
    FittedSupervised,
    ReadTargets,
    SupervisedMetaEstimator,
    names_in_stream,
)
from skae.training.heads import Family, Numbers


@dataclass(frozen=True)
class FittedRegressor(FittedSupervised):
    """Fitted model of a regressor.

    Attributes
    ----------
    is_vector : bool
        Whether `fit` received a vector of targets.
    """

    is_vector: bool


class AutoencoderRegressor(RegressorMixin, MultiOutputMixin, SupervisedMetaEstimator):
    """Regressor on the codes of an autoencoder that is trained on both rows and targets.

    The autoencoder is trained to reconstruct each row from its code and to predict the targets of
    the row from the same code by a linear map. A target of NaN is missing. Rows without a target
    are reconstructed, too, so that they also shape the codes. If only a few rows have a target, the
    targets of the others are estimated from them and from similar rows. After training, the linear
    map is refitted: it is a ridge regression on codes. `add_label` adds targets after fitting.

    With a linear autoencoder, the codes have the same purpose as those of partial least squares: a
    few linear components describe both rows and targets. The objective is different.

    See Also
    --------
    sklearn.cross_decomposition.PLSRegression : Linear codes for rows and targets.
    sklearn.neural_network.MLPRegressor : Neural network that is trained on targets alone.

    Notes
    -----
    Most users set only `autoencoder` (for its size or architecture, or a pre-trained one),
    `label_weight` (to weight targets against reconstruction), `fine_tune` (False to keep a
    pre-trained autoencoder unchanged) and `random_state`.

    The training objective is a weighted sum of two losses in nats per row. The objective of the
    autoencoder has the weight `reconstruction_weight`. The loss of the targets has the weight
    `label_weight`. It is half the squared error of each observed target, divided by the variance of
    the target, and summed over the targets of a row.

    The refitted map is that of `sklearn.linear_model.Ridge` with ``alpha=1``, after two changes of
    units: each target is divided by its standard deviation, and the codes are divided by a common
    scale, so that the mean variance of their components is 1.

    If a target is known in at most 30 % of the rows, its other values are estimated as in
    :class:`AutoencoderClassifier`, with a ridge regression instead of a logistic regression. The
    weight of an estimate is the share of the variance of held-out values that estimates explain.
    All estimates of a target together weigh at most as much as its known values. The columns are
    scaled as there.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from skae import AutoencoderRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> regressor = AutoencoderRegressor(random_state=0).fit(X[:300], y[:300])
    >>> bool(regressor.score(X[300:], y[300:]) > 0.4)
    True
    """

    _fitted_class: ClassVar = FittedRegressor

    def _read_targets(self, y: MatrixLike, weight: Floats) -> ReadTargets:
        targets = Numbers.targets(read_numbers(y), weight)
        outputs = self._output_names(column_names(y)) | {"is_vector": y.ndim == 1}
        return Numbers(), targets, outputs

    def _read_stream(
        self,
        y: MatrixLike,
        weight: Floats,
        previous: FittedRegressor | None,
        classes: MatrixLike | None,
    ) -> ReadTargets:
        if previous is None:
            return self._read_targets(y, weight)
        outputs = self._output_names(names_in_stream(y, previous))
        targets = Numbers.targets(read_numbers(y, False), weight)
        return Numbers(), targets, outputs | {"is_vector": previous.is_vector}

    @fit_context(prefer_skip_nested_validation=False)
    def partial_fit(
        self, X: MatrixLike, y: MatrixLike, sample_weight: MatrixLike | None = None
    ) -> Self:
        """Train on new rows, beside a sample of the rows seen before.

        Training continues from the last call of `fit` or `partial_fit`; the `partial_fit` of the
        autoencoder has the details. Rows with a known target fill at least half of the sample if
        there are so many of them. Each call refits the linear map to the sample and the new rows,
        and standardizes the targets by the mean and the standard deviation of all targets seen.
        After `skae.load`, the map stays as it is until the new targets are as many as those before.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            New rows in the user's units.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Targets of the rows, as in `fit`.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of rows. None gives all rows a weight of 1.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            As in `fit`, if `y` has other columns than in the first call, if `fine_tune=False`, also
            in an earlier fit, or if `add_label` has added outputs.
        TypeError
            As in `fit`.
        """
        return self._fit(X, y, sample_weight, "_stream_model")

    def _read_added_label(self, y: MatrixLike, weight: Floats) -> tuple[Family, Targets]:
        return Numbers(), Numbers.targets(read_numbers(column_or_1d(y, warn=True)), weight)

    def predict(self, X: MatrixLike) -> Floats:
        """Predict the targets of rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_targets)
            Predicted targets, in the units of the targets passed to `fit`. The shape is
            (n_samples,) if `fit` received a vector and `add_label` has not added a target.
        """
        fitted = self._read_fitted()
        out = self._outputs(X, fitted)
        return out[:, 0] if fitted.is_vector and out.shape[1] == 1 else out

    def score(self, X: MatrixLike, y: MatrixLike, sample_weight: MatrixLike | None = None) -> float:
        """Compute the coefficient of determination R2 of the predictions.

        R2 is 1 for perfect predictions, 0 for predictions that are always the mean of `y`, and
        negative for predictions that are worse than this mean.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            True targets of the rows, none of which may be missing.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of rows. None gives all rows a weight of 1.

        Returns
        -------
        score : float
            The mean of R2 over targets, at most 1.

        Raises
        ------
        ValueError
            If X is invalid, or if y contains NaN or has the wrong shape.
        """
        return super().score(X, y, sample_weight)
