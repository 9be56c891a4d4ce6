"""Shapes of rows that are images or sequences, and missing steps at the ends of sequences."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skae.files import Stored

Floats = NDArray[np.floating]

MIN_WEIGHT = 1e-300
"""Smallest weight by which `fill_with_means` divides. It prevents a division by 0 for columns
without observed cells."""


def full_shape(feature_shape: Sequence[int] | None, n_features: int) -> tuple[int, ...]:
    """Return the shape of a row, in which a -1 of `feature_shape` is inferred from `n_features`.

    If `feature_shape` is None, a row is a vector. Raises ValueError if `feature_shape` is invalid
    or does not match `n_features`.
    """
    if feature_shape is None:
        return (n_features,)
    invalid = [
        size
        for size in feature_shape
        if not isinstance(size, Integral) or isinstance(size, bool) or (size < 1 and size != -1)
    ]
    if invalid or not feature_shape or list(feature_shape).count(-1) > 1:
        raise ValueError(
            "feature_shape must hold positive integers, one of which may be -1 to be inferred from "
            f"the number of columns, got {feature_shape!r}."
        )
    known = math.prod(size for size in feature_shape if size != -1)
    shape = tuple(n_features // known if size == -1 else int(size) for size in feature_shape)
    if math.prod(shape) != n_features:
        raise ValueError(
            f"feature_shape={tuple(feature_shape)} requires "
            f"{'a multiple of ' if -1 in feature_shape else ''}{known} columns, but X has "
            f"{n_features} columns."
        )
    return shape


@dataclass(frozen=True)
class RowShape(Stored):
    """Shape of the rows of a table, and whether rows may be sequences of different lengths.

    Attributes
    ----------
    feature_shape : sequence of int or None
        Value of the parameter `feature_shape` of an autoencoder.
    may_end_early : bool
        Whether the last steps of a row may be missing (NaN), as in recurrent autoencoders.
    """

    feature_shape: Sequence[int] | None
    may_end_early: bool

    @property
    def finiteness(self) -> bool | str:
        """Value of the parameter `ensure_all_finite` of scikit-learn's validation functions."""
        return "allow-nan" if self.may_end_early else True

    def full(self, n_columns: int) -> tuple[int, ...]:
        """Return the shape of a row with `n_columns` modelled cells; see `full_shape`."""
        return full_shape(self.feature_shape, n_columns)

    def as_table(self, X: Any, n_columns: int | None) -> Any:
        """Flatten the rows of an array with more than two axes; return any other X unchanged.

        `n_columns` is the number of columns of the fitted table, or None before the fit. If the
        sequences in X may end early and are shorter than those of the fit, missing steps (NaN) are
        appended. Raises ValueError if the rows of X do not have the shape `feature_shape`, or if
        that is None.
        """
        _, *row_shape = getattr(X, "shape", (0,)) or (0,)
        if len(row_shape) <= 1:
            return X
        if self.feature_shape is None:
            raise ValueError(
                f"Found array with dim {len(row_shape) + 1}, whose rows have the shape "
                f"{tuple(row_shape)}. Set feature_shape or reshape X to (n_samples, n_features)."
            )
        X = np.asarray(X)
        shape = self.full(n_columns or math.prod(row_shape))
        has_same_channels = len(row_shape) == len(shape) and row_shape[1:2] == list(shape[1:2])
        if self.may_end_early and has_same_channels and row_shape[0] < shape[0]:
            padding = [(0, 0), (0, shape[0] - row_shape[0]), (0, 0)]
            X = np.pad(X.astype(np.result_type(X, np.float32)), padding, constant_values=np.nan)
            row_shape = list(shape)
        # Axes of length 1 do not change the order of the cells.
        if [size for size in row_shape if size != 1] != [size for size in shape if size != 1]:
            raise ValueError(
                f"X must have rows of shape {shape} for feature_shape="
                f"{tuple(self.feature_shape)}, got rows of shape {tuple(row_shape)}."
            )
        return X.reshape(len(X), math.prod(row_shape))

    def check_ends(self, X: Floats) -> Floats:
        """Check that only last steps of sequences are missing, as `check_ends`; return the rows."""
        return check_ends(X, self.full(X.shape[1])[0]) if self.may_end_early else X


def check_ends(X: Floats, n_steps: int) -> Floats:
    """Check that only the last steps of sequences are missing, each in all of its channels.

    Each row is one sequence of `n_steps` steps, of which the first must be observed. Returns the
    rows, in which all NaN have the same bits. Raises ValueError if another cell is missing.
    """
    missing: NDArray[np.bool_] = np.isnan(X)
    if not missing.any():
        return X
    steps = missing.reshape(len(X), n_steps, -1)
    ended: NDArray[np.bool_] = np.asarray(steps.any(axis=2))
    invalid: NDArray[np.bool_] = np.asarray(ended != steps.all(axis=2))
    invalid[:, 0] |= ended[:, 0]
    invalid[:, 1:] |= ended[:, :-1] & ~ended[:, 1:]
    if invalid.any():
        raise ValueError(
            f"Row {invalid.any(axis=1).argmax()} of X contains NaN before its end. Only the last "
            "steps of a sequence may be missing, as NaN in all channels, and the first step must "
            "be observed."
        )
    # Equal rows must have equal bits to have equal hashes, but there are many bit patterns of NaN.
    X = X.copy()
    X[missing] = np.nan
    return X


def fill_with_means(X: Floats, index: NDArray[np.intp], weight: Floats) -> NDArray[Any]:
    """Replace missing cells by the means of their columns.

    The means are those of the distinct rows at `index`, weighted by `weight`. A column without
    observed cells is filled with 0. If no cell is missing, `X` itself is returned.
    """
    missing = np.isnan(X)
    if not missing.any():
        return X
    observed_weight = weight @ ~missing[index]
    total = weight @ np.nan_to_num(X[index])
    return np.where(missing, total / np.maximum(observed_weight, MIN_WEIGHT), X).astype(X.dtype)
