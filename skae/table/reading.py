"""Validation of tables before a schema reads them."""

from collections import Counter
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data

from skae.parameters import short_repr
from skae.table.cells import read_cells
from skae.table.frames import is_plain
from skae.table.rows import Floats
from skae.table.sequences import RowShape, check_equal_shapes, row_shapes

MatrixLike = Any
"""Any table that scikit-learn's validation accepts: arrays, data frames of any library, lists."""

FLOATS = [np.float64, np.float32]
"""Accepted dtypes of cells; others are converted to the first."""


def holds_numbers(X: Any) -> bool:
    """Return whether scikit-learn's validation converts all columns to floats as they are."""
    if isinstance(X, np.ndarray) and X.dtype.kind in "US":
        return _are_numbers(X)
    if hasattr(X, "columns") or hasattr(X, "dtype"):
        return is_plain(X)
    if not isinstance(X, list | tuple):
        return True
    try:
        return np.asarray(X).dtype.kind not in "OSUmM"
    except ValueError:  # The rows have different lengths.
        return True


def _are_numbers(texts: NDArray[Any]) -> bool:
    """Return whether all texts of an array can be converted to numbers, as scikit-learn does."""
    try:
        texts.astype(np.float64)
    except ValueError:
        return False
    return True


def as_container(X: Any) -> Any:
    """Convert lists to arrays of objects, so that columns may have different types.

    Data frames and arrays are returned unchanged.
    """
    if hasattr(X, "columns") or hasattr(X, "dtype"):
        return X
    check_equal_shapes(row_shapes(X))
    return np.asarray(X) if hasattr(X, "__array__") else np.array(X, dtype=object)


def check_unique_names(X: MatrixLike, name: str = "X") -> None:
    """Raise ValueError if two columns of a data frame have the same name.

    scikit-learn does not read such data frames, and its error does not say what to do.
    """
    labels = Counter(list(X.columns) if hasattr(X, "columns") else [])
    for label, times in labels.most_common(1):
        if times > 1:
            raise ValueError(
                f"{name} must have unique column names, got {short_repr(label)} {times} times. "
                "Rename the columns, or pass an array if the names do not matter."
            )


def validate_container(X: MatrixLike, owner: str, **checks: Any) -> Any:
    """Convert a table whose values may have any type; validate the shape unless it is a frame."""
    X = as_container(X)
    check_unique_names(X)
    if hasattr(X, "columns"):
        return X
    return check_array(X, dtype=None, ensure_all_finite=False, estimator=owner, **checks)


@cache
def _make_class(owner: str) -> type[BaseEstimator]:
    """Make an estimator class without parameters that has a given name."""
    return type(owner, (BaseEstimator,), {})


def make_validator(
    owner: str, n_columns: int | None = None, names: NDArray[Any] | None = None
) -> Any:
    """Make an estimator for `validate_data`, which sets its fitted attributes or compares them.

    The user's estimator is thus not changed by tables that turn out to be invalid. The class has
    the name of the user's estimator, as scikit-learn's error messages contain it.

    Parameters
    ----------
    owner : str
        Class name of the user's estimator.
    n_columns : int or None
        Number of columns with which tables are compared. None before the fit.
    names : ndarray of shape (n_columns,) or None
        Names of the columns with which tables are compared. None if there are no names.
    """
    validator: Any = _make_class(owner)()
    if n_columns is not None:
        validator.n_features_in_ = n_columns
    if names is not None:
        validator.feature_names_in_ = names
    return validator


def validate_numbers(
    validator: Any, X: MatrixLike, shape: RowShape, may_miss: bool, **checks: Any
) -> tuple[Any, Floats]:
    """Validate a table of numbers without conditions. Return it and its cells."""
    check_unique_names(X)
    X = shape.as_table(X, getattr(validator, "n_features_in_", None))
    read = partial(validate_data, validator, dtype=FLOATS, **checks)
    finiteness = "allow-nan" if may_miss else shape.finiteness
    cells = shape.check_ends(read_cells(read, X, finiteness))
    return (X if hasattr(X, "columns") else cells), cells


def with_one_nan(cells: Floats) -> tuple[Floats, bool]:
    """Return cells in which all NaN have the same bits, and whether there are any.

    Equal rows must have equal bits to have equal hashes.
    """
    missing = np.isnan(cells)
    if not missing.any():
        return cells, False
    return np.where(missing, np.asarray(np.nan, cells.dtype), cells), True
