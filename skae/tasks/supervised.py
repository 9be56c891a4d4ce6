"""Classification and regression on codes that are trained for both: the rows and their labels."""

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
"""Passes over the rows and steps that the default training takes at least."""

DENSITY_ROWS = 256
"""Rows that the density is learnt from, which answers do not need."""

FLOAT32_RANGE = (1e-3, 1e3)
"""Deviations, and sizes of cells, between which float32 does as well as float64."""

BATCH_SIZE, FULL_BATCH_ROWS = 128, 256
"""Rows of a step of it, and rows that are few enough to be taken at once."""


class _Supervised(ClassNamePrefixFeaturesOutMixin, TransformerMixin, AutoencoderMetaEstimator, ABC):
    """Base of estimators that tell answers from the codes of an autoencoder.

    Parameters
    ----------
    autoencoder : autoencoder of skae, FrozenEstimator or None, default=None
        What to train; its `random_state` is set. None is a denoising `Autoencoder`: its code has
        twice the square root of the number of columns, rounded, and 30 % of the cells that it sees
        are masked; it is trained on all rows for 20 passes or 200 steps, whichever is longer, in
        float32 where more than 256 rows of ordinary numbers lose nothing by it. A fitted one in
        `sklearn.frozen.FrozenEstimator` is pre-trained: training starts from a copy of it, and it
        stays as it is.

    label_weight : float, default=10.0
        What a nat of an answer counts against a nat of reconstruction. Large values make codes for
        answers, small ones for rows; between 1 and 100 the answers seldom differ much, as the last
        map is solved for anew.

    reconstruction_weight : float, default=1.0
        What the autoencoder's own objective counts. With 0 answers alone train a plain network,
        and rows without them teach nothing.

    fine_tune : bool, default=True
        Whether answers train the encoder. If not, the autoencoder is trained without them, or
        taken as it is if it is given fitted.

    random_state : int, RandomState instance or None, default=None
        Decides the training.

    Attributes
    ----------
    autoencoder_ : autoencoder
        The trained autoencoder.

    n_components_ : int
        Size of its code.

    label_names_ : list of str
        Names of the outputs, where there are several: the columns of `y` if it was a data frame,
        and the names given to `add_label`.

    n_features_in_ : int
        Number of columns seen in fit.

    feature_names_in_ : ndarray of shape (n_features,)
        Their names, where all are strings.
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
        """What y says; learns what it takes to answer in kind."""

    @abstractmethod
    def _read_added_label(self, y: MatrixLike, weight: Floats) -> tuple[Family, Targets]:
        """What one more y says."""

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: MatrixLike, y: MatrixLike, sample_weight: MatrixLike | None = None) -> Self:
        """Train the autoencoder for its rows and for their answers, then the map from its codes.

        A fit that fails or is interrupted leaves an earlier model as it was.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Their answers. Those that are not known train nothing; their rows do.
        sample_weight : array-like of shape (n_samples,), default=None
            How often each row counts; a weight of 2 is a row given twice, 0 a row left out.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            Where X or y cannot be used or training breaks down.
        TypeError
            Where X is sparse, or `autoencoder` wants targets of its own.
        NotFittedError
            Where `autoencoder` is a FrozenEstimator of one that is not fitted.
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
            raise TypeError(f"autoencoder must do without targets, got {new!r}, a classifier.")
        self.autoencoder_ = new.set_params(random_state=draw_seed(self.random_state))
        if self.fine_tune:
            head = Head(family, self.label_weight, self.reconstruction_weight)
            targets = replace(targets, loss=head, density_rows=DENSITY_ROWS)
            new._fit_targets(X, targets, weight, resume=pretrained is not None)
        elif pretrained is None:
            new.fit(X, sample_weight=weight)
        self._maps_ = [*fit_linear_map(family, self._codes(X).astype(np.float64), targets, weight)]
        self.n_components_ = new.n_components_
        self._n_features_out = new._n_features_out

    def add_label(
        self,
        X: MatrixLike,
        y: MatrixLike,
        name: str | None = None,
        sample_weight: MatrixLike | None = None,
    ) -> Self:
        """Learn one more output from codes as they are.

        The autoencoder and the other outputs stay as they are, to the bit: what is learnt is the
        best map from codes to answers, a convex problem that is solved to convergence.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, any in number.
        y : array-like of shape (n_samples,)
            Their answers: 0 or 1 for a classifier; NaN where not known, or -1 beside 0 and 1.
        name : str, default=None
            Name of the output in `label_names_`; None is "y" and its number, or the next one free.
        sample_weight : array-like of shape (n_samples,), default=None
            How often each row counts.

        Returns
        -------
        self : object
            What it predicts has one column more; of one number for each row it becomes two columns.

        Raises
        ------
        ValueError
            Where X or y cannot be used, there is an output of that name, or the model was fitted
            to one class for each row.
        """
        check_is_fitted(self)
        if not hasattr(self, "label_names_"):
            raise ValueError(
                "Labels can be added to several labels, but this model was fitted to one class for "
                "each row: fit it to a y of several columns of 0 and 1, or fit another model."
            )
        X = self._read_rows(X)
        weight = read_weight(sample_weight, X)
        X, (y, weight) = X[weight > 0], targets_of_positive_weight(y, weight, self)
        taken = self.label_names_
        if name is None:
            name = next(n for n in (f"y{j}" for j in count(len(taken))) if n not in taken)
        if not isinstance(name, str) or name in taken:
            raise ValueError(f"name must be a text, none of {taken}, got {name!r}.")
        family, targets = self._read_added_label(y, weight)
        added = fit_linear_map(family, self._codes(X).astype(np.float64), targets, weight)
        self.__dict__.update(_maps_=[*self._maps_, *added], **self._output_names([*taken, name]))
        return self

    def _output_names(self, names: list[str]) -> dict[str, Any]:
        """Fitted attributes that follow from the names of outputs."""
        return {"label_names_": names}

    def transform(self, X: MatrixLike) -> Floats:
        """Codes of rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_components_)
            Codes, in the dtype of `X`.
        """
        return self._codes(self._read_rows(X))

    def _codes(self, X: Floats) -> Floats:
        return np.asarray(self.autoencoder_.transform(X))

    def _outputs(self, X: MatrixLike, link: Callable[[Tensor], Tensor] = torch.positive) -> Floats:
        """What maps and a link function make of rows' codes."""
        codes = torch.from_numpy(self._codes(self._read_rows(X)).astype(np.float64, copy=False))
        # Maps are applied one by one: the entries of wider tables would differ in the last bit.
        maps = [torch.from_numpy(part) for part in self._maps_]
        pairs = zip(maps[::2], maps[1::2], strict=True)
        return np.hstack([link(codes @ coef + intercept).numpy() for coef, intercept in pairs])

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


class AutoencoderClassifier(ProbabilisticClassifier, _Supervised):
    """Classifier on the codes of an autoencoder that is trained for both, rows and labels.

    A code is trained to restore its row and to tell its class by a linear map at once: rows
    without a class shape the code, too. Several labels at a time share
    the code (multi-label), and more can be added later. Once the code is trained, the map is
    solved for anew: it is a logistic regression on codes.

    Classes are numbers or strings. A class of -1 is not known, as everywhere in scikit-learn,
    where at least two others occur; `score` counts such rows as wrong. A `y` of several columns
    holds labels, each 0, 1, or NaN where it is not known.

    Parameters
    ----------
    class_weight : dict, list of dict, "balanced" or None, default=None
        Weights of classes, as in `sklearn.linear_model.LogisticRegression`; of several labels a
        list with the weights of 0 and 1 for each, or "balanced" for all. They count among known
        labels; labels that are added have none from a list.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The classes, sorted; of several labels their numbers.

    See Also
    --------
    SemiSupervisedVariationalAutoencoder : Also learns from rows without a label where the classes
        are.
    sklearn.neural_network.MLPClassifier : A network that is trained for labels alone.
    sklearn.semi_supervised.SelfTrainingClassifier : Labels rows by a classifier's own predictions.

    Notes
    -----
    The objective is the autoencoder's, in nats per row, plus `label_weight` times the
    cross-entropy of a known label [1]_; of several labels it is the sum of theirs. Noise in
    codes or in what the encoder sees is there for both. Sharing a code between labels is multi-task
    learning [2]_. Starting from an autoencoder that was trained before is [3]_. The ridge penalty
    of the map is 1/2 in units in which codes' mean variance is 1.

    Codes of the training rows were shaped by these rows' labels, so their probabilities are too
    sure. Those of new rows need `sklearn.calibration.CalibratedClassifierCV` to be rates.

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
    >>> few = y.copy()
    >>> few[100:] = -1
    >>> classifier = AutoencoderClassifier(random_state=0).fit(X, few)
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
        """Log-odds of labels, or logits of classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.

        Returns
        -------
        scores : ndarray of shape (n_samples,), (n_samples, n_classes) or (n_samples, n_labels)
            For two classes the log-odds of `classes_[1]`.
        """
        out = self._outputs(X)
        return out[:, 0] if out.shape[1] == 1 else out

    def predict_proba(self, X: MatrixLike) -> Floats:
        """Probabilities of classes or labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes) or (n_samples, n_labels)
            Of classes, in the order of `classes_`; of several labels that each is there.
        """
        check_is_fitted(self)
        if hasattr(self, "label_names_"):
            return self._outputs(X, torch.sigmoid)
        if len(self.classes_) == 2:
            return self._outputs(X, lambda out: torch.cat([-out, out], 1).sigmoid())
        return self._outputs(X, lambda out: out.softmax(1))

    def predict(self, X: MatrixLike) -> NDArray[Any]:
        """The most likely class of each row, or which labels are more likely there than not.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_labels)
        """
        if hasattr(self, "label_names_"):
            return (self.predict_proba(X) > 0.5).astype(np.int64)
        return super().predict(X)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class AutoencoderRegressor(RegressorMixin, MultiOutputMixin, _Supervised):
    """Regression on the codes of an autoencoder that is trained for both, rows and targets.

    A code is trained to restore its row and to tell its targets by a linear map at once: rows
    without a target shape the code, too. Several targets share the code, and more can be added
    later. Once the code is trained, the map is solved for anew: it is a ridge regression on codes.
    With a linear autoencoder this is partial least squares' aim, a low-rank map that serves both
    sides, by another route.

    A target that is NaN is not known.

    See Also
    --------
    sklearn.cross_decomposition.PLSRegression : Linear codes for rows and targets.
    sklearn.neural_network.MLPRegressor : A network that is trained for targets alone.

    Notes
    -----
    The objective is the autoencoder's, in nats per row, plus `label_weight` times half the squared
    error of a known target in units of its standard deviation, summed over targets. The ridge
    penalty of the map is 1 in these units and those in which codes' mean variance is 1.

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
        """Expected targets of rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_targets)
            In the units of `y`.
        """
        out = self._outputs(X)
        return out[:, 0] if self._is_vector_ and out.shape[1] == 1 else out

    def score(self, X: MatrixLike, y: MatrixLike, sample_weight: MatrixLike | None = None) -> float:
        """Coefficient of determination, R2: 1 for perfect predictions, 0 for the mean of `y`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Their targets.
        sample_weight : array-like of shape (n_samples,), default=None
            How often each row counts.

        Returns
        -------
        score : float
            Mean over targets.
        """
        return super().score(X, y, sample_weight)


def _default_autoencoder(X: Floats) -> Autoencoder:
    """What is trained if nothing is given: a code to be told from 70 % of the cells."""
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
        # Half the time, where nothing is lost.
        precision="auto" if is_small or not _suits_float32(X) else "float32",
    )


def _suits_float32(X: Floats) -> bool:
    """Whether four digits of cells tell their rows apart, in columns of common magnitude."""
    deviation = X.std(axis=0)
    is_near = np.abs(X.mean(axis=0)) <= FLOAT32_RANGE[1] * deviation
    return bool(
        is_near.all() and deviation.max() > FLOAT32_RANGE[0] and np.abs(X).max() < FLOAT32_RANGE[1]
    )
