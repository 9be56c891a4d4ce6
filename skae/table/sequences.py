"""Shapes of rows that are images or sequences, and missing steps at the ends of sequences."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skae.files import Stored
from skae.parameters import is_integer, short_repr

Floats = NDArray[np.floating]

MIN_WEIGHT = 1e-300
"""Smallest weight by which `fill_with_means` divides. It prevents a division by 0 for columns
without observed cells."""


def check_feature_shape(feature_shape: Sequence[int]) -> None:
    """Raise ValueError if `feature_shape` holds other values than positive integers and one -1."""
    invalid = [size for size in feature_shape if not is_integer(size) or (size < 1 and size != -1)]
    if invalid or not feature_shape or list(feature_shape).count(-1) > 1:
        raise ValueError(
            "feature_shape must hold positive integers, one of which may be -1 to be inferred from "
            f"the number of columns, got {short_repr(feature_shape)}."
        )


def full_shape(feature_shape: Sequence[int] | None, n_features: int) -> tuple[int, ...]:
    """Return the shape of a row, in which a -1 of `feature_shape` is inferred from `n_features`.

    If `feature_shape` is None, a row is a vector. Raises ValueError if `feature_shape` is invalid
    or does not match `n_features`.
    """
    if feature_shape is None:
        return (n_features,)
    check_feature_shape(feature_shape)
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
        """Flatten the rows of an array with more than two axes; return any other array unchanged.

        `n_columns` is the number of columns of the fitted table, or None before the fit. If the
        sequences in X may end early and are shorter than those of the fit, or if they are items of
        a list that have different lengths, missing steps (NaN) are appended. Raises ValueError if
        the rows of X do not have the shape `feature_shape`, or if that is None.
        """
        shapes = row_shapes(X)
        if shapes and self.may_end_early and self.feature_shape and len(self.feature_shape) == 2:
            return self._pad(X, self.feature_shape, n_columns)
        check_equal_shapes(shapes)
        if shapes and (len(shapes[0]) > 1 or all(row_shapes(X[0]) or [()])):
            X = _as_array(X)
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
            is_moved = (*row_shape[-1:], *row_shape[:-1]) == shape
            raise ValueError(
                f"X must have rows of shape {shape} for feature_shape="
                f"{tuple(self.feature_shape)}, got rows of shape {tuple(row_shape)}."
                + " Move the last axis: np.moveaxis(X, -1, 1)."
                * is_moved
            )
        return X.reshape(len(X), math.prod(row_shape))

    def _pad(self, X: Any, feature_shape: Sequence[int], n_columns: int | None) -> Floats:
        """Convert a list of sequences to a table, in which missing steps are NaN.

        A sequence is an array of shape (time, channels), or its cells in C order.
        """
        check_feature_shape(feature_shape)
        rows = [_read_sequence(row, i) for i, row in enumerate(X)]
        n_steps, n_channels = feature_shape if n_columns is None else self.full(n_columns)
        if n_channels == -1:
            n_channels = max(row.shape[1] if row.ndim > 1 else 1 for row in rows)
        if n_steps == -1:
            n_steps = -(-max(row.size for row in rows) // n_channels)
        dtype = np.float32 if all(row.dtype == np.float32 for row in rows) else np.float64
        table = np.full((len(rows), n_steps * n_channels), np.nan, dtype)
        for i, row in enumerate(rows):
            fits = row.size % n_channels == 0 and row.size <= table.shape[1]
            is_flat = row.ndim == 1 or (row.ndim == 2 and row.shape[1] == n_channels)
            if not (fits and is_flat):
                raise ValueError(
                    f"Row {i} of X must have the shape (time, {n_channels}) and at most {n_steps} "
                    f"steps for feature_shape={tuple(feature_shape)}, got the shape "
                    f"{row.shape}."
                )
            table[i, : row.size] = row.ravel()
        return table

    def check_ends(self, X: Floats) -> Floats:
        """Check that only last steps of sequences are missing, as `check_ends`; return the rows."""
        return check_ends(X, self.full(X.shape[1])[0]) if self.may_end_early else X


def row_shapes(X: Any) -> list[tuple[int, ...]] | None:
    """Return the shapes of the rows of a list or of an array of objects.

    The shape of a row that is not an array is its length, or () if it has none. Returns None for
    any other table, and if no row has a length.
    """
    is_array = isinstance(X, np.ndarray) and X.dtype.kind == "O" and X.ndim == 1
    if not (isinstance(X, list | tuple) or is_array):
        return None
    shapes = [getattr(row, "shape", None) or _length(row) for row in X]
    return [tuple(shape) for shape in shapes] if any(shapes) else None


def _length(row: Any) -> tuple[int, ...]:
    """Return the length of a row, as the shape of an array, or () if it is not a sequence."""
    is_sequence = isinstance(row, Sequence) and not isinstance(row, str | bytes)
    return (len(row),) if is_sequence else ()


def _read_sequence(row: Any, i: int) -> Floats:
    """Convert row `i` of a list of sequences to an array of floats."""
    steps = row_shapes(row) or [()]
    if len({*steps}) > 1:
        raise ValueError(
            f"All steps of a sequence must have the same number of channels, but row {i} of X has "
            f"steps of the shapes {steps[0]} and {next(s for s in steps if s != steps[0])}."
        )
    try:
        values = np.asarray(row)
        return values if values.dtype == np.float32 else values.astype(np.float64)
    except (ValueError, TypeError) as error:
        raise type(error)(f"Row {i} of X must hold one number per channel: {error}") from None


def _as_array(X: Any) -> NDArray[Any]:
    """Convert a list of arrays of the same shape to an array."""
    try:
        return np.asarray(X)
    except ValueError:
        raise ValueError(
            "The rows of X must be arrays of the same shape, but parts of the same row have "
            "different lengths."
        ) from None


def as_padded(X: Any, n_columns: int = 0) -> Any:
    """Convert a list of rows of different lengths to a table of at least `n_columns` columns.

    Rows are flattened, and NaN is appended to those that are too short. Any other table is returned
    unchanged.
    """
    if len({*(row_shapes(X) or ())}) <= 1:
        return X
    rows = [_read_sequence(row, i).ravel() for i, row in enumerate(X)]
    table = np.full((len(rows), max(n_columns, *map(len, rows))), np.nan)
    for cells, row in zip(table, rows, strict=True):
        cells[: len(row)] = row
    return table


def check_equal_shapes(shapes: Sequence[tuple[int, ...]] | None) -> None:
    """Raise ValueError if rows have different shapes."""
    if shapes and len({*shapes}) > 1:
        other = next(i for i, shape in enumerate(shapes) if shape != shapes[0])
        raise ValueError(
            f"All rows of X must have the same length, but row 0 has the shape {shapes[0]} and row "
            f"{other} has the shape {shapes[other]}. Only autoencoders with "
            "architecture='recurrent' and feature_shape=(time, channels) accept sequences of "
            "different lengths, as a list or padded with NaN at the end."
        )


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
    return np.where(missing, column_means(X[index], weight), X).astype(X.dtype)


def column_means(X: Floats, weight: Floats) -> Floats:
    """Compute the weighted means of the observed cells of columns, 0 without any."""
    observed_weight = weight @ ~np.isnan(X)
    means: Floats = weight @ np.nan_to_num(X) / np.maximum(observed_weight, MIN_WEIGHT)
    return means
