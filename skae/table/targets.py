"""Targets: functions that read y as classes, labels or numbers, some of which may be missing."""

from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
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
from skae.parameters import short_repr

Floats = NDArray[np.floating]

UNLABELED = -1
"""Value that marks an unlabeled row, as in scikit-learn's semi-supervised estimators."""


class Units(NamedTuple):
    """Units of targets that are numbers.

    Attributes
    ----------
    center, scale : ndarray of shape (n_values,)
        Means and standard deviations by which the targets are standardized.
    """

    center: Floats
    scale: Floats


@dataclass
class Targets:
    """Targets of rows, and the auxiliary loss that makes training use them.

    Attributes
    ----------
    values : ndarray of shape (n_samples, n_values)
        Classes in one-hot encoding, labels of 0 and 1, or numbers in the user's units. Missing
        targets have values of 0.
    observed : ndarray of shape (n_samples, n_values) or (n_samples, 1)
        Weight of each target, 0 where it is missing. It does not include the sample weight. There
        is a single column if all values of a row form one target, as those of a class do.
    loss : module or None
        Auxiliary loss that training adds to the autoencoder's objective. None if the autoencoder
        itself uses the targets.
    learned : dict
        Fitted attributes that are estimated from the targets, such as the classes.
    units : Units or None
        Units in which the loss receives numbers. None for classes and labels.
    estimated : ndarray of bool with the shape of `observed`, or None
        Which of the observed targets are only estimated. None if none is.
    """

    values: Floats
    observed: Floats
    loss: Any = None
    learned: dict[str, Any] = field(default_factory=dict)
    units: Units | None = None
    estimated: NDArray[np.bool_] | None = None

    def take(self, rows: NDArray[Any]) -> "Targets":
        """Select the targets of rows."""
        estimated = None if self.estimated is None else self.estimated[rows]
        values, observed = self.values[rows], self.observed[rows]
        return replace(self, values=values, observed=observed, estimated=estimated)

    @property
    def alone(self) -> "Targets":
        """The known targets without the loss and all other properties of a fit."""
        if self.estimated is None:
            return Targets(self.values, self.observed, units=self.units)
        observed = np.where(self.estimated, 0.0, self.observed)
        values = np.where(self.estimated, 0.0, self.values)
        return Targets(values, observed, units=self.units)

    def append(self, other: "Targets") -> "Targets":
        """Return these targets, followed by other targets of the same kind."""
        values = np.concatenate([self.values, other.values])
        return replace(
            self, values=values, observed=np.concatenate([self.observed, other.observed])
        )

    def missing(self, n: int) -> "Targets":
        """Return `n` targets of the same kind, all of which are missing."""
        values, observed = (np.zeros((n, *part.shape[1:])) for part in (self.values, self.observed))
        return replace(self, values=values, observed=observed)

    @property
    def any_observed(self) -> NDArray[np.bool_]:
        """Mask (n_samples,) of the rows that have at least one target of positive weight."""
        return np.any(self.observed > 0, axis=1)

    @property
    def standardized(self) -> Floats:
        """The values in the units in which the loss receives them."""
        if self.units is None:
            return self.values
        center, scale = self.units
        return np.where(self.observed > 0, (self.values - center) / scale, 0.0)


def targets_of_positive_weight(
    y: Any, weight: Floats, estimator: object
) -> tuple[Any, NDArray[np.float64]]:
    """Select the targets and weights of rows of positive weight.

    Parameters
    ----------
    y : array-like, sparse matrix or None
        Targets of all rows.
    weight : ndarray of shape (n_samples,)
        Weights of all rows.
    estimator : object
        Estimator whose class error messages mention.

    Returns
    -------
    y : ndarray or pandas object
        Targets of the rows of positive weight.
    weight : ndarray of shape (n_positive,)
        Weights of these rows, in float64.

    Raises
    ------
    ValueError
        If y is None, or if its length differs from that of `weight`.
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


def rare_rows(targets: Targets | None, weight: Floats) -> NDArray[np.bool_]:
    """Mark the rows with known targets if they have less than half of the total weight.

    Otherwise, no row is marked. None of the marked rows is held out.
    """
    known = np.zeros(len(weight), dtype=bool) if targets is None else targets.alone.any_observed
    return known & (weight @ known < 0.5 * weight.sum())


# ------------------------------------------------------------------------------ training


def join_targets(y: Any, y_val: Any) -> NDArray[Any]:
    """Return the targets of training rows, followed by those of validation rows.

    Raises ValueError if they have different shapes, or if only one of them contains strings.
    """
    parts = [y.toarray() if hasattr(y, "toarray") else y for y in (y, y_val)]
    first, second = (infer_numbers(np.asarray(part)) for part in parts)
    are_texts = [part.dtype.kind in "OUS" for part in (first, second)]
    if first.shape[1:] != second.shape[1:] or len({*are_texts}) > 1:
        raise ValueError(
            "y_val must have values and columns of the same kind as y, got "
            f"{short_repr(y_val)} and {short_repr(y)}."
        )
    return np.concatenate([first, second])


def n_columns(y: Any) -> int:
    """Return the number of columns of y. A vector has one column."""
    return y.shape[1] if y.ndim > 1 else 1


def column_names(y: Any) -> list[str]:
    """Return the names of the columns of y, or "y0", "y1" and so on if y has no names."""
    numbered = [f"y{j}" for j in range(n_columns(y))]
    return [str(name) for name in getattr(y, "columns", numbered)]


class ProbabilisticClassifier(ClassifierMixin):
    """Mixin for classifiers with a `predict_proba`, from which their predictions are computed."""

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Compute the accuracy: the share of rows that are predicted correctly.

        If there are several labels, a row counts as correct only if all its labels are.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            True classes or labels. An unlabeled row, whose class is -1, counts as a wrong
            prediction. Labels must not be missing.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of rows. None gives all rows a weight of 1.

        Returns
        -------
        score : float
            Accuracy, from 0 to 1.

        Raises
        ------
        ValueError
            If X is invalid, or if y is invalid or contains NaN.
        """
        return super().score(X, infer_numbers(y), sample_weight)

    def predict_log_proba(self, X: Any) -> Floats:
        """Compute the logarithms of `predict_proba`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.

        Returns
        -------
        log_probabilities : ndarray of shape (n_samples, n_classes) or (n_samples, n_labels)
            Log-probabilities in nats, -inf for probabilities of 0.
        """
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def predict(self, X: Any) -> NDArray[Any]:
        """Predict the most likely class of rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Predicted classes.
        """
        # `predict_proba` is called first: it raises NotFittedError if there is no `classes_`.
        likely = self.predict_proba(X).argmax(axis=1)
        return self.classes_[likely]


def check_same_classes(classes: NDArray[Any] | None, passed: Any) -> NDArray[Any] | None:
    """Return the classes of an earlier call of `partial_fit`, or those passed to the current call.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,) or None
        Sorted classes of the earlier call. None if there was none.
    passed : array-like of shape (n_classes,) or None
        Classes passed to the current call, in any order.

    Returns
    -------
    classes : ndarray of shape (n_classes,) or None
        The sorted classes. None if both arguments are None.

    Raises
    ------
    ValueError
        If neither argument is None and they differ.
    """
    if passed is None:
        return classes
    passed = np.unique(passed)
    if classes is not None and not np.array_equal(classes, passed):
        raise ValueError(
            f"classes must be those of the first call, {short_repr(classes.tolist())}, got "
            f"{short_repr(passed.tolist())}."
        )
    return passed


def read_classes(y: Any, classes: NDArray[Any] | None = None) -> tuple[NDArray[Any], Floats]:
    """Read y as classes, and encode the class of each row as a one-hot vector.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Classes of the rows. If `classes` is None, -1 marks a row without a class, unless 1 is the
        only other value: -1 and 1 are two classes. Otherwise, -1 marks such a row if `classes` does
        not contain -1.
    classes : ndarray of shape (n_classes,) or None, default=None
        Sorted classes. None uses the classes that occur in y.

    Returns
    -------
    classes : ndarray of shape (n_classes,)
        The sorted classes.
    values : ndarray of shape (n_samples, n_classes)
        One-hot vectors. Rows without a class have zeros only.

    Raises
    ------
    ValueError
        If y has several columns, contains a missing value such as NaN or None, is not finite or
        contains numbers that are not classes, if it contains both numbers, other than -1 for rows
        without a class, and strings, if there are fewer than two classes, or if y contains a class
        that is not in `classes`.
    """
    _check_no_missing_class(y)
    y = infer_numbers(column_or_1d(y, warn=True))
    assert_all_finite(y, input_name="y")
    known = ~_is_unlabeled(y)
    if classes is not None and len(classes) < 2:
        raise ValueError(
            f"classes must contain at least 2 classes, got {short_repr(classes.tolist())}."
        )
    others = {*y[known].tolist()}
    if classes is None and len(others) == 1 and not known.all() and others != {-UNLABELED}:
        raise ValueError(
            f"y must contain at least 2 classes, got only {short_repr(others.pop())} and -1, which "
            "marks rows of unknown class. If -1 is a class itself, replace it by another value."
        )
    known |= UNLABELED in classes if classes is not None else len(others) < 2
    if len({isinstance(c, str) for c in y[known]}) > 1:
        raise ValueError(
            "Mix of label input types (string and number): y contains both strings and numbers, "
            "other than -1 for rows without a class. Pass classes of a single type."
        )
    check_classification_targets(y[known])
    found, indices = np.unique(y[known], return_inverse=True)
    if classes is None:
        if len(found) < 2:
            only = f"got only {short_repr(found.tolist()[0])}"
            got = "but no row has a label" if found[0] == UNLABELED else only
            raise ValueError(f"y must contain at least 2 classes, {got}.")
        classes = found
    unexpected = np.setdiff1d(found, classes)
    if len(unexpected):
        raise ValueError(
            f"y contains {short_repr(unexpected.tolist()[0])}, but the classes are "
            f"{short_repr(classes.tolist())}."
        )
    values = np.zeros((len(y), len(classes)))
    values[np.flatnonzero(known), np.searchsorted(classes, found)[indices]] = 1
    return classes, values


def _check_no_missing_class(y: Any) -> None:
    """Raise ValueError if y contains NaN, None or another missing value, instead of -1."""
    values = np.asarray(y, dtype=object).ravel()
    missing = pd.isna(values)
    if missing.any():
        raise ValueError(
            f"Input y contains {'NaN' if values[missing][0] is not None else None}. Rows without "
            "a class are marked by -1. Replace missing values, for example by "
            "pandas.Series(y).astype(object).fillna(-1)."
        )


def infer_numbers(y: Any) -> Any:
    """Convert an array of objects that are all numbers to an array of numbers.

    Columns of data frames with several kinds of values are often arrays of objects. All other
    targets are returned unchanged.
    """
    values = np.asarray(y)
    if values.dtype.kind == "O" and all(isinstance(value, Real) for value in values.flat):
        return np.array(values.tolist())
    return y


def read_classes_and_prior(
    y: Any, weight: Floats, classes: NDArray[Any] | None, learned: dict[str, Any]
) -> Targets:
    """Read y as classes, and estimate the proportions of the classes from rows of weight `weight`.

    `classes` is as in `read_classes`. The classes and their proportions are in `learned` of the
    targets. Those in the argument `learned`, of earlier rows, are kept.
    """
    classes, values = read_classes(y, classes)
    # Adding one row of each class keeps all proportions positive.
    number = weight @ values + 1
    learned = {"classes_": classes, "class_prior_": number / number.sum()} | learned
    return Targets(values, values.sum(axis=1, keepdims=True), learned=learned)


def _is_unlabeled(y: NDArray[Any]) -> NDArray[np.bool_]:
    if y.dtype.kind == "O":
        return np.array([isinstance(c, Real) and c == UNLABELED for c in y], dtype=bool)
    return y == UNLABELED if y.dtype.kind in "if" else np.zeros(len(y), dtype=bool)


def read_multiclass(
    y: Any, class_weight: Any, sample_weight: Floats, classes: NDArray[Any] | None = None
) -> tuple[NDArray[Any], Targets]:
    """Read y as classes, and return the sorted classes and the targets.

    The weight of each observed class is that in `class_weight`, a dict, "balanced" or None.
    `sample_weight` (n_samples,) is used for "balanced" only. `classes` is as in `read_classes`.
    """
    classes, values = read_classes(y, classes)
    known = values.any(axis=1)
    if isinstance(class_weight, list):
        raise ValueError("class_weight must not be a list unless y has several columns of labels.")
    found = classes[values[known].argmax(axis=1)]
    weights = _class_weights(class_weight, classes, found, sample_weight[known])
    return classes, Targets(values, values @ weights[:, None])


def _class_weights(
    class_weight: Any, classes: NDArray[Any], y: NDArray[Any], sample_weight: Floats
) -> Floats:
    """Compute the weight (n_classes,) of each of `classes`.

    If `class_weight` is "balanced", the weights are computed from `y`, the observed classes
    (n_observed,) of rows, and from the sample weights of these rows.
    """
    weights: Floats = compute_class_weight(
        class_weight, classes=classes, y=y, sample_weight=sample_weight
    )
    if not (weights >= 0).all():
        raise ValueError(f"class_weight must not be negative or NaN, got {weights.min():g}.")
    return weights


def read_multilabel(
    y: Any, class_weight: Any, sample_weight: Floats, is_complete: bool = True
) -> Targets:
    """Read y as binary labels.

    Parameters
    ----------
    y : array-like of shape (n_samples, n_labels)
        Labels of 0 and 1, NaN where missing.
    class_weight : dict, list, "balanced" or None
        Weights of 0 and 1 for every label, or a list with the weights for each label.
    sample_weight : ndarray of shape (n_samples,)
        Weights of the rows, from which "balanced" is computed.
    is_complete : bool, default=True
        Whether a label must have both 0 and 1. It is False for a part of a stream of rows.

    Returns
    -------
    targets : Targets
        The labels, weighted by `class_weight`.

    Raises
    ------
    ValueError
        If y contains other values, if no label has both 0 and 1 with positive weights, or if
        `class_weight` is invalid.
    """
    y = check_array(y, dtype=np.float64, ensure_all_finite="allow-nan", input_name="y")
    invalid = np.argwhere(~(np.isnan(y) | (y == 0) | (y == 1)))
    if len(invalid):
        row, column = invalid[0]
        raise ValueError(
            "Unknown label type: a column of labels must contain only 0, 1, or NaN for a missing "
            f"label, got {y[row, column]:g} in column {column}."
        )
    by_column = class_weight if isinstance(class_weight, list) else [class_weight] * y.shape[1]
    if len(by_column) != y.shape[1]:
        raise ValueError(
            f"class_weight has {len(by_column)} entries, but y has {y.shape[1]} columns."
        )
    weight = np.zeros_like(y)
    for j, cells in enumerate(y.T):
        known = ~np.isnan(cells)
        classes, own = np.unique(cells[known]), by_column[j]
        # A dict may contain the weight of a value that is missing in a part of a stream.
        classes = np.array([0.0, 1.0]) if isinstance(own, dict) else classes
        if known.any():
            weights = _class_weights(own, classes, cells[known], sample_weight[known])
            weight[known, j] = weights[np.searchsorted(classes, cells[known])]
    counts = weight * sample_weight[:, None] > 0
    has_both = (counts & (y == 1)).any(axis=0) & (counts & (y == 0)).any(axis=0)
    if is_complete and not has_both.any():
        raise ValueError(
            "y must contain at least 2 classes, but no column has rows of both 0 and 1."
        )
    return Targets(np.nan_to_num(y), weight)


def read_binary_label(y: Any) -> Floats:
    """Read y as a column (n_samples, 1) of a single label, NaN where the label is missing.

    If both 0 and 1 occur, -1 also marks a missing label. All other values are returned unchanged.
    `read_multilabel` raises an error for those that are not 0, 1 or NaN.

    Raises ValueError if y is not a single column of finite numbers and NaN.
    """
    y = check_array(
        column_or_1d(y, warn=True)[:, None],
        dtype=np.float64,
        ensure_all_finite="allow-nan",
        input_name="y",
    )
    missing = (y == UNLABELED) & ({0.0, 1.0} <= {*y[:, 0].tolist()})
    return np.where(missing, np.nan, y)


def read_numbers(y: Any, is_complete: bool = True) -> Floats:
    """Read y as an array (n_samples, n_targets) of numbers, NaN where missing.

    A vector becomes an array of one column. Raises ValueError if y contains infinite values or
    texts, or if a column contains NaN only, unless `is_complete` is False.
    """
    y = check_array(
        y, dtype=np.float64, ensure_2d=False, ensure_all_finite="allow-nan", input_name="y"
    )
    y = y[:, None] if y.ndim == 1 else y
    empty = np.flatnonzero(np.isnan(y).all(axis=0))
    if is_complete and len(empty):
        raise ValueError(f"y must contain numbers, but column {empty[0]} of y is NaN in all rows.")
    return y
