"""Numeric and categorical columns of conditions, and the values that a likelihood supports."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from skae._compat.sklearn import safe_indexing
from skae.files import Stored
from skae.parameters import short_repr

Floats = NDArray[np.floating]

MAX_INTEGER_LEVELS = 20
"""A column of whole numbers is categorical if it has at most this many distinct values."""


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
    """A numeric or categorical column.

    Attributes
    ----------
    index : int
        Index of the column in X.
    name : str
        Name of the column, for error messages.
    levels : ndarray or None
        The sorted categories; None for a numeric column.
    """

    index: int
    name: str
    levels: NDArray[Any] | None

    @classmethod
    def infer(cls, X: Any, index: int, name: str) -> Self:
        """Make the column of X at an index.

        The column is categorical if its values are strings or booleans, if a data frame declares it
        as categorical, or if its values are at most `MAX_INTEGER_LEVELS` distinct whole numbers.
        Raises ValueError or TypeError if its values are invalid, as in `column_values`.
        """
        values = column_values(X, index, name)
        dtype = getattr(safe_indexing(X, index, axis=1), "dtype", None)
        # Numbers are categories if the data frame declares them so.
        is_category = isinstance(dtype, pd.CategoricalDtype)
        return cls(index, name, _levels(values, is_category))

    def _check_state(self) -> None:
        levels = self.levels
        if levels is not None and (
            levels.ndim != 1
            or not len(levels)
            or (levels.dtype == object and not all(isinstance(level, str) for level in levels))
            or not np.array_equal(levels, np.unique(levels))
        ):
            raise ValueError(
                f"the levels of column {self.name!r} must be sorted distinct values, got {levels!r}"
            )

    @property
    def n_levels(self) -> int:
        """Number of categories, which is 0 for a numeric column."""
        return 0 if self.levels is None else len(self.levels)

    def encode(self, values: NDArray[Any]) -> Floats:
        """Convert values of shape (n,) to cells of shape (n, 1): numbers, or indices of levels.

        Raises ValueError if a value is not a number, or if its category is not among the levels.
        """
        if self.levels is None:
            if values.dtype == object:
                raise ValueError(
                    f"Column {short_repr(self.name)} must hold numbers, got "
                    f"{short_repr(values[0])}."
                )
            return values[:, None]
        index = {level: i for i, level in enumerate(self.levels.tolist())}
        codes, found = pd.factorize(values)
        level = np.array([index.get(value, -1) for value in found.tolist()], dtype=np.float64)
        if (level < 0).any():
            row = (level[codes] < 0).argmax()
            raise ValueError(
                f"Column {short_repr(self.name)} must hold categories of the first fit "
                f"({', '.join(self._named_levels())}), got "
                f"{_format_value(values[row])} in row {row}."
            )
        return level[codes][:, None]

    def _named_levels(self) -> list[str]:
        """Format the first categories for an error message."""
        levels = [] if self.levels is None else list(self.levels)
        more = ["..."] * (len(levels) > MAX_NAMED_LEVELS)
        return [*map(_format_value, levels[:MAX_NAMED_LEVELS]), *more]

    def decode(self, cells: Floats) -> NDArray[Any]:
        """Convert cells of shape (n,) to values of the column."""
        return cells if self.levels is None else self.levels[cells.astype(np.intp)]

    def classes(self, cells: Floats) -> NDArray[Any]:
        """Return the categories of cells (n,) or, for numbers, whether they exceed their median.

        If no number exceeds the median, those equal to it count as exceeding it.
        """
        values = self.decode(cells)
        return _is_above_median(values) if self.levels is None else values


def column_values(X: Any, index: int, name: str) -> NDArray[Any]:
    """Read a column of X as an array of float64 numbers, or of objects (strings or booleans).

    Raises ValueError if a value is missing or infinite. Raises TypeError if the values have
    different types, or a type other than string, number or boolean.
    """
    values = np.asarray(safe_indexing(X, int(index), axis=1)).ravel()
    missing = pd.isna(values)
    if missing.any():
        raise ValueError(
            f"Column {short_repr(name)} contains NaN in row {missing.argmax()}. Conditions must "
            "not be missing: impute the value or drop the row."
        )
    kind = pd.api.types.infer_dtype(values)
    if kind in ("integer", "floating", "mixed-integer-float", "decimal"):
        numbers = values.astype(np.float64)
        if not np.isfinite(numbers).all():
            raise ValueError(
                f"Column {short_repr(name)} contains infinity in row {np.isinf(numbers).argmax()}."
            )
        return numbers
    if kind not in ("string", "boolean"):
        raise TypeError(
            f"In column {short_repr(name)}, each argument must be a string, a number or a boolean, "
            f"and all rows must have the same type, got {kind}."
        )
    return values.astype(object)


def _levels(values: NDArray[Any], is_category: bool) -> NDArray[Any] | None:
    """Return the sorted categories of a column, or None if it is numeric."""
    kinds = np.unique(values)
    if kinds.dtype == object:
        return kinds.astype(bool) if isinstance(kinds[0], bool | np.bool_) else kinds
    is_whole = bool((kinds == kinds.round()).all())
    return kinds if is_category or (is_whole and len(kinds) <= MAX_INTEGER_LEVELS) else None


def _is_above_median(values: Floats) -> NDArray[np.bool_]:
    """Mark the numbers above their median, or those equal to it if it is the largest number."""
    median = np.median(values)
    above: NDArray[np.bool_] = values > median
    return above if above.any() else values >= median


def _format_value(value: Any) -> str:
    """Format a value for an error message."""
    value = value.item() if isinstance(value, np.generic) else value
    return short_repr(value).removesuffix(".0")
