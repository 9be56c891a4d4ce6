"""Classifier on codes that are trained to serve both rows and classes or labels."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import Tags

from skae._compat.sklearn import StrOptions, fit_context
from skae.base import Floats, MatrixLike
from skae.state import FittedAttribute
from skae.table.targets import (
    ProbabilisticClassifier,
    Targets,
    check_same_classes,
    column_names,
    n_columns,
    read_binary_label,
    read_multiclass,
    read_multilabel,
)
from skae.tasks.meta_estimator import TrainingRows
from skae.tasks.propagation import Propagation
from skae.tasks.supervised import (
    FittedSupervised,
    ReadTargets,
    SupervisedMetaEstimator,
    names_in_stream,
)
from skae.training.heads import Classes, Family, Labels


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


class AutoencoderClassifier(ProbabilisticClassifier, SupervisedMetaEstimator):
    """Classifier on the codes of an autoencoder that is trained on both rows and labels.

    The autoencoder is trained to reconstruct each row from its code and to predict the class of the
    row from the same code by a linear map. Rows without a class are reconstructed, too, so that
    they also shape the codes. If only a few rows have a class, the classes of the others are
    estimated from them and from similar rows. After training, the linear map is refitted: it is a
    logistic regression on codes.

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

    The refitted map is that of `sklearn.linear_model.LogisticRegression` with ``C=10``, after the
    codes are divided by a common scale, so that the mean variance of their components is 1.

    If at most 30 % of the rows have a class, the class of each other row is estimated. The estimate
    is a weighted mean of the probabilities of two models. The first is a logistic regression on the
    columns. The second is label spreading [4]_: a row takes its class from its ten nearest
    neighbors, these from theirs, and so on. The weights of the models and the sharpness of the
    probabilities are those that explain held-out classes best. The network is trained with the most
    likely class of such a row, and the linear map is fitted to the probabilities, so that it keeps
    the frequencies of the classes. The row has the weight of its margin, which is the difference
    between the two largest probabilities. First, neighbors are found by principal components of the
    columns. A network that is trained with these estimates has better codes, by which neighbors are
    found again before the final training. At most 10,000 distinct rows are connected. Estimates are
    wrong if similar rows often have different classes. If a class has a weight of 0, none are made.

    Robust units are those of :class:`AutoencoderOutlierDetector`, except that a value that fills
    most of a column does not increase the scale of its other values. Cells beyond 20 robust
    standard deviations are clipped. Columns that are constant in `fit` stay constant. Columns whose
    likelihood restricts their cells, such as "bernoulli", keep their units. Training that resumes
    keeps the units of the first fit. Without an earlier `fit`, `partial_fit` uses the user's units,
    because the first rows of a stream may not represent the later ones.

    Predicted probabilities of new rows tend to be overconfident, because the linear map is fitted
    to training rows, whose codes were shaped by their own labels. Use
    `sklearn.calibration.CalibratedClassifierCV` to obtain calibrated probabilities.

    References
    ----------
    .. [1] A. Rasmus, H. Valpola, M. Honkala, M. Berglund and T. Raiko, "Semi-supervised learning
       with ladder networks", NeurIPS 2015.
    .. [2] R. Caruana, "Multitask learning", Machine Learning 28, 1997.
    .. [3] D. Erhan et al., "Why does unsupervised pre-training help deep learning?", JMLR 11, 2010.
    .. [4] D. Zhou, O. Bousquet, T. N. Lal, J. Weston and B. Schölkopf, "Learning with local and
       global consistency", NeurIPS 2003.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoencoderClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> y_partial = y.copy()
    >>> y_partial[100:] = -1  # Only the first 100 rows have a label.
    >>> classifier = AutoencoderClassifier(random_state=0).fit(X, y_partial)
    >>> bool(classifier.score(X[100:], y[100:]) > 0.85)
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

    def _propagation(
        self,
        model: Any,
        data: TrainingRows,
        family: Family,
        targets: Targets,
        seed: int,
    ) -> Propagation | None:
        weights = self.class_weight if isinstance(self.class_weight, list) else [self.class_weight]
        # Rows of a class of weight 0 are known, but look like rows without a class.
        if any(0 in part.values() for part in weights if isinstance(part, dict)):
            return None
        return super()._propagation(model, data, family, targets, seed)

    def _read_stream(
        self,
        y: MatrixLike,
        weight: Floats,
        previous: FittedClassifier | None,
        classes: MatrixLike | None,
    ) -> ReadTargets:
        weights = self.class_weight if isinstance(self.class_weight, list) else [self.class_weight]
        if "balanced" in weights:
            raise ValueError(
                "class_weight='balanced' is not supported by partial_fit, because the frequencies "
                "of the classes in later calls are unknown. Pass a dict of weights."
            )
        if n_columns(y) > 1:
            targets = read_multilabel(y, self.class_weight, weight, False)
            return Labels(), targets, self._output_names(names_in_stream(y, previous))
        if previous is not None and previous.label_names is not None:
            names_in_stream(y, previous)
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
        """Train on new rows, beside a sample of the rows seen before.

        Training continues from the last call of `fit` or `partial_fit`; the `partial_fit` of the
        autoencoder has the details. Rows with a known target fill at least half of the sample if
        there are so many of them. Each call refits the linear map to the sample and the new rows.
        After `skae.load`, the map stays as it is until the new targets are as many as those before.

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
            `fine_tune=False`, also in an earlier fit, if `class_weight` contains "balanced", or if
            `add_label` has added outputs.
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


def _of_classes(classes: NDArray[Any], targets: Targets) -> ReadTargets:
    """Return the family of targets that are classes. Two classes are one label."""
    outputs = {"label_names": None, "classes": classes}
    if len(classes) > 2:
        return Classes(), targets, outputs
    return Labels(), replace(targets, values=targets.values[:, 1:]), outputs
