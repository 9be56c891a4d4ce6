"""Columns of a table that are given, not modelled: which, what they hold, how networks take it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from numpy.random import RandomState
from numpy.typing import NDArray
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils.validation import check_is_fitted, validate_data

from skae._compat.sklearn import column_indices, safe_indexing
from skae.base import BaseAutoencoder, Floats, MatrixLike, read_weight
from skae.files import Stored
from skae.nn.draws import Draws
from skae.table.rows import hash_rows, merged
from skae.training.split import shuffled

MOST_WHOLE_NUMBERS = 20
"""A column of whole numbers is categorical where it holds at most so many different ones."""

MOST_CONDITIONS = 10_000
"""Training rows' conditions that are kept: they stand for all."""

ColumnKey = Any
"""Columns as ColumnTransformer takes them: names, numbers, a slice, a mask, or a callable."""

COLUMN_KEY: list[object] = [str, Integral, slice, callable, "array-like", None]
"""Kinds of values that a parameter may have which names columns."""


@dataclass
class GivenColumns(Stored):
    """The given columns of a table.

    Attributes
    ----------
    given, modelled : ndarray of int
        The columns' numbers.
    names : list of str
        What messages call the given ones.
    categories : list of ndarray or None
        Of each given column its sorted categories, or None where it holds numbers.
    conditions : ndarray of shape (n_conditions, n_cells)
        Different conditions of training rows, as networks take them.
    weight : ndarray of shape (n_conditions,)
        How often each occurs.
    """

    given: NDArray[np.intp]
    modelled: NDArray[np.intp]
    names: list[str]
    categories: list[NDArray[Any] | None]
    conditions: Floats
    weight: Floats

    @classmethod
    def learn(cls, X: Any, key: ColumnKey, parameter: str) -> Self:
        """Those that `key`, the value of a parameter, names in a table.

        Raises ValueError where there are no such columns, or no others.
        """
        given = found(X, key, parameter)
        modelled = np.setdiff1d(np.arange(X.shape[1]), given)
        if not len(modelled):
            raise ValueError(
                f"{parameter}={key!r} names all {len(given)} feature(s) of X: none is left to be "
                "modelled."
            )
        labels = X.columns if hasattr(X, "columns") else range(X.shape[1])
        names = [str(labels[j]) for j in given]
        columns = [_column(X, j, name) for j, name in zip(given, names, strict=True)]
        declared = [_is_declared(X, j) for j in given]
        categories = [_categories(*pair) for pair in zip(columns, declared, strict=True)]
        none = np.zeros((0, sum(map(_width, categories))))
        return cls(given, modelled, names, categories, none, none[:, 0])

    @property
    def n_cells(self) -> int:
        """Cells that the given columns make for networks."""
        return self.conditions.shape[1]

    @property
    def widths(self) -> list[int]:
        """Cells that each given column makes for networks."""
        return [_width(kinds) for kinds in self.categories]

    def of_cells(self) -> list[int]:
        """Which column each of the cells that networks take is made of."""
        return np.repeat(self.given, self.widths).tolist()

    def told(self, X: Any) -> Floats:
        """The given cells of a table's rows as networks take them, (n_samples, n_cells)."""
        return self._encoded(
            [_column(X, j, name) for j, name in zip(self.given, self.names, strict=True)]
        )

    def read(self, condition: Any, n: int, parameter: str) -> Floats:
        """A condition for each of `n` rows, or one for all, as networks take it.

        Raises ValueError where it is not one.
        """
        wanted = f"{parameter} must hold values of {', '.join(self.names)}"
        if isinstance(condition, pd.Series) and {*self.names} <= {*map(str, condition.index)}:
            condition = {str(name): value for name, value in condition.items()}
        if isinstance(condition, Mapping):
            condition = pd.DataFrame([condition])
        if hasattr(condition, "columns"):
            absent = [name for name in self.names if name not in map(str, condition.columns)]
            if absent:
                raise ValueError(f"{wanted}, but has no column {absent[0]}.")
            order = [[*map(str, condition.columns)].index(name) for name in self.names]
            columns = [
                _column(condition, j, name) for j, name in zip(order, self.names, strict=True)
            ]
        else:
            is_table = isinstance(condition, np.ndarray)
            table = condition if is_table else np.array(condition, dtype=object)
            if table.ndim < 2:
                table = table.reshape((-1, 1) if len(self.names) == 1 else (1, -1))
            if table.ndim > 2 or table.shape[1] != len(self.names):
                raise ValueError(f"{wanted}, in this order, got {condition!r}.")
            columns = [_column(table, j, name) for j, name in enumerate(self.names)]
        told = self._encoded(columns)
        if len(told) not in (1, n):
            raise ValueError(f"{wanted}: one row for all or {n}, got {len(told)}.")
        return np.broadcast_to(told, (n, self.n_cells))

    def _encoded(self, columns: list[NDArray[Any]]) -> Floats:
        pairs = zip(columns, self.categories, self.names, strict=True)
        return np.hstack([_encode(*pair) for pair in pairs])

    def place(self, cells: Floats, told: Floats | None) -> NDArray[Any]:
        """Modelled cells in their columns, beside the given ones or zeros."""
        n = len(cells)
        values: list[Any] = [0] * len(self.given)
        if told is not None:
            values = self.values(told)
        kinds = {_dtype(np.asarray(value), cells.dtype) for value in values}
        rows = np.empty((n, len(self.given) + len(self.modelled)), np.result_type(*kinds))
        rows[:, self.modelled] = cells
        for j, value in zip(self.given, values, strict=True):
            rows[:, j] = value
        return rows

    def values(self, told: Floats) -> list[NDArray[Any]]:
        """Each given column's values, of cells as networks take them."""
        parts = np.split(told, np.cumsum(self.widths)[:-1], axis=1)
        return [
            part[:, 0] if kinds is None else kinds[part.argmax(axis=1)]
            for part, kinds in zip(parts, self.categories, strict=True)
        ]

    def classes(self, told: Floats) -> dict[str, NDArray[Any]]:
        """Each given column's classes by its name; numbers are above their median or not."""
        pairs = zip(self.names, self.categories, self.values(told), strict=True)
        return {
            name: _upper_half(values) if kinds is None else values for name, kinds, values in pairs
        }

    def counting(self, told: Floats, weight: Floats) -> Self:
        """These columns, with more training rows' conditions and how often each row counts."""
        told, weight = np.vstack([self.conditions, told]), np.append(self.weight, weight)
        hashes = hash_rows(told, 0)
        index, total = merged(weight, hashes)
        some = shuffled(hashes[index], MOST_CONDITIONS)
        return replace(self, conditions=told[index[some]], weight=total[some])

    def draw(self, n: int, draws: Draws) -> Floats:
        """Conditions of training rows, each as often as it occurs."""
        ends = self.weight.cumsum() / self.weight.sum()
        chosen = np.searchsorted(ends, draws.uniform((n,)).cpu().numpy(), side="right")
        return self.conditions[chosen.clip(max=len(ends) - 1)]


def found(X: Any, key: ColumnKey, parameter: str) -> NDArray[np.intp]:
    """Numbers of the columns of a table that `key`, the value of a parameter, names.

    Raises ValueError where there are none.
    """
    try:
        given = np.unique(column_indices(X, key(X) if callable(key) else key))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{parameter}={key!r} must name columns of X: {error}") from None
    if not len(given):
        raise ValueError(f"{parameter}={key!r} names no column of X; None is for that.")
    return given.astype(np.intp)


def as_container(X: Any) -> Any:
    """A table whose columns can be taken one by one, each with its own kind of values."""
    if hasattr(X, "columns") or hasattr(X, "dtype"):
        return X
    return np.asarray(X) if hasattr(X, "__array__") else np.array(X, dtype=object)


def _dtype(values: NDArray[Any], dtype: Any) -> Any:
    """The kind of rows that can hold a column's values beside cells of a kind."""
    if values.dtype.kind == "O":
        return np.dtype(object)
    return dtype if (values.astype(dtype) == values).all() else np.dtype(np.float64)


def _upper_half(values: Floats) -> NDArray[np.bool_]:
    """Whether numbers are above their median; at it or above, where it is the largest of all."""
    median = np.median(values)
    above: NDArray[np.bool_] = values > median
    return above if above.any() else values >= median


def _is_declared(X: Any, j: int) -> bool:
    """Whether a column of a data frame says that it holds categories, numbers though they be."""
    dtype = getattr(safe_indexing(X, int(j), axis=1), "dtype", None)
    return isinstance(dtype, pd.CategoricalDtype)


def _column(X: Any, j: int, name: str) -> NDArray[Any]:
    """A column's values, numbers or else objects, none of them missing."""
    values = np.asarray(safe_indexing(X, int(j), axis=1)).ravel()
    missing = pd.isna(values)
    if missing.any():
        raise ValueError(
            f"Column {name} is missing (NaN) in row {missing.argmax()}: what is given must be "
            "known. Fill it in or drop the row."
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


def _categories(values: NDArray[Any], is_declared: bool) -> NDArray[Any] | None:
    """A column's categories, or None where its values are numbers."""
    kinds = np.unique(values)
    if kinds.dtype == object:
        return kinds.astype(bool) if isinstance(kinds[0], bool | np.bool_) else kinds
    is_whole = bool((kinds == kinds.round()).all())
    return kinds if is_declared or (is_whole and len(kinds) <= MOST_WHOLE_NUMBERS) else None


def _said(value: Any) -> str:
    """A value as messages state it."""
    value = value.item() if isinstance(value, np.generic) else value
    return repr(value).removesuffix(".0")


def _width(categories: NDArray[Any] | None) -> int:
    return 1 if categories is None else len(categories)


def _encode(values: NDArray[Any], categories: NDArray[Any] | None, name: str) -> Floats:
    """Numbers as they are, categories one-hot."""
    if categories is None:
        if values.dtype == object:
            raise ValueError(f"Column {name} must hold numbers, got {values[0]!r}.")
        return values[:, None]
    place = {category: i for i, category in enumerate(categories.tolist())}
    codes, kinds = pd.factorize(values)
    known = np.array([place.get(value, -1) for value in kinds.tolist()], dtype=np.intp)
    if (known < 0).any():
        row = (known[codes] < 0).argmax()
        raise ValueError(
            f"Column {name} holds {_said(values[row])} in row {row}, which no row of the first fit "
            f"has: it knows {', '.join(map(_said, categories))}."
        )
    return np.eye(len(categories))[known[codes]]


class WithGivenColumns(BaseAutoencoder):
    """Autoencoders to which columns may be given: their decoder sees these beside the code."""

    _given_parameter: ClassVar[str]
    """The parameter that names the given columns; None are none."""

    def _read_rows(self, X: MatrixLike, reset: bool = False, **checks: Any) -> Floats:
        key = getattr(self, self._given_parameter)
        if reset:
            self._columns_ = None
        if self._columns_ is None and (key is None or not reset):
            return super()._read_rows(X, reset, **checks)
        X = as_container(X)
        if not hasattr(X, "columns"):
            X = check_array(X, dtype=None, ensure_all_finite=False, estimator=self, **checks)
        validate_data(self, X, reset=reset, skip_check_array=True)
        if reset:
            self._columns_ = GivenColumns.learn(X, key, self._given_parameter)
        kinds = [np.float64, np.float32]
        cells = self._read_cells(X, reset, dtype=kinds, estimator=self, input_name="X", **checks)
        told = self._columns_.told(X)
        return np.hstack([self._check_range(cells, reset), told.astype(cells.dtype)])

    def _read_training_rows(
        self,
        X: MatrixLike,
        sample_weight: MatrixLike | None,
        X_corrupted: MatrixLike | None,
        first: bool,
    ) -> tuple[Floats, Floats, Floats | None, NDArray[np.bool_]]:
        """Rows of no weight are left out before they are read: they decide no category."""
        key = getattr(self, self._given_parameter)
        if not first:
            self._refuse_other_columns(X, key)
        if key is None:
            return super()._read_training_rows(X, sample_weight, X_corrupted, first)
        X, counts = as_container(X), None
        if sample_weight is not None and len(X.shape) == 2:
            weight = read_weight(sample_weight, np.empty((X.shape[0], 1)))
            counts = weight > 0
            some = np.flatnonzero(counts)
            X, sample_weight = safe_indexing(X, some), weight[some]
            if X_corrupted is not None:
                X_corrupted = as_container(X_corrupted)
                check_consistent_length(X_corrupted, counts)
                X_corrupted = safe_indexing(X_corrupted, some)
        rows, left, spoilt, all_count = super()._read_training_rows(
            X, sample_weight, X_corrupted, first
        )
        assert self._columns_ is not None
        self._columns_ = self._columns_.counting(rows[:, self._n_modelled :], left)
        return rows, left, spoilt, all_count if counts is None else counts

    def _refuse_other_columns(self, X: MatrixLike, key: ColumnKey) -> None:
        """Raise ValueError where training is to go on with other given columns."""
        name = self._given_parameter
        now = [] if key is None else found(as_container(X), key, name).tolist()
        before = [] if self._columns_ is None else self._columns_.given.tolist()
        if now != before:
            raise ValueError(
                f"{name}={key!r} names the columns {now}, but those of the first fit were "
                f"{before}, so training cannot go on from it. Restore it, or fit anew with "
                "warm_start=False."
            )

    @property
    def _n_modelled(self) -> int:
        return self.n_features_in_ if self._columns_ is None else len(self._columns_.modelled)

    @property
    def _n_given(self) -> int:
        return 0 if self._columns_ is None else self._columns_.n_cells

    def _modelled(self, X: MatrixLike) -> MatrixLike:
        if self._columns_ is None:
            return X
        X = as_container(X)
        if X.shape[1:] != (self.n_features_in_,):
            raise ValueError(
                f"Rows must have {self.n_features_in_} columns, those given among them, got shape "
                f"{X.shape}."
            )
        return safe_indexing(X, self._columns_.modelled, axis=1)

    def _place(self, cells: Floats, told: Floats | None = None) -> Floats:
        return cells if self._columns_ is None else self._columns_.place(cells, told)

    def _column(self, j: int) -> int:
        if self._columns_ is None:
            return j
        return int([*self._columns_.modelled, *self._columns_.of_cells()][j])

    def _condition(self, condition: Any, n: int) -> Floats:
        """A condition that a user states, for each of `n` rows, as networks take it."""
        check_is_fitted(self)
        if self._columns_ is None:
            raise ValueError(
                f"condition must be None: {self._given_parameter}=None gives no columns."
            )
        return self._columns_.read(condition, n, "condition")

    def inverse_transform(self, Z: MatrixLike, condition: Any = None) -> NDArray[Any]:
        """Expected rows of codes under a condition.

        Parameters
        ----------
        Z : array-like of shape (n_samples, n_components_)
            Codes.
        condition : scalar, array-like or DataFrame, default=None
            What is given of the rows: a value for all rows, values of one column for each, one
            row of several columns' values for all, or a table with a row for each; columns are in
            the order of `X`, those of a DataFrame are found by their names.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features_in_)
            Rows in the user's units, the condition filled in; of objects where it holds texts.

        Raises
        ------
        ValueError
            Where columns are given, but `condition` is None or no condition that training knew.
        """
        Z = self._read_codes(Z)
        if condition is None and self._columns_ is None:
            return self._restored(Z)
        if condition is None and self._columns_ is not None:
            raise ValueError(
                "Codes do not tell what is given: inverse_transform needs condition, values of "
                f"{', '.join(self._columns_.names)}."
            )
        told = self._condition(condition, len(Z))
        return self._restored(np.hstack([Z, told.astype(Z.dtype)]))

    def translate(self, X: MatrixLike, condition: Any) -> NDArray[Any]:
        """Rows as they would be under another condition: their codes, decoded under that.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.
        condition : scalar, array-like or DataFrame
            As `inverse_transform` takes it.

        Returns
        -------
        X_translated : ndarray of shape (n_samples, n_features)
            Expected rows, the condition filled in; of objects where it holds texts.

        Raises
        ------
        ValueError
            Where `condition` is none that training knew.
        """
        return self.inverse_transform(self._codes(X), condition)

    def sample(
        self,
        n_samples: int = 1,
        mean: bool = False,
        random_state: int | RandomState | None = None,
        condition: Any = None,
    ) -> NDArray[Any]:
        """Draw rows from the model: a code from its distribution, a row from the likelihood.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        mean : bool, default=False
            Return the expected rows of the drawn codes, without the likelihood's noise.
        random_state : int, RandomState instance or None, default=None
            Decides the draws.
        condition : scalar, array-like or DataFrame, default=None
            As `inverse_transform` takes it; None draws the conditions of training rows, too.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features_in_)
            Rows in the user's units, the condition filled in; of objects where it holds texts.

        Raises
        ------
        ValueError
            Where `condition` is none that training knew.
        """
        check_is_fitted(self)
        if condition is None:
            told = None if self._columns_ is None else self._columns_.draw
            return self._sample(n_samples, mean, random_state, told)
        return self._sample(
            n_samples, mean, random_state, lambda n, draws: self._condition(condition, n)
        )
