"""Classifier and regressor on codes that are trained to serve both rows and targets."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
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
)
from sklearn.utils import Tags, column_or_1d, get_tags
from torch import Tensor

from skae._compat.sklearn import Interval, StrOptions, fit_context
from skae.base import BaseAutoencoder, Floats, MatrixLike
from skae.files import check_numbers
from skae.fitting.prepare import draw_seed
from skae.parameters import short_repr
from skae.state import FittedAttribute
from skae.table.rows import hash_rows, merge_equal_rows
from skae.table.targets import (
    ProbabilisticClassifier,
    Targets,
    check_same_classes,
    column_names,
    n_columns,
    read_binary_label,
    read_multiclass,
    read_multilabel,
    read_numbers,
    targets_of_positive_weight,
)
from skae.table.weights import read_weight
from skae.tasks.meta_estimator import AutoencoderMetaEstimator, FittedTask, Training
from skae.training.budget import FULL_BATCH_ROWS
from skae.training.heads import Classes, Family, Head, Labels, Numbers, fit_linear_map
from skae.training.threads import one_thread
from skae.variants.autoencoder import Autoencoder

MIN_EPOCHS, MIN_STEPS = 20, 200
"""Minimum numbers of epochs and of optimizer steps of the default autoencoder."""

DENSITY_ROWS = 256
"""Maximum number of rows from which the density is estimated if the targets train the encoder.

Few rows are enough, because predictions do not use the density. With `fine_tune=False`, the
autoencoder estimates the density from its usual number of rows.
"""

MAX_RELATIVE_MEAN = 1e3
"""Largest absolute mean of a column, divided by its standard deviation, for which float32
represents the differences between rows accurately enough."""

FLOAT32_RANGE = (1e-12, 1e12)
"""Range of the magnitude of cells whose squares float32 represents without loss.

The lower limit applies to the largest of the columns' standard deviations. The upper limit applies
to the absolute value of each cell.
"""

BATCH_SIZE = 128
"""Rows per batch of the default autoencoder for tables of more than `FULL_BATCH_ROWS` rows."""


@dataclass(frozen=True)
class FittedSupervised(FittedTask):
    """Fitted model of a supervised meta-estimator.

    Attributes
    ----------
    maps : list of ndarray
        Coefficients (n_components, n_outputs) and intercepts (n_outputs,) of one linear map after
        the other. The map of `fit` is the first.
    label_names : list of str or None
        Names of the outputs. None for a classifier of a single column of classes.
    """

    maps: list[Floats]
    label_names: list[str] | None

    def _check_state(self) -> None:
        super()._check_state()
        k = self.autoencoder.n_components_
        for coef, intercept in zip(self.maps[::2], self.maps[1::2], strict=True):
            check_numbers(intercept, intercept.shape[:1], "the intercepts of a map")
            check_numbers(coef, (k, len(intercept)), "the coefficients of a map")
        if any(part.dtype != np.float64 for part in self.maps):
            raise ValueError("the coefficients and intercepts of maps must be in float64")
        n_outputs = sum(map(len, self.maps[1::2]))
        if not n_outputs or n_outputs != self._n_outputs():
            raise ValueError(f"the maps have {n_outputs} outputs instead of {self._n_outputs()}")

    def _n_outputs(self) -> int:
        """Return the number of columns of all maps together."""
        return len(self.label_names or [])

    @property
    def outputs(self) -> list[Any] | None:
        """The names of the outputs, or the classes if the targets are a column of classes."""
        return self.label_names

    def encode(self, X: Floats) -> Floats:
        """Compute the codes of validated rows."""
        return np.asarray(self.autoencoder.transform(X))


@dataclass(frozen=True)
class FittedClassifier(FittedSupervised):
    """Fitted model of a classifier.

    Attributes
    ----------
    classes : ndarray of shape (n_classes,)
        The sorted classes, or the column indices of the labels.
    """

    classes: NDArray[Any]

    def _check_state(self) -> None:
        super()._check_state()
        classes = self.classes
        has_known = self.label_names is None or len(classes) == len(self.label_names)
        if not has_known or classes.ndim != 1 or not np.array_equal(classes, np.unique(classes)):
            raise ValueError(f"the classes must be sorted distinct values, got {classes!r}")

    def _n_outputs(self) -> int:
        if self.label_names is not None:
            return super()._n_outputs()
        return 1 if len(self.classes) == 2 else len(self.classes)

    @property
    def outputs(self) -> list[Any] | None:
        return self.classes.tolist() if self.label_names is None else self.label_names


@dataclass(frozen=True)
class FittedRegressor(FittedSupervised):
    """Fitted model of a regressor.

    Attributes
    ----------
    is_vector : bool
        Whether `fit` received a vector of targets.
    units : list of ndarray or None
        Means and standard deviations (n_targets,) by which the first call standardized the targets.
        None for models from files of earlier versions.
    """

    is_vector: bool
    units: list[Floats] | None = None


ReadTargets = tuple[Family, Targets, dict[str, Any]]
"""Family of the targets of `fit`, the targets, and fields of the fitted model."""


class _Supervised(ClassNamePrefixFeaturesOutMixin, TransformerMixin, AutoencoderMetaEstimator, ABC):
    """Base class of supervised meta-estimators on the codes of an autoencoder.

    Parameters
    ----------
    autoencoder : autoencoder of skae, FrozenEstimator or None, default=None
        The autoencoder to train. It must not require `y` itself.

        - An unfitted autoencoder is cloned, and the clone is trained with a seed drawn from the
          `random_state` of this estimator. If its `warm_start` is True, training resumes from the
          autoencoder of the previous `fit`, whose columns and classes or targets must be the same.
        - A fitted autoencoder in `sklearn.frozen.FrozenEstimator` is pre-trained. It is copied,
          and training starts from the copy. With `fine_tune=False`, the copy is used without
          further training. The original stays unchanged, and its `warm_start` has no effect.
        - None uses a denoising `Autoencoder` whose number of components is twice the square root of
          the number of columns, rounded. It is trained on all rows with 30 % of the cells masked,
          for 20 epochs or about 200 steps, whichever is longer. Its `precision` is "float32" for
          more than 256 distinct rows, unless a column has a mean that exceeds 1,000 times its
          standard deviation or cells are extremely large or small, and "auto" otherwise.

    label_weight : float, default=10.0
        Weight of the targets' loss in the objective. It must be positive. Large values shape the
        codes for the targets, and small values shape them for the rows. The default lies in the
        middle of the range from 1 to 100, in which predictions rarely differ much, because the
        linear map is refitted to the final codes. It has no effect with `fine_tune=False`.

    reconstruction_weight : float, default=1.0
        Weight of the autoencoder's own objective, at least 0. With 0, the encoder is trained by the
        targets alone, as an ordinary neural network is. Rows without targets then add nothing to
        the objective, although the columns are still scaled by all rows. The default leaves the
        autoencoder's objective unchanged. It has no effect with `fine_tune=False`.

    fine_tune : bool, default=True
        Whether the targets train the encoder. If False, the autoencoder is trained without targets.
        If it is a FrozenEstimator, it is not trained at all. The default is True because codes that
        are trained without targets may lose the information that predicts the targets.

    random_state : int, RandomState instance or None, default=None
        Seed of the training: it determines the initial weights, the validation rows and all random
        draws. Pass an int for reproducible results.

    Attributes
    ----------
    autoencoder_ : autoencoder
        The trained autoencoder, or a copy of the pre-trained one if it was not trained further.

    n_components_ : int
        Number of components of the codes.

    label_names_ : list of str
        Names of the outputs. Those of `fit` are the column names of `y` if it was a pandas
        DataFrame, and "y0", "y1" and so on otherwise. Those of `add_label` follow. A classifier has
        this attribute only if `fit` received a `y` of several columns.

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

    n_components_ = FittedAttribute(lambda fitted: fitted.autoencoder.n_components_)
    _n_features_out = FittedAttribute(lambda fitted: fitted.autoencoder._n_features_out)
    label_names_ = FittedAttribute(lambda fitted: fitted.defined("label_names"))

    @abstractmethod
    def _read_targets(self, y: MatrixLike, weight: Floats) -> ReadTargets:
        """Read the targets of `fit`."""

    @abstractmethod
    def _read_added_label(self, y: MatrixLike, weight: Floats) -> tuple[Family, Targets]:
        """Read the target of `add_label`."""

    def _output_names(self, names: list[str]) -> dict[str, Any]:
        """Return the fields of the fitted model that depend on the names of the outputs."""
        return {"label_names": names}

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: MatrixLike, y: MatrixLike, sample_weight: MatrixLike | None = None) -> Self:
        """Train the autoencoder, and then fit the linear map from its codes to the targets.

        The targets take part in the training of the autoencoder if `fine_tune=True`. A fit that
        fails or is interrupted leaves an earlier fit unchanged.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows in the user's units.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Targets. A number or a label that is missing is NaN, and a class that is missing is -1.
            A missing target contributes no loss, but its row still trains the autoencoder.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of rows. A weight of 2 is equivalent to repeating a row, and a weight of 0 is
            equivalent to leaving it out. None gives all rows a weight of 1.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If X is invalid (NaN other than at the end of sequences, infinite values, wrong shape,
            fewer than two rows), if y is None or invalid, if `sample_weight` or a parameter is
            invalid, if training cannot resume because X has other columns or y has other classes or
            columns than in the previous fit, or if the objective becomes NaN or infinite during
            training.
        TypeError
            If X is sparse, if `autoencoder` itself requires y, or if it is a FrozenEstimator of
            another estimator than an autoencoder of skae.
        NotFittedError
            If `autoencoder` is a FrozenEstimator of an unfitted autoencoder.

        Warns
        -----
        ConvergenceWarning
            If the training of the autoencoder issues it; see the `fit` of the autoencoder.
        DataConversionWarning
            If a classifier receives a `y` of shape (n_samples, 1) instead of (n_samples,).
        """
        return self._fit(X, y, sample_weight)

    def _fit_model(
        self,
        X: MatrixLike,
        y: MatrixLike,
        sample_weight: MatrixLike | None,
        previous: FittedSupervised | None,
        training: Training,
    ) -> FittedSupervised:
        data = self._read_training_rows(X, sample_weight, previous)
        X = data.X[data.weight > 0]
        y, weight = targets_of_positive_weight(y, data.weight, self)
        family, targets, outputs = self._read_targets(y, weight)
        rows = _distinct_rows(X, targets if self.fine_tune else None)
        autoencoder = data.autoencoder or _default_autoencoder(rows)
        if get_tags(autoencoder).target_tags.required:
            raise TypeError(
                f"autoencoder must not require y, got the classifier {short_repr(autoencoder)}."
            )
        model: FittedSupervised = self._fitted_class(
            autoencoder=autoencoder, **data.columns, maps=[], **outputs
        )
        if data.resumed is not None and model.outputs != data.resumed.outputs:
            raise ValueError(
                f"y has the classes or columns {model.outputs}, but those of the previous fit are "
                f"{data.resumed.outputs}, so that training cannot resume. Set the autoencoder's "
                "warm_start=False to fit from scratch."
            )
        autoencoder.set_params(random_state=draw_seed(self.random_state))
        if self._trains_autoencoder():
            with training(autoencoder):
                self._train(autoencoder, X, family, targets, weight)
        maps = fit_linear_map(family, model.encode(X).astype(np.float64), targets, weight)
        return replace(model, maps=[*maps])

    def _stream_model(
        self,
        X: MatrixLike,
        y: MatrixLike,
        sample_weight: MatrixLike | None,
        previous: FittedSupervised | None,
        training: Training,
        classes: MatrixLike | None = None,
    ) -> FittedSupervised:
        """Continue the training of a model in one pass over new rows."""
        if not self.fine_tune:
            raise ValueError(
                "partial_fit trains the encoder, which fine_tune=False excludes. Set "
                "fine_tune=True, or use the autoencoder's own partial_fit."
            )
        if previous is not None and len(previous.maps) > 2:
            raise ValueError(
                "partial_fit would change the codes, but the labels of add_label belong to the "
                "present codes. Call partial_fit before add_label."
            )
        data = self._read_training_rows(X, sample_weight, previous, True)
        X = data.X[data.weight > 0]
        y, weight = targets_of_positive_weight(y, data.weight, self)
        family, targets, outputs = self._read_stream(y, weight, previous, classes)
        if previous is None and not targets.any_observed.any():
            raise ValueError("y of the first call must contain a known target.")
        autoencoder = data.autoencoder or _default_autoencoder(X).set_params(batch_size="auto")
        if get_tags(autoencoder).target_tags.required:
            raise TypeError(
                f"autoencoder must not require y, got the classifier {short_repr(autoencoder)}."
            )
        known = None if previous is None else (previous.maps[0], previous.maps[1])
        before = autoencoder._fitted
        autoencoder.set_params(random_state=draw_seed(self.random_state))
        head = Head(family, self.label_weight, self.reconstruction_weight, known)
        with training(autoencoder):
            with_loss = replace(targets, loss=head, density_rows=DENSITY_ROWS)
            autoencoder._partial_fit_targets(X, with_loss, weight)
        seen = autoencoder._fitted.seen
        maps = known or ()
        if before is None or not maps or seen.due != before.seen.due:
            # The sample represents all rows that were seen.
            rows, targets, weight = seen.sample.rows.values, seen.sample.targets, seen.sample.weight
            codes = np.asarray(autoencoder.transform(rows)).astype(np.float64)
            maps = fit_linear_map(family, codes, targets, weight)
        return self._fitted_class(autoencoder=autoencoder, **data.columns, maps=[*maps], **outputs)

    @abstractmethod
    def _read_stream(
        self,
        y: MatrixLike,
        weight: Floats,
        previous: Any,
        classes: MatrixLike | None,
    ) -> ReadTargets:
        """Read the targets of `partial_fit`, which are those of the first call."""

    def _train(
        self,
        autoencoder: BaseAutoencoder,
        X: Floats,
        family: Family,
        targets: Targets,
        weight: Floats,
    ) -> None:
        """Train the autoencoder, or resume its training if it is fitted."""
        if self.fine_tune:
            head = Head(family, self.label_weight, self.reconstruction_weight)
            with_loss = replace(targets, loss=head, density_rows=DENSITY_ROWS)
            resume = autoencoder._fitted is not None
            autoencoder._fit_targets(X, with_loss, weight, resume=resume)
        else:
            autoencoder.fit(X, sample_weight=weight)

    def _trains_autoencoder(self) -> bool:
        return self.fine_tune or super()._trains_autoencoder()

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
            Targets of the rows. A regressor needs numbers, and a classifier needs labels of 0 and
            1, both of which must occur. A missing target is NaN. A classifier also accepts -1 for a
            missing label.
        name : str, default=None
            Name of the output in `label_names_`. None uses "y" followed by a number: the number of
            outputs so far, or the next larger number whose name is not used yet.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of rows. None gives all rows a weight of 1.

        Returns
        -------
        self : object
            The estimator. Its predictions have one more column. If a regressor was fitted to a
            vector, its predictions become a matrix.

        Raises
        ------
        ValueError
            If X, y or `sample_weight` is invalid, if `name` already exists or is not a string, or
            if a classifier was fitted to a y of a single column.
        TypeError
            If X is sparse.
        NotFittedError
            If the estimator is not fitted.
        """
        fitted = self._read_fitted()
        names = fitted.label_names
        if names is None:
            raise ValueError(
                "add_label requires a multilabel classifier, but this classifier was fitted to a "
                "y of a single column. Fit it to a y of several columns of 0 and 1, or fit another "
                "classifier."
            )
        X = self._read_rows(X, fitted)
        weight = read_weight(sample_weight, X)
        X, (y, weight) = X[weight > 0], targets_of_positive_weight(y, weight, self)
        if name is None:
            name = next(n for n in (f"y{j}" for j in count(len(names))) if n not in names)
        if not isinstance(name, str) or name in names:
            raise ValueError(
                f"name must be a string that is not in {names}, got {short_repr(name)}."
            )
        family, targets = self._read_added_label(y, weight)
        added = fit_linear_map(family, fitted.encode(X).astype(np.float64), targets, weight)
        outputs = self._output_names([*names, name])
        self._fitted = replace(fitted, maps=[*fitted.maps, *added], **outputs)
        return self

    def transform(self, X: MatrixLike) -> Floats:
        """Compute the codes of rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_components)
            Codes, in float32 if `X` is, and in float64 otherwise.
        """
        fitted = self._read_fitted()
        return fitted.encode(self._read_rows(X, fitted))

    @one_thread
    def _outputs(
        self,
        X: MatrixLike,
        fitted: FittedSupervised,
        link: Callable[[Tensor], Tensor] = torch.positive,
    ) -> Floats:
        """Compute the codes of rows, and apply the linear maps and a link function to them.

        The link function receives the outputs of one map, of shape (n_samples, n_outputs). Returns
        the results for all maps side by side, of shape (n_samples, n_columns).
        """
        encoded = fitted.encode(self._read_rows(X, fitted))
        codes = torch.from_numpy(encoded.astype(np.float64, copy=False))
        # Each map is applied on its own. If one matrix product computed all outputs, the last bits
        # of existing outputs could change when `add_label` adds a map.
        maps = [torch.from_numpy(part) for part in fitted.maps]
        pairs = zip(maps[::2], maps[1::2], strict=True)
        return np.hstack([link(codes @ coef + intercept).numpy() for coef, intercept in pairs])

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


class AutoencoderClassifier(ProbabilisticClassifier, _Supervised):
    """Classifier on the codes of an autoencoder that is trained on both rows and labels.

    The autoencoder is trained to reconstruct each row from its code and to predict the class of the
    row from the same code by a linear map. Rows without a class are reconstructed, too, so that
    they also shape the codes. After training, the linear map is refitted: it is a logistic
    regression on codes.

    If `y` has one column, it contains classes, which are numbers or strings. As in scikit-learn's
    semi-supervised estimators, a class of -1 marks an unlabeled row. If -1 and 1 are the only
    values, however, both are ordinary classes. `score` counts unlabeled rows as wrong predictions.

    If `y` has several columns, each column is a label (multilabel classification). A label is 0, 1,
    or NaN where it is missing. All labels are predicted from the same code, and `add_label` adds
    more labels after fitting.

    Parameters
    ----------
    class_weight : dict, list of dict, "balanced" or None, default=None
        Weights of classes, as in `sklearn.linear_model.LogisticRegression`. A dict contains the
        weight of each class, at least 0. "balanced" weights classes inversely to their frequency
        among the observed classes. None gives every class a weight of 1.

        For multilabel targets, "balanced" and a dict with the weights of 0 and 1 apply to every
        label. A list contains one dict for each label that is passed to `fit`. The labels that
        `add_label` adds then have weights of 1.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The sorted classes. For multilabel targets, the column indices of the labels, from 0 on.

    See Also
    --------
    SemiSupervisedVariationalAutoencoder : Classifier that treats the classes of rows without a
        label as latent variables of a generative model.
    sklearn.neural_network.MLPClassifier : Neural network that is trained on labels alone.
    sklearn.semi_supervised.SelfTrainingClassifier : Classifier that is trained repeatedly, with its
        own predictions as labels of rows without a label.

    Notes
    -----
    Most users set only `autoencoder` (for its size or architecture, or a pre-trained one),
    `label_weight` (to weight labels against reconstruction), `class_weight` (for unbalanced
    classes) and `random_state`.

    The training objective is a weighted sum of two losses in nats per row, as in [1]_. The
    objective of the autoencoder has the weight `reconstruction_weight`. The cross-entropy of the
    observed class has the weight `label_weight` times the weight of this class. If there are
    several labels, their cross-entropies are summed. If the autoencoder corrupts rows or draws
    random codes, both losses are computed from the same corrupted row and the same draw. Predicting
    several labels from one code is multi-task learning [2]_. Training that starts from a
    pre-trained autoencoder is studied in [3]_.

    The refitted map is that of `sklearn.linear_model.LogisticRegression` with ``C=1``, after the
    codes are divided by a common scale, so that the mean variance of their components is 1.

    Predicted probabilities of new rows tend to be overconfident, because the linear map is fitted
    to training rows, whose codes were shaped by their own labels. Use
    `sklearn.calibration.CalibratedClassifierCV` to obtain calibrated probabilities.

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
    >>> y_partial[100:] = -1  # Only the first 100 rows have a label.
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

    _fitted_class: ClassVar = FittedClassifier

    classes_ = FittedAttribute(lambda fitted: fitted.classes)

    def _read_targets(self, y: MatrixLike, weight: Floats) -> ReadTargets:
        if n_columns(y) > 1:
            targets = read_multilabel(y, self.class_weight, weight)
            return Labels(), targets, self._output_names(column_names(y))
        return _of_classes(*read_multiclass(y, self.class_weight, weight))

    def _read_stream(
        self,
        y: MatrixLike,
        weight: Floats,
        previous: FittedClassifier | None,
        classes: MatrixLike | None,
    ) -> ReadTargets:
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight='balanced' is not supported by partial_fit, because the frequencies "
                "of the classes in later calls are unknown. Pass a dict of weights."
            )
        if n_columns(y) > 1:
            targets = read_multilabel(y, self.class_weight, weight, False)
            names = column_names(y) if previous is None else previous.label_names
            if names is None or len(names) != n_columns(y):
                raise ValueError("y must have the same columns as in the first call.")
            return Labels(), targets, self._output_names(names)
        if previous is not None and previous.label_names is not None:
            raise ValueError("y must have the same columns as in the first call.")
        known = check_same_classes(None if previous is None else previous.classes, classes)
        found, targets = read_multiclass(y, self.class_weight, weight, known)
        return _of_classes(found, targets)

    @fit_context(prefer_skip_nested_validation=False)
    def partial_fit(
        self,
        X: MatrixLike,
        y: MatrixLike,
        classes: MatrixLike | None = None,
        sample_weight: MatrixLike | None = None,
    ) -> Self:
        """Train for one pass over new rows, beside a sample of the rows seen before.

        Training continues from the last call of `fit` or `partial_fit`; the `partial_fit` of the
        autoencoder has the details. The linear map is refitted to the sample whenever the number of
        rows seen has grown by a quarter. Until then, predictions use the map of the latest refit.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            New rows in the user's units.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Targets of the rows, as in `fit`.
        classes : array-like of shape (n_classes,), default=None
            All classes that any call will contain, in any order. With None, the first call uses the
            classes in its `y`. Ignored if `y` has several columns.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of rows. None gives all rows a weight of 1.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            As in `fit`, if `y` has other classes or columns than in the first call, if
            `fine_tune=False` or ``class_weight="balanced"``, or if `add_label` has added outputs.
        TypeError
            As in `fit`.
        """
        return self._fit(X, y, sample_weight, "_stream_model", classes=classes)

    def _output_names(self, names: list[str]) -> dict[str, Any]:
        return super()._output_names(names) | {"classes": np.arange(len(names))}

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
        out = self._outputs(X, self._read_fitted())
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
        return self._probabilities(X, self._read_fitted())

    def _probabilities(self, X: MatrixLike, fitted: FittedClassifier) -> Floats:
        if fitted.label_names is not None:
            return self._outputs(X, fitted, torch.sigmoid)
        if len(fitted.classes) == 2:
            return self._outputs(X, fitted, lambda out: torch.cat([-out, out], 1).sigmoid())
        return self._outputs(X, fitted, lambda out: out.softmax(1))

    def predict(self, X: MatrixLike) -> NDArray[Any]:
        """Predict the most likely class, or the labels, of each row.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_labels)
            Predicted classes. For multilabel targets, 1 for each label that has a probability above
            0.5, and 0 for the others.
        """
        fitted = self._read_fitted()
        probabilities = self._probabilities(X, fitted)
        if fitted.label_names is not None:
            return (probabilities > 0.5).astype(np.int64)
        return fitted.classes[probabilities.argmax(axis=1)]

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class AutoencoderRegressor(RegressorMixin, MultiOutputMixin, _Supervised):
    """Regressor on the codes of an autoencoder that is trained on both rows and targets.

    The autoencoder is trained to reconstruct each row from its code and to predict the targets of
    the row from the same code by a linear map. A target of NaN is missing. Rows without a target
    are reconstructed, too, so that they also shape the codes. After training, the linear map is
    refitted: it is a ridge regression on codes. `add_label` adds targets after fitting.

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
        family, targets = Numbers.standardize(read_numbers(y), weight)
        outputs = {"is_vector": y.ndim == 1, "units": [family.center, family.scale]}
        return family, targets, self._output_names(column_names(y)) | outputs

    def _read_stream(
        self,
        y: MatrixLike,
        weight: Floats,
        previous: FittedRegressor | None,
        classes: MatrixLike | None,
    ) -> ReadTargets:
        if previous is None or previous.units is None:
            return self._read_targets(y, weight)
        if n_columns(y) != len(previous.label_names or []):
            raise ValueError("y must have the same columns as in the first call.")
        family = Numbers(*previous.units)
        outputs = {name: getattr(previous, name) for name in ("label_names", "is_vector", "units")}
        return family, family.targets(read_numbers(y, False)), outputs

    @fit_context(prefer_skip_nested_validation=False)
    def partial_fit(
        self, X: MatrixLike, y: MatrixLike, sample_weight: MatrixLike | None = None
    ) -> Self:
        """Train for one pass over new rows, beside a sample of the rows seen before.

        Training continues from the last call of `fit` or `partial_fit`; the `partial_fit` of the
        autoencoder has the details. The linear map is refitted to the sample whenever the number of
        rows seen has grown by a quarter. Until then, predictions use the map of the latest refit.

        The first call determines the units of the targets, their means and standard deviations, so
        that it should contain typical targets.

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
            As in `fit`, if `y` has other columns than in the first call, if `fine_tune=False`, or
            if `add_label` has added outputs.
        TypeError
            As in `fit`.
        """
        return self._fit(X, y, sample_weight, "_stream_model")

    def _read_added_label(self, y: MatrixLike, weight: Floats) -> tuple[Family, Targets]:
        return Numbers.standardize(read_numbers(column_or_1d(y, warn=True)), weight)

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


def _of_classes(classes: NDArray[Any], targets: Targets) -> ReadTargets:
    """Return the family of targets that are classes. Two classes are one label."""
    outputs = {"label_names": None, "classes": classes}
    if len(classes) > 2:
        return Classes(), targets, outputs
    return Labels(), replace(targets, values=targets.values[:, 1:]), outputs


def _distinct_rows(X: Floats, targets: Targets | None) -> Floats:
    """Return the distinct rows of X, or one row for each distinct pair of a row and its targets."""
    tables = [X] if targets is None else [X, targets.values, targets.observed]
    index, _ = merge_equal_rows(np.ones(len(X)), *(hash_rows(table, 0) for table in tables))
    return X[index]


def _default_autoencoder(X: Floats) -> Autoencoder:
    """Return the default autoencoder for rows (n, n_features): 30 % of the cells are masked.

    The rows are those on which the autoencoder is trained, which are distinct.
    """
    n, n_features = X.shape
    is_small = n <= FULL_BATCH_ROWS
    batch_size = n if is_small else BATCH_SIZE
    return Autoencoder(
        round(2 * n_features**0.5),
        hidden_layer_sizes=(256, 128),
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
    """Return whether float32 is as accurate as float64 for rows (n, n_features).

    Except for extreme magnitudes, the result does not depend on the units of the columns.
    """
    deviation = X.std(axis=0)
    is_near = np.abs(X.mean(axis=0)) <= MAX_RELATIVE_MEAN * deviation
    low, high = FLOAT32_RANGE
    return bool(is_near.all() and deviation.max() > low and np.abs(X).max() < high)
