"""The schema of a table: what the user's X says, kept from the first fit on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data

from skae._compat.sklearn import check_feature_names, column_indices, safe_indexing
from skae.files import Stored
from skae.table.columns import Column, Support, column_values
from skae.table.rows import Floats, Rows, hash_rows, merged, shuffled
from skae.table.sequences import RowShape

MatrixLike = Any
"""What scikit-learn's validation accepts: arrays, data frames of any library, lists."""

ColumnKey = Any
"""Columns as ColumnTransformer takes them: names, numbers, a slice, a mask, or a callable."""

FLOATS = [np.float64, np.float32]


@dataclass(frozen=True)
class Schema(Stored):
    """How the tables of one model are read and written.

    Attributes
    ----------
    owner : str
        The estimator's name, for messages.
    n_columns : int
        The user's columns.
    names : ndarray of shape (n_columns,) or None
        Their names, where all are strings.
    modelled : ndarray of int
        The numbers of columns that are modelled.
    conditions : list of Column
        The columns that hold conditions of rows.
    parameter : str
        Name of the estimator's parameter that selects them.
    support : Support
        What cells of modelled columns may be.
    shape : RowShape
        What a row is beside a list of cells.
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
    ) -> tuple[Self, Rows]:
        """The schema of training rows, and these rows.

        `conditions` are the name of the parameter that selects their columns, and its value.
        Raises ValueError or TypeError where X cannot be used.
        """
        (parameter, key), reader = conditions, _reader(owner)
        columns: list[Column] = []
        if key is None:
            X = values = _validated(reader, X, shape, ensure_min_samples=2)
        else:
            X = _container(X, owner, ensure_min_samples=2)
            validate_data(reader, X, skip_check_array=True)
            labels = X.columns if hasattr(X, "columns") else range(X.shape[1])
            chosen = find_columns(X, key, parameter)
            if len(chosen) == X.shape[1]:
                raise ValueError(
                    f"{parameter}={key!r} names all {len(chosen)} feature(s) of X: none is left to "
                    "be modelled."
                )
            columns = [Column.infer(X, int(j), str(labels[j])) for j in chosen]
        names = getattr(reader, "feature_names_in_", None)
        modelled = np.setdiff1d(np.arange(X.shape[1]), [column.index for column in columns])
        schema = cls(owner, X.shape[1], names, modelled, columns, parameter, support, shape)
        if key is None:
            return schema, schema._rows(values, None)
        return schema, schema._read_with_conditions(X)

    def check_well_formed(self) -> None:
        """Raise ValueError where a file that holds the schema cannot be one of a fit."""
        modelled = self.modelled.ravel().tolist()
        indices = sorted([*modelled, *(column.index for column in self.conditions)])
        # The number of columns may be absurd: it is compared before they are counted off.
        if not modelled or len(indices) != self.n_columns or indices != [*range(self.n_columns)]:
            raise ValueError(f"the columns of a schema do not make up {self.n_columns}")
        if self.names is not None and (
            self.names.shape != (self.n_columns,)
            or not all(isinstance(name, str) for name in self.names)
        ):
            raise ValueError(f"{self.n_columns} columns cannot have the names {self.names!r}")
        if self.modelled.ndim != 1 or modelled != sorted(modelled):
            raise ValueError("the modelled columns of a schema are not in order")
        for column in self.conditions:
            column.check_well_formed()

    @property
    def n_levels(self) -> tuple[int, ...]:
        """The number of levels of each condition; 0 where it holds numbers."""
        return tuple(column.n_levels for column in self.conditions)

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """The shape of a row's modelled cells."""
        return self.shape.full(len(self.modelled))

    def number(self, j: int) -> int:
        """Which of the user's columns a column of `Rows` is."""
        return int([*self.modelled, *(column.index for column in self.conditions)][j])

    def without_names(self) -> Self:
        """The same schema for tables whose columns have no names."""
        return replace(self, names=None)

    def read(self, X: MatrixLike) -> Rows:
        """Validated rows of the columns of the fit.

        Raises ValueError or TypeError where X cannot be used.
        """
        if not self.conditions:
            return self._rows(_validated(self._reader(), X, self.shape, reset=False), None)
        X = _container(X, self.owner)
        validate_data(self._reader(), X, reset=False, skip_check_array=True)
        return self._read_with_conditions(X)

    def read_corrupted(self, X: MatrixLike, rows: Rows) -> Rows:
        """Corrupted versions of rows; their cells may be outside the likelihood's range."""
        name = "X_corrupted"
        cells = self._read_modelled(X, dtype=rows.values.dtype, input_name=name)
        if cells.shape != rows.modelled.shape:
            raise ValueError(
                f"{name} has shape {cells.shape}, but X has {rows.modelled.shape}: they go in "
                "pairs."
            )
        return replace(rows, values=joined(cells, rows.conditions))

    def read_conditions(self, condition: Any, n: int) -> Floats:
        """A condition that the user states, for each of `n` rows or one for all, as cells.

        Raises ValueError where it is not one.
        """
        if not self.conditions:
            raise ValueError(f"condition must be None: {self.parameter}=None gives no columns.")
        names = [column.name for column in self.conditions]
        wanted = f"condition must hold values of {', '.join(names)}"
        if isinstance(condition, pd.Series) and {*names} <= {*map(str, condition.index)}:
            condition = {str(name): value for name, value in condition.items()}
        if isinstance(condition, Mapping):
            condition = pd.DataFrame([condition])
        order: Sequence[int] = range(len(names))
        if hasattr(condition, "columns"):
            found = [*map(str, condition.columns)]
            absent = [name for name in names if name not in found]
            if absent:
                raise ValueError(f"{wanted}, but has no column {absent[0]}.")
            order = [found.index(name) for name in names]
        else:
            is_array = isinstance(condition, np.ndarray)
            table = condition if is_array else np.array(condition, dtype=object)
            if table.ndim < 2:
                table = table.reshape((-1, 1) if len(names) == 1 else (1, -1))
            if table.ndim > 2 or table.shape[1] != len(names):
                raise ValueError(f"{wanted}, in this order, got {condition!r}.")
            condition = table
        cells = self._condition_cells(condition, order)
        if len(cells) not in (1, n):
            raise ValueError(f"{wanted}: one row for all or {n}, got {len(cells)}.")
        return np.broadcast_to(cells, (n, len(names)))

    def write(self, cells: Floats, conditions: Floats | None = None) -> NDArray[Any]:
        """Modelled cells in the user's columns, beside those of conditions or zeros."""
        if not self.conditions:
            return cells
        n = len(cells)
        values: list[Any] = [0] * len(self.conditions)
        if conditions is not None:
            pairs = zip(self.conditions, conditions.T, strict=True)
            values = [column.values(part) for column, part in pairs]
        kinds = {_dtype(np.asarray(value), cells.dtype) for value in values}
        rows = np.empty((n, self.n_columns), np.result_type(*kinds))
        rows[:, self.modelled] = cells
        for column, value in zip(self.conditions, values, strict=True):
            rows[:, column.index] = value
        return rows

    def check_same_columns(self, X: MatrixLike, key: ColumnKey) -> None:
        """Raise ValueError where training is to go on with other conditions."""
        now = [] if key is None else find_columns(as_container(X), key, self.parameter).tolist()
        before = [column.index for column in self.conditions]
        if now != before:
            raise ValueError(
                f"{self.parameter}={key!r} names the columns {now}, but those of the first fit "
                f"were {before}, so training cannot go on from it. Restore it, or fit anew with "
                "warm_start=False."
            )

    def _reader(self) -> BaseEstimator:
        """What scikit-learn's validation compares a table with."""
        reader = _reader(self.owner)
        reader.n_features_in_ = self.n_columns
        if self.names is not None:
            reader.feature_names_in_ = self.names
        return reader

    def _read_with_conditions(self, X: Any) -> Rows:
        cells = self._read_modelled(X, dtype=FLOATS, estimator=self.owner, input_name="X")
        indices = [column.index for column in self.conditions]
        return self._rows(cells, self._condition_cells(X, indices))

    def _read_modelled(self, X: MatrixLike, **checks: Any) -> Floats:
        """Cells of modelled columns, which need not be within the likelihood's range."""
        check_feature_names(self._reader(), X, reset=False)
        X = self.shape.as_table(X, self.n_columns)
        if self.conditions:
            X = as_container(X)
            if X.shape[1:] != (self.n_columns,):
                raise ValueError(
                    f"Rows must have {self.n_columns} columns, conditions among them, got shape "
                    f"{X.shape}."
                )
            X = safe_indexing(X, self.modelled, axis=1)
        cells = check_array(X, ensure_all_finite=self.shape.finiteness, **checks)
        return self.shape.check_ends(cells)

    def _condition_cells(self, X: Any, indices: Sequence[int]) -> Floats:
        pairs = zip(self.conditions, indices, strict=True)
        return np.hstack([column.cells(column_values(X, j, column.name)) for column, j in pairs])

    def _rows(self, cells: Floats, conditions: Floats | None) -> Rows:
        self.support.check(cells, self.owner)
        values = cells if conditions is None else joined(cells, conditions)
        return Rows(values, self.n_levels, self.shape.may_end_early)


MOST_CONDITIONS = 10_000
"""Conditions of training rows that are kept: they stand for all."""


@dataclass(frozen=True)
class SeenConditions(Stored):
    """Conditions of training rows, from which `sample` draws.

    Attributes
    ----------
    cells : ndarray of shape (n, n_conditions)
        Distinct ones.
    weight : ndarray of shape (n,)
        How often each occurs.
    """

    cells: Floats
    weight: Floats

    def check_well_formed(self, n_levels: tuple[int, ...]) -> None:
        """Raise ValueError where a file that holds them cannot be that of a fit."""
        cells, weight = self.cells, self.weight
        if cells.shape != (len(weight), len(n_levels)) or weight.ndim != 1:
            raise ValueError("conditions and their weights are not those of this model")
        total = weight.sum()
        if not (np.isfinite(cells).all() and (weight >= 0).all() and 0 < total < np.inf):
            raise ValueError("conditions and their weights must be finite numbers")
        for column, n in zip(cells.T, n_levels, strict=True):
            if n and not np.isin(column, np.arange(n)).all():
                raise ValueError("conditions have other levels than their columns")

    @classmethod
    def of(cls, rows: Rows, weight: Floats, earlier: Self | None) -> Self:
        """The conditions of rows and of those seen earlier."""
        cells = rows.conditions.astype(np.float64)
        if earlier is not None:
            cells = np.vstack([earlier.cells, cells])
            weight = np.append(earlier.weight, weight)
        hashes = hash_rows(cells, 0, rows.n_levels)
        index, total = merged(weight, hashes)
        some = shuffled(hashes[index], MOST_CONDITIONS)
        return cls(cells[index[some]], total[some])

    def draw(self, uniform: Floats) -> Floats:
        """Conditions, each as often as it occurs, for numbers (n,) uniform in [0, 1)."""
        ends = self.weight.cumsum() / self.weight.sum()
        chosen = np.searchsorted(ends, uniform, side="right")
        drawn: Floats = self.cells[chosen.clip(max=len(ends) - 1)]
        return drawn


def find_columns(X: Any, key: ColumnKey, parameter: str) -> NDArray[np.intp]:
    """Numbers of the columns of a table that `key`, the value of a parameter, names.

    Raises ValueError where there are none.
    """
    try:
        chosen = np.unique(column_indices(X, key(X) if callable(key) else key))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{parameter}={key!r} must name columns of X: {error}") from None
    if not len(chosen):
        raise ValueError(f"{parameter}={key!r} names no column of X; None is for that.")
    return chosen.astype(np.intp)


def as_container(X: Any) -> Any:
    """A table whose columns can be taken one by one, each with its own kind of values."""
    if hasattr(X, "columns") or hasattr(X, "dtype"):
        return X
    return np.asarray(X) if hasattr(X, "__array__") else np.array(X, dtype=object)


def _container(X: MatrixLike, owner: str, **checks: Any) -> Any:
    """A validated container, whose values may be of any kind."""
    X = as_container(X)
    if hasattr(X, "columns"):
        return X
    return check_array(X, dtype=None, ensure_all_finite=False, estimator=owner, **checks)


@cache
def _bare_class(owner: str) -> type[BaseEstimator]:
    return type(owner, (BaseEstimator,), {})


def _reader(owner: str) -> Any:
    """A bare estimator of a name: validation leaves what it learns there, not on the user's.

    scikit-learn's messages name the class of what it validates for.
    """
    return _bare_class(owner)()


def _validated(reader: Any, X: MatrixLike, shape: RowShape, **checks: Any) -> Floats:
    """Numbers of a table without conditions."""
    X = shape.as_table(X, getattr(reader, "n_features_in_", None))
    options = {"dtype": FLOATS, "ensure_all_finite": shape.finiteness} | checks
    cells: Floats = validate_data(reader, X, **options)
    return shape.check_ends(cells)


def joined(cells: Floats, conditions: Floats) -> Floats:
    """Modelled cells, or codes, followed by cells of conditions."""
    if not conditions.shape[1]:
        return cells
    # Columns that were selected one by one come in Fortran's order, and rows are read row by row.
    return np.ascontiguousarray(np.hstack([cells, conditions.astype(cells.dtype)]))


def _dtype(values: NDArray[Any], dtype: Any) -> Any:
    """The kind of rows that can hold a column's values beside cells of a kind."""
    if values.dtype.kind == "O":
        return np.dtype(object)
    return dtype if (values.astype(dtype) == values).all() else np.dtype(np.float64)
