"""Validation of cells by scikit-learn, with errors that name the column and the row of a cell."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from skae._compat.sklearn import safe_indexing
from skae.parameters import short_repr
from skae.table.sequences import check_equal_shapes, row_shapes

Floats = NDArray[np.floating]


def read_cells(
    read: Callable[..., Floats],
    X: Any,
    finiteness: bool | str,
    name: str = "X",
    indices: NDArray[np.intp] | None = None,
) -> Floats:
    """Read a table by a function of scikit-learn that converts its cells to floats.

    Parameters
    ----------
    read : callable
        Function of the table and the keyword argument `ensure_all_finite`, such as `check_array`.
    X : array-like of shape (n_samples, n_columns)
        The table.
    finiteness : bool or "allow-nan"
        Whether cells must be finite; "allow-nan" permits NaN.
    name : str, default="X"
        Name of the table in error messages.
    indices : ndarray of shape (n_columns,), default=None
        Indices of the columns in the user's table, if `X` contains only some of its columns.

    Returns
    -------
    cells : ndarray of shape (n_samples, n_columns)
        The cells.

    Raises
    ------
    ValueError, TypeError
        If `read` raises it, or if a cell is not finite. The error names the first cell that is not
        a number, or not finite.
    """
    check_equal_shapes(row_shapes(X))
    try:
        cells = read(X, ensure_all_finite=False)
    except (ValueError, TypeError):
        _check_numbers(X, lambda j: f"{_label(X, j, indices)} of {name}")
        raise
    _check_finite(cells, finiteness, lambda j: f"{_label(X, j, indices)} of {name}")
    return cells


def column_label(index: int, name: object) -> str:
    """Return the index of a column and, unless it is None, its name, for an error message."""
    return str(index) if name is None else f"{index} ({short_repr(name)})"


def _label(X: Any, j: int, indices: NDArray[np.intp] | None) -> str:
    """Return the label of column `j` of X; `indices` is as in `read_cells`."""
    names = getattr(X, "columns", None)
    return column_label(
        j if indices is None else int(indices[j]), None if names is None else list(names)[j]
    )


def _check_finite(cells: Floats, finiteness: bool | str, describe: Callable[[int], str]) -> None:
    """Raise ValueError if a cell is infinite, or NaN unless `finiteness` is "allow-nan"."""
    # The sum is finite if all cells are, unless it overflows. It needs no additional memory.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(cells.sum()):
            return
    wrong = np.isinf(cells) if finiteness == "allow-nan" else ~np.isfinite(cells)
    if not wrong.any():
        return
    row, column = (int(i) for i in np.unravel_index(wrong.argmax(), wrong.shape))
    if np.isnan(cells[row, column]):
        raise ValueError(_missing_cell(describe(column), row))
    raise ValueError(
        f"Column {describe(column)} contains infinity in row {row}, or a value that is too large "
        f"for {cells.dtype}. Replace this value or drop the row."
    )


def _missing_cell(column: str, row: int) -> str:
    """Return the message of the error about a missing cell."""
    return (
        f"Column {column} contains NaN in row {row}. Drop rows with missing cells or fill in these "
        "cells, for instance with sklearn.impute.SimpleImputer."
    )


def _check_numbers(X: Any, describe: Callable[[int], str]) -> None:
    """Raise an error that names the first cell of a table that cannot be converted to a float.

    Dense tables of numbers pass the check, and so does anything that is not a dense table.
    """
    table = X if hasattr(X, "columns") or hasattr(X, "dtype") else _as_objects(X)
    if len(getattr(table, "shape", ())) != 2 or hasattr(X, "toarray"):
        return
    for column in range(table.shape[1]):
        cells = np.asarray(safe_indexing(table, column, axis=1))
        values = cells.tolist() if cells.dtype.kind in "SU" else cells
        for row, value in enumerate(values if cells.dtype.kind in "OSUmM" else ()):
            if value is pd.NA:
                raise ValueError(_missing_cell(describe(column), row))
            error = _conversion_error(value)
            if error is not None:
                raise error(
                    f"In column {describe(column)}, each argument must be a number or the string "
                    f"of a number, got {short_repr(value)} in row {row}. Encode categories as "
                    "numbers, for instance with sklearn.preprocessing.OneHotEncoder, or drop the "
                    "column."
                )


def _as_objects(X: Any) -> Any:
    """Convert a list of rows to an array of objects. Return any other object unchanged."""
    try:
        return np.array(X, dtype=object)
    except ValueError:
        return X


def _conversion_error(value: Any) -> type[ValueError] | type[TypeError] | None:
    """Return the type of the error that the conversion of a cell to a float raises, if any."""
    if isinstance(value, np.datetime64 | np.timedelta64):
        return TypeError
    try:
        float(np.nan if value is None else value)
    except ValueError:
        return ValueError
    except TypeError:
        return TypeError
    return None
