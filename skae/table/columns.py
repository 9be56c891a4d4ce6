"""Columns that are not modelled as plain numbers: what they hold, read and written one by one."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from skae._compat.sklearn import safe_indexing
from skae.files import Stored

Floats = NDArray[np.floating]

MOST_WHOLE_NUMBERS = 20
"""A column of whole numbers is categorical where it holds at most so many different ones."""


@dataclass(frozen=True)
class Support(Stored):
    """The values that a likelihood takes.

    Attributes
    ----------
    likelihood : str
        Its name.
    low, high : float
        The smallest and the largest value.
    """

    likelihood: str
    low: float
    high: float

    def check(self, X: Floats, owner: str) -> None:
        """Raise ValueError where cells are outside; an estimator called `owner` was given them."""
        if np.isinf([self.low, self.high]).all():
            return
        smallest, largest = np.nanmin(X), np.nanmax(X)
        if smallest < self.low or largest > self.high:
            wrong = "Negative values" if smallest < self.low else f"Values above {self.high:g}"
            raise ValueError(
                f"{wrong} in data passed to {owner}: X ranges from {smallest:.6g} to "
                f"{largest:.6g}, but likelihood={self.likelihood!r} takes values in "
                f"[{self.low:g}, {self.high:g}]. Scale X, for instance with "
                "MinMaxScaler(clip=True), or use likelihood='gaussian'."
            )


@dataclass(frozen=True)
class Column(Stored):
    """A column of numbers or of a category.

    Attributes
    ----------
    index : int
        Its number in the user's table.
    name : str
        What messages call it.
    levels : ndarray or None
        The sorted categories; None where it holds numbers.
    """

    index: int
    name: str
    levels: NDArray[Any] | None

    @classmethod
    def infer(cls, X: Any, index: int, name: str) -> Self:
        """The column of a table at an index, its kind decided by its values."""
        values = column_values(X, index, name)
        dtype = getattr(safe_indexing(X, index, axis=1), "dtype", None)
        # A data frame may say of numbers that they are categories.
        is_category = isinstance(dtype, pd.CategoricalDtype)
        return cls(index, name, _levels(values, is_category))

    def check_well_formed(self) -> None:
        """Raise ValueError where a file that holds the column cannot be one of a fit."""
        levels = self.levels
        if levels is not None and (
            levels.ndim != 1
            or not len(levels)
            or (levels.dtype == object and not all(isinstance(level, str) for level in levels))
            or not np.array_equal(levels, np.unique(levels))
        ):
            raise ValueError(f"column {self.name} cannot have the levels {levels!r}")

    @property
    def n_levels(self) -> int:
        """The number of categories; 0 where the column holds numbers."""
        return 0 if self.levels is None else len(self.levels)

    def cells(self, values: NDArray[Any]) -> Floats:
        """Numbers as they are, and the numbers of categories' levels, (n, 1)."""
        if self.levels is None:
            if values.dtype == object:
                raise ValueError(f"Column {self.name} must hold numbers, got {values[0]!r}.")
            return values[:, None]
        place = {level: i for i, level in enumerate(self.levels.tolist())}
        codes, kinds = pd.factorize(values)
        known = np.array([place.get(value, -1) for value in kinds.tolist()], dtype=np.float64)
        if (known < 0).any():
            row = (known[codes] < 0).argmax()
            raise ValueError(
                f"Column {self.name} holds {_said(values[row])} in row {row}, which no row of the "
                f"first fit has: it knows {', '.join(map(_said, self.levels))}."
            )
        return known[codes][:, None]

    def values(self, cells: Floats) -> NDArray[Any]:
        """The user's values of cells (n,)."""
        return cells if self.levels is None else self.levels[cells.astype(np.intp)]

    def classes(self, cells: Floats) -> NDArray[Any]:
        """Categories, or whether numbers are above their median."""
        values = self.values(cells)
        return _upper_half(values) if self.levels is None else values


def column_values(X: Any, index: int, name: str) -> NDArray[Any]:
    """A column's values, numbers or else objects, none of them missing."""
    values = np.asarray(safe_indexing(X, int(index), axis=1)).ravel()
    missing = pd.isna(values)
    if missing.any():
        raise ValueError(
            f"Column {name} is missing (NaN) in row {missing.argmax()}: conditions must be known. "
            "Fill it in or drop the row."
        )
    kind = pd.api.types.infer_dtype(values)
    if kind in ("integer", "floating", "mixed-integer-float", "decimal"):
        numbers = values.astype(np.float64)
        if not np.isfinite(numbers).all():
            raise ValueError(f"Column {name} is infinite in row {np.isinf(numbers).argmax()}.")
        return numbers
    if kind not in ("string", "boolean"):
        raise TypeError(
            f"Column {name}: each argument must be a string, a number or a boolean, one kind of "
            f"them in all rows, got {kind}."
        )
    return values.astype(object)


def _levels(values: NDArray[Any], is_category: bool) -> NDArray[Any] | None:
    """A column's categories, or None where its values are numbers."""
    kinds = np.unique(values)
    if kinds.dtype == object:
        return kinds.astype(bool) if isinstance(kinds[0], bool | np.bool_) else kinds
    is_whole = bool((kinds == kinds.round()).all())
    return kinds if is_category or (is_whole and len(kinds) <= MOST_WHOLE_NUMBERS) else None


def _upper_half(values: Floats) -> NDArray[np.bool_]:
    """Whether numbers are above their median; at it or above, where it is the largest of all."""
    median = np.median(values)
    above: NDArray[np.bool_] = values > median
    return above if above.any() else values >= median


def _said(value: Any) -> str:
    """A value as messages state it."""
    value = value.item() if isinstance(value, np.generic) else value
    return repr(value).removesuffix(".0")
