"""Data frames that are made from cells, with the columns of the table of the fit."""

from collections.abc import Sequence
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from skae.table.columns import Column
from skae.table.containers import is_frame
from skae.table.dtypes import FrameDtype, PandasDtype
from skae.table.kinds import WIDE_DTYPES


def is_plain(X: Any) -> bool:
    """Return whether scikit-learn converts all columns of `X` to floats as they are.

    This is the case for arrays of numbers or booleans, and for data frames whose columns have
    native dtypes of numbers. Anything that is neither an array nor a data frame is left to
    scikit-learn and is plain, too.
    """
    if isinstance(X, pd.DataFrame):
        return all(_is_plain_dtype(dtype) for dtype in X.dtypes)
    if is_frame(X):
        dtypes = nw.from_native(X, eager_only=True).schema.values()
        return all(dtype.is_numeric() and not isinstance(dtype, WIDE_DTYPES) for dtype in dtypes)
    return not isinstance(X, np.ndarray) or X.dtype.kind not in "OSUTmM"


def _is_plain_dtype(dtype: Any) -> bool:
    """Return whether a dtype of pandas is a native one of real numbers, or a sparse one of them."""
    dtype = dtype.subtype if isinstance(dtype, pd.SparseDtype) else dtype
    return isinstance(dtype, np.dtype) and dtype.kind in "fiu"


def library_of(X: Any) -> str:
    """Return the name of the library of a data frame, such as "pandas", or "" for other tables."""
    if isinstance(X, pd.DataFrame):
        return "pandas"
    if not is_frame(X):
        return ""
    return str(nw.from_native(X, eager_only=True).implementation.value)


def make_frame(
    library: Any,
    columns: Sequence[Column],
    cells: NDArray[np.floating],
    index: pd.Index | None = None,
) -> Any:
    """Make a data frame from cells, with the labels and dtypes of the columns of the fit.

    Parameters
    ----------
    library : str
        Name of the library, as `library_of` returns it.
    columns : sequence of Column
        The columns, whose order in the data frame is that of their indices.
    cells : ndarray of shape (n_samples, n_columns)
        Cells of the columns. Missing ones are NaN.
    index : pandas Index or None, default=None
        Index of a pandas DataFrame. None is a range.

    Returns
    -------
    frame : data frame
        A data frame of the library. If a column has missing cells and its dtype has none, it has
        the dtype that pandas chooses for such values.
    """
    order = np.argsort([column.index for column in columns])
    columns = [columns[j] for j in order]
    values = [column.decode(cells[:, j]) for column, j in zip(columns, order, strict=True)]
    if library == "pandas":
        pairs = zip(columns, values, strict=True)
        series = dict(enumerate(_pandas_series(column, part) for column, part in pairs))
        frame = pd.DataFrame(series, pd.RangeIndex(len(cells)))
        frame.columns = pd.Index([column.label for column in columns])
        if index is not None:
            frame.index = index
        return frame
    parts = {
        str(column.label): _other_series(column, part, library).to_native()
        for column, part in zip(columns, values, strict=True)
    }
    return nw.from_dict(parts, backend=library).to_native()


def fill_frame(X: Any, columns: Sequence[Column], cells: NDArray[np.floating]) -> Any:
    """Return a copy of a data frame whose missing cells have other values.

    The copy is a data frame of the library of `X`. Values are written with the dtypes of `X`, which
    may differ from those of the fit.

    Parameters
    ----------
    X : data frame
        The table.
    columns : sequence of Column
        The columns to fill.
    cells : ndarray of shape (n_samples, n_columns)
        All cells of these columns.
    """
    columns = [column.with_dtype_of(X) for column in columns]
    values = [column.decode(part) for column, part in zip(columns, cells.T, strict=True)]
    if isinstance(X, pd.DataFrame):
        return _fill_pandas(X, columns, values)
    frame = nw.from_native(X, eager_only=True)
    for column, part in zip(columns, values, strict=True):
        series = frame[:, column.index]
        missing = series.is_null() | (series.is_nan() if series.dtype.is_float() else False)
        if not missing.any():
            continue
        own = _other_series(column, part, nw.get_native_namespace(frame))
        if isinstance(own.dtype, nw.Enum):
            # The level of infrequent categories may be missing in the Enum of the table.
            series = series.cast(own.dtype)
        frame = frame.with_columns(series.zip_with(~missing, own).alias(series.name))
    return frame.to_native()


def append_flags(X: Any, flags: NDArray[np.bool_], names: Sequence[str]) -> Any:
    """Append columns of flags (n_samples, n_flags) to a data frame or an array.

    `names` are those of all columns of the result. An array has no names.
    """
    if not is_frame(X):
        return np.hstack([X, flags.astype(X.dtype)])
    n = X.shape[1]
    if isinstance(X, pd.DataFrame):
        parts = [X, pd.DataFrame(flags, X.index)]
        return pd.concat(parts, axis=1).set_axis([*names], axis=1)
    frame = nw.from_native(X, eager_only=True)
    library = nw.get_native_namespace(frame)
    pairs = zip(names[n:], flags.T, strict=True)
    return frame.with_columns(
        *[nw.new_series(name, part, backend=library) for name, part in pairs]
    ).to_native()


def _fill_pandas(
    X: pd.DataFrame, columns: Sequence[Column], values: Sequence[NDArray[Any]]
) -> pd.DataFrame:
    """Fill the missing cells of a pandas DataFrame by position, as names may occur twice."""
    parts = [X.iloc[:, j] for j in range(X.shape[1])]
    for column, part in zip(columns, values, strict=True):
        j = column.index
        missing = parts[j].isna()
        if missing.any():
            own = _pandas_series(column, part).set_axis(X.index)
            if isinstance(own.dtype, pd.CategoricalDtype):
                # The level of infrequent categories may be missing in those of the table.
                parts[j] = parts[j].astype(own.dtype)
            parts[j] = own if missing.all() else parts[j].mask(missing, own)
    frame = pd.concat(parts, axis=1)
    frame.columns = X.columns
    return frame


def _pandas_series(column: Column, values: NDArray[Any]) -> pd.Series:
    """Make a column of a pandas DataFrame."""
    dtype = column.dtype
    return dtype.write(values) if isinstance(dtype, PandasDtype) else pd.Series(values)


def _other_series(column: Column, values: NDArray[Any], library: Any) -> nw.Series:
    """Make a column of a data frame of another library."""
    dtype = column.dtype if isinstance(column.dtype, FrameDtype) else FrameDtype("Unknown")
    return dtype.write(values, str(column.label), library)
