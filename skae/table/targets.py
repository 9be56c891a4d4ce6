"""What y says of rows: classes, labels or numbers, and which of them are not known."""

from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils import (
    assert_all_finite,
    check_array,
    check_consistent_length,
    column_or_1d,
    compute_class_weight,
)
from sklearn.utils.multiclass import check_classification_targets

from skae._compat.sklearn import safe_indexing

Floats = NDArray[np.floating]

UNLABELED = -1
"""What stands for an unknown class, as everywhere in scikit-learn."""


@dataclass
class Targets:
    """What is known of rows beside their cells, and what training charges for it.

    Attributes
    ----------
    values : ndarray of shape (n_samples, n_values)
        0 or 1 for each class or label, or numbers; 0 where not known.
    observed : ndarray of shape (n_samples, n_values) or (n_samples, 1)
        How much each target counts, 0 where it is not known; one number for each row where its
        values are one target.
    loss : module or None
        The auxiliary loss that training adds to the autoencoder's own.
    learned : dict
        What the targets tell of all rows, such as their classes.
    density_rows : int or None
        Rows that the density is estimated from at most, where it is a by-product.
    """

    values: Floats
    observed: Floats
    loss: Any = None
    learned: dict[str, Any] = field(default_factory=dict)
    density_rows: int | None = None

    def take(self, rows: NDArray[Any]) -> "Targets":
        """The targets of some rows."""
        return replace(self, values=self.values[rows], observed=self.observed[rows])

    @property
    def any_observed(self) -> NDArray[np.bool_]:
        """Rows of which any target is known."""
        return np.any(self.observed > 0, axis=1)


def targets_of_positive_weight(
    y: Any, weight: Floats, estimator: object
) -> tuple[Any, NDArray[np.float64]]:
    """The targets and weights of rows of positive weight; an array or a pandas object.

    Raises ValueError where there is no y, or it has another length than X.
    """
    if y is None:
        raise ValueError(
            f"This {type(estimator).__name__} estimator requires y to be passed, but the target y "
            "is None."
        )
    y = y.toarray() if hasattr(y, "toarray") else y
    y = y if hasattr(y, "iloc") else np.asarray(y)
    check_consistent_length(weight, y)
    return safe_indexing(y, np.flatnonzero(weight)), weight[weight > 0].astype(np.float64)


def n_columns(y: Any) -> int:
    """Columns of y; a vector has one."""
    return y.shape[1] if y.ndim > 1 else 1


def column_names(y: Any) -> list[str]:
    """Names of the columns of y, or their numbers after a "y"."""
    numbered = [f"y{j}" for j in range(n_columns(y))]
    return [str(name) for name in getattr(y, "columns", numbered)]


class ProbabilisticClassifier(ClassifierMixin):
    """Classifiers of one class per row, the likeliest by `predict_proba`."""

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy: the share of rows whose class, or whose labels all, are predicted.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Their classes or labels. What is not known counts as wrong.
        sample_weight : array-like of shape (n_samples,), default=None
            How often each row counts.

        Returns
        -------
        score : float
        """
        return super().score(X, y, sample_weight)

    def predict_log_proba(self, X: Any) -> Floats:
        """Logarithms of `predict_proba`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.

        Returns
        -------
        log_probabilities : ndarray
            In nats, of the shape of the probabilities.
        """
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def predict(self, X: Any) -> NDArray[Any]:
        """The most likely class of rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.

        Returns
        -------
        y : ndarray of shape (n_samples,)
        """
        # First, since an unfitted classifier has no classes.
        likely = self.predict_proba(X).argmax(axis=1)
        return self.classes_[likely]


def check_same_classes(classes: NDArray[Any] | None, announced: Any) -> NDArray[Any] | None:
    """The classes that a fit knows, or else those announced for it; ValueError if they differ."""
    if announced is None:
        return classes
    announced = np.unique(announced)
    if classes is not None and not np.array_equal(classes, announced):
        raise ValueError(
            f"classes are {announced.tolist()}, but those of the first call were "
            f"{classes.tolist()}."
        )
    return announced


def read_classes(y: Any, classes: NDArray[Any] | None = None) -> tuple[NDArray[Any], Floats]:
    """Classes, those given or else found, and each row's as a one-hot row, zeros if unknown.

    A class of -1 is unknown where it is not among those given, or at least two others occur.
    """
    y = column_or_1d(y, warn=True)
    assert_all_finite(y, input_name="y")
    known = ~_is_unlabeled(y)
    if classes is not None and len(classes) < 2:
        raise ValueError(f"classes must be at least 2 classes, got {classes.tolist()}.")
    known |= UNLABELED in classes if classes is not None else len({*y[known].tolist()}) < 2
    check_classification_targets(y[known])
    found, indices = np.unique(y[known], return_inverse=True)
    if classes is None:
        if len(found) < 2:
            only = "no row has a label" if found[0] == UNLABELED else f"got only {found[0]}"
            raise ValueError(f"y must hold at least 2 classes, {only}.")
        classes = found
    strange = np.setdiff1d(found, classes)
    if len(strange):
        raise ValueError(f"y holds {strange[0]}, but the classes are {classes.tolist()}.")
    values = np.zeros((len(y), len(classes)))
    values[np.flatnonzero(known), np.searchsorted(classes, found)[indices]] = 1
    return classes, values


def read_classes_and_prior(
    y: Any, weight: Floats, label_weight: float, classes: NDArray[Any] | None
) -> Targets:
    """Classes of rows, each known one at a price, and what shares of the rows the classes have."""
    classes, values = read_classes(y, classes)
    # One row more of each class is assumed.
    number = weight @ values + 1
    learned = {"classes_": classes, "class_prior_": number / number.sum()}
    return Targets(values, label_weight * values.sum(axis=1, keepdims=True), learned=learned)


def _is_unlabeled(y: NDArray[Any]) -> NDArray[np.bool_]:
    if y.dtype.kind == "O":
        return np.array([isinstance(c, Real) and c == UNLABELED for c in y], dtype=bool)
    return y == UNLABELED if y.dtype.kind in "if" else np.zeros(len(y), dtype=bool)


def read_multiclass(
    y: Any, class_weight: Any, sample_weight: Floats
) -> tuple[NDArray[Any], Targets]:
    """Sorted classes, and the class of each row; classes count by `class_weight`."""
    classes, values = read_classes(y)
    known = values.any(axis=1)
    if isinstance(class_weight, list):
        raise ValueError("class_weight is a list, which is for a y of several columns of labels.")
    found = classes[values[known].argmax(axis=1)]
    weights = _class_weights(class_weight, classes, found, sample_weight[known])
    return classes, Targets(values, values @ weights[:, None])


def _class_weights(
    class_weight: Any, classes: NDArray[Any], y: NDArray[Any], sample_weight: Floats
) -> Floats:
    """What rows of each of the classes count; `y` has the classes of rows."""
    weights: Floats = compute_class_weight(
        class_weight, classes=classes, y=y, sample_weight=sample_weight
    )
    if not (weights >= 0).all():
        raise ValueError(f"class_weight must not be negative or NaN, got {weights.min():g}.")
    return weights


def read_multilabel(y: Any, class_weight: Any, sample_weight: Floats) -> Targets:
    """Labels (n_samples, n_labels) of 0 and 1, NaN where not known."""
    y = check_array(y, dtype=np.float64, ensure_all_finite="allow-nan", input_name="y")
    wrong = np.argwhere(~(np.isnan(y) | (y == 0) | (y == 1)))
    if len(wrong):
        row, column = wrong[0]
        raise ValueError(
            "Unknown label type: a y of several columns holds labels, 0 or 1 or NaN where not "
            f"known, got {y[row, column]:g} in column {column}."
        )
    by_column = class_weight if isinstance(class_weight, list) else [class_weight] * y.shape[1]
    if len(by_column) != y.shape[1]:
        raise ValueError(
            f"class_weight has {len(by_column)} entries, but y has {y.shape[1]} columns."
        )
    weight = np.zeros_like(y)
    for j, cells in enumerate(y.T):
        known = ~np.isnan(cells)
        classes, indices = np.unique(cells[known], return_inverse=True)
        if len(classes):
            weights = _class_weights(by_column[j], classes, cells[known], sample_weight[known])
            weight[known, j] = weights[indices]
    counts = weight * sample_weight[:, None] > 0
    if not ((counts & (y == 1)).any(axis=0) & (counts & (y == 0)).any(axis=0)).any():
        raise ValueError("y must hold at least 2 classes: no column has rows of 0 and of 1.")
    return Targets(np.nan_to_num(y), weight)


def read_binary_label(y: Any) -> Floats:
    """One label (n_samples, 1) of 0 and 1, NaN where not known; -1 beside both is not, too."""
    y = check_array(
        column_or_1d(y, warn=True)[:, None],
        dtype=np.float64,
        ensure_all_finite="allow-nan",
        input_name="y",
    )
    unknown = (y == UNLABELED) & ({0.0, 1.0} <= {*y[:, 0].tolist()})
    return np.where(unknown, np.nan, y)


def read_numbers(y: Any) -> Floats:
    """Numbers (n_samples, n_targets), NaN where not known."""
    y = check_array(
        y, dtype=np.float64, ensure_2d=False, ensure_all_finite="allow-nan", input_name="y"
    )
    y = y[:, None] if y.ndim == 1 else y
    unknown = np.flatnonzero(np.isnan(y).all(axis=0))
    if len(unknown):
        raise ValueError(f"y must hold numbers, but column {unknown[0]} of y is NaN in all rows.")
    return y
