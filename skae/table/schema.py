"""The schema of X in the first fit, which determines how all later tables are read and written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data

from skae._compat.sklearn import check_feature_names, column_indices, safe_indexing
from skae.files import Stored
from skae.parameters import short_repr
from skae.table.cells import column_label, read_cells
from skae.table.columns import Column, Support, column_values
from skae.table.rows import Floats, Rows
from skae.table.sequences import RowShape, check_equal_shapes, row_shapes

MatrixLike = Any
"""Any table that scikit-learn's validation accepts: arrays, data frames of any library, lists."""

ColumnKey = Any
"""Selection of columns as in ColumnTransformer: names, indices, a slice, a mask, or a callable."""

FLOATS = [np.float64, np.float32]
"""Accepted dtypes of cells; others are converted to the first."""


@dataclass(frozen=True)
class Schema(Stored):
    """Columns of the tables of one model, with methods that validate and convert such tables.

    Attributes
    ----------
    owner : str
        Class name of the estimator, for error messages.
    n_columns : int
        Number of columns of X.
    names : ndarray of shape (n_columns,) or None
        Names of the columns. None if X has no column names, or if not all of them are strings.
    modelled : ndarray of shape (n_modelled,), int
        Indices of the modelled columns, in increasing order.
    conditions : list of Column
        The other columns, which are conditions, in increasing order of their indices.
    parameter : str
        Name of the estimator's parameter that selects the columns of conditions, or "" if it has no
        such parameter.
    support : Support
        Interval of the values that modelled cells may have.
    shape : RowShape
        Shape of the modelled cells of a row.
    """

    owner: str
    n_columns: int
    names: NDArray[Any] | None
    modelled: NDArray[np.intp]
    conditions: list[Column]
    parameter: str
    support: Support
    shape: RowShape

    @classmethod
    def infer(
        cls,
        X: MatrixLike,
        conditions: tuple[str, ColumnKey],
        support: Support,
        shape: RowShape,
        owner: str,
        min_rows: int = 2,
    ) -> tuple[Self, Rows]:
        """Make the schema of a training table, and read its rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_columns)
            The table.
        conditions : tuple of (str, column selection or None)
            Name of the estimator's parameter that selects the columns of conditions, and the value
            of this parameter. If the value is None, all columns are modelled.
        support : Support
            Interval of the values that modelled cells may have.
        shape : RowShape
            Shape of the modelled cells of a row.
        owner : str
            Class name of the estimator, for error messages.
        min_rows : int, default=2
            Smallest number of rows.

        Returns
        -------
        schema : Schema
            Schema of the table.
        rows : Rows
            Validated rows of the table.

        Raises
        ------
        ValueError, TypeError
            If `X` is invalid, for instance because it has too few rows, or if the selection of
            conditions is invalid.
        """
        (parameter, key), validator = conditions, make_validator(owner)
        columns: list[Column] = []
        if key is None:
            X = values = _validate(validator, X, shape, ensure_min_samples=min_rows)
        else:
            X = _validate_container(X, owner, ensure_min_samples=min_rows)
            validate_data(validator, X, skip_check_array=True)
            labels = X.columns if hasattr(X, "columns") else range(X.shape[1])
            chosen = find_columns(X, key, parameter)
            if len(chosen) == X.shape[1]:
                raise ValueError(
                    f"{parameter}={short_repr(key)} must not select all {len(chosen)} feature(s) "
                    "of X, since at least one must be modelled."
                )
            columns = [Column.infer(X, int(j), str(labels[j])) for j in chosen]
        names = getattr(validator, "feature_names_in_", None)
        modelled = np.setdiff1d(np.arange(X.shape[1]), [column.index for column in columns])
        schema = cls(owner, X.shape[1], names, modelled, columns, parameter, support, shape)
        if key is None:
            return schema, schema._make_rows(values, None)
        return schema, schema._read_with_conditions(X)

    def _check_state(self) -> None:
        modelled = self.modelled.ravel().tolist()
        indices = sorted([*modelled, *(column.index for column in self.conditions)])
        # The lengths are compared first, as a file may state too many columns to list.
        if not modelled or len(indices) != self.n_columns or indices != [*range(self.n_columns)]:
            raise ValueError(f"a schema of {self.n_columns} columns must hold each of them once")
        if self.names is not None and (
            self.names.shape != (self.n_columns,)
            or not all(isinstance(name, str) for name in self.names)
        ):
            raise ValueError(f"a schema must have {self.n_columns} names, got {self.names!r}")
        if self.modelled.ndim != 1 or modelled != sorted(modelled):
            raise ValueError("the modelled columns of a schema must be in increasing order")

    @property
    def n_levels(self) -> tuple[int, ...]:
        """Number of levels of each condition, which is 0 for numeric conditions."""
        return tuple(column.n_levels for column in self.conditions)

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of the modelled cells of a row."""
        return self.shape.full(len(self.modelled))

    def column_label(self, j: int) -> str:
        """Return the index in X of column `j` of `Rows`, and its name, for an error message."""
        index = int([*self.modelled, *(column.index for column in self.conditions)][j])
        return column_label(index, None if self.names is None else self.names[index])

    def without_names(self) -> Self:
        """Return a copy of the schema for tables without column names."""
        return replace(self, names=None)

    def read(self, X: MatrixLike) -> Rows:
        """Validate a table with the columns of the fit, and return its rows.

        Raises ValueError or TypeError if the table is invalid.
        """
        if not self.conditions:
            cells = _validate(self._fitted_validator(), X, self.shape, reset=False)
            return self._make_rows(cells, None)
        X = _validate_container(X, self.owner)
        validate_data(self._fitted_validator(), X, reset=False, skip_check_array=True)
        return self._read_with_conditions(X)

    def read_corrupted(self, X: MatrixLike, rows: Rows) -> Rows:
        """Read corrupted versions of rows, from a table with the columns of the fit.

        The result has the modelled cells of the table, which may lie outside `support`, and the
        conditions of `rows`. Raises ValueError or TypeError if the table is invalid.
        """
        name = "X_corrupted"
        cells = self._read_modelled(X, dtype=rows.values.dtype, input_name=name)
        if cells.shape != rows.modelled.shape:
            raise ValueError(
                f"{name} must have the shape of X, {rows.modelled.shape}, got {cells.shape}."
            )
        return replace(rows, values=append_conditions(cells, rows.conditions))

    def read_conditions(self, condition: Any, n: int) -> Floats:
        """Read the argument `condition` of a method for `n` rows.

        It holds either one condition for all rows or one for each row: a mapping or a Series by
        name of the column, a data frame, or an array or list in the order of `conditions`. Returns
        cells of shape (n, n_conditions). Raises ValueError or TypeError if it is invalid.
        """
        if not self.conditions:
            raise ValueError(
                f"condition must be None, since the model was fitted with {self.parameter}=None."
            )
        names = [column.name for column in self.conditions]
        requirement = f"condition must hold values of {', '.join(names)}"
        if isinstance(condition, pd.Series) and {*names} <= {*map(str, condition.index)}:
            condition = {str(name): value for name, value in condition.items()}
        if isinstance(condition, Mapping):
            condition = pd.DataFrame([condition])
        order: Sequence[int] = range(len(names))
        if hasattr(condition, "columns"):
            found = [*map(str, condition.columns)]
            absent = [name for name in names if name not in found]
            if absent:
                raise ValueError(f"{requirement}, but it has no column {short_repr(absent[0])}.")
            order = [found.index(name) for name in names]
        else:
            is_array = isinstance(condition, np.ndarray)
            table = condition if is_array else np.array(condition, dtype=object)
            if table.ndim < 2:
                table = table.reshape((-1, 1) if len(names) == 1 else (1, -1))
            if table.ndim > 2 or table.shape[1] != len(names):
                raise ValueError(f"{requirement}, in this order, got {short_repr(condition)}.")
            condition = table
        cells = self._encode_conditions(condition, order)
        if len(cells) not in (1, n):
            raise ValueError(f"{requirement}, in one row or in {n} rows, got {len(cells)} rows.")
        return np.broadcast_to(cells, (n, len(names)))

    def write(self, cells: Floats, conditions: Floats | None = None) -> NDArray[Any]:
        """Arrange modelled cells and conditions in the order of the columns of X.

        Returns an array of shape (n, n_columns). If `conditions` is None, the columns of conditions
        are 0.
        """
        if not self.conditions:
            return cells
        n = len(cells)
        values: list[Any] = [0] * len(self.conditions)
        if conditions is not None:
            pairs = zip(self.conditions, conditions.T, strict=True)
            values = [column.decode(part) for column, part in pairs]
        dtypes = {_result_dtype(np.asarray(value), cells.dtype) for value in values}
        rows = np.empty((n, self.n_columns), np.result_type(*dtypes))
        rows[:, self.modelled] = cells
        for column, value in zip(self.conditions, values, strict=True):
            rows[:, column.index] = value
        return rows

    def check_same_columns(self, X: MatrixLike, key: ColumnKey) -> None:
        """Raise ValueError unless the same conditions are selected as in the fit that is resumed.

        `key` is the present value of the parameter that selects the columns of conditions.
        """
        now = [] if key is None else find_columns(as_container(X), key, self.parameter).tolist()
        before = [column.index for column in self.conditions]
        if now != before:
            raise ValueError(
                f"{self.parameter}={short_repr(key)} selects the columns {now}, but the first fit "
                f"selected {before}, so that training cannot resume. Restore {self.parameter}, or "
                "call fit with warm_start=False to start from scratch."
            )

    def _fitted_validator(self) -> BaseEstimator:
        """Make an estimator with fitted attributes, with which `validate_data` compares tables."""
        return make_validator(self.owner, self.n_columns, self.names)

    def _read_with_conditions(self, X: Any) -> Rows:
        """Read rows from a data frame or an array that `_validate_container` has returned."""
        cells = self._read_modelled(X, dtype=FLOATS, estimator=self.owner, input_name="X")
        indices = [column.index for column in self.conditions]
        return self._make_rows(cells, self._encode_conditions(X, indices))

    def _read_modelled(self, X: MatrixLike, **checks: Any) -> Floats:
        """Validate modelled columns and return their cells, without checking their support."""
        check_feature_names(self._fitted_validator(), X, reset=False)
        X = self.shape.as_table(as_container(X) if self.conditions else X, self.n_columns)
        if self.conditions:
            if X.shape[1:] != (self.n_columns,):
                raise ValueError(
                    f"{checks['input_name']} must have {self.n_columns} columns, including "
                    f"conditions, got shape {X.shape}."
                )
            X = safe_indexing(X, self.modelled, axis=1)
        read = partial(check_array, **checks)
        cells = read_cells(read, X, self.shape.finiteness, checks["input_name"], self.modelled)
        return self.shape.check_ends(cells)

    def _encode_conditions(self, X: Any, indices: Sequence[int]) -> Floats:
        """Convert the columns of X at `indices` to cells of shape (n, n_conditions)."""
        pairs = zip(self.conditions, indices, strict=True)
        return np.hstack([column.encode(column_values(X, j, column.name)) for column, j in pairs])

    def _make_rows(self, cells: Floats, conditions: Floats | None) -> Rows:
        """Make rows after checking the support of modelled cells."""
        self.support.check(cells, self.owner, self.column_label)
        values = cells if conditions is None else append_conditions(cells, conditions)
        return Rows(values, self.n_levels, self.shape.may_end_early)


def find_columns(X: Any, key: ColumnKey, parameter: str) -> NDArray[np.intp]:
    """Return the sorted indices of the columns of X that `key`, the value of a parameter, selects.

    Raises ValueError if it selects no column or is not a valid selection.
    """
    try:
        chosen = np.unique(column_indices(X, key(X) if callable(key) else key))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(
            f"{parameter}={short_repr(key)} must select columns of X: {error}"
        ) from None
    if not len(chosen):
        raise ValueError(
            f"{parameter}={short_repr(key)} must select at least one column of X, got 0. Set "
            f"{parameter}=None for a model without conditions."
        )
    return chosen.astype(np.intp)


def as_container(X: Any) -> Any:
    """Convert lists to arrays of objects, so that columns may have different types.

    Data frames and arrays are returned unchanged.
    """
    if hasattr(X, "columns") or hasattr(X, "dtype"):
        return X
    check_equal_shapes(row_shapes(X))
    return np.asarray(X) if hasattr(X, "__array__") else np.array(X, dtype=object)


def _validate_container(X: MatrixLike, owner: str, **checks: Any) -> Any:
    """Convert a table whose values may have any type; validate the shape unless it is a frame."""
    X = as_container(X)
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


def _validate(validator: Any, X: MatrixLike, shape: RowShape, **checks: Any) -> Floats:
    """Validate a table without conditions and return its cells."""
    X = shape.as_table(X, getattr(validator, "n_features_in_", None))
    read = partial(validate_data, validator, dtype=FLOATS, **checks)
    return shape.check_ends(read_cells(read, X, shape.finiteness))


def append_conditions(cells: Floats, conditions: Floats) -> Floats:
    """Append the cells of conditions to the cells of modelled columns."""
    if not conditions.shape[1]:
        return cells
    # Columns that were selected one by one are in Fortran order, but rows are read in blocks.
    return np.ascontiguousarray(np.hstack([cells, conditions.astype(cells.dtype)]))


def _result_dtype(values: NDArray[Any], dtype: Any) -> Any:
    """Return the dtype of a table that holds the values of a column next to cells of `dtype`."""
    if values.dtype.kind == "O":
        return np.dtype(object)
    return dtype if (values.astype(dtype) == values).all() else np.dtype(np.float64)
