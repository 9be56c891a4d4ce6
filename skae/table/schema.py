"""The schema of X in the first fit, which determines how all later tables are read and written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data

from skae._compat.sklearn import check_feature_names, safe_indexing
from skae.files import Stored
from skae.parameters import short_repr
from skae.table.blocks import (
    CATEGORIES,
    Block,
    ColumnKey,
    Modelling,
    find_columns,
    levels_of,
    usual_likelihoods,
)
from skae.table.cells import column_label, read_cells
from skae.table.columns import Column
from skae.table.frames import fill_frame, library_of, make_frame
from skae.table.kinds import as_series
from skae.table.reading import (
    FLOATS,
    MatrixLike,
    as_container,
    check_unique_names,
    holds_numbers,
    make_validator,
    validate_container,
    validate_numbers,
    with_one_nan,
)
from skae.table.rows import Floats, Rows
from skae.table.sequences import RowShape

LIBRARIES = ("", "pandas", "polars", "pyarrow", "modin", "cudf")
"""Libraries of data frames that models know, and "" for arrays."""


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
        Indices of the modelled columns, block by block. In a block of categories, they are in
        increasing order of the numbers of levels, otherwise in increasing order.
    conditions : list of Column
        The other columns, which are conditions, in increasing order of their indices.
    parameter : str
        Name of the estimator's parameter that selects the columns of conditions, or "" if it has no
        such parameter.
    blocks : list of Block
        Blocks of modelled columns that have the same likelihood.
    shape : RowShape
        Shape of the modelled cells of a row.
    columns : list of Column
        The modelled columns, in the order of `modelled`. Empty if the first fit received an array
        of numbers in which each column had an observed cell.
    missing : ndarray of int
        Positions in `modelled` of the columns that had missing cells in the first fit.
    takes_missing : bool
        Whether any cell may be missing.
    library : str
        Library of the data frame of the first fit, or "" if it received an array.
    """

    owner: str
    n_columns: int
    names: NDArray[Any] | None
    modelled: NDArray[np.intp]
    conditions: list[Column]
    parameter: str
    blocks: list[Block]
    shape: RowShape
    columns: list[Column]
    missing: NDArray[np.intp]
    takes_missing: bool
    library: str

    @classmethod
    def infer(
        cls,
        X: MatrixLike,
        conditions: tuple[str, ColumnKey],
        modelling: Modelling,
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
        modelling : Modelling
            Likelihoods of the modelled columns, and which columns may be read.
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
            conditions or of likelihoods is invalid.
        """
        (parameter, key), validator = conditions, make_validator(owner)
        read_all, chosen = modelling.reads_all and not holds_numbers(X), np.zeros(0, dtype=np.intp)
        cells = None
        if key is None and not read_all:
            may_miss = modelling.reads_all
            X, cells = validate_numbers(validator, X, shape, may_miss, ensure_min_samples=min_rows)
        else:
            X = validate_container(X, owner, ensure_min_samples=min_rows)
            validate_data(validator, X, skip_check_array=True)
        if key is not None:
            chosen = find_columns(X, key, parameter)
            if len(chosen) == X.shape[1]:
                raise ValueError(
                    f"{parameter}={short_repr(key)} must not select all {len(chosen)} feature(s) "
                    "of X, since at least one must be modelled."
                )
        labels = list(X.columns) if hasattr(X, "columns") else range(X.shape[1])
        modelled, library = np.setdiff1d(np.arange(X.shape[1]), chosen), library_of(X)
        columns: list[Column] = []
        if read_all or library or (modelling.reads_all and _has_empty_columns(X, modelled)):
            columns = [
                Column.infer(X, int(j), str(labels[j]), modelling.categories) for j in modelled
            ]
        if not library and all(column.is_observed_number for column in columns):
            columns = []
        names = modelling.names(X, modelled.tolist(), columns)
        order = _block_order(names, columns)
        schema = cls(
            owner,
            X.shape[1],
            getattr(validator, "feature_names_in_", None),
            modelled[order],
            [Column.of_condition(X, int(j), str(labels[j])) for j in chosen],
            parameter,
            modelling.blocks([names[i] for i in order]),
            shape,
            [columns[i] for i in order if columns],
            np.zeros(0, dtype=np.intp),
            modelling.reads_all,
            library,
        )
        rows = (
            schema._read(X)
            if cells is None
            else schema._make_rows(cells[:, order] if schema.is_mixed else cells, None)
        )
        if rows.may_have_missing and np.isnan(rows.modelled).all():
            raise ValueError(f"All cells of X are missing (NaN), but {owner} needs observed cells.")
        missing = np.isnan(rows.modelled).any(axis=0) if rows.may_have_missing else np.zeros(0)
        return replace(schema, missing=np.flatnonzero(missing)), rows

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
        if self.modelled.ndim != 1 or sum(b.n_columns for b in self.blocks) != len(modelled):
            raise ValueError("each modelled column of a schema must belong to a block")
        first = 0
        for block in self.blocks:
            own = modelled[first : first + block.n_columns]
            if block.support.likelihood != CATEGORIES and own != sorted(own):
                raise ValueError("the columns of a block of numbers must be in increasing order")
            first += block.n_columns
        if self.columns and [column.index for column in self.columns] != modelled:
            raise ValueError("the columns of a schema must be those that are modelled")
        missing = self.missing.ravel().tolist()
        if missing != sorted({*missing} & {*range(len(modelled))}):
            raise ValueError("the columns with missing cells must be modelled")
        if self.library not in LIBRARIES:
            raise ValueError(f"the library of a data frame cannot be {self.library!r}")
        names = [block.support.likelihood for block in self.blocks]
        if len({*names}) < len(names):
            raise ValueError("the blocks of a schema must have different likelihoods")
        categories = [name == CATEGORIES for name in self.likelihoods]
        found = [column.is_category for column in self.columns] or [False] * len(modelled)
        if any(not have for need, have in zip(categories, found, strict=True) if need):
            raise ValueError("the columns of a categorical block must be categorical")
        n_levels = [n for n in self.modelled_levels if n]
        if len(n_levels) != sum(categories) or n_levels != sorted(n_levels):
            raise ValueError("the numbers of levels of a categorical block must be increasing")

    @classmethod
    def _from_stored_state(cls, state: dict[str, Any]) -> Any:
        if "support" in state:  # Files up to format 4 contain schemas of numbers only.
            state = dict(state)
            block = Block(state.pop("support"), len(state["modelled"]))
            state |= {"blocks": [block], "columns": [], "takes_missing": False, "library": ""}
            state["missing"] = np.zeros(0, dtype=np.intp)
        return super()._from_stored_state(state)

    @property
    def likelihoods(self) -> list[str]:
        """Name of the likelihood of each modelled column."""
        return [block.support.likelihood for block in self.blocks for _ in range(block.n_columns)]

    @property
    def selected_likelihoods(self) -> dict[str, list[int]]:
        """Indices of the columns of each likelihood, by its name."""
        selected: dict[str, list[int]] = {}
        for name, index in zip(self.likelihoods, self.modelled.tolist(), strict=True):
            selected.setdefault(name, []).append(index)
        return selected

    @property
    def usual_likelihoods(self) -> list[str]:
        """Name of the likelihood of each modelled column that its kind selects."""
        return usual_likelihoods(self.columns, len(self.modelled))

    @property
    def is_mixed(self) -> bool:
        """Whether modelled columns have several kinds, or kinds other than numbers."""
        kinds = {column.kind for column in self.columns}
        has_categories = self.blocks[0].support.likelihood == CATEGORIES
        return len(self.blocks) > 1 or has_categories or len(kinds) > 1

    @property
    def modelled_levels(self) -> tuple[int, ...]:
        """Number of levels of each modelled column, 0 for numbers.

        It is empty unless the table is mixed.
        """
        if not self.is_mixed:
            return ()
        names = self.likelihoods
        n_levels = levels_of(self.columns, len(names))
        pairs = zip(n_levels, names, strict=True)
        return tuple(n if name == CATEGORIES else 0 for n, name in pairs)

    @property
    def holds_numbers(self) -> bool:
        """Whether all modelled columns are numbers, without categories, dates or durations."""
        return all(column.kind == "number" for column in self.columns)

    @property
    def encoded_columns(self) -> list[tuple[int, str]]:
        """Index in X and name of each encoded modelled column, in the order of `Rows`.

        A level is named after its column and its category, as by `OneHotEncoder`.
        """
        n_levels = self.modelled_levels or (0,) * len(self.modelled)
        found = []
        for i, (j, n) in enumerate(zip(self.modelled.tolist(), n_levels, strict=True)):
            name = f"x{j}" if self.names is None else str(self.names[j])
            found += [(j, each) for each in (self.columns[i].level_names(name) if n else [name])]
        return found

    @property
    def is_category(self) -> NDArray[np.bool_]:
        """Which columns of `Rows` are modelled columns of categories, (n_columns,)."""
        n_levels = self.modelled_levels or (0,) * len(self.modelled)
        return np.array(n_levels + (0,) * len(self.conditions)) > 0

    def has_likelihood(self, name: str) -> NDArray[np.bool_]:
        """Return which columns of `Rows` are modelled with a likelihood, (n_columns,)."""
        names = self.likelihoods + [""] * len(self.conditions)
        return np.array([own == name for own in names])

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

    def has_cells_of(self, other: "Schema") -> bool:
        """Return whether both schemas have the same columns, up to the units of numbers."""
        own, others = (
            (s.n_columns, s.modelled.tolist(), [*filter(None, s.modelled_levels)], s.n_levels)
            for s in (self, other)
        )
        return own == others

    @property
    def takes_arrays(self) -> bool:
        """Whether tables are arrays of numbers without conditions."""
        return not self.library and not self.conditions and self.holds_numbers

    @property
    def holds_cells(self) -> bool:
        """Whether tables are arrays of numbers, whose cells are those of `Rows`."""
        return self.takes_arrays and not self.is_mixed

    def for_arrays(self) -> Self:
        """Return a copy for arrays without column names if all columns are numbers.

        The schema is returned unchanged if a data frame has columns of other kinds or conditions.
        """
        if self.library and (self.conditions or not self.holds_numbers):
            return self
        return replace(self.in_other_units(), names=None, library="")

    def read(self, X: MatrixLike) -> Rows:
        """Validate a table with the columns of the fit, and return its rows.

        Raises ValueError or TypeError if the table is invalid.
        """
        validator = self._fitted_validator()
        if not self.conditions and not self._reads_columns(X):
            cells = validate_numbers(validator, X, self.shape, self.takes_missing, reset=False)[1]
            return self._make_rows(cells[:, self.modelled] if self.is_mixed else cells, None)
        X = validate_container(X, self.owner)
        validate_data(validator, X, reset=False, skip_check_array=True)
        return self._read(X)

    def read_corrupted(self, X: MatrixLike, rows: Rows) -> Rows:
        """Read corrupted versions of rows, from a table with the columns of the fit.

        The result has the modelled cells of the table, which may lie outside `support`, and the
        conditions of `rows`. Raises ValueError or TypeError if the table is invalid.
        """
        name = "X_corrupted"
        dtype = rows.values.dtype
        cells = self._read_modelled(X, dtype=dtype, input_name=name).astype(dtype, copy=False)
        cells = with_one_nan(cells)[0]
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

    def arrange(self, cells: Floats) -> Floats:
        """Arrange numbers (n, n_modelled) in the order of the columns of X, 0 for conditions."""
        if not self.conditions and not self.is_mixed:
            return cells
        rows = np.zeros((len(cells), self.n_columns), cells.dtype)
        rows[:, self.modelled] = cells
        return rows

    def write(self, cells: Floats, conditions: Floats | None = None, index: Any = None) -> Any:
        """Convert modelled cells and conditions to a table like that of the first fit.

        If that was a data frame, the result is a data frame of the same library with the same
        columns and dtypes; `index` is the index of a pandas DataFrame, or None. Otherwise, it is an
        array of shape (n, n_columns). If `conditions` is None, the columns of conditions are
        missing in a data frame, and 0 in an array.
        """
        n = len(cells)
        cells = self.without_unknown(cells)
        if self.library:
            if conditions is None:
                conditions = np.full((n, len(self.conditions)), np.nan)
            columns = [*self.columns, *self.conditions]
            return make_frame(self.library, columns, np.hstack([cells, conditions]), index)
        if self.takes_arrays:
            return self.arrange(cells)
        parts = [_without_times(column.decode(part)) for column, part in self._pairs(cells)]
        values: list[Any] = [0] * len(self.conditions)
        if conditions is not None:
            pairs = zip(self.conditions, conditions.T, strict=True)
            values = [column.decode(part) for column, part in pairs]
        dtypes = {_result_dtype(np.asarray(value), cells.dtype) for value in [*parts, *values]}
        rows = np.empty((n, self.n_columns), np.result_type(*dtypes, cells.dtype))
        if not parts:
            rows[:, self.modelled] = cells
        for j, part in zip(self.modelled[: len(parts)], parts, strict=True):
            rows[:, j] = part
        for column, value in zip(self.conditions, values, strict=True):
            rows[:, column.index] = value
        return rows

    def complete(self, X: MatrixLike, cells: Floats, conditions: Floats) -> Any:
        """Return a copy of a table, in which missing cells have the values of `cells`.

        All other cells are those of the table, to the bit. A column without an observed cell in the
        first fit is not filled.
        """
        X = as_container(self.shape.as_table(X, self.n_columns))
        if hasattr(X, "columns"):
            plain = [Column(int(j), str(j), None) for j in self.modelled]
            return fill_frame(X, self.columns or plain, self.without_unknown(cells))
        values = self.write(cells, conditions)
        X, values = np.asarray(X), np.asarray(values)
        return np.where(pd.isna(X), values, X)

    def find_missing(self, X: MatrixLike, rows: Rows) -> NDArray[np.bool_]:
        """Return which modelled cells (n, n_modelled) of a table are missing.

        `rows` are those of the table. The cell of an unseen category is missing in them, but it is
        observed in the table.
        """
        missing = np.isnan(rows.modelled)
        X = as_container(self.shape.as_table(X, self.n_columns))
        for j, column in enumerate(self.columns):
            if column.is_category and missing[:, j].any():
                missing[:, j] = as_series(X, column.index).isna()
        return missing

    def as_rows(self, values: Floats) -> Rows:
        """Return cells (n, n_columns) in the order of `Rows` as rows, without checking them."""
        has_missing = self.takes_missing and bool(np.isnan(values).any())
        may_have_missing = self.shape.may_end_early or has_missing
        return Rows(values, self.n_levels, may_have_missing, self.modelled_levels)

    def in_other_units(self) -> Self:
        """Return a copy for rows in other units of numbers, which are written as they are."""
        return replace(self, columns=[column.as_number() for column in self.columns])

    def without_unknown(self, cells: Floats) -> Floats:
        """Return modelled cells, which are NaN in columns without an observed cell in the fit."""
        # A column of categories without an observed cell has no level, so that none is written.
        unknown = [not (c.is_category or np.isfinite(c.low)) for c in self.columns]
        return np.where(unknown, np.nan, cells) if any(unknown) else cells

    def _pairs(self, cells: Floats) -> list[tuple[Column, Floats]]:
        """Return the described modelled columns with their cells."""
        return list(zip(self.columns, cells.T, strict=bool(self.columns)))

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

    def _reads_columns(self, X: MatrixLike) -> bool:
        """Return whether the modelled columns of a table are read one by one."""
        if not self.holds_numbers:
            return True
        return bool(self.columns) and self.takes_missing and not holds_numbers(X)

    def _read(self, X: Any) -> Rows:
        """Read rows from a data frame or an array that `validate_container` has returned."""
        cells = self._read_modelled(X, dtype=FLOATS, estimator=self.owner, input_name="X")
        if not self.conditions:
            return self._make_rows(cells, None)
        indices = [column.index for column in self.conditions]
        return self._make_rows(cells, self._encode_conditions(X, indices))

    def _read_modelled(self, X: MatrixLike, **checks: Any) -> Floats:
        """Validate modelled columns and return their cells, without checking their support."""
        check_unique_names(X, checks["input_name"])
        check_feature_names(self._fitted_validator(), X, reset=False)
        reads_columns = self._reads_columns(X)
        is_container = bool(self.conditions) or reads_columns
        X = self.shape.as_table(as_container(X) if is_container else X, self.n_columns)
        if is_container and X.shape[1:] != (self.n_columns,):
            conditions = "including conditions, " if self.conditions else ""
            raise ValueError(
                f"{checks['input_name']} must have {self.n_columns} columns, {conditions}got shape "
                f"{X.shape}."
            )
        if reads_columns:
            return np.stack([column.encode(X, column.index) for column in self.columns], axis=1)
        if self.conditions:
            X = safe_indexing(X, self.modelled, axis=1)
        read = partial(check_array, **checks)
        indices = self.modelled if self.conditions else None
        cells = read_cells(read, X, self._finiteness, checks["input_name"], indices)
        cells = cells if self.conditions or not self.is_mixed else cells[:, self.modelled]
        return self.shape.check_ends(cells)

    @property
    def _finiteness(self) -> bool | str:
        """Value of the parameter `ensure_all_finite` of scikit-learn's validation functions."""
        return "allow-nan" if self.takes_missing else self.shape.finiteness

    def _encode_conditions(self, X: Any, indices: Sequence[int]) -> Floats:
        """Convert the columns of X at `indices` to cells of shape (n, n_conditions)."""
        pairs = zip(self.conditions, indices, strict=True)
        return np.stack([column.encode_condition(X, j) for column, j in pairs], axis=1)

    def _make_rows(self, cells: Floats, conditions: Floats | None) -> Rows:
        """Make rows after checking the support of modelled cells."""
        cells, has_missing = with_one_nan(cells)
        first = 0
        for block in self.blocks:
            last = first + block.n_columns
            label = partial(self._label_after, first)
            block.support.check(cells[:, first:last], self.owner, label)
            first = last
        values = cells if conditions is None else append_conditions(cells, conditions)
        may_have_missing = self.shape.may_end_early or has_missing
        return Rows(values, self.n_levels, may_have_missing, self.modelled_levels)

    def _label_after(self, first: int, j: int) -> str:
        return self.column_label(first + j)


def _block_order(names: Sequence[str], columns: Sequence[Column]) -> list[int]:
    """Return the positions of modelled columns in the order of blocks."""
    order = [*sorted({*names} - {CATEGORIES}), CATEGORIES]
    rank = {name: i for i, name in enumerate(order)}
    n_levels = levels_of(columns, len(names))
    return sorted(range(len(names)), key=lambda i: (rank[names[i]], n_levels[i], i))


def _has_empty_columns(X: NDArray[Any], index: NDArray[np.intp]) -> bool:
    """Return whether a column of an array, among those at an index, has no observed cell."""
    may_be_empty = index[pd.isna(X[0, index])]
    return bool(pd.isna(X[:, may_be_empty]).all(axis=0).any())


def append_conditions(cells: Floats, conditions: Floats) -> Floats:
    """Append the cells of conditions to the cells of modelled columns."""
    if not conditions.shape[1]:
        return cells
    # Columns that were selected one by one are in Fortran order, but rows are read in blocks.
    return np.ascontiguousarray(np.hstack([cells, conditions.astype(cells.dtype)]))


def _without_times(values: NDArray[Any]) -> NDArray[Any]:
    """Return an array of dates or durations as one of objects, any other array unchanged."""
    return np.asarray(pd.Series(values), dtype=object) if values.dtype.kind in "mM" else values


def _result_dtype(values: NDArray[Any], dtype: Any) -> Any:
    """Return the dtype of a table that holds the values of a column next to cells of `dtype`."""
    if values.dtype.kind == "O":
        return np.dtype(object)
    is_exact = np.array_equal(values.astype(dtype), values, equal_nan=True)
    return dtype if is_exact else np.dtype(np.float64)
