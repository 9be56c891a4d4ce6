"""Blocks of modelled columns that have the same likelihood, as the parameter `likelihood` says."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from skae._compat.sklearn import column_indices
from skae.files import Stored
from skae.parameters import short_repr
from skae.table.categories import Categories
from skae.table.columns import Column, Support

ColumnKey = Any
"""Selection of columns as in ColumnTransformer: names, indices, a slice, a mask, or a callable."""

NUMBERS, CATEGORIES = "gaussian", "categorical"
"""Likelihoods of numbers and of categories that `likelihood="auto"` selects."""


@dataclass(frozen=True)
class Block(Stored):
    """Modelled columns that have the same likelihood.

    Attributes
    ----------
    support : Support
        The likelihood, and the interval of the values that it supports.
    n_columns : int
        Number of columns.
    """

    support: Support
    n_columns: int

    def _check_state(self) -> None:
        if self.n_columns < 1:
            raise ValueError(f"a block must have at least one column, got {self.n_columns}")


class Modelling(NamedTuple):
    """How an estimator models columns.

    Attributes
    ----------
    likelihood : str or dict
        The parameter `likelihood`: the name of the likelihood of all columns, "auto", or the
        columns of likelihoods by name.
    supports : dict of str to Support
        Intervals of the values that the likelihoods support, by name.
    categories : Categories or None
        The parameter `categories`.
    reads_all : bool
        Whether columns may hold categories and dates, and cells may be missing.
    """

    likelihood: str | Mapping[str, ColumnKey]
    supports: Mapping[str, Support]
    categories: Categories | None = None
    reads_all: bool = False

    def blocks(self, names: Sequence[str]) -> list[Block]:
        """Return the blocks of columns with these likelihoods, of which equal ones are adjacent."""
        return [Block(self.supports[name], n) for name, n in Counter(names).items()]

    def names(self, X: Any, indices: Sequence[int], columns: Sequence[Column]) -> list[str]:
        """Return the name of the likelihood of each modelled column.

        Parameters
        ----------
        X : data frame or ndarray
            The table.
        indices : sequence of int
            Indices of the modelled columns in X.
        columns : sequence of Column
            The modelled columns. It is empty if all of them are numbers.

        Raises
        ------
        ValueError
            If the parameter selects columns in an invalid way, or if a likelihood does not suit a
            column.
        """
        found = usual_likelihoods(columns, len(indices))
        if isinstance(self.likelihood, str):
            found = found if self.likelihood == "auto" else [self.likelihood] * len(indices)
        else:
            found = self._selected(X, list(indices), found)
        if not columns and CATEGORIES in found:
            raise _holds_numbers(indices[found.index(CATEGORIES)])
        for name, column in zip(found, columns, strict=bool(columns)):
            _check_kind(name, column)
        return found

    def _selected(self, X: Any, indices: list[int], found: list[str]) -> list[str]:
        """Replace the names of the likelihoods of the columns that the parameter selects."""
        assert isinstance(self.likelihood, Mapping)
        chosen: dict[int, str] = {}
        for name, key in self.likelihood.items():
            if name not in self.supports:
                raise ValueError(
                    f"likelihood must select columns for {', '.join(sorted(self.supports))}, got "
                    f"{short_repr(name)}."
                )
            for j in find_columns(X, key, f"likelihood[{name!r}]").tolist():
                if j in chosen:
                    raise ValueError(
                        f"likelihood must not select a column twice, but it selects column {j} for "
                        f"{chosen[j]!r} and for {name!r}."
                    )
                if j not in indices:
                    raise ValueError(
                        f"likelihood[{name!r}] must not select column {j}, which is a condition."
                    )
                chosen[j] = name
        return [chosen.get(j, name) for j, name in zip(indices, found, strict=True)]


def _check_kind(name: str, column: Column) -> None:
    """Raise ValueError unless a likelihood suits the kind of a column."""
    is_flag = column.levels is not None and column.levels.dtype == bool
    if column.n_levels and name != CATEGORIES and not is_flag:
        raise ValueError(
            f"Column {short_repr(column.name)} holds categories, which the likelihood {name!r} "
            "does not support. Set likelihood='auto', or encode them as numbers."
        )
    if not column.n_levels and name == CATEGORIES:
        raise _holds_numbers(column.name)


def _holds_numbers(column: int | str) -> ValueError:
    """Return the error of a column of numbers with a categorical likelihood."""
    return ValueError(
        f"Column {short_repr(column)} holds numbers, which the likelihood 'categorical' does not "
        "support. Convert the column to strings or to a categorical dtype."
    )


def levels_of(columns: Sequence[Column], n: int) -> list[int]:
    """Return the number of levels of each of `n` columns, which is 0 for numbers.

    If `columns` is empty, all columns are numbers.
    """
    return [column.n_levels for column in columns] or [0] * n


def usual_likelihoods(columns: Sequence[Column], n: int) -> list[str]:
    """Return the likelihood that `likelihood="auto"` selects for each of `n` columns."""
    # A column of categories without an observed cell has no levels.
    return [CATEGORIES if n_levels else NUMBERS for n_levels in levels_of(columns, n)]


def find_columns(X: Any, key: ColumnKey, parameter: str) -> np.ndarray:
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
            f"{parameter}={short_repr(key)} must select at least one column of X, got 0."
        )
    return chosen.astype(np.intp)
