"""Classifier and regressor on codes that are trained for both the rows and their targets."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from math import ceil
from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from sklearn.base import (
    ClassNamePrefixFeaturesOutMixin,
    MultiOutputMixin,
    RegressorMixin,
    TransformerMixin,
    clone,
)
from sklearn.utils import Tags, get_tags
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skae._compat.sklearn import Interval, StrOptions, fit_context
from skae.base import Floats, MatrixLike
from skae.fitting import draw_seed, read_weight
from skae.table.targets import (
    ProbabilisticClassifier,
    Targets,
    column_names,
    n_columns,
    read_binary_label,
    read_multiclass,
    read_multilabel,
    read_numbers,
    targets_of_positive_weight,
)
from skae.tasks.meta_estimator import AutoencoderMetaEstimator
from skae.training.heads import Classes, Family, Head, Labels, Numbers, fit_linear_map
from skae.variants.autoencoder import Autoencoder

MIN_EPOCHS, MIN_STEPS = 20, 200
"""Minimum numbers of epochs and of optimizer steps of the default autoencoder."""

DENSITY_ROWS = 256
"""Maximum number of rows from which the density is estimated.

Few rows are enough, because predictions do not use the density.
"""

FLOAT32_RANGE = (1e-3, 1e3)
"""Range of the magnitude of cells in which float32 is as good as float64.

The lower limit applies to the largest standard deviation of a column. The upper limit applies to
cells, and to the ratio of a column's mean to its standard deviation.
"""

BATCH_SIZE = 128
"""Rows per batch of the default autoencoder, where a table is not trained as a single batch."""

FULL_BATCH_ROWS = 256
"""Number of rows up to which the default autoencoder trains on the full batch."""


class _Supervised(ClassNamePrefixFeaturesOutMixin, TransformerMixin, AutoencoderMetaEstimator, ABC):
    """Base class of supervised meta-estimators on the codes of an autoencoder.

    Parameters
    ----------
    autoencoder : autoencoder of skae, FrozenEstimator or None, default=None
        The autoencoder to train. A clone of it is trained, with `random_state` set by this
        estimator. None uses a denoising `Autoencoder` whose number of components is twice the
        square root of the number of columns, rounded. It is trained on all rows with 30 % of the
        cells masked, for 20 epochs or 200 steps, whichever is longer. It uses float32 if there are
        more than 256 rows of a magnitude for which this loses no accuracy. A fitted autoencoder in
        `sklearn.frozen.FrozenEstimator` is pre-trained: training starts from a copy of it, and the
        original stays unchanged.

    label_weight : float, default=10.0
        Weight of the targets' loss relative to the reconstruction loss, both in nats. It must be
        positive. Large values shape the codes for the targets, small values for the rows. The
        default lies in the middle of the range from 1 to 100, in which predictions rarely differ
        much, because the linear map is refitted to the final codes.

    reconstruction_weight : float, default=1.0
        Weight of the autoencoder's own objective, at least 0. With 0, the targets alone train an
        ordinary network, and rows without targets have no effect. The default is the objective
        without rescaling.

    fine_tune : bool, default=True
        Whether the targets train the encoder. If False, the autoencoder is trained without
        targets, or used without further training if it is a FrozenEstimator. The default is True
        because codes that are trained without targets may lose what predicts them.

    random_state : int, RandomState instance or None, default=None
        Seed of the training. Pass an int for reproducible results.

    Attributes
    ----------
    autoencoder_ : autoencoder
        The trained autoencoder.

    n_components_ : int
        Number of components of the codes.

    label_names_ : list of str
        Names of the outputs: the columns of `y` if it was a DataFrame, otherwise "y0", "y1" and so
        on, then those added by `add_label`. A classifier has this attribute only if `y` has
        several columns.

    n_features_in_ : int
        Number of columns seen during `fit`.

    feature_names_in_ : ndarray of shape (n_features,)
        Names of columns seen during `fit`. Defined only if all names are strings.
    """

    label_weight: float = 10.0
    reconstruction_weight: float = 1.0
    fine_tune: bool = True
    random_state: int | RandomState | None = None

    _parameter_constraints: ClassVar = {
        "label_weight": [Interval(Real, 0, None, closed="neither")],
        "reconstruction_weight": [Interval(Real, 0, None, closed="left")],
        "fine_tune": ["boolean"],
        "random_state": ["random_state"],
    }

    _validation_options: ClassVar = {"may_miss": True, "dtype": [np.float64, np.float32]}

    @abstractmethod
    def _read_targets(self, y: MatrixLike, weight: Floats) -> tuple[Family, Targets]:
        """Read the targets of `fit`, and set the attributes that predictions need."""

    @abstractmethod
    def _read_added_label(self, y: MatrixLike, weight: Floats) -> tuple[Family, Targets]:
        """Read the target of `add_label`."""

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: MatrixLike, y: MatrixLike, sample_weight: MatrixLike | None = None) -> Self:
        """Train the autoencoder on rows and targets, then fit the linear map from its codes.

        A fit that fails or is interrupted leaves an earlier fit unchanged.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows in the user's units.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Targets. A missing target contributes no loss, but its row still trains the
            autoencoder.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of rows. A weight of 2 is equivalent to repeating a row, 0 to leaving it out.
            None gives all rows a weight of 1.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If X or y is invalid, or if training diverges.
        TypeError
            If X is sparse, or if `autoencoder` itself requires targets.
        NotFittedError
            If `autoencoder` is a FrozenEstimator of an unfitted autoencoder.
        """
        new = type(self)(**self.get_params(deep=False))
        new._fit(X, y, sample_weight)
        self._adopt(new)
        return self

    def _fit(self, X: MatrixLike, y: MatrixLike, sample_weight: MatrixLike | None) -> None:
        pretrained, X, weight = self._read_training_rows(X, sample_weight)
        X, (y, weight) = X[weight > 0], targets_of_positive_weight(y, weight, self)
        family, targets = self._read_targets(y, weight)
        new = pretrained or clone(self.autoencoder or _default_autoencoder(X))
        if get_tags(new).target_tags.required:
            raise TypeError(f"autoencoder must not require y, got the classifier {new!r}.")
        self.autoencoder_ = new.set_params(random_state=draw_seed(self.random_state))
        if self.fine_tune:
            head = Head(family, self.label_weight, self.reconstruction_weight)
            with_loss = replace(targets, loss=head, density_rows=DENSITY_ROWS)
            new._fit_targets(X, with_loss, weight, resume=pretrained is not None)
        elif pretrained is None:
            new.fit(X, sample_weight=weight)
        self._maps_ = [*fit_linear_map(family, self._encode(X).astype(np.float64), targets, weight)]
        self.n_components_ = new.n_components_
        self._n_features_out = new._n_features_out

    def add_label(
        self,
        X: MatrixLike,
        y: MatrixLike,
        name: str | None = None,
        sample_weight: MatrixLike | None = None,
    ) -> Self:
        """Add an output that is predicted from the existing codes.

        The autoencoder and the other outputs stay unchanged, bit for bit. The linear map from
        codes to the new target is the solution of a convex problem.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units. They need not be the rows that `fit` received.
        y : array-like of shape (n_samples,)
            Targets of the rows: 0 or 1 for a classifier, numbers for a regressor. A missing target
            is NaN; in a classifier's y that contains both 0 and 1, -1 is missing, too.
        name : str, default=None
            Name of the output in `label_names_`. None uses "y" followed by the first number, from
            the number of outputs on, that gives a new name.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of rows. None gives all rows a weight of 1.

        Returns
        -------
        self : object
            The estimator, whose predictions have one column more. Those of a regressor fitted to
            a single target become a matrix of two columns.

        Raises
        ------
        ValueError
            If X or y is invalid, if `name` already exists, or if a classifier was fitted to a y of
            a single column.
        """
        check_is_fitted(self)
        if not hasattr(self, "label_names_"):
            raise ValueError(
                "add_label requires a multilabel classifier, but this classifier was fitted to a "
                "y of a single column. Fit it to a y of several columns of 0 and 1, or fit another "
                "classifier."
            )
        X = self._read_rows(X)
        weight = read_weight(sample_weight, X)
        X, (y, weight) = X[weight > 0], targets_of_positive_weight(y, weight, self)
        names = self.label_names_
        if name is None:
            name = next(n for n in (f"y{j}" for j in count(len(names))) if n not in names)
        if not isinstance(name, str) or name in names:
            raise ValueError(f"name must be a string that is not in {names}, got {name!r}.")
        family, targets = self._read_added_label(y, weight)
        added = fit_linear_map(family, self._encode(X).astype(np.float64), targets, weight)
        self.__dict__.update(_maps_=[*self._maps_, *added], **self._output_names([*names, name]))
        return self

    def _output_names(self, names: list[str]) -> dict[str, Any]:
        """Return the fitted attributes that depend on the names of the outputs."""
        return {"label_names_": names}

    def transform(self, X: MatrixLike) -> Floats:
        """Compute the codes of rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_components)
            Codes, in the dtype of `X`.
        """
        return self._encode(self._read_rows(X))

    def _encode(self, X: Floats) -> Floats:
        return np.asarray(self.autoencoder_.transform(X))

    def _outputs(self, X: MatrixLike, link: Callable[[Tensor], Tensor] = torch.positive) -> Floats:
        """Apply the linear maps and a link function to the codes of rows."""
        codes = torch.from_numpy(self._encode(self._read_rows(X)).astype(np.float64, copy=False))
        # Maps are applied one at a time: in a joint product, outputs would differ in the last bit
        # from those before `add_label`.
        maps = [torch.from_numpy(part) for part in self._maps_]
        pairs = zip(maps[::2], maps[1::2], strict=True)
        return np.hstack([link(codes @ coef + intercept).numpy() for coef, intercept in pairs])

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


class AutoencoderClassifier(ProbabilisticClassifier, _Supervised):
    """Classifier on the codes of an autoencoder that is trained on both rows and labels.

    A code is trained to reconstruct its row and, by a linear map, to predict its class. Rows
    without a class shape the codes, too. Several labels can be predicted from the same code
    (multilabel classification), and `add_label` adds more after fitting. After training, the
    linear map is refitted: it is a logistic regression on codes.

    Classes are numbers or strings. As in scikit-learn's semi-supervised estimators, a class of -1
    marks an unlabeled row if at least two other classes occur. `score` counts such rows as wrong.
    A `y` of several columns holds labels: 0, 1, or NaN where a label is missing.

    Parameters
    ----------
    class_weight : dict, list of dict, "balanced" or None, default=None
        Weights of classes, as in `sklearn.linear_model.LogisticRegression`. For multilabel
        targets, "balanced" and a dict with the weights of 0 and 1 apply to every label, and a list
        has one dict for each label. "balanced" is computed from the observed labels. Labels added
        by `add_label` do not use a list. The default weights all classes equally.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The sorted classes. For multilabel targets, the indices of the labels.

    See Also
    --------
    SemiSupervisedVariationalAutoencoder : Classifier whose generative model also learns the
        classes of rows without a label.
    sklearn.neural_network.MLPClassifier : Neural network that is trained on labels alone.
    sklearn.semi_supervised.SelfTrainingClassifier : Classifier that labels rows by its own
        predictions.

    Notes
    -----
    Most users set only `autoencoder` (for its size or architecture, or a pre-trained one),
    `label_weight` (to weight labels against reconstruction), `class_weight` (for unbalanced
    classes) and `random_state`.

    The objective is `reconstruction_weight` times the autoencoder's, in nats per row, plus
    `label_weight` times the cross-entropy of observed labels [1]_, summed over labels if there are
    several. Both terms are computed from the same random code and corrupted row. Predicting several
    labels from one code is multi-task learning [2]_. Starting from a pre-trained autoencoder is
    studied in [3]_. The refitted map has a ridge penalty of 1/2, in units in which the mean
    variance of the codes' components is 1.

    Predicted probabilities are overconfident, because the codes of the training rows were shaped
    by the labels of these rows. Use `sklearn.calibration.CalibratedClassifierCV` to obtain
    calibrated probabilities for new rows.

    References
    ----------
    .. [1] A. Rasmus, H. Valpola, M. Honkala, M. Berglund and T. Raiko, "Semi-supervised learning
       with ladder networks", NeurIPS 2015.
    .. [2] R. Caruana, "Multitask learning", Machine Learning 28, 1997.
    .. [3] D. Erhan et al., "Why does unsupervised pre-training help deep learning?", JMLR 11, 2010.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoencoderClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> y_partial = y.copy()
    >>> y_partial[100:] = -1
    >>> classifier = AutoencoderClassifier(random_state=0).fit(X, y_partial)
    >>> bool(classifier.score(X[100:], y[100:]) > 0.8)
    True
    >>> classifier.transform(X).shape
    (1797, 16)
    """

    class_weight: dict[Any, float] | list[dict[Any, float]] | str | None = None

    _parameter_constraints: ClassVar = {
        "class_weight": [dict, list, StrOptions({"balanced"}), None],
    }

    def _read_targets(self, y: MatrixLike, weight: Floats) -> tuple[Family, Targets]:
        if n_columns(y) > 1:
            self.__dict__.update(self._output_names(column_names(y)))
            return Labels(), read_multilabel(y, self.class_weight, weight)
        self.classes_, targets = read_multiclass(y, self.class_weight, weight)
        if len(self.classes_) > 2:
            return Classes(), targets
        return Labels(), replace(targets, values=targets.values[:, 1:])

    def _output_names(self, names: list[str]) -> dict[str, Any]:
        return {"label_names_": names, "classes_": np.arange(len(names))}

    def _read_added_label(self, y: MatrixLike, weight: Floats) -> tuple[Family, Targets]:
        class_weight = None if isinstance(self.class_weight, list) else self.class_weight
        return Labels(), read_multilabel(read_binary_label(y), class_weight, weight)

    def decision_function(self, X: MatrixLike) -> Floats:
        """Compute the scores from which the probabilities of classes or labels are computed.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.

        Returns
        -------
        scores : ndarray of shape (n_samples,), (n_samples, n_classes) or (n_samples, n_labels)
            For two classes, the log-odds of `classes_[1]`, of shape (n_samples,). For more classes,
            the logits of the classes in the order of `classes_`; their softmax is `predict_proba`.
            For multilabel targets, the log-odds that each label is 1, in the order of
            `label_names_`.
        """
        out = self._outputs(X)
        return out[:, 0] if out.shape[1] == 1 else out

    def predict_proba(self, X: MatrixLike) -> Floats:
        """Compute the probabilities of classes or labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes) or (n_samples, n_labels)
            Probabilities of the classes, in the order of `classes_`. For multilabel targets, the
            probability that each label is 1.
        """
        check_is_fitted(self)
        if hasattr(self, "label_names_"):
            return self._outputs(X, torch.sigmoid)
        if len(self.classes_) == 2:
            return self._outputs(X, lambda out: torch.cat([-out, out], 1).sigmoid())
        return self._outputs(X, lambda out: out.softmax(1))

    def predict(self, X: MatrixLike) -> NDArray[Any]:
        """Predict the most likely class of each row, or the labels with a probability above 0.5.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_labels)
            Predicted classes, or labels of 0 and 1.
        """
        if hasattr(self, "label_names_"):
            return (self.predict_proba(X) > 0.5).astype(np.int64)
        return super().predict(X)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class AutoencoderRegressor(RegressorMixin, MultiOutputMixin, _Supervised):
    """Regressor on the codes of an autoencoder that is trained on both rows and targets.

    A code is trained to reconstruct its row and, by a linear map, to predict its targets. Rows
    without a target shape the codes, too. Several targets can be predicted from the same code, and
    `add_label` adds more after fitting. After training, the linear map is refitted: it is a ridge
    regression on codes. With a linear autoencoder, the aim is that of partial least squares, a
    low-rank map that serves both rows and targets, but the objective differs.

    A target of NaN is missing.

    See Also
    --------
    sklearn.cross_decomposition.PLSRegression : Linear codes for rows and targets.
    sklearn.neural_network.MLPRegressor : Neural network that is trained on targets alone.

    Notes
    -----
    Most users set only `autoencoder` (for its size or architecture, or a pre-trained one),
    `label_weight` (to weight targets against reconstruction), `fine_tune` (False to keep a
    pre-trained autoencoder unchanged) and `random_state`.

    The objective is `reconstruction_weight` times the autoencoder's, in nats per row, plus
    `label_weight` times half the squared error of observed targets, in units of their standard
    deviations and summed over targets. The refitted map has a ridge penalty of 1, in these units
    and in units in which the mean variance of the codes' components is 1.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from skae import AutoencoderRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> regressor = AutoencoderRegressor(random_state=0).fit(X[:300], y[:300])
    >>> bool(regressor.score(X[300:], y[300:]) > 0.4)
    True
    """

    def _read_targets(self, y: MatrixLike, weight: Floats) -> tuple[Family, Targets]:
        self.__dict__.update(self._output_names(column_names(y)), _is_vector_=y.ndim == 1)
        return self._read_added_label(y, weight)

    def _read_added_label(self, y: MatrixLike, weight: Floats) -> tuple[Family, Targets]:
        return Numbers.standardize(read_numbers(y), weight)

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
        out = self._outputs(X)
        return out[:, 0] if self._is_vector_ and out.shape[1] == 1 else out

    def score(self, X: MatrixLike, y: MatrixLike, sample_weight: MatrixLike | None = None) -> float:
        """Compute the coefficient of determination R2 of the predictions.

        R2 is 1 for perfect predictions and 0 for predicting the mean of `y`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            True targets of the rows.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of rows. None gives all rows a weight of 1.

        Returns
        -------
        score : float
            R2, averaged over targets.
        """
        return super().score(X, y, sample_weight)


def _default_autoencoder(X: Floats) -> Autoencoder:
    """Return the default autoencoder, which is trained with 30 % of the cells masked."""
    n, n_features = X.shape
    is_small = n <= FULL_BATCH_ROWS
    batch_size = n if is_small else BATCH_SIZE
    return Autoencoder(
        round(2 * n_features**0.5),
        linear_skip=False,
        corruption="masking",
        corruption_level=0.3,
        learning_rate=5e-3,
        max_epochs=max(MIN_EPOCHS, ceil(MIN_STEPS * batch_size / n)),
        batch_size=batch_size,
        early_stopping=False,
        # float32 halves the time of training.
        precision="auto" if is_small or not _suits_float32(X) else "float32",
    )


def _suits_float32(X: Floats) -> bool:
    """Return whether float32 can represent the differences between rows of a table."""
    deviation = X.std(axis=0)
    is_near = np.abs(X.mean(axis=0)) <= FLOAT32_RANGE[1] * deviation
    return bool(
        is_near.all() and deviation.max() > FLOAT32_RANGE[0] and np.abs(X).max() < FLOAT32_RANGE[1]
    )
