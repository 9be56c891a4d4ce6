"""Columns of a table, and the values that a likelihood supports."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from skae._compat.sklearn import safe_indexing
from skae.files import Stored
from skae.parameters import is_integer, short_repr
from skae.table.categories import Categories
from skae.table.cells import column_label
from skae.table.containers import is_frame
from skae.table.dtypes import FrameDtype, PandasDtype
from skae.table.kinds import (
    KINDS,
    TIME_STEPS,
    as_series,
    is_whole,
    kind_of,
    kind_or_none,
    read_categories,
    read_numbers,
    read_times,
    write_times,
)

Floats = NDArray[np.floating]

MAX_INTEGER_LEVELS = 20
"""A column of whole numbers is categorical if it has at most this many distinct values."""


MAX_NUMBER = float(np.finfo(np.float64).max)
"""Largest number that a column of numbers without a range of its own writes."""

INFREQUENT = "infrequent"
"""Text that is written for the level of infrequent categories."""

MAX_NAMED_LEVELS = 20
"""Maximum number of categories that an error message lists."""


@dataclass(frozen=True)
class Support(Stored):
    """Interval of the values that a likelihood supports.

    Attributes
    ----------
    likelihood : str
        Name of the likelihood, for error messages.
    low, high : float
        Smallest and largest supported value, which may be infinite.
    """

    likelihood: str
    low: float
    high: float

    def check(self, X: Floats, owner: str, describe: Callable[[int], str]) -> None:
        """Raise ValueError if observed cells are outside the interval.

        The error message contains `owner`, the class name of the estimator, and the label of a
        column, which `describe` returns.
        """
        if np.isinf([self.low, self.high]).all():
            return
        smallest, largest = np.nanmin(X), np.nanmax(X)
        if smallest < self.low or largest > self.high:
            invalid = "Negative values" if smallest < self.low else f"Values above {self.high:g}"
            row, column = np.argwhere(self.low > X if smallest < self.low else self.high < X)[0]
            raise ValueError(
                f"{invalid} in data passed to {owner}: column {describe(column)} of X contains "
                f"{X[row, column]:.6g} in row {row}, and X ranges from {smallest:.6g} to "
                f"{largest:.6g}, but likelihood={self.likelihood!r} supports values in "
                f"[{self.low:g}, {self.high:g}]. Scale X, for instance with "
                "MinMaxScaler(clip=True), or use likelihood='gaussian'."
            )


@dataclass(frozen=True)
class Column(Stored):
    """A column of a table: what its cells mean, and how the values of the user are written.

    A cell is a number. It is the value of a number, the index of the level of a category, the
    number of seconds since `origin` of a date, or the number of seconds of a duration. A missing
    cell is NaN.

    Attributes
    ----------
    index : int
        Index of the column in X.
    name : str
        Name of the column, for error messages.
    levels : ndarray or None
        The sorted categories with a level of their own: texts, booleans or numbers. None if the
        column is not categorical.
    kind : {"number", "category", "date", "duration"}
        Kind of the column.
    infrequent : ndarray or None
        The sorted categories that share one level, which is the last one. None if there are none.
    handle_unknown : {"missing", "error"}
        Whether the cell of an unknown category is missing, or an error.
    low, high : float
        Smallest and largest cell of the fit. They are infinite if all cells were missing, and for
        categories.
    step : float
        Cells are written as multiples of it that are at least `low` and at most `high`: 1 for whole
        numbers. For dates and durations, it is in seconds. 0 means that cells are continuous.
    origin : int
        The earliest date of the fit, in nanoseconds since 1970 in UTC.
    dtype : PandasDtype, FrameDtype or None
        Dtype of the column in the data frame of the fit. None if X was an array.
    label : str, int or tuple
        Label of the column in the data frame of the fit. It is a tuple if the columns have several
        levels, as those of a MultiIndex of pandas.
    is_missing_level : bool
        Whether missing cells of a categorical condition have a level of their own, the last one.
    """

    index: int
    name: str
    levels: NDArray[Any] | None
    kind: str = "number"
    infrequent: NDArray[Any] | None = None
    handle_unknown: str = "missing"
    low: float = -np.inf
    high: float = np.inf
    step: float = 0.0
    origin: int = 0
    dtype: PandasDtype | FrameDtype | None = None
    label: str | int | Sequence[str | int] = ""
    is_missing_level: bool = False

    @classmethod
    def infer(cls, X: Any, index: int, name: str, categories: Categories | None = None) -> Self:
        """Make the modelled column of X at an index. Its dtype decides its kind.

        Texts, booleans and categories of a data frame are categorical. Integers, floats and objects
        that are numbers are numbers. If all objects are missing, the column is one of numbers.

        Parameters
        ----------
        X : data frame, or ndarray of shape (n_samples, n_columns)
            The training table.
        index : int
            Index of the column.
        name : str
            Name of the column, for error messages.
        categories : Categories or None, default=None
            How categories become levels. None is `Categories()`.

        Returns
        -------
        column : Column
            The column. Without any observed cell, a categorical column has no levels, and all its
            later cells are missing.

        Raises
        ------
        ValueError
            If a value is infinite or a parameter of `categories` is invalid.
        TypeError
            If the values have different types, or a type that no kind of column has.
        """
        categories = Categories() if categories is None else categories
        categories.check()
        series = as_series(X, index)
        column = cls._plain(X, index, name, None)
        kind = kind_of(series, column._describe)
        if kind == "category":
            codes, values = read_categories(series, column._describe)
            order = np.argsort(values)
            counts = np.bincount(codes[codes >= 0], minlength=len(values))
            levels, infrequent = categories.group(values[order], counts[order])
            unknown = categories.handle_unknown if len(values) else "missing"
            return replace(
                column, kind=kind, levels=levels, infrequent=infrequent, handle_unknown=unknown
            )
        step, origin = 0.0, 0
        if kind == "number":
            cells = read_numbers(series, column._describe)
            # Arrays have one dtype for all columns, which says nothing about a single one.
            is_array = isinstance(X, np.ndarray) and X.dtype != object
            step = float(is_whole(series) and not is_array)
        else:
            times = read_times(series, kind, column._describe)
            origin = times.earliest() if kind == "date" else 0
            step = times.step(origin)
            cells = times.since(origin)
        low, high = -np.inf, np.inf
        if not np.isnan(cells).all():
            low, high = float(np.nanmin(cells)), float(np.nanmax(cells))
        return replace(column, kind=kind, low=low, high=high, step=step, origin=origin)

    @classmethod
    def of_condition(cls, X: Any, index: int, name: str) -> Self:
        """Make the column of X at an index, which is a condition.

        The column is categorical if its values are strings or booleans, if a data frame declares it
        as categorical, or if its values are at most `MAX_INTEGER_LEVELS` distinct whole numbers.
        Raises ValueError or TypeError if its values are invalid, as in `column_values`, if all
        values are missing, or if values of a column that is not categorical are.
        """
        values, missing = column_values(X, index, name)
        if missing.all():
            raise ValueError(
                f"Column {short_repr(name)} has no observed cell, so that it cannot be a "
                "condition. Fill in its cells, or do not select it."
            )
        dtype = getattr(safe_indexing(X, index, axis=1), "dtype", None)
        # Numbers are categories if the data frame declares them so.
        levels = _levels(values[~missing], isinstance(dtype, pd.CategoricalDtype))
        column = replace(cls._plain(X, index, name, levels), handle_unknown="error")
        if levels is None:
            # The range is left out, because files do not contain values of numeric conditions.
            _check_observed(missing, name)
            return column
        return replace(column, kind="category", is_missing_level=bool(missing.any()))

    @classmethod
    def _plain(cls, X: Any, index: int, name: str, levels: NDArray[Any] | None) -> Self:
        """Make a continuous column of numbers with the dtype and the label that it has in X."""
        column = cls(index, name, levels, label=index)
        if isinstance(X, pd.DataFrame):
            label, dtype = X.columns[index], PandasDtype.of(X.iloc[:, index], column._describe)
            if isinstance(X.columns, pd.MultiIndex):
                return replace(column, label=tuple(map(_as_label, label)), dtype=dtype)
            return replace(column, label=_as_label(label), dtype=dtype)
        if not is_frame(X):
            return column
        series = nw.from_native(X, eager_only=True)[:, index]
        return replace(column, label=series.name, dtype=FrameDtype.of(series))

    @classmethod
    def _from_stored_state(cls, state: dict[str, Any]) -> Any:
        if state.keys() == {"index", "name", "levels"}:
            # In earlier files, columns are conditions and have no other fields.
            kind = "number" if state["levels"] is None else "category"
            defaults = {field.name: field.default for field in fields(cls)}
            state = defaults | state
            state |= {"kind": kind, "handle_unknown": "error", "label": state["name"]}
        return super()._from_stored_state(state)

    def _check_state(self) -> None:
        parts = [part for part in (self.levels, self.infrequent) if part is not None]
        is_empty = self.handle_unknown == "error" and not self.n_levels
        if any(not _are_levels(part) for part in parts) or (parts and is_empty):
            raise ValueError(
                f"the levels of column {self.name!r} must be sorted distinct values, got "
                f"{parts[0]!r}"
            )
        if len(parts) == 2 and (
            not len(parts[1])
            or (len(parts[0]) and parts[0].dtype.kind != parts[1].dtype.kind)
            or len(np.unique(np.concatenate(parts))) < sum(map(len, parts))
        ):
            raise ValueError(f"the infrequent levels of column {self.name!r} must be other levels")
        if self.kind not in KINDS or (self.kind == "category") != (self.levels is not None):
            raise ValueError(f"the kind {self.kind!r} of column {self.name!r} contradicts levels")
        if self.infrequent is not None and self.levels is None:
            raise ValueError(f"column {self.name!r} has infrequent levels, but no levels")
        if self.handle_unknown not in ("missing", "error"):
            raise ValueError(f"handle_unknown of a Column cannot be {self.handle_unknown!r}")
        steps = (0, 1) if self.kind == "number" else (0,) if self.is_category else TIME_STEPS
        is_unknown = (self.low, self.high) == (-np.inf, np.inf)
        is_range = is_unknown or -np.inf < self.low <= self.high < np.inf
        if not is_range or self.step not in steps:
            raise ValueError(
                f"column {self.name!r} cannot have the range {self.low:g} to {self.high:g} and the "
                f"step {self.step:g}"
            )
        if abs(self.origin) >= 2**62 * 10**9 or (self.origin and self.kind != "date"):
            raise ValueError(f"column {self.name!r} cannot have the origin {self.origin}")

    def as_number(self) -> Self:
        """Return a copy that reads the same cells, but writes numbers of any size as they are.

        A categorical column is returned unchanged.
        """
        if self.is_category:
            return self
        high = MAX_NUMBER if np.isfinite(self.low) else np.inf
        kept = replace(self, kind="number", low=-high, high=high)
        return replace(kept, step=0.0, origin=0, dtype=None)

    def with_dtype_of(self, X: Any) -> Self:
        """Return a copy that writes values with the dtype of this column in a data frame.

        If the column has no observed cell there, and its dtype is one of another kind, the dtype
        stays that of the fit.
        """
        series = as_series(X, self.index)
        if series.isna().all() and kind_or_none(series) != self.kind:
            return self
        return replace(self, dtype=self._plain(X, self.index, self.name, None).dtype)

    @property
    def n_levels(self) -> int:
        """Number of levels, which is 0 for numbers, dates and durations."""
        n = 0 if self.levels is None else len(self.levels)
        return n + (self.infrequent is not None) + self.is_missing_level

    @property
    def is_category(self) -> bool:
        """Whether cells are indices of levels."""
        return self.levels is not None

    @property
    def is_observed_number(self) -> bool:
        """Whether cells are numbers, of which some were observed in the fit."""
        return self.kind == "number" and bool(np.isfinite(self.low))

    @property
    def holds_texts(self) -> bool:
        """Whether the column has categories that are texts."""
        return self.levels is not None and self.levels.dtype == object

    def encode(self, X: Any, position: int) -> NDArray[np.float64]:
        """Convert the column at a position of a table to cells of shape (n,).

        Raises ValueError if a value is infinite or not a number, or if its category is unknown and
        `handle_unknown` is "error". Raises TypeError if a value has another type than in the fit.
        """
        series = as_series(X, position)
        if self.kind == "number":
            return read_numbers(series, self._describe)
        if self.kind == "category":
            return self._find_levels(*read_categories(series, self._describe))
        return read_times(series, self.kind, self._describe).since(self.origin)

    def encode_condition(self, X: Any, position: int) -> Floats:
        """Convert the column at a position of a table to cells of shape (n,) of a condition.

        Raises ValueError if a value is not a number, if its category is not among the levels, or if
        it is missing and this is not a level, and the errors of `column_values`.
        """
        values, missing = column_values(X, position, self.name)
        if not self.is_missing_level:
            _check_observed(missing, self.name)
        if self.levels is not None:
            cells = self._find_levels(*pd.factorize(values))
            return np.where(missing, self.n_levels - 1.0, cells)
        if values.dtype == object:
            raise ValueError(
                f"Column {short_repr(self.name)} must hold numbers, got {short_repr(values[0])}."
            )
        return values

    def _find_levels(self, codes: NDArray[np.intp], found: NDArray[Any]) -> NDArray[np.float64]:
        """Convert the distinct values of a column, as `read_categories` returns them, to cells."""
        labels = self._labels
        rare = [] if self.infrequent is None else self.infrequent.tolist()
        index = dict.fromkeys(rare, self.n_levels - 1)
        index |= {label: i for i, label in enumerate(labels.tolist())}
        levels = np.array([index.get(value, np.nan) for value in found.tolist()], dtype=np.float64)
        unknown = np.append(np.isnan(levels), False)[codes]
        cells: NDArray[np.float64] = np.append(levels, np.nan)[codes]
        if not unknown.any():
            return cells
        row = int(unknown.argmax())
        value = found[codes[row]]
        if self.handle_unknown == "error":
            raise ValueError(
                f"Column {short_repr(self.name)} must hold categories of the first fit "
                f"({', '.join(self._named_levels())}), got {_format_value(value)} in row {row}."
            )
        if len(labels) and isinstance(labels[0], str) != isinstance(value, str):
            expected = "a string" if isinstance(labels[0], str) else "a number or a boolean"
            raise TypeError(
                f"In column {self._describe()}, each argument must be {expected}, as in the first "
                f"fit, got {_format_value(value)} in row {row}. Convert the column to this type."
            )
        return cells

    def _named_levels(self) -> list[str]:
        """Format the first categories for an error message."""
        levels = [] if self.levels is None else list(self.levels)
        more = ["..."] * (len(levels) > MAX_NAMED_LEVELS)
        return [*map(_format_value, levels[:MAX_NAMED_LEVELS]), *more]

    def _describe(self) -> str:
        """Return the label of the column for an error message."""
        name = None if self.name == str(self.index) else self.name
        return f"{column_label(self.index, name)} of X"

    def decode(self, cells: Floats) -> NDArray[Any]:
        """Convert cells of shape (n,) to values of the column.

        Returns
        -------
        values : ndarray of shape (n,)
            Numbers, texts, booleans, dates in UTC without a time zone, or durations. Missing cells
            are NaN, None or NaT. The level of infrequent categories is the text "infrequent" if the
            categories are texts. Otherwise, it is its only category, or a missing cell if it has
            several ones.
        """
        if self.levels is not None:
            if self.is_missing_level:
                cells = np.where(cells == self.n_levels - 1, np.nan, cells)
            return _take(self._labels, cells)
        if not self.step and self.kind == "number":
            return cells
        cells = np.clip(cells.astype(np.float64), self.low, self.high)
        if self.kind == "number":
            return np.rint(cells)
        dtype = "datetime64" if self.kind == "date" else "timedelta64"
        return write_times(cells, self.step, self.origin, dtype)

    @property
    def _labels(self) -> NDArray[Any]:
        """The values that are written for the levels."""
        levels = np.empty(0) if self.levels is None else self.levels
        if self.infrequent is None:
            return levels
        if self.infrequent.dtype == object:
            return np.array([*levels, _unused_name(INFREQUENT, levels)], dtype=object)
        if len(self.infrequent) == 1:
            return np.append(levels, self.infrequent)
        if self.infrequent.dtype == bool:
            return np.array([None])
        return np.append(levels.astype(np.float64), np.nan)

    def level_names(self, prefix: str) -> list[str]:
        """Return a name for each level, which begins with a prefix."""
        return [f"{prefix}_{label}" for label in self._labels.tolist()]

    def classes(self, cells: Floats) -> NDArray[Any]:
        """Return the categories of cells (n,) or, for numbers, whether they exceed their median.

        If no number exceeds the median, those equal to it count as exceeding it. If missing cells
        are a category, all categories are texts, and this one is "missing", or "missing_" and so on
        if another category has this name.
        """
        if self.levels is None:
            return _is_above_median(cells)
        values = self.decode(cells)
        if not self.is_missing_level:
            return values
        name = _unused_name("missing", self._labels.astype(str))
        return np.where(pd.isna(values), name, values.astype(str)).astype(object)


def _unused_name(name: str, names: NDArray[Any]) -> str:
    """Append underscores to a name until it is not among some names."""
    while name in names:
        name += "_"
    return name


def _as_label(label: Any) -> str | int:
    """Convert a label of pandas to one that files can contain."""
    return int(label) if is_integer(label) else str(label)


def _check_observed(missing: NDArray[np.bool_], name: str) -> None:
    """Raise ValueError if a cell of a condition is missing."""
    if missing.any():
        raise ValueError(
            f"Column {short_repr(name)} contains NaN in row {missing.argmax()}. Conditions must "
            "not be missing, unless they are categories of which some were missing in the first "
            "fit: impute the value or drop the row."
        )


def column_values(X: Any, index: int, name: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Read a column of X as an array of float64 numbers, or of objects (strings or booleans).

    Returns the values and which of them are missing. If all are missing, they are objects. Raises
    ValueError if a value is infinite. Raises TypeError if the values have different types, or a
    type other than string, number or boolean.
    """
    values = np.asarray(safe_indexing(X, int(index), axis=1)).ravel()
    missing = pd.isna(values)
    if missing.all():
        return values.astype(object), missing
    kind = pd.api.types.infer_dtype(values[~missing])
    if kind in ("integer", "floating", "mixed-integer-float", "decimal"):
        numbers = np.where(missing, np.nan, values).astype(np.float64)
        if np.isinf(numbers).any():
            raise ValueError(
                f"Column {short_repr(name)} contains infinity in row {np.isinf(numbers).argmax()}."
            )
        return numbers, missing
    if kind not in ("string", "boolean"):
        raise TypeError(
            f"In column {short_repr(name)}, each argument must be a string, a number or a boolean, "
            f"and all rows must have the same type, got {kind}."
        )
    return values.astype(object), missing


def _levels(values: NDArray[Any], is_category: bool) -> NDArray[Any] | None:
    """Return the sorted categories of a column, or None if it is numeric."""
    kinds = np.unique(values)
    if kinds.dtype == object:
        return kinds.astype(bool) if isinstance(kinds[0], bool | np.bool_) else kinds
    is_whole = bool((kinds == kinds.round()).all())
    return kinds if is_category or (is_whole and len(kinds) <= MAX_INTEGER_LEVELS) else None


def _take(labels: NDArray[Any], cells: Floats) -> NDArray[Any]:
    """Return the labels of cells, which are indices. Missing ones are NaN, or None in objects."""
    # A column without an observed cell has no labels.
    missing = np.isnan(cells) | (len(labels) == 0)
    # The expected cell of a boolean may lie between its levels.
    cells = np.rint(cells).clip(0, max(0, len(labels) - 1))
    if not missing.any():
        return labels[cells.astype(np.intp)]
    if labels.dtype.kind in "iuf" and len(labels):
        values = np.append(labels.astype(np.float64), np.nan)
    else:
        values = np.array([*labels.tolist(), None], dtype=object)
    return values[np.where(missing, len(labels), cells).astype(np.intp)]


def _are_levels(values: NDArray[Any]) -> bool:
    """Return whether an array can contain levels: sorted distinct texts, booleans or numbers."""
    return (
        values.ndim == 1
        and (values.dtype != object or all(isinstance(value, str) for value in values))
        and np.array_equal(values, np.unique(values))
    )


def _is_above_median(values: Floats) -> NDArray[np.bool_]:
    """Mark the numbers above their median, or those equal to it if it is the largest number."""
    median = np.median(values)
    above: NDArray[np.bool_] = values > median
    return above if above.any() else values >= median


def _format_value(value: Any) -> str:
    """Format a value for an error message."""
    value = value.item() if isinstance(value, np.generic) else value
    return short_repr(value).removesuffix(".0")
