"""Autoencoders that may have conditions: columns that are known, not modelled."""

from numbers import Integral
from typing import Any, ClassVar

from numpy.random import RandomState
from numpy.typing import NDArray

from skae import inference
from skae.base import BaseAutoencoder
from skae.state import Fitted
from skae.table.rows import Floats
from skae.table.schema import ColumnKey, MatrixLike

COLUMN_KEY: list[object] = [str, Integral, slice, callable, "array-like", None]
"""Kinds of values that a parameter may have which names columns."""


class ConditionedAutoencoder(BaseAutoencoder):
    """Base of autoencoders whose decoder sees conditions beside the code."""

    _condition_parameter: ClassVar[str]
    """The parameter that names the columns of conditions; None are none."""

    def _conditions(self) -> tuple[str, ColumnKey]:
        return self._condition_parameter, getattr(self, self._condition_parameter)

    def inverse_transform(self, X: MatrixLike, condition: Any = None) -> NDArray[Any]:
        """Expected rows of codes under a condition.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components)
            Codes.
        condition : scalar, array-like or DataFrame, default=None
            What is given of the rows: a value for all rows, values of one column for each, one
            row of several columns' values for all, or a table with a row for each; columns are in
            the order of `X`, those of a DataFrame are found by their names.

        Returns
        -------
        X_original : ndarray of shape (n_samples, n_features)
            Rows in the user's units, the condition filled in; of objects where it holds texts.

        Raises
        ------
        ValueError
            Where columns are given, but `condition` is None or no condition that training knew.
        """
        fitted = self._read_fitted()
        Z = self._read_codes(X, fitted)
        return inference.decode(Z, self._read_conditions(condition, len(Z), fitted), fitted)

    def _read_conditions(self, condition: Any, n: int, fitted: Fitted) -> Floats | None:
        """The condition of each of `n` codes, which do not tell it."""
        schema = fitted.schema
        if condition is None and not schema.conditions:
            return None
        if condition is None:
            names = ", ".join(column.name for column in schema.conditions)
            raise ValueError(
                "Codes do not tell conditions: inverse_transform needs condition, values of "
                f"{names}."
            )
        return schema.read_conditions(condition, n)

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
        fitted = self._read_fitted()
        rows = fitted.schema.read(X)
        conditions = self._read_conditions(condition, len(rows), fitted)
        return inference.decode(inference.codes(rows, fitted), conditions, fitted)

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
        X_translated : ndarray of shape (n_samples, n_features)
            Rows in the user's units, the condition filled in; of objects where it holds texts.

        Raises
        ------
        ValueError
            Where `condition` is none that training knew.
        """
        return self._sample(n_samples, mean, random_state, condition)
