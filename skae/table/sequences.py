"""Images and sequences as rows of a table, and what is missing where sequences end."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skae.files import Stored

Floats = NDArray[np.floating]

LEAST_WEIGHT = 1e-300
"""Keeps the mean of a column that no row has from dividing by zero."""


def full_shape(feature_shape: Sequence[int] | None, n_features: int) -> tuple[int, ...]:
    """The shape of a row, any -1 in it replaced by what the number of columns leaves.

    None is a row without axes. Raises ValueError where there is no such shape.
    """
    if feature_shape is None:
        return (n_features,)
    wrong = [
        size
        for size in feature_shape
        if not isinstance(size, Integral) or isinstance(size, bool) or (size < 1 and size != -1)
    ]
    if wrong or not feature_shape or list(feature_shape).count(-1) > 1:
        raise ValueError(
            "feature_shape must hold positive integers, at most one of them -1 for what the number "
            f"of columns leaves, got {feature_shape!r}."
        )
    known = math.prod(size for size in feature_shape if size != -1)
    shape = tuple(n_features // known if size == -1 else int(size) for size in feature_shape)
    if math.prod(shape) != n_features:
        raise ValueError(
            f"feature_shape={tuple(feature_shape)} is for rows of "
            f"{known}{' times any number of' if -1 in feature_shape else ''} cells, but X has "
            f"{n_features} columns."
        )
    return shape


@dataclass(frozen=True)
class RowShape(Stored):
    """The shape of a row, and whether rows may be sequences shorter than others.

    Parameters
    ----------
    feature_shape : tuple of int or None
        As estimators take it.
    may_end_early : bool
        Whether the last steps of rows may be missing, NaN.
    """

    feature_shape: Sequence[int] | None
    may_end_early: bool

    @property
    def finiteness(self) -> bool | str:
        """What scikit-learn's validation is to ask of cells."""
        return "allow-nan" if self.may_end_early else True

    def full(self, n_columns: int) -> tuple[int, ...]:
        """The shape of a row of so many columns."""
        return full_shape(self.feature_shape, n_columns)

    def as_table(self, X: Any, n_columns: int | None) -> Any:
        """Arrays of more than two axes as tables of so many columns; all else as it is.

        `n_columns` is None where X is to decide. Steps that shorter sequences lack are added, as
        NaN. Raises ValueError where X has rows of another shape.
        """
        _, *rows = getattr(X, "shape", (0,)) or (0,)
        if len(rows) <= 1:
            return X
        if self.feature_shape is None:
            raise ValueError(
                f"Found array with dim {len(rows) + 1}, rows of shape {tuple(rows)}: give "
                "feature_shape or reshape X to (n_samples, n_features)."
            )
        X = np.asarray(X)
        shape = self.full(n_columns or math.prod(rows))
        is_like = len(rows) == len(shape) and rows[1:2] == list(shape[1:2])
        if self.may_end_early and is_like and rows[0] < shape[0]:
            after = [(0, 0), (0, shape[0] - rows[0]), (0, 0)]
            X = np.pad(X.astype(np.result_type(X, np.float32)), after, constant_values=np.nan)
            rows = list(shape)
        # Axes of length 1 change nothing about the order of the cells.
        if [size for size in rows if size != 1] != [size for size in shape if size != 1]:
            raise ValueError(
                f"X has rows of shape {tuple(rows)}, but feature_shape={tuple(self.feature_shape)} "
                f"wants {shape}: bring their axes into this order."
            )
        return X.reshape(len(X), math.prod(rows))

    def check_ends(self, X: Floats) -> Floats:
        """Rows of which only the ends of sequences may be missing."""
        return check_ends(X, self.full(X.shape[1])[0]) if self.may_end_early else X


def check_ends(X: Floats, n_steps: int) -> Floats:
    """Sequences, one in each row, whose missing steps, all NaN, are their last ones.

    Raises ValueError where something else is missing.
    """
    missing: NDArray[np.bool_] = np.isnan(X)
    if not missing.any():
        return X
    steps = missing.reshape(len(X), n_steps, -1)
    over: NDArray[np.bool_] = np.asarray(steps.any(axis=2))
    wrong: NDArray[np.bool_] = np.asarray(over != steps.all(axis=2))
    wrong[:, 0] |= over[:, 0]
    wrong[:, 1:] |= over[:, :-1] & ~over[:, 1:]
    if wrong.any():
        raise ValueError(
            f"Row {wrong.any(axis=1).argmax()} of X has NaN before its end. A sequence may be "
            "shorter than others: NaN in all channels of its last steps. It has one step at least "
            "and no gaps."
        )
    # One NaN of the many that there are, so that equal rows have equal bits.
    X = X.copy()
    X[missing] = np.nan
    return X


def filled(X: Floats, index: NDArray[np.intp], weight: Floats) -> NDArray[Any]:
    """Rows with their columns' means where cells are missing.

    Distinct rows are those at `index`, with these weights.
    """
    missing = np.isnan(X)
    if not missing.any():
        return X
    present = weight @ ~missing[index]
    total = weight @ np.nan_to_num(X[index])
    return np.where(missing, total / np.maximum(present, LEAST_WEIGHT), X).astype(X.dtype)
