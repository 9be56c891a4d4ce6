"""Results for the cells of a table, in the container of this table."""

from collections.abc import Mapping, Sequence
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def index_of(X: Any) -> Any:
    """Return the index of a pandas DataFrame, or None for any other table."""
    return X.index if isinstance(X, pd.DataFrame) else None


def is_frame(X: Any) -> bool:
    """Return whether `X` is a data frame of pandas, polars or another library.

    pandas is asked first, because narwhals refuses data frames in which names occur twice.
    """
    if isinstance(X, pd.DataFrame):
        return True
    return isinstance(nw.from_native(X, eager_only=True, pass_through=True), nw.DataFrame)


def default_names(names: Any, n: int) -> list[str]:
    """Return names of columns, which are "x0", "x1" and so on if `names` is None."""
    return [f"x{j}" for j in range(n)] if names is None else [*names]


def table_in_frame(X: Any, table: Floats, index: tuple[str, Any], names: Any) -> Any:
    """Return a table as a data frame of the library of `X`, or unchanged if `X` is an array.

    `index` is a title and the names of the rows: the index of a pandas DataFrame, and the first
    column of others. `names` are those of the columns, or None.
    """
    if not is_frame(X):
        return table
    title, rows = index
    names = default_names(names, table.shape[1])
    while title in names:
        title += "_"
    if isinstance(X, pd.DataFrame):
        return pd.DataFrame(table, pd.Index(rows, name=None), names)
    columns = {title: [*rows]} | dict(zip(names, table.T, strict=True))
    library = nw.get_native_namespace(nw.from_native(X, eager_only=True))
    return nw.from_dict(columns, backend=library).to_native()


def tables_in_frame(X: Any, titles: Sequence[str], tables: Floats, names: Any) -> Any:
    """Return tables (n_samples, n_tables, n_columns) as `tables_like`, or unchanged for arrays.

    `names` are those of the columns, which may differ from those of `X`, or None.
    """
    if not is_frame(X):
        return tables
    names = default_names(names, tables.shape[2])
    if isinstance(X, pd.DataFrame):
        return tables_like(pd.DataFrame(index=X.index, columns=names), titles, tables, None)
    library = nw.get_native_namespace(nw.from_native(X, eager_only=True))
    empty = nw.from_numpy(tables[:0, 0], schema=names, backend=library)
    return tables_like(empty.to_native(), titles, tables, None)


def tables_like(X: Any, titles: Sequence[str], tables: Floats, names: Any) -> Any:
    """Arrange several tables with the columns of `X` side by side.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_columns)
        Table of the user.
    titles : sequence of str
        Titles of the tables.
    tables : ndarray of shape (n_samples, n_tables, n_columns)
        Cells of the tables. A pandas DataFrame shares their memory.
    names : sequence of str or None
        Names of the columns if `X` is not a data frame. None is "x0", "x1" and so on.

    Returns
    -------
    result : pandas DataFrame, or dict of data frames
        A pandas DataFrame with a column for each pair of a title and a column. If `X` is a pandas
        DataFrame, it has the index of `X`. If `X` is a data frame of another library, in which
        columns have no levels, the result is a dict of data frames of this library, by title.
    """
    frame = nw.from_native(X, eager_only=True, pass_through=True)
    if isinstance(frame, nw.DataFrame) and not isinstance(X, pd.DataFrame):
        library = nw.get_native_namespace(frame)
        return {
            title: nw.from_numpy(cells, schema=frame.columns, backend=library).to_native()
            for title, cells in zip(titles, tables.swapaxes(0, 1), strict=True)
        }
    n, _, n_columns = tables.shape
    index = None
    if isinstance(X, pd.DataFrame):
        index, names = X.index, X.columns
    elif names is None:
        names = [f"x{j}" for j in range(n_columns)]
    columns = pd.concat({title: pd.DataFrame(columns=names) for title in titles}, axis=1).columns
    return pd.DataFrame(tables.reshape(n, -1), index, columns, copy=False)


def frames_like(X: Any, titles: Sequence[str], tables: Sequence[Any], names: Any) -> Any:
    """Arrange several tables of any dtypes side by side, as `tables_like` does.

    The tables are arrays (n_samples, n_columns) or data frames, whose library may differ from that
    of `X`.
    """
    frame = nw.from_native(X, eager_only=True, pass_through=True)
    if isinstance(frame, nw.DataFrame) and not isinstance(X, pd.DataFrame):
        library = nw.get_native_namespace(frame)
        return {
            title: _as_frame(table, frame.columns, library)
            for title, table in zip(titles, tables, strict=True)
        }
    columns = pd.Index(default_names(names, tables[0].shape[1]))
    if isinstance(X, pd.DataFrame):
        columns = X.columns
    frames = {}
    for title, table in zip(titles, tables, strict=True):
        if is_frame(table) and not isinstance(table, pd.DataFrame):
            # narwhals would convert it by pyarrow, which need not be installed.
            table = nw.from_native(table, eager_only=True).to_dict(as_series=False)
        part = pd.DataFrame(table, copy=False).infer_objects()
        frames[title] = part.set_axis(columns, axis=1)
        if isinstance(X, pd.DataFrame):
            frames[title].index = X.index
    return pd.concat(frames, axis=1)


def _as_frame(table: Any, names: Sequence[str], library: Any) -> Any:
    """Convert an array or a data frame to a data frame of a library other than pandas."""
    if isinstance(table, np.ndarray):
        return nw.from_numpy(table, schema=names, backend=library).to_native()
    if not isinstance(table, pd.DataFrame):
        return table
    objects = table.astype(object)
    objects = objects.where(objects.notna(), None)
    columns = {name: objects.iloc[:, j].tolist() for j, name in enumerate(names)}
    return nw.from_dict(columns, backend=library).to_native()


def side_by_side(tables: Any) -> Any:
    """Convert a dict of data frames to a pandas DataFrame; return any other object unchanged."""
    if not isinstance(tables, Mapping):
        return tables
    frames = {title: nw.from_native(table) for title, table in tables.items()}
    return pd.concat(
        {t: pd.DataFrame(frame.to_dict(as_series=False)) for t, frame in frames.items()}, axis=1
    )
