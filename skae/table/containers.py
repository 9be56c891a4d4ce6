"""Results for the cells of a table, in the container of this table."""

from collections.abc import Mapping, Sequence
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.floating]


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


def side_by_side(tables: Any) -> Any:
    """Convert a dict of data frames to a pandas DataFrame; return any other object unchanged."""
    if not isinstance(tables, Mapping):
        return tables
    frames = {title: nw.from_native(table) for title, table in tables.items()}
    return pd.concat(
        {t: pd.DataFrame(frame.to_numpy(), columns=frame.columns) for t, frame in frames.items()},
        axis=1,
    )
